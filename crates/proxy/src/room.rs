//! Room for clients' connections: a place for each, and the memory that it takes by itself.
//!
//! The first connections are within what the process may have beside its budget. What the others take is charged, and
//! where there is nothing to charge it to, the connection is one of those beyond the limit, on which operators' pages are
//! answered.
//!
//! This module must not know what is asked on a connection.

use std::{net::IpAddr, sync::Arc};

use pantala_node::{Kept, Node, Seat, Seats};
use pantala_origin::LITTLE;

/// The memory that a connection takes by itself. Measured with 1,500 of them: 27 KiB for a silent one, 36 KiB after it has
/// had a request, 43 KiB for one that stands still in the middle of an answer, apart from what is copied for that. An answer
/// that is passed on may have a little block here without a place.
const EACH: u64 = (40 << 10) + LITTLE as u64;
/// Connections that are not charged: with a small budget they would take what its pieces need.
const UNCHARGED: usize = 256;
/// The part of the budget that connections may have.
const OF_BUDGET: u64 = 4;

/// How many connections a memory budget has room for.
pub(crate) fn most(budget: u64) -> usize {
    let charged = usize::try_from(budget / OF_BUDGET / EACH).unwrap_or(usize::MAX);
    charged.saturating_add(UNCHARGED)
}

/// A seat for a new connection, and its memory; `None` when there is no seat even beyond the limit.
pub(crate) fn admit(
    node: &Node,
    seats: &Arc<Seats>,
    addr: IpAddr,
) -> Option<(Arc<Seat>, Option<Kept>)> {
    if seats.open() < UNCHARGED {
        return Some((seats.admit(addr)?, None));
    }
    let memory = node.keep_for_connection(EACH);
    let seat = match memory {
        Some(_) => seats.admit(addr)?,
        None => seats.admit_beyond(addr)?,
    };
    let memory = memory.filter(|_| !seat.is_beyond());
    Some((seat, memory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_as_many_as_are_counted_by_memory() {
        assert!(most(4 << 20) < 300);
        // As many as there are without --connections: one for each 256 KiB, 4,096 at most.
        for mib in [32, 64, 256, 1024] {
            assert!(most(mib << 20) as u64 >= mib * 4, "{mib} MiB");
        }
    }
}
