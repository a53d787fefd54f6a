//! What one child has asked for, and how far each request is.
//!
//! This file must not know which request is served next, nor write anything.

use pantala_core::{PieceIndex, TaskId};
use pantala_store::Claim;
use pantala_wire::link::BACKGROUND;
use tokio::time::Instant;

use super::{
    news::{Followed, News, UNKNOWN_TASK},
    slots::Slot,
};
use crate::{metrics::Level, task::Awaited};

/// Requests one child may have waiting; more are refused as busy.
pub(super) const REQUESTS: usize = 256;

/// What one child has asked for. Each request is in exactly one state, and all transitions are methods here:
///
/// ```text
///            discover                begin                said                written
/// awaiting ───────────▶ awaiting ◀───────────▶ being ──────────────▶ said ────────────▶ gone
///   task   ◀───────────  bytes       rest       sent
///             lose
///                  (cancelled, refused, or its task unfollowed: gone)
/// ```
///
/// 1. A request awaits its task exactly as long as the child's news do not know the task.
/// 2. One request at most is being sent: it has the child's slot at the uplink.
/// 3. Of a request that awaits its task nothing is kept at the task: no claim, and nobody awaits the piece.
/// 4. Only a request of the foreground is counted at its task among those that await bytes, from the moment at which
///    it is asked.
/// 5. There are never more than [`REQUESTS`], those that are said aside.
/// 6. A request counts as open until its last word has been written: who waits until all are served waits for
///    that too.
#[derive(Default)]
pub(super) struct Requests {
    open: Vec<Request>,
    /// Those whose last word waits to be written.
    said: Vec<Level>,
}

/// A child's request for one piece.
pub(super) struct Request {
    pub number: u32,
    pub task: TaskId,
    pub piece: PieceIndex,
    sent: usize,
    urgency: u32,
    since: Instant,
    state: State,
    level: Level,
}

enum State {
    AwaitingTask,
    AwaitingBytes(Interest),
    BeingSent(Interest, Slot),
}

/// What a request keeps at its task.
struct Interest {
    /// Keeps the piece here as long as that is possible.
    _claim: Claim,
    /// Says there that a reader waits for bytes that are not here yet.
    awaited: Option<Awaited>,
}

impl Request {
    /// A request as it was asked, `offset` bytes of which the child has.
    pub fn new(
        (number, task, piece): (u32, TaskId, PieceIndex),
        offset: usize,
        urgency: u32,
        level: Level,
    ) -> Self {
        Self {
            number,
            task,
            piece,
            sent: offset,
            urgency,
            since: Instant::now(),
            state: State::AwaitingTask,
            level,
        }
    }

    /// Up to which of its bytes the child has the piece, or will have when all is written.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// So many bytes more are on their way to the child.
    pub fn advance(&mut self, bytes: usize) {
        debug_assert!(matches!(self.state, State::BeingSent(..)), "it has no slot");
        self.sent += bytes;
    }

    pub fn is_background(&self) -> bool {
        self.urgency & BACKGROUND != 0
    }

    pub fn awaits_task(&self) -> bool {
        matches!(self.state, State::AwaitingTask)
    }

    /// When it has waited too long for its task to come, if it waits for that.
    fn patience(&self) -> Option<Instant> {
        self.awaits_task().then(|| self.since + UNKNOWN_TASK)
    }

    /// The slot at the uplink, while it is being sent.
    pub fn slot(&mut self) -> Option<&mut Slot> {
        match &mut self.state {
            State::BeingSent(_, slot) => Some(slot),
            State::AwaitingTask | State::AwaitingBytes(_) => None,
        }
    }

    /// Says at its task whether a reader waits for the rest of the piece, if there is more to come.
    pub fn awaits(&mut self, followed: &Followed, more: bool) {
        let awaits = more && !self.is_background();
        let interest = match &mut self.state {
            State::AwaitingBytes(interest) | State::BeingSent(interest, _) => interest,
            State::AwaitingTask => return,
        };
        if awaits != interest.awaited.is_some() {
            interest.awaited = awaits.then(|| Awaited::new(&followed.handle, self.piece));
        }
    }

    fn await_rest(&mut self, followed: &Followed) {
        let all = followed.present(self.piece).is_some_and(|(_, all)| all);
        self.awaits(followed, !all);
    }

    fn discover(&mut self, followed: &Followed) {
        if self.awaits_task() {
            self.state = State::AwaitingBytes(Interest {
                _claim: followed.handle.pieces.claim(self.piece),
                awaited: None,
            });
            self.await_rest(followed);
        }
    }

    fn begin(&mut self, slot: Slot) {
        debug_assert!(!self.awaits_task(), "there are no bytes of it");
        self.state = match std::mem::replace(&mut self.state, State::AwaitingTask) {
            State::AwaitingBytes(interest) | State::BeingSent(interest, _) => {
                State::BeingSent(interest, slot)
            }
            State::AwaitingTask => State::AwaitingTask,
        };
    }

