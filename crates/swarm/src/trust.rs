//! Who sends wrong bytes, and what is made of it.
//!
//! Blocks are passed on before they can be checked, so all below a liar complain of each other. Who
//! said that it holds the piece has checked it, if it is honest: wrong bytes of such a piece are its
//! own. Who only passed them on complains itself soon; who does not is taken for the source.
//!
//! One member's word makes one other a liar, and no second one before the first is believed again:
//! for more it takes another accuser. Else whoever accuses everybody would leave the swarm without
//! anybody to pull from. Of whom it complains in vain it gets nothing any more itself.
//!
//! Who lied is not believed for a while, longer each time, never for ever: what it says it holds
//! does not count, it is nobody's parent, and gets no lease for others.

use std::time::Duration;

use pantala_core::{PeerId, PieceIndex, PieceSet, Time};

use crate::{
    Config,
    task::{Out, Task},
};

/// How long after a member complained of wrong bytes those it sends are taken for those.
const DECEIVED: Duration = Duration::from_secs(1);
/// How long who passed wrong bytes on has to complain itself.
const COMPLAINT: Duration = Duration::from_millis(300);
/// How long somebody who sends wrong bytes is not believed, the first time.
const LIAR: Duration = Duration::from_secs(30);

impl Task {
    /// Whether somebody may be a parent at all.
    pub(crate) fn is_honest(&self, peer: PeerId) -> bool {
        self.members
            .get(&peer)
            .is_some_and(|member| member.withheld.is_none())
    }

    /// Wrong bytes came from a parent.
    pub(crate) fn accuse(
        &mut self,
        by: PeerId,
        of: PeerId,
        piece: PieceIndex,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        let Some(accuser) = self.members.get_mut(&by) else {
            return;
        };
        accuser.deceived = Some(now);
        accuser.pace.moved(now);
        let Some(member) = self.members.get_mut(&of) else {
            return;
        };
        let deceived = member.deceived.is_some_and(|at| now.since(at) < DECEIVED);
        if by == of || deceived || member.withheld.is_some() {
            return;
        }
        let recent = |&(_, at): &(PeerId, Time)| now.since(at) < LIAR;
        let before = member.accuser.replace((by, now)).filter(recent);
        let confirmed = before.is_some_and(|(other, _)| other != by);
        if !confirmed && !self.may_accuse(by, of, now) {
            self.part(by, of, config, now, out);
            return;
        }
        let Some(member) = self.members.get_mut(&of) else {
            return;
        };
        if member.held.contains(piece) {
            self.distrust(of, config, now, out);
        } else {
            member.suspected.get_or_insert(now);
            self.watched.insert(of);
        }
    }

    /// Whether a member's word alone is enough: it is for one other at a time.
    fn may_accuse(&mut self, by: PeerId, of: PeerId, now: Time) -> bool {
        let Some(accuser) = self.members.get_mut(&by) else {
            return false;
        };
        let other = accuser
            .accused
            .filter(|&(other, until)| other != of && now < until);
        if other.is_none() {
            accuser.accused = Some((of, now + LIAR));
        }
        other.is_none()
    }

    /// A member pulls no more from another, whatever is true of that.
    fn part(&mut self, child: PeerId, parent: PeerId, config: &Config, now: Time, out: Out<'_>) {
        for stripe in 0..self.trees.stripes() {
            if self.trees.parent(child, stripe) == Some(parent) {
                self.attach(child, stripe, Some(parent), now);
            }
        }
        self.tell_parents(config, None, now, out);
    }

    /// Looks who had time enough to complain and did not, and who is believed again.
    pub(crate) fn watch_trust(&mut self, config: &Config, now: Time, out: Out<'_>) {
        let (mut guilty, mut restored) = (Vec::new(), Vec::new());
        for &peer in &self.watched {
            let Some(member) = self.members.get_mut(&peer) else {
                continue;
            };
            if let Some(at) = member.suspected
                && now.since(at) > COMPLAINT
            {
                member.suspected = None;
                if member.deceived.is_none_or(|own| own < at) {
                    guilty.push(peer);
                }
            }
            if member.withheld.is_some() && now >= member.demoted_until {
                restored.push(peer);
            }
        }
        let members = &self.members;
        self.watched.retain(|peer| {
            let member = members.get(peer);
            member.is_some_and(|member| member.suspected.is_some() || member.withheld.is_some())
        });
        for peer in guilty {
            self.distrust(peer, config, now, out);
        }
        for peer in restored {
            self.believe(peer, now);
        }
    }

    /// Nothing that it says counts until its time is over.
    fn distrust(&mut self, peer: PeerId, config: &Config, now: Time, out: Out<'_>) {
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        if member.withheld.is_some() {
            return;
        }
        member.strike(now);
        member.suspected = None;
        let until = now + LIAR * member.strikes;
        member.demoted_until = until;
        let held = std::mem::replace(&mut member.held, PieceSet::new());
        for piece in held.iter() {
            self.count(piece, false);
        }
        if let Some(member) = self.members.get_mut(&peer) {
            member.withheld = Some(held);
            self.watched.insert(peer);
        }
        let leases = self.leases.take_all(peer);
        self.bar(peer, true, until);
        for lease in &leases {
            self.moved += 1;
            self.end_lease(peer, lease.first, lease.end, out);
        }
        self.transfer_may_be_over();
        if self.trees.root() == Some(peer) {
            self.elect_root(now);
        }
        for lease in leases {
            self.pass_on(lease.first, peer, config, now, out);
        }
        self.clear_way(peer, config, now, out);
        // Nobody keeps a link to it.
        let told = |parents: &pantala_core::control::Parents| {
            let preferred = parents.preferred.iter().flatten();
            preferred.chain(&parents.others).any(|addr| addr.id == peer)
        };
        let bound: Vec<PeerId> = self
            .members
            .iter()
            .filter(|(_, member)| told(&member.told))
            .map(|(&id, _)| id)
            .collect();
        for id in bound {
            self.tell_anew(id, config, out);
        }
    }

    fn believe(&mut self, peer: PeerId, now: Time) {
        let Some(member) = self.members.get_mut(&peer) else {
            return;
        };
        let held = member.withheld.take().unwrap_or_default();
        for piece in held.iter() {
            if let Some(member) = self.members.get_mut(&peer)
                && member.held.insert(piece)
            {
                self.count(piece, true);
            }
        }
        self.leases.believe(peer);
        self.bar(peer, false, now);
    }
}
