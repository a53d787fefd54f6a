//! What a client of the HTTP proxy gets, beside what the origin would have sent it.

use crate::support::{Daemon, Framing, Origin, Reply, content, exchange, get};

#[tokio::test]
async fn a_whole_file_is_as_the_origin_has_it() {
    let file = content(3_000_000);
    let origin = Origin::new({
        let file = file.clone();
        move |seen| {
            Reply::file(seen, &file)
                .header("Content-Type", "application/x-thing")
                .header("Content-Disposition", "attachment")
                .header("X-Linked-Etag", "\"v1\"")
                .header("X-Of-The-Message", "1")
                .header("Connection", "X-Of-The-Message")
        }
    })
    .await;
    let daemon = Daemon::start().await;
    let answer = get(daemon.addr, origin.url("/f?a=b").as_str(), "User-Agent: me").await;
    assert_eq!((answer.status, answer.complete), (200, true));
    assert!(answer.body == file);
    for (name, value) in [
        ("content-length", "3000000"),
        ("content-type", "application/x-thing"),
        ("content-disposition", "attachment"),
        ("etag", "\"v1\""),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("accept-ranges", "bytes"),
        ("x-linked-etag", "\"v1\""),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert_eq!(answer.header("x-of-the-message"), None);
    let seen = origin.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].target, "/f?a=b");
    assert_eq!(seen[0].header("user-agent"), Some("me"));
    assert_eq!(seen[0].header("accept-encoding"), Some("identity"));
    daemon.stop().await;
}

#[tokio::test]
async fn ranges_are_parts_of_the_same_content() {
    let file = content(5_000_000);
    let origin = Origin::of_file(&file).await;
    let daemon = Daemon::start().await;
    let url = origin.url("/f");
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=1048575-1048577", 1_048_575, 1_048_578),
        ("bytes=4999990-", 4_999_990, 5_000_000),
        ("bytes=-7", 4_999_993, 5_000_000),
        ("bytes=-9999999", 0, 5_000_000),
        ("bytes=4999999-9999999", 4_999_999, 5_000_000),
    ] {
        let answer = get(daemon.addr, url.as_str(), &format!("Range: {range}")).await;
        assert_eq!((answer.status, answer.complete), (206, true), "{range}");
        assert!(answer.body == file[start..end], "{range}");
        let part = format!("bytes {start}-{}/5000000", end - 1);
        assert_eq!(answer.header("content-range"), Some(part.as_str()));
        assert_eq!(answer.framing, Framing::Length);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn what_lies_outside_is_refused_with_the_length() {
    let origin = Origin::of_file(&content(1000)).await;
    let daemon = Daemon::start().await;
    for range in ["bytes=1000-", "bytes=5000-6000", "bytes=-0"] {
        let answer = get(
            daemon.addr,
            origin.url("/f").as_str(),
            &format!("Range: {range}"),
        )
        .await;
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.header("content-range"), Some("bytes */1000"));
    }
    daemon.stop().await;
}

#[tokio::test]
async fn other_ranges_and_conditions_are_for_the_origin() {
    let origin = Origin::new(|_| Reply::new("200 OK", "all of it")).await;
    let daemon = Daemon::start().await;
    for header in [
        "Range: bytes=0-1,3-4",
        "Range: lines=1-2",
        "If-Match: \"v1\"",
        "Cache-Control: no-store",
        "Cache-Control: max-age=0",
        "Pragma: no-cache",
    ] {
        let answer = get(daemon.addr, origin.url("/f").as_str(), header).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "all of it"));
        let seen = origin.seen();
        let seen = seen.last().unwrap();
        for line in header.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(seen.header(name), Some(value), "{header}");
        }
    }
    assert_eq!(origin.seen().len(), 6);
    assert_eq!(daemon.node.streams().await.len(), 0);
    daemon.stop().await;
}

#[tokio::test]
async fn a_client_that_has_it_gets_no_body() {
    let origin = Origin::of_file(&content(100_000)).await;
    let daemon = Daemon::start().await;
    let url = origin.url("/f");
    for condition in [
        "If-None-Match: \"v0\", \"v1\"",
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
    ] {
        let answer = get(daemon.addr, url.as_str(), condition).await;
        assert_eq!(answer.status, 304, "{condition}");
        assert_eq!(answer.header("etag"), Some("\"v1\""));
    }
    let answer = get(daemon.addr, url.as_str(), "If-None-Match: \"v0\"").await;
    assert_eq!((answer.status, answer.body.len()), (200, 100_000));
    assert_eq!(origin.seen()[0].header("if-none-match"), None);
    daemon.stop().await;
}

