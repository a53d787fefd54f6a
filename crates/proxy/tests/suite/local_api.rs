//! The local API, asked as `dfget` asks it.

use crate::support::{Daemon, Origin, Reply, content, exchange, get};
use pantala_core::{Error, Kind, Result, Who};
use pantala_proxy::api::{
    StreamRequest,
    client::{self, DaemonStream},
};

fn request(origin: &Origin, path: &str) -> StreamRequest {
    StreamRequest {
        url: origin.url(path).to_string(),
        ..StreamRequest::default()
    }
}

async fn read(stream: &mut DaemonStream) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.next().await? {
        all.extend_from_slice(&bytes);
        assert_eq!(stream.position(), stream.start() + all.len() as u64);
    }
    Ok(all)
}

#[tokio::test]
async fn content_streams_with_what_is_known_of_it() {
    let file = content(3_000_000);
    let origin = Origin::of_file(&file).await;
    let daemon = Daemon::start().await;
    let mut asked = request(&origin, "/f");
    asked.headers = vec![("X-Mine".into(), "1".into())];
    let mut stream = client::stream(daemon.addr, &asked).await.unwrap();
    assert_eq!((stream.length(), stream.start()), (Some(3_000_000), 0));
    assert_eq!(stream.headers()["etag"], "\"v1\"");
    assert!(read(&mut stream).await.unwrap() == file);
    assert_eq!(stream.next().await, Ok(None));
    assert_eq!(origin.seen()[0].header("x-mine"), Some("1"));

    asked.range = Some("-10".into());
    let mut stream = client::stream(daemon.addr, &asked).await.unwrap();
    assert_eq!((stream.length(), stream.start()), (Some(10), 2_999_990));
    assert!(read(&mut stream).await.unwrap() == file[2_999_990..]);
    drop(stream);
    daemon.stop().await;
}

#[tokio::test]
async fn no_length_is_an_end_all_the_same() {
    let file = content(1_500_000);
    let origin = Origin::new({
        let file = file.clone();
        move |_| Reply::new("200 OK", file.clone()).chunked()
    })
    .await;
    let daemon = Daemon::start().await;
    let asked = request(&origin, "/f");
    let mut stream = client::stream(daemon.addr, &asked).await.unwrap();
    assert_eq!(stream.length(), None);
    assert!(read(&mut stream).await.unwrap() == file);
    drop(stream);
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_for_one_reader_is_cut_to_its_range_and_checked() {
    let origin = Origin::new(|_| {
        Reply::new("200 OK", content(1_000_000)).header("Cache-Control", "no-store")
    })
    .await;
    let daemon = Daemon::start().await;
    let mut asked = request(&origin, "/f");
    asked.range = Some("500-599".into());
    let mut stream = client::stream(daemon.addr, &asked).await.unwrap();
    assert_eq!((stream.length(), stream.start()), (Some(100), 500));
    assert!(read(&mut stream).await.unwrap() == content(1_000_000)[500..600]);

    asked.range = None;
    asked.digest = Some(format!("sha256:{}", "0".repeat(64)));
    let mut stream = client::stream(daemon.addr, &asked).await.unwrap();
    let error = read(&mut stream).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DigestMismatch);
    drop(stream);
    daemon.stop().await;
}