    fn rest(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::AwaitingTask) {
            State::BeingSent(interest, _) => State::AwaitingBytes(interest),
            other => other,
        };
    }
}

impl Requests {
    /// Whether no more are taken.
    pub fn is_full(&self) -> bool {
        self.open.len() >= REQUESTS
    }

    /// Whether nothing is left to be done for any but to write its last word.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether the last word of any has yet to be written.
    pub fn are_open(&self) -> bool {
        !self.open.is_empty() || !self.said.is_empty()
    }

    /// Whether any waits for its task to come.
    pub fn await_task(&self) -> bool {
        self.open.iter().any(Request::awaits_task)
    }

    /// When the first one has waited too long for its task to come, if any waits for that.
    pub fn patience(&self) -> Option<Instant> {
        self.open.iter().filter_map(Request::patience).min()
    }

    /// One that has waited too long for its task to come.
    pub fn waiting_in_vain(&self) -> Option<usize> {
        let now = Instant::now();
        let over = |request: &Request| request.patience().is_some_and(|until| until <= now);
        self.open.iter().position(over)
    }

    /// One more, which awaits its task, or bytes of it where that is known.
    pub fn ask(&mut self, mut request: Request, followed: Option<&Followed>) {
        debug_assert!(!self.is_full());
        if let Some(followed) = followed {
            request.discover(followed);
        }
        self.open.push(request);
    }

    /// The tasks that requests wait for.
    pub fn awaited_tasks(&self) -> Vec<TaskId> {
        let awaiting = self.open.iter().filter(|request| request.awaits_task());
        awaiting.map(|request| request.task).collect()
    }

    /// A task has come: its requests await bytes of it.
    pub fn discover(&mut self, followed: &Followed) {
        let task = followed.handle.id;
        let of_task = self.open.iter_mut().filter(|request| request.task == task);
        of_task.for_each(|request| request.discover(followed));
    }

    /// A task is no more: its requests wait until it comes again.
    pub fn lose(&mut self, task: &TaskId) {
        let of_task = self.open.iter_mut().filter(|request| request.task == *task);
        of_task.for_each(|request| request.state = State::AwaitingTask);
    }

    /// The child wants nothing of a task any more.
    pub fn unfollow(&mut self, task: &TaskId) {
        self.open.retain(|request| request.task != *task);
    }

    /// A request is of another urgency now.
    pub fn urge(&mut self, number: u32, urgency: u32, news: &News) {
        for request in self.open.iter_mut().filter(|found| found.number == number) {
            request.urgency = urgency;
            if let Some(followed) = news.get(&request.task) {
                request.await_rest(followed);
            }
        }
    }

    /// The child does not need a request any more.
    pub fn cancel(&mut self, number: u32) {
        self.open.retain(|request| request.number != number);
    }

    /// The requests, the most urgent first. Of two that are equally urgent the one that is being sent comes
    /// first, and else the older one.
    pub fn by_urgency(&mut self) -> impl Iterator<Item = (usize, &mut Request)> {
        self.check();
        self.open.sort_unstable_by_key(|request| {
            let begun = matches!(request.state, State::BeingSent(..));
            (request.urgency, !begun, request.since, request.number)
        });
        self.open.iter_mut().enumerate()
    }

    pub fn at(&mut self, at: usize) -> &mut Request {
        &mut self.open[at]
    }

    /// None is being sent any more: who waits, for bytes or for a limit, keeps nobody from the uplink.
    pub fn rest(&mut self) {
        self.open.iter_mut().for_each(Request::rest);
    }

    /// A request, and no other, is being sent.
    pub fn begin(&mut self, at: usize, slot: Slot) {
        self.rest();
        self.open[at].begin(slot);
    }

    /// A request will not be served to its end; gives its number.
    pub fn refuse(&mut self, at: usize) -> u32 {
        self.open.swap_remove(at).number
    }

    /// All of a request is sent; its last word is about to be written.
    pub fn say(&mut self, at: usize) {
        let request = self.open.swap_remove(at);
        debug_assert!(!request.awaits_task(), "nothing can have been sent");
        self.said.push(request.level);
    }

    /// All words have been written.
    pub fn written(&mut self) {
        self.said.clear();
    }

    fn check(&self) {
        if cfg!(debug_assertions) {
            assert!(self.open.len() <= REQUESTS);
            let mut sending = 0;
            for request in &self.open {
                let awaited = match &request.state {
                    State::AwaitingTask => None,
                    State::AwaitingBytes(interest) => interest.awaited.as_ref(),
                    State::BeingSent(interest, _) => {
                        sending += 1;
                        interest.awaited.as_ref()
                    }
                };
                assert!(awaited.is_none() || !request.is_background());
            }
            assert!(sending <= 1, "{sending} requests of one child have a slot");
        }
    }
}
