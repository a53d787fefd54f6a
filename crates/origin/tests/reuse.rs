//! Connections are kept and used again once a body has been read.

mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use pantala_core::BLOCK_MAX;
use support::*;
use tokio::{net::TcpListener, task::JoinSet};

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
