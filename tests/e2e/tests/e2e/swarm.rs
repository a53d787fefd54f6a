//! Several dfgets and a supernode.

use std::net::Ipv4Addr;

use pantala_e2e::{
    Asked, Content, Length, MIB, Need, Nginx, Origin, Peers, Script, Signal, Supernode, free_port,
    needs,
};

#[test]
fn eight_peers_take_each_byte_from_nginx_once() {
    needs!(Need::Program("nginx"));
    let nginx = Nginx::start();
    let content = Content::new(30, 64 * MIB);
    nginx.put("file.bin", &content);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    // Slow enough that the last is there before the first has everything and goes.
    peers.start(8, &nginx.url("slow/file.bin"), &supernode);
    let done = peers.assert_complete(0..8, &content);

    let served = nginx.served();
    let bytes: u64 = served.iter().map(|served| served.bytes).sum();
    assert!(bytes >= content.len());
    let most = content.len() / 100 * 102 + repeated(served.len());
    assert!(bytes <= most, "{bytes}: {served:?}");
    assert!(served.iter().all(|served| served.method == "GET"));
    for peer in done {
        let small = 8 * MIB as u64;
        assert!(
            peer.disk.written <= content.len() + small,
            "{:?}",
            peer.disk
        );
        assert!(peer.disk.read <= content.len() / 2, "{:?}", peer.disk);
    }
}

#[test]
fn a_small_file_goes_through_the_swarm_too() {
    for len in [1, 70_000, MIB] {
        let content = Content::new(31, len);
        let script = Script {
            hold_at: Some(0),
            ..Script::default()
        };
        let origin = Origin::start(&content, script);
        let supernode = Supernode::start();
        let mut peers = Peers::new();
        peers.start(4, &origin.url(), &supernode);
        supernode.wait_for_members(4);
        origin.release();
        peers.assert_complete(0..4, &content);
        // Who has everything and is asked for nothing goes: those that come to it too late for
        // that ask the origin once more.
        assert!(origin.asked().len() <= 4, "{:?}", origin.asked());
    }
}

/// What the origin may send twice, where it was asked so often. A lease's holder that gets little, if only because
/// the machine is busy, is doubted, and whoever takes over repeats up to a piece of what the holder had begun, and
/// as much may be on its way.
fn repeated(requests: usize) -> u64 {
    requests.saturating_sub(1) as u64 * 2 * MIB as u64
}

/// What peers had by then is not asked of the origin once more. How often it is asked for the rest says
/// nothing: a holder that gets little, if only because the machine is busy, is doubted.
fn assert_only_new(asked: &[Asked], there: u64) {
    assert!(asked.iter().all(|asked| asked.first >= there), "{asked:?}");
}

#[test]
fn content_of_unknown_length_is_shared() {
    let content = Content::new(32, 6 * MIB + 4711);
    let script = Script {
        length: Length::Chunked,
        hold_at: Some(3 * MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(1, &origin.url(), &supernode);
    peers.wait_for_bytes([0], 2 * MIB as u64);
    let before = origin.asked().len();
    peers.start(3, &origin.url(), &supernode);
    peers.wait_for_bytes(1..4, 2 * MIB as u64);
    origin.release();
    peers.assert_complete(0..4, &content);
    assert_only_new(&origin.asked()[before..], 2 * MIB as u64);
    let asked = origin.asked();
    let most = content.len() + MIB as u64 + repeated(asked.len());
    assert!(origin.sent() <= most, "{asked:?}");
}

#[test]
fn who_comes_late_is_served_by_peers() {
    let content = Content::new(33, 24 * MIB);
    let there = 8 * MIB as u64;
    let script = Script {
        hold_at: Some(2 * there),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(2, &origin.url(), &supernode);
    peers.wait_for_bytes(0..2, there);
    let before = origin.asked().len();
    peers.start(2, &origin.url(), &supernode);
    peers.wait_for_bytes(2..4, there);
    origin.release();
    peers.assert_complete(0..4, &content);
    assert_only_new(&origin.asked()[before..], there);
    let asked = origin.asked();
    let most = content.len() + MIB as u64 + repeated(asked.len());
    assert!(origin.sent() <= most, "{asked:?}");
}

#[test]
fn a_supernode_that_was_never_there_costs_nothing() {
    let content = Content::new(34, 6 * MIB);
    let origin = Origin::start(&content, Script::default());
    let nobody = format!("{}:{}", Ipv4Addr::LOCALHOST, free_port());
    let mut peers = Peers::new();
    peers.start_with(1, &origin.url(), &["--supernode", &nobody]);
    peers.assert_complete([0], &content);
    assert_eq!(origin.asked().len(), 1);
}

#[test]
fn without_peers_and_origin_nobody_has_it() {
    let content = Content::new(35, MIB);
    let origin = Origin::start(&content, Script::default());
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    let addr = supernode.addr().to_string();
    peers.start_with(1, &origin.url(), &["--no-origin", "--supernode", &addr]);
    peers.finish(0).assert_failed(12, &["--no-origin"]);
    assert_eq!(origin.asked(), []);
}

#[test]
fn who_may_not_ask_the_origin_gives_up_when_all_others_go() {
    let content = Content::new(37, 16 * MIB);
    let script = Script {
        hold_at: Some(8 * MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(1, &origin.url(), &supernode);
    peers.wait_for_bytes([0], 6 * MIB as u64);
    let addr = supernode.addr().to_string();
    peers.start_with(1, &origin.url(), &["--no-origin", "--supernode", &addr]);
    peers.wait_for_bytes([1], 4 * MIB as u64);
    peers.process(0).signal(Signal::Kill);
    peers.finish(1).assert_failed(12, &["--no-origin"]);
    assert!(!peers.file(1).exists());
    assert_eq!(origin.asked().len(), 1);
}

#[test]
fn no_origin_takes_it_from_peers() {
    let content = Content::new(36, 16 * MIB);
    let script = Script {
        hold_at: Some(8 * MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(1, &origin.url(), &supernode);
    peers.wait_for_bytes([0], 6 * MIB as u64);
    let addr = supernode.addr().to_string();
    peers.start_with(1, &origin.url(), &["--no-origin", "--supernode", &addr]);
    peers.wait_for_bytes([1], 6 * MIB as u64);
    origin.release();
    peers.assert_complete([0, 1], &content);
}
