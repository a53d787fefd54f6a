//! An HTTP client over bare TCP: it knows whether a body was complete.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// How the end of a body was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
    /// By the connection's end.
    Close,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub framing: Framing,
    /// Whether the body ended as its framing says.
    pub complete: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// `GET`s `target` with these headers, a line each.
pub async fn get(proxy: SocketAddr, target: &str, headers: &str) -> Answer {
    let mut head = format!("GET {target} HTTP/1.1\r\nHost: {proxy}\r\nConnection: close\r\n");
    for line in headers.lines() {
        head.push_str(&format!("{}\r\n", line.trim()));
    }
    head.push_str("\r\n");
    exchange(proxy, head.as_bytes()).await
}

/// Sends these bytes and reads the answer to its end.
pub async fn exchange(proxy: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = BufReader::new(TcpStream::connect(proxy).await.unwrap());
    stream.write_all(request).await.unwrap();
    let head_only = request.starts_with(b"HEAD ");
    read(&mut stream, head_only).await
}

/// Reads an answer.
pub async fn read(stream: &mut BufReader<TcpStream>, head_only: bool) -> Answer {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let status = line
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status in {line:?}"));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
        framing: Framing::Close,
        complete: true,
    };
    if head_only || matches!(status, 204 | 304) {
        return answer;
    }
    if answer.header("transfer-encoding").is_some() {
        answer.framing = Framing::Chunked;
        answer.complete = read_chunks(stream, &mut answer.body).await;
    } else if let Some(length) = answer.header("content-length") {
        let length: u64 = length.parse().unwrap();
        answer.framing = Framing::Length;
        let read = stream.take(length).read_to_end(&mut answer.body).await;
        answer.complete = read.is_ok() && answer.body.len() as u64 == length;
    } else {
        answer.complete = stream.read_to_end(&mut answer.body).await.is_ok();
    }
    answer
}

/// Whether the last chunk came.
async fn read_chunks(stream: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> bool {
    loop {
        let mut size = String::new();
        if stream.read_line(&mut size).await.is_err() {
            return false;
        }
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else {
            return false;
        };
        let mut chunk = vec![0; size + 2];
        if stream.read_exact(&mut chunk).await.is_err() {
            return false;
        }
        if size == 0 {
            return true;
        }
        body.extend_from_slice(&chunk[..size]);
    }
}
