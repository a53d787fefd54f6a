//! Supernodes that accept connections and say nothing: frozen ones, and balancers in front of dead
//! ones. Readers go on without them, and are not held up by each attempt to reach them anew.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use pantala_e2e::{Content, Dfdaemon, Dfget, MIB, Origin, Process, Script, Signal, Supernode};

/// A listener whose connections are accepted, by the kernel, and never answered.
struct Mute {
    addr: SocketAddr,
    _listener: TcpListener,
}

impl Mute {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        Self {
            addr,
            _listener: listener,
        }
    }
}

/// Reads small contents one after the other through a daemon; gives how long each took.
fn read_one_by_one(daemon: &Dfdaemon, count: u64) -> Vec<Duration> {
    let read = |seed| {
        let content = Content::new(seed, MIB / 4);
        let origin = Origin::start(&content, Script::default());
        let started = Instant::now();
        let read = Dfget::through(daemon, origin.url()).args(["-o", "-"]).run();
        read.assert_success();
        content.assert_bytes(&read.stdout);
        started.elapsed()
    };
    (0..count).map(|seed| read(700 + seed)).collect()
}

#[test]
fn who_never_says_a_word_is_waited_for_once() {
    let mute = Mute::start();
    let daemon = Dfdaemon::start_for(mute.addr, &[]);
    let took = read_one_by_one(&daemon, 6);
    let later: Duration = took[1..].iter().sum();
    assert!(took[0] < Duration::from_secs(5), "{took:?}");
    assert!(later < Duration::from_secs(5), "{took:?}");
}

#[test]
fn who_freezes_is_waited_for_once() {
    let supernode = Supernode::start();
    let daemon = Dfdaemon::start(&supernode, &[]);
    read_one_by_one(&daemon, 1);
    supernode.process().signal(Signal::Stop);
    let took = read_one_by_one(&daemon, 6);
    let later: Duration = took[1..].iter().sum();
    assert!(took[0] < Duration::from_secs(10), "{took:?}");
    assert!(later < Duration::from_secs(5), "{took:?}");
}

/// The longest pause in what a program writes to its standard output.
fn longest_pause(process: &mut Process, content: &Content) -> Duration {
    let mut pipe = process.take_stdout();
    let (mut got, mut block) = (Vec::new(), vec![0; 64 << 10]);
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    loop {
        let len = pipe.read(&mut block).unwrap();
        longest = longest.max(last.elapsed());
        last = Instant::now();
        if len == 0 {
            content.assert_bytes(&got);
            return longest;
        }
        got.extend_from_slice(&block[..len]);
    }
}

#[test]
fn readers_are_not_held_up_by_a_supernode_that_freezes() {
    let content = Content::new(710, 48 * MIB);
    let script = Script {
        rate: Some(6 * MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let supernode = Supernode::start();
    let start = || {
        let piped = Dfget::new(origin.url()).args(["-o", "-"]).with(&supernode);
        piped.start_piped()
    };
    let readers: Vec<Process> = (0..3).map(|_| start()).collect();
    supernode.wait_for_members(3);
    supernode.process().signal(Signal::Stop);
    let pauses: Vec<Duration> = std::thread::scope(|scope| {
        let read = |mut reader: Process| {
            let content = &content;
            scope.spawn(move || longest_pause(&mut reader, content))
        };
        let reading: Vec<_> = readers.into_iter().map(read).collect();
        let pauses = reading.into_iter().map(|reader| reader.join().unwrap());
        pauses.collect()
    });
    let longest = pauses.iter().max().copied().unwrap_or_default();
    assert!(longest < Duration::from_secs(8), "{pauses:?}");
}
