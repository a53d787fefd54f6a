use std::time::Duration;

use pantala_core::{Flat, PieceIndex, Time};

use crate::{ParentId, attempts::Attempt, requests::URGENT, stock::Stock};

/// What is known of one parent.
#[derive(Debug)]
pub(crate) struct Parent {
    /// What it has of which piece.
    pub stock: Stock,
    /// Requests to it that are not complete.
    requests: u32,
    /// Bytes that they still have to bring.
    outstanding: u64,
    /// Bytes a second while requests were under way; `None` until measured.
    rate: Option<f64>,
    /// When it last completed a piece for us, or became busy.
    busy_since: Time,
    /// When bytes last came from it while more were to come.
    heard: Time,
    /// How long its pauses between bytes are lately.
    hush: Duration,
    strikes: u32,
    /// Pieces of it that were wrong.
    corrupt: u32,
    demoted_since: Time,
    demoted_until: Time,
}

/// The rate a parent is taken to have before it was measured: a link of 200 Mbit/s.
const UNMEASURED: f64 = 25e6;
/// How long a parent is avoided after it was late once; doubles with each further time.
const FIRST_DEMOTION: Duration = Duration::from_millis(500);
const STRIKES_MAX: u32 = 6;

impl Parent {
    pub fn new(now: Time) -> Self {
        Self {
            stock: Stock::default(),
            requests: 0,
            outstanding: 0,
            rate: None,
            busy_since: now,
            heard: now,
            hush: Duration::ZERO,
            strikes: 0,
            corrupt: 0,
            demoted_since: Time::ZERO,
            demoted_until: Time::ZERO,
        }
    }

    /// Whether it has the whole piece.
    pub fn holds(&self, piece: PieceIndex) -> bool {
        self.stock.holds(piece)
    }

    /// Whether it has the piece or the beginning of it.
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.stock.has(piece)
    }

    /// Whether requests to it are under way.
    pub fn is_asked(&self) -> bool {
        self.requests > 0
    }

    /// Whether it should be left alone for now.
    pub fn demoted(&self, now: Time) -> bool {
        now < self.demoted_until
    }

    /// Since when it is left alone.
    pub fn demoted_since(&self) -> Time {
        self.demoted_since
    }

    /// Seconds until it would have delivered what waits there and `bytes` more.
    pub fn queue(&self, bytes: u64) -> f64 {
        (self.outstanding + bytes) as f64 / self.rate.unwrap_or(UNMEASURED)
    }

    /// Whether both were measured and it delivers less than half of what the other does.
    fn is_slower(&self, other: &Parent) -> bool {
        match (self.rate, other.rate) {
            (Some(own), Some(other)) => own < 0.5 * other,
            _ => false,
        }
    }

    /// Bytes came from it.
    pub fn heard(&mut self, now: Time) {
        let pause = now.since(self.heard.max(self.busy_since));
        self.hush = self.hush.mul_f64(0.8) + pause.mul_f64(0.2);
        self.heard = now;
    }

    /// How long it usually pauses between bytes.
    pub fn hush(&self) -> Duration {
        self.hush
    }

    /// It is asked for a piece of so many bytes.
    pub fn asked(&mut self, bytes: u64, now: Time) {
        if self.requests == 0 {
            self.busy_since = now;
        }
        self.requests += 1;
        self.outstanding += bytes;
    }

    /// What a request has to bring, `before`, became `left`.
    pub fn brought(&mut self, before: u64, left: u64) {
        self.outstanding = (self.outstanding + left).saturating_sub(before);
    }

    /// A request is not under way any more, if it was.
    pub fn ended(&mut self, attempt: &Attempt, size: u64) {
        if !attempt.complete {
            self.requests = self.requests.saturating_sub(1);
            self.outstanding = self.outstanding.saturating_sub(attempt.left(size));
        }
    }

    /// A request brought all its bytes.
    pub fn delivered(&mut self, bytes: u64, now: Time) {
        self.heard(now);
        let took = now.since(self.busy_since).as_secs_f64().max(1e-4);
        let rate = bytes as f64 / took;
        self.rate = Some(self.rate.map_or(rate, |old| 0.7 * old + 0.3 * rate));
        self.busy_since = now;
        self.strikes = self.strikes.saturating_sub(1);
    }

    /// It was late or wrong: avoided for a while, longer each time, never for ever.
    pub fn strike(&mut self, now: Time) {
        self.strikes = (self.strikes + 1).min(STRIKES_MAX);
        self.avoid(now, FIRST_DEMOTION * (1 << (self.strikes - 1)));
    }

    /// It sent wrong bytes. The first time it may only have passed on what it could not check yet.
    pub fn lied(&mut self, now: Time) {
        self.corrupt += 1;
        if self.corrupt > 3 {
            self.strike(now);
        }
    }

    /// Avoided for so long, without blame.
    pub fn avoid(&mut self, now: Time, time: Duration) {
        if !self.demoted(now) {
            self.demoted_since = now;
        }
        self.demoted_until = self.demoted_until.max(now + time);
    }
}

