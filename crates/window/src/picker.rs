use std::{collections::VecDeque, time::Duration};

use pantala_core::{Flat, PieceIndex, PieceSet, Time};

use crate::{
    Action, AttemptId, Class, Config, Event, ParentId, PieceRanges, ReaderId, Window,
    attempts::HEDGES,
    parents::{Parent, Parents},
    pins::Pins,
    requests::{Ask, HedgeCredit},
    runs::Run,
    wanted::Wanted,
    work::Work,
};

/// The brain of one task on one peer. See the crate's documentation.
#[derive(Debug)]
pub struct Picker {
    pub(crate) config: Config,
    pub(crate) piece_size: u64,
    pub(crate) now: Time,
    /// The piece after the last, when known.
    pub(crate) end: Option<PieceIndex>,
    pub(crate) held: PieceSet,
    pub(crate) readers: Flat<ReaderId, Window>,
    pub(crate) share: u32,
    pub(crate) work: Flat<PieceIndex, Work>,
    /// The piece each request is for.
    pub(crate) attempts: Flat<AttemptId, PieceIndex>,
    pub(crate) parents: Parents,
    pub(crate) leases: PieceRanges,
    pub(crate) vouched: PieceRanges,
    pub(crate) runs: Vec<Run>,
    pub(crate) supernode: Supernode,
    pub(crate) class: Class,
    pub(crate) paused_since: Time,
    /// What the supernode is asked for, or soon will be.
    pub(crate) asks: Flat<PieceIndex, Ask>,
    /// Pieces of which everybody who has them delivers nothing, while there is no supernode.
    pub(crate) desperate: PieceSet,
    /// Pieces that somebody was asked for in vain.
    pub(crate) tried: PieceSet,
    /// Second requests that may be made: what did not help is not done often.
    pub(crate) hedges: HedgeCredit,
    /// How long a piece usually takes to come after the one before, from whomever.
    pub(crate) usual: Duration,
    /// When the last one came.
    pub(crate) last_came: Time,
    /// When bytes last came from any parent.
    pub(crate) last_byte: Time,
    pub(crate) origin_failures: u32,
    pub(crate) origin_rest_until: Time,
    pub(crate) counter: u64,
    pub(crate) wakeup: Time,
    /// Something happened that there may be something to decide about.
    due: bool,
    /// A head piece may be late sooner than thought; nothing else is to be decided.
    pub(crate) glance: bool,
    /// Some piece may be asked of another than the preferred parent.
    pub(crate) strayed: bool,
    /// Kept from plan to plan for its memory.
    wanted: Wanted,
    pins: Pins,
    pub(crate) actions: VecDeque<Action>,
}

