//! Origins that give nothing by which two of their answers could be told to be of the same content:
//! what one reader gets is of one answer, whatever breaks meanwhile.

use std::{io::Read as _, thread};

use pantala_e2e::{
    Content, Dfdaemon, Dfget, Finished, Length, MIB, Origin, Peers, Relay, Script, Signal,
    Supernode, Validator, ask, begin_get, until,
};

const LEN: usize = 24 * MIB;
const EARLY: u64 = 6 * MIB as u64;

/// Two versions of the same length; which of them an answer is of nobody can tell.
fn versions(seed: u64) -> [Content; 2] {
    [Content::new(seed, LEN), Content::new(seed + 1, LEN)]
}

fn origin(versions: &[Content], script: Script) -> Origin {
    let script = Script {
        rate: Some(12 * MIB as u64),
        ..script
    };
    Origin::start_versions(versions, script)
}

/// A file that is there is one version; who has none says why.
#[track_caller]
fn assert_one_version(peers: &mut Peers, number: usize, versions: &[Content]) -> Finished {
    let finished = peers.finish(number);
    if finished.code == 0 {
        let bytes = std::fs::read(peers.file(number)).unwrap();
        let whole = versions.iter().any(|version| version.bytes() == bytes);
        assert!(whole, "peer {number} has a mixture, or something else");
    } else {
        finished.assert_failed(13, &["origin: ", "start again"]);
    }
    finished
}

#[test]
fn a_lease_does_not_move_to_another_answer() {
    for (seed, validator) in [(300, Validator::None), (310, Validator::Weak)] {
        let versions = versions(seed);
        let script = Script {
            validator,
            ..Script::default()
        };
        let origin = origin(&versions, script);
        let supernode = Supernode::start();
        let mut peers = Peers::new();
        peers.start(1, &origin.url(), &supernode);
        peers.wait_for_bytes([0], MIB as u64);
        peers.start(2, &origin.url(), &supernode);
        peers.wait_for_bytes(0..3, EARLY);
        peers.process(0).signal(Signal::Kill);
        for number in [1, 2] {
            // They had bytes of the first answer, and the rest of that is nowhere any more.
            let finished = assert_one_version(&mut peers, number, &versions);
            assert_ne!(finished.code, 0, "{validator:?}: peer {number} has it all");
        }
        // Who comes now learns anew, and gets the second version.
        peers.start(1, &origin.url(), &supernode);
        peers.assert_complete([3], &versions[1]);
        assert_eq!(origin.asked().len(), 2, "{:?}", origin.asked());
    }
}

#[test]
fn a_broken_answer_is_not_resumed_from_another() {
    for (seed, validator) in [(320, Validator::None), (330, Validator::Weak)] {
        let versions = versions(seed);
        let script = Script {
            validator,
            cut_after: Some(EARLY),
            cuts: 1,
            ..Script::default()
        };
        let origin = origin(&versions, script);
        let supernode = Supernode::start();
        let mut peers = Peers::new();
        peers.start(1, &origin.url(), &supernode);
        peers.wait_for_bytes([0], MIB as u64);
        peers.start(1, &origin.url(), &supernode);
        for number in 0..2 {
            let finished = assert_one_version(&mut peers, number, &versions);
            assert_ne!(finished.code, 0, "{validator:?}: peer {number} has it all");
        }
    }
}

#[test]
fn readers_without_a_byte_begin_with_the_next_answer() {
    let versions = versions(340);
    let script = Script {
        validator: Validator::None,
        hold_at: Some(0),
        ..Script::default()
    };
    let origin = origin(&versions, script);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(1, &origin.url(), &supernode);
    // The first has learned what there is, and gets no byte.
    supernode.wait_for_members(1);
    peers.start(2, &origin.url(), &supernode);
    supernode.wait_for_members(3);
    peers.process(0).signal(Signal::Kill);
    supernode.wait_for_members(2);
    origin.release();
    peers.assert_complete([1, 2], &versions[1]);
    assert_eq!(origin.asked().len(), 2, "{:?}", origin.asked());
}

/// Readers of one peer are no better off: its second request is another answer, too.
#[test]
fn one_peers_second_request_is_not_the_rest_of_its_first() {
    let versions = versions(350);
    let script = Script {
        validator: Validator::None,
        ..Script::default()
    };
    let origin = origin(&versions, script);
    // So little memory that the first megabytes are gone when the second reader comes.
    let daemon = Dfdaemon::start_alone(&["--memory", "8MiB"]);
    let mut first = Dfget::through(&daemon, origin.url())
        .args(["-o", "-"])
        .start_piped();
    let mut pipe = first.take_stdout();
    let mut got = vec![0; 2 * EARLY as usize];
    pipe.read_exact(&mut got).unwrap();
    let second = Dfget::through(&daemon, origin.url())
        .args(["-o", "-"])
        .run();
    pipe.read_to_end(&mut got).unwrap();
    versions[0].assert_bytes(&got);
    first.wait().assert_success();
    second.assert_success();
    versions[1].assert_bytes(&second.stdout);
}

