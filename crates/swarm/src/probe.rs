//! Whether somebody else would be quicker at the origin than who holds the lease.
//!
//! While all wait for the lease holder nothing tells a slow holder from a slow origin. So when a
//! holder brings little a member whose uplink is idle gets a lease for a piece ahead, cut out of
//! the holder's. When it brings that far sooner than the holder brings its own in that time, and
//! than it did at its best lately, it takes over. An origin that sends in bursts is known by its
//! pauses, which then end no lease. A probe costs next to nothing where both are alike: the origin
//! sends the same bytes, the holder gets its share of them over an uplink that was idle. What did
//! not help is done ever more rarely.
//!
//! Nothing is known yet of a holder that begins. It is doubted when it has little after its first
//! moments, and then beginnings are compared: what the probe has so long after its first byte with
//! what the holder had. An origin's first burst is the same for both.

use std::{cmp::Reverse, collections::VecDeque, time::Duration};

use pantala_core::{PeerId, PieceIndex, Time, control::ToPeer};

use crate::{
    Config, Output,
    pace::Pace,
    task::{Out, Task},
};

/// How long nothing may have come from a holder until it is doubted,
const DOUBTED: Duration = Duration::from_millis(100);
/// and how few pieces, in how long, unless it has fallen silent altogether. Probing whoever pauses
/// was tried: each probe disturbs the transfer, and an origin that sends in bursts had 1.19 × S
/// taken from it.
const FEW: usize = 2;
const RECENT: Duration = Duration::from_millis(400);
/// Over how long its pieces tell how quick a holder can be, and how many of them.
const SPAN: Duration = Duration::from_secs(2);
const PIECES_KEPT: usize = 32;
/// Where a pause is so many times as long as the shortest one, the origin sends in bursts.
const BURST: u32 = 4;
/// How many times its longest pause a bursty origin may pause.
const LONGER: f64 = 1.5;
/// What a new holder has for its first piece.
const GRACE: Duration = Duration::from_millis(150);
/// The pause after a probe; doubles with each in vain.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The pause where holder and probe were seen to share what is slow.
const PAUSE_SHARED: Duration = Duration::from_secs(8);
/// What is probed with, and how far ahead of the holder.
const PIECES: u32 = 1;
const AHEAD: u32 = 2;
/// Pieces that must be left, or there is nothing to be gained.
const LEFT: u32 = 8;
/// How long a probe may take while the holder brings far more; and how long a holder that was
/// quick and lives may bring nothing when the probe is there.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many times quicker a probe must be to take over.
const BETTER: f64 = 1.5;

/// How long after its first bytes it is looked how a transfer begins: as long as lies between two words
/// of a peer that receives.
const BEGINNING: Duration = Duration::from_millis(40);
/// Bytes a second below which a holder that begins is doubted: as few as in [`RECENT`].
const BEGINS_SLOWLY: f64 = 5e6;
/// How many times quicker than the holder a probe must begin, which may get from others meanwhile as much
/// as the holder sends on;
const BEGINS_BETTER: f64 = 3.0;
/// and below how many times it is in vain.
const BEGINS_ALIKE: f64 = 1.5;
/// Below what part of its pace before the holder has to share with the probe.
const SHARES: f64 = 0.8;
/// How often another one is tried at once.
const TRIES: u32 = 3;

/// How a transfer from the origin begins.
#[derive(Debug, Clone, Copy, Default)]
struct Beginning {
    /// What its peer had before, in pieces.
    had: f64,
    /// When its first bytes were told of, and what the peer had then.
    first: Option<(Time, f64)>,
}

impl Beginning {
    fn of(pace: &Pace) -> Self {
        Self {
            had: pace.total(),
            first: None,
        }
    }

    fn hears(&mut self, pace: &Pace, now: Time) {
        if self.first.is_none() && pace.total() > self.had {
            self.first = Some((now, pace.total()));
        }
    }

