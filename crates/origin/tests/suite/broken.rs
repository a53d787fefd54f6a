//! Transfers that break midway: they go on at the right byte or end in an error.

use std::time::Duration;

use crate::support::*;
use pantala_core::Kind;
use pantala_origin::{OriginClient, OriginConfig};

const WHOLE: &str = "200 OK\nContent-Length: 10\nETag: \"a\"";

fn rest(start: u64, etag: &str) -> Answer {
    let body = &b"0123456789"[start as usize..];
    let head = format!(
        "206 Partial Content\nContent-Range: bytes {start}-9/10\nContent-Length: {}\n{etag}",
        body.len()
    );
    Answer::new(&head, body)
}

#[tokio::test]
async fn a_cut_transfer_goes_on_at_the_right_byte() {
    let server = Server::new([Answer::new(WHOLE, "0123"), rest(4, "ETag: \"a\"")]).await;
    let client = client();
    let mut response = client.get(ask(server.url("/f"))).await.unwrap();
    assert_eq!(read(&mut response.body).await.unwrap(), b"0123456789");
    let again = &server.requests()[1];
    assert!(again.contains("range: bytes=4-\r\n"), "{again}");
    assert!(again.contains("if-range: \"a\"\r\n"), "{again}");
    assert_eq!(client.received_bytes(), 10);
}

#[tokio::test]
async fn a_reset_transfer_goes_on_at_the_right_byte() {
    let server = Server::new([
        Answer::new(WHOLE, "0123").then(Then::ResetWhenTold),
        rest(4, "ETag: \"a\""),
    ])
    .await;
    let mut response = client().get(ask(server.url("/f"))).await.unwrap();
    assert_eq!(response.body.next().await.unwrap().unwrap(), "0123");
    server.cut();
    assert_eq!(read(&mut response.body).await.unwrap(), b"456789");
}

#[tokio::test]
async fn a_silent_transfer_goes_on_over_another_connection() {
    let server = Server::new([
        Answer::new(WHOLE, "0123").then(Then::Hang),
        rest(4, "ETag: \"a\""),
    ])
    .await;
    let config = OriginConfig {
        read_timeout: Duration::from_millis(50),
        ..config()
    };
    let client = OriginClient::new(config).unwrap();
    let mut response = client.get(ask(server.url("/f"))).await.unwrap();
    assert_eq!(read(&mut response.body).await.unwrap(), b"0123456789");
}

#[tokio::test]
async fn a_cancelled_wait_loses_no_byte_and_still_times_out() {
    let server = Server::new([
        Answer::new(WHOLE, "0123").then(Then::Hang),
        rest(4, "ETag: \"a\""),
    ])
    .await;
    let config = OriginConfig {
        read_timeout: Duration::from_millis(60),
        ..config()
    };
    let client = OriginClient::new(config).unwrap();
    let mut response = client.get(ask(server.url("/f"))).await.unwrap();
    let mut all = Vec::new();
    while all.len() < 10 {
        // Far shorter than the read timeout: each wait is cancelled before it has run out.
        let wait = tokio::time::timeout(Duration::from_millis(5), response.body.next());
        if let Ok(next) = wait.await {
            all.extend_from_slice(&next.unwrap().unwrap());
        }
    }
    assert_eq!(all, b"0123456789");
}

#[tokio::test]
async fn a_bounded_range_stays_bounded_when_it_goes_on() {
    let server = Server::new([
        Answer::new(
            "206 Partial Content\nContent-Range: bytes 2-7/10\nContent-Length: 6\nETag: \"a\"",
            "23",
        ),
        Answer::new(
            "206 Partial Content\nContent-Range: bytes 4-7/10\nContent-Length: 4\nETag: \"a\"",
            "4567",
        ),
    ])
    .await;
    let mut response = client()
        .get(ask_range(server.url("/f"), 2, Some(8)))
        .await
        .unwrap();
    assert_eq!(read(&mut response.body).await.unwrap(), b"234567");
    assert!(server.requests()[1].contains("range: bytes=4-7\r\n"));
}

