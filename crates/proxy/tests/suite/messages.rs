//! HTTP itself, as a proxy has to speak it: what is for the next hop, what is for the last one, and
//! what is nobody's fault but the client's.

use std::net::SocketAddr;

use crate::support::{Daemon, Origin, Reply, client, exchange, get};
use pantala_proxy::Upstream;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// An origin that answers one request byte for byte, and what it was asked.
struct Raw {
    addr: SocketAddr,
    serving: JoinHandle<(String, TcpStream)>,
}

impl Raw {
    async fn answering(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            (
                String::from_utf8(head).unwrap().to_ascii_lowercase(),
                stream,
            )
        });
        Self { addr, serving }
    }
}

#[tokio::test]
async fn one_host_is_named_in_every_request() {
    let origin = Origin::of_file(b"hello").await;
    let daemon = Daemon::start().await;
    let url = origin.url("/f");
    for (target, hosts, version, status) in [
        (url.as_str(), "", "1.1", 400),
        (url.as_str(), "Host: a\r\nHost: a\r\n", "1.1", 400),
        (url.as_str(), "Host: a\r\nHost: b\r\n", "1.0", 400),
        ("/healthz", "", "1.1", 400),
        ("/v2/", "Host: a\r\nHost: b\r\n", "1.1", 400),
        (url.as_str(), "", "1.0", 200),
        (url.as_str(), "Host: a\r\n", "1.1", 200),
    ] {
        let request = format!("GET {target} HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n");
        let answer = exchange(daemon.addr, request.as_bytes()).await;
        assert_eq!(answer.status, status, "{request}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn the_last_hop_answers_itself() {
    let origin = Origin::new(|_| Reply::new("200 OK", "the origin")).await;
    let daemon = Daemon::start().await;
    let ask = |method: &str, hops: &str| {
        let request = format!(
            "{method} {} HTTP/1.1\r\nHost: x\r\nMax-Forwards: {hops}\r\nX-Request-Id: 1\r\n\
             Cookie: mine\r\nConnection: close\r\n\r\n",
            origin.url("/f")
        );
        let addr = daemon.addr;
        async move { exchange(addr, request.as_bytes()).await }
    };
    let trace = ask("TRACE", "0").await;
    assert_eq!(
        (trace.status, trace.header("content-type")),
        (200, Some("message/http"))
    );
    assert!(
        trace.text().starts_with("TRACE http://"),
        "{}",
        trace.text()
    );
    assert!(trace.text().contains("x-request-id: 1\r\n") && !trace.text().contains("mine"));
    let options = ask("OPTIONS", "0").await;
    assert!(options.header("allow").unwrap().contains("GET"));
    assert_eq!(origin.seen().len(), 0);

    assert_eq!(ask("TRACE", "3").await.text(), "the origin");
    assert_eq!(origin.seen()[0].header("max-forwards"), Some("2"));
    // It means nothing to others.
    assert_eq!(ask("GET", "0").await.text(), "the origin");
    daemon.stop().await;
}

#[tokio::test]
async fn a_server_as_a_whole_can_be_asked() {
    let origin = Origin::new(|_| Reply::new("200 OK", "").header("Allow", "GET")).await;
    let daemon = Daemon::start().await;
    let root = origin.url("/");
    for (target, asked) in [
        (root.as_str().trim_end_matches('/'), "*"),
        (root.as_str(), "/"),
    ] {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = exchange(daemon.addr, request.as_bytes()).await;
        assert_eq!((answer.status, answer.header("allow")), (200, Some("GET")));
        assert_eq!(origin.seen().last().unwrap().target, asked);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_clients_malformed_body_is_the_clients_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    let reading = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        // It ends when the proxy gives up.
        let _ = stream.read_to_end(&mut all).await;
    });
    let daemon = Daemon::start().await;
    let request = format!(
        "POST http://{origin}/f HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\nnonsense\r\n"
    );
    let answer = exchange(daemon.addr, request.as_bytes()).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    reading.await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn other_protocols_pass_both_ways() {
    let origin = Raw::answering(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-A: 1\r\n\r\n\
         hello",
    )
    .await;
    let daemon = Daemon::start().await;
    let request = format!(
        "GET http://{}/f HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        origin.addr
    );
    let mut stream = BufReader::new(TcpStream::connect(daemon.addr).await.unwrap());
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = client::read(&mut stream, true).await;
    assert_eq!(
        (answer.status, answer.header("upgrade")),
        (101, Some("echo"))
    );
    assert_eq!(answer.header("connection"), Some("upgrade"));
    assert_eq!(answer.header("x-a"), Some("1"));
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello");

    let (asked, mut origin) = origin.serving.await.unwrap();
    assert!(asked.contains("connection: upgrade\r\n") && asked.contains("upgrade: echo\r\n"));
    stream.write_all(b"from the client").await.unwrap();
    let mut heard = [0; 15];
    origin.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"from the client");
    origin.write_all(b"from the origin").await.unwrap();
    drop(origin);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "from the origin");
    daemon.stop().await;
}

#[tokio::test]
async fn an_origin_may_stay_with_http() {
    let origin = Raw::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    let daemon = Daemon::start().await;
    let request = format!(
        "GET http://{}/f HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        origin.addr
    );
    let answer = exchange(daemon.addr, request.as_bytes()).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    daemon.stop().await;
}

