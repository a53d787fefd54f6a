//! Who is asked for what: parents, a second parent for a late head piece, the supernode for a
//! lease.

use std::time::Duration;

use pantala_core::{PieceIndex, Time};

use crate::{
    Action, AttemptId, Class, Order, ParentId,
    attempts::{Attempt, HEDGES},
    parents::Parent,
    picker::{Picker, Supernode},
    wanted::Wanted,
    work::Work,
};

/// The window's first pieces go out in order, whatever is rare.
pub(crate) const URGENT: u32 = 2;
const ASK_PAUSE: Duration = Duration::from_millis(250);
const ASK_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How many times the patience a head piece may take though bytes of it come.
const SLOW: u32 = 4;
/// How many times as long as pieces usually take, where that is more;
const SLOWER: u32 = 3;
/// and within how many times that time the first would be there soon.
const SOON: f64 = 4.0;
/// How many times the patience is left to a parent that waits for the piece itself.
const ABOVE: u32 = 3;
/// and how many pieces usually come in the time that is left to it.
const PIECES_ABOVE: u32 = 2;
/// How many times its usual pause a parent may pause, if that is more than the patience;
const HUSHES: u32 = 4;
/// and up to how many times the patience.
const PATIENCES: u32 = 8;
/// How many pieces must come for one more second request, where that is more than a second: what is
/// got twice stays a small part.
const PIECES_A_HEDGE: u32 = 10;

/// A wanted piece without a source, or whose source does not deliver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    /// When the supernode is asked, again if it was before.
    at: Time,
    /// How long to wait for an answer then.
    pause: Duration,
}

/// How many second requests may be made. One that was faster than the first earns more than it
/// cost, one that was not is lost; one comes back every second, or every ten pieces. So a peer whose own link is the
/// slow part does not fill it with what it gets twice.
#[derive(Debug)]
pub(crate) struct HedgeCredit {
    left: f64,
    at: Time,
}

const CREDIT_MAX: f64 = 4.0;
/// How long until one comes back, at least.
const BACK: Duration = Duration::from_secs(1);

impl HedgeCredit {
    pub fn new(now: Time) -> Self {
        Self {
            left: CREDIT_MAX,
            at: now,
        }
    }

    /// Takes one if there is one; `usual` is how long a piece takes to come.
    fn take(&mut self, usual: Duration, now: Time) -> bool {
        let one = (usual * PIECES_A_HEDGE).max(BACK);
        let back = now.since(self.at).as_secs_f64() / one.as_secs_f64();
        self.left = self.left.max((self.left + back).min(1.0));
        self.at = now;
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }

    pub fn won(&mut self) {
        self.left = (self.left + 1.5).min(CREDIT_MAX);
    }
}

impl Picker {
    pub(crate) fn plan_requests(&mut self, wanted: &Wanted) {
        let mut order: Vec<(bool, usize, u32, PieceIndex, u32)> = wanted
            .iter()
            .filter(|(piece, _)| !self.work.get(**piece).is_some_and(Work::is_busy))
            .filter(|(piece, _)| !self.runs.iter().any(|run| run.covers(**piece)))
            .map(|(&piece, &urgency)| {
                let urgent = urgency < self.config.urgent;
                let copies = if urgent || self.config.order == Order::Ascending {
                    0
                } else {
                    self.parents.copies(piece)
                };
                let lot = match self.config.order {
                    Order::RarestByLot if !urgent => self.lot(piece),
                    _ => urgency.min(self.config.urgent),
                };
                (!urgent, copies, lot, piece, urgency)
            })
            .collect();
        order.sort_unstable();
        let mut unsourced: Option<PieceIndex> = None;
        for (_, _, _, piece, urgency) in order {
            if self.may_ask_origin(piece) {
                continue;
            }
            let down = matches!(self.supernode, Supernode::Down { .. });
            let useless = down && !self.vouched.contains(piece);
            let parent = (!useless)
                .then(|| {
                    let limit = self.config.requests_per_parent;
                    self.parents
                        .choose(piece, self.piece_size, urgency, limit, self.now)
                })
                .flatten();
            match parent {
                Some(parent) => self.fetch(piece, parent, urgency, false),
                None => unsourced = Some(unsourced.map_or(piece, |first| first.min(piece))),
            }
        }
        if let Some(piece) = unsourced {
            self.ask(piece, self.tried.contains(piece));
        }
        if let Supernode::Down { fallback } = self.supernode
            && self.now < fallback
        {
            self.wake_at(fallback);
        }
        // An avoided parent may be the only one: look again when it is avoided no more.
        if unsourced.is_some()
            && let Some(at) = self.parents.next_rested(self.now)
        {
            self.wake_at(at);
        }
    }

