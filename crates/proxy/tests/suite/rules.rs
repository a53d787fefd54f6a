//! Who may use the proxy, what for, and which registry a mirror's client means.

use std::io::Write as _;

use crate::support::{Daemon, Origin, Reply, exchange, get};
use globset::{Glob, GlobBuilder};
use pantala_proxy::{Action, Rule, Upstream};

fn rule(path: &str, action: Action) -> Rule {
    let path = GlobBuilder::new(path).literal_separator(true).build();
    Rule {
        host: Glob::new("127.*").unwrap(),
        path: path.unwrap(),
        action,
    }
}

#[tokio::test]
async fn the_first_rule_that_matches_decides() {
    let origin = Origin::of_file(b"something").await;
    let other = Origin::new(|seen| Reply::new("200 OK", seen.target.clone())).await;
    let rules = vec![
        rule("/direct/*", Action::Direct),
        rule("/no/**", Action::Refuse),
        rule("/moved/**", Action::Redirect(other.url("/new"))),
    ];
    let daemon = Daemon::with(|config| config.rules = rules).await;
    for (path, requests) in [("/direct/f", 2), ("/f", 1)] {
        let before = origin.seen().len();
        for _ in 0..2 {
            let answer = get(daemon.addr, origin.url(path).as_str(), "").await;
            assert_eq!(answer.text(), "something");
        }
        assert_eq!(origin.seen().len() - before, requests, "{path}");
    }
    let refused = get(daemon.addr, origin.url("/no/a/b").as_str(), "").await;
    assert_eq!(refused.status, 403);
    let moved = get(daemon.addr, origin.url("/moved/f?x=1").as_str(), "").await;
    assert_eq!(moved.text(), "/new/moved/f?x=1");
    let post = format!("POST {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/no/a"));
    assert_eq!(exchange(daemon.addr, post.as_bytes()).await.status, 403);
    assert_eq!(origin.seen().len(), 3);
    daemon.stop().await;
}

#[tokio::test]
async fn no_other_spelling_of_a_url_passes_a_refusal() {
    let origin = Origin::of_file(b"something").await;
    let rules = vec![rule("/no/**", Action::Refuse)];
    let daemon = Daemon::with(|config| config.rules = rules).await;
    let root = origin.url("/").to_string();
    for path in [
        "%6eo/a",
        "/no/a",
        "//no//a",
        "x/%2e%2e/no/a",
        "x/..%2fno/a",
        "no;v=1/a",
        "x/..;/no/a",
        "no%2Fa",
    ] {
        let url = format!("{root}{path}");
        for method in ["GET", "HEAD", "POST"] {
            let head = format!("{method} {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let status = exchange(daemon.addr, head.as_bytes()).await.status;
            assert_eq!(status, 403, "{method} {url}");
        }
    }
    assert!(origin.seen().is_empty());
    daemon.stop().await;
}

#[tokio::test]
async fn only_users_come_through_where_users_are_named() {
    let origin = Origin::of_file(b"something").await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"ann:secret\n").unwrap();
    let path = file.path().to_owned();
    let daemon = Daemon::with(|config| config.users = Some(path)).await;
    let url = origin.url("/f");
    for header in ["", "Proxy-Authorization: Basic YW5uOndyb25n"] {
        let answer = get(daemon.addr, url.as_str(), header).await;
        assert_eq!(answer.status, 407, "{header}");
        assert!(
            answer
                .header("proxy-authenticate")
                .unwrap()
                .starts_with("Basic realm=")
        );
    }
    let connect = "CONNECT origin.example:443 HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(exchange(daemon.addr, connect.as_bytes()).await.status, 407);
    let known = "Proxy-Authorization: Basic YW5uOnNlY3JldA==";
    assert_eq!(
        get(daemon.addr, url.as_str(), known).await.text(),
        "something"
    );
    assert!(
        origin
            .seen()
            .iter()
            .all(|seen| seen.header("proxy-authorization").is_none())
    );
    // The mirror has the registry's own credentials, and operators none.
    assert_eq!(get(daemon.addr, "/healthz", "").await.status, 200);
    daemon.stop().await;
}