    /// Pieces a second so far, when there is enough to tell.
    fn rate(&self, pace: &Pace, now: Time) -> Option<f64> {
        let (at, had) = self.first?;
        let took = pace.known_at(now).since(at);
        (took >= BEGINNING).then(|| (pace.total() - had).max(0.0) / took.as_secs_f64())
    }
}

/// What is known of the holder's pace, and the probe under way.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    holder: Option<PeerId>,
    beginning: Beginning,
    /// How often somebody else was tried since the holder began.
    tries: u32,
    /// When its last piece came.
    last: Time,
    /// When its last pieces came, in the order in which they did.
    recent: VecDeque<Time>,
    /// The longest pause that ended while the origin sent in bursts, and when it ended. It is the
    /// origin's habit, and outlives the holder.
    habit: Option<(Duration, Time)>,
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
    beginning: Beginning,
    /// What the holder had when it began, in pieces.
    held: f64,
    /// How long the probe took, when it is there.
    took: Option<Duration>,
}

/// What a probe has shown.
enum Verdict {
    Quicker,
    InVain,
    /// The holder may only be between two bursts.
    Open,
}

impl Probes {
    /// The holder brought a piece.
    fn brought(&mut self, now: Time) {
        self.last = now;
        self.recent.push_back(now);
        while self.recent.len() > PIECES_KEPT
            || self.recent.front().is_some_and(|&at| now.since(at) > SPAN)
        {
            self.recent.pop_front();
        }
        if let (Some(shortest), Some(longest)) = (self.shortest(now), self.gaps(now).max())
            && longest >= shortest * BURST
            && self.habit(now).is_none_or(|habit| habit <= longest)
        {
            self.habit = Some((longest, now));
        }
        if let Some(running) = &mut self.running {
            running.against += 1;
        }
    }

    /// The times between its pieces lately.
    fn gaps(&self, now: Time) -> impl Iterator<Item = Duration> {
        let ends = self.recent.iter().skip(1);
        let pairs = self.recent.iter().zip(ends);
        pairs
            .filter(move |(_, end)| now.since(**end) <= SPAN)
            .map(|(start, end)| end.since(*start))
    }

    /// The least time that a piece took lately: how quick the holder can be.
    fn shortest(&self, now: Time) -> Option<Duration> {
        self.gaps(now).min()
    }

    /// The origin's longest pause lately, where it sends in bursts.
    fn habit(&self, now: Time) -> Option<Duration> {
        let (pause, at) = self.habit?;
        (now.since(at) <= SPAN * 2).then_some(pause)
    }

    /// How long the holder may bring nothing.
    fn tolerated(&self, now: Time) -> Duration {
        let habit = self.habit(now).unwrap_or_default().mul_f64(LONGER);
        DOUBTED.max(habit)
    }

    fn has_brought_little(&self, now: Time) -> bool {
        let recent = self.recent.iter().rev();
        recent.take_while(|&&at| now.since(at) <= RECENT).count() <= FEW
    }

    /// What the probe under way has shown. A probe has an origin's first burst for itself, and an
    /// uplink that was idle: it must do better than the holder at its best.
    fn verdict(&self, running: &Running, silent: bool, now: Time) -> Verdict {
        let Some(took) = running.took else {
            return Verdict::Open;
        };
        let quick = f64::from(PIECES) / took.as_secs_f64().max(1e-3);
        let meanwhile = now.since(running.last);
        // One more may be all but there.
        let holder = f64::from(running.against + 1) / meanwhile.as_secs_f64().max(1e-3);
        let best = self.shortest(now).filter(|_| !silent);
        if running.against == 0 && best.is_some() && meanwhile <= PATIENCE.max(self.tolerated(now))
        {
            return Verdict::Open;
        }
        let best = best.filter(|_| running.against > 0);
        let best = best.map_or(0.0, |gap| 1.0 / gap.as_secs_f64().max(1e-3));
        if quick >= BETTER * holder.max(best) {
            Verdict::Quicker
        } else {
            Verdict::InVain
        }
    }
}

