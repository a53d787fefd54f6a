//! The picker against a world that does what it likes for a while and is fair after that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pantala_core::{PieceIndex, Time};
use pantala_window::{
    Action, AttemptId, Class, Config, Event, Failure, ParentId, Picker, ReaderId, RunId, WindowSize,
};
use proptest::prelude::*;

const PIECE: u64 = 1 << 20;
const PIECES: u32 = 40;
/// Actions after one event: more is a loop.
const ACTIONS_MAX: usize = 4 * PIECES as usize + 16;

fn p(n: u32) -> PieceIndex {
    PieceIndex::new(n)
}

/// What a run does.
#[derive(Debug)]
struct Run {
    at: u32,
    until: u32,
    receiving: bool,
}

/// Everything around a picker, as its driver would see it.
struct World {
    class: Class,
    picker: Picker,
    now: Time,
    share: u32,
    held: BTreeSet<u32>,
    pinned: BTreeSet<u32>,
    attempts: BTreeMap<AttemptId, (u32, ParentId, bool)>,
    runs: BTreeMap<RunId, Run>,
    leased: BTreeSet<u32>,
    vouched: BTreeSet<u32>,
    parents: BTreeMap<ParentId, BTreeSet<u32>>,
    readers: BTreeMap<ReaderId, (u32, u32)>,
    /// Readers that take nothing.
    resting: BTreeSet<ReaderId>,
    /// Pieces that were asked for and are not held yet.
    begun: BTreeSet<u32>,
    supernode: bool,
    asked_lease: Vec<u32>,
    numbers: u64,
}

impl World {
    fn new(window: WindowSize, seed: u64) -> Self {
        let config = Config {
            window,
            seed,
            ..Config::default()
        };
        let mut world = Self {
            class: Class::Foreground,
            picker: Picker::new(config, PIECE, Time::ZERO),
            now: Time::ZERO,
            share: u32::MAX,
            held: BTreeSet::new(),
            pinned: BTreeSet::new(),
            attempts: BTreeMap::new(),
            runs: BTreeMap::new(),
            leased: BTreeSet::new(),
            vouched: BTreeSet::new(),
            parents: BTreeMap::new(),
            readers: BTreeMap::new(),
            resting: BTreeSet::new(),
            begun: BTreeSet::new(),
            supernode: true,
            asked_lease: Vec::new(),
            numbers: 0,
        };
        world.tell(Event::Ended { pieces: PIECES });
        world
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn tell(&mut self, event: Event) {
        self.picker.handle(self.now, event);
        let mut actions = 0;
        while let Some(action) = self.picker.poll_action() {
            actions += 1;
            assert!(actions <= ACTIONS_MAX, "a loop");
            self.act(action);
        }
        self.check();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Fetch {
                attempt,
                piece,
                parent,
                hedge,
                ..
            } => {
                // What has begun may go on elsewhere.
                let fresh = self.begun.insert(piece.get());
                let rests = |reader| self.resting.contains(reader);
                let nobody = self.readers.keys().all(rests);
                assert!(hedge || !fresh || !nobody, "a piece begun for nobody");
                assert!(self.parents.contains_key(&parent), "a request to nobody");
                assert!(!self.held.contains(&piece.get()), "a held piece asked for");
                self.attempts.insert(attempt, (piece.get(), parent, false));
            }
            Action::Cancel { attempt, .. } => {
                self.attempts.remove(&attempt);
            }
            Action::OpenRun {
                run, first, until, ..
            } => {
                self.may_run(first.get(), until.get());
                let run_at = Run {
                    at: first.get(),
                    until: until.get(),
                    receiving: false,
                };
                assert!(self.runs.insert(run, run_at).is_none());
            }
            Action::ExtendRun { run, until } => {
                let at = self.runs[&run].at + u32::from(self.runs[&run].receiving);
                self.may_run(at, until.get());
                if let Some(run) = self.runs.get_mut(&run) {
                    run.until = until.get();
                }
            }
            Action::StopRun { run } => {
                assert!(self.runs.remove(&run).is_some(), "no such run");
            }
            Action::AskLease { piece, .. } => {
                assert!(self.supernode, "nobody is there to ask");
                self.asked_lease.push(piece.get());
            }
            Action::OfferLease { first, .. } => {
                // A lease to the end goes beyond the content whose end is not known yet.
                let own = first.get() >= PIECES || self.leased.contains(&first.get());
                assert!(own, "{first} is not its to offer");
            }
            Action::ReturnLease { first, end } | Action::BlameOrigin { first, end } => {
                let end = end.map_or(PIECES, PieceIndex::get);
                self.leased
                    .retain(|piece| !(first.get()..end).contains(piece));
            }
            Action::Pin { piece } => {
                assert!(self.pinned.insert(piece.get()), "pinned twice");
            }
            Action::Unpin { piece } => {
                assert!(self.pinned.remove(&piece.get()), "not pinned");
            }
            Action::ReportSlow { parent } => assert!(self.parents.contains_key(&parent)),
            Action::GiveUp => {}
        }
    }

