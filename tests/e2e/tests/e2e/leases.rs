//! The origin is asked once: leases that move, and those that must not.

use std::{net::SocketAddr, time::Duration};

use pantala_e2e::{Content, MIB, Origin, Peers, Script, Signal, Supernode};

/// A piece that takes longer than a holder may be without a byte is a slow origin, no dead holder.
#[test]
fn a_slow_origin_is_asked_once() {
    let content = Content::new(360, 3 * MIB / 2);
    let script = Script {
        rate: Some(150_000),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(5, &origin.url(), &supernode);
    peers.assert_complete(0..5, &content);
    let most = content.len() + content.len() / 10;
    assert!(
        origin.sent() <= most,
        "{} of {}: {:?}",
        origin.sent(),
        content.len(),
        origin.asked()
    );
}

/// Who holds a lease when its supernode restarts goes on with it, and nobody else begins.
#[test]
fn leases_outlive_a_supernode_once() {
    let content = Content::new(361, 48 * MIB);
    let script = Script {
        rate: Some(12 * MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let mut supernode = Supernode::start();
    let place: SocketAddr = supernode.addr();
    let mut peers = Peers::new();
    peers.start(4, &origin.url(), &supernode);
    for restart in 1..=2 {
        peers.wait_for_bytes(0..4, restart * 10 * MIB as u64);
        drop(supernode);
        supernode = Supernode::start_on(&place.to_string());
        supernode.wait_for_members(4);
    }
    peers.assert_complete(0..4, &content);
    let most = content.len() * 13 / 10;
    assert!(
        origin.sent() <= most,
        "{} of {}: {:?}",
        origin.sent(),
        content.len(),
        origin.asked()
    );
}

/// The lease comes to a reader whose credentials the origin no longer takes: somebody else brings the
/// rest, and that reader has it all.
#[test]
fn expired_credentials_pass_the_lease_on() {
    let content = Content::new(362, 32 * MIB);
    let script = Script {
        rate: Some(8 * MIB as u64),
        expired: Some("Bearer old".to_owned()),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let supernode = Supernode::start();
    let place = supernode.addr().to_string();
    let with = |token: &str| {
        let header = format!("Authorization: Bearer {token}");
        [
            "--supernode".to_owned(),
            place.clone(),
            "-H".to_owned(),
            header,
        ]
    };
    let start = |peers: &mut Peers, token: &str, more: &[&str]| {
        let flags = with(token);
        let flags: Vec<&str> = flags
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        peers.start_with(1, &origin.url(), &flags)
    };
    let mut peers = Peers::new();
    let holder = start(&mut peers, "new", &[]);
    peers.wait_for_bytes([holder], MIB as u64);
    // Of those that are left it is the furthest, and gets the lease first.
    let expired = start(&mut peers, "old", &[]);
    let slower = start(&mut peers, "new", &["--limit-rate", "4MiB"]);
    peers.wait_for_bytes([expired], 9 * MIB as u64);
    peers.process(holder).signal(Signal::Kill);
    peers.assert_complete([expired, slower], &content);
    let refused = origin.asked().into_iter().filter(|asked| {
        asked.method == "GET"
            && asked
                .headers
                .get("authorization")
                .is_some_and(|token| token == "Bearer old")
    });
    assert!(
        refused.count() > 0,
        "the lease did not come to it: {:?}",
        origin.asked()
    );
}

/// Where nobody's credentials are good any more the origin's word ends the stream.
#[test]
fn where_all_credentials_have_expired_the_origins_word_is_told() {
    let content = Content::new(363, 32 * MIB);
    let script = Script {
        rate: Some(8 * MIB as u64),
        expired: Some("Bearer old".to_owned()),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let supernode = Supernode::start();
    let place = supernode.addr().to_string();
    let mut peers = Peers::new();
    let flags = |token| ["--supernode", &place, "-H", token].map(str::to_owned);
    for token in [
        "Authorization: Bearer new",
        "Authorization: Bearer old",
        "Authorization: Bearer old",
    ] {
        let flags = flags(token);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let number = peers.start_with(1, &origin.url(), &flags);
        peers.wait_for_bytes([number], MIB as u64);
    }
    peers.wait_for_bytes(0..3, 6 * MIB as u64);
    peers.process(0).signal(Signal::Kill);
    let began = std::time::Instant::now();
    for number in [1, 2] {
        peers.finish(number).assert_failed(4, &["origin: ", "403"]);
    }
    assert!(began.elapsed() < Duration::from_secs(60));
}
