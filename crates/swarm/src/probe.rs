//! Whether somebody else would be quicker at the origin than who holds the lease.
//!
//! While all wait for the lease holder nothing tells a slow holder from a slow origin. So when a
//! holder brings little a member whose uplink is idle gets a lease for a piece ahead, cut out of
//! the holder's. When it brings them far sooner than the holder brings its own in that time, it takes over. A
//! probe costs next to nothing where both are alike: the origin sends the same bytes, the holder
//! gets its share of them over an uplink that was idle. What did not help is done ever more rarely.

use std::{collections::VecDeque, time::Duration};

use pantala_core::{PeerId, PieceIndex, Time, control::ToPeer};

use crate::{
    Config, Output,
    task::{Out, Task},
};

/// How long nothing may have come from a holder until it is doubted,
const DOUBTED: Duration = Duration::from_millis(100);
/// and how few pieces, in how long. Probing whoever pauses was tried: each probe cuts the transfer
/// in two, and an origin that sends in bursts had 1.19 × S taken from it.
const FEW: usize = 2;
const RECENT: Duration = Duration::from_millis(400);
/// What a new holder has for its first piece.
const GRACE: Duration = Duration::from_millis(150);
/// The pause after a probe; doubles with each in vain.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// What is probed with, and how far ahead of the holder.
const PIECES: u32 = 1;
const AHEAD: u32 = 2;
/// Pieces that must be left, or there is nothing to be gained.
const LEFT: u32 = 8;
/// How long a probe may take while the holder brings far more.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many times quicker a probe must be to take over.
const BETTER: f64 = 1.5;

/// What is known of the holder's pace, and the probe under way.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    holder: Option<PeerId>,
    /// When its last piece came.
    last: Time,
    /// When its last few pieces came, in the order in which they did.
    recent: VecDeque<Time>,
    /// No probe before.
    next: Time,
    pause: Duration,
    running: Option<Running>,
    /// Who was tried last.
    tried: Option<PeerId>,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    peer: PeerId,
    first: PieceIndex,
    end: PieceIndex,
    since: Time,
    /// Pieces that the holder has brought meanwhile.
    against: u32,
    /// When the piece before those came.
    last: Time,
}

impl Task {
    /// Starts a probe if it is time for one.
    pub(crate) fn consider_probe(&mut self, config: &Config, now: Time, out: Out<'_>) {
        let lead = self.leases.iter().find(|lease| lease.end.is_none());
        let Some((holder, first)) = lead.map(|lease| (lease.holder, lease.first)) else {
            return;
        };
        if self.probes.holder != Some(holder) {
            self.probes = Probes {
                holder: Some(holder),
                last: now,
                next: now + GRACE,
                pause: PAUSE,
                ..Probes::default()
            };
        }
        if let Some(running) = self.probes.running {
            let lost = !(running.first.get()..running.end.get())
                .any(|piece| self.leases.holds(running.peer, PieceIndex::new(piece)));
            if lost {
                self.probe_in_vain(now);
            } else if now.since(running.since) > PATIENCE && running.against > PIECES * 2 {
                self.withdraw(running, holder, config, now, out);
            }
            return;
        }
        let probe = PieceIndex::new(first.get().saturating_add(AHEAD));
        let end = PieceIndex::new(probe.get().saturating_add(PIECES));
        let left = self.bound().saturating_sub(first.get());
        let free =
            (probe.get()..end.get()).all(|piece| self.leases.holds(holder, PieceIndex::new(piece)));
        let few = self
            .probes
            .recent
            .iter()
            .filter(|&&at| now.since(at) <= RECENT)
            .count()
            <= FEW;
        let doubted = now >= self.probes.next && now.since(self.probes.last) > DOUBTED && few;
        if !doubted || left < LEFT || !self.meta.ranges || !free {
            return;
        }
        let Some(peer) = self.probe_candidate(holder, probe, now) else {
            return;
        };
        self.probes.running = Some(Running {
            peer,
            first: probe,
            end,
            since: now,
            against: 0,
            last: self.probes.last,
        });
        self.probes.tried = Some(peer);
        self.leases.give_back(holder, probe, Some(end));
        self.end_lease(holder, probe, Some(end), out);
        self.grant(peer, probe, config, now, out);
        self.introduce(holder, &[peer], config, out);
    }