    /// The origin is asked under a lease only, or when the supernode is lost.
    fn may_run(&self, from: u32, until: u32) {
        let leased = (from..until).all(|piece| self.leased.contains(&piece));
        assert!(leased || !self.supernode, "the origin without a lease");
    }

    fn check(&self) {
        let snapshot = self.picker.snapshot();
        let (mut allowed, mut needed) = (BTreeSet::new(), BTreeSet::new());
        for &(reader, base, size, _) in &snapshot.windows {
            assert!(size <= self.share, "a window larger than its share");
            assert_eq!(base.get(), self.readers[&reader].0, "a base of its own");
            allowed.extend(base.get()..base.get() + size);
            if !self.resting.contains(&reader) {
                needed.extend(base.get()..base.get() + size);
            }
        }
        let mut asked: BTreeMap<u32, usize> = BTreeMap::new();
        for (piece, ..) in self.attempts.values() {
            *asked.entry(*piece).or_default() += 1;
        }
        for (piece, times) in asked {
            assert!(times <= 2, "piece {piece} asked for {times} times");
            assert!(allowed.contains(&piece), "piece {piece} is in no window");
        }
        assert!(self.pinned.is_subset(&needed), "memory is kept for nobody");
    }

    fn seal(&mut self, piece: u32) {
        if !self.held.insert(piece) {
            return;
        }
        self.leased.remove(&piece);
        self.begun.remove(&piece);
        self.attempts
            .retain(|_, (of, _, complete)| *of != piece || !*complete);
        for run in self.runs.values_mut().filter(|run| run.at == piece) {
            run.at += 1;
            run.receiving = false;
        }
        self.tell(Event::Sealed { piece: p(piece) });
        assert!(
            self.attempts.values().all(|(of, ..)| *of != piece),
            "a held piece is still asked for"
        );
        self.read();
    }

    /// Every reader takes what is there, in order.
    fn read(&mut self) {
        for reader in self.readers.keys().copied().collect::<Vec<_>>() {
            if self.resting.contains(&reader) {
                continue;
            }
            while let Some(&(next, end)) = self.readers.get(&reader)
                && next < end
                && self.held.contains(&next)
            {
                self.readers.insert(reader, (next + 1, end));
                self.tell(Event::ReaderTook {
                    reader,
                    next: p(next + 1),
                });
            }
        }
    }

