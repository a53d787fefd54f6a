//! An HTTP origin over bare TCP: a function says what it answers, and it keeps what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{AbortHandle, JoinSet},
};
use url::Url;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    /// The first of these headers.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self
            .headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// What the origin answers. It closes the connection after each answer.
#[derive(Clone)]
pub struct Reply {
    status: &'static str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunked: bool,
    /// After so many bytes of the body the connection is cut.
    cut: Option<usize>,
    /// After so many bytes of the body it waits for the gate to open.
    gate: Option<(usize, Arc<Semaphore>)>,
}

impl Reply {
    pub fn new(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            chunked: false,
            cut: None,
            gate: None,
        }
    }

    /// A file that serves ranges and has a validator.
    pub fn file(seen: &Seen, body: &[u8]) -> Self {
        let whole = Self::new("200 OK", body)
            .header("ETag", "\"v1\"")
            .header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
            .header("Accept-Ranges", "bytes");
        let Some(range) = seen.header("range") else {
            return whole;
        };
        let (first, last) = range
            .strip_prefix("bytes=")
            .and_then(|range| range.split_once('-'))
            .expect("nobody asks an origin for several ranges");
        let len = body.len();
        let (start, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => (first, last.saturating_add(1).min(len)),
            (Ok(first), Err(_)) => (first, len),
            (Err(_), Ok(last)) => (len.saturating_sub(last), len),
            _ => panic!("{range}"),
        };
        if start >= end {
            return Self::new("416 Range Not Satisfiable", "out of range")
                .header("Content-Range", &format!("bytes */{len}"));
        }
        Self {
            status: "206 Partial Content",
            body: body[start..end].to_vec(),
            ..whole
        }
        .header("Content-Range", &format!("bytes {start}-{}/{len}", end - 1))
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    pub fn wait_after(mut self, bytes: usize, gate: &Arc<Semaphore>) -> Self {
        self.gate = Some((bytes, gate.clone()));
        self
    }
}

pub struct Origin {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

impl Origin {
    pub async fn new(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (answer, log) = (Arc::new(answer), seen.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, log) = (answer.clone(), log.clone());
                connections.spawn(async move {
                    // Whoever asks may go away.
                    let _ = serve(stream, &log, &*answer).await;
                });
            }
        });
        Self {
            addr,
            seen,
            task: task.abort_handle(),
        }
    }

    /// An origin that serves one file under every name.
    pub async fn of_file(body: &[u8]) -> Self {
        let body = body.to_vec();
        Self::new(move |seen| Reply::file(seen, &body)).await
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.addr).parse().unwrap()
    }

    /// What it was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Seen>>,
    answer: &(dyn Fn(&Seen) -> Reply + Sync),
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let seen = read(&mut stream).await?;
    let reply = answer(&seen);
    let head_only = seen.method == "HEAD";
    log.lock().unwrap().push(seen);
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if reply.chunked {
        head.push_str("Transfer-Encoding: chunked\r\n\r\n");
    } else {
        head.push_str(&format!("Content-Length: {}\r\n\r\n", reply.body.len()));
    }
    stream.write_all(head.as_bytes()).await?;
    if head_only {
        return stream.shutdown().await;
    }
    let sent = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
    let pause = reply.gate.as_ref().map_or(sent, |(at, _)| (*at).min(sent));
    send(&mut stream, &reply.body[..pause], reply.chunked).await?;
    if let Some((_, gate)) = &reply.gate {
        drop(gate.acquire().await.unwrap());
    }
    send(&mut stream, &reply.body[pause..sent], reply.chunked).await?;
    if reply.chunked && reply.cut.is_none() {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    stream.shutdown().await
}

async fn send(
    stream: &mut BufReader<TcpStream>,
    bytes: &[u8],
    chunked: bool,
) -> std::io::Result<()> {
    if !chunked {
        return stream.write_all(bytes).await;
    }
    for chunk in bytes.chunks(100_000) {
        let size = format!("{:x}\r\n", chunk.len());
        stream.write_all(size.as_bytes()).await?;
        stream.write_all(chunk).await?;
        stream.write_all(b"\r\n").await?;
    }
    Ok(())
}

async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Seen> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut seen = Seen {
        method,
        target,
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        seen.headers
            .push((name.to_owned(), value.trim().to_owned()));
    }
    if let Some(length) = seen.header("content-length").and_then(|n| n.parse().ok()) {
        seen.body.resize(length, 0);
        stream.read_exact(&mut seen.body).await?;
    } else if seen.header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).await?;
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await?;
            seen.body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    }
    Ok(seen)
}
