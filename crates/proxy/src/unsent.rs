//! How much of an answer may wait in the kernel for its client.
//!
//! Left to itself the kernel takes 1 to 4 MiB for a client that stopped reading. All programs of a host share what it has
//! for TCP: when that is used up, nobody's connections move, here or elsewhere, and no processor is busy. So the kernel is
//! given less for each client the more clients there are, and all of them together have a small part of the
//! memory. What is under way to a client is not bound by this: a quick client is served as before.
//!
//! This module must not know which client reads: what the kernel has taken it does not give back.

use std::fs;

use socket2::SockRef;
use tokio::net::TcpStream;

/// The most for one connection. As much as is handed over at once, and as connections between peers have.
const MOST: u64 = 256 << 10;
/// The least for one connection.
const LEAST: u64 = 16 << 10;
/// The part of the memory budget that a number of connections share. Each one keeps the share that it had when it came,
/// so that `n` of them have `1 + ln(n)` times as much at most.
const OF_BUDGET: u64 = 16;
/// The part of the host's memory that they share. The kernel holds back all connections once they have a sixteenth of it.
const OF_HOST: u64 = 256;

/// What the kernel may keep for all clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsent {
    shared: u64,
}

impl Unsent {
    /// For a memory budget on this host.
    pub fn new(budget: u64) -> Self {
        let host = host_memory().map_or(u64::MAX, |bytes| bytes / OF_HOST);
        let shared = host.min(budget / OF_BUDGET);
        Self { shared }
    }

    /// Bounds what the kernel keeps for a client whose connection is one of `open`.
    pub fn limit(self, stream: &TcpStream, open: usize) {
        if let Err(error) = SockRef::from(stream).set_tcp_notsent_lowat(self.share(open)) {
            tracing::debug!(%error, "cannot limit unsent bytes");
        }
    }

    fn share(self, open: usize) -> u32 {
        let share = self.shared / (open as u64).max(1);
        share.clamp(LEAST, MOST) as u32
    }
}

/// The memory of this host in bytes, where the kernel says it.
fn host_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_clients_there_are_the_less_is_kept_for_each() {
        let unsent = Unsent { shared: 64 << 20 };
        let shares = [1, 256, 512, 4096, 1_000_000].map(|open| unsent.share(open) >> 10);
        assert_eq!(shares, [256, 256, 128, 16, 16]);
        // All that came one after the other have a fraction of the memory that they are a sixteenth of.
        let sum: u64 = (1..=4096).map(|open| u64::from(unsent.share(open))).sum();
        assert!(sum < 256 << 20, "{sum} bytes");
    }
}
