//! The inside of a fake server: nothing but the ends of a few commands.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use kiln_engine::{EngineError, ExecResult, FileStatus, Inside, Phase, Process, ServiceStatus};
use kiln_model::{
    ServerId,
    loss::{Bounds, Place, Written},
};

use super::FakeEngine;

impl FakeEngine {
    fn alive(&self, server: &ServerId) -> Result<(), EngineError> {
        let state = self.state();
        let alive = state.servers.get(server).is_some_and(|fake| fake.seen.phase == Phase::Running);
        if alive { Ok(()) } else { Err(EngineError::Unknown { server: server.clone() }) }
    }
}

/// `true`, `false`, `echo WORD…` and `sh -c "exit N"`, wherever they are said to be.
fn run(command: &[String]) -> ExecResult {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let program = words.first().map_or("", |program| program.rsplit('/').next().unwrap_or(program));
    let (exit, stdout) = match (program, &words[1.min(words.len())..]) {
        ("true", _) => (0, String::new()),
        ("false", _) => (1, String::new()),
        ("echo", rest) => (0, format!("{}\n", rest.join(" "))),
        ("sh", ["-c", script]) => {
            (script.strip_prefix("exit ").and_then(|code| code.trim().parse().ok()).unwrap_or(2), String::new())
        }
        _ => (127, String::new()),
    };
    ExecResult { exit, stdout: stdout.into_bytes(), stderr: Vec::new() }
}

#[async_trait::async_trait]
impl Inside for FakeEngine {
    async fn services(&self, server: &ServerId) -> Result<Vec<ServiceStatus>, EngineError> {
        self.alive(server)?;
        Ok(self.state().servers.get(server).map(|fake| fake.services.clone()).unwrap_or_default())
    }
    async fn exec(
        &self,
        server: &ServerId,
        command: &[String],
        _user: &str,
        _limit: Duration,
        max_bytes: usize,
    ) -> Result<ExecResult, EngineError> {
        self.alive(server)?;
        let mut result = run(command);
        result.stdout.truncate(max_bytes);
        Ok(result)
    }
    async fn stat(&self, server: &ServerId, _path: &str) -> Result<Option<FileStatus>, EngineError> {
        self.alive(server).map(|()| None)
    }
    async fn read(&self, server: &ServerId, _path: &str, _max: usize) -> Result<Option<Vec<u8>>, EngineError> {
        self.alive(server).map(|()| None)
    }
    async fn processes(&self, server: &ServerId) -> Result<Vec<Process>, EngineError> {
        self.alive(server).map(|()| vec![Process { pid: 1, uid: 0, program: "kiln-init".to_owned() }])
    }
    async fn listening(&self, server: &ServerId) -> Result<Vec<SocketAddr>, EngineError> {
        self.alive(server).map(|()| Vec::new())
    }
    async fn written(&self, server: &ServerId, places: &[Place], _: Bounds) -> Result<Vec<Written>, EngineError> {
        self.alive(server)?;
        Ok(places.iter().map(|place| Written::nothing(place.clone(), 0)).collect())
    }
    async fn connections(&self, server: &ServerId) -> Result<u64, EngineError> {
        self.alive(server).map(|()| 0)
    }
    fn control_socket(&self, _server: &ServerId) -> Option<PathBuf> {
        None
    }
    fn spool(&self, _server: &ServerId) -> Option<Vec<PathBuf>> {
        None
    }
}
