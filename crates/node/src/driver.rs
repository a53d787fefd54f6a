mod actions;
mod class;
mod parents;
mod pieces;
mod readers;
mod steward;
mod supernode;
mod transfers;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pantala_core::{
    ContentMeta, Error, Generation, Kind, PeerId, PieceDigest, PieceIndex, PieceSet, ResourceKey,
    Who,
    control::{
        Copies, FromPeer, Known, KnownResource, PIECES_PER_MESSAGE, Parents, PeerAddr, PieceRun,
        REDIAL_MAX, Resume, ToPeer, Trouble,
    },
    display_url,
};
use pantala_origin::{OriginBody, OriginClient};
use pantala_store::{Change, PieceBuffer, PieceWriter, Slot, Store, TaskPieces};
use pantala_window::{Action, AttemptId, Class, Event, Failure, ParentId, Picker, ReaderId, RunId};
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::AbortHandle,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    announce::Announcer,
    clock::Clock,
    download::{LinkHandle, Links, NotTaken, Want},
    error,
    line::{Line, LineClaim, Yielding},
    metrics::Metrics,
    node::ControlPort,
    readers::{OriginSource, Reader},
    run::{OriginRun, RunSource},
    shelf::Shelf,
    task::{Command, Planned, TaskHandle, Tasks},
};
use steward::Steward;

/// Carries out with real sockets what one task's brain decides.
///
/// One tokio task owns it; everybody else talks to it by [`Command`]s, and it never waits for
/// anybody: orders go out by `try_send`, whatever takes time runs in a task of its own.
pub(crate) struct Driver {
    pub handle: Arc<TaskHandle>,
    /// Dropped with the driver, whatever ends it.
    _leftovers: Leftovers,
    pub commands: mpsc::Receiver<Command>,
    pub picker: Picker,
    pub ports: Ports,
    pub news: broadcast::Receiver<Change>,
    announcer: Announcer,
    digests: HashMap<PieceIndex, PieceDigest>,
    /// Complete pieces that were not held against their digest yet: it takes time, or nobody has
    /// vouched for one.
    unjudged: Vec<(AttemptId, PieceIndex, Arc<PieceBuffer>)>,
    attempts: HashMap<AttemptId, Attempt>,
    /// What failed requests left of a piece, to be gone on with.
    partial: HashMap<PieceIndex, PieceWriter>,
    readers: BTreeMap<u64, Told>,
    last_source: Option<OriginSource>,
    /// Reads on for others where no reader is left here.
    steward: Option<Steward>,
    links: HashMap<PeerId, Linked>,
    parents: HashMap<ParentId, PeerId>,
    wanted_parents: Parents,
    runs: HashMap<RunId, RunHandle>,
    learned: Option<Learned>,
    /// The lease that this peer took for granted when it learned the content itself, until the
    /// supernode says what it really has.
    assumed: Option<Assumed>,
    last_origin_error: Option<Error>,
    /// A piece that has no source though the origin may not be asked, and since when.
    sourceless: Option<(PieceIndex, Instant)>,
    /// Requests that were refused because their parent has too much to do.
    busy: Vec<(AttemptId, Option<PieceWriter>)>,
    counter: u64,
    progress_at: Instant,
    pulse_at: Instant,
    /// Bytes that came from the origin since the supernode was told last.
    origin_bytes: Arc<AtomicU64>,
    bound_since: Option<Instant>,
    idle_since: Option<Instant>,
    /// When it is looked for readers that take nothing.
    rest_at: Instant,
    links_kept: LinksKept,
    registered: bool,
    /// Why nobody may have the task here any more.
    over: Option<Error>,
    share: u32,
    class: Class,
    /// Made while the task is of the background.
    yielding: Option<Yielding>,
    /// Made while a reader here waits for a piece, if that makes a difference to anybody.
    claim: Option<LineClaim>,
    /// How long the background pauses.
    pause_until: Option<Instant>,
}

/// What a driver uses of its node.
#[derive(Clone)]
pub(crate) struct Ports {
    pub tasks: Arc<Tasks>,
    pub store: Store,
    pub origin: OriginClient,
    pub links: Arc<Links>,
    pub control: ControlPort,
    pub metrics: Metrics,
    pub clock: Clock,
    /// How many readers share the memory budget.
    pub readers: watch::Receiver<usize>,
    /// What comes to this node.
    pub line: Arc<Line>,
    /// What this node knows URLs to answer.
    pub shelf: Arc<Shelf>,
    pub tracker: TaskTracker,
    pub cancel: CancellationToken,
}