/// All parents there is a link to.
#[derive(Debug, Default)]
pub(crate) struct Parents {
    pub known: Flat<ParentId, Parent>,
    pub preferred: Vec<Option<ParentId>>,
    /// From then on nobody is avoided.
    rested: Time,
}

impl Parents {
    /// The preferred parent of the stripe that the piece is of.
    pub fn preferred(&self, piece: PieceIndex) -> Option<ParentId> {
        if self.preferred.is_empty() {
            return None;
        }
        self.preferred[piece.get() as usize % self.preferred.len()]
    }

    /// A parent may be avoided after what `judge` does.
    pub fn judge(&mut self, id: ParentId, judge: impl FnOnce(&mut Parent)) {
        if let Some(parent) = self.known.get_mut(id) {
            judge(parent);
            self.rested = self.rested.max(parent.demoted_until);
        }
    }

    /// Whether any parent is avoided.
    pub fn any_demoted(&self, now: Time) -> bool {
        now < self.rested && self.known.values().any(|parent| parent.demoted(now))
    }

    /// When the next one that is avoided is avoided no more.
    pub fn next_rested(&self, now: Time) -> Option<Time> {
        let avoided = self.known.values().filter(|parent| parent.demoted(now));
        avoided.map(|parent| parent.demoted_until).min()
    }

    /// How many parents have the piece or its beginning.
    pub fn copies(&self, piece: PieceIndex) -> usize {
        self.known
            .values()
            .filter(|parent| parent.has(piece))
            .count()
    }

    /// Whom to ask for a piece that nobody is asked for yet. The preferred parent of its stripe
    /// comes first, unless it was late, will never have the piece, or is far slower than a parent
    /// that holds it already; then the holder with the shortest queue. `None` when nobody
    /// is known to have it.
    pub fn choose(
        &self,
        piece: PieceIndex,
        bytes: u64,
        urgency: u32,
        limit: usize,
        now: Time,
    ) -> Option<ParentId> {
        let usable = |parent: &Parent| !parent.demoted(now) && (parent.requests as usize) < limit;
        let preferred = self
            .preferred(piece)
            .and_then(|id| Some((id, self.known.get(id)?)));
        let preferred =
            preferred.filter(|(_, parent)| usable(parent) && !parent.stock.lacks(piece));
        let holder = self.quickest(|_, parent| usable(parent) && parent.holds(piece), bytes);
        match (preferred, holder) {
            (Some((id, parent)), Some((holder, _))) if parent.holds(piece) => {
                // Who else has it has children of his own: leaving the tree takes from them, and
                // is only worth it where the preferred parent is known to be slow.
                let slower = self.known.get(holder);
                let slower = slower.is_some_and(|better| parent.is_slower(better));
                Some(if slower { holder } else { id })
            }
            // The reader needs it now: who has it comes before who will have it.
            (Some((_, parent)), Some((holder, _))) if urgency < URGENT && !parent.has(piece) => {
                Some(holder)
            }
            (Some((id, _)), _) => Some(id),
            (None, Some((holder, _))) => Some(holder),
            (None, None) => self
                .quickest(
                    |_, parent| usable(parent) && parent.stock.receives(piece),
                    bytes,
                )
                .map(|(id, _)| id)
                .or_else(|| self.last_resort(piece, bytes, limit)),
        }
    }

    /// Whether somebody who is not avoided has or should get the piece.
    pub fn has_better(&self, piece: PieceIndex, bytes: u64, limit: usize, now: Time) -> bool {
        self.choose(piece, bytes, URGENT, limit, now)
            .and_then(|id| self.known.get(id))
            .is_some_and(|parent| !parent.demoted(now))
    }

    /// A parent that was late is better than none.
    fn last_resort(&self, piece: PieceIndex, bytes: u64, limit: usize) -> Option<ParentId> {
        self.quickest(
            |_, parent| parent.has(piece) && (parent.requests as usize) < limit,
            bytes,
        )
        .map(|(id, _)| id)
    }

    /// Whom to ask a second time: somebody who has the piece, is not late himself and is not among
    /// those already asked.
    pub fn second(
        &self,
        piece: PieceIndex,
        bytes: u64,
        asked: &[ParentId],
        now: Time,
    ) -> Option<ParentId> {
        let may = |id: ParentId, parent: &Parent| !asked.contains(&id) && !parent.demoted(now);
        self.quickest(|id, parent| may(id, parent) && parent.holds(piece), bytes)
            .or_else(|| {
                self.quickest(
                    |id, parent| may(id, parent) && parent.stock.receives(piece),
                    bytes,
                )
            })
            .map(|(id, _)| id)
    }

    /// Whether somebody holds the piece who was not asked for it and is not avoided.
    pub fn another_holds(&self, piece: PieceIndex, asked: &[ParentId], now: Time) -> bool {
        self.known
            .iter()
            .any(|(id, parent)| !asked.contains(&id) && !parent.demoted(now) && parent.holds(piece))
    }

    fn quickest(
        &self,
        may: impl Fn(ParentId, &Parent) -> bool,
        bytes: u64,
    ) -> Option<(ParentId, f64)> {
        self.known
            .iter()
            .filter(|(id, parent)| may(*id, parent))
            .map(|(id, parent)| (id, parent.queue(bytes)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
    }
}
