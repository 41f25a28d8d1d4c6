//! Repositories as vendors keep them: flat ones, and those with `Release` and `Release.gpg`. `dpkg-scanpackages` lists them, `gpg` signs
//! them.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    repository::{Vendor, replace},
    world::{APP, Deb, World, run},
};

impl Vendor {
    fn place(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    /// Lists the packages below a directory in that directory, with paths from the repository's address.
    fn list_flat(&self, directory: &str) {
        let scan = format!("dpkg-scanpackages --multiversion {directory} 2>/dev/null >{directory}/Packages");
        run(Command::new("sh").args(["-c", &scan]).current_dir(self.temp.path()));
        self.hash_flat(directory);
    }

    /// A release file over the list that is there, signed within by `shop`.
    fn hash_flat(&self, directory: &str) {
        let hash = "printf 'Origin: Shop\\nDate: %s\\nSHA256:\\n %s %s Packages\\n' \"$(LC_ALL=C date -u '+%a %b %e %H:%M:%S %Y')\" \
                    $(sha256sum Packages | cut -d' ' -f1) $(stat -c %s Packages) >Release; rm -f InRelease Release.gpg";
        run(Command::new("sh").args(["-c", hash]).current_dir(self.place(directory)));
        self.sign("shop", &["--clearsign"], &format!("{directory}/Release"), &format!("{directory}/InRelease"));
    }

    fn sign(&self, who: &str, how: &[&str], release: &str, signed: &str) {
        run(self.gpg(who).args(how).arg("--output").arg(self.place(signed)).arg(self.place(release)));
    }

    fn flat_recipe(&self, world: &World, suite: &str) {
        let text = format!(
            "packages = [\"app\"]\n\n[base.repository.shop]\nurl = \"{}\"\nsuite = \"{suite}\"\nkey = \"shop.asc\"\n",
            self.address
        );
        world.recipe("vendor", &text);
    }
}

#[test]
fn root_packages_of_a_flat_repository_are_installed() {
    let (world, vendor) = (World::new(), Vendor::new());
    world.write("shop.asc", &vendor.key("shop"));
    let stable = vendor.place("stable");
    fs::create_dir(&stable).expect("a directory");
    APP.build(&stable);
    // The list has packages for other machines, which nobody here wants.
    Deb { file: "arm.deb", version: "3.0", architecture: "arm64", ..APP }.build(&stable);
    vendor.list_flat("stable");
    vendor.flat_recipe(&world, "stable/");
    let baked = world.good(&["bake"]);
    assert_eq!(world.read(&baked, "/usr/share/app/about").as_deref(), Some("the first\n"));
    let lock = world.lock();
    assert!(lock.contains("name = \"shop\"\nsuite = \"stable/\""), "{lock}");
    assert!(lock.contains("archive = \"shop\", filename = \"stable/app.deb\""), "{lock}");
    assert_eq!(world.good(&["bake", "--locked"])["image"], baked["image"]);
    // All of it at the address itself, with paths that begin with `./`. It is another repository than that of the lock.
    Deb { file: "app-2.deb", version: "2.0", ..APP }.build(&vendor.place("pool"));
    vendor.list_flat(".");
    vendor.flat_recipe(&world, "/");
    assert_eq!(world.kiln(&["bake", "--locked"]).code, 2);
    world.good(&["bake"]);
    let lock = world.lock();
    assert!(lock.contains("name = \"shop\"\nsuite = \"/\""), "{lock}");
    assert!(
        lock.contains("version = \"2.0\", architecture = \"all\", archive = \"shop\", filename = \"pool/app-2.deb\""),
        "{lock}"
    );
}

#[test]
fn root_a_flat_repository_that_is_changed_or_leads_out_is_refused() {
    let (world, vendor) = (World::new(), Vendor::new());
    world.write("shop.asc", &vendor.key("shop"));
    vendor.key("stranger");
    // What no other test has, for the tests share what was downloaded.
    let app = Deb { files: &[("usr/share/app/about", "the listed one\n")], ..APP };
    app.build(&vendor.place("pool"));
    vendor.flat_recipe(&world, "/");
    vendor.list_flat(".");
    replace(&vendor.place("Packages"), "Version: 1.0", "Version: 9.0");
    let told = world.bad(4);
    assert!(told.contains("wrong content"), "{told}");
    // Signed as it is, and a path that leads out: to a file that is there, with the right hash.
    vendor.list_flat(".");
    fs::create_dir(vendor.place("sub")).expect("a directory");
    for name in ["Packages", "Release"] {
        fs::copy(vendor.place(name), vendor.place("sub").join(name)).expect("copied");
    }
    replace(&vendor.place("sub/Packages"), "Filename: ./pool", "Filename: ./../pool");
    vendor.hash_flat("sub");
    let text = fs::read_to_string(world.directory().join("image.toml")).expect("a recipe");
    world.write("image.toml", &text.replace("\"\nsuite", "/sub\"\nsuite"));
    let told = world.bad(4);
    assert!(told.contains("unusable `Filename` in its paragraph of `app`"), "{told}");
    world.write("image.toml", &text);
    // Signed by another key, and not at all.
    fs::remove_file(vendor.place("InRelease")).expect("removed");
    vendor.sign("stranger", &["--clearsign"], "Release", "InRelease");
    let told = world.bad(4);
    assert!(told.contains("is not accepted by `key = \"shop.asc\"`"), "{told}");
    fs::remove_file(vendor.place("InRelease")).expect("removed");
    let told = world.bad(4);
    assert!(told.contains("/ is not signed: it has neither InRelease nor Release with Release.gpg"), "{told}");
    // Another file under the name of the one that was listed.
    vendor.list_flat(".");
    Deb { files: &[("usr/share/app/about", "the other one\n")], ..APP }.build(&vendor.place("pool"));
    let told = world.bad(4);
    assert!(told.contains("package `app 1.0`"), "{told}");
}

#[test]
fn root_a_release_that_is_signed_beside_is_accepted_and_a_changed_one_is_not() {
    let (world, vendor) = (World::new(), Vendor::new());
    world.write("shop.asc", &vendor.key("shop"));
    vendor.key("stranger");
    APP.build(&vendor.place("pool"));
    vendor.publish(None);
    vendor.recipe(&world, "\"app\"");
    let (release, signature) = ("dists/stable/Release", "dists/stable/Release.gpg");
    vendor.sign("stranger", &["--armor", "--detach-sign"], release, signature);
    let told = world.bad(4);
    assert!(told.contains("is not accepted by `key = \"shop.asc\"`"), "{told}");
    assert!(told.contains("only its own `key` counts for a repository"), "{told}");
    // A good signature of another text, and a good text with a damaged signature.
    vendor.sign("shop", &["--detach-sign"], release, signature);
    replace(&vendor.place(release), "Origin: Shop", "Origin: Shup");
    assert!(world.bad(4).contains("does not match its content"));
    vendor.publish(None);
    vendor.sign("shop", &["--detach-sign"], release, signature);
    let mut bytes = fs::read(vendor.place(signature)).expect("readable");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(vendor.place(signature), bytes).expect("written");
    assert!(world.bad(4).contains("does not match its content"));
    // Whatever the vendor's gpg makes of it: armoured or not, of bytes or of text.
    let mut found = Vec::new();
    for how in [&["--armor", "--detach-sign"][..], &["--detach-sign"], &["--textmode", "--detach-sign"]] {
        vendor.sign("shop", how, release, signature);
        let baked = world.good(&["bake"]);
        assert_eq!(world.read(&baked, "/usr/share/app/about").as_deref(), Some("the first\n"));
        found.push(baked["image"].clone());
        fs::remove_file(world.directory().join("kiln.lock")).expect("removed");
    }
    found.dedup();
    assert_eq!(found.len(), 1, "{found:?}");
}
