//! Who cannot be reached by whom: a member behind a firewall or NAT, or with a wrong address, is no
//! source for those that cannot connect to it, whatever it holds and leases. What such a member needs
//! instead comes from the origin, more of it at once each time.

use std::{collections::BTreeMap, time::Duration};

use pantala_core::{
    PeerId, PieceIndex, Time,
    control::{REDIAL_MAX, ToPeer},
};

use crate::{
    Output,
    task::{Out, Task},
};

/// Parents that are remembered as out of reach for one member. The one that was tried first is
/// forgotten for more.
const REMEMBERED: usize = 64;
/// A member that reaches none of so many is told of no more: it is the member itself that is cut off.
const TRIED: usize = 8;
/// How long that is remembered: until a member that still does not reach the parent has said so again,
/// though its word comes late or one is lost.
const FORGOTTEN: Duration = REDIAL_MAX.saturating_mul(2);
/// How many times one lease for a member alone can double.
const DOUBLINGS: u32 = 20;

/// The parents that one member could not connect to.
#[derive(Debug, Default)]
pub(crate) struct Unreached {
    parents: BTreeMap<PeerId, Time>,
    /// How many leases in a row it got because it reaches nobody.
    leases: u32,
}

impl Unreached {
    pub fn insert(&mut self, parent: PeerId, now: Time) {
        self.parents.insert(parent, now);
        if self.parents.len() > REMEMBERED
            && let Some((&oldest, _)) = self.parents.iter().min_by_key(|(_, at)| **at)
        {
            self.parents.remove(&oldest);
        }
    }

    pub fn contains(&self, parent: PeerId, now: Time) -> bool {
        let at = self.parents.get(&parent);
        at.is_some_and(|&at| now.since(at) < FORGOTTEN)
    }

    fn is_hopeless(&self, now: Time) -> bool {
        let tried = self
            .parents
            .values()
            .filter(|&&at| now.since(at) < FORGOTTEN);
        tried.count() >= TRIED
    }

    /// How many pieces it gets from the origin the next time.
    fn next_lease(&mut self) -> u32 {
        let pieces = 1 << self.leases;
        self.leases = (self.leases + 1).min(DOUBLINGS);
        pieces
    }
}

impl Task {
    /// Whether a member said that it could not connect to a parent.
    pub(crate) fn is_out_of_reach(&self, parent: PeerId, of: PeerId, now: Time) -> bool {
        let member = self.members.get(&of);
        member.is_some_and(|member| member.unreached.contains(parent, now))
    }

    /// Serves a member that lacks a piece and reaches none of the parents that it knows: gives others to
    /// tell it of, or a lease for itself alone. `None` where it reaches some, or has not tried all.
    pub(crate) fn help_out(
        &mut self,
        peer: PeerId,
        piece: PieceIndex,
        now: Time,
        out: Out<'_>,
    ) -> Option<Vec<PeerId>> {
        if self.is_free(piece) {
            return None;
        }
        let member = self.members.get_mut(&peer)?;
        let told = member
            .told
            .preferred
            .iter()
            .flatten()
            .chain(&member.told.others);
        let unreached = &mut member.unreached;
        let cut_off =
            !unreached.parents.is_empty() && { told }.all(|addr| unreached.contains(addr.id, now));
        if !cut_off {
            unreached.leases = 0;
            return None;
        }
        if !unreached.is_hopeless(now) {
            let brings = |id: &PeerId| *id != peer && !self.is_out_of_reach(*id, peer, now);
            let holders = self
                .members
                .iter()
                .filter(|(_, member)| member.held.contains(piece));
            let holders = holders.map(|(&id, _)| id).filter(brings).take(2);
            let mut others: Vec<PeerId> = holders.collect();
            let lease = self.leases.liveliest(piece).map(|lease| lease.holder);
            others.extend(lease.filter(brings));
            if !others.is_empty() {
                return Some(others);
            }
        }
        // Others can have from elsewhere what this member gets: to them it is no lease.
        let pieces = self.members.get_mut(&peer)?.unreached.next_lease();
        let end = PieceIndex::new(piece.get().saturating_add(pieces).min(self.bound()));
        self.leases
            .grant_alone(peer, piece, end.max(piece.next()), now);
        out.push(Output {
            to: peer,
            message: ToPeer::Lease {
                task: self.id,
                first: piece,
                end: Some(end.max(piece.next())),
            },
        });
        Some(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> PeerId {
        PeerId::from_bytes([n; 16])
    }

    #[test]
    fn who_was_out_of_reach_is_tried_again_some_day() {
        let mut unreached = Unreached::default();
        unreached.insert(id(1), Time::ZERO);
        assert!(unreached.contains(id(1), Time::ZERO) && !unreached.contains(id(2), Time::ZERO));
        assert!(!unreached.contains(id(1), Time::ZERO + FORGOTTEN));
    }

    #[test]
    fn few_are_remembered() {
        let mut unreached = Unreached::default();
        for n in 0..200 {
            let now = Time::ZERO + Duration::from_millis(u64::from(n));
            unreached.insert(id(n), now);
            assert!(unreached.contains(id(n), now));
        }
        assert_eq!(unreached.parents.len(), REMEMBERED);
        assert!(unreached.is_hopeless(Time::ZERO));
    }

    #[test]
    fn what_it_needs_instead_grows() {
        let mut unreached = Unreached::default();
        let leases: Vec<u32> = (0..5).map(|_| unreached.next_lease()).collect();
        assert_eq!(leases, [1, 2, 4, 8, 16]);
    }
}