impl Task {
    /// Who holds the lease at the live edge is watched from then on.
    pub(crate) fn watch_holder(&mut self, now: Time) {
        let lead = self.leases.iter().find(|lease| lease.end.is_none());
        let Some(holder) = lead.map(|lease| lease.holder) else {
            return;
        };
        if self.probes.holder == Some(holder) {
            return;
        }
        let Some(member) = self.members.get(&holder) else {
            return;
        };
        self.probes = Probes {
            holder: Some(holder),
            beginning: Beginning::of(&member.pace),
            last: now,
            next: now + GRACE,
            pause: PAUSE,
            habit: self.probes.habit,
            ..Probes::default()
        };
    }

    /// Starts a probe if it is time for one, or ends the one under way.
    pub(crate) fn consider_probe(&mut self, config: &Config, now: Time, out: Out<'_>) {
        self.watch_holder(now);
        let lead = self.leases.iter().find(|lease| lease.end.is_none());
        let Some((holder, silent)) = lead.map(|lease| (lease.holder, lease.silent(now))) else {
            return;
        };
        if let Some(running) = self.probes.running {
            let lost = running.took.is_none()
                && !(running.first.get()..running.end.get())
                    .any(|piece| self.leases.holds(running.peer, PieceIndex::new(piece)));
            if lost {
                self.probe_in_vain(now);
            } else if running.took.is_some() {
                self.judge(silent, config, now, out);
            } else if now.since(running.since) > PATIENCE && running.against > PIECES * 2 {
                self.withdraw(running, holder, config, now, out);
            }
            return;
        }
        let pauses = now.since(self.probes.last) > self.probes.tolerated(now);
        let doubted = pauses && (silent || self.probes.has_brought_little(now));
        if now >= self.probes.next && doubted {
            self.start_probe(config, now, out);
        }
    }

    fn start_probe(&mut self, config: &Config, now: Time, out: Out<'_>) {
        if !config.probe || self.is_single() {
            return;
        }
        let lead = self.leases.iter().find(|lease| lease.end.is_none());
        let Some((holder, first)) = lead.map(|lease| (lease.holder, lease.first)) else {
            return;
        };
        let probe = PieceIndex::new(first.get().saturating_add(AHEAD));
        let end = PieceIndex::new(probe.get().saturating_add(PIECES));
        let left = self.bound().saturating_sub(first.get());
        let free =
            (probe.get()..end.get()).all(|piece| self.leases.holds(holder, PieceIndex::new(piece)));
        if left < LEFT || !self.meta.ranges || !free {
            return;
        }
        let held = self
            .members
            .get(&holder)
            .map_or(0.0, |member| member.pace.total());
        let candidate = self.probe_candidate(holder, probe, now);
        let Some((peer, member)) = candidate.and_then(|id| Some((id, self.members.get(&id)?)))
        else {
            return;
        };
        self.probes.running = Some(Running {
            peer,
            first: probe,
            end,
            since: now,
            against: 0,
            last: self.probes.last,
            beginning: Beginning::of(&member.pace),
            held,
            took: None,
        });
        self.probes.tried = Some(peer);
        self.leases.give_back(holder, probe, Some(end));
        self.end_lease(holder, probe, Some(end), out);
        self.grant(peer, probe, config, now, out);
        self.introduce(holder, &[peer], config, out);
    }

    /// A member has said what it has: a holder that begins slowly is doubted, and a probe that begins
    /// far better need not go on to its end.
    pub(crate) fn watch_beginning(
        &mut self,
        peer: PeerId,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        let Some(pace) = self.members.get(&peer).map(|member| member.pace) else {
            return;
        };
        // Who has brought pieces is judged by those.
        if !self.probes.recent.is_empty() {
            return;
        }
        if self.probes.holder == Some(peer) {
            self.probes.beginning.hears(&pace, now);
            let rate = self.probes.beginning.rate(&pace, now);
            let slow = BEGINS_SLOWLY / self.geometry.piece_size() as f64;
            if self.probes.running.is_none()
                && self.probes.tries < TRIES
                && rate.is_some_and(|rate| rate < slow)
            {
                self.probes.tries += 1;
                self.start_probe(config, now, out);
            }
        } else if let Some(running) = &mut self.probes.running
            && running.peer == peer
            && running.took.is_none()
        {
            running.beginning.hears(&pace, now);
            let (running, rate) = (*running, running.beginning.rate(&pace, now));
            if let Some(rate) = rate {
                self.compare_beginnings(running, rate, config, now, out);
            }
        }
    }

