//! Clients that ask without pause and check every answer.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use super::wire::{Response, Wire};

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub good: AtomicUsize,
    pub failures: Mutex<Vec<String>>,
}

/// What the clients ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// May be sent again after a server's sudden death.
    Gets,
    /// Every third is a POST with a body, which no proxy may send again.
    GetsAndPosts,
}

/// Running clients.
pub struct Load {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts clients on keep-alive connections; `check` says what is wrong with an answer to a path.
    pub fn start(port: u16, clients: usize, mix: Mix, check: fn(&str, &str) -> bool) -> Self {
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let clients = (0..clients)
            .map(|number| {
                let (seen, stop) = (seen.clone(), stop.clone());
                std::thread::spawn(move || ask(port, number, mix, &seen, &stop, check))
            })
            .collect();
        Self { seen, stop, clients }
    }

    /// Stops, and returns how many answers were right, and all that went wrong.
    pub fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, SeqCst);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        let failures = self.seen.failures.lock().unwrap().clone();
        (self.seen.good.load(SeqCst), failures)
    }
}

fn ask(port: u16, client: usize, mix: Mix, seen: &Seen, stop: &AtomicBool, check: fn(&str, &str) -> bool) {
    let mut wire: Option<Wire> = None;
    let mut number = 0;
    while !stop.load(SeqCst) {
        number += 1;
        let path = format!("/echo/{client}-{number}");
        let body = (mix == Mix::GetsAndPosts && number % 3 == 0).then(|| path.repeat(200));
        let answer = match &mut wire {
            Some(wire) => request(wire, &path, body.as_deref()),
            None => Wire::connect(port).and_then(|new| request(wire.insert(new), &path, body.as_deref())),
        };
        let right = |text: &str| body.as_deref() == Some(text) || check(&path, text);
        match answer {
            Ok(response) if response.status == 200 && right(response.text()) => {
                seen.good.fetch_add(1, SeqCst);
                if response.header("connection") == Some("close") {
                    wire = None;
                }
            }
            other => {
                seen.failures.lock().unwrap().push(format!("{path}: {other:?}"));
                wire = None;
            }
        }
    }
}

fn request(wire: &mut Wire, path: &str, body: Option<&str>) -> std::io::Result<Response> {
    match body {
        None => wire.get(path),
        Some(body) => {
            wire.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()))?;
            wire.response()
        }
    }
}
