//! When this peer asks the origin itself: runs over what it holds the lease for, or over what
//! nobody else can deliver.

use std::time::Duration;

use pantala_core::PieceIndex;

use crate::{
    Action, Class, RunId, Window,
    picker::{Picker, Supernode},
    runs::Run,
    wanted::Wanted,
    work::Work,
};

const ORIGIN_REST: Duration = Duration::from_millis(500);
/// Failed origin transfers, each retried by the origin client before, until readers are told.
const ORIGIN_FAILURES: u32 = 3;

impl Picker {
    /// Whether this peer may ask the origin for the piece: under a lease, or when the supernode is
    /// lost and no parent can deliver it verified.
    pub(crate) fn may_ask_origin(&self, piece: PieceIndex) -> bool {
        if self.leases.contains(piece) {
            return true;
        }
        let Supernode::Down { fallback } = self.supernode else {
            return false;
        };
        let deliverable = self.vouched.contains(piece)
            && self.parents.copies(piece) > 0
            && !self.desperate.contains(piece);
        self.now >= fallback && !deliverable
    }

    pub(crate) fn plan_runs(&mut self, wanted: &Wanted) {
        let now = self.now;
        let mut at = 0;
        while at < self.runs.len() {
            let run = &self.runs[at];
            let start = if run.receiving {
                run.next.next()
            } else {
                run.next
            };
            let mut reach = start;
            while wanted.contains_key(&reach)
                && self.may_ask_origin(reach)
                && run.goal.is_none_or(|goal| reach < goal)
                && self
                    .work
                    .get(reach)
                    .is_none_or(|work| work.attempts.is_empty())
            {
                reach = reach.next();
            }
            // A piece under way is let finish, unless its readers have gone.
            // A reader takes a piece from the origin block by block: it may be past the piece
            // before that is sealed.
            let just_taken = self
                .readers
                .values()
                .any(|window| window.base() == run.next.next());
            // What no other transfer can bring is let come for whoever will need it.
            let awaited = self.config.single_transfer && self.is_needed(run.next);
            let unwanted_now =
                run.receiving && !wanted.contains_key(&run.next) && !just_taken && !awaited;
            let done = !run.receiving && reach == start && !self.worth_keeping(run);
            if unwanted_now || done {
                let run = self.runs.remove(at);
                self.actions.push_back(Action::StopRun { run: run.id });
                self.release_run(&run);
                continue;
            }
            let returns = self.config.return_after;
            let supernode = self.supernode;
            let run = &mut self.runs[at];
            if reach != run.until {
                run.until = reach;
                self.actions.push_back(Action::ExtendRun {
                    run: run.id,
                    until: reach,
                });
            }
            let blocked = !run.receiving && reach == start;
            run.blocked_since = blocked.then(|| run.blocked_since.unwrap_or(now));
            if let (Some(since), Some(returns)) = (run.blocked_since, returns)
                && supernode == Supernode::Up
                && self.leases.contains(start)
            {
                if now.since(since) < returns {
                    self.wake_at(since + returns);
                } else if !std::mem::replace(&mut self.runs[at].offered, true) {
                    self.offer_leases(start);
                }
            }
            at += 1;
        }
        self.open_runs(wanted);
    }

    /// Whether a transfer that may not go on now will be able to when its reader moves.
    pub(crate) fn worth_keeping(&self, run: &Run) -> bool {
        !self.held.contains(run.next)
            && run.goal.is_none_or(|goal| run.next < goal)
            && self.may_ask_origin(run.next)
            && self.is_needed(run.next)
            && !self.work.contains(run.next)
    }

    /// Whether a reader will come to this piece.
    fn is_needed(&self, piece: PieceIndex) -> bool {
        let comes_to =
            |window: &Window| window.base() <= piece && window.end().is_none_or(|end| piece < end);
        self.readers.values().any(comes_to)
    }

    pub(crate) fn open_runs(&mut self, wanted: &Wanted) {
        if self.now < self.origin_rest_until {
            self.wake_at(self.origin_rest_until);
            return;
        }
        let mut order: Vec<(u32, PieceIndex)> = wanted
            .iter()
            .map(|(&piece, &urgency)| (urgency, piece))
            .collect();
        order.sort_unstable();
        for (_, first) in order {
            // Without a lease one transfer is the bound that a thousand peers keep to at once.
            let limit = if self.leases.contains(first) {
                self.config.runs
            } else {
                1
            };
            if !self.may_ask_origin(first)
                || self.work.get(first).is_some_and(Work::is_busy)
                || self.runs.iter().any(|run| run.covers(first))
            {
                continue;
            }
            // One after the other: two at once from the same origin make both late. But what a
            // reader waits for does not wait for what comes after it.
            let near_end = |run: &Run| run.until.get().saturating_sub(run.next.get()) <= 1;
            let head = self.readers.values().any(|window| window.base() == first);
            if !head && !self.runs.iter().all(near_end) {
                continue;
            }
            let mut until = first;
            while wanted.contains_key(&until)
                && self.may_ask_origin(until)
                && !self.work.get(until).is_some_and(Work::is_busy)
                && !self.runs.iter().any(|run| run.covers(until))
            {
                until = until.next();
            }
            // A parked run at this very piece would be asked for twice.
            if self.runs.iter().any(|run| run.next == first) {
                continue;
            }
            let full = self.runs.len() >= limit;
            // The one transfer that there is never makes way for another.
            if full && self.config.single_transfer {
                continue;
            }
            if full && !self.stop_parked() && !(head && self.stop_ahead(first)) {
                continue;
            }
            let goal = self.goal(first).filter(|_| !self.config.single_transfer);
            self.counter += 1;
            let run = RunId(self.counter);
            self.runs.push(Run {
                id: run,
                next: first,
                until,
                goal,
                receiving: false,
                blocked_since: None,
                offered: false,
            });
            self.actions.push_back(Action::OpenRun {
                run,
                first,
                until,
                goal,
            });
        }
    }

