//! The registry mirror.

use crate::support::{Daemon, Origin, Reply, Seen, content, exchange, get};
use pantala_core::ContentDigest;

fn digest(bytes: &[u8]) -> String {
    let kind: ContentDigest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let mut hasher = kind.hasher();
    hasher.update(bytes);
    hasher.finish().to_string()
}

/// A registry whose blobs are kept elsewhere, as many are.
async fn registry(blob: Vec<u8>) -> Origin {
    Origin::new(move |seen: &Seen| {
        if seen.target.starts_with("/storage/") {
            return Reply::file(seen, &blob);
        }
        if seen.header("authorization") != Some("Bearer good") {
            return Reply::new("401 Unauthorized", "{\"errors\":[]}")
                .header(
                    "WWW-Authenticate",
                    "Bearer realm=\"http://hub.example/token\"",
                )
                .header("Docker-Distribution-Api-Version", "registry/2.0");
        }
        if seen.target.contains("/blobs/sha256:") {
            return Reply::new("307 Temporary Redirect", "").header("Location", "/storage/x?sig=1");
        }
        Reply::new("200 OK", format!("{} {}", seen.method, seen.target))
            .header("Docker-Content-Digest", "sha256:abc")
    })
    .await
}

const GOOD: &str = "Authorization: Bearer good";

#[tokio::test]
async fn a_blob_streams_through_the_swarm() {
    let blob = content(2_500_000);
    let registry = registry(blob.clone()).await;
    let daemon = Daemon::mirroring(&registry).await;
    let name = digest(&blob);
    let path = format!("/v2/library/thing/blobs/{name}?ns=hub.example");
    for _ in 0..2 {
        let answer = get(daemon.addr, &path, GOOD).await;
        assert_eq!((answer.status, answer.complete), (200, true));
        assert!(answer.body == blob);
        assert_eq!(answer.header("docker-content-digest"), Some(name.as_str()));
        assert_eq!(
            answer.header("content-type"),
            Some("application/octet-stream")
        );
        assert_eq!(answer.header("content-length"), Some("2500000"));
    }
    let answer = get(
        daemon.addr,
        &path,
        &format!("{GOOD}\nRange: bytes=2000000-"),
    )
    .await;
    assert_eq!(answer.status, 206);
    assert!(answer.body == blob[2_000_000..]);

    let seen = registry.seen();
    let blobs = seen
        .iter()
        .filter(|seen| seen.target.starts_with("/storage/"));
    assert_eq!(blobs.filter(|seen| seen.method == "GET").count(), 1);
    assert_eq!(seen[0].target, format!("/v2/library/thing/blobs/{name}"));
    daemon.stop().await;
}

#[tokio::test]
async fn who_has_no_credentials_gets_the_challenge_and_not_a_byte() {
    let blob = content(2_500_000);
    let registry = registry(blob.clone()).await;
    let daemon = Daemon::mirroring(&registry).await;
    let path = format!("/v2/thing/blobs/{}", digest(&blob));
    for warm in [false, true] {
        if warm {
            assert!(get(daemon.addr, &path, GOOD).await.body == blob);
        }
        for credentials in ["", "Authorization: Bearer bad"] {
            let answer = get(daemon.addr, &path, credentials).await;
            assert_eq!(answer.status, 401, "{warm} {credentials}");
            assert_eq!(answer.text(), "{\"errors\":[]}");
            assert_eq!(
                answer.header("www-authenticate"),
                Some("Bearer realm=\"http://hub.example/token\"")
            );
        }
    }
    daemon.stop().await;
}

#[tokio::test]
async fn everything_else_is_passed_on_untouched() {
    let registry = registry(Vec::new()).await;
    let daemon = Daemon::mirroring(&registry).await;
    let accepts = format!("{GOOD}\nAccept: application/a\nAccept: application/b\nAccept: */*");
    for (path, target) in [
        ("/v2/", "/v2/"),
        (
            "/v2/thing/manifests/latest?ns=hub.example",
            "/v2/thing/manifests/latest",
        ),
        (
            "/v2/thing/tags/list?n=3&last=a%2Fb",
            "/v2/thing/tags/list?n=3&last=a%2Fb",
        ),
    ] {
        let answer = get(daemon.addr, path, &accepts).await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, format!("GET {target}"))
        );
        assert_eq!(answer.header("docker-content-digest"), Some("sha256:abc"));
        let seen = registry.seen();
        let seen = seen.last().unwrap();
        // dockerd's six lines stay six lines.
        assert_eq!(
            seen.all("accept"),
            ["application/a", "application/b", "*/*"]
        );
        assert_eq!(
            seen.header("host"),
            Some(registry.addr().to_string().as_str())
        );
    }
    let answer = get(daemon.addr, "/v2/", "").await;
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").is_some());

    let path = format!("/v2/thing/blobs/{}", digest(b""));
    let head =
        format!("HEAD {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{GOOD}\r\nConnection: close\r\n\r\n");
    let answer = exchange(daemon.addr, head.as_bytes()).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (307, Some("/storage/x?sig=1"))
    );

    let post = format!(
        "POST /v2/thing/blobs/uploads/ HTTP/1.1\r\nHost: 127.0.0.1\r\n{GOOD}\r\nContent-Length: 3\r\n\
         Connection: close\r\n\r\nabc"
    );
    let answer = exchange(daemon.addr, post.as_bytes()).await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "POST /v2/thing/blobs/uploads/")
    );
    assert_eq!(registry.seen().last().unwrap().body, b"abc");
    daemon.stop().await;
}

#[tokio::test]
async fn wrong_bytes_are_a_broken_body_and_are_not_kept() {
    let blob = content(2_500_000);
    let mut wrong = blob.clone();
    wrong[2_400_000] ^= 1;
    let good = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let registry = Origin::new({
        let (good, blob) = (good.clone(), blob.clone());
        move |seen: &Seen| match good.load(std::sync::atomic::Ordering::SeqCst) {
            true => Reply::file(seen, &blob),
            false => Reply::file(seen, &wrong),
        }
    })
    .await;
    let daemon = Daemon::mirroring(&registry).await;
    let path = format!("/v2/thing/blobs/{}", digest(&blob));
    let answer = get(daemon.addr, &path, "").await;
    assert_eq!(answer.status, 200);
    assert!(!answer.complete && answer.body.len() < blob.len());
    // What is found wrong is forgotten, here and in the swarm.
    while !daemon.node.streams().await.is_empty() {
        tokio::task::yield_now().await;
    }
    good.store(true, std::sync::atomic::Ordering::SeqCst);
    let answer = get(daemon.addr, &path, "").await;
    assert_eq!((answer.status, answer.complete), (200, true));
    assert!(answer.body == blob);
    daemon.stop().await;
}

#[tokio::test]
async fn without_an_upstream_it_says_how_to_get_one() {
    let daemon = Daemon::start().await;
    // Some clients ask whether there is a registry before they name one.
    assert_eq!(get(daemon.addr, "/v2/", "").await.status, 200);
    let answer = get(daemon.addr, "/v2/a/manifests/v1", "").await;
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("--mirror"), "{}", answer.text());
    daemon.stop().await;
}