#[tokio::test]
async fn a_range_answered_in_shorter_parts_is_read_to_its_end() {
    let part = |head: &str, body: &str| {
        Answer::new(&format!("206 Partial Content\n{head}\nETag: \"a\""), body)
    };
    let server = Server::new([
        part("Content-Range: bytes 0-3/10\nContent-Length: 4", "0123"),
        part("Content-Range: bytes 4-9/10\nContent-Length: 6", "456789"),
    ])
    .await;
    let config = OriginConfig {
        retries: 0,
        ..config()
    };
    let client = OriginClient::new(config).unwrap();
    let mut response = client
        .get(ask_range(server.url("/f"), 0, Some(10)))
        .await
        .unwrap();
    assert_eq!(response.end, Some(10));
    assert_eq!(read(&mut response.body).await.unwrap(), b"0123456789");
}

#[tokio::test]
async fn a_changed_content_is_never_joined() {
    for changed in [
        rest(4, "ETag: \"b\""),
        Answer::new("200 OK\nContent-Length: 10\nETag: \"b\"", "abcdefghij"),
        Answer::new(
            "206 Partial Content\nContent-Range: bytes 4-10/11\nContent-Length: 7",
            "456789a",
        ),
    ] {
        let server = Server::new([Answer::new(WHOLE, "0123"), changed]).await;
        let mut response = client().get(ask(server.url("/f"))).await.unwrap();
        let (all, error) = read_to_error(&mut response.body).await;
        assert_eq!(all, b"0123");
        assert_eq!(error.kind(), Kind::Changed);
        assert!(!error.is_retryable());
        assert_eq!(response.body.next().await.unwrap_err(), error);
    }
}

#[tokio::test]
async fn without_ranges_the_beginning_is_read_again_and_left_out() {
    let server = Server::new([Answer::new(WHOLE, "0123"), Answer::new(WHOLE, "0123456789")]).await;
    let client = client();
    let mut response = client.get(ask(server.url("/f"))).await.unwrap();
    assert_eq!(read(&mut response.body).await.unwrap(), b"0123456789");
    assert_eq!(client.received_bytes(), 14);
}

#[tokio::test]
async fn without_anything_that_vouches_there_is_no_going_on() {
    let chunked = "200 OK\nTransfer-Encoding: chunked";
    let server = Server::new([
        Answer::new(chunked, "4\r\n0123\r\n"),
        Answer::new(chunked, "4\r\n0123\r\n0\r\n\r\n"),
    ])
    .await;
    let mut response = client().get(ask(server.url("/f"))).await.unwrap();
    let (all, error) = read_to_error(&mut response.body).await;
    assert_eq!(all, b"0123");
    assert!(error.to_string().contains("start again"), "{error}");
    assert_eq!(server.requests().len(), 1);
}

const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT";

#[tokio::test]
async fn equal_lengths_dates_and_weak_tags_join_nothing() {
    for weak in [
        "X-Nothing: 1".to_owned(),
        "ETag: W/\"a\"".to_owned(),
        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT".to_owned(),
        format!("Last-Modified: Sun, 06 Nov 1994 08:49:36 GMT\n{DATE}"),
        format!("ETag: W/\"a\"\nLast-Modified: Sat, 05 Nov 1994 08:49:37 GMT\n{DATE}"),
    ] {
        let head = format!("200 OK\nContent-Length: 10\n{weak}");
        let server = Server::new([Answer::new(&head, "0123"), rest(4, &weak)]).await;
        let mut response = client().get(ask(server.url("/f"))).await.unwrap();
        let (all, error) = read_to_error(&mut response.body).await;
        assert_eq!(all, b"0123", "{weak}");
        assert_eq!(error.kind(), Kind::Changed, "{weak}");
        assert!(error.to_string().contains("start again"), "{error}");
        assert_eq!(server.requests().len(), 1, "{weak}");
    }
}

#[tokio::test]
async fn a_date_long_before_the_answer_is_as_good_as_a_strong_tag() {
    const SETTLED: &str = "Last-Modified: Sat, 05 Nov 1994 08:49:37 GMT";
    let head = format!("200 OK\nContent-Length: 10\n{SETTLED}\n{DATE}");
    // RFC 9110, 15.3.7: a part that `If-Range` let through need not repeat the date.
    for repeated in [SETTLED, "X-Nothing: 1"] {
        let server = Server::new([Answer::new(&head, "0123"), rest(4, repeated)]).await;
        let mut response = client().get(ask(server.url("/f"))).await.unwrap();
        assert_eq!(read(&mut response.body).await.unwrap(), b"0123456789");
        let again = &server.requests()[1];
        assert!(again.contains("if-range: sat, 05 nov 1994"), "{again}");
    }
}

