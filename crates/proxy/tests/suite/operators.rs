//! Metrics, health, tunnels, stopping.

use crate::support;

use std::{sync::Arc, time::Duration};

use crate::support::{Daemon, Origin, Reply, client, content, get};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

#[tokio::test]
async fn every_figure_has_its_name() {
    let origin = Origin::of_file(&content(100_000)).await;
    let daemon = Daemon::start().await;
    assert_eq!(get(daemon.addr, "/healthz", "").await.text(), "ok\n");
    get(daemon.addr, origin.url("/f").as_str(), "").await;
    let metrics = get(daemon.addr, "/metrics", "").await;
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    let text = metrics.text();
    for line in [
        "\npantala_origin_received_bytes_total 100000\n",
        "\npantala_peer_received_bytes_total 0\n",
        "\npantala_peer_sent_bytes_total 0\n",
        "\npantala_reader_sent_bytes_total 100000\n",
        "\npantala_memory_used_bytes ",
        "\npantala_memory_limit_bytes 67108864\n",
        "\npantala_first_byte_seconds_count 1\n",
        "\npantala_build_info{program=\"dfdaemon\",version=\"",
        "\npantala_proxy_requests_total{route=\"proxy\",status=\"200\"} 1\n",
        "\npantala_proxy_connections 1\n",
        "process_resident_memory_bytes ",
        "\nprocess_cpu_seconds_total ",
        "\nprocess_open_fds ",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    let other = get(daemon.addr, "/other", "").await;
    assert!(other.status == 404 && other.text().contains("/metrics"));
    daemon.stop().await;
}

#[tokio::test]
async fn a_tunnel_is_blind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let daemon = Daemon::with(|config| config.tunnel_ports = vec![target.port()]).await;
    let echo = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
    };
    let talk = async {
        let mut stream = BufReader::new(TcpStream::connect(daemon.addr).await.unwrap());
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = client::read(&mut stream, true).await;
        assert_eq!(answer.status, 200);
        stream.write_all(b"\x16\x03hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"\x16\x03hello");
    };
    tokio::join!(echo, talk);
    for (to, status) in [("127.0.0.1:22", 403), ("127.0.0.1", 400)] {
        let head = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
        let answer = support::exchange(daemon.addr, head.as_bytes()).await;
        assert_eq!(answer.status, status, "{to}");
    }
    drop(listener);
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    assert_eq!(
        support::exchange(daemon.addr, head.as_bytes()).await.status,
        502
    );
    daemon.stop().await;
}

#[tokio::test]
async fn connections_are_used_again_and_requests_may_be_pipelined() {
    let file = content(300_000);
    let origin = Origin::of_file(&file).await;
    let daemon = Daemon::start().await;
    let mut stream = BufReader::new(TcpStream::connect(daemon.addr).await.unwrap());
    let head = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url("/f"));
    let both = head.repeat(2);
    stream.write_all(both.as_bytes()).await.unwrap();
    for _ in 0..2 {
        assert!(client::read(&mut stream, false).await.body == file);
    }
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(client::read(&mut stream, false).await.body == file);
    drop(stream);
    daemon.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_what_is_under_way() {
    let file = content(3_000_000);
    let gate = Arc::new(Semaphore::new(0));
    let origin = Origin::new({
        let (file, gate) = (file.clone(), gate.clone());
        move |seen| Reply::file(seen, &file).wait_after(1_000_000, &gate)
    })
    .await;
    let daemon = Daemon::start().await;
    let (addr, url, node) = (daemon.addr, origin.url("/f"), daemon.node.clone());
    let idle = TcpStream::connect(addr).await.unwrap();
    let reading = tokio::spawn(async move { get(addr, url.as_str(), "").await });
    while node.totals().reader_sent == 0 {
        tokio::task::yield_now().await;
    }
    let stopping = tokio::spawn(daemon.stop());
    while TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.add_permits(100);
    let answer = reading.await.unwrap();
    assert!(answer.complete && answer.body == file);
    // Who has not asked for anything yet is not waited for.
    stopping.await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn a_client_that_does_not_read_disturbs_nobody() {
    let file = content(8_000_000);
    let origin = Origin::of_file(&file).await;
    let daemon = Daemon::start().await;
    let url = origin.url("/f");
    let mut stalled = TcpStream::connect(daemon.addr).await.unwrap();
    let head = format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\n");
    stalled.write_all(head.as_bytes()).await.unwrap();
    let answer = get(daemon.addr, url.as_str(), "").await;
    assert!(answer.complete && answer.body == file);
    assert_eq!(origin.seen().len(), 1);
    drop(stalled);
    tokio::time::timeout(Duration::from_secs(30), daemon.stop())
        .await
        .expect("a client that does not read is not waited for");
}