    /// A piece's place in an order that is this peer's own.
    fn lot(&self, piece: PieceIndex) -> u32 {
        let mixed = (self.config.seed ^ u64::from(piece.get())).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as u32
    }

    /// Nobody is known to have the piece, or who was asked does not deliver: asks the supernode,
    /// after a moment, and again with growing pauses.
    pub(crate) fn ask(&mut self, piece: PieceIndex, late: bool) {
        if self.supernode != Supernode::Up {
            return;
        }
        let now = self.now;
        let after = if late {
            Duration::ZERO
        } else {
            self.config.ask_after
        };
        if !self.asks.contains(piece) {
            let (at, pause) = (now + after, ASK_PAUSE);
            self.asks.insert(piece, Ask { at, pause });
        }
        let Some(ask) = self.asks.get_mut(piece) else {
            return;
        };
        if now >= ask.at {
            ask.at = now + ask.pause;
            ask.pause = (ask.pause * 2).min(ASK_PAUSE_MAX);
            self.actions.push_back(Action::AskLease { piece, late });
        }
        let at = ask.at;
        self.wake_at(at);
    }

    /// The supernode prefers somebody else now, and had its reasons: what another has begun and
    /// does not have itself is gone on with by the preferred one, if that has it or gets it.
    pub(crate) fn hasten_left_behind(&mut self) {
        if !self.strayed || self.class == Class::Paused || self.config.hedges.min(HEDGES) < 2 {
            return;
        }
        let mut strayed = false;
        let begun: Vec<(PieceIndex, ParentId)> = self
            .work
            .iter()
            .filter_map(|(piece, work)| {
                let preferred = self.parents.preferred(piece)?;
                let attempt = work.attempts.first()?;
                let asked = attempt.parent;
                strayed |= work.attempts.iter().any(|other| other.parent != preferred);
                let alone = work.run.is_none() && work.attempts.len() == 1;
                if asked == preferred || !alone || attempt.complete {
                    return None;
                }
                let parent = self.parents.known.get(preferred)?;
                let whole = self.parents.known.get(asked);
                let whole = whole.is_some_and(|parent| parent.holds(piece));
                let better = !whole && parent.has(piece) && !parent.demoted(self.now);
                better.then_some((piece, preferred))
            })
            .collect();
        self.strayed = strayed;
        for (piece, preferred) in begun {
            self.fetch(piece, preferred, 0, true);
        }
    }

    pub(crate) fn fetch(&mut self, piece: PieceIndex, parent: ParentId, urgency: u32, hedge: bool) {
        self.strayed |= self
            .parents
            .preferred(piece)
            .is_some_and(|other| other != parent);
        self.counter += 1;
        let attempt = AttemptId(self.counter);
        let now = self.now;
        let size = self.piece_size;
        let mut able = false;
        if let Some(parent) = self.parents.known.get_mut(parent) {
            parent.asked(size, now);
            able = parent.has(piece);
        }
        self.attempts.insert(attempt, piece);
        let work = self.work.get_or_default(piece);
        let request = Attempt::new(attempt, parent, able, hedge, now);
        work.attempts.push(request);
        self.actions.push_back(Action::Fetch {
            attempt,
            piece,
            parent,
            urgency,
            hedge,
        });
    }

