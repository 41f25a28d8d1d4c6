//! Services: those of the image's manifest are what PID 1 says; of any other one the image's own tools are asked, as goss asks
//! them.

use std::time::Duration;

use kiln_model::goss::Value;

use super::{Eyes, Seen, nothing, said};

const ALL: [&str; 3] = ["enabled", "running", "runlevels"];
/// A tool answers within this time.
const LIMIT: Duration = Duration::from_secs(30);
/// Names of levels in which System V's init starts a service; nothing says that there is none.
const SYSV: &str = r#"for f in /etc/rc*.d/S[0-9][0-9]"$0"; do [ -e "$f" ] && echo "$f"; done; :"#;
const OPENRC: &str = r#"for f in /etc/runlevels/*/"$0"; do [ -e "$f" ] && echo "$f"; done; :"#;

impl Eyes<'_> {
    pub(super) async fn service(self, name: &str) -> Seen {
        let states = match self.inside.services(self.server).await {
            Ok(states) => states,
            Err(error) => return nothing(&ALL, &said(error)),
        };
        if let Some(state) = states.iter().find(|state| state.name.as_str() == name) {
            return Seen::from([
                ("enabled", Ok(Value::Bool(true))),
                ("running", Ok(Value::Bool(state.up))),
                ("runlevels", Ok(Value::Texts(Vec::new()))),
            ]);
        }
        if name.contains('/') {
            return self::seen(Ok(false), Ok(false), Ok(Vec::new()));
        }
        if self.has_program("systemctl").await {
            let (enabled, active) = (self.systemctl("is-enabled", name).await, self.systemctl("is-active", name).await);
            return self::seen(enabled, active, Ok(Vec::new()));
        }
        let alpine = self.is_there("/etc/alpine-release").await;
        let levels = self.levels(if alpine { OPENRC } else { SYSV }, name, alpine).await;
        let enabled = levels.clone().map(|levels| !levels.is_empty());
        self::seen(enabled, self.succeeds(&["service", name, "status"]).await, levels)
    }

    async fn systemctl(self, question: &str, name: &str) -> Result<bool, String> {
        self.succeeds(&["systemctl", "-q", question, name]).await
    }

    /// As in goss: without the program nothing can be said.
    async fn succeeds(self, command: &[&str]) -> Result<bool, String> {
        if !self.has_program(command[0]).await {
            return Err(format!("the image has no `{}` to ask, and its manifest no such service", command[0]));
        }
        self.run(command, LIMIT).await.map(|ran| ran.exit == 0).map_err(said)
    }

    async fn levels(self, script: &str, name: &str, alpine: bool) -> Result<Vec<String>, String> {
        let ran = self.run(&["/bin/sh", "-c", script, name], LIMIT).await.map_err(said)?;
        let paths = String::from_utf8_lossy(&ran.stdout).into_owned();
        let level = |path: &str| {
            let directory = path.split('/').nth(if alpine { 3 } else { 2 })?;
            if alpine { Some(directory.to_owned()) } else { number(directory) }
        };
        Ok(paths.lines().filter_map(level).collect())
    }
}

/// `3` of `rc3.d`; `rcS.d` is none.
fn number(directory: &str) -> Option<String> {
    let level = directory.strip_prefix("rc")?.strip_suffix(".d")?;
    (!level.is_empty() && level.bytes().all(|b| b.is_ascii_digit())).then(|| level.to_owned())
}

fn seen(enabled: Result<bool, String>, running: Result<bool, String>, levels: Result<Vec<String>, String>) -> Seen {
    Seen::from([
        ("enabled", enabled.map(Value::Bool)),
        ("running", running.map(Value::Bool)),
        ("runlevels", levels.map(Value::Texts)),
    ])
}
