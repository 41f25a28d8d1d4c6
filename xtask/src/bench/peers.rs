//! Peers and servers of the host, started for a measurement and gone after it.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::http;
use crate::{Outcome, command::which};

/// A process that is killed when dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.0.kill().is_ok()
            && let Err(error) = self.0.wait()
        {
            eprintln!("a process could not be waited for: {error}");
        }
    }
}

impl Process {
    /// Asks it to end, as a program with children must be asked, and waits for that.
    pub fn end(mut self) -> Outcome {
        crate::command::output(Command::new("kill").arg(self.0.id().to_string()))?;
        self.0.wait()?;
        Ok(())
    }
}

/// Starts a program found on the path.
pub fn spawn(command: &mut Command) -> Outcome<Process> {
    Ok(Process(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
}

/// A port that is free now.
pub fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until it answers 200, at most 10 s.
pub fn wait(address: SocketAddr) -> Outcome {
    let start = Instant::now();
    while !http::answers(address) {
        if start.elapsed() > Duration::from_secs(10) {
            return Err(format!("{address} does not answer").into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// The host's nginx, with a page.
pub struct Nginx {
    program: PathBuf,
    dir: PathBuf,
    pub port: u16,
}

impl Nginx {
    /// Prepared, not started. `page` is the directory of pages.
    pub fn prepare(dir: &Path, pages: &Path) -> Outcome<Self> {
        let program = which("nginx").ok_or("nginx is not installed")?;
        let port = free_port()?;
        fs::create_dir_all(dir)?;
        fs::write(dir.join("nginx.conf"), configuration(dir, pages, &format!("127.0.0.1:{port}")))?;
        Ok(Self { program, dir: dir.to_owned(), port })
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn start(&self) -> Outcome<Process> {
        let mut command = Command::new(&self.program);
        command.args(["-e", "stderr", "-p"]).arg(&self.dir).arg("-c").arg(self.dir.join("nginx.conf"));
        spawn(&mut command)
    }
}

/// One worker, no log, connections that are kept for ever.
pub fn configuration(dir: &Path, pages: &Path, listen: &str) -> String {
    let (dir, pages) = (dir.display(), pages.display());
    format!(
        "daemon off; master_process off; pid {dir}/pid; error_log stderr crit;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 100000000;\n\
           client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;\n\
           uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
           server {{ listen {listen}; root {pages}; }} }}\n"
    )
}

/// HAProxy as a reverse proxy that does what the gateway does: least connections, reused connections, `X-Forwarded-…`.
pub fn haproxy(dir: &Path, port: u16, servers: &[SocketAddr]) -> Outcome<Process> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let servers: String = servers.iter().enumerate().map(|(n, s)| format!("  server s{n} {s}\n")).collect();
    let text = format!(
        "global\n  maxconn 4000\n  nbthread {threads}\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 75s\n  \
         timeout server 60s\n  timeout http-request 10s\n  option forwardfor\n  http-reuse always\nfrontend f\n  bind :{port}\n  \
         http-request set-header X-Forwarded-Proto http\n  http-request set-header X-Forwarded-Host %[req.hdr(Host)]\n  \
         default_backend b\nbackend b\n  balance leastconn\n  option redispatch\n  retries 3\n{servers}"
    );
    fs::create_dir_all(dir)?;
    fs::write(dir.join("haproxy.cfg"), text)?;
    let program = which("haproxy").ok_or("haproxy is not installed")?;
    spawn(Command::new(program).arg("-db").arg("-f").arg(dir.join("haproxy.cfg")))
}

/// Processor time of a process so far, seconds (proc_pid_stat(5): utime and stime in ticks of 10 ms).
pub fn processor_time(pid: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<f64>().ok()).ok_or("no times in stat");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
