//! Something breaks in the middle of a swarm's transfer; everybody else's stream ends right.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
};

use pantala_e2e::{Content, Dfget, MIB, Origin, Peers, Process, Script, Signal, Supernode, until};

/// A content that takes about three seconds to come from its origin.
fn slow(seed: u64) -> (Content, Origin) {
    let content = Content::new(seed, 32 * MIB);
    let script = Script {
        rate: Some(12 * MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    (content, origin)
}

const EARLY: u64 = 6 * MIB as u64;

#[test]
fn parents_are_killed() {
    let (content, origin) = slow(40);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(6, &origin.url(), &supernode);
    peers.wait_for_bytes(0..6, EARLY);
    for victim in [1, 4] {
        peers.process(victim).signal(Signal::Kill);
    }
    peers.assert_complete([0, 2, 3, 5], &content);
    for victim in [1, 4] {
        assert_eq!(peers.finish(victim).code, 128 + 9);
        assert!(!peers.file(victim).exists());
    }
}

/// The first peer alone has the lease before the others come.
fn with_lease_holder(peers: &mut Peers, origin: &Origin, supernode: &Supernode) {
    peers.start(1, &origin.url(), supernode);
    peers.wait_for_bytes([0], MIB as u64);
    peers.start(4, &origin.url(), supernode);
    peers.wait_for_bytes(0..5, EARLY);
}

#[test]
fn the_lease_holder_is_killed() {
    let (content, origin) = slow(41);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    with_lease_holder(&mut peers, &origin, &supernode);
    peers.process(0).signal(Signal::Kill);
    peers.assert_complete(1..5, &content);
    assert!(origin.sent() <= 2 * content.len(), "{:?}", origin.asked());
}

#[test]
fn the_lease_holder_freezes() {
    let (content, origin) = slow(42);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    with_lease_holder(&mut peers, &origin, &supernode);
    peers.process(0).signal(Signal::Stop);
    peers.assert_complete(1..5, &content);
    // It goes on where it was when it can.
    peers.process(0).signal(Signal::Continue);
    peers.assert_complete([0], &content);
    assert!(origin.sent() <= 3 * content.len(), "{:?}", origin.asked());
}

#[test]
fn the_supernode_is_killed() {
    let (content, origin) = slow(43);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(4, &origin.url(), &supernode);
    peers.wait_for_bytes(0..4, EARLY);
    let before = origin.asked().len();
    supernode.process().signal(Signal::Kill);
    until("the end of the supernode", || {
        (!supernode.process().is_running()).then_some(())
    });
    peers.assert_complete(0..4, &content);
    // Nobody vouches for what peers send any more: each may ask the origin for what is missing,
    // none from the beginning.
    let asked = origin.asked();
    assert!(asked.len() - before <= 7, "{asked:?}");
    let early = asked[before..]
        .iter()
        .filter(|asked| asked.first < EARLY / 2);
    assert_eq!(early.count(), 0, "{asked:?}");
}

#[test]
fn the_supernode_comes_back() {
    let (content, origin) = slow(44);
    let supernode = Supernode::start();
    let place: SocketAddr = supernode.addr();
    let mut peers = Peers::new();
    peers.start(3, &origin.url(), &supernode);
    peers.wait_for_bytes(0..3, EARLY);
    drop(supernode);
    let supernode = Supernode::start_on(&place.to_string());
    peers.start(1, &origin.url(), &supernode);
    peers.assert_complete(0..4, &content);
    assert!(origin.sent() <= 3 * content.len(), "{:?}", origin.asked());
}

#[test]
fn the_supernode_freezes() {
    let (content, origin) = slow(45);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(3, &origin.url(), &supernode);
    peers.wait_for_bytes(0..3, EARLY);
    supernode.process().signal(Signal::Stop);
    peers.assert_complete(0..3, &content);
    supernode.process().signal(Signal::Continue);
}

#[test]
fn the_origin_cuts_its_connections() {
    let content = Content::new(46, 24 * MIB);
    let script = Script {
        cut_after: Some(3_000_000),
        cuts: 5,
        rate: Some(24 * MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(4, &origin.url(), &supernode);
    peers.assert_complete(0..4, &content);
    let most = content.len() + 2 * MIB as u64;
    assert!(origin.sent() <= most, "{:?}", origin.asked());
}

/// A dfget into a pipe.
fn piped(origin: &Origin, supernode: &Supernode) -> Process {
    Dfget::new(origin.url())
        .args(["-o", "-"])
        .with(supernode)
        .start_piped()
}

#[test]
fn a_reader_stops_reading_for_a_while() {
    let (content, origin) = slow(47);
    let supernode = Supernode::start();
    // It comes first and so holds the lease when it stops.
    let mut reader = piped(&origin, &supernode);
    let mut pipe = reader.take_stdout();
    let mut got = vec![0; MIB];
    pipe.read_exact(&mut got).unwrap();

    let mut peers = Peers::new();
    peers.start(3, &origin.url(), &supernode);
    peers.assert_complete(0..3, &content);

    pipe.read_to_end(&mut got).unwrap();
    content.assert_bytes(&got);
    reader.wait().assert_success();
    assert!(origin.sent() <= 2 * content.len(), "{:?}", origin.asked());
}

#[test]
fn a_reader_goes_away() {
    let (content, origin) = slow(48);
    let supernode = Supernode::start();
    let mut reader = piped(&origin, &supernode);
    let mut pipe = reader.take_stdout();
    pipe.read_exact(&mut vec![0; 2 * MIB]).unwrap();
    let mut peers = Peers::new();
    peers.start(3, &origin.url(), &supernode);
    peers.wait_for_bytes(0..3, 2 * MIB as u64);
    drop(pipe);
    reader.wait().assert_failed(9, &["standard output"]);
    peers.assert_complete(0..3, &content);
    assert!(origin.sent() <= 2 * content.len(), "{:?}", origin.asked());
}

#[test]
fn nonsense_does_not_stop_a_supernode() {
    let (content, origin) = slow(49);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(2, &origin.url(), &supernode);
    peers.wait_for_bytes(0..2, MIB as u64);
    for nonsense in [
        &b"\0\0\0\0\xff\xff\xff\xff"[..],
        b"GET / HTTP/9\r\n\r\n",
        b"",
    ] {
        let mut stream = TcpStream::connect(supernode.addr()).unwrap();
        std::io::Write::write_all(&mut stream, nonsense).unwrap();
    }
    peers.assert_complete(0..2, &content);
    assert!(supernode.process().is_running());
}
