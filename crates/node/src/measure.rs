//! How long packets take to other peers and back, for the supernode, which finds out by it who is
//! near whom.
//!
//! What is measured is a connection's first round trip to the other's peer server; it is hung up as
//! soon as it stands. The kernel says how long it took: this process may have been busy when it was
//! there. What waits in a queue on the way takes longer than the way, never shorter, so the least of
//! a few tries counts.

use std::time::Duration;

use pantala_core::control::{PeerAddr, RoundTrip};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// How often the way to everybody is tried when nobody has been found near.
const TRIES: u32 = 3;
/// How long who does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest pause between two tries, whatever the supernode calls near.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Measures the round trips to some peers, side by side: at most [`TRIES`] connections to each, for a
/// second. Who is no further than `enough` is near; then nobody is tried again.
pub(crate) async fn measure(peers: &[PeerAddr], enough: Duration) -> Vec<RoundTrip> {
    let mut least: Vec<Option<Duration>> = vec![None; peers.len()];
    // Ends what is left of them when it is dropped.
    let mut under_way = JoinSet::new();
    let pause = enough.clamp(Duration::from_millis(1), PAUSE_MAX);
    let (mut next, mut tries) = (Instant::now(), 0);
    let mut end = next + PATIENCE;
    while tries < TRIES || !under_way.is_empty() {
        tokio::select! {
            biased;
            () = sleep_until(end) => break,
            Some(done) = under_way.join_next(), if !under_way.is_empty() => {
                // A task that panicked has measured nothing.
                let Ok((at, took)) = done else { continue };
                let took: Option<Duration> = took;
                if let Some(way) = least.get_mut(at) {
                    *way = took.into_iter().chain(*way).min();
                }
                if took.is_some_and(|took| took <= enough) {
                    tries = TRIES;
                    // Others may be near as well; who is not is not waited for.
                    end = end.min(next);
                }
            }
            () = sleep_until(next), if tries < TRIES => {
                for (at, peer) in peers.iter().enumerate() {
                    let addr = peer.addr;
                    under_way.spawn(async move { (at, way(addr).await) });
                }
                tries += 1;
                next += pause;
                end = end.max(next);
            }
        }
    }
    let ways = peers.iter().zip(least);
    ways.map(|(peer, took)| RoundTrip {
        peer: peer.id,
        took,
    })
    .collect()
}

/// The first round trip of a connection; `None` where there is none.
async fn way(addr: std::net::SocketAddr) -> Option<Duration> {
    let began = Instant::now();
    let stream = TcpStream::connect(addr).await.ok()?;
    let took = began.elapsed();
    Some(handshake(&stream).unwrap_or(took).min(took))
}

/// How long the kernel says that a connection's handshake took.
#[cfg(target_os = "linux")]
fn handshake(stream: &TcpStream) -> Option<Duration> {
    use std::{mem::MaybeUninit, os::fd::AsRawFd as _};

    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as the stream is borrowed, and no more than `len` bytes
    // are written to `info`.
    let failed = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    } != 0;
    // SAFETY: it was zeroed, which is a value of all its fields, and the kernel wrote integers.
    let info = unsafe { info.assume_init() };
    let micros = Duration::from_micros(info.tcpi_rtt.into());
    Some(micros).filter(|micros| !failed && !micros.is_zero())
}

#[cfg(not(target_os = "linux"))]
fn handshake(_: &TcpStream) -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use pantala_core::PeerId;
    use tokio::net::TcpListener;

    use super::*;

    fn peer(n: u8, addr: std::net::SocketAddr) -> PeerAddr {
        PeerAddr {
            id: PeerId::from_bytes([n; 16]),
            addr,
        }
    }

    #[tokio::test]
    async fn who_listens_is_measured_and_who_does_not_is_out_of_reach() {
        let there = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peers = [
            peer(1, gone.local_addr().unwrap()),
            peer(2, there.local_addr().unwrap()),
        ];
        drop(gone);
        let measured = measure(&peers, Duration::from_millis(2)).await;
        assert_eq!(measured.len(), 2);
        assert_eq!((measured[0].peer, measured[0].took), (peers[0].id, None));
        assert!(measured[1].took.is_some(), "{measured:?}");
        assert_eq!(measure(&[], Duration::ZERO).await, []);
    }

    /// Who is not near is tried a few times, no more.
    #[tokio::test]
    async fn the_tries_are_bounded() {
        let there = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peers = [peer(1, there.local_addr().unwrap())];
        let tries = async {
            let mut tries = 0;
            while there.accept().await.is_ok() {
                tries += 1;
                if tries == TRIES {
                    break;
                }
            }
            tries
        };
        // Nobody is so near.
        let (measured, tries) = tokio::join!(measure(&peers, Duration::ZERO), tries);
        assert_eq!(tries, TRIES);
        assert!(measured[0].took.is_some());
    }
}