/// The most ranges that a peer claims at once: more than a few make no sense, and messages have a bound.
const CLAIMS_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Supernode {
    Up,
    /// Lost; the origin may be asked from `fallback` on.
    Down {
        fallback: Time,
    },
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
            readers: Flat::new(),
            share: u32::MAX,
            work: Flat::new(),
            attempts: Flat::new(),
            parents: Parents::default(),
            leases: PieceRanges::new(),
            vouched: PieceRanges::new(),
            runs: Vec::new(),
            supernode: Supernode::Up,
            class: Class::Foreground,
            paused_since: Time::ZERO,
            asks: Flat::new(),
            desperate: PieceSet::new(),
            tried: PieceSet::new(),
            hedges: HedgeCredit::new(now),
            usual: Duration::ZERO,
            last_came: now,
            last_byte: now,
            origin_failures: 0,
            origin_rest_until: Time::ZERO,
            counter: 0,
            wakeup: Time::NEVER,
            due: false,
            glance: false,
            strayed: false,
            wanted: Wanted::default(),
            pins: Pins::default(),
            actions: VecDeque::new(),
        }
    }

    /// Something happened at `now`, which must not lie before any earlier call's. Take the
    /// decisions with [`Picker::poll_action`] until there are none. They are made then: who tells
    /// of several things that happened at once before it asks is spared deciding for each.
    pub fn handle(&mut self, now: Time, event: Event) {
        debug_assert!(now >= self.now, "time runs backwards");
        self.now = now.max(self.now);
        self.due |= self.note(event);
        debug_assert!(self.check());
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.due || (std::mem::take(&mut self.glance) && self.is_late()) {
            (self.due, self.glance) = (false, false);
            self.plan();
            debug_assert!(self.check());
        }
        self.actions.pop_front()
    }

    /// When to send [`Event::Tick`] if nothing else happens before. To be asked once there are no
    /// more actions.
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

    /// Whether a reader's window has the piece.
    pub fn wants(&self, piece: PieceIndex) -> bool {
        let mut windows = self.readers.values();
        windows.any(|window| window.base() <= piece && piece < window.edge())
    }

    /// What this peer fetches from the origin, or may: what it has leases for, and what transfers that
    /// began without a lease go on with. A supernode that does not know of it must be told.
    pub fn claims(&self) -> Vec<(PieceIndex, Option<PieceIndex>)> {
        let mut claims = self.leases.clone();
        for run in &self.runs {
            claims.insert(run.next, run.goal);
        }
        claims.iter().take(CLAIMS_MAX).collect()
    }

    /// Where the next decision will read beside the picker itself. For who drives so many pickers that
    /// hardly any is in the processor's cache: what is on its way there before it is needed costs
    /// nothing. Nothing is read here but the picker.
    pub fn places(&self, mut place: impl FnMut(*const u8)) {
        self.readers.place().into_iter().for_each(&mut place);
        self.attempts.place().into_iter().for_each(&mut place);
        if let Some(work) = self.work.place() {
            place(work);
            place(work.wrapping_add(64));
        }
        if let Some(parents) = self.parents.known.place() {
            (0..4).for_each(|line| place(parents.wrapping_add(line * 64)));
        }
        place(self.held.place());
    }

    /// The same for news of what a parent has.
    pub fn places_for_news(&self, mut place: impl FnMut(*const u8)) {
        self.places(&mut place);
        if let Some(parents) = self.parents.known.place() {
            let bytes = size_of::<(ParentId, Parent)>() * self.parents.known.len();
            (4..bytes.div_ceil(64)).for_each(|line| place(parents.wrapping_add(line * 64)));
        }
    }

    /// For the operator's page.
    pub fn snapshot(&self) -> Snapshot {
        let window = |(reader, window): (ReaderId, &Window)| {
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

    /// Decides everything anew. Costs the windows' pieces, and the parents for each that is asked for.
    fn plan(&mut self) {
        self.wakeup = Time::NEVER;
        let mut wanted = std::mem::take(&mut self.wanted);
        let plain = self.is_plain();
        match plain {
            true => self.want_unasked(&mut wanted),
            false => self.want(&mut wanted),
        }
        self.pin();
        if !plain {
            self.cancel_unwanted(&wanted);
        }
        self.return_unneeded();
        self.return_paused();
        self.watch_heads(true);
        self.release_stalled();
        if self.minds_origin() {
            self.plan_runs(&wanted);
        }
        let asked = self.work.len();
        self.release_demoted();
        if plain && self.work.len() < asked {
            self.want_unasked(&mut wanted);
        }
        self.hasten_left_behind();
        self.plan_requests(&wanted);
        if !self.asks.is_empty() {
            if plain {
                self.want(&mut wanted);
            }
            // What came or is not wanted any more needs no lease.
            self.asks.retain(|piece, _| wanted.contains_key(&piece));
        }
        self.watch_heads(false);
        self.wanted = wanted;
    }

    /// Whether the origin may have to be asked, or not any more.
    fn minds_origin(&self) -> bool {
        !self.leases.is_empty()
            || !self.runs.is_empty()
            || self.supernode != Supernode::Up
            || self.now < self.origin_rest_until
    }

    /// Whether all that is under way is wanted, and only parents are asked: then nothing is to be
    /// decided but whom to ask for what nobody is asked for.
    fn is_plain(&self) -> bool {
        let mut windows = self.readers.values();
        let (Some(window), None) = (windows.next(), windows.next()) else {
            return false;
        };
        let within = |(low, high)| window.base() <= low && high < window.edge();
        self.class != Class::Paused
            && !window.rests()
            && !self.minds_origin()
            && self.work.ends().is_none_or(within)
    }

    /// Finds what the windows lack.
    fn want(&self, wanted: &mut Wanted) {
        wanted.clear();
        for window in self.readers.values() {
            // What has begun to come is let come.
            let begun_only = self.class == Class::Paused || window.rests();
            for (distance, piece) in window.pieces().enumerate() {
                let under_way = || self.work.get(piece).is_some_and(Work::is_busy);
                if !self.held.contains(piece) && (!begun_only || under_way()) {
                    wanted.add(piece, distance as u32);
                }
            }
        }
    }

    /// Where all is plain: finds what the window lacks and nobody is asked for. That is mostly at its
    /// end.
    fn want_unasked(&self, wanted: &mut Wanted) {
        wanted.clear();
        for window in self.readers.values() {
            let (base, edge) = (window.base(), window.edge());
            let held = self.held.count(base, edge) as usize;
            let lacks = window.pieces().len().saturating_sub(held);
            let unasked = lacks.saturating_sub(self.work.len());
            let pieces = window.pieces().rev();
            let pieces = pieces.filter(|&piece| !self.held.contains(piece));
            let pieces = pieces.filter(|&piece| !self.work.contains(piece));
            let distance = |piece: PieceIndex| piece.get() - base.get();
            wanted.put(pieces.take(unasked).map(|piece| (piece, distance(piece))));
        }
    }

    fn pin(&mut self) {
        let windows = self.readers.values();
        let spans = windows.map(Window::kept);
        let actions = &mut self.actions;
        self.pins.follow(spans, |piece, pin| {
            actions.push_back(match pin {
                true => Action::Pin { piece },
                false => Action::Unpin { piece },
            });
        });
    }

    pub(crate) fn wake_at(&mut self, at: Time) {
        self.wakeup = self.wakeup.min(at);
    }

    /// A number in [0, 1) that differs from peer to peer (SplitMix64).
    pub(crate) fn draw(&mut self) -> f64 {
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
            && self.work.iter().all(|(piece, work)| {
                work.attempts.len() <= self.config.hedges.min(HEDGES)
                    && (work.attempts.is_empty() || !self.held.contains(piece))
            })
            && self.attempts.len()
                == self
                    .work
                    .values()
                    .map(|work| work.attempts.len())
                    .sum::<usize>()
    }
}