/// A reader, and what the brain was told of it.
struct Told {
    reader: Arc<Reader>,
    next: PieceIndex,
    rests: bool,
}

/// The state of a task that must be cleared when its driver ends, also by a panic: nothing else would bring
/// the task's readers another byte, or tell them so.
struct Leftovers {
    handle: Arc<TaskHandle>,
    tasks: Arc<Tasks>,
    store: Store,
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        // A task of the same name may be there again.
        let own = |task: &TaskHandle| std::ptr::eq(task, &*self.handle);
        if self.tasks.remove_if(&self.handle.id, own) {
            self.store.remove(&self.handle.id);
        }
        // Where the driver has told its readers a reason, that one holds.
        self.handle.readers.fail(&error::abandoned());
    }
}

struct Attempt {
    piece: PieceIndex,
    parent: ParentId,
    urgency: u32,
    hedge: bool,
    buffer: Option<Arc<PieceBuffer>>,
    waiting_for_room: Option<AbortHandle>,
    reported: u64,
    /// All its bytes are here.
    fetched: bool,
    /// It went on with what somebody else began: wrong bytes may be either's.
    goes_on: bool,
}

/// Whether there are links to parents.
#[derive(Clone, Copy)]
enum LinksKept {
    /// A reader uses them.
    Used,
    /// Nobody has since then.
    Unused(Instant),
    /// They were given up: parents have room for a bounded number of children. The next reader has them made
    /// again.
    GivenUp,
}

struct Linked {
    id: ParentId,
    link: Option<LinkHandle>,
    retry_at: Option<Instant>,
    failures: u32,
}

struct RunHandle {
    until: watch::Sender<PieceIndex>,
    stop: CancellationToken,
    /// The piece it is receiving.
    at: Option<PieceIndex>,
}

struct Learned {
    start: u64,
    body: OriginBody,
}

struct Assumed {
    first: PieceIndex,
    until: Instant,
}

/// How often a request's progress is told to the brain, and how far pieces are to the supernode.
const PROGRESS: Duration = Duration::from_millis(50);
/// How often a lease holder says that it lives: one that has fallen silent is found out by that.
const PULSE: Duration = Duration::from_millis(100);
/// How long a reader must have been the slow one until the supernode hears of it.
const BOUND: Duration = Duration::from_millis(300);
const REDIAL: Duration = Duration::from_millis(500);
/// A reader that takes nothing of what is there for this long rests, and its memory may serve others. It is
/// fixed, because how long a client pauses follows from nothing that this node measures.
const REST: Duration = Duration::from_secs(1);
/// How long links to parents are kept while nobody reads.
const UNREAD: Duration = Duration::from_secs(10);
/// How long after learning the supernode may take to confirm the lease.
const CONFIRM: Duration = Duration::from_secs(2);
/// How long a task without readers and pieces is kept, in case somebody comes back.
const LINGER: Duration = Duration::from_secs(1);
/// How long a reader who may not ask the origin waits for a peer that has the next piece.
const NOBODY: Duration = Duration::from_secs(5);
/// The longest pause that an origin can ask for in the middle of a content and have its readers wait.
const PAUSE: Duration = Duration::from_secs(10);
/// What a peer may claim of content whose length is unknown: 16 TiB of the smallest pieces.
const PIECES_MAX: u32 = 1 << 24;

impl Driver {
    pub fn new(
        handle: Arc<TaskHandle>,
        commands: mpsc::Receiver<Command>,
        picker: Picker,
        ports: Ports,
        solo: bool,
    ) -> Self {
        let (_, _, news) = handle.pieces.follow();
        let announcer = Announcer::new(handle.id);
        let leftovers = Leftovers {
            handle: handle.clone(),
            tasks: ports.tasks.clone(),
            store: ports.store.clone(),
        };
        let mut driver = Self {
            handle,
            _leftovers: leftovers,
            commands,
            picker,
            ports,
            news,
            announcer,
            digests: HashMap::new(),
            unjudged: Vec::new(),
            attempts: HashMap::new(),
            partial: HashMap::new(),
            readers: BTreeMap::new(),
            last_source: None,
            steward: None,
            links: HashMap::new(),
            parents: HashMap::new(),
            wanted_parents: Parents::default(),
            runs: HashMap::new(),
            learned: None,
            assumed: None,
            last_origin_error: None,
            sourceless: None,
            busy: Vec::new(),
            counter: 0,
            progress_at: Instant::now() + PROGRESS,
            pulse_at: Instant::now() + PULSE,
            origin_bytes: Arc::default(),
            bound_since: None,
            idle_since: None,
            rest_at: Instant::now() + REST,
            links_kept: LinksKept::Used,
            registered: false,
            over: None,
            share: 0,
            class: Class::Foreground,
            yielding: None,
            claim: None,
            pause_until: None,
        };
        if let Some(pieces) = driver.handle.pieces.geometry().pieces() {
            driver.feed(Event::Ended { pieces });
        }
        if !solo && !driver.ports.control.is_up() {
            driver.feed(Event::SupernodeDown);
        }
        driver
    }