    /// Looks after the pieces that readers wait for right now: acts on those that are late, or
    /// only sees to it that they are looked at again when they would be.
    pub(crate) fn watch_heads(&mut self, act: bool) {
        if self.class != Class::Foreground {
            return;
        }
        for (piece, since) in self.heads() {
            let Some(late_at) = self.late_at(piece, since) else {
                continue;
            };
            if self.now < late_at {
                self.wake_at(late_at);
            } else if act {
                self.late(piece, since);
            } else {
                self.wake_at(self.now + self.config.patience);
            }
        }
    }

    /// Whether a head piece is late; if not, it is looked at again when it would be.
    pub(crate) fn is_late(&mut self) -> bool {
        if self.class != Class::Foreground {
            return false;
        }
        let late_at = self
            .heads()
            .filter_map(|(piece, since)| self.late_at(piece, since));
        let Some(at) = late_at.min() else {
            return false;
        };
        self.wake_at(at);
        self.now >= at
    }

    /// When a head piece will be late; `None` where no parent is asked for it.
    fn late_at(&self, piece: PieceIndex, since: Time) -> Option<Time> {
        let work = self.work.get(piece)?;
        if work.run.is_some() || work.attempts.is_empty() {
            return None;
        }
        // A parent's time runs from when it had the piece: far down a tree it comes later, and is not
        // late for that.
        let able = work.attempts.iter().filter_map(Attempt::able);
        let since = able.max().map_or(since, |able| able.max(since));
        let progressed = work.attempts.iter().map(|attempt| attempt.progressed).max();
        // Whoever waits for it himself is not what is slow: who is gets the time to be found.
        let above = work.attempts.iter().all(|attempt| {
            let parent = self.parents.known.get(attempt.parent);
            !attempt.complete && parent.is_some_and(|parent| !parent.has(piece))
        });
        let usual = work.attempts.iter().map(|attempt| {
            let parent = self.parents.known.get(attempt.parent);
            parent.map_or(Duration::ZERO, Parent::hush)
        });
        // Who shares a narrow link with others sends in turns: its pauses are learned.
        let usual = usual.max().unwrap_or_default() * HUSHES;
        let most = self.config.patience * PATIENCES;
        let patience = self.config.patience.max(usual.min(most));
        let patience = if above {
            // Where pieces take long all above it may wait for the same one.
            let usual = (self.usual * PIECES_ABOVE).min(most);
            patience.max(self.config.patience * ABOVE).max(usual)
        } else {
            patience
        };
        let stalled_at = progressed.unwrap_or(since).max(since) + patience;
        // Bytes trickle in, and somebody else has them all.
        let slow_at = since + self.slow_after(work, since);
        if work.attempts.len() >= self.config.hedges.min(HEDGES)
            || stalled_at <= slow_at
            || work.attempts.iter().any(|attempt| attempt.complete)
        {
            return Some(stalled_at);
        }
        let asked: Vec<ParentId> = work.attempts.iter().map(|attempt| attempt.parent).collect();
        let better = self.parents.another_holds(piece, &asked, self.now);
        Some(if better { slow_at } else { stalled_at })
    }

    /// How long a piece may take of which bytes come: by how long pieces usually take. Before the first
    /// has come nothing is known of our own link, and what would be there soon is not asked for again.
    fn slow_after(&self, work: &Work, since: Time) -> Duration {
        let patience = self.config.patience * SLOW;
        if self.usual > Duration::ZERO {
            return patience.max(self.usual * SLOWER);
        }
        let bytes = work.attempts.iter().map(|attempt| attempt.bytes).max();
        let took = self.now.since(since).max(patience);
        let all = self.piece_size as f64 / bytes.unwrap_or(0).max(1) as f64;
        let soon = took.as_secs_f64() * all <= patience.as_secs_f64() * SOON;
        if soon { patience * SLOW } else { patience }
    }

