//! Peers that nobody can connect to: behind a firewall or NAT, or with a wrong `--advertise`. They
//! cost others no more than reading from the origin does.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use pantala_e2e::{Content, MIB, Origin, Peers, Script, Supernode, free_port};

/// Bytes a second on each connection of the origin.
const RATE: u64 = 2 * MIB as u64;
/// What all may take besides: programs start, and register, on a machine that is busy.
const START: Duration = Duration::from_secs(2);
/// How long a peer that was told of another waits for its greeting. One that refuses connections is known
/// to be out of reach at once; that nothing comes shows only in time.
const GREETING: Duration = Duration::from_secs(2);

/// The most that a content may take: a fifth more than its transfer from the origin takes alone.
fn most(content: &Content) -> Duration {
    Duration::from_secs(content.len() / RATE) * 6 / 5 + START
}

fn origin(content: &Content) -> Origin {
    let script = Script {
        rate: Some(RATE),
        ..Script::default()
    };
    Origin::start(content, script)
}

/// Starts one peer that tells others this port.
fn start_at_port(peers: &mut Peers, port: u16, origin: &Origin, supernode: &Supernode) -> usize {
    let (addr, port) = (supernode.addr().to_string(), format!("127.0.0.1:{port}"));
    let listen = format!("127.0.0.1:{}", free_port());
    let at = ["--peer-listen", &listen, "--advertise", &port];
    let flags = [&["--supernode", &addr], &at[..]].concat();
    peers.start_with(1, &origin.url(), &flags)
}

/// Somebody holds a content, or the lease for it, and says that it serves at a port where it does not.
/// Two that come later read it together as quickly as from the origin.
fn a_holder_is_out_of_reach(port: u16, found_out_after: Duration) {
    let content = Content::new(740, 16 * MIB);
    let origin = origin(&content);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    start_at_port(&mut peers, port, &origin, &supernode);
    peers.wait_for_bytes([0], 2 * MIB as u64);
    let started = Instant::now();
    peers.start(2, &origin.url(), &supernode);
    peers.assert_complete([1, 2], &content);
    let took = started.elapsed();
    assert!(took < most(&content) + found_out_after, "{took:?}");
    let most = 3 * content.len() + 4 * MIB as u64;
    assert!(origin.sent() <= most, "{:?}", origin.asked());
}

#[test]
fn a_holder_refuses_connections() {
    a_holder_is_out_of_reach(free_port(), Duration::ZERO);
}

#[test]
fn a_holders_address_accepts_and_says_nothing() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    a_holder_is_out_of_reach(mute.local_addr().unwrap().port(), GREETING);
}

#[test]
fn six_that_cannot_reach_each_other_read_side_by_side() {
    let content = Content::new(741, 8 * MIB);
    let origin = origin(&content);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    let started = Instant::now();
    for _ in 0..6 {
        start_at_port(&mut peers, free_port(), &origin, &supernode);
    }
    peers.assert_complete(0..6, &content);
    let took = started.elapsed();
    assert!(took < most(&content), "{took:?}");
    assert!(origin.sent() <= 7 * content.len(), "{:?}", origin.asked());
}
