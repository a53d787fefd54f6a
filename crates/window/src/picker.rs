use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use pantala_core::{PieceIndex, PieceSet, Time};

use crate::{
    Action, AttemptId, Config, Event, Failure, ParentId, PieceRanges, ReaderId, RunId, Window,
    parents::{Parent, Parents},
    runs::Run,
};

/// The brain of one task on one peer. See the crate's documentation.
#[derive(Debug)]
pub struct Picker {
    config: Config,
    piece_size: u64,
    now: Time,
    /// The piece after the last, when known.
    end: Option<PieceIndex>,
    held: PieceSet,
    readers: BTreeMap<ReaderId, Window>,
    share: u32,
    pinned: PieceSet,
    work: BTreeMap<PieceIndex, Work>,
    parents: Parents,
    leases: PieceRanges,
    vouched: PieceRanges,
    runs: Vec<Run>,
    supernode: Supernode,
    starving: Option<Starving>,
    origin_failures: u32,
    origin_rest_until: Time,
    counter: u64,
    wakeup: Time,
    actions: VecDeque<Action>,
}

/// Requests under way for one piece.
#[derive(Debug, Default)]
struct Work {
    attempts: Vec<Attempt>,
    /// A run receives it.
    run: Option<RunId>,
}

#[derive(Debug)]
struct Attempt {
    id: AttemptId,
    parent: ParentId,
    bytes: u64,
    /// When bytes last came, or it was asked.
    progressed: Time,
    /// All bytes are there; the verdict on them is not.
    complete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Supernode {
    Up,
    /// Lost; the origin may be asked from `fallback` on.
    Down {
        fallback: Time,
    },
}

/// A wanted piece that nobody is known to have.
#[derive(Debug, Clone, Copy)]
struct Starving {
    piece: PieceIndex,
    ask_at: Time,
    /// How long to wait for an answer before asking again.
    pause: Duration,
}

/// What the operator's page shows of a picker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Each reader's window: its base, its size, and how many pieces in it are held.
    pub windows: Vec<(ReaderId, PieceIndex, u32, u32)>,
    /// Pieces being received.
    pub in_flight: usize,
    /// Parents there is a link to.
    pub parents: usize,
    /// Whether this peer holds a source lease.
    pub leased: bool,
}

/// Requests for one piece that may be under way at once.
const HEDGES: usize = 2;
/// The window's first pieces go out in order, whatever is rare.
pub(crate) const URGENT: u32 = 2;
const ASK_PAUSE: Duration = Duration::from_millis(250);
const ASK_PAUSE_MAX: Duration = Duration::from_secs(2);
const ORIGIN_REST: Duration = Duration::from_millis(500);
/// Failed origin transfers, each retried by the origin client before, until readers are told.
const ORIGIN_FAILURES: u32 = 3;

impl Picker {
    /// A picker for content cut into pieces of `piece_size` bytes, without readers, parents or
    /// leases yet. The supernode is taken to be there until [`Event::SupernodeDown`].
    pub fn new(config: Config, piece_size: u64, now: Time) -> Self {
        Self {
            config,
            piece_size,
            now,
            end: None,
            held: PieceSet::new(),
            readers: BTreeMap::new(),
            share: u32::MAX,
            pinned: PieceSet::new(),
            work: BTreeMap::new(),
            parents: Parents::default(),
            leases: PieceRanges::new(),
            vouched: PieceRanges::new(),
            runs: Vec::new(),
            supernode: Supernode::Up,
            starving: None,
            origin_failures: 0,
            origin_rest_until: Time::ZERO,
            counter: 0,
            wakeup: Time::NEVER,
            actions: VecDeque::new(),
        }
    }

