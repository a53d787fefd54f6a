//! A scripted HTTP server over bare TCP: each connection gets the next answer of the script, byte
//! for byte, and is then cut.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use pantala_core::{ByteRange, Result};
use pantala_origin::{OriginBody, OriginClient, OriginConfig, OriginRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};

/// What the server does after it has sent an answer.
#[derive(Clone, Copy)]
pub enum Then {
    /// Closes the connection in order.
    Close,
    /// Breaks it with a reset when [`Server::cut`] is called.
    ResetWhenTold,
    /// Keeps it open and sends nothing more.
    Hang,
}

/// One answer, as it goes over the wire.
#[derive(Clone)]
pub struct Answer {
    bytes: Vec<u8>,
    then: Then,
    /// How long it is waited for.
    after: Duration,
}

impl Answer {
    /// `head` is the status line and the headers, a line each.
    pub fn new(head: &str, body: impl AsRef<[u8]>) -> Self {
        let head: Vec<&str> = head
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let mut bytes = format!("HTTP/1.1 {}\r\n\r\n", head.join("\r\n")).into_bytes();
        bytes.extend_from_slice(body.as_ref());
        Self {
            bytes,
            then: Then::Close,
            after: Duration::ZERO,
        }
    }

    /// No answer at all.
    pub fn nothing() -> Self {
        Self {
            bytes: Vec::new(),
            then: Then::Close,
            after: Duration::ZERO,
        }
    }

    pub fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }

    pub fn after(mut self, after: Duration) -> Self {
        self.after = after;
        self
    }
}

/// The server and what it was asked.
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    cut: Arc<Notify>,
    _task: JoinSet<()>,
}

impl Server {
    /// Serves the answers in order; what comes after the last is refused.
    pub async fn new(script: impl IntoIterator<Item = Answer>) -> Self {
        let script: Vec<Answer> = script.into_iter().collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = requests.clone();
        let cut = Arc::<Notify>::default();
        let told = cut.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut held = Vec::new();
            for answer in script {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_head(&mut stream).await;
                seen.lock().unwrap().push(request);
                tokio::time::sleep(answer.after).await;
                // The client may have gone on its own accord.
                let _ = stream.write_all(&answer.bytes).await;
                match answer.then {
                    Then::Close => {
                        let _ = stream.shutdown().await;
                        held.push(stream);
                    }
                    Then::ResetWhenTold => {
                        told.notified().await;
                        stream.set_zero_linger().unwrap();
                    }
                    Then::Hang => held.push(stream),
                }
            }
            drop(listener);
            std::future::pending::<()>().await;
        });
        Self {
            address,
            requests,
            cut,
            _task: task,
        }
    }

    pub fn url(&self, path: &str) -> url::Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    /// Resets the connection that waits for it.
    pub fn cut(&self) {
        self.cut.notify_one();
    }

    /// The heads of the requests so far, lower-case.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// Short pauses: nothing here waits for the clock to prove something.
pub fn config() -> OriginConfig {
    OriginConfig {
        backoff: Duration::from_millis(1),
        ..OriginConfig::default()
    }
}

pub fn client() -> OriginClient {
    OriginClient::new(config()).unwrap()
}

pub fn ask(url: url::Url) -> OriginRequest {
    OriginRequest::new(url)
}

pub fn ask_range(url: url::Url, start: u64, end: Option<u64>) -> OriginRequest {
    OriginRequest {
        range: ByteRange::new(start, end).unwrap(),
        ..OriginRequest::new(url)
    }
}

/// Everything the body hands over.
pub async fn read(body: &mut OriginBody) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(bytes) = body.next().await? {
        assert!(!bytes.is_empty());
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// Everything up to the error that must come.
pub async fn read_to_error(body: &mut OriginBody) -> (Vec<u8>, pantala_core::Error) {
    let mut all = Vec::new();
    loop {
        match body.next().await {
            Ok(Some(bytes)) => all.extend_from_slice(&bytes),
            Ok(None) => panic!("a broken body looked complete after {} bytes", all.len()),
            Err(error) => return (all, error),
        }
    }
}