#[tokio::test]
async fn errors_arrive_as_they_were() {
    let origin = Origin::new(|seen| match seen.target.as_str() {
        "/secret" => Reply::new("403 Forbidden", ""),
        _ => Reply::new("404 Not Found", ""),
    })
    .await;
    let daemon = Daemon::start().await;
    let failed = async |asked: &StreamRequest| -> Error {
        client::stream(daemon.addr, asked).await.unwrap_err()
    };
    let error = failed(&request(&origin, "/nothing")).await;
    assert_eq!((error.who(), error.kind()), (Who::Origin, Kind::NotFound));
    assert!(error.to_string().contains("; "), "{error}");
    assert_eq!(
        failed(&request(&origin, "/secret")).await.kind(),
        Kind::Denied
    );
    type Change = fn(&mut StreamRequest);
    let changes: [(Change, Kind); 5] = [
        (|asked| asked.url = "nonsense".into(), Kind::BadInput),
        (|asked| asked.range = Some("9-1".into()), Kind::BadInput),
        (|asked| asked.digest = Some("md5:1".into()), Kind::BadInput),
        (
            |asked| asked.headers = vec![("a b".into(), "c".into())],
            Kind::BadInput,
        ),
        (|asked| asked.no_origin = true, Kind::Unavailable),
    ];
    for (change, kind) in changes {
        let mut asked = request(&origin, "/f");
        change(&mut asked);
        assert_eq!(failed(&asked).await.kind(), kind, "{asked:?}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_stream_that_breaks_says_why() {
    let file = content(2_000_000);
    let origin = Origin::new({
        let file = file.clone();
        move |_| {
            Reply::new("200 OK", file.clone())
                .header("ETag", "\"v1\"")
                .cut_after(1_200_000)
        }
    })
    .await;
    let daemon = Daemon::start().await;
    let asked = request(&origin, "/f");
    let mut stream = client::stream(daemon.addr, &asked).await.unwrap();
    let error = read(&mut stream).await.unwrap_err();
    assert_eq!(error.who(), Who::Origin, "{error}");
    // It stays an error: nobody takes the next call for the end.
    assert_eq!(stream.next().await, Err(error));
    drop(stream);

    // To who reads no trailers the body is broken.
    let body = serde_json::to_string(&asked).unwrap();
    let raw = format!(
        "POST /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(daemon.addr, raw.as_bytes()).await;
    assert!(answer.status != 200 || !answer.complete);
    daemon.stop().await;
}

#[tokio::test]
async fn a_daemon_that_goes_away_is_no_end() {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    for ending in ["", "0\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let daemon = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{ending}"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let asked = StreamRequest::default();
        let reading = async {
            let mut stream = client::stream(addr, &asked).await.unwrap();
            read(&mut stream).await.unwrap_err()
        };
        let (error, ()) = tokio::join!(reading, daemon);
        assert_eq!((error.who(), error.kind()), (Who::Peer, Kind::Unreachable));
    }
}

#[tokio::test]
async fn only_a_dfdaemon_is_one() {
    let daemon = Daemon::start().await;
    assert!(client::is_running(daemon.addr).await);
    let other = Origin::new(|_| Reply::new("200 OK", "ok")).await;
    assert!(!client::is_running(other.addr()).await);
    let addr = daemon.addr;
    daemon.stop().await;
    assert!(!client::is_running(addr).await);
    let error = client::stream(addr, &StreamRequest::default())
        .await
        .unwrap_err();
    assert_eq!((error.who(), error.kind()), (Who::Peer, Kind::Unreachable));
}

#[tokio::test]
async fn pages_in_browsers_are_kept_out() {
    let daemon = Daemon::start().await;
    let answer = get(daemon.addr, "/v1/streams", "Origin: http://hub.example").await;
    assert_eq!(answer.status, 403);
    let post = "POST /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n\
                Content-Length: 2\r\nConnection: close\r\n\r\n{}";
    assert_eq!(exchange(daemon.addr, post.as_bytes()).await.status, 400);
    // And who comes through the proxy is not on this host.
    let own = format!("http://{}/v1/streams", daemon.addr);
    assert_eq!(get(daemon.addr, &own, "").await.status, 508);
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_held_is_listed() {
    let origin = Origin::of_file(&content(1_500_000)).await;
    let daemon = Daemon::start().await;
    get(daemon.addr, origin.url("/f?token=secret").as_str(), "").await;
    let table = get(daemon.addr, "/v1/cache", "").await.text();
    assert!(table.contains("/f") && !table.contains("secret"), "{table}");
    let json = get(daemon.addr, "/v1/cache", "Accept: application/json").await;
    let json: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!(json[0]["length"], 1_500_000);
    let page = get(daemon.addr, "/", "Accept: text/html").await.text();
    assert!(
        page.starts_with("<!doctype html>") && page.contains("/f"),
        "{page}"
    );
    let front = get(daemon.addr, "/", "").await.text();
    assert!(
        front.contains("nothing streams now") && front.contains("2/2"),
        "{front}"
    );
    daemon.stop().await;
}
