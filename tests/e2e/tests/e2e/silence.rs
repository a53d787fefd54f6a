//! Peers that fall silent without going away.

use pantala_e2e::{Content, Dfdaemon, Dfget, MIB, Origin, Peers, Script, Signal, Supernode};

/// A daemon that has the content, sends it slowly, and freezes while one dfget takes it from there.
fn a_parent_freezes(seed: u64, flags: &[&str]) {
    let content = Content::new(seed, 24 * MIB);
    let origin = Origin::start(&content, Script::default());
    let supernode = Supernode::start();
    let parent = Dfdaemon::start(&supernode, &["--upload-rate", "4MiB"]);
    let warm = Dfget::through(&parent, origin.url()).args(["-o", "-"]);
    content.assert_bytes(&warm.run().stdout);

    let mut peers = Peers::new();
    let addr = supernode.addr().to_string();
    let flags = [&["--supernode", &addr], flags].concat();
    peers.start_with(1, &origin.url(), &flags);
    peers.wait_for_bytes([0], 4 * MIB as u64);
    parent.process().signal(Signal::Stop);
    peers.assert_complete([0], &content);
}

#[test]
fn a_reader_leaves_a_parent_that_freezes() {
    a_parent_freezes(730, &[]);
}

#[test]
fn the_background_leaves_a_parent_that_freezes() {
    a_parent_freezes(731, &["--background"]);
}
