//! The smallest client that can tell whether a server answers.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Whether a GET of `/` is answered with 200.
pub fn answers(address: SocketAddr) -> bool {
    ask(address).is_ok_and(|head| head.starts_with(b"HTTP/1.1 200"))
}

/// The beginning of the answer to a GET of `/`.
pub fn ask(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut head = vec![0; 512];
    let length = loop {
        match stream.read(&mut head) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    head.truncate(length);
    Ok(head)
}