#[tokio::test]
async fn each_registry_answers_under_its_name() {
    let registry = |name: &'static str| {
        Origin::new(move |seen| Reply::new("200 OK", format!("{name} {}", seen.target)))
    };
    let (one, two) = (registry("one").await, registry("two").await);
    let upstreams =
        [("one.example", &one), ("two.example:5000", &two)].map(|(name, origin)| Upstream {
            name: name.to_owned(),
            url: origin.url("/"),
        });
    let daemon = Daemon::with(|config| {
        config.upstreams = upstreams.to_vec();
        config.mirror = Some(two.url("/"));
    })
    .await;
    for (path, says) in [
        (
            "/v2/a/manifests/v1?ns=one.example",
            "one /v2/a/manifests/v1",
        ),
        (
            "/v2/a/manifests/v1?ns=two.example%3A5000",
            "two /v2/a/manifests/v1",
        ),
        ("/v2/one.example/a/tags/list?n=2", "one /v2/a/tags/list?n=2"),
        ("/v2/a/manifests/v1", "two /v2/a/manifests/v1"),
    ] {
        assert_eq!(get(daemon.addr, path, "").await.text(), says, "{path}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_mirror_of_itself_is_a_circle_that_ends() {
    let daemon = Daemon::start().await;
    let own = format!(
        "http://{}/v2/a/manifests/v1?ns={}",
        daemon.addr, daemon.addr
    );
    let answer = get(daemon.addr, &own, "").await;
    assert_eq!(answer.status, 508, "{}", answer.text());
    daemon.stop().await;
}

#[tokio::test]
async fn a_tag_is_what_it_was_while_the_registry_is_down() {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    let up = Arc::new(AtomicBool::new(true));
    let state = up.clone();
    let origin = Origin::new(move |_| match state.load(Ordering::SeqCst) {
        true => Reply::new("200 OK", "{}").header("Content-Type", "application/vnd.oci"),
        false => Reply::new("503 Service Unavailable", "down"),
    })
    .await;
    let daemon = Daemon::with(|config| {
        config.mirror = Some(origin.url("/"));
        config.serve_stale = std::time::Duration::from_secs(60);
    })
    .await;
    let tag = "/v2/a/manifests/v1";
    assert_eq!(get(daemon.addr, tag, "").await.status, 200);
    up.store(false, Ordering::SeqCst);
    let stale = get(daemon.addr, tag, "").await;
    assert_eq!((stale.status, stale.text().as_str()), (200, "{}"));
    assert_eq!(stale.header("content-type"), Some("application/vnd.oci"));
    assert!(stale.header("age").is_some() && stale.header("warning").is_some());
    assert_eq!(get(daemon.addr, "/v2/a/manifests/v2", "").await.status, 503);
    assert_eq!(origin.seen().len(), 3, "the registry is asked each time");
    daemon.stop().await;
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused() {
    let origin = Origin::of_file(b"something").await;
    let daemon = Daemon::start().await;
    let url = origin.url("/f");
    for headers in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3, 4\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "X-Folded: a\r\n b\r\n",
        "Bad Name: x\r\n",
    ] {
        let request = format!("POST {url} HTTP/1.1\r\nHost: x\r\n{headers}\r\n0\r\n\r\n");
        let answer = exchange(daemon.addr, request.as_bytes()).await;
        assert_eq!(answer.status, 400, "{headers:?}");
    }
    let long = format!(
        "GET {url} HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
        "a".repeat(200_000)
    );
    assert_eq!(exchange(daemon.addr, long.as_bytes()).await.status, 431);
    let many = format!(
        "GET {url} HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "X-Many: 1\r\n".repeat(500)
    );
    assert_eq!(exchange(daemon.addr, many.as_bytes()).await.status, 431);
    assert_eq!(origin.seen().len(), 0);
    assert_eq!(get(daemon.addr, url.as_str(), "").await.text(), "something");
    daemon.stop().await;
}

/// The clock goes on by itself when nothing else does.
#[tokio::test(start_paused = true)]
async fn who_never_ends_a_head_is_dropped() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let daemon = Daemon::start().await;
    let mut slow = tokio::net::TcpStream::connect(daemon.addr).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        .await
        .unwrap();
    let started = tokio::time::Instant::now();
    let mut answer = Vec::new();
    // It ends, in order or not, without an answer that says it was fine.
    let _ = slow.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{answer:?}");
    assert!(started.elapsed() >= std::time::Duration::from_secs(29));
    assert_eq!(get(daemon.addr, "/healthz", "").await.status, 200);
    daemon.stop().await;
}
