//! Clients that leave in the middle of a content, many at once and again and again, while memory is
//! scarce: the daemon goes on to answer.

use std::{
    io::Read as _,
    thread,
    time::{Duration, Instant},
};

use pantala_e2e::{Content, Dfdaemon, MIB, Origin, Script, Supernode, ask, begin_get, http_get};

const CLIENTS: u64 = 24;
/// How long they come and go.
const WHILE: Duration = Duration::from_secs(4);
/// Longer than any answer takes; a lock that nobody gives back is held for ever.
const FOR_EVER: Duration = Duration::from_secs(20);

/// Reads a little of a content at some place, and leaves.
fn come_and_leave(daemon: std::net::SocketAddr, url: &str, lot: u64) {
    let first = lot % 60 * MIB as u64 + lot % 7777;
    let range = format!("bytes={first}-");
    let mut stream = begin_get(daemon, url, &[("Range", &range)]);
    stream.set_read_timeout(Some(FOR_EVER)).unwrap();
    let mut left = lot as usize % (3 * MIB);
    let mut block = vec![0; 64 << 10];
    while left > 0 {
        match stream.read(&mut block) {
            Ok(0) | Err(_) => break,
            Ok(read) => left = left.saturating_sub(read),
        }
    }
}

#[test]
fn clients_that_leave_stop_nobody() {
    let content = Content::new(990, 64 * MIB);
    let origin = Origin::start(&content, Script::default());
    let supernode = Supernode::start();
    // What comes from a peer waits for the digest that the supernode passes on.
    let parent = Dfdaemon::start(&supernode, &["--memory", "256MiB"]);
    let url = origin.url();
    let warm = ask(parent.addr(), "GET", &url, &[], b"");
    content.assert_bytes(&warm.body);
    let daemon = Dfdaemon::start(&supernode, &["--memory", "12MiB"]);
    let addr = daemon.addr();
    let until = Instant::now() + WHILE;
    let clients = (0..CLIENTS).map(|client| {
        let url = url.clone();
        thread::spawn(move || {
            let mut lot = client + 1;
            while Instant::now() < until {
                lot = lot.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                come_and_leave(addr, &url, lot >> 20);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().unwrap();
    }
    let asked = Instant::now();
    assert_eq!(http_get(addr, "/healthz").map(|answer| answer.0), Some(200));
    assert!(asked.elapsed() < FOR_EVER);
    let range = [("Range", "bytes=0-99")];
    let answer = ask(addr, "GET", &url, &range, b"");
    answer.assert_is_part(&content, 0, 99);
}
