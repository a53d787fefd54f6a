mod class;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use pantala_core::{
    ContentMeta, Error, Kind, PeerId, PieceDigest, PieceIndex, Who,
    control::{Copies, FromPeer, Known, Parents, PeerAddr, PieceRun, Resume, ToPeer, Trouble},
};
use pantala_origin::{OriginBody, OriginClient};
use pantala_store::{Change, PieceBuffer, PieceWriter, Store};
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
    error,
    line::{Line, Turn, Yielding},
    links::{LinkHandle, Links, NotTaken, Want},
    metrics::Metrics,
    node::ControlPort,
    readers::{OriginSource, Reader},
    run::{OriginRun, RunSource},
    task::{Command, Planned, TaskHandle, Tasks},
};

/// Carries out with real sockets what one task's brain decides.
///
/// One tokio task owns it; everybody else talks to it by [`Command`]s, and it never waits for
/// anybody: orders go out by `try_send`, whatever takes time runs in a task of its own.
pub(crate) struct Driver {
    pub handle: Arc<TaskHandle>,
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
    readers: BTreeMap<u64, (Arc<Reader>, PieceIndex)>,
    last_source: Option<OriginSource>,
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
    pulse_at: Instant,
    pulse_bytes: u64,
    bound_since: Option<Instant>,
    idle_since: Option<Instant>,
    registered: bool,
    poisoned: bool,
    share: u32,
    class: Class,
    /// Made while the task is of the background.
    yielding: Option<Yielding>,
    /// Made while a reader here waits for a piece, if that makes a difference to anybody.
    claim: Option<Turn>,
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
    pub tracker: TaskTracker,
    pub cancel: CancellationToken,
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

/// How often a request's progress is told to the brain.
const PROGRESS: Duration = Duration::from_millis(50);
/// How often a lease holder says that it lives: one that has fallen silent is found out by that.
const PULSE: Duration = Duration::from_millis(100);
/// How long a reader must have been the slow one until the supernode hears of it.
const BOUND: Duration = Duration::from_millis(300);
const REDIAL: Duration = Duration::from_millis(500);
const REDIAL_MAX: Duration = Duration::from_secs(30);
/// How long after learning the supernode may take to confirm the lease.
const CONFIRM: Duration = Duration::from_secs(2);
/// How long a task without readers and pieces is kept, in case somebody comes back.
const LINGER: Duration = Duration::from_secs(1);
/// How long a reader who may not ask the origin waits for a peer that has the next piece.
const NOBODY: Duration = Duration::from_secs(5);
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
        let mut driver = Self {
            handle,
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
            pulse_at: Instant::now() + PULSE,
            pulse_bytes: 0,
            bound_since: None,
            idle_since: None,
            registered: false,
            poisoned: false,
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
                () = self.handle.readers.changed.notified() => self.sync_readers(),
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
        if let Some(have) = self.announcer.take(Instant::now()) {
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
        sooner((!self.attempts.is_empty()).then(|| Instant::now() + PROGRESS));
        sooner((!self.runs.is_empty()).then_some(self.pulse_at));
        sooner(
            self.links
                .values()
                .filter_map(|linked| linked.retry_at)
                .min(),
        );
        sooner(self.assumed.as_ref().map(|assumed| assumed.until));
        at
    }

    fn is_over(&mut self) -> bool {
        if self.poisoned {
            return true;
        }
        if !self.readers.is_empty()
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
        self.handle.readers.fail(&if self.poisoned {
            error::poisoned()
        } else {
            error::stopping()
        });
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
                self.pulse_bytes += buffer.len() as u64;
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
            }
            Command::RunEnded { length } => {
                self.ended(length);
                self.say(FromPeer::Ended {
                    task: self.handle.id,
                    length,
                });
            }
            Command::RunFailed { run, error } => {
                tracing::info!(task = ?self.handle.id, %error, "a transfer from the origin failed");
                let fatal = error.who() == Who::Origin && !error.is_retryable();
                self.last_origin_error = Some(error);
                if let Some(ended) = self.runs.remove(&run) {
                    self.abandon_trusted(&ended);
                    self.feed(Event::RunFailed { run, fatal });
                }
            }
            Command::Poison => {
                self.say(FromPeer::Poison {
                    task: self.handle.id,
                });
                self.poisoned = true;
            }
            Command::Snapshot { reply } => drop(reply.send(self.picker.snapshot())),
        }
    }

    fn control(&mut self, message: ToPeer) {
        if !matches!(message, ToPeer::Digests { .. }) {
            tracing::debug!(task = ?self.handle.id, ?message, "the supernode says");
        }
        match message {
            ToPeer::Parents { parents, .. } => self.set_parents(parents),
            ToPeer::Digests { digests, .. } => self.vouch(digests),
            ToPeer::Lease { first, end, .. } => {
                self.feed(Event::LeaseGranted { first, end });
                if let Some(assumed) = self.assumed.take() {
                    // The real lease is what was said; what was assumed beyond it is over.
                    if assumed.first < first {
                        self.feed(Event::LeaseEnded {
                            first: assumed.first,
                            end: Some(first),
                        });
                    }
                    if let Some(end) = end {
                        self.feed(Event::LeaseEnded {
                            first: end,
                            end: None,
                        });
                    }
                }
            }
            ToPeer::LeaseEnded { first, end, .. } => self.feed(Event::LeaseEnded { first, end }),
            ToPeer::Ended { length, .. } => self.ended(length),
            ToPeer::Poisoned { .. } => self.poisoned = true,
            ToPeer::Unknown { .. } => self.resume(),
            ToPeer::Turn { turn, .. } => self.ports.store.turn(&self.handle.id, turn),
            ToPeer::Copies { pieces, copies, .. } => self.copies(pieces, copies),
            ToPeer::Known { .. }
            | ToPeer::Learn { .. }
            | ToPeer::Direct { .. }
            | ToPeer::Refused { .. } => {}
        }
    }

    /// Who else has pieces that are held here, for the order in which they leave.
    fn copies(&self, pieces: Vec<PieceRun>, copies: Copies) {
        let end = self.pieces_max();
        for (first, count) in pieces {
            let last = first.get().saturating_add(count).min(end);
            for piece in (first.get()..last).map(PieceIndex::new) {
                self.ports.store.copies(&self.handle.id, piece, copies);
            }
        }
    }

    /// The piece after the last that there can be: what somebody claims must not make us count to
    /// four billion.
    fn pieces_max(&self) -> u32 {
        let pieces = self.handle.pieces.geometry().pieces();
        pieces.unwrap_or(PIECES_MAX).min(PIECES_MAX)
    }

    fn known(&mut self, known: Known) {
        if !std::mem::replace(&mut self.registered, true) {
            self.catch_up();
        }
        if let Some(length) = known.meta.length {
            self.ended(length);
        }
        {
            let mut meta = self.handle.meta.write();
            meta.private |= known.meta.private;
        }
        self.vouch(known.digests);
        self.set_parents(known.parents);
    }

    /// Says what came from the origin before the supernode knew the task.
    fn catch_up(&mut self) {
        let task = self.handle.id;
        for (&piece, &digest) in &self.digests {
            self.say(FromPeer::Sealed {
                task,
                piece,
                digest,
            });
        }
        let (held, _, _) = self.handle.pieces.follow();
        if !held.is_empty() {
            self.say(FromPeer::Have {
                task,
                gained: held.runs(),
                lost: Vec::new(),
                position: self.announcer.position(),
                reader_bound: false,
            });
        }
        self.announcer.forget();
    }

    /// Tells a supernode that does not know us what we have.
    fn resume(&mut self) {
        let (held, _, _) = self.handle.pieces.follow();
        let resume = Resume {
            key: self.handle.key,
            task: self.handle.id,
            meta: self.meta(),
            held: held.runs(),
            digests: self
                .digests
                .iter()
                .map(|(&piece, &digest)| (piece, digest))
                .collect(),
            position: self.announcer.position(),
            shown: self.handle.shown.clone(),
        };
        self.announcer.forget();
        self.ports.control.send(FromPeer::Resume(resume));
        self.registered = true;
    }

    fn meta(&self) -> ContentMeta {
        self.handle.meta.read().clone()
    }

    fn ended(&mut self, length: u64) {
        if self.handle.pieces.geometry().length().is_none() {
            self.handle.meta.write().length = Some(length);
            self.handle.pieces.ended(length);
            if let Some(pieces) = self.handle.pieces.geometry().pieces() {
                self.feed(Event::Ended { pieces });
            }
        }
    }

    fn change(&mut self, change: Result<Change, broadcast::error::RecvError>) {
        match change {
            Ok(Change::Held(piece)) => self.announcer.held(piece),
            Ok(Change::Lost(piece)) => {
                self.feed(Event::Evicted { piece });
                self.announcer.lost(piece);
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => {
                // Missed some: what is held now is what counts.
                let (held, _, news) = self.handle.pieces.follow();
                self.news = news;
                let end = self.handle.pieces.geometry().pieces().unwrap_or(PIECES_MAX);
                let known = self
                    .digests
                    .keys()
                    .copied()
                    .filter(|piece| piece.get() < end);
                let gone: Vec<PieceIndex> = known.filter(|&piece| !held.contains(piece)).collect();
                for piece in gone {
                    self.feed(Event::Evicted { piece });
                    self.announcer.lost(piece);
                }
                for piece in held.iter() {
                    self.announcer.held(piece);
                }
            }
            Err(broadcast::error::RecvError::Closed) => {}
        }
    }

    fn sync_readers(&mut self) {
        let now: BTreeMap<u64, Arc<Reader>> = self
            .handle
            .readers
            .all()
            .into_iter()
            .map(|reader| (reader.id, reader))
            .collect();
        let gone: Vec<u64> = self
            .readers
            .keys()
            .copied()
            .filter(|id| !now.contains_key(id))
            .collect();
        for id in gone {
            self.readers.remove(&id);
            self.feed(Event::ReaderClosed {
                reader: ReaderId(id),
            });
        }
        for (id, reader) in now {
            let next = reader.next();
            match self.readers.get_mut(&id) {
                Some((_, told)) if *told == next => {}
                Some((_, told)) => {
                    *told = next;
                    self.feed(Event::ReaderTook {
                        reader: ReaderId(id),
                        next,
                    });
                }
                None => {
                    self.sync_share();
                    self.last_source = Some(reader.source.clone());
                    let (first, end) = (next.max(reader.first), reader.end);
                    self.readers.insert(id, (reader, first));
                    self.feed(Event::ReaderOpened {
                        reader: ReaderId(id),
                        first,
                        end,
                    });
                }
            }
        }
    }

    fn sync_share(&mut self) {
        let readers = *self.ports.readers.borrow_and_update();
        // A quarter is left for what children want and what is on its way to sockets.
        let bytes = self.ports.store.budget().limit() / 4 * 3 / readers.max(1) as u64;
        let pieces = bytes / self.handle.pieces.geometry().piece_size();
        let pieces = pieces.clamp(1, u64::from(u32::MAX)) as u32;
        if pieces != self.share {
            self.share = pieces;
            self.feed(Event::Share { pieces });
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.progress();
        for (attempt, writer) in std::mem::take(&mut self.busy) {
            self.fetch_failed(attempt, Failure::Busy, writer);
        }
        self.redial(now);
        // What an upload held when somebody asked for room may be free by now.
        self.ports.store.budget().serve_line();
        if self
            .assumed
            .as_ref()
            .is_some_and(|assumed| now >= assumed.until)
            && let Some(assumed) = self.assumed.take()
            && self.ports.control.is_up()
        {
            self.feed(Event::LeaseEnded {
                first: assumed.first,
                end: None,
            });
        }
        if now >= self.pulse_at {
            self.pulse_at = now + PULSE;
            if !self.runs.is_empty() {
                self.pulse();
            }
            self.report_reader(now);
        }
        self.feed(Event::Tick);
    }

    fn pulse(&mut self) {
        let in_flight: u64 = self.attempts.len() as u64;
        let bytes = std::mem::take(&mut self.pulse_bytes);
        tracing::trace!(task = ?self.handle.id, bytes, in_flight, "pulse");
        self.say(FromPeer::Pulse {
            task: self.handle.id,
            bytes,
        });
    }

    /// How far the readers are, and whether they are what is slow.
    fn report_reader(&mut self, now: Instant) {
        let windows = self.picker.snapshot().windows;
        let Some(position) = windows.iter().map(|window| window.1).min() else {
            // Nobody reads any more: this peer gets no more pieces.
            if self.last_source.is_some()
                && let Some(end) = self.handle.pieces.geometry().pieces()
            {
                self.announcer.reader(PieceIndex::new(end), false);
            }
            return;
        };
        let slow = windows
            .iter()
            .all(|&(_, _, size, held)| held >= 2 && 2 * held > size);
        // That nothing comes is no parent's fault.
        let slow = slow || self.class == Class::Paused;
        self.bound_since = slow.then(|| self.bound_since.unwrap_or(now));
        let bound = self.bound_since.is_some_and(|since| now - since >= BOUND);
        self.announcer.reader(position, bound);
    }

    fn progress(&mut self) {
        let mut news = Vec::new();
        for (&attempt, state) in &mut self.attempts {
            let bytes = state
                .buffer
                .as_ref()
                .map_or(0, |buffer| buffer.len() as u64);
            if bytes > state.reported {
                state.reported = bytes;
                news.push((attempt, bytes));
            }
        }
        for (attempt, bytes) in news {
            self.feed(Event::Progress { attempt, bytes });
        }
    }

    // ---- parents ------------------------------------------------------------------------------

    fn set_parents(&mut self, parents: Parents) {
        let mut wanted: Vec<PeerAddr> = parents.preferred.iter().copied().flatten().collect();
        wanted.extend(parents.others.iter().copied());
        let gone: Vec<PeerId> = self
            .links
            .keys()
            .copied()
            .filter(|&peer| !wanted.iter().any(|addr| addr.id == peer))
            .collect();
        self.wanted_parents = parents;
        for peer in gone {
            // One that something is being fetched from stays until that is done with.
            let id = self.links[&peer].id;
            let busy = self.attempts.values().any(|attempt| attempt.parent == id);
            if !busy && let Some(linked) = self.links.remove(&peer) {
                self.parents.remove(&id);
                if let Some(link) = linked.link {
                    link.unfollow(self.handle.id);
                    self.feed(Event::ParentDown { parent: id });
                }
            }
        }
        for addr in wanted {
            if !self.links.contains_key(&addr.id) {
                self.counter += 1;
                let id = ParentId(self.counter);
                self.links.insert(
                    addr.id,
                    Linked {
                        id,
                        link: None,
                        retry_at: None,
                        failures: 0,
                    },
                );
                self.ports.links.follow(addr, &self.handle);
            }
        }
        self.prefer();
    }

    /// Tells the brain which of the preferred parents can be reached.
    fn prefer(&mut self) {
        let reached = |addr: &PeerAddr| {
            self.links
                .get(&addr.id)
                .filter(|linked| linked.link.is_some())
                .map(|linked| linked.id)
        };
        let stripes = self
            .wanted_parents
            .preferred
            .iter()
            .map(|addr| addr.as_ref().and_then(reached))
            .collect();
        self.feed(Event::Preferred { stripes });
    }

    fn link_up(&mut self, link: LinkHandle) {
        let Some(linked) = self.links.get_mut(&link.peer) else {
            link.unfollow(self.handle.id);
            return;
        };
        if linked.link.is_some() {
            return;
        }
        let (id, peer) = (linked.id, link.peer);
        linked.failures = 0;
        linked.link = Some(link);
        self.parents.insert(id, peer);
        self.feed(Event::ParentUp { parent: id });
        self.prefer();
    }

    fn link_down(&mut self, peer: PeerId, error: &Error) {
        let Some(linked) = self.links.get_mut(&peer) else {
            return;
        };
        tracing::debug!(task = ?self.handle.id, parent = ?peer, %error, "lost a parent");
        let was_up = linked.link.take().is_some();
        if !was_up && linked.retry_at.is_some() {
            return;
        }
        let old = linked.id;
        linked.failures += 1;
        let pause = (REDIAL * (1 << linked.failures.min(6))).min(REDIAL_MAX);
        linked.retry_at = Some(Instant::now() + pause);
        self.counter += 1;
        linked.id = ParentId(self.counter);
        if was_up {
            self.parents.remove(&old);
            self.feed(Event::ParentDown { parent: old });
        }
        // That this peer ended the link itself is no fault of the parent's.
        let ours = error.kind() == Kind::Cancelled;
        if !ours
            && self
                .wanted_parents
                .preferred
                .iter()
                .flatten()
                .any(|addr| addr.id == peer)
        {
            let trouble = Trouble::Gone;
            self.say(FromPeer::Trouble {
                task: self.handle.id,
                peer,
                trouble,
            });
        }
    }

    fn redial(&mut self, now: Instant) {
        let due: Vec<PeerId> = self
            .links
            .iter()
            .filter(|(_, linked)| linked.retry_at.is_some_and(|at| now >= at))
            .map(|(&peer, _)| peer)
            .collect();
        for peer in due {
            let Parents { preferred, others } = &self.wanted_parents;
            let wanted = preferred
                .iter()
                .flatten()
                .chain(others)
                .find(|addr| addr.id == peer);
            let (Some(&addr), Some(linked)) = (wanted, self.links.get_mut(&peer)) else {
                // It was kept only for what it was sending.
                self.links.remove(&peer);
                continue;
            };
            linked.retry_at = None;
            self.ports.links.follow(addr, &self.handle);
        }
    }

    fn parent_news(
        &mut self,
        peer: PeerId,
        runs: Vec<PieceRun>,
        event: impl Fn(ParentId, PieceIndex, u32) -> Event,
    ) {
        let Some(linked) = self.links.get(&peer).filter(|linked| linked.link.is_some()) else {
            return;
        };
        let parent = linked.id;
        let end = self.pieces_max();
        for (first, count) in runs {
            let count = count.min(end.saturating_sub(first.get()));
            if count > 0 {
                self.feed(event(parent, first, count));
            }
        }
    }

    // ---- pieces -------------------------------------------------------------------------------

    fn vouch(&mut self, digests: Vec<(PieceIndex, PieceDigest)>) {
        for (piece, digest) in digests {
            self.digests.insert(piece, digest);
            self.feed(Event::Vouched {
                first: piece,
                count: 1,
            });
        }
    }

    fn fetched(&mut self, attempt: AttemptId, buffer: Arc<PieceBuffer>) {
        let Some(state) = self.attempts.get_mut(&attempt) else {
            return;
        };
        state.fetched = true;
        let piece = state.piece;
        self.feed(Event::Fetched {
            attempt,
            bytes: buffer.len() as u64,
        });
        self.unjudged.push((attempt, piece, buffer));
    }

    /// Where in the list the piece is that is to be judged next: the first one in the content whose
    /// digest is known.
    fn next_to_judge(&self) -> Option<usize> {
        let known =
            |&(_, (_, piece, _)): &(usize, &(_, PieceIndex, _))| self.digests.contains_key(piece);
        let pieces = self.unjudged.iter().enumerate().filter(known);
        pieces
            .min_by_key(|(_, (_, piece, _))| *piece)
            .map(|(at, _)| at)
    }

    /// Holds a complete piece against the digest the supernode vouched for.
    fn judge(&mut self, at: Option<usize>) {
        let Some(at) = at else { return };
        let (attempt, piece, buffer) = self.unjudged.swap_remove(at);
        let Some(digest) = self.digests.get(&piece) else {
            return;
        };
        let geometry = self.handle.pieces.geometry();
        let whole = geometry.length().is_none() || buffer.len() as u64 == geometry.size(piece);
        if whole && PieceDigest::of(buffer.filled()) == *digest {
            self.ports.metrics.verified(1);
            self.seal(piece, buffer);
            return;
        }
        self.ports.metrics.corrupt(1);
        self.handle.pieces.abandon(piece);
        let parent = self
            .attempts
            .remove(&attempt)
            .filter(|attempt| !attempt.goes_on)
            .and_then(|attempt| self.parents.get(&attempt.parent).copied());
        tracing::warn!(task = ?self.handle.id, %piece, ?parent, "a peer sent wrong bytes");
        if let Some(peer) = parent {
            let trouble = Trouble::Corrupt { piece };
            self.say(FromPeer::Trouble {
                task: self.handle.id,
                peer,
                trouble,
            });
        }
        self.feed(Event::Corrupt { attempt });
    }

    fn seal(&mut self, piece: PieceIndex, buffer: Arc<PieceBuffer>) {
        self.sourceless = self.sourceless.filter(|&(of, _)| of != piece);
        self.partial.remove(&piece);
        self.attempts.retain(|_, attempt| {
            if attempt.piece == piece
                && let Some(waiting) = &attempt.waiting_for_room
            {
                waiting.abort();
            }
            // Who is late is told so by the brain. Who is done must not hold on to the buffer: a
            // piece that somebody uses cannot be evicted.
            attempt.piece != piece || (attempt.buffer.is_some() && !attempt.fetched)
        });
        self.handle.pieces.seal(piece, buffer);
        self.feed(Event::Sealed { piece });
        self.unjudged.retain(|(_, of, _)| *of != piece);
    }

    fn fetch_failed(&mut self, attempt: AttemptId, failure: Failure, writer: Option<PieceWriter>) {
        if let Some(state) = self.attempts.remove(&attempt) {
            let piece = state.piece;
            // Bytes of a refused transfer may be wrong; of a broken one they are as good as any.
            match writer.filter(|writer| writer.position() > 0) {
                Some(writer) if failure == Failure::Gone => {
                    self.partial.insert(piece, writer);
                }
                Some(_) => self.abandon_unless_fetched(piece),
                None => {}
            }
        }
        self.feed(Event::Failed { attempt, failure });
    }

    fn abandon_unless_fetched(&mut self, piece: PieceIndex) {
        let fetched = self
            .attempts
            .values()
            .any(|attempt| attempt.piece == piece && attempt.buffer.is_some());
        if !fetched {
            self.partial.remove(&piece);
            self.handle.pieces.abandon(piece);
        }
    }

    /// A transfer from the origin has ended: what it left half done is no more.
    fn abandon_trusted(&mut self, run: &RunHandle) {
        // A complete one is about to be sealed.
        if let Some(piece) = run.at
            && let pantala_store::Slot::Filling {
                trusted: true,
                buffer,
            } = self.handle.pieces.slot(piece)
            && buffer.len() < buffer.capacity()
        {
            self.handle.pieces.abandon(piece);
        }
    }

    // ---- what to do ---------------------------------------------------------------------------

    fn act(&mut self, action: Action) {
        if !matches!(
            action,
            Action::Pin { .. } | Action::Unpin { .. } | Action::ExtendRun { .. }
        ) {
            tracing::debug!(task = ?self.handle.id, ?action, "decided");
        }
        match action {
            Action::Fetch {
                attempt,
                piece,
                parent,
                urgency,
                hedge,
            } => {
                if hedge {
                    self.ports.metrics.hedged(1);
                }
                self.fetch(attempt, piece, parent, urgency, hedge);
            }
            Action::Cancel { attempt, piece } => self.cancel(attempt, piece),
            Action::OpenRun {
                run,
                first,
                until,
                goal,
            } => self.open_run(run, first, until, goal),
            Action::ExtendRun { run, until } => {
                if let Some(run) = self.runs.get(&run) {
                    run.until.send_replace(until);
                }
            }
            Action::StopRun { run } => {
                if let Some(run) = self.runs.remove(&run) {
                    run.stop.cancel();
                    self.abandon_trusted(&run);
                }
            }
            Action::AskLease { piece, late } => {
                let allowed = self.source().is_some_and(|source| source.allowed);
                if !allowed && !late {
                    self.without_source(piece);
                }
                if allowed || late {
                    self.say(FromPeer::AskLease {
                        task: self.handle.id,
                        piece,
                        late,
                    });
                }
            }
            Action::OfferLease { first, end } => self.say(FromPeer::OfferLease {
                task: self.handle.id,
                first,
                end,
            }),
            Action::ReturnLease { first, end } => {
                self.say(FromPeer::ReturnLease {
                    task: self.handle.id,
                    first,
                    end,
                });
            }
            Action::Pin { piece } => self.handle.pieces.set_pins(piece, 1),
            Action::Unpin { piece } => self.handle.pieces.set_pins(piece, 0),
            Action::ReportSlow { parent } => {
                if let Some(&peer) = self.parents.get(&parent) {
                    let trouble = Trouble::Slow;
                    self.say(FromPeer::Trouble {
                        task: self.handle.id,
                        peer,
                        trouble,
                    });
                }
            }
            Action::GiveUp => {
                let error = self
                    .last_origin_error
                    .clone()
                    .unwrap_or_else(error::nobody_has_it);
                self.handle.readers.fail(&error);
            }
        }
    }

    /// Nobody has the piece or will, and the origin may not be asked: readers wait for a peer that
    /// may come, but not for ever.
    fn without_source(&mut self, piece: PieceIndex) {
        let now = Instant::now();
        match self.sourceless {
            Some((of, since)) if of == piece => {
                if now.duration_since(since) >= NOBODY {
                    self.handle.readers.fail(&error::nobody_has_it());
                }
            }
            _ => self.sourceless = Some((piece, now)),
        }
    }

    fn fetch(
        &mut self,
        attempt: AttemptId,
        piece: PieceIndex,
        parent: ParentId,
        urgency: u32,
        hedge: bool,
    ) {
        let state = Attempt {
            piece,
            parent,
            urgency,
            hedge,
            buffer: None,
            waiting_for_room: None,
            reported: 0,
            fetched: false,
            goes_on: false,
        };
        self.attempts.insert(attempt, state);
        if !hedge && let Some(writer) = self.partial.remove(&piece) {
            self.request(attempt, writer);
            return;
        }
        let size = self.handle.pieces.geometry().size(piece);
        if let Some(charge) = self.ports.store.budget().try_charge(size) {
            self.request(attempt, PieceBuffer::charged(charge).1);
            return;
        }
        let (budget, commands) = (
            self.ports.store.budget().clone(),
            self.handle.commands.clone(),
        );
        let waiting = self.ports.tracker.spawn(async move {
            let charge = budget.charge(size).await;
            let _ = commands.send(Command::Room { attempt, charge }).await;
        });
        if let Some(state) = self.attempts.get_mut(&attempt) {
            state.waiting_for_room = Some(waiting.abort_handle());
        }
    }

    /// Sends a request for which there is room.
    fn request(&mut self, attempt: AttemptId, mut writer: PieceWriter) {
        let Some(state) = self.attempts.get(&attempt) else {
            return;
        };
        let (piece, urgency) = (state.piece, self.urgency(state));
        let link = self
            .parents
            .get(&state.parent)
            .and_then(|peer| self.links.get(peer))
            .and_then(|linked| linked.link.clone());
        let Some(link) = link else {
            self.fetch_failed(attempt, Failure::Gone, Some(writer));
            return;
        };
        if state.hedge && writer.position() == 0 {
            // Go on from what the late one has brought so far.
            if let pantala_store::Slot::Filling { buffer, .. } = self.handle.pieces.slot(piece) {
                writer.append(buffer.filled());
            }
        }
        let buffer = writer.buffer().clone();
        let goes_on = writer.position() > 0;
        let want = Want {
            attempt,
            task: self.handle.id,
            piece,
            urgency,
            writer,
            pieces: self.handle.pieces.clone(),
            limits: self.handle.rates.download.clone(),
            commands: self.handle.commands.clone(),
        };
        if let Some(state) = self.attempts.get_mut(&attempt) {
            state.buffer = Some(buffer);
            state.goes_on = goes_on;
            state.waiting_for_room = None;
        }
        match link.want(want) {
            Ok(()) => {}
            Err(NotTaken { want, ended: true }) => {
                self.fetch_failed(attempt, Failure::Gone, Some(want.writer));
                // Its last words are still on their way here; until they come nobody is to be
                // asked there again.
                self.link_down(link.peer, &error::link_ended());
            }
            Err(NotTaken { want, ended: false }) => self.busy.push((attempt, Some(want.writer))),
        }
    }

    fn cancel(&mut self, attempt: AttemptId, piece: PieceIndex) {
        let Some(state) = self.attempts.remove(&attempt) else {
            return;
        };
        self.unjudged.retain(|(of, _, _)| *of != attempt);
        if let Some(waiting) = state.waiting_for_room {
            waiting.abort();
        }
        if let Some(link) = self
            .parents
            .get(&state.parent)
            .and_then(|peer| self.links.get(peer))
            .and_then(|linked| linked.link.as_ref())
        {
            link.cancel(self.handle.id, attempt);
        }
        if state.buffer.is_some_and(|buffer| !buffer.is_empty()) {
            self.abandon_unless_fetched(piece);
        }
    }

    fn source(&self) -> Option<&OriginSource> {
        let reader = self
            .readers
            .values()
            .next()
            .map(|(reader, _)| &reader.source);
        reader.or(self.last_source.as_ref())
    }

    fn open_run(
        &mut self,
        run: RunId,
        first: PieceIndex,
        until: PieceIndex,
        goal: Option<PieceIndex>,
    ) {
        let source = self.source().cloned();
        let start = self.handle.pieces.geometry().start(first);
        let source = match (self.learned.take(), source) {
            (Some(learned), _)
                if learned.start <= start && learned.body.position() == learned.start =>
            {
                RunSource::Open(learned.body)
            }
            (_, Some(source)) if source.allowed => RunSource::Request {
                origin: self.ports.origin.clone(),
                source,
                meta: Box::new(self.meta()),
                goal,
            },
            _ => {
                self.last_origin_error = Some(error::nobody_has_it());
                self.feed(Event::RunFailed { run, fatal: false });
                return;
            }
        };
        let (until_tx, until) = watch::channel(until);
        let stop = self.ports.cancel.child_token();
        let transfer = OriginRun {
            run,
            pieces: self.handle.pieces.clone(),
            budget: self.ports.store.budget().clone(),
            limits: self.handle.rates.download.clone(),
            commands: self.handle.commands.clone(),
            until,
            stop: stop.clone(),
        };
        self.runs.insert(
            run,
            RunHandle {
                until: until_tx,
                stop,
                at: None,
            },
        );
        self.ports.tracker.spawn(transfer.drive(first, source));
    }
}