    /// The pieces that readers wait for, and since when.
    fn heads(&self) -> impl Iterator<Item = (PieceIndex, Time)> + use<> {
        let windows = self.readers.values().rev();
        let mut waiting = windows
            .filter(|window| !window.rests() && window.base() < window.edge())
            .filter(|window| !self.held.contains(window.base()))
            .map(|window| (window.base(), window.head_since()));
        let (first, second) = (waiting.next(), waiting.next());
        // Mostly there is one reader: nothing is allocated for that.
        let mut more = Vec::new();
        let mut only = first;
        if second.is_some() {
            more.extend(only.take());
            more.extend(second);
            more.extend(waiting);
            // Of readers that wait for the same piece the last to come counts.
            more.sort_by_key(|&(piece, _)| piece);
            more.dedup_by_key(|&mut (piece, _)| piece);
        }
        only.into_iter().chain(more)
    }

    pub(crate) fn late(&mut self, piece: PieceIndex, since: Time) {
        let now = self.now;
        let Some(work) = self.work.get(piece) else {
            return;
        };
        let asked: Vec<ParentId> = work.attempts.iter().map(|attempt| attempt.parent).collect();
        let waiting_for_verdict = work.attempts.iter().any(|attempt| attempt.complete);
        self.wake_at(now + self.config.patience);
        if matches!(self.supernode, Supernode::Down { .. }) && now >= since + self.config.fallback {
            self.desperate.insert(piece);
        }
        if waiting_for_verdict {
            self.ask(piece, true);
            return;
        }
        let second = (asked.len() < self.config.hedges.min(HEDGES))
            .then(|| self.parents.second(piece, self.piece_size, &asked, now))
            .flatten();
        if let Some(second) = second {
            // Where nothing comes at all it is not our own link.
            let idle = now.since(self.last_byte) >= self.config.patience * SLOW;
            if !self.hedges.take(self.usual, now) && !idle {
                // Asking twice has not helped lately: it is our own link that is slow.
                return;
            }
            let holds = self.parents.another_holds(piece, &asked, now);
            self.blame(piece, &asked, holds);
            self.fetch(piece, second, 0, true);
        } else {
            self.blame(piece, &asked, false);
            self.ask(piece, true);
        }
    }

    /// Who was asked and does not deliver is avoided if it holds the piece. If it lacks that itself,
    /// what is slow lies above it: whoever left it would take from those that get on, and the
    /// supernode finds out. Without one it is avoided as well if somebody else holds the piece.
    pub(crate) fn blame(&mut self, piece: PieceIndex, asked: &[ParentId], elsewhere: bool) {
        let now = self.now;
        let elsewhere = elsewhere && matches!(self.supernode, Supernode::Down { .. });
        for &parent in asked {
            self.parents.judge(parent, |found| {
                if !found.demoted(now) && (elsewhere || found.holds(piece)) {
                    found.strike(now);
                    self.actions.push_back(Action::ReportSlow { parent });
                }
            });
        }
    }

    /// Requests that have waited in vain at a parent that is avoided now are free to go elsewhere.
    pub(crate) fn release_demoted(&mut self) {
        let now = self.now;
        if !self.parents.any_demoted(now) {
            return;
        }
        let demoted: Vec<(ParentId, Time)> = self
            .parents
            .known
            .iter()
            .filter(|(_, parent)| parent.demoted(now) && parent.is_asked())
            .map(|(id, parent)| (id, parent.demoted_since()))
            .collect();
        if demoted.is_empty() {
            return;
        }
        let (size, limit) = (self.piece_size, self.config.requests_per_parent);
        self.release_waiting(|parents, piece, attempt| {
            // What was asked of it after that was asked for want of anybody better.
            let before = |&(id, since): &(ParentId, Time)| {
                id == attempt.parent && attempt.progressed <= since
            };
            demoted.iter().any(before) && parents.has_better(piece, size, limit, now)
        });
    }
}
