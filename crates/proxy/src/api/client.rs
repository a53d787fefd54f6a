//! The programs' side of the local API.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use pantala_core::{Error, Kind, Result, Who};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use super::{END, ERROR, ErrorReport, LENGTH, START, StreamRequest};
use crate::reply::SERVER;

/// How long a dfdaemon on this host may take to say that it is there.
const THERE: Duration = Duration::from_millis(200);
/// How long a connection to it may take.
const CONNECT: Duration = Duration::from_secs(2);
/// The most bytes of an answer that is no content.
const REPORT: usize = 64 << 10;
/// What of the content waits to be read: more costs fewer system calls, and memory.
const BUFFER: usize = 512 << 10;

/// Content that streams from the dfdaemon of this host. Dropping it ends the stream there.
#[derive(Debug)]
pub struct DaemonStream {
    length: Option<u64>,
    start: u64,
    position: u64,
    headers: HeaderMap,
    body: Incoming,
    state: State,
    _connection: Connection,
}

#[derive(Debug)]
enum State {
    Streaming,
    Ended,
    Failed(Error),
}

/// The task that moves the connection's bytes; it ends with its owner.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether a dfdaemon serves at this address; known within 200 ms.
pub async fn is_running(daemon: SocketAddr) -> bool {
    let asked = async {
        let request = Request::get("/healthz")
            .header(header::HOST, daemon.to_string())
            .body(Full::default());
        let Ok(request) = request else { return false };
        let Ok((answer, _connection)) = ask(daemon, request).await else {
            return false;
        };
        let server = answer.headers().get(header::SERVER);
        answer.status() == StatusCode::OK && server.is_some_and(|server| server == SERVER)
    };
    timeout(THERE, asked).await.unwrap_or(false)
}

/// Asks the dfdaemon at this address for content; returns when its first bytes are on the way.
///
/// # Errors
/// What the daemon says of why there is no content, as its own reader would get it; and
/// [`Who::Peer`] [`Kind::Unreachable`] when the daemon itself does not answer.
pub async fn stream(daemon: SocketAddr, request: &StreamRequest) -> Result<DaemonStream> {
    let body = serde_json::to_vec(request)
        .map_err(|error| Error::new(Who::Us, Kind::Internal, error.to_string()))?;
    let mut asked = Request::new(Full::new(Bytes::from(body)));
    *asked.method_mut() = Method::POST;
    *asked.uri_mut() = http::Uri::from_static("/v1/stream");
    let headers = asked.headers_mut();
    if let Ok(host) = HeaderValue::try_from(daemon.to_string()) {
        headers.insert(header::HOST, host);
    }
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    // So that it can say why a stream cannot go on.
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let (answer, connection) = ask(daemon, asked).await?;
    if answer.status() != StatusCode::OK {
        return Err(refusal(daemon, answer).await);
    }
    let number = |name| {
        let value = answer.headers().get(name)?;
        value.to_str().ok()?.parse::<u64>().ok()
    };
    let (length, start) = (number(LENGTH), number(START).unwrap_or(0));
    let (head, body) = answer.into_parts();
    Ok(DaemonStream {
        length,
        start,
        position: start,
        headers: head.headers,
        body,
        state: State::Streaming,
        _connection: connection,
    })
}

impl DaemonStream {
    /// Bytes there will be, when known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The content's offset of the first byte.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The content's offset of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What was said of the content: its type, its validators.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The next bytes; `None` at the end of what was asked for, and only there.
    ///
    /// # Errors
    /// Why the content cannot go on; [`Who::Peer`] [`Kind::Unreachable`] when it is the daemon
    /// that went away. It is final. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match &self.state {
                State::Streaming => {}
                State::Ended => return Ok(None),
                State::Failed(error) => return Err(error.clone()),
            }
            let Some(frame) = self.body.frame().await else {
                self.state = State::Failed(gone("ended the stream before its end"));
                continue;
            };
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(bytes)) if bytes.is_empty() => {}
                Ok(Ok(bytes)) => {
                    self.position += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Ok(Err(frame)) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.state = self.ended(&trailers);
                    }
                }
                Err(error) => {
                    self.state = State::Failed(gone(format!("broke off the stream: {error}")));
                }
            }
        }
    }

    fn ended(&self, trailers: &HeaderMap) -> State {
        if let Some(report) = trailers.get(ERROR) {
            let report = serde_json::from_slice::<ErrorReport>(report.as_bytes());
            return State::Failed(match report {
                Ok(report) => report.into(),
                Err(_) => gone("broke off the stream and did not say why"),
            });
        }
        let came = self.position - self.start;
        if trailers.contains_key(END) && self.length.is_none_or(|length| length == came) {
            State::Ended
        } else {
            State::Failed(gone("ended the stream before its end"))
        }
    }
}

/// Sends a request over a connection of its own.
async fn ask(
    daemon: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Connection)> {
    let unreachable = |why: String| {
        let what = format!("no dfdaemon answers on {daemon}: {why}");
        Error::new(Who::Peer, Kind::Unreachable, what)
    };
    let stream = timeout(CONNECT, TcpStream::connect(daemon))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| unreachable(error.to_string()))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    // How the connection ends, the answer's body tells too.
    let connection = Connection(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| unreachable(error.to_string()))?;
    Ok((answer, connection))
}

/// The error an answer tells of.
async fn refusal(daemon: SocketAddr, answer: Response<Incoming>) -> Error {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), REPORT).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    match serde_json::from_slice::<ErrorReport>(&body) {
        Ok(report) => report.into(),
        Err(_) => {
            let what = format!("what answers on {daemon} is no dfdaemon of ours: status {status}");
            Error::new(Who::Peer, Kind::Protocol, what).hint("use --daemon never")
        }
    }
}

fn gone(what: impl std::fmt::Display) -> Error {
    Error::new(Who::Peer, Kind::Unreachable, format!("dfdaemon {what}"))
        .hint("see its log, or use --daemon never")
}