#[tokio::test]
async fn other_methods_are_passed_on() {
    let origin = Origin::new(|seen| match seen.method.as_str() {
        "HEAD" => Reply::file(seen, &content(12_345)),
        _ => Reply::new("201 Created", seen.body.clone()).header("X-Made", "1"),
    })
    .await;
    let daemon = Daemon::start().await;
    let url = origin.url("/f");
    let head = format!("HEAD {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = exchange(daemon.addr, head.as_bytes()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-length"), Some("12345"));

    let post = format!(
        "POST {url} HTTP/1.1\r\nHost: x\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\
         Proxy-Authorization: Basic eA==\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"
    );
    let answer = exchange(daemon.addr, post.as_bytes()).await;
    // What says that the body may come is an answer too.
    assert_eq!(answer.status, 100);

    let post = format!(
        "PUT {url} HTTP/1.1\r\nHost: x\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\
         Proxy-Authorization: Basic eA==\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    );
    let answer = exchange(daemon.addr, post.as_bytes()).await;
    assert_eq!((answer.status, answer.text().as_str()), (201, "hello"));
    assert_eq!(answer.header("x-made"), Some("1"));
    let seen = origin.seen();
    let put = seen.iter().find(|seen| seen.method == "PUT").unwrap();
    assert_eq!(put.body, b"hello");
    assert_eq!(put.header("x-hop"), None);
    assert_eq!(put.header("proxy-authorization"), None);
    daemon.stop().await;
}

#[tokio::test]
async fn a_refusal_is_the_origins_own() {
    let origin = Origin::new(|seen| match seen.target.as_str() {
        "/secret" => Reply::new("401 Unauthorized", "who are you")
            .header("WWW-Authenticate", "Basic realm=\"x\"")
            .header("WWW-Authenticate", "Bearer realm=\"y\""),
        "/teapot" => Reply::new("418 I'm a teapot", "short and stout"),
        _ => Reply::new("404 Not Found", "no such thing").header("X-Why", "gone"),
    })
    .await;
    let daemon = Daemon::start().await;
    let answer = get(daemon.addr, origin.url("/secret").as_str(), "").await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (401, "who are you")
    );
    let challenges = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "www-authenticate");
    assert_eq!(challenges.count(), 2);
    let answer = get(daemon.addr, origin.url("/nothing").as_str(), "").await;
    assert_eq!((answer.status, answer.header("x-why")), (404, Some("gone")));
    let answer = get(daemon.addr, origin.url("/teapot").as_str(), "").await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (418, "short and stout")
    );
    daemon.stop().await;
}

#[tokio::test]
async fn nobody_there_is_said_in_a_line() {
    let closed = Origin::of_file(b"").await;
    let url = closed.url("/f?token=secret");
    drop(closed);
    let daemon = Daemon::start().await;
    let answer = get(daemon.addr, url.as_str(), "").await;
    assert_eq!(answer.status, 502);
    let text = answer.text();
    assert!(
        text.starts_with("origin: ") && text.lines().count() == 1,
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
    let answer = get(daemon.addr, "ftp://origin.example/f", "").await;
    assert_eq!(answer.status, 400);
    daemon.stop().await;
}

#[tokio::test]
async fn content_without_a_length_is_chunked() {
    let file = content(2_500_000);
    let origin = Origin::new({
        let file = file.clone();
        move |_| Reply::new("200 OK", file.clone()).chunked()
    })
    .await;
    let daemon = Daemon::start().await;
    let answer = get(daemon.addr, origin.url("/f").as_str(), "").await;
    assert_eq!((answer.status, answer.framing), (200, Framing::Chunked));
    assert!(answer.complete && answer.body == file);
    // No part of it can be named: all of it is an answer too.
    let answer = get(daemon.addr, origin.url("/g").as_str(), "Range: bytes=5-9").await;
    assert_eq!((answer.status, answer.framing), (200, Framing::Chunked));
    assert!(answer.complete && answer.body == file);
    daemon.stop().await;
}

#[tokio::test]
async fn an_empty_file_is_complete() {
    let origin = Origin::of_file(b"").await;
    let daemon = Daemon::start().await;
    let answer = get(daemon.addr, origin.url("/f").as_str(), "").await;
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some("0"))
    );
    assert!(answer.complete && answer.body.is_empty());
    daemon.stop().await;
}

#[tokio::test]
async fn an_encoding_stays_as_it_was_sent() {
    let origin = Origin::new(|seen| {
        Reply::file(seen, b"not really gzip").header("Content-Encoding", "gzip")
    })
    .await;
    let daemon = Daemon::start().await;
    let answer = get(daemon.addr, origin.url("/f").as_str(), "").await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.text(), "not really gzip");
    daemon.stop().await;
}

