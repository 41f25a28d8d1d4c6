//! The real nginx, answering `NAME PATH` to every request.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// An nginx in the foreground with its own directory. Killed when dropped.
pub struct Nginx {
    dir: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Nginx {
    pub fn start(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = super::nobody().port();
        std::fs::write(dir.path().join("nginx.conf"), configuration(dir.path(), port, name)).unwrap();
        let mut nginx = Self { dir, port, child: None };
        nginx.start_again();
        nginx
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn start_again(&mut self) {
        let child = Command::new("nginx")
            .args(["-e", "stderr", "-p"])
            .arg(self.dir.path())
            .arg("-c")
            .arg(self.dir.path().join("nginx.conf"))
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx is installed (Debian package nginx-light)");
        self.child = Some(child);
        let start = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "nginx did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL: connections are reset, the port refuses.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// One process, so that killing it kills all of it.
fn configuration(dir: &Path, port: u16, name: &str) -> String {
    let dir = dir.display();
    format!(
        "daemon off; master_process off; pid {dir}/pid; error_log stderr crit;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n  access_log off; keepalive_requests 50;\n\
           client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;\n\
           uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
           server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"{name} $uri\"; }} }}\n}}\n"
    )
}
