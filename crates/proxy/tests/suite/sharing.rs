//! What is shared, and what is for one client alone.

use crate::support;

use std::sync::Arc;

use crate::support::{Daemon, Origin, Reply, content, get};
use tokio::sync::Semaphore;

#[tokio::test]
async fn clients_at_once_cost_the_origin_one_request() {
    let file = content(4_000_000);
    let gate = Arc::new(Semaphore::new(0));
    let origin = Origin::new({
        let (file, gate) = (file.clone(), gate.clone());
        move |seen| Reply::file(seen, &file).wait_after(1_200_000, &gate)
    })
    .await;
    let daemon = Daemon::start().await;
    let url = origin.url("/f");
    let clients = (0..8).map(|_| get(daemon.addr, url.as_str(), ""));
    let all = futures_util::future::join_all(clients);
    let open = async {
        // All of them are served before the origin goes on.
        while daemon.node.totals().reader_sent < 8_000_000 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1);
    };
    let (answers, ()) = tokio::join!(all, open);
    for answer in answers {
        assert!(answer.complete && answer.body == file);
    }
    assert_eq!(origin.seen().len(), 1);
    assert_eq!(daemon.node.totals().origin_received, 4_000_000);
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_in_memory_is_not_asked_for_again() {
    let file = content(2_000_000);
    let origin = Origin::of_file(&file).await;
    let daemon = Daemon::start().await;
    let url = origin.url("/f");
    for range in ["", "Range: bytes=1000000-1000009", "Range: bytes=-1"] {
        let answer = get(daemon.addr, url.as_str(), range).await;
        assert!(answer.complete, "{range}");
    }
    assert_eq!(origin.seen().len(), 1);
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_for_one_client_is_not_handed_to_another() {
    for (name, value) in [
        ("Set-Cookie", "id=1"),
        ("Cache-Control", "no-store"),
        ("Cache-Control", "private"),
        ("Vary", "Cookie"),
    ] {
        let origin = Origin::new(move |seen| {
            let who = seen.header("x-who").unwrap_or("nobody").to_owned();
            Reply::new("200 OK", who)
                .header(name, value)
                .header("X-Other", "kept")
        })
        .await;
        let daemon = Daemon::start().await;
        for who in ["a", "b"] {
            let url = origin.url("/f");
            let answer = get(daemon.addr, url.as_str(), &format!("X-Who: {who}")).await;
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, who),
                "{name}"
            );
            assert_eq!(answer.header(name), Some(value));
            assert_eq!(answer.header("x-other"), Some("kept"));
            assert_eq!(answer.header("content-length"), Some("1"));
        }
        assert_eq!(origin.seen().len(), 2, "{name}");
        daemon.stop().await;
    }
}

#[tokio::test]
async fn every_reader_gets_all_of_the_origins_headers() {
    let kept = [
        ("Access-Control-Allow-Origin", "*"),
        ("Content-Security-Policy", "default-src 'self'"),
        ("Strict-Transport-Security", "max-age=1"),
        ("X-Repo-Commit", "c0ffee"),
        ("X-Checksum-Sha1", "x"),
        ("x-amz-meta-name", "\u{fc}"),
        ("Server", "origin/1"),
    ];
    let origin = Origin::new(move |seen| {
        let reply = Reply::file(seen, b"hello").header("Cache-Control", "max-age=60");
        kept.iter()
            .fold(reply, |reply, (name, value)| reply.header(name, value))
    })
    .await;
    let daemon = Daemon::start().await;
    for reader in 0..3 {
        let answer = get(daemon.addr, origin.url("/f").as_str(), "").await;
        for (name, value) in kept {
            assert_eq!(answer.header(name), Some(value), "{name} for {reader}");
        }
    }
    assert_eq!(origin.seen().len(), 1);
    daemon.stop().await;
}

#[tokio::test]
async fn more_headers_than_travel_make_an_answer_one_clients() {
    let origin = Origin::new(|seen| {
        let reply = Reply::file(seen, b"hello").header("Cache-Control", "max-age=60");
        (0..120).fold(reply, |reply, line| {
            reply.header("X-Line", &line.to_string())
        })
    })
    .await;
    let daemon = Daemon::start().await;
    for reader in 1..3 {
        let answer = get(daemon.addr, origin.url("/f").as_str(), "").await;
        let lines = answer
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("x-line"));
        assert_eq!((lines.count(), answer.text().as_str()), (120, "hello"));
        assert_eq!(origin.seen().len(), reader);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_write_ends_what_is_known_of_its_url() {
    let origin = Origin::new(|seen| match seen.method.as_str() {
        "GET" => Reply::file(seen, b"hello").header("Cache-Control", "max-age=3600"),
        _ if seen.target == "/fails" => Reply::new("500 Internal Server Error", ""),
        _ => Reply::new("200 OK", "")
            .header("Location", "/other")
            .header("Content-Location", "http://elsewhere.example/f"),
    })
    .await;
    let daemon = Daemon::start().await;
    let read = |path: &str| {
        let (addr, url) = (daemon.addr, origin.url(path));
        async move { get(addr, url.as_str(), "").await.text() }
    };
    let gets = || {
        origin
            .seen()
            .iter()
            .filter(|seen| seen.method == "GET")
            .count()
    };
    for (path, method, again) in [
        ("/f", "DELETE", 1),
        ("/f", "PUT", 1),
        ("/f", "POST", 1),
        ("/f", "PATCH", 1),
        ("/f", "M-SEARCH", 1),
        ("/f", "OPTIONS", 0),
        ("/other", "POST", 1),
        ("/fails", "DELETE", 0),
    ] {
        assert_eq!(read(path).await, "hello");
        assert_eq!(read(path).await, "hello");
        let before = gets();
        let written = match path {
            "/other" => "/f",
            path => path,
        };
        let request = format!(
            "{method} {} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
            origin.url(written)
        );
        support::exchange(daemon.addr, request.as_bytes()).await;
        assert_eq!(read(path).await, "hello");
        assert_eq!(gets() - before, again, "{method} {path}");
    }
    daemon.stop().await;
}