#[tokio::test]
async fn http_itself_is_not_upgraded() {
    let origin = Origin::of_file(b"hello").await;
    let daemon = Daemon::start().await;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        origin.url("/f")
    );
    let answer = exchange(daemon.addr, request.as_bytes()).await;
    assert_eq!(answer.text(), "hello");
    let seen = origin.seen();
    assert_eq!(seen[0].header("upgrade"), None);
    assert_eq!(seen[0].header("http2-settings"), None);
    daemon.stop().await;
}

#[tokio::test]
async fn interim_answers_come_before_the_answer() {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    // One is passed on, the other is read for all who may want it.
    for method in ["GET", "DELETE"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = listener.local_addr().unwrap();
        let daemon = Daemon::start().await;
        let request = format!("{method} http://{origin}/f HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut client = BufReader::new(TcpStream::connect(daemon.addr).await.unwrap());
        client.write_all(request.as_bytes()).await.unwrap();

        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(hint.as_bytes()).await.unwrap();
        let mut lines = Vec::new();
        for _ in 0..3 {
            let mut line = String::new();
            client.read_line(&mut line).await.unwrap();
            lines.push(line.to_ascii_lowercase());
        }
        assert_eq!(
            lines,
            [
                "http/1.1 103 early hints\r\n",
                "link: </a.css>; rel=preload\r\n",
                "\r\n"
            ],
            "{method}: before the origin has said anything else"
        );
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        stream.write_all(answer).await.unwrap();
        let answer = client::read(&mut client, false).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        daemon.stop().await;
    }
}

#[tokio::test]
async fn the_last_bytes_of_what_is_for_one_client_are_all_that_is_asked_for() {
    let origin =
        Origin::new(|seen| Reply::file(seen, b"hello world").header("Cache-Control", "private"))
            .await;
    let daemon = Daemon::start().await;
    for _ in 0..2 {
        let answer = get(daemon.addr, origin.url("/f").as_str(), "Range: bytes=-5").await;
        assert_eq!((answer.status, answer.text().as_str()), (206, "world"));
        assert_eq!(answer.header("content-range"), Some("bytes 6-10/11"));
        let seen = origin.seen();
        assert_eq!(seen.last().unwrap().header("range"), Some("bytes=-5"));
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_busy_origin_is_the_clients_to_wait_for() {
    let origin =
        Origin::new(|_| Reply::new("429 Too Many Requests", "busy").header("Retry-After", "60"))
            .await;
    let daemon = Daemon::start().await;
    let answer = get(daemon.addr, origin.url("/f").as_str(), "").await;
    assert_eq!((answer.status, answer.text().as_str()), (429, "busy"));
    assert_eq!(answer.header("retry-after"), Some("60"));
    assert_eq!(origin.seen().len(), 1);
    daemon.stop().await;
}

#[tokio::test]
async fn a_list_goes_on_at_the_registry_that_was_asked() {
    let origin = Origin::new(|seen| {
        assert!(!seen.target.contains("ns="), "{}", seen.target);
        Reply::new("200 OK", "{}").header("Link", "</v2/a/tags/list?last=b>; rel=\"next\"")
    })
    .await;
    let name = origin.addr().to_string();
    let upstream = Upstream {
        name: name.clone(),
        url: origin.url("/"),
    };
    let daemon = Daemon::with(|config| config.upstreams = vec![upstream]).await;
    for (target, next) in [
        (
            format!("/v2/{name}/a/tags/list"),
            format!("</v2/{name}/a/tags/list?last=b>; rel=\"next\""),
        ),
        (
            format!("/v2/a/tags/list?ns={name}"),
            format!("</v2/a/tags/list?last=b&ns={name}>; rel=\"next\""),
        ),
    ] {
        let answer = get(daemon.addr, &target, "").await;
        assert_eq!(answer.header("link"), Some(next.as_str()), "{target}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn an_answer_says_how_old_it_is_and_a_client_how_old_it_may_be() {
    let origin = Origin::new(|seen| {
        Reply::file(seen, b"hello")
            .header("Cache-Control", "max-age=3600")
            .header("Age", "1800")
    })
    .await;
    let daemon = Daemon::start().await;
    let ask = |header: &'static str| {
        let (addr, url) = (daemon.addr, origin.url("/f"));
        async move { get(addr, url.as_str(), header).await }
    };
    let none = ask("Cache-Control: only-if-cached").await;
    assert_eq!((none.status, origin.seen().len()), (504, 0));
    for _ in 0..2 {
        assert_eq!(ask("").await.header("age"), Some("1800"));
    }
    assert_eq!(origin.seen().len(), 1);
    for (wanted, asked) in [
        ("Cache-Control: max-age=2000", 1),
        ("Cache-Control: max-age=600", 2),
        ("Cache-Control: min-fresh=1000", 2),
        ("Cache-Control: min-fresh=2000", 3),
        ("Cache-Control: only-if-cached", 3),
    ] {
        let answer = ask(wanted).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "hello"),
            "{wanted}"
        );
        assert_eq!(origin.seen().len(), asked, "{wanted}");
    }
    let stale = ask("Cache-Control: only-if-cached, max-age=600").await;
    assert_eq!((stale.status, origin.seen().len()), (504, 3));
    daemon.stop().await;
}