    fn compare_beginnings(
        &mut self,
        running: Running,
        rate: f64,
        config: &Config,
        now: Time,
        out: Out<'_>,
    ) {
        let Some(holder) = self.probes.holder else {
            return;
        };
        let Some(pace) = self.members.get(&holder).map(|member| member.pace) else {
            return;
        };
        let Some(held) = self.probes.beginning.rate(&pace, now) else {
            return;
        };
        if rate >= BEGINS_BETTER * held {
            self.probe_in_vain(now);
            self.take_over(running.peer, config, now, out);
        } else if rate < BEGINS_ALIKE * held {
            // Where the holder gets less since, both share what is slow: nobody else would be quicker.
            let took = pace.known_at(now).since(running.since).as_secs_f64();
            let meanwhile = (pace.total() - running.held).max(0.0) / took.max(1e-3);
            let shared = meanwhile < SHARES * held;
            self.withdraw(running, holder, config, now, out);
            if shared {
                self.probes.tries = TRIES;
                self.probes.next = now + PAUSE_SHARED;
            }
        }
    }

    /// Who waits for the holder as all do, and has the most of an uplink left.
    fn probe_candidate(&self, holder: PeerId, piece: PieceIndex, now: Time) -> Option<PeerId> {
        let holding = self.members.get(&holder)?;
        let (front, place) = (holding.pace.front, &holding.place);
        self.members
            .iter()
            .filter(|(id, member)| {
                **id != holder
                    && !member.reader_bound
                    && member.withheld.is_none()
                    && !self.trees.barred(**id)
                    && now >= member.demoted_until
                    && member.position <= piece
                    && member.pace.front + AHEAD >= front
            })
            .min_by_key(|(id, member)| {
                // The holder's whole zone may have a narrow way to the origin.
                let distance = Reverse(place.distance(&member.place));
                let tried = self.probes.tried == Some(**id);
                (tried, distance, self.trees.load(**id), **id)
            })
            .map(|(&id, _)| id)
    }

    /// A leased piece came: the holder's, or a probe's.
    pub(crate) fn probe_sealed(&mut self, peer: PeerId, config: &Config, now: Time, out: Out<'_>) {
        if self.probes.holder == Some(peer) {
            self.probes.brought(now);
        } else if let Some(running) = self.probes.running
            && running.peer == peer
            && running.took.is_none()
        {
            let held = |piece| self.copies(PieceIndex::new(piece)) > 0;
            if !(running.first.get()..running.end.get()).all(held) {
                return;
            }
            if let Some(running) = &mut self.probes.running {
                running.took = Some(now.since(running.since));
            }
        } else {
            return;
        }
        let lead = self.leases.iter().find(|lease| lease.end.is_none());
        let silent = lead.is_some_and(|lease| lease.silent(now));
        self.judge(silent, config, now, out);
    }

    /// Ends a probe that has shown what it can.
    fn judge(&mut self, silent: bool, config: &Config, now: Time, out: Out<'_>) {
        let Some(running) = self.probes.running else {
            return;
        };
        match self.probes.verdict(&running, silent, now) {
            Verdict::Open => {}
            Verdict::InVain => self.probe_in_vain(now),
            Verdict::Quicker => {
                self.probe_in_vain(now);
                self.take_over(running.peer, config, now, out);
            }
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
        self.probes.recent.clear();
        self.probes.beginning = self
            .members
            .get(&peer)
            .map_or_else(Beginning::default, |member| Beginning::of(&member.pace));
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
