//! A receiver of traces on loopback, that answers as it is told.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

/// An answer.
#[derive(Clone)]
pub struct Reply {
    pub status: &'static str,
    pub headers: &'static str,
    pub body: Vec<u8>,
    /// Before it answers.
    pub after: Duration,
}

impl Reply {
    pub fn new(status: &'static str) -> Self {
        Self { status, headers: "", body: b"{}".to_vec(), after: Duration::ZERO }
    }
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Came {
    pub head: String,
    pub body: String,
}

/// A receiver. Its thread ends with the process.
#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    came: Arc<Mutex<Vec<Came>>>,
    reply: Arc<Mutex<Reply>>,
}

impl Receiver {
    pub fn new(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let receiver = Self { url, came: Arc::default(), reply: Arc::new(Mutex::new(reply)) };
        let this = receiver.clone();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| this.take(stream).unwrap_or(())));
        receiver
    }

    /// Answers otherwise from now on.
    pub fn answers(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    /// The requests that came so far.
    pub fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    fn take(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.expect("a request says how long it is")];
        reader.read_exact(&mut body)?;
        self.came.lock().unwrap().push(Came { head, body: String::from_utf8(body).unwrap() });
        let reply = self.reply.lock().unwrap().clone();
        std::thread::sleep(reply.after);
        let Reply { status, headers, body, .. } = reply;
        write!(&stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len())?;
        (&stream).write_all(&body)
    }
}
