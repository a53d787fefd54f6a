//! What the head of an answer tells, and what goes wrong before there is one.

use std::time::Duration;

use crate::support::*;
use http::{HeaderValue, StatusCode};
use pantala_core::{ContentMeta, Kind, Validators, Who};
use pantala_origin::{Asker, Expect, OriginClient, OriginConfig, Refused, Revalidation};

#[tokio::test]
async fn the_first_get_tells_what_the_content_is() {
    let server = Server::new([Answer::new(
        "200 OK
         Content-Length: 5
         ETag: \"a\"
         Accept-Ranges: bytes
         Content-Type: text/plain
         Cache-Control: max-age=60",
        "hello",
    )])
    .await;
    let client = client();
    let mut response = client.get(ask(server.url("/f"))).await.unwrap();
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!((response.start, response.end), (0, Some(5)));
    assert_eq!(response.meta.length, Some(5));
    assert!(response.meta.ranges && response.shareable && !response.meta.private);
    // But for the time that the answer took.
    let fresh_for = response.meta.fresh_for.unwrap();
    assert!(fresh_for > Duration::from_secs(30) && fresh_for <= Duration::from_secs(60));
    assert_eq!(read(&mut response.body).await.unwrap(), b"hello");
    assert_eq!(response.body.position(), 5);
    assert_eq!(response.body.next().await.unwrap(), None);
    assert_eq!(client.received_bytes(), 5);
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].contains("accept-encoding: identity\r\n"));
    assert!(!requests[0].contains("range:"));
}

#[tokio::test]
async fn transfers_can_move_between_threads() {
    fn assert_send<T: Send>(_: &T) {}
    let server = Server::new([Answer::new("200 OK\nContent-Length: 0", "")]).await;
    let client = client();
    let get = client.get(ask(server.url("/f")));
    assert_send(&get);
    let mut response = get.await.unwrap();
    assert_send(&response);
    assert_send(&response.body.next());
}

#[tokio::test]
async fn a_range_is_asked_for_and_told_from_the_whole() {
    let server = Server::new([
        Answer::new(
            "206 Partial Content\nContent-Range: bytes 2-3/5\nContent-Length: 2",
            "ll",
        ),
        Answer::new("200 OK\nContent-Length: 5", "hello"),
    ])
    .await;
    let client = client();
    let mut part = client
        .get(ask_range(server.url("/f"), 2, Some(4)))
        .await
        .unwrap();
    assert_eq!(
        (part.start, part.end, part.meta.length),
        (2, Some(4), Some(5))
    );
    assert_eq!(part.body.position(), 2);
    assert_eq!(read(&mut part.body).await.unwrap(), b"ll");
    assert_eq!(part.body.position(), 4);

    let mut whole = client
        .get(ask_range(server.url("/f"), 2, Some(4)))
        .await
        .unwrap();
    assert_eq!((whole.start, whole.end), (0, Some(5)));
    assert!(!whole.meta.ranges);
    assert_eq!(read(&mut whole.body).await.unwrap(), b"hello");
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.contains("range: bytes=2-3\r\n"))
    );
}

