//! Connections are kept and used again once a body has been read.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::support::*;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use pantala_core::{BLOCK_MAX, Kind};
use pantala_origin::{OriginClient, OriginConfig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

const LENGTH: usize = 3 << 20;

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from(vec![7; LENGTH]))))
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_blocks_are_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/f", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            connections.spawn(async move {
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            });
        }
    });
    let client = client();
    const REQUESTS: usize = 8;
    for _ in 0..REQUESTS {
        let mut response = client.get(ask(url.parse().unwrap())).await.unwrap();
        let mut total = 0;
        while let Some(block) = response.body.next().await.unwrap() {
            assert!(block.len() <= BLOCK_MAX);
            total += block.len();
        }
        assert_eq!(total, LENGTH);
    }
    assert_eq!(client.received_bytes(), (REQUESTS * LENGTH) as u64);
    let accepted = accepted.load(Ordering::Relaxed);
    // A connection may come back to the pool a moment too late for the next request, not always.
    assert!(accepted <= REQUESTS / 2, "{accepted} connections");
}

/// A server that closes each connection as the second request on it arrives: as one whose idle
/// timeout ends at that moment looks to its client.
async fn closing() -> (url::Url, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/f", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
            let _ = stream.read(&mut head).await;
        }
    });
    (url.parse().unwrap(), accepted, tasks)
}

#[tokio::test]
async fn a_connection_closed_while_idle_fails_no_question() {
    let (url, accepted, _tasks) = closing().await;
    let client = OriginClient::new(OriginConfig {
        retries: 0,
        ..config()
    })
    .unwrap();
    const REQUESTS: usize = 4;
    for _ in 0..REQUESTS {
        let mut response = client.get(ask(url.clone())).await.unwrap();
        assert_eq!(read(&mut response.body).await.unwrap(), b"ok");
    }
    assert_eq!(accepted.load(Ordering::Relaxed), REQUESTS);

    // What may have changed something is not sent twice.
    let request = http::Request::post(url.as_str()).body("x".into()).unwrap();
    let error = client.forward(request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert_eq!(accepted.load(Ordering::Relaxed), REQUESTS);
}

#[tokio::test]
async fn a_short_rest_costs_no_connection() {
    let (url, accepted, _tasks) = closing().await;
    let client = client();
    let response = client.get(ask(url.clone())).await.unwrap();
    drop(response);
    let request = http::Request::post(url.as_str()).body("x".into()).unwrap();
    // It goes out on the same connection, and so it fails.
    assert!(client.forward(request).await.is_err());
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
}
