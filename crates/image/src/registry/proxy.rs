//! A proxy before a real registry that disturbs what goes through it, for tests.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// What happens to a request.
#[derive(Clone)]
pub(crate) enum Fate {
    /// It goes through.
    Pass,
    /// This answer instead: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// So many bytes of its body go through, then the connection breaks.
    Cut(u64),
    /// So many bytes of the answer's body come back, then the connection breaks.
    Half(u64),
    /// The answer's body comes back with its first byte changed.
    Wrong,
}

/// Decides about the n-th request (from 0) by its head.
type Decide = dyn Fn(usize, &str) -> Fate + Send + Sync;

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(crate) fn start(to: &str, decide: impl Fn(usize, &str) -> Fate + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (heads, to, decide) = (Arc::<Mutex<Vec<String>>>::default(), to.to_owned(), Arc::new(decide));
        let kept = heads.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, to, decide) = (kept.clone(), to.clone(), decide.clone());
                // Broken connections are what it is for.
                std::thread::spawn(move || drop(serve(stream, &to, &kept, decide.as_ref())));
            }
        });
        Self { address, heads }
    }

    /// The first lines of the requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        let heads = self.heads.lock().expect("no panic");
        heads
            .iter()
            .map(|head| head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned())
            .collect()
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }
}

fn serve(client: TcpStream, to: &str, heads: &Mutex<Vec<String>>, decide: &Decide) -> io::Result<()> {
    let mut from_client = BufReader::new(client.try_clone()?);
    let mut client = client;
    let head = read_head(&mut from_client)?;
    let count = {
        let mut heads = heads.lock().expect("no panic");
        heads.push(head.clone());
        heads.len() - 1
    };
    let (fate, length) = (decide(count, &head), content_length(&head));
    if let Fate::Answer(status, headers, body) = &fate {
        io::copy(&mut from_client.take(length), &mut io::sink())?;
        let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
        headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
        client.write_all(format!("{text}\r\n").as_bytes())?;
        return client.write_all(body);
    }
    let mut server = TcpStream::connect(to)?;
    let closing = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    server.write_all(closing.as_bytes())?;
    let through = match fate {
        Fate::Cut(bytes) => bytes.min(length),
        _ => length,
    };
    io::copy(&mut from_client.take(through), &mut server)?;
    if through < length {
        // The registry sees the end and keeps what came.
        server.shutdown(std::net::Shutdown::Write)?;
        io::copy(&mut server, &mut io::sink())?;
        return Ok(());
    }
    let mut from_server = BufReader::new(server);
    let answer = read_head(&mut from_server)?;
    client.write_all(answer.replacen("\r\n", "\r\nconnection: close\r\n", 1).as_bytes())?;
    match fate {
        Fate::Half(bytes) => drop(io::copy(&mut from_server.take(bytes), &mut client)?),
        Fate::Wrong => {
            let mut first = [0];
            from_server.read_exact(&mut first)?;
            client.write_all(&[first[0] ^ 1])?;
            io::copy(&mut from_server, &mut client)?;
        }
        _ => drop(io::copy(&mut from_server, &mut client)?),
    }
    Ok(())
}

pub(super) fn read_head(from: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

pub(super) fn content_length(head: &str) -> u64 {
    let head = head.to_ascii_lowercase();
    head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0)
}