    /// Who waits for the holder as all do, and has the most of an uplink left.
    fn probe_candidate(&self, holder: PeerId, piece: PieceIndex, now: Time) -> Option<PeerId> {
        let front = self.members.get(&holder)?.pace.front;
        self.members
            .iter()
            .filter(|(id, member)| {
                **id != holder
                    && !member.reader_bound
                    && !self.trees.barred(**id)
                    && now >= member.demoted_until
                    && member.position <= piece
                    && member.pace.front + AHEAD >= front
            })
            .min_by_key(|(id, _)| (self.probes.tried == Some(**id), self.trees.load(**id), **id))
            .map(|(&id, _)| id)
    }

    /// A leased piece came: the holder's, or a probe's.
    pub(crate) fn probe_sealed(&mut self, peer: PeerId, config: &Config, now: Time, out: Out<'_>) {
        if self.probes.holder == Some(peer) {
            self.probes.last = now;
            self.probes.recent.push_back(now);
            if self.probes.recent.len() > FEW + 1 {
                self.probes.recent.pop_front();
            }
            if let Some(running) = &mut self.probes.running {
                running.against += 1;
            }
            return;
        }
        let Some(running) = self.probes.running.filter(|running| running.peer == peer) else {
            return;
        };
        let held = |piece| self.copies(PieceIndex::new(piece)) > 0;
        if !(running.first.get()..running.end.get()).all(held) {
            return;
        }
        let took = now.since(running.since).as_secs_f64().max(1e-3);
        let meanwhile = now.since(running.last).as_secs_f64().max(1e-3);
        let quick = f64::from(PIECES) / took;
        // One more may be all but there.
        let holder = f64::from(running.against + 1) / meanwhile;
        self.probe_in_vain(now);
        if quick >= BETTER * holder {
            self.take_over(peer, config, now, out);
        }
    }

    /// The probe takes too long: the holder does better.
    fn withdraw(
        &mut self,
        running: Running,
        holder: PeerId,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        self.probe_in_vain(now);
        let (first, end) = (running.first, Some(running.end));
        if self.leases.give_back(running.peer, first, end) {
            self.end_lease(running.peer, first, end, out);
            if self.is_free(first) {
                self.grant(holder, first, config, now, out);
            }
        }
    }

    fn probe_in_vain(&mut self, now: Time) {
        self.probes.running = None;
        self.probes.next = now + self.probes.pause;
        self.probes.pause = (self.probes.pause * 2).min(PAUSE_MAX);
    }

    /// The holder's leases and its place as root go to somebody quicker.
    fn take_over(&mut self, peer: PeerId, config: &Config, now: Time, out: Out<'_>) {
        let Some(holder) = self.probes.holder.replace(peer) else {
            return;
        };
        self.probes.last = now;
        self.moved += 1;
        let taken = self.leases.take_all(holder);
        self.bar(holder, true, now);
        for lease in &taken {
            self.end_lease(holder, lease.first, lease.end, out);
        }
        for lease in &taken {
            if self.is_free(lease.first) {
                self.grant(peer, lease.first, config, now, out);
            }
        }
        self.clear_way(holder, config, now, out);
    }

    pub(crate) fn end_lease(
        &self,
        holder: PeerId,
        first: PieceIndex,
        end: Option<PieceIndex>,
        out: Out<'_>,
    ) {
        out.push(Output {
            to: holder,
            message: ToPeer::LeaseEnded {
                task: self.id,
                first,
                end,
            },
        });
    }
}
