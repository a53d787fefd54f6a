//! What was cut short never looks complete.

use std::sync::Arc;

use crate::support::{Daemon, Framing, Origin, Reply, content, exchange, get};
use tokio::sync::Semaphore;

/// An origin that breaks off after this many bytes, whatever it is asked.
async fn breaking(after: usize, chunked: bool) -> Origin {
    Origin::new(move |_| {
        let reply = Reply::new("200 OK", content(3_000_000))
            .header("ETag", "\"v1\"")
            .cut_after(after);
        if chunked { reply.chunked() } else { reply }
    })
    .await
}

#[tokio::test]
async fn a_length_that_is_not_reached_is_a_broken_body() {
    let origin = breaking(1_500_000, false).await;
    let daemon = Daemon::start().await;
    let answer = get(daemon.addr, origin.url("/f").as_str(), "").await;
    assert_eq!((answer.status, answer.framing), (200, Framing::Length));
    assert!(!answer.complete && answer.body.len() <= 1_500_000);
    assert!(answer.body == content(3_000_000)[..answer.body.len()]);
    daemon.stop().await;
}

#[tokio::test]
async fn the_last_chunk_is_not_sent_when_there_should_be_more() {
    let origin = breaking(1_500_000, true).await;
    let daemon = Daemon::start().await;
    let answer = get(daemon.addr, origin.url("/f").as_str(), "").await;
    assert_eq!((answer.status, answer.framing), (200, Framing::Chunked));
    assert!(!answer.complete && answer.body.len() <= 1_500_000);
    daemon.stop().await;
}

#[tokio::test]
async fn a_connection_that_delimits_a_body_is_reset() {
    let origin = breaking(1_500_000, true).await;
    let daemon = Daemon::start().await;
    let old = format!("GET {} HTTP/1.0\r\n\r\n", origin.url("/f"));
    let answer = exchange(daemon.addr, old.as_bytes()).await;
    assert_eq!((answer.status, answer.framing), (200, Framing::Close));
    assert!(!answer.complete);
    daemon.stop().await;

    // And ends in order when there is no more.
    let whole = Origin::new(|_| Reply::new("200 OK", content(500_000)).chunked()).await;
    let daemon = Daemon::start().await;
    let old = format!("GET {} HTTP/1.0\r\n\r\n", whole.url("/f"));
    let answer = exchange(daemon.addr, old.as_bytes()).await;
    assert!(answer.complete && answer.body == content(500_000));
    daemon.stop().await;
}

#[tokio::test]
async fn a_transfer_that_breaks_once_goes_on() {
    let file = content(3_000_000);
    let first = Arc::new(Semaphore::new(1));
    let origin = Origin::new({
        let file = file.clone();
        move |seen| {
            let reply = Reply::file(seen, &file);
            match first.try_acquire() {
                Ok(once) => {
                    once.forget();
                    reply.cut_after(1_500_000)
                }
                Err(_) => reply,
            }
        }
    })
    .await;
    let daemon = Daemon::start().await;
    let answer = get(daemon.addr, origin.url("/f").as_str(), "").await;
    assert!(answer.complete && answer.body == file);
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_passed_on_breaks_as_it_broke() {
    let origin = breaking(1000, false).await;
    let daemon = Daemon::start().await;
    let answer = get(
        daemon.addr,
        origin.url("/f").as_str(),
        "Cache-Control: no-store",
    )
    .await;
    assert_eq!((answer.status, answer.complete), (200, false));
    daemon.stop().await;
}
