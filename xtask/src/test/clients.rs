//! Software that was written for EC2, in servers of the real `kiln`: Debian's cloud-init with its Ec2 data source, and the AWS
//! SDK for Rust. `clients/cloud-init` is the project; its own suite asks on test servers, and this asks on a fleet's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    Outcome,
    command::{cargo, output, root, run as run_command, target_dir},
    demo,
};

const SDK: &str = "clients/aws-imds/Cargo.toml";
const HOST: &str = "x86_64-unknown-linux-gnu";

/// Servers that are up, and how to reach them.
struct Clients<'a> {
    kiln: &'a Path,
    state: &'a Path,
}

/// Bakes the project, lets its suite ask, and asks in every server of its group.
pub fn run(kiln: &Path, work: &Path) -> Outcome {
    let (copy, state) = (work.join("clients"), work.join("state"));
    demo::copy_fresh(&root().join("clients/cloud-init"), &copy)?;
    fs::copy(build_sdk_program()?, copy.join("aws-imds"))?;
    let outcome = exercise(kiln, &state, &copy);
    let gone = run_command(Command::new(kiln).arg("--state").arg(&state).args(["down", "--purge", "--accept-loss"]));
    outcome.and(gone)
}

/// Linked with all that it needs: it runs in an image of any suite.
fn build_sdk_program() -> Outcome<PathBuf> {
    let target = target_dir()?.join("clients");
    let mut build = cargo();
    build.args(["build", "--locked", "--manifest-path", SDK, "--target", HOST, "--target-dir"]).arg(&target);
    run_command(build.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    Ok(target.join(HOST).join("debug/aws-imds"))
}

fn exercise(kiln: &Path, state: &Path, project: &Path) -> Outcome {
    let mut up = Command::new(kiln);
    run_command(up.arg("--state").arg(state).arg("up").arg(project))?;
    let clients = Clients { kiln, state };
    let status: Value = serde_json::from_slice(&clients.call(&["status", "--json"])?)?;
    let servers = status["groups"][0]["servers"].as_array().filter(|all| !all.is_empty()).ok_or("no servers")?;
    servers.iter().try_for_each(|server| {
        clients.cloud_init_finds_its_data_source_and_does_what_it_is_told(server)?;
        clients.the_aws_sdk_for_rust_reads_the_metadata(server)
    })
}

impl Clients<'_> {
    fn call(&self, arguments: &[&str]) -> Outcome<Vec<u8>> {
        Ok(output(Command::new(self.kiln).arg("--state").arg(self.state).args(arguments))?.stdout)
    }

    fn inside(&self, server: &Value, command: &[&str]) -> Outcome<String> {
        let id = server["id"].as_str().ok_or("a server has an id")?;
        Ok(String::from_utf8(self.call(&[&["exec", id, "--"], command].concat())?)?)
    }

    fn cloud_init_finds_its_data_source_and_does_what_it_is_told(&self, server: &Value) -> Outcome {
        let known: Value = serde_json::from_str(&self.inside(server, &["cloud-init", "query", "--all"])?)?;
        let (one, data) = (&known["v1"], &known["ds"]["meta-data"]);
        same("instance id", &one["instance-id"], &server["id"])?;
        same("host name", &one["local-hostname"], &server["id"])?;
        same("address", &data["local-ipv4"], &server["address"])?;
        same("group", &data["tags"]["instance"]["kiln-group"], &"ec2".into())?;
        same("platform", &one["platform"], &"ec2".into())?;
        same("document", &known["ds"]["dynamic"]["instance-identity"]["document"]["instanceId"], &server["id"])?;
        let told = self.inside(server, &["cat", "/run/told"])?;
        same("what user data said", &told.into(), &"written by cloud-init\nand run by it\n".into())
    }

    fn the_aws_sdk_for_rust_reads_the_metadata(&self, server: &Value) -> Outcome {
        let said: Value = serde_json::from_str(&self.inside(server, &["/usr/local/bin/aws-imds"])?)?;
        same("instance id", &said["instance_id"], &server["id"])?;
        same("address", &said["local_ipv4"], &server["address"])?;
        same("region", &said["region"], &said["document"]["region"])?;
        same("zone", &said["zone"], &said["document"]["availabilityZone"])?;
        same("document", &said["document"]["instanceId"], &server["id"])?;
        same("what is not there", &said["absent"], &404.into())?;
        let user_data = said["user_data"].as_str().unwrap_or_default();
        same("user data", &user_data.lines().next().into(), &"#cloud-config".into())
    }
}

fn same(what: &str, seen: &Value, wanted: &Value) -> Outcome {
    if seen == wanted && !wanted.is_null() {
        Ok(())
    } else {
        Err(format!("{what}: {seen} in place of {wanted}").into())
    }
}