#[tokio::test]
async fn a_part_is_joined_to_parts_of_the_same_content_only() {
    let file = content(100_000);
    let origin = Origin::of_file(&file).await;
    let daemon = Daemon::start().await;
    let url = origin.url("/f");
    for (condition, status) in [
        ("\"v1\"", 206),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 206),
        ("\"v0\"", 200),
        ("W/\"v1\"", 200),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
    ] {
        let headers = format!("Range: bytes=10-19\nIf-Range: {condition}");
        let answer = get(daemon.addr, url.as_str(), &headers).await;
        assert_eq!(
            (answer.status, answer.complete),
            (status, true),
            "{condition}"
        );
        match status {
            206 => assert!(answer.body == file[10..20]),
            _ => assert!(answer.body == file && answer.header("content-range").is_none()),
        }
    }
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_known_answers_head_and_416() {
    let origin = Origin::of_file(&content(100_000)).await;
    let daemon = Daemon::start().await;
    let url = origin.url("/f");
    let head = |condition: &str| {
        let head = format!("HEAD {url} HTTP/1.1\r\nHost: x\r\n{condition}\r\n");
        let addr = daemon.addr;
        async move { exchange(addr, head.as_bytes()).await }
    };
    // Nothing is known yet: the origin's own answer.
    assert_eq!(head("").await.header("content-length"), Some("100000"));
    // By the second request the supernode has said for how long it is fresh.
    for _ in 0..2 {
        assert!(get(daemon.addr, url.as_str(), "").await.complete);
    }
    assert_eq!(origin.seen().len(), 2);
    let known = head("Range: bytes=0-1\r\n").await;
    assert_eq!(
        (known.status, known.header("content-length")),
        (200, Some("100000"))
    );
    assert_eq!(known.header("etag"), Some("\"v1\""));
    assert_eq!(known.header("accept-ranges"), Some("bytes"));
    assert_eq!(head("If-None-Match: \"v1\"\r\n").await.status, 304);
    let outside = get(daemon.addr, url.as_str(), "Range: bytes=100000-").await;
    assert_eq!(outside.header("content-range"), Some("bytes */100000"));
    assert_eq!(outside.status, 416);
    assert_eq!(origin.seen().len(), 2);
    daemon.stop().await;
}

#[tokio::test]
async fn pages_are_made_for_each_and_files_are_shared() {
    for (path, headers, requests) in [
        (
            "/page",
            vec![("Content-Type", "text/html; charset=utf-8")],
            2,
        ),
        (
            "/api",
            vec![("Content-Type", "application/problem+json")],
            2,
        ),
        (
            "/fresh",
            vec![
                ("Content-Type", "text/html"),
                ("Cache-Control", "max-age=60"),
            ],
            1,
        ),
        ("/f.tgz", vec![("Content-Type", "application/json")], 1),
        ("/f", vec![("Content-Type", "application/octet-stream")], 1),
    ] {
        let origin = Origin::new(move |seen| {
            let reply = Reply::file(seen, b"something");
            let headers = headers.iter();
            headers.fold(reply, |reply, (name, value)| reply.header(name, value))
        })
        .await;
        let daemon = Daemon::start().await;
        for _ in 0..2 {
            let answer = get(daemon.addr, origin.url(path).as_str(), "").await;
            assert_eq!(answer.text(), "something");
        }
        assert_eq!(origin.seen().len(), requests, "{path}");
        daemon.stop().await;
    }
}

#[tokio::test]
async fn where_something_has_moved_to_is_for_the_client_to_know() {
    let origin = Origin::new(|seen| match seen.target.as_str() {
        "/old" => Reply::new("302 Found", "it is at /new").header("Location", "/new"),
        _ => Reply::file(seen, b"something"),
    })
    .await;
    let daemon = Daemon::start().await;
    let moved = get(daemon.addr, origin.url("/old").as_str(), "").await;
    assert_eq!(
        (moved.status, moved.header("location")),
        (302, Some("/new"))
    );
    assert_eq!(moved.text(), "it is at /new");
    assert_eq!(origin.seen().len(), 1, "its answer is passed on as it came");
    assert_eq!(
        get(daemon.addr, origin.url("/new").as_str(), "")
            .await
            .text(),
        "something"
    );
    daemon.stop().await;
}

#[tokio::test]
async fn trailers_reach_who_takes_them() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                      5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    });
    let daemon = Daemon::start().await;
    let request = format!(
        "DELETE http://{origin}/f HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n"
    );
    let mut stream = tokio::net::TcpStream::connect(daemon.addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.to_ascii_lowercase().contains("trailer: x-sum"),
        "{answer}"
    );
    assert!(
        answer
            .to_ascii_lowercase()
            .ends_with("0\r\nx-sum: 7\r\n\r\n"),
        "{answer}"
    );
    assert!(serving.await.unwrap().contains("te: trailers"));
    daemon.stop().await;
}