/// The peer that makes the only transfer reads on for the others when its own reader goes away.
#[test]
fn a_transfer_outlives_the_reader_that_began_it() {
    // The smaller memory holds a third of the content.
    for (seed, memory, length) in [
        (360, "256MiB", Length::Declared),
        (370, "8MiB", Length::Declared),
        (380, "256MiB", Length::Chunked),
    ] {
        let versions = versions(seed);
        let script = Script {
            validator: Validator::None,
            length,
            ..Script::default()
        };
        let origin = origin(&versions, script);
        let supernode = Supernode::start();
        let daemon = Dfdaemon::start(&supernode, &["--memory", memory]);
        // It takes a megabyte and no more.
        let mut first = Dfget::through(&daemon, origin.url())
            .args(["-o", "-"])
            .start_piped();
        let mut pipe = first.take_stdout();
        pipe.read_exact(&mut vec![0; MIB]).unwrap();
        let mut peers = Peers::new();
        peers.start(2, &origin.url(), &supernode);
        peers.wait_for_bytes(0..2, 3 * MIB as u64);
        first.signal(Signal::Kill);
        peers.assert_complete(0..2, &versions[0]);
        assert_eq!(origin.asked().len(), 1, "{:?}", origin.asked());
        // Nobody needs it any more.
        until("the end of the transfer", || {
            (origin.sending() == 0).then_some(())
        });
    }
}

/// A transfer that nobody needs ends with the last reader of it.
#[test]
fn a_transfer_that_nobody_needs_is_not_read_on() {
    let versions = versions(390);
    let script = Script {
        validator: Validator::None,
        ..Script::default()
    };
    let origin = origin(&versions, script);
    let supernode = Supernode::start();
    let daemon = Dfdaemon::start(&supernode, &[]);
    let mut first = Dfget::through(&daemon, origin.url())
        .args(["-o", "-"])
        .start_piped();
    let mut pipe = first.take_stdout();
    pipe.read_exact(&mut vec![0; MIB]).unwrap();
    first.signal(Signal::Kill);
    until("the end of the transfer", || {
        (origin.sending() == 0).then_some(())
    });
    assert!(origin.sent() < LEN as u64, "it was read to its end");
}

/// A reader of a part leaves before the supernode knows of the transfer: whoever comes next is not sent to
/// what will never go on.
#[test]
fn a_transfer_that_was_over_at_once_keeps_nobody_waiting() {
    let content = Content::new(400, MIB + MIB / 4);
    let script = Script {
        validator: Validator::None,
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let supernode = Supernode::start();
    let daemon = Dfdaemon::start(&supernode, &[]);
    let mut peers = Peers::new();
    for number in 0..5 {
        let url = format!("{}?{number}", origin.url());
        let part = daemon.get(&url, &[("Range", "bytes=64-8255")]);
        assert_eq!(part.body, content.bytes()[64..8256]);
        peers.start(1, &url, &supernode);
    }
    peers.assert_complete(0..5, &content);
}

/// Who is sent to a transfer is waited for, however late it comes: the peer that makes the transfer has
/// neither a reader nor a child by then, and the beginning is all it needed.
#[test]
fn a_transfer_waits_for_who_was_sent_to_it() {
    let versions = versions(420);
    let script = Script {
        validator: Validator::None,
        ..Script::default()
    };
    let origin = origin(&versions, script);
    let supernode = Supernode::start();
    let daemon = Dfdaemon::start(&supernode, &[]);
    let relay = Relay::to(supernode.addr());
    let late = Dfdaemon::start_towards(relay.addr(), &[]);
    supernode.wait_for_peers(2);
    let mut first = begin_get(daemon.addr(), &origin.url(), &[("Range", "bytes=64-")]);
    first.read_exact(&mut [0; 12]).unwrap();
    supernode.wait_for_members(1);
    relay.hold_answers();
    let url = origin.url();
    let addr = late.addr();
    let second = thread::spawn(move || ask(addr, "GET", &url, &[], b""));
    supernode.wait_for_members(2);
    until("the word that it is known", || {
        (relay.held() > 0).then_some(())
    });
    drop(first);
    until("no reader", || {
        (daemon.metric("pantala_readers") == 0).then_some(())
    });
    relay.release_answers();
    versions[0].assert_bytes(&second.join().unwrap().body);
    assert_eq!(origin.asked().len(), 1, "{:?}", origin.asked());
    until("the end of the transfer", || {
        (origin.sending() == 0).then_some(())
    });
}

/// A part that nothing can be joined to is of use to readers of that part alone.
#[test]
fn a_part_of_a_transfer_is_no_beginning_for_others() {
    let versions = versions(430);
    let script = Script {
        validator: Validator::None,
        ..Script::default()
    };
    let origin = origin(&versions, script);
    let supernode = Supernode::start();
    let [first, second] = [(); 2].map(|()| Dfdaemon::start(&supernode, &[]));
    supernode.wait_for_peers(2);
    let part = first.get(&origin.url(), &[("Range", "bytes=100-199")]);
    part.assert_is_part(&versions[0], 100, 199);
    for daemon in [&second, &first] {
        let whole = daemon.get(&origin.url(), &[]);
        versions[1].assert_bytes(&whole.body);
    }
    assert_eq!(origin.asked().len(), 2, "{:?}", origin.asked());
}
