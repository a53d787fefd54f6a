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

/// Opens a session by hand with these bytes as its first and only frame; the status it gets.
async fn say(server: &Server, frame: &'static [u8]) -> String {
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
    .body(Full::new(Bytes::from_static(frame)))
    .unwrap();
    let response = soon(sender.send_request(request)).await.unwrap();
    let (head, body) = response.into_parts();
    let body = soon(body.collect()).await.unwrap();
    let status = head
        .headers
        .get("grpc-status")
        .or_else(|| {
            body.trailers()
                .and_then(|trailers| trailers.get("grpc-status"))
        })
        .expect("a status");
    let status = status.to_str().unwrap().to_owned();
    connection.abort();
    status
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

/// A frame: a hello of peer 2 at 10.0.0.1:1, and a message without a kind.
const EMPTY_MESSAGE: &[u8] = b"\0\0\0\0\x22\
    \x0a\x1e\x0a\x1c\x0a\x10\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02\
    \x12\x08\x0a\x04\x0a\x00\x00\x01\x10\x01\
    \x12\x00";

#[tokio::test]
async fn a_bad_message_ends_its_session() {
    let mut server = Server::start().await;
    // 3: invalid argument.
    assert_eq!(say(&server, EMPTY_MESSAGE).await, "3");
    let (session, hello, _outbox) = server.connected().await;
    assert_eq!(hello.peer.addr, "10.0.0.1:1".parse().unwrap());
    assert_eq!(server.gone().await, session);
}
