//! A fleet whose programs are replaced one after another: for a while two versions meet in one swarm.
//!
//! The next version does not exist yet. A relay between two daemons makes each look to the other as if it did: its
//! greeting names one version more and says something new, and messages that nobody knows come in between.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use pantala_e2e::{Content, Dfdaemon, MIB, Origin, Script, Supernode, free_port};

/// The kind of a greeting's frame.
const HELLO: u8 = 1;
/// A kind of frame that no version has yet.
const UNKNOWN: u8 = 250;

/// Passes frames on as the next version would say them; gives up when either side has ended.
fn modernise(mut from: TcpStream, mut to: TcpStream, greetings: &AtomicUsize) -> io::Result<()> {
    loop {
        let mut header = [0; 5];
        from.read_exact(&mut header)?;
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let mut payload = vec![0; len as usize];
        from.read_exact(&mut payload)?;
        if header[0] == HELLO {
            // After the four bytes of the protocol's name: the least version, the greatest.
            let greatest = u16::from_be_bytes([payload[6], payload[7]]) + 1;
            payload[6..8].copy_from_slice(&greatest.to_be_bytes());
            payload.extend(b"and something new");
            greetings.fetch_add(1, Ordering::Relaxed);
        }
        let mut out = vec![header[0]];
        out.extend((payload.len() as u32).to_be_bytes());
        out.extend(payload);
        out.extend([UNKNOWN, 0, 0, 0, 3, 1, 2, 3]);
        to.write_all(&out)?;
    }
}

/// A port that leads to a peer as [`modernise`] says it; counts greetings.
fn through_the_next_version(peer: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    let greetings = Arc::new(AtomicUsize::new(0));
    let counted = greetings.clone();
    // Ends with the test's process.
    thread::spawn(move || {
        for child in listener.incoming().flatten() {
            let parent = TcpStream::connect(peer).expect("the parent listens");
            let both = [(&child, &parent), (&parent, &child)];
            for (from, to) in both {
                let (from, to) = (
                    from.try_clone().expect("a socket"),
                    to.try_clone().expect("a socket"),
                );
                let greetings = counted.clone();
                thread::spawn(move || {
                    let ended = to.try_clone().expect("a socket");
                    let _ = modernise(from, to, &greetings);
                    let _ = ended.shutdown(Shutdown::Both);
                });
            }
        }
    });
    (addr, greetings)
}

#[test]
fn daemons_of_two_versions_are_one_swarm() {
    let content = Content::new(990, 12 * MIB);
    let origin = Origin::start(&content, Script::default());
    let supernode = Supernode::start();
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (advertised, greetings) = through_the_next_version(listen);
    let (listen, advertised) = (listen.to_string(), advertised.to_string());
    let holder = Dfdaemon::start(
        &supernode,
        &["--peer-listen", &listen, "--advertise", &advertised],
    );
    let child = Dfdaemon::start(&supernode, &[]);
    content.assert_bytes(&holder.get(&origin.url(), &[]).body);
    content.assert_bytes(&child.get(&origin.url(), &[]).body);
    assert_eq!(origin.sent(), content.len(), "{:?}", origin.asked());
    assert_eq!(
        greetings.load(Ordering::Relaxed),
        2,
        "one connection, greeted both ways"
    );
}
