//! An HTTP server on loopback that answers each path as it is told to.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

/// What a path answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The content, or the part that is asked for.
    Body(Vec<u8>),
    /// The content, always whole.
    Whole(Vec<u8>),
    /// An empty answer.
    Status(u16),
    /// The head and this many bytes of the content, then the connection ends.
    Cut(Vec<u8>, usize),
    /// The head and this many bytes of the content, then nothing for a long time.
    Stall(Vec<u8>, usize),
    /// One byte at a time, for ever.
    Drip,
    /// Bytes without end and without length.
    Endless,
    /// Somewhere else.
    Redirect(String),
    /// What is no HTTP.
    Noise,
}

#[derive(Default)]
struct State {
    answers: HashMap<String, Vec<Answer>>,
    requests: Vec<String>,
}

/// Runs until the test's process ends.
#[derive(Clone)]
pub struct Server {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { address, state: Arc::default() };
        let answering = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = answering.clone();
                std::thread::spawn(move || server.answer(stream));
            }
        });
        server
    }

    /// The path answers so from now on.
    pub fn set(&self, path: &str, answer: Answer) {
        self.sequence(path, vec![answer]);
    }

    /// The path answers in this order, the last for ever.
    pub fn sequence(&self, path: &str, answers: Vec<Answer>) {
        self.state.lock().unwrap().answers.insert(path.to_owned(), answers);
    }

    /// The server is also a proxy for this host, which does not exist: its paths are ours, and are counted with the whole
    /// address.
    pub const PROXIED: &str = "http://mirror.invalid";

    /// Path and `Range` of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    fn next(&self, path: &str, range: Option<&str>) -> Answer {
        let mut state = self.state.lock().unwrap();
        state.requests.push(format!("{path} {}", range.unwrap_or_default()).trim().to_owned());
        match state.answers.get_mut(path.strip_prefix(Self::PROXIED).unwrap_or(path)) {
            None => Answer::Status(404),
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
        }
    }

    fn answer(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut path, mut range) = (String::new(), None);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end();
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            } else if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                range = Some(value.to_owned());
            } else if line.is_empty() {
                break;
            }
        }
        // The client may hang up at any time; that is its part of the test.
        if let Err(error) = write(stream, self.next(&path, range.as_deref()), range.as_deref()) {
            eprintln!("{path}: {error}");
        }
    }
}

fn write(mut stream: TcpStream, answer: Answer, range: Option<&str>) -> std::io::Result<()> {
    let head = |status: &str, length: usize, more: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n").into_bytes()
    };
    match answer {
        Answer::Body(body) => {
            let from = range.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
            let Some(from) = from.filter(|from| *from < body.len()) else {
                stream.write_all(&head("200 OK", body.len(), ""))?;
                return stream.write_all(&body);
            };
            let (last, total) = (body.len() - 1, body.len());
            let range = format!("Content-Range: bytes {from}-{last}/{total}\r\n");
            stream.write_all(&head("206 Partial Content", total - from, &range))?;
            stream.write_all(&body[from..])
        }
        Answer::Whole(body) => {
            stream.write_all(&head("200 OK", body.len(), ""))?;
            stream.write_all(&body)
        }
        Answer::Status(status) => stream.write_all(&head(&format!("{status} No"), 0, "")),
        Answer::Cut(body, after) => {
            stream.write_all(&head("200 OK", body.len(), ""))?;
            stream.write_all(&body[..after])
        }
        Answer::Stall(body, after) => {
            stream.write_all(&head("200 OK", body.len(), ""))?;
            stream.write_all(&body[..after])?;
            std::thread::sleep(Duration::from_secs(600));
            Ok(())
        }
        Answer::Drip => {
            stream.write_all(&head("200 OK", 1 << 20, ""))?;
            loop {
                stream.write_all(b"x")?;
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[b'x'; 4096])?;
            }
        }
        Answer::Redirect(to) => stream.write_all(&head("302 Found", 0, &format!("Location: {to}\r\n"))),
        Answer::Noise => stream.write_all(b"\x16\x03\x01 this is not the web\r\n\r\n"),
    }
}