    /// Ends a transfer that is past a piece that a reader waits for.
    fn stop_ahead(&mut self, piece: PieceIndex) -> bool {
        let ahead = self.runs.iter().enumerate();
        let ahead = ahead.filter(|(_, run)| run.next > piece);
        let Some((at, _)) = ahead.max_by_key(|(_, run)| run.next) else {
            return false;
        };
        let run = self.runs.remove(at);
        self.actions.push_back(Action::StopRun { run: run.id });
        self.release_run(&run);
        true
    }

    /// Ends a transfer that waits for its reader to move: who wants something now goes first.
    fn stop_parked(&mut self) -> bool {
        let parked = |run: &Run| !run.receiving && run.until <= run.next;
        let Some(at) = self.runs.iter().position(parked) else {
            return false;
        };
        let run = self.runs.remove(at);
        self.actions.push_back(Action::StopRun { run: run.id });
        self.release_run(&run);
        true
    }

    /// How far a run from `first` can be needed at most.
    pub(crate) fn goal(&self, first: PieceIndex) -> Option<PieceIndex> {
        let lease = self.leases.end_of(first).flatten();
        let over =
            |window: &&Window| window.base() <= first && window.end().is_none_or(|end| first < end);
        let readers = self
            .readers
            .values()
            .filter(over)
            .map(|window| window.end().map_or(u32::MAX, PieceIndex::get))
            .max();
        let reader = readers.filter(|&end| end != u32::MAX).map(PieceIndex::new);
        match (lease, reader) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// A transfer failed. The count of failures outlives the lease: only pieces that come set it back.
    pub(crate) fn run_failed(&mut self, run: RunId, fatal: bool, rest: Duration) {
        let Some(at) = self.runs.iter().position(|found| found.id == run) else {
            return;
        };
        let run = self.runs.remove(at);
        self.release_run(&run);
        self.origin_failures += 1;
        self.origin_rest_until = self.now + ORIGIN_REST.max(rest);
        if fatal || self.origin_failures >= ORIGIN_FAILURES {
            self.actions.push_back(Action::GiveUp);
        } else if self.supernode == Supernode::Up
            && (self.config.return_after.is_some() || !self.parents.known.is_empty())
        {
            // Somebody with a better way to the origin may take over.
            for (first, end) in self.leases_from(run.next) {
                self.leases.remove(first, end);
                self.actions.push_back(Action::BlameOrigin { first, end });
            }
        }
    }

    /// Nobody will bring what nobody has. A reader whose next piece a parent has goes on; it asks when
    /// it has come to the end of that.
    pub(crate) fn origin_failed(&mut self) {
        let dry = |window: &Window| {
            let piece = self.held.first_gap(window.base());
            let ends = window.end().is_some_and(|end| piece >= end);
            let comes = self
                .runs
                .iter()
                .any(|run| run.receiving && run.next == piece);
            !ends && !comes && self.parents.copies(piece) == 0
        };
        if self.readers.values().any(dry) {
            self.actions.push_back(Action::GiveUp);
        }
    }

    pub(crate) fn release_run(&mut self, run: &Run) {
        for work in self.work.values_mut() {
            work.run = work.run.filter(|&id| id != run.id);
        }
        self.drop_idle_work();
    }

    fn leases_from(&self, from: PieceIndex) -> Vec<(PieceIndex, Option<PieceIndex>)> {
        self.leases
            .iter()
            .filter(|&(_, end)| end.is_none_or(|end| end > from))
            .map(|(first, end)| (first.max(from), end))
            .collect()
    }

    pub(crate) fn return_leases(&mut self, from: PieceIndex) {
        for (first, end) in self.leases_from(from) {
            self.leases.remove(first, end);
            self.actions.push_back(Action::ReturnLease { first, end });
        }
    }

    /// The reader has no room. A transfer that waits costs nothing; one that is opened anew for each
    /// window costs the origin what it had sent ahead.
    fn offer_leases(&mut self, from: PieceIndex) {
        for (first, end) in self.leases_from(from) {
            self.actions.push_back(Action::OfferLease { first, end });
        }
    }

    /// Gives back what this peer could go on with but will not now, when what comes already is here.
    pub(crate) fn return_paused(&mut self) {
        let Some(returns) = self.config.return_after else {
            return;
        };
        if self.class != Class::Paused
            || self.supernode != Supernode::Up
            || self.leases.is_empty()
            || self.runs.iter().any(|run| run.receiving)
        {
            return;
        }
        if self.now < self.paused_since + returns {
            self.wake_at(self.paused_since + returns);
            return;
        }
        for run in std::mem::take(&mut self.runs) {
            self.actions.push_back(Action::StopRun { run: run.id });
            self.release_run(&run);
        }
        self.return_leases(PieceIndex::new(0));
    }

    /// Gives back what no reader here will ever need, so that somebody else can bring it.
    pub(crate) fn return_unneeded(&mut self) {
        if self.config.return_after.is_none()
            || self.supernode != Supernode::Up
            || self.leases.is_empty()
        {
            return;
        }
        let mut unneeded = self.leases.clone();
        for window in self.readers.values() {
            unneeded.remove(window.base(), window.end());
        }
        // What comes already is let come.
        for run in self.runs.iter().filter(|run| run.receiving) {
            unneeded.remove(run.next, Some(run.next.next()));
        }
        if let Some(end) = self.end {
            unneeded.remove(end, None);
        }
        for (first, end) in unneeded.iter() {
            self.leases.remove(first, end);
            self.actions.push_back(Action::ReturnLease { first, end });
        }
    }
}
