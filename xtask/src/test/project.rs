//! An example that is up, as its tests see it: through `kiln`, and through its published port.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Outcome,
    command::{output, root},
};

/// A `kiln` with a state directory, and a directory with a recipe and a fleet of one group.
#[derive(Clone, Copy)]
pub struct Project<'a> {
    pub kiln: &'a Path,
    pub state: &'a Path,
    pub directory: &'a Path,
}

impl Project<'_> {
    /// Brings it up again.
    pub fn up(&self) -> Outcome {
        output(self.call(&["up"]).arg(self.directory)).map(drop)
    }

    /// Replaces every server.
    pub fn rebuild(&self) -> Outcome {
        output(&mut self.call(&["rebuild", &self.name()?])).map(drop)
    }

    /// The name of its group.
    pub fn name(&self) -> Outcome<String> {
        Ok(self.group()?["name"].as_str().ok_or("a group has a name")?.to_owned())
    }

    /// A call of `kiln`.
    pub fn call(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.kiln);
        command.arg("--state").arg(self.state).args(arguments);
        command
    }

    /// Its group, as `status` has it.
    pub fn group(&self) -> Outcome<Value> {
        let mut status: Value = serde_json::from_slice(&output(&mut self.call(&["status", "--json"]))?.stdout)?;
        Ok(status["groups"][0].take())
    }

    /// Where its group answers.
    pub fn address(&self) -> Outcome<SocketAddr> {
        let group = self.group()?;
        let endpoint = group["endpoints"][0].as_str().ok_or("the group has an endpoint")?;
        Ok(endpoint.rsplit('/').next().unwrap_or_default().parse()?)
    }

    /// Ids of the servers that are ready.
    pub fn servers(&self) -> Outcome<Vec<String>> {
        let group = self.group()?;
        let servers = group["servers"].as_array().ok_or("a group has servers")?;
        let ready = servers.iter().filter(|server| server["state"] == "ready");
        Ok(ready.filter_map(|server| server["id"].as_str().map(str::to_owned)).collect())
    }
}

/// A call of the script that gives an example a PostgreSQL.
pub fn database(verb: &str, example: &Path) -> Command {
    let mut script = Command::new("sh");
    script.arg(root().join("examples/database.sh")).arg(verb).arg(example);
    script
}

/// One request; the answer's status and all of it.
pub fn ask(address: SocketAddr, request: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let length = body.len();
    let head = format!("{request}Host: example\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    Ok((status, answer))
}