#[tokio::test]
async fn a_part_that_does_not_repeat_the_strong_tag_is_of_something_else() {
    let server = Server::new([Answer::new(WHOLE, "0123"), rest(4, "X-Nothing: 1")]).await;
    let mut response = client().get(ask(server.url("/f"))).await.unwrap();
    let (all, error) = read_to_error(&mut response.body).await;
    assert_eq!((&all[..], error.kind()), (&b"0123"[..], Kind::Changed));
}

#[tokio::test]
async fn a_digest_of_the_whole_joins_what_has_no_validator() {
    let head = "200 OK\nContent-Length: 10";
    let server = Server::new([Answer::new(head, "0123"), rest(4, "X-Nothing: 1")]).await;
    let mut response = client().get(ask(server.url("/f"))).await.unwrap();
    response.body.named_by_digest();
    assert_eq!(read(&mut response.body).await.unwrap(), b"0123456789");
}

#[tokio::test]
async fn what_broke_before_its_first_byte_needs_no_vouching() {
    let chunked = "200 OK\nTransfer-Encoding: chunked";
    let server = Server::new([
        Answer::new(chunked, ""),
        Answer::new(chunked, "4\r\n0123\r\n0\r\n\r\n"),
    ])
    .await;
    let mut response = client().get(ask(server.url("/f"))).await.unwrap();
    assert_eq!(read(&mut response.body).await.unwrap(), b"0123");
}

#[tokio::test]
async fn chunks_without_a_length_end_where_they_say() {
    let server = Server::new([Answer::new(
        "200 OK\nTransfer-Encoding: chunked",
        "5\r\nhello\r\n0\r\n\r\n",
    )])
    .await;
    let mut response = client().get(ask(server.url("/f"))).await.unwrap();
    assert_eq!((response.meta.length, response.end), (None, None));
    assert_eq!(read(&mut response.body).await.unwrap(), b"hello");
}

#[tokio::test]
async fn cut_chunks_go_on_and_a_lost_last_chunk_is_no_loss() {
    let chunked = "200 OK\nTransfer-Encoding: chunked\nETag: \"a\"";
    let server = Server::new([
        Answer::new(chunked, "4\r\n0123\r\n"),
        rest(4, "ETag: \"a\""),
    ])
    .await;
    let mut response = client().get(ask(server.url("/f"))).await.unwrap();
    assert_eq!(read(&mut response.body).await.unwrap(), b"0123456789");
    assert_eq!(response.body.end(), Some(10));

    let server = Server::new([
        Answer::new(chunked, "4\r\n0123\r\n"),
        Answer::new(
            "416 Range Not Satisfiable\nContent-Range: bytes */4\nContent-Length: 0",
            "",
        ),
    ])
    .await;
    let mut response = client().get(ask(server.url("/f"))).await.unwrap();
    assert_eq!(read(&mut response.body).await.unwrap(), b"0123");
}

#[tokio::test]
async fn breaks_without_progress_end_after_the_retries() {
    let empty = Answer::new(
        "206 Partial Content\nContent-Range: bytes 4-9/10\nContent-Length: 6\nETag: \"a\"",
        "",
    );
    let script = std::iter::once(Answer::new(WHOLE, "0123")).chain(vec![empty; 10]);
    let server = Server::new(script).await;
    let config = OriginConfig {
        retries: 2,
        ..config()
    };
    let client = OriginClient::new(config).unwrap();
    let mut response = client.get(ask(server.url("/f"))).await.unwrap();
    let (all, error) = read_to_error(&mut response.body).await;
    assert_eq!(all, b"0123");
    assert_eq!(error.kind(), Kind::Unreachable);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn progress_gives_the_retries_back() {
    let parts = (4..10).map(|at| {
        let head = format!(
            "206 Partial Content\nContent-Range: bytes {at}-9/10\nContent-Length: {}\nETag: \"a\"",
            10 - at
        );
        Answer::new(&head, format!("{at}"))
    });
    let server = Server::new(std::iter::once(Answer::new(WHOLE, "0123")).chain(parts)).await;
    let config = OriginConfig {
        retries: 1,
        ..config()
    };
    let client = OriginClient::new(config).unwrap();
    let mut response = client.get(ask(server.url("/f"))).await.unwrap();
    assert_eq!(read(&mut response.body).await.unwrap(), b"0123456789");
}
