//! Ends that do not say goodbye, and ends that say nonsense.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::{Link, Peer, Server, ended, pulse, soon};

#[tokio::test]
async fn a_cut_link_is_noticed_at_both_ends() {
    let mut server = Server::start().await;
    let link = Link::to(server.addr).await;
    let mut peer = Peer::at(link.addr);
    peer.up().await;
    assert!(peer.control.send(pulse(1)));
    let (session, _, outbox) = server.connected().await;
    assert_eq!(server.message().await, pulse(1));
    assert!(outbox.send(ended(1)));
    assert_eq!(peer.message().await, ended(1));

    let cut = Instant::now();
    link.cut.cancel();
    peer.down().await;
    let peer_knows = cut.elapsed();
    assert_eq!(server.gone().await, session);
    let server_knows = cut.elapsed();
    // 1 s and 1 s, 1 s and 2 s, and what a busy machine adds.
    assert!(peer_knows < Duration::from_secs(5), "{peer_knows:?}");
    assert!(server_knows < Duration::from_secs(6), "{server_knows:?}");
    assert!(!outbox.send(ended(2)));
}

#[tokio::test]
async fn a_peer_that_dies_is_gone() {
    let mut server = Server::start().await;
    let peer = Peer::at(server.addr);
    let (session, _, _outbox) = server.connected().await;
    // All of it at once, as when its process is killed.
    let (control, cancel) = (peer.control.clone(), peer.cancel.clone());
    drop(peer.events);
    cancel.cancel();
    soon(control.stopped()).await;
    assert_eq!(server.gone().await, session);
}

/// What a session that was opened by hand gets.
struct Answer {
    /// The status of the RPC.
    status: String,
    /// The explanation of the status; empty where there is none.
    message: String,
    /// The protocol version that the supernode chose.
    version: Option<String>,
}

/// Opens a session by hand with these bytes as its first and only frame; the status it gets.
async fn say(server: &Server, frame: &'static [u8]) -> String {
    answer(server, Bytes::from_static(frame)).await.status
}

async fn answer(server: &Server, frame: Bytes) -> Answer {
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!(
        "http://{}/pantala.v1.Supernode/Session",
        server.addr
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .body(Full::new(frame))
    .unwrap();
    let response = soon(sender.send_request(request)).await.unwrap();
    let (head, body) = response.into_parts();
    let body = soon(body.collect()).await.unwrap();
    let said = |name: &str| {
        let trailer = || body.trailers().and_then(|trailers| trailers.get(name));
        let value = head.headers.get(name).or_else(trailer)?;
        Some(value.to_str().expect("text").to_owned())
    };
    connection.abort();
    Answer {
        status: said("grpc-status").expect("a status"),
        message: said("grpc-message").unwrap_or_default(),
        version: said("pantala-version"),
    }
}

#[tokio::test]
async fn garbage_is_refused_and_nobody_else_minds() {
    let mut server = Server::start().await;
    let mut peer = Peer::at(server.addr);
    peer.up().await;
    let _connected = server.connected().await;

    // No protobuf, a frame without a hello, nothing at all, and a length of 4 GiB.
    for garbage in [
        &b"\0\0\0\0\x04\xff\xff\xff\xff"[..],
        b"\0\0\0\0\0",
        b"",
        b"\0\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        assert_ne!(say(&server, garbage).await, "0", "{garbage:?}");
    }
    // The next event is from who behaves: none of these was ever announced.
    assert!(peer.control.send(pulse(7)));
    assert_eq!(server.message().await, pulse(7));
}

/// A hello of peer 2 at 10.0.0.1:1, without its tag and length.
const HELLO: &[u8] =
    b"\x0a\x1c\x0a\x10\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\
    \x12\x08\x0a\x04\x0a\x00\x00\x01\x10\x01";

/// A frame of that hello, with these fields appended, and these messages.
fn frame(more_of_hello: &[u8], messages: &[&[u8]]) -> Bytes {
    let field = |tag: u8, parts: &[&[u8]]| {
        let bytes = parts.concat();
        let len = u8::try_from(bytes.len()).expect("a short field");
        assert!(len < 0x80, "its length takes one byte");
        [&[tag, len][..], &bytes].concat()
    };
    let mut payload = field(0x0a, &[HELLO, more_of_hello]);
    for message in messages {
        payload.extend(field(0x12, &[message]));
    }
    let len = u32::try_from(payload.len()).expect("a short frame");
    [&[0][..], &len.to_be_bytes(), &payload].concat().into()
}

#[tokio::test]
async fn a_bad_message_ends_its_session() {
    let mut server = Server::start().await;
    // Somebody leaves a task whose name has one byte. 3: invalid argument.
    let bad = frame(b"", &[b"\x62\x03\x0a\x01\x09"]);
    assert_eq!(answer(&server, bad).await.status, "3");
    let (session, hello, _outbox) = server.connected().await;
    assert_eq!(hello.peer.addr, "10.0.0.1:1".parse().unwrap());
    assert_eq!(server.gone().await, session);
}

/// A pulse of 7 bytes, as [`pulse`] makes it.
fn pulse_of_seven() -> Vec<u8> {
    [&b"\x4a\x24\x0a\x20"[..], &[9; 32], b"\x10\x07"].concat()
}

#[tokio::test]
async fn a_peer_of_the_next_version_is_served() {
    let mut server = Server::start().await;
    // It speaks versions 1 and 2, says something of itself that is new, and a message that nobody knows here.
    let later = frame(
        b"\x18\x01\x20\x02\x7a\x01\x00",
        &[b"\xfa\x01\x00", &pulse_of_seven()],
    );
    let answer = answer(&server, later).await;
    assert_eq!(
        (&*answer.status, answer.version.as_deref()),
        ("0", Some("1"))
    );
    let (session, hello, _outbox) = server.connected().await;
    assert_eq!(hello.peer.addr, "10.0.0.1:1".parse().unwrap());
    assert_eq!(server.message().await, pulse(7));
    assert_eq!(server.gone().await, session);
}

#[tokio::test]
async fn a_peer_that_says_no_version_speaks_the_first() {
    let mut server = Server::start().await;
    let answer = answer(&server, frame(b"", &[])).await;
    assert_eq!(
        (&*answer.status, answer.version.as_deref()),
        ("0", Some("1"))
    );
    server.connected().await;
}

#[tokio::test]
async fn a_peer_without_a_common_version_is_told_so() {
    let mut server = Server::start().await;
    let answer = answer(&server, frame(b"\x18\x02\x20\x03", &[])).await;
    // 9: failed precondition.
    assert_eq!(answer.status, "9");
    let message = answer.message.replace("%20", " ");
    assert!(message.contains("versions 2 to 3"), "{message}");
    assert!(message.contains("update the older one"), "{message}");
    // It was never announced.
    let mut peer = Peer::at(server.addr);
    peer.up().await;
    let (_, hello, _outbox) = server.connected().await;
    assert_eq!(hello.peer.addr, "127.0.0.1:65002".parse().unwrap());
}
