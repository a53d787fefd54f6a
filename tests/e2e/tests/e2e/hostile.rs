//! Clients that send nonsense, or nothing: they are refused, and nobody else notices.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
};

use pantala_e2e::{
    Content, DEADLINE, Dfdaemon, MIB, Need, Nginx, Process, Signal, ask, exchange, free_port,
    head_of_answer, http_get, needs,
};

/// How many bad clients there are at once.
const MANY: usize = 200;

fn status(answer: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(answer);
    text.split(' ').nth(1)?.parse().ok()
}

fn healthy(addr: SocketAddr) {
    assert_eq!(
        http_get(addr, "/healthz").map(|(status, _)| status),
        Some(200)
    );
}

#[test]
fn clients_that_never_end_their_heads_keep_nobody_waiting() {
    needs!(Need::Program("nginx"), Need::Program("curl"));
    let nginx = Nginx::start();
    let content = Content::new(800, 4 * MIB);
    nginx.put("file.bin", &content);
    let daemon = Dfdaemon::start_alone(&[]);
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        nginx.url("file.bin")
    );
    let mut slow: Vec<TcpStream> = (0..MANY)
        .map(|_| TcpStream::connect(daemon.addr()).unwrap())
        .collect();
    // A byte of each at a time, and somebody in between who asks for all of the file.
    for (number, byte) in head.bytes().enumerate() {
        for stream in &mut slow {
            stream.write_all(&[byte]).unwrap();
        }
        if number % 30 == 10 {
            let done = Process::start("curl", daemon.curl(&nginx.url("file.bin"))).wait();
            assert_eq!(done.code, 0, "{}", done.stderr);
            content.assert_bytes(&done.stdout);
            healthy(daemon.addr());
        }
    }
    // Who ends it after all is answered.
    let mut late = slow.pop().unwrap();
    late.write_all(b"x\r\nConnection: close\r\n\r\n").unwrap();
    let answer = head_of_answer(&late, DEADLINE);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // They do not hold up its end either.
    daemon.process().signal(Signal::Terminate);
    assert_eq!(daemon.into_process().wait().code, 0);
    drop(slow);
}

#[test]
fn heads_that_cannot_be_read_are_refused() {
    let daemon = Dfdaemon::start_alone(&[]);
    let addr = daemon.addr();
    let long = "x".repeat(400 << 10);
    let lines = "X-Line: y\r\n".repeat(20_000);
    let target = "http://origin.example/f";
    let huge = [
        format!("GET {target} HTTP/1.1\r\nHost: h\r\nX-Long: {long}\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n"),
    ];
    for request in &huge {
        let answer = exchange(addr, request.as_bytes());
        assert_eq!(
            status(&answer),
            Some(431),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        healthy(addr);
    }
    let answer = exchange(
        addr,
        format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes(),
    );
    assert!(
        matches!(status(&answer), Some(414 | 431)),
        "{:?}",
        status(&answer)
    );

    let bad = [
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"
            .to_owned(),
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n".to_owned(),
        format!(
            "POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        "GET / HTTP/1.1\r\nHost: h\r\nBad Name: x\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\u{0}".to_owned() + &"\u{1}".repeat(512),
    ];
    for request in &bad {
        let answer = exchange(addr, request.as_bytes());
        assert_eq!(status(&answer), Some(400), "{request:?}");
        healthy(addr);
    }
}

#[test]
fn tunnels_to_other_ports_are_refused() {
    let daemon = Dfdaemon::start_alone(&[]);
    let addr = daemon.addr();
    for to in [
        "127.0.0.1:22",
        "127.0.0.1:80",
        "[::1]:25",
        "origin.example:8443",
    ] {
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
        let answer = exchange(addr, request.as_bytes());
        assert_eq!(status(&answer), Some(403), "{to}");
    }
    for to in [
        "origin.example",
        "origin.example:",
        ":443",
        "origin.example:99999",
    ] {
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
        let answer = exchange(addr, request.as_bytes());
        assert_eq!(status(&answer), Some(400), "{to}");
    }
    healthy(addr);
}

#[test]
fn a_mirror_of_itself_says_so() {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let daemon = Dfdaemon::start_on(addr, &["--mirror", &format!("http://{addr}")]);
    let digest = Content::new(810, 1);
    let blob = format!("/v2/team/app/blobs/sha256:{}", digest.sha256());
    let circles = || daemon.process().stderr().matches("in a circle").count();
    // A content that the origin refuses is asked for once more, for the origin's own words.
    for (target, most) in [("/v2/team/app/manifests/v1", 1), ("/v2/", 1), (&blob, 1)] {
        let before = circles();
        let answer = ask(addr, "GET", target, &[], b"");
        assert_eq!(answer.status, 508, "{target}: {}", answer.text());
        assert!(answer.text().contains("--mirror"), "{}", answer.text());
        let said = circles() - before;
        assert!((1..=most).contains(&said), "{target}: said {said} times");
        healthy(addr);
    }
    // By the proxy as well.
    let answer = ask(
        addr,
        "GET",
        &format!("http://{addr}/v2/x/manifests/v1"),
        &[],
        b"",
    );
    assert_eq!(answer.status, 508, "{}", answer.text());
    healthy(addr);
}