    /// One of the things that happen, drawn by `what` and `n`.
    fn happen(&mut self, what: u8, n: u32) {
        let nth = |len: usize| n as usize % len.max(1);
        let attempt = self.attempts.keys().copied().nth(nth(self.attempts.len()));
        let parent = self.parents.keys().copied().nth(nth(self.parents.len()));
        let run = self.runs.keys().copied().nth(nth(self.runs.len()));
        let piece = n % PIECES;
        match what {
            0 => self.open(piece, n),
            1 => {
                if let Some(reader) = self.readers.keys().copied().nth(nth(self.readers.len())) {
                    self.readers.remove(&reader);
                    self.resting.remove(&reader);
                    self.tell(Event::ReaderClosed { reader });
                }
            }
            2 => self.parent_up(),
            3 => {
                if let Some(parent) = parent {
                    self.parent_down(parent);
                }
            }
            4 => self.holds(parent, piece, 1 + n / 7 % 20),
            5 => {
                if let Some(parent) = parent {
                    self.tell(Event::ParentReceiving {
                        parent,
                        piece: p(piece),
                    });
                }
            }
            6 => {
                if let Some(parent) = parent {
                    self.parents.entry(parent).or_default().remove(&piece);
                    self.tell(Event::ParentLost {
                        parent,
                        first: p(piece),
                        count: 1,
                    });
                }
            }
            7 => {
                let stripes = 1 + n as usize % 3;
                let stripes = (0..stripes)
                    .map(|i| {
                        self.parents
                            .keys()
                            .copied()
                            .nth(nth(self.parents.len()) + i)
                    })
                    .collect();
                self.tell(Event::Preferred { stripes });
            }
            8 => self.lease(
                piece,
                (!n.is_multiple_of(3)).then_some(piece + 1 + n / 3 % 9),
            ),
            9 => {
                self.leased.retain(|&leased| leased < piece);
                self.tell(Event::LeaseEnded {
                    first: p(piece),
                    end: None,
                });
            }
            10 => {
                self.supernode = !self.supernode;
                self.tell(if self.supernode {
                    Event::SupernodeUp
                } else {
                    Event::SupernodeDown
                });
            }
            11 => self.vouch(piece, 1 + n / 5 % 10),
            12 => {
                if let Some(attempt) = attempt {
                    let bytes = u64::from(n) % PIECE;
                    self.tell(Event::Progress { attempt, bytes });
                }
            }
            13 | 14 => self.fetched(attempt),
            15 => self.failed(attempt, n),
            16 => {
                if let Some(attempt) = attempt
                    && let Some((_, _, true)) = self.attempts.get(&attempt)
                {
                    self.attempts.remove(&attempt);
                    self.tell(Event::Corrupt { attempt });
                }
            }
            17 | 18 => self.run_on(run),
            19 => {
                if let Some(run) = run {
                    self.runs.remove(&run);
                    let (fatal, rest) = (false, Duration::ZERO);
                    self.tell(Event::RunFailed { run, fatal, rest });
                    if n.is_multiple_of(3) {
                        self.tell(Event::OriginFailed);
                    }
                }
            }
            20 => {
                let free: Vec<u32> = self.held.difference(&self.pinned).copied().collect();
                if let Some(&piece) = free.get(nth(free.len())) {
                    self.held.remove(&piece);
                    self.tell(Event::Evicted { piece: p(piece) });
                }
            }
            21 => {
                self.share = 1 + n % 20;
                self.tell(Event::Share { pieces: self.share });
            }
            22 => {
                let class = [Class::Foreground, Class::Background, Class::Paused][nth(3)];
                self.class = class;
                self.tell(Event::Class(class));
            }
            23 => {
                if let Some(reader) = self.readers.keys().copied().nth(nth(self.readers.len())) {
                    self.rest(reader, !self.resting.contains(&reader));
                }
            }
            _ => {
                self.now = self.now + Duration::from_millis(u64::from(n % 400));
                self.tell(Event::Tick);
            }
        }
        self.read();
    }

    fn open(&mut self, first: u32, n: u32) {
        if self.readers.len() < 3 {
            let reader = ReaderId(self.number());
            let end = if n.is_multiple_of(2) {
                PIECES
            } else {
                (first + 1 + n / 2 % PIECES).min(PIECES)
            };
            self.readers.insert(reader, (first, end));
            self.tell(Event::ReaderOpened {
                reader,
                first: p(first),
                end: Some(p(end)),
            });
        }
    }

    /// A reader stops taking, or goes on.
    fn rest(&mut self, reader: ReaderId, rests: bool) {
        match rests {
            true => self.resting.insert(reader),
            false => self.resting.remove(&reader),
        };
        self.tell(Event::ReaderRests { reader, rests });
    }

    fn parent_up(&mut self) {
        let parent = ParentId(self.number());
        self.parents.insert(parent, BTreeSet::new());
        self.tell(Event::ParentUp { parent });
    }

    fn parent_down(&mut self, parent: ParentId) {
        self.parents.remove(&parent);
        self.attempts
            .retain(|_, (_, of, complete)| *of != parent || *complete);
        self.tell(Event::ParentDown { parent });
    }

    fn holds(&mut self, parent: Option<ParentId>, first: u32, count: u32) {
        let Some(parent) = parent else { return };
        let count = count.min(PIECES - first);
        if let Some(held) = self.parents.get_mut(&parent) {
            held.extend(first..first + count);
        }
        self.tell(Event::ParentHolds {
            parent,
            first: p(first),
            count,
        });
    }

    fn lease(&mut self, first: u32, end: Option<u32>) {
        if self.supernode {
            self.leased.extend(first..end.unwrap_or(PIECES).min(PIECES));
            self.tell(Event::LeaseGranted {
                first: p(first),
                end: end.map(p),
            });
        }
    }

