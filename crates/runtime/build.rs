//! Builds `kiln-init` as a static program for this target, to be embedded in this crate.
//!
//! A build of its own, in a target directory of its own: it needs other code generation flags than the rest of the
//! workspace (static linking, small code, abort on panic).

use std::{env, path::PathBuf, process::Command};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let workspace = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace exists");
    for path in ["crates/init/src", "crates/init/Cargo.toml", "crates/boot/src", "crates/boot/Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let target_dir = out.join("init");
    let status = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"))
        .args(["build", "--quiet", "--locked", "--package", "kiln-init", "--profile", "init", "--target", &target])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(&workspace)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "building kiln-init failed");
    println!("cargo::rustc-env=KILN_INIT={}", target_dir.join(target).join("init/kiln-init").display());
}