#[tokio::test]
async fn the_wrong_part_is_an_error_at_once() {
    let server = Server::new([Answer::new(
        "206 Partial Content\nContent-Range: bytes 0-4/5\nContent-Length: 5",
        "hello",
    )])
    .await;
    let error = client()
        .get(ask_range(server.url("/f"), 2, None))
        .await
        .unwrap_err();
    assert_eq!((error.who(), error.kind()), (Who::Origin, Kind::Protocol));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn the_beginning_of_an_empty_content_is_empty() {
    let server = Server::new([
        Answer::new(
            "416 Range Not Satisfiable\nContent-Range: bytes */0\nContent-Length: 0",
            "",
        ),
        Answer::new("200 OK\nContent-Length: 0", ""),
    ])
    .await;
    let mut response = client()
        .get(ask_range(server.url("/f"), 0, Some(10)))
        .await
        .unwrap();
    assert_eq!(response.meta.length, Some(0));
    assert_eq!(response.body.next().await.unwrap(), None);
}

#[tokio::test]
async fn an_answer_that_contradicts_an_earlier_one_is_a_change() {
    let server = Server::new([Answer::new(
        "200 OK\nETag: \"b\"\nContent-Length: 5",
        "hello",
    )])
    .await;
    let mut request = ask_range(server.url("/f"), 2, None);
    request.expect = Some(Expect {
        validators: Validators {
            etag: Some("\"a\"".into()),
            last_modified: None,
        },
        length: Some(5),
        generation: Default::default(),
    });
    let error = client().get(request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Changed);
    assert!(!error.is_retryable());
    assert!(server.requests()[0].contains("if-range: \"a\"\r\n"));
}

#[tokio::test]
async fn refusals_say_what_they_are_and_are_not_repeated() {
    for (line, kind) in [
        ("401 Unauthorized", Kind::Denied),
        ("403 Forbidden", Kind::Denied),
        ("404 Not Found", Kind::NotFound),
        ("410 Gone", Kind::NotFound),
        ("416 Range Not Satisfiable", Kind::RangeNotSatisfiable),
        ("418 I'm a teapot", Kind::Status(418)),
    ] {
        let server = Server::new([Answer::new(&format!("{line}\nContent-Length: 0"), "")]).await;
        let error = client()
            .get(ask(server.url("/f?token=secret")))
            .await
            .unwrap_err();
        assert_eq!((error.who(), error.kind()), (Who::Origin, kind));
        let text = error.to_string();
        assert!(text.contains(&line[..3]) && text.contains("/f"), "{text}");
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_passing_failure_is_tried_again() {
    let server = Server::new([
        Answer::new("500 Internal Server Error\nContent-Length: 0", ""),
        Answer::new(
            "503 Service Unavailable\nRetry-After: 0\nContent-Length: 0",
            "",
        ),
        Answer::nothing(),
        Answer::new("200 OK\nContent-Length: 5", "hello"),
    ])
    .await;
    let mut response = client().get(ask(server.url("/f"))).await.unwrap();
    assert_eq!(read(&mut response.body).await.unwrap(), b"hello");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_lasting_failure_ends_after_the_retries() {
    let failure = Answer::new("500 Internal Server Error\nContent-Length: 0", "");
    let server = Server::new(vec![failure; 10]).await;
    let config = OriginConfig {
        retries: 2,
        ..config()
    };
    let client = OriginClient::new(config).unwrap();
    let error = client.get(ask(server.url("/f"))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Status(500));
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn trouble_is_passed_on_at_once_to_who_wants_that() {
    let server = Server::new([Answer::new("503 Service Unavailable", "busy")]).await;
    let mut request = ask(server.url("/f"));
    request.ask_again = false;
    let refused = client().get_or_refusal(request).await.unwrap_err();
    assert_eq!(refused.error.kind(), Kind::Status(503));
    assert_eq!(&refused.answer.unwrap().body[..], b"busy");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_silent_origin_is_a_timeout() {
    let server = Server::new([Answer::new("100 Continue", "").then(Then::Hang)]).await;
    let config = OriginConfig {
        answer_timeout: Duration::from_millis(50),
        ..config()
    };
    let error = OriginClient::new(config)
        .unwrap()
        .get(ask(server.url("/f")))
        .await
        .unwrap_err();
    assert_eq!((error.who(), error.kind()), (Who::Origin, Kind::Timeout));
    // It may be at work on the answer.
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_slow_answer_is_waited_for() {
    let slow = Answer::new("200 OK\nContent-Length: 5", "hello").after(Duration::from_millis(120));
    let server = Server::new([slow]).await;
    let config = OriginConfig {
        connect_timeout: Duration::from_millis(40),
        read_timeout: Duration::from_millis(40),
        ..config()
    };
    let client = OriginClient::new(config).unwrap();
    let mut response = client.get(ask(server.url("/f"))).await.unwrap();
    assert_eq!(read(&mut response.body).await.unwrap(), b"hello");
    assert!(response.meta.age >= Duration::from_millis(120));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_long_pause_is_the_clients_to_keep() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let busy = format!("{status}\nRetry-After: 60\nContent-Length: 4");
        let server = Server::new([Answer::new(&busy, "busy")]).await;
        let asked = client().get_or_refusal(ask(server.url("/f"))).await;
        let answer = asked.unwrap_err().answer.unwrap();
        assert_eq!(answer.headers["retry-after"], "60");
        assert_eq!(&answer.body[..], b"busy");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_short_pause_is_kept() {
    let server = Server::new([
        Answer::new("503 Service Unavailable\nRetry-After: 0", ""),
        Answer::new("200 OK\nContent-Length: 5", "hello"),
    ])
    .await;
    let response = client().get(ask(server.url("/f"))).await.unwrap();
    assert_eq!(response.meta.length, Some(5));
}

#[tokio::test]
async fn who_is_not_there_is_told_apart() {
    let config = OriginConfig {
        retries: 0,
        ..config()
    };
    let client = OriginClient::new(config).unwrap();
    let error = client
        .get(ask("http://no-such-host.invalid/f".parse().unwrap()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    let text = error.to_string();
    assert!(
        text.contains("no-such-host.invalid does not resolve"),
        "{text}"
    );
    assert!(text.contains("check the host name"), "{text}");

    // A port that was free a moment ago.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let error = client
        .get(ask(format!("http://{address}/f").parse().unwrap()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    let text = error.to_string();
    assert!(
        text.contains(&format!("{address} refused the connection")),
        "{text}"
    );

    let error = client
        .get(ask("ftp://origin.example/f".parse().unwrap()))
        .await
        .unwrap_err();
    assert_eq!((error.who(), error.kind()), (Who::User, Kind::BadInput));
}

#[tokio::test]
async fn what_is_no_http_is_a_protocol_error() {
    let server = Server::new([Answer::new("", "").then(Then::Close), Answer::new("", "")]).await;
    let error = client().get(ask(server.url("/f"))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol, "{error}");
}

#[tokio::test]
async fn redirects_keep_credentials_at_home() {
    let there = Server::new([Answer::new("200 OK\nContent-Length: 2", "ok")]).await;
    let elsewhere = there.url("/there");
    let here = Server::new([
        Answer::new("302 Found\nLocation: /next\nContent-Length: 0", ""),
        Answer::new(
            &format!("307 Temporary Redirect\nLocation: {elsewhere}\nContent-Length: 0"),
            "",
        ),
    ])
    .await;
    let mut request = ask(here.url("/f"));
    for name in ["authorization", "cookie", "x-auth-token", "x-session-id"] {
        request
            .headers
            .insert(name, HeaderValue::from_static("secret"));
    }
    request
        .headers
        .insert("x-request-id", HeaderValue::from_static("kept"));
    let mut response = client().get(request).await.unwrap();
    assert!(response.meta.private);
    assert_eq!(read(&mut response.body).await.unwrap(), b"ok");
    assert!(here.requests()[1].starts_with("get /next "));
    assert!(here.requests()[1].contains("authorization: secret"));
    assert!(!there.requests()[0].contains("secret"));
    assert!(there.requests()[0].contains("x-request-id: kept"));
}

#[tokio::test]
async fn a_urls_user_becomes_credentials() {
    let server = Server::new([Answer::new("200 OK\nContent-Length: 2", "ok")]).await;
    let mut url = server.url("/f");
    url.set_username("me").unwrap();
    url.set_password(Some("pw")).unwrap();
    let response = client().get(ask(url)).await.unwrap();
    assert!(response.meta.private);
    assert!(server.requests()[0].contains("authorization: basic bwu6chc="));
}

#[tokio::test]
async fn redirects_that_lead_nowhere_end() {
    let loops = Answer::new("301 Moved Permanently\nLocation: /f\nContent-Length: 0", "");
    let server = Server::new(vec![loops; 20]).await;
    let error = client().get(ask(server.url("/f"))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(
        error.to_string().contains("more than 10 redirects"),
        "{error}"
    );
    assert_eq!(server.requests().len(), 11);
}

#[tokio::test]
async fn a_check_asks_without_reading() {
    let ok = Server::new([Answer::new("200 OK\nContent-Length: 500", "")]).await;
    let headers = http::HeaderMap::new();
    client()
        .check(&ok.url("/f"), &headers, true, Asker::Host)
        .await
        .unwrap();
    assert!(ok.requests()[0].starts_with("head "));

    let no_head = Server::new([
        Answer::new("405 Method Not Allowed\nContent-Length: 0", ""),
        Answer::new(
            "206 Partial Content\nContent-Range: bytes 0-0/9\nContent-Length: 1",
            "x",
        ),
    ])
    .await;
    client()
        .check(&no_head.url("/f"), &headers, true, Asker::Host)
        .await
        .unwrap();
    assert!(no_head.requests()[1].starts_with("get "));
    assert!(no_head.requests()[1].contains("range: bytes=0-0\r\n"));

    let denied = Server::new([Answer::new("403 Forbidden\nContent-Length: 0", "")]).await;
    let error = client()
        .check(&denied.url("/f"), &headers, true, Asker::Host)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);

    let signed = Server::new([Answer::new("200 OK\nContent-Length: 1", "x")]).await;
    client()
        .check(
            &signed.url("/f?X-Amz-Signature=1"),
            &headers,
            true,
            Asker::Host,
        )
        .await
        .unwrap();
    assert!(signed.requests()[0].starts_with("get "));
}

#[tokio::test]
async fn what_is_passed_on_stays_as_it_is() {
    let server = Server::new([Answer::new(
        "302 Found\nLocation: /x\nContent-Length: 4",
        "body",
    )])
    .await;
    let request = http::Request::post(server.url("/f?q=1").as_str())
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-end", "2")
        .body(pantala_origin::Body::from("sent"))
        .unwrap();
    let client = client();
    let response = client.forward(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.headers()["location"], "/x");
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(&body[..], b"body");
    assert_eq!(client.received_bytes(), 4);
    let sent = &server.requests()[0];
    assert!(sent.starts_with("post /f?q=1 ") && sent.contains("x-end: 2"));
    assert!(sent.contains("content-length: 4") && !sent.contains("x-hop"));
}

#[tokio::test]
async fn a_refusal_brings_the_origins_own_words() {
    let server = Server::new([Answer::new(
        "404 Not Found\nContent-Length: 7\nX-Why: gone\nConnection: close",
        "no such",
    )])
    .await;
    let refused = client().get_or_refusal(ask(server.url("/f"))).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.error.kind(), Kind::NotFound);
    let answer = refused.answer.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.headers["x-why"], "gone");
    assert!(!answer.headers.contains_key("connection"));
    assert_eq!(answer.body, "no such");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_refusal_brings_no_words_that_are_cut_or_anothers() {
    let long = vec![b'x'; (64 << 10) + 1];
    let head = format!("403 Forbidden\nContent-Length: {}", long.len());
    let cut = Answer::new("403 Forbidden\nContent-Length: 9", "short");
    for answer in [Answer::new(&head, long), cut] {
        let server = Server::new([answer]).await;
        let refused = client().get_or_refusal(ask(server.url("/f"))).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.error.kind(), Kind::Denied);
        assert!(refused.answer.is_none());
    }

    let there = Server::new([Answer::new("403 Forbidden\nContent-Length: 0", "")]).await;
    let target = there.url("/there");
    let head = format!("307 Temporary Redirect\nLocation: {target}\nContent-Length: 0");
    let here = Server::new([Answer::new(&head, "")]).await;
    let refused = client().get_or_refusal(ask(here.url("/f"))).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.error.kind(), Kind::Denied);
    assert!(refused.answer.is_none());
}

#[tokio::test]
async fn trailers_are_passed_on() {
    let server = Server::new([Answer::new(
        "200 OK\nTransfer-Encoding: chunked\nTrailer: X-Sum",
        "4\r\nbody\r\n0\r\nX-Sum: 7\r\n\r\n",
    )])
    .await;
    let request = http::Request::get(server.url("/f").as_str())
        .body(pantala_origin::Body::empty())
        .unwrap();
    let response = client().forward(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "7");
    assert_eq!(body.to_bytes(), "body");
}

/// What is known of a content that has these validators.
fn known(etag: Option<&str>) -> ContentMeta {
    ContentMeta {
        length: Some(5),
        validators: Validators {
            etag: etag.map(str::to_owned),
            last_modified: None,
        },
        headers: vec![("x-a".into(), "1".into()), ("x-b".into(), "1".into())],
        ..ContentMeta::default()
    }
}

/// Asks again for what had this entity tag.
async fn again(server: &Server, etag: Option<&str>) -> Result<Revalidation, Refused> {
    let request = ask(server.url("/f"));
    client().revalidate(request, &known(etag)).await
}

#[tokio::test]
async fn what_is_unchanged_is_brought_up_to_date() {
    let server = Server::new([Answer::new(
        "304 Not Modified\nETag: \"a\"\nCache-Control: max-age=60\nX-B: 2",
        "",
    )])
    .await;
    let asked = again(&server, Some("\"a\"")).await;
    let Ok(Revalidation::Unchanged { meta, shareable }) = asked else {
        panic!("it is unchanged");
    };
    assert!(shareable && meta.fresh_for > Some(Duration::from_secs(30)));
    let headers: Vec<(&str, &str)> = meta.headers.iter().map(|(n, v)| (&**n, &**v)).collect();
    assert_eq!(
        headers,
        [("x-a", "1"), ("cache-control", "max-age=60"), ("x-b", "2")]
    );
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].contains("if-none-match: \"a\"\r\n"));
}

#[tokio::test]
async fn asking_again_takes_one_get() {
    let whole = || Answer::new("200 OK\nContent-Length: 5", "hello");
    for etag in [None, Some("\"a\"")] {
        let server = Server::new([whole(), whole()]).await;
        let asked = again(&server, etag).await;
        assert!(matches!(asked, Ok(Revalidation::Sent(_))));
        assert_eq!(server.requests().len(), 1, "{etag:?}");
    }
    let gone = || Answer::new("404 Not Found\nContent-Length: 4", "gone");
    let server = Server::new([gone(), gone()]).await;
    let asked = again(&server, Some("\"a\"")).await;
    let refused = asked.err().unwrap();
    assert_eq!(refused.error.kind(), Kind::NotFound);
    assert_eq!(&refused.answer.unwrap().body[..], b"gone");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_304_of_another_content_is_no_answer() {
    let server = Server::new([
        Answer::new("304 Not Modified\nETag: \"b\"", ""),
        Answer::new("200 OK\nContent-Length: 5", "hello"),
    ])
    .await;
    let asked = again(&server, Some("\"a\"")).await;
    assert!(matches!(asked, Ok(Revalidation::Sent(_))));
    assert!(!server.requests()[1].contains("if-none-match"));
}