    /// Something happened at `now`, which must not lie before any earlier call's. Take the
    /// decisions with [`Picker::poll_action`] until there are none.
    pub fn handle(&mut self, now: Time, event: Event) {
        debug_assert!(now >= self.now, "time runs backwards");
        self.now = now.max(self.now);
        if self.note(event) {
            self.plan();
        }
        debug_assert!(self.check());
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to send [`Event::Tick`] if nothing else happens before.
    pub fn next_wakeup(&self) -> Option<Time> {
        (self.wakeup < Time::NEVER).then_some(self.wakeup)
    }

    /// The lowest piece a reader needs, and the piece after the last that one will need: what
    /// children may wait for here.
    pub fn planned(&self) -> Option<(PieceIndex, Option<PieceIndex>)> {
        let first = self.readers.values().map(Window::base).min()?;
        let end = self
            .readers
            .values()
            .map(Window::end)
            .max_by_key(|end| match end {
                Some(end) => end.get(),
                None => u32::MAX,
            })?;
        Some((first, end))
    }

    /// For the operator's page.
    pub fn snapshot(&self) -> Snapshot {
        let window = |(&reader, window): (&ReaderId, &Window)| {
            let held = window
                .pieces()
                .filter(|&piece| self.held.contains(piece))
                .count();
            (reader, window.base(), window.size(), held as u32)
        };
        Snapshot {
            windows: self.readers.iter().map(window).collect(),
            in_flight: self.work.len(),
            parents: self.parents.known.len(),
            leased: !self.leases.is_empty(),
        }
    }

    /// Takes an event into the state; says whether there may be something to decide.
    fn note(&mut self, event: Event) -> bool {
        let now = self.now;
        match event {
            Event::ReaderOpened { reader, first, end } => {
                let mut window = Window::new(first, end, self.config.window, self.share, now);
                if let Some(end) = self.end {
                    window.limit(end);
                }
                self.readers.insert(reader, window);
            }
            Event::ReaderTook { reader, next } => {
                let held = &self.held;
                let Some(window) = self.readers.get_mut(&reader) else {
                    return false;
                };
                let ready = (next.get()..window.edge().get())
                    .take_while(|&piece| held.contains(PieceIndex::new(piece)))
                    .count();
                window.take(next, ready as u32, self.config.window, self.share, now);
            }
            Event::ReaderClosed { reader } => {
                self.readers.remove(&reader);
            }
            Event::Share { pieces } => {
                self.share = pieces.max(1);
                for window in self.readers.values_mut() {
                    window.set_share(self.config.window, self.share);
                }
            }
            Event::Ended { pieces } => self.ended(PieceIndex::new(pieces)),
            Event::ParentUp { parent } => {
                self.parents.known.insert(parent, Parent::new(now));
            }
            Event::ParentDown { parent } => {
                self.parents.known.remove(&parent);
                for preferred in &mut self.parents.preferred {
                    *preferred = preferred.filter(|&id| id != parent);
                }
                for work in self.work.values_mut() {
                    // What is complete still waits for its verdict.
                    work.attempts
                        .retain(|attempt| attempt.parent != parent || attempt.complete);
                }
                self.drop_idle_work();
            }
            Event::ParentHolds {
                parent,
                first,
                count,
            } => {
                let Some(parent) = self.parents.known.get_mut(&parent) else {
                    return false;
                };
                for piece in run(first, count) {
                    parent.receiving.remove(piece);
                    parent.without.remove(piece);
                    parent.holds.insert(piece);
                }
            }
            Event::ParentReceiving { parent, piece } => {
                let Some(parent) = self.parents.known.get_mut(&parent) else {
                    return false;
                };
                parent.without.remove(piece);
                parent.receiving.insert(piece);
            }
            Event::ParentLost {
                parent,
                first,
                count,
            } => {
                let Some(parent) = self.parents.known.get_mut(&parent) else {
                    return false;
                };
                for piece in run(first, count) {
                    parent.holds.remove(piece);
                    parent.receiving.remove(piece);
                    parent.without.insert(piece);
                }
            }
            Event::Preferred { stripes } => {
                if self.parents.preferred == stripes {
                    return false;
                }
                self.parents.preferred = stripes;
                self.release_waiting(|parents, piece, id| parents.preferred(piece) != Some(id));
            }
            Event::LeaseGranted { first, end } => {
                self.leases.insert(first, end);
                self.starving = None;
                self.origin_failures = 0;
                // The origin is asked by us now: what waits elsewhere for it waits in vain.
                let leases = self.leases.clone();
                self.release_waiting(|_, piece, _| leases.contains(piece));
            }
            Event::LeaseEnded { first, end } => self.leases.remove(first, end),
            Event::SupernodeUp => self.supernode = Supernode::Up,
            Event::SupernodeDown => {
                if self.supernode == Supernode::Up {
                    let pause = self.config.fallback.mul_f64(0.1 + 0.9 * self.draw());
                    self.supernode = Supernode::Down {
                        fallback: now + pause,
                    };
                }
            }
            Event::Vouched { first, count } => {
                let end = PieceIndex::new(first.get().saturating_add(count));
                self.vouched.insert(first, Some(end));
                return matches!(self.supernode, Supernode::Down { .. });
            }
            Event::Progress { attempt, bytes } => {
                let Some((piece, at)) = self.find(attempt) else {
                    return false;
                };
                let size = self.piece_size;
                let Some(found) = self.work.get_mut(&piece).map(|work| &mut work.attempts[at])
                else {
                    return false;
                };
                if bytes > found.bytes {
                    found.bytes = bytes;
                    found.progressed = now;
                    let parent = found.parent;
                    if let Some(parent) = self.parents.known.get_mut(&parent) {
                        parent
                            .outstanding
                            .insert(attempt, size.saturating_sub(bytes));
                    }
                }
                return false;
            }
            Event::Fetched { attempt, bytes } => {
                let Some((piece, at)) = self.find(attempt) else {
                    return false;
                };
                if let Some(work) = self.work.get_mut(&piece) {
                    let found = &mut work.attempts[at];
                    found.complete = true;
                    found.bytes = bytes;
                    found.progressed = now;
                    let parent = found.parent;
                    if let Some(parent) = self.parents.known.get_mut(&parent) {
                        parent.delivered(attempt, bytes, now);
                    }
                }
            }
            Event::Failed { attempt, failure } => {
                let Some((piece, at)) = self.find(attempt) else {
                    return false;
                };
                let parent = self.remove_attempt(piece, at);
                if let Some(parent) = self.parents.known.get_mut(&parent) {
                    match failure {
                        Failure::NotHere => {
                            parent.without.insert(piece);
                            parent.holds.remove(piece);
                            parent.receiving.remove(piece);
                        }
                        Failure::Busy => parent.avoid(now, Duration::from_millis(100)),
                        Failure::Gone => parent.strike(now),
                    }
                }
            }
            Event::Sealed { piece } => {
                self.held.insert(piece);
                self.origin_failures = 0;
                if let Some(work) = self.work.remove(&piece) {
                    for attempt in work.attempts {
                        self.cancel(piece, &attempt);
                    }
                }
                for run in &mut self.runs {
                    if run.next == piece {
                        run.next = piece.next();
                        run.receiving = false;
                    }
                }
            }
            Event::Corrupt { attempt } => {
                let Some((piece, at)) = self.find(attempt) else {
                    return false;
                };
                let parent = self.remove_attempt(piece, at);
                if let Some(parent) = self.parents.known.get_mut(&parent) {
                    parent.strike(now);
                    parent.without.insert(piece);
                    parent.holds.remove(piece);
                    parent.receiving.remove(piece);
                }
            }
            Event::RunAt { run, piece } => {
                let Some(run) = self.runs.iter_mut().find(|found| found.id == run) else {
                    return false;
                };
                run.next = piece;
                run.receiving = true;
                run.blocked_since = None;
                self.work.entry(piece).or_default().run = Some(run.id);
            }
            Event::RunFailed { run, fatal } => self.run_failed(run, fatal),
            Event::Evicted { piece } => {
                self.held.remove(piece);
            }
            Event::Tick => {}
        }
        true
    }

    fn ended(&mut self, end: PieceIndex) {
        self.end = Some(end);
        for window in self.readers.values_mut() {
            window.limit(end);
        }
        let past: Vec<PieceIndex> = self.work.range(end..).map(|(&piece, _)| piece).collect();
        for piece in past {
            if let Some(work) = self.work.remove(&piece) {
                for attempt in work.attempts {
                    self.cancel(piece, &attempt);
                }
            }
        }
    }

    fn run_failed(&mut self, run: RunId, fatal: bool) {
        let Some(at) = self.runs.iter().position(|found| found.id == run) else {
            return;
        };
        let run = self.runs.remove(at);
        self.release_run(&run);
        self.origin_failures += 1;
        self.origin_rest_until = self.now + ORIGIN_REST;
        if fatal || self.origin_failures >= ORIGIN_FAILURES {
            self.actions.push_back(Action::GiveUp);
        } else if !self.parents.known.is_empty() && self.supernode == Supernode::Up {
            // Somebody with a better way to the origin may take over.
            self.return_leases(run.next);
        }
    }

    fn release_run(&mut self, run: &Run) {
        for work in self.work.values_mut() {
            work.run = work.run.filter(|&id| id != run.id);
        }
        self.drop_idle_work();
    }

    fn return_leases(&mut self, from: PieceIndex) {
        let returned: Vec<_> = self
            .leases
            .iter()
            .filter(|&(_, end)| end.is_none_or(|end| end > from))
            .map(|(first, end)| (first.max(from), end))
            .collect();
        for (first, end) in returned {
            self.leases.remove(first, end);
            self.actions.push_back(Action::ReturnLease { first, end });
        }
    }

    /// Decides everything anew. Costs the windows' pieces times the parents.
    fn plan(&mut self) {
        self.wakeup = Time::NEVER;
        let wanted = self.wanted();
        self.pin();
        self.cancel_unwanted(&wanted);
        self.plan_runs(&wanted);
        self.release_demoted();
        self.plan_requests(&wanted);
        self.hedge();
    }

    /// Pieces in windows that are not held, with how far each is from the nearest reader.
    fn wanted(&self) -> BTreeMap<PieceIndex, u32> {
        let mut wanted = BTreeMap::new();
        for window in self.readers.values() {
            for (distance, piece) in window.pieces().enumerate() {
                if !self.held.contains(piece) {
                    let urgency = wanted.entry(piece).or_insert(u32::MAX);
                    *urgency = (*urgency).min(distance as u32);
                }
            }
        }
        wanted
    }

    fn pin(&mut self) {
        let needed: PieceSet = self.readers.values().flat_map(Window::pieces).collect();
        for piece in needed.iter() {
            if self.pinned.insert(piece) {
                self.actions.push_back(Action::Pin { piece });
            }
        }
        if self.pinned.len() > needed.len() {
            let free: Vec<PieceIndex> = self
                .pinned
                .iter()
                .filter(|&piece| !needed.contains(piece))
                .collect();
            for piece in free {
                self.pinned.remove(piece);
                self.actions.push_back(Action::Unpin { piece });
            }
        }
    }

    fn cancel_unwanted(&mut self, wanted: &BTreeMap<PieceIndex, u32>) {
        let unwanted: Vec<PieceIndex> = self
            .work
            .keys()
            .copied()
            .filter(|piece| !wanted.contains_key(piece))
            .collect();
        for piece in unwanted {
            let Some(work) = self.work.get_mut(&piece) else {
                continue;
            };
            for attempt in std::mem::take(&mut work.attempts) {
                self.cancel(piece, &attempt);
            }
        }
        self.drop_idle_work();
    }

    fn plan_runs(&mut self, wanted: &BTreeMap<PieceIndex, u32>) {
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
                    .get(&reach)
                    .is_none_or(|work| work.attempts.is_empty())
            {
                reach = reach.next();
            }
            // A piece under way is let finish, unless its readers have gone.
            let unwanted_now = run.receiving && !wanted.contains_key(&run.next);
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
                if now.since(since) >= returns {
                    let run = self.runs.remove(at);
                    self.actions.push_back(Action::StopRun { run: run.id });
                    self.return_leases(start);
                    continue;
                }
                self.wake_at(since + returns);
            }
            at += 1;
        }
        self.open_runs(wanted);
    }

    /// Whether a transfer that may not go on now will be able to when its reader moves.
    fn worth_keeping(&self, run: &Run) -> bool {
        let beyond = |window: &Window| {
            window.base() <= run.next && window.end().is_none_or(|end| run.next < end)
        };
        !self.held.contains(run.next)
            && run.goal.is_none_or(|goal| run.next < goal)
            && self.may_ask_origin(run.next)
            && self.readers.values().any(beyond)
            && !self.work.contains_key(&run.next)
    }

    fn open_runs(&mut self, wanted: &BTreeMap<PieceIndex, u32>) {
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
            if self.runs.len() >= limit
                || !self.may_ask_origin(first)
                || self.work.get(&first).is_some_and(Work::is_busy)
                || self.runs.iter().any(|run| run.covers(first))
            {
                continue;
            }
            let mut until = first;
            while wanted.contains_key(&until)
                && self.may_ask_origin(until)
                && !self.work.get(&until).is_some_and(Work::is_busy)
                && !self.runs.iter().any(|run| run.covers(until))
            {
                until = until.next();
            }
            // A parked run at this very piece would be asked for twice.
            if self.runs.iter().any(|run| run.next == first) {
                continue;
            }
            let goal = self.goal(first);
            self.counter += 1;
            let run = RunId(self.counter);
            self.runs.push(Run {
                id: run,
                next: first,
                until,
                goal,
                receiving: false,
                blocked_since: None,
            });
            self.actions.push_back(Action::OpenRun {
                run,
                first,
                until,
                goal,
            });
        }
    }

    /// How far a run from `first` can be needed at most.
    fn goal(&self, first: PieceIndex) -> Option<PieceIndex> {
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

    /// Whether this peer may ask the origin for the piece: under a lease, or when the supernode is
    /// lost and no parent can deliver it verified.
    fn may_ask_origin(&self, piece: PieceIndex) -> bool {
        if self.leases.contains(piece) {
            return true;
        }
        let Supernode::Down { fallback } = self.supernode else {
            return false;
        };
        self.now >= fallback && !(self.vouched.contains(piece) && self.parents.copies(piece) > 0)
    }

    /// Requests that have waited in vain at a parent that is avoided now are free to go elsewhere.
    fn release_demoted(&mut self) {
        let now = self.now;
        let demoted: Vec<ParentId> = self
            .parents
            .known
            .iter()
            .filter(|(_, parent)| parent.demoted(now) && !parent.outstanding.is_empty())
            .map(|(&id, _)| id)
            .collect();
        if !demoted.is_empty() {
            self.release_waiting(|parents, piece, id| {
                demoted.contains(&id)
                    && parents
                        .choose(piece, 0, URGENT, usize::MAX, now)
                        .is_some_and(|other| other != id)
            });
        }
    }

    /// Cancels requests without a byte for which `leave` says so.
    fn release_waiting(&mut self, leave: impl Fn(&Parents, PieceIndex, ParentId) -> bool) {
        let mut released = Vec::new();
        for (&piece, work) in &mut self.work {
            let parents = &self.parents;
            work.attempts.retain(|attempt| {
                let go = attempt.bytes == 0
                    && !attempt.complete
                    && leave(parents, piece, attempt.parent);
                if go {
                    released.push((piece, attempt.id, attempt.parent));
                }
                !go
            });
        }
        for (piece, attempt, parent) in released {
            if let Some(parent) = self.parents.known.get_mut(&parent) {
                parent.outstanding.remove(&attempt);
            }
            self.actions.push_back(Action::Cancel { attempt, piece });
        }
        self.drop_idle_work();
    }

    fn plan_requests(&mut self, wanted: &BTreeMap<PieceIndex, u32>) {
        let mut order: Vec<(bool, u32, usize, PieceIndex)> = wanted
            .iter()
            .filter(|(piece, _)| !self.work.get(piece).is_some_and(Work::is_busy))
            .filter(|(piece, _)| !self.runs.iter().any(|run| run.covers(**piece)))
            .map(|(&piece, &urgency)| {
                let urgent = urgency < URGENT;
                let copies = if urgent {
                    0
                } else {
                    self.parents.copies(piece)
                };
                (!urgent, if urgent { urgency } else { 0 }, copies, piece)
            })
            .collect();
        order.sort_unstable();
        let mut unsourced: Option<PieceIndex> = None;
        for (_, _, _, piece) in order {
            if self.may_ask_origin(piece) {
                continue;
            }
            let down = matches!(self.supernode, Supernode::Down { .. });
            let useless = down && !self.vouched.contains(piece);
            let parent = (!useless)
                .then(|| {
                    let limit = self.config.requests_per_parent;
                    self.parents
                        .choose(piece, self.piece_size, wanted[&piece], limit, self.now)
                })
                .flatten();
            match parent {
                Some(parent) => self.fetch(piece, parent, wanted[&piece], false),
                None => unsourced = Some(unsourced.map_or(piece, |first| first.min(piece))),
            }
        }
        match unsourced {
            Some(piece) => self.starve(piece, false),
            None if self.starving.is_some_and(|starving| {
                !wanted.contains_key(&starving.piece) || self.work.contains_key(&starving.piece)
            }) =>
            {
                self.starving = None;
            }
            None => {}
        }
        if let Supernode::Down { fallback } = self.supernode
            && self.now < fallback
        {
            self.wake_at(fallback);
        }
        // An avoided parent may be the only one: look again when it is avoided no more.
        let back = self
            .parents
            .known
            .values()
            .map(Parent::demoted_until)
            .filter(|&at| at > self.now)
            .min();
        if let (Some(at), Some(_)) = (back, unsourced) {
            self.wake_at(at);
        }
    }

    /// Nobody is known to have the piece, or who was asked does not deliver: asks the supernode,
    /// after a moment, and again with growing pauses.
    fn starve(&mut self, piece: PieceIndex, late: bool) {
        if self.supernode != Supernode::Up {
            return;
        }
        let now = self.now;
        let after = if late {
            Duration::ZERO
        } else {
            self.config.ask_after
        };
        let starving = match self.starving {
            Some(starving) if starving.piece == piece => starving,
            _ => Starving {
                piece,
                ask_at: now + after,
                pause: ASK_PAUSE,
            },
        };
        if now >= starving.ask_at {
            self.actions.push_back(Action::AskLease { piece, late });
            let pause = (starving.pause * 2).min(ASK_PAUSE_MAX);
            self.starving = Some(Starving {
                piece,
                ask_at: now + starving.pause,
                pause,
            });
            self.wake_at(now + starving.pause);
        } else {
            self.starving = Some(starving);
            self.wake_at(starving.ask_at);
        }
    }

    fn fetch(&mut self, piece: PieceIndex, parent: ParentId, urgency: u32, hedge: bool) {
        self.counter += 1;
        let attempt = AttemptId(self.counter);
        let now = self.now;
        let size = self.piece_size;
        if let Some(parent) = self.parents.known.get_mut(&parent) {
            parent.asked(attempt, size, now);
        }
        self.work.entry(piece).or_default().attempts.push(Attempt {
            id: attempt,
            parent,
            bytes: 0,
            progressed: now,
            complete: false,
        });
        self.actions.push_back(Action::Fetch {
            attempt,
            piece,
            parent,
            urgency,
            hedge,
        });
    }

    /// Looks after the pieces that readers wait for right now.
    fn hedge(&mut self) {
        let heads: BTreeMap<PieceIndex, Time> = self
            .readers
            .values()
            .filter(|window| !self.held.contains(window.base()) && window.base() < window.edge())
            .map(|window| (window.base(), window.head_since()))
            .collect();
        for (piece, since) in heads {
            let Some(work) = self.work.get(&piece) else {
                continue;
            };
            if work.run.is_some() || work.attempts.is_empty() {
                continue;
            }
            let progressed = work.attempts.iter().map(|attempt| attempt.progressed).max();
            let late_at = progressed.unwrap_or(since).max(since) + self.config.patience;
            if self.now < late_at {
                self.wake_at(late_at);
                continue;
            }
            self.late(piece);
        }
    }

    fn late(&mut self, piece: PieceIndex) {
        let now = self.now;
        let work = &self.work[&piece];
        let asked: Vec<ParentId> = work.attempts.iter().map(|attempt| attempt.parent).collect();
        let waiting_for_verdict = work.attempts.iter().any(|attempt| attempt.complete);
        if !waiting_for_verdict {
            for &parent in &asked {
                if let Some(found) = self.parents.known.get_mut(&parent)
                    && !found.demoted(now)
                {
                    found.strike(now);
                    self.actions.push_back(Action::ReportSlow { parent });
                }
            }
        }
        let second = (asked.len() < HEDGES)
            .then(|| self.parents.second(piece, self.piece_size, &asked, now))
            .flatten();
        match second {
            Some(parent) if !waiting_for_verdict => {
                self.fetch(piece, parent, 0, true);
                self.wake_at(now + self.config.patience);
            }
            _ => {
                self.starve(piece, true);
                self.wake_at(now + self.config.patience);
            }
        }
        // What else waits there should not.
        let before = self.actions.len();
        self.release_demoted();
        if self.actions.len() > before {
            self.wake_at(now);
        }
    }

    fn find(&self, attempt: AttemptId) -> Option<(PieceIndex, usize)> {
        self.work.iter().find_map(|(&piece, work)| {
            let at = work.attempts.iter().position(|found| found.id == attempt)?;
            Some((piece, at))
        })
    }

    fn remove_attempt(&mut self, piece: PieceIndex, at: usize) -> ParentId {
        let work = self
            .work
            .get_mut(&piece)
            .expect("the attempt was found in it");
        let attempt = work.attempts.remove(at);
        if let Some(parent) = self.parents.known.get_mut(&attempt.parent) {
            parent.outstanding.remove(&attempt.id);
        }
        self.drop_idle_work();
        attempt.parent
    }

    fn cancel(&mut self, piece: PieceIndex, attempt: &Attempt) {
        if let Some(parent) = self.parents.known.get_mut(&attempt.parent) {
            parent.outstanding.remove(&attempt.id);
        }
        if !attempt.complete || !self.held.contains(piece) {
            self.actions.push_back(Action::Cancel {
                attempt: attempt.id,
                piece,
            });
        }
    }

    fn drop_idle_work(&mut self) {
        self.work.retain(|_, work| work.is_busy());
    }

    fn wake_at(&mut self, at: Time) {
        self.wakeup = self.wakeup.min(at);
    }

    /// A number in [0, 1) that differs from peer to peer (SplitMix64).
    fn draw(&mut self) -> f64 {
        self.config.seed = self.config.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.config.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn check(&self) -> bool {
        self.readers
            .values()
            .all(|window| window.size() <= self.share)
            && self.work.iter().all(|(&piece, work)| {
                work.attempts.len() <= HEDGES
                    && (work.attempts.is_empty() || !self.held.contains(piece))
            })
    }
}

impl Work {
    fn is_busy(&self) -> bool {
        !self.attempts.is_empty() || self.run.is_some()
    }
}

fn run(first: PieceIndex, count: u32) -> impl Iterator<Item = PieceIndex> {
    (first.get()..first.get().saturating_add(count)).map(PieceIndex::new)
}