    /// Runs until nobody wants the task and nothing of it is left, or the node stops.
    pub async fn run(mut self) {
        let cancel = self.ports.cancel.clone();
        let line = self.ports.line.clone();
        loop {
            let others = line.changed();
            self.classify();
            self.settle();
            if self.is_over() {
                break;
            }
            let wakeup = self.next_wakeup();
            let judge = self.next_to_judge();
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(command) = self.commands.recv() => self.command(command),
                () = self.handle.readers.changed.notified() => self.readers_changed(),
                () = others => {}
                change = self.news.recv() => self.change(change),
                Ok(()) = self.ports.readers.changed() => self.sync_share(),
                () = tokio::time::sleep_until(wakeup) => self.tick(),
                // Hashing is the one thing here that takes time: after all else that can be done,
                // and after whoever was woken by it on this thread. A reader would wait for many
                // pieces otherwise, and its window for the reader.
                () = tokio::task::yield_now(), if judge.is_some() => self.judge(judge),
            }
            // Take what else is there before deciding anew.
            while let Ok(command) = self.commands.try_recv() {
                self.command(command);
            }
        }
        self.end();
    }

    fn feed(&mut self, event: Event) {
        tracing::trace!(task = ?self.handle.id, ?event, "happened");
        self.picker.handle(self.ports.clock.now(), event);
    }

    /// Carries out all decisions, and says what there is to say.
    fn settle(&mut self) {
        while let Some(action) = self.picker.poll_action() {
            self.act(action);
        }
        let planned = match self.picker.planned() {
            Some((first, end)) => Planned::Pieces(first, end),
            // Its first reader is about to come: children that were quicker must not be turned away.
            None if self.last_source.is_none() => Planned::Unknown,
            None => Planned::Nothing,
        };
        {
            let mut shared = self.handle.planned.lock();
            if *shared != planned {
                *shared = planned;
                // Children that wait for what will not come must be told.
                self.handle.pieces.wake();
            }
        }
        let now = Instant::now();
        if self.announcer.due().is_some_and(|due| due <= now) {
            // What was just sealed is no longer on its way: it must not be missing in both.
            self.hear_news();
        }
        let in_flight = || readers::in_flight(&self.attempts, &self.runs, &self.handle.pieces);
        while let Some(have) = self.announcer.take(now, in_flight) {
            self.say(have);
        }
    }

    fn say(&self, message: FromPeer) {
        if self.registered {
            self.ports.control.send(message);
        }
    }

    fn next_wakeup(&self) -> Instant {
        let mut at = Instant::now() + Duration::from_secs(1);
        let mut sooner = |other: Option<Instant>| {
            if let Some(other) = other {
                at = at.min(other);
            }
        };
        sooner(
            self.picker
                .next_wakeup()
                .map(|time| self.ports.clock.instant(time)),
        );
        sooner(self.announcer.due());
        sooner(self.pause_until);
        let receives = !self.attempts.is_empty() || !self.runs.is_empty();
        sooner(receives.then_some(self.progress_at));
        sooner((!self.runs.is_empty()).then_some(self.pulse_at));
        sooner(
            self.links
                .values()
                .filter_map(|linked| linked.retry_at)
                .min(),
        );
        sooner(self.assumed.as_ref().map(|assumed| assumed.until));
        sooner((!self.readers.is_empty()).then_some(self.rest_at));
        at
    }

    fn is_over(&mut self) -> bool {
        if self.over.is_some() {
            return true;
        }
        if !self.readers.is_empty()
            || self.steward.is_some()
            || self.handle.pieces.held() > 0
            || !self.handle.readers.is_empty()
        {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        // While the table is locked nobody can find the task, so nobody can open a reader on it.
        since.elapsed() >= LINGER
            && self.ports.tasks.remove_if(&self.handle.id, |task| {
                task.readers.is_empty() && task.pieces.held() == 0
            })
    }

    fn end(mut self) {
        self.ports.tasks.remove_if(&self.handle.id, |_| true);
        let why = self.over.take().unwrap_or_else(error::stopping);
        self.handle.readers.fail(&why);
        self.say(FromPeer::Leave {
            task: self.handle.id,
        });
        for run in self.runs.values() {
            run.stop.cancel();
        }
        for linked in self.links.values() {
            if let Some(link) = &linked.link {
                link.unfollow(self.handle.id);
            }
        }
        for attempt in self.attempts.drain().map(|(_, attempt)| attempt) {
            if let Some(waiting) = attempt.waiting_for_room {
                waiting.abort();
            }
        }
        self.ports.store.remove(&self.handle.id);
    }

    // ---- what happens -------------------------------------------------------------------------

    fn command(&mut self, command: Command) {
        match command {
            Command::Known(known) => self.known(known),
            Command::Learned { first, start, body } => {
                // Its reader comes first: a lease that nobody needs is given back at once.
                self.sync_readers();
                self.learned = Some(Learned { start, body });
                self.assumed = Some(Assumed {
                    first,
                    until: Instant::now() + CONFIRM,
                });
                self.feed(Event::LeaseGranted { first, end: None });
            }
            Command::Alone => {
                self.sync_readers();
                self.feed(Event::LeaseGranted {
                    first: PieceIndex::new(0),
                    end: None,
                });
            }
            Command::Control(message) => self.control(message),
            Command::SupernodeUp => {
                self.feed(Event::SupernodeUp);
                self.resume();
            }
            Command::SupernodeDown => {
                self.assumed = None;
                self.feed(Event::SupernodeDown);
            }
            Command::LinkUp { link } => self.link_up(link),
            Command::LinkDown { peer, error } => self.link_down(peer, &error),
            Command::Holds { peer, runs } => {
                self.parent_news(peer, runs, |parent, first, count| Event::ParentHolds {
                    parent,
                    first,
                    count,
                })
            }
            Command::Lost { peer, runs } => {
                self.parent_news(peer, runs, |parent, first, count| Event::ParentLost {
                    parent,
                    first,
                    count,
                })
            }
            Command::Receiving { peer, piece } => {
                self.parent_news(peer, vec![(piece, 1)], |parent, piece, _| {
                    Event::ParentReceiving { parent, piece }
                });
            }
            Command::Room { attempt, charge } => {
                self.request(attempt, PieceBuffer::charged(charge).1)
            }
            Command::Fetched { attempt, buffer } => self.fetched(attempt, buffer),
            Command::FetchFailed {
                attempt,
                failure,
                writer,
            } => match failure {
                // Told at the next tick: it may be the only parent, and would be asked at once.
                Failure::Busy => self.busy.push((attempt, writer)),
                _ => self.fetch_failed(attempt, failure, writer),
            },
            Command::RunAt { run, piece } => {
                if let Some(found) = self.runs.get_mut(&run) {
                    found.at = Some(piece);
                }
                self.feed(Event::RunAt { run, piece });
            }
            Command::RunSealed {
                piece,
                buffer,
                digest,
            } => {
                if self.contradicts(piece, &digest) {
                    self.over = Some(error::two_versions(&self.url(), piece));
                    return;
                }
                self.digests.insert(piece, digest);
                self.feed(Event::Vouched {
                    first: piece,
                    count: 1,
                });
                self.say(FromPeer::Sealed {
                    task: self.handle.id,
                    piece,
                    digest,
                });
                self.seal(piece, buffer);
                if self.is_single() {
                    self.handle.transfer_is_at(piece.next());
                }
            }
            Command::RunEnded { length } => {
                self.ended(length);
                // After all that was sealed, so that whoever sends the end has sent what is before it.
                self.say(FromPeer::Ended {
                    task: self.handle.id,
                    length,
                });
            }
            Command::RunFailed { run, error } => {
                tracing::info!(task = ?self.handle.id, %error, "a transfer from the origin failed");
                self.run_failed(run, error);
            }
            Command::Poison => {
                // Only who has read to the end can know; the last word on that is older.
                let end = self.handle.pieces.geometry().pieces().unwrap_or_default();
                self.say(FromPeer::Have {
                    task: self.handle.id,
                    gained: Vec::new(),
                    lost: Vec::new(),
                    position: PieceIndex::new(end),
                    in_flight: 0,
                    reader_bound: false,
                });
                self.say(FromPeer::Poison {
                    task: self.handle.id,
                });
                self.over = Some(error::poisoned());
            }
            Command::Snapshot { reply } => drop(reply.send(self.picker.snapshot())),
        }
    }
}

#[cfg(test)]
mod tests;