    fn vouch(&mut self, first: u32, count: u32) {
        let count = count.min(PIECES - first);
        self.vouched.extend(first..first + count);
        self.tell(Event::Vouched {
            first: p(first),
            count,
        });
        for piece in first..first + count {
            let complete = |&(of, _, complete): &(u32, ParentId, bool)| of == piece && complete;
            if self.attempts.values().any(complete) {
                self.seal(piece);
            }
        }
    }

    fn fetched(&mut self, attempt: Option<AttemptId>) {
        let Some(attempt) = attempt else { return };
        let Some((piece, _, complete)) = self.attempts.get_mut(&attempt) else {
            return;
        };
        let piece = *piece;
        if std::mem::replace(complete, true) {
            return;
        }
        self.tell(Event::Fetched {
            attempt,
            bytes: PIECE,
        });
        if self.vouched.contains(&piece) {
            self.seal(piece);
        }
    }

    fn failed(&mut self, attempt: Option<AttemptId>, n: u32) {
        let failure = [Failure::NotHere, Failure::Busy, Failure::Gone][n as usize % 3];
        if let Some(attempt) = attempt
            && let Some((_, _, false)) = self.attempts.get(&attempt)
        {
            self.attempts.remove(&attempt);
            self.tell(Event::Failed { attempt, failure });
        }
    }

    /// A run begins its next piece, or completes the one it is at.
    fn run_on(&mut self, run: Option<RunId>) {
        let Some(run) = run else { return };
        let Some(at) = self.runs.get_mut(&run) else {
            return;
        };
        if at.receiving {
            let piece = at.at;
            self.seal(piece);
        } else if at.at < at.until {
            at.receiving = true;
            let piece = p(at.at);
            self.tell(Event::RunAt { run, piece });
        }
    }

    /// From now on everybody keeps his word: all readers must finish.
    fn be_fair(&mut self, supernode: bool) {
        if self.supernode != supernode {
            self.happen(10, 0);
        }
        // The others have gone; who has been told nothing of classes is not told now.
        if self.class != Class::Foreground {
            self.tell(Event::Class(Class::Background));
        }
        for reader in self.resting.clone() {
            self.rest(reader, false);
        }
        self.read();
        for _ in 0..3000 {
            if self.readers.values().all(|&(next, end)| next >= end) {
                return;
            }
            self.fair_round();
        }
        panic!(
            "a reader starves: {:?}, attempts {:?}, runs {:?}, leased {:?}, supernode {}, {:?}",
            self.readers,
            self.attempts,
            self.runs,
            self.leased,
            self.supernode,
            self.picker.snapshot()
        );
    }

    fn fair_round(&mut self) {
        for attempt in self.attempts.keys().copied().collect::<Vec<_>>() {
            let Some(&(piece, parent, complete)) = self.attempts.get(&attempt) else {
                continue;
            };
            let has = self
                .parents
                .get(&parent)
                .is_some_and(|held| held.contains(&piece));
            if complete && self.supernode {
                self.vouch(piece, 1);
            } else if has {
                self.fetched(Some(attempt));
            } else if !complete {
                self.failed(Some(attempt), 0);
            }
        }
        for run in self.runs.keys().copied().collect::<Vec<_>>() {
            self.run_on(Some(run));
        }
        for piece in std::mem::take(&mut self.asked_lease) {
            if !self.held.contains(&piece) {
                self.lease(piece, Some(piece + 1));
            }
        }
        let wake = self.picker.next_wakeup().unwrap_or(self.now);
        let later = self.now + Duration::from_millis(1);
        self.now = wake.clamp(later, later + Duration::from_secs(5));
        self.tell(Event::Tick);
        self.read();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_fair_world_feeds_every_reader(
        seed in any::<u64>(),
        adaptive in any::<bool>(),
        up in any::<bool>(),
        happenings in prop::collection::vec((0u8..26, any::<u32>()), 0..250),
    ) {
        let window = if adaptive {
            WindowSize::Adaptive { min: 2, max: 16 }
        } else {
            WindowSize::Static(8)
        };
        let mut world = World::new(window, seed);
        world.happen(0, 0);
        for (what, n) in happenings {
            world.happen(what, n >> 3);
        }
        world.be_fair(up);
    }
}
