use std::{collections::HashMap, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use hashlink::LinkedHashSet;
use pantala_core::{BLOCK_MAX, PeerId, PieceIndex, PieceSet, Result, TaskId};
use pantala_store::{Change, Claim, Slot};
use pantala_wire::link::{BACKGROUND, FrameReader, Refusal, ToChild, ToParent, data_header};
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    limiter::Passage,
    line::{Line, LineClaim},
    metrics::{Level, Metrics},
    seats::{InUse, Seat, Seats},
    socket,
    task::{Awaited, Following, TaskHandle, Tasks},
};

/// Serves pieces to children: complete ones from memory, and those in flight block by block as
/// they arrive.
pub(crate) struct PeerServer {
    pub me: PeerId,
    pub tasks: Arc<Tasks>,
    pub metrics: Metrics,
    /// Transfers that use this peer's uplink at once.
    pub slots: Arc<Semaphore>,
    /// The same for the background: it must not be found in a slot that a reader waits for.
    pub background_slots: Arc<Semaphore>,
    /// Children that may be connected at once.
    pub children: Arc<Seats>,
    /// This peer's uplink: the background has it only when nobody else has bytes to be sent.
    pub line: Arc<Line>,
    pub tracker: TaskTracker,
    pub cancel: CancellationToken,
}

/// Children connected at once. The one without a request for the longest makes room for more; when all
/// have some, more are turned away.
pub(crate) const CHILDREN: usize = 1024;
/// How long a child may take to say something for the first time.
const GREETING: Duration = Duration::from_secs(5);
/// How long a child may be connected that follows nothing and wants nothing.
const IDLE: Duration = Duration::from_secs(60);
/// Tasks that one child may ask about though this peer does not know them; the one that was asked about
/// first is forgotten for more.
const UNKNOWN_TASKS: usize = 256;
/// Requests one child may have waiting; more are refused as busy.
const REQUESTS: usize = 256;
/// Bytes written to one child before others of its requests, and its messages, are looked at.
const BLOCK: usize = BLOCK_MAX;
/// Bytes that may wait unsent in the kernel before it takes more.
const UNSENT: u32 = 256 << 10;
/// A write that takes longer is limited by the child's own link: it needs no slot of ours.
const OWN_PACE: Duration = Duration::from_millis(100);
/// A child that takes nothing at all for so long is cut off.
const STUCK: Duration = Duration::from_secs(30);
/// How long a request may wait for a task that this peer has not heard of yet.
const UNKNOWN_TASK: Duration = Duration::from_secs(2);

impl PeerServer {
    /// Accepts children until cancelled.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.cancel.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: it passes when somebody leaves.
                    tracing::warn!(%error, "cannot accept a child");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(seat) = self.children.admit(from.ip()) else {
                tracing::debug!(%from, "turned a child away: too many");
                continue;
            };
            let server = self.clone();
            self.tracker.spawn(async move {
                let cancel = server.cancel.clone();
                tokio::select! {
                    () = cancel.cancelled() => {}
                    result = server.child(stream, from, &seat) => {
                        if let Err(error) = result {
                            tracing::debug!(%from, %error, "a child left");
                        }
                    }
                }
            });
        }
    }

    async fn child(&self, stream: TcpStream, from: SocketAddr, seat: &Arc<Seat>) -> Result<()> {
        let _level = self.metrics.child();
        socket::prepare(&stream);
        limit_unsent(&stream);
        let (read, write) = stream.into_split();
        let (messages, said) = mpsc::channel(REQUESTS);
        let mut child = Child {
            server: self,
            io: write,
            out: BytesMut::new(),
            waker: Arc::new(Notify::new()),
            followed: HashMap::new(),
            unknown: LinkedHashSet::new(),
            seat,
            in_use: None,
            requests: Vec::new(),
            unsaid: Vec::new(),
            slot: None,
            again: None,
            claim: None,
            yields: false,
        };
        tracing::trace!(%from, "a child came");
        tokio::select! {
            result = listen(read, messages) => result,
            result = child.serve(said) => result,
            () = makes_room(seat) => Err(idle("makes room for others")),
        }
    }
}

/// Ends when the seat is needed for somebody else and its child wants nothing.
async fn makes_room(seat: &Seat) {
    seat.closing().await;
    if !seat.is_idle() {
        std::future::pending::<()>().await;
    }
}

/// Keeps what is written but not sent small: a more urgent piece must not queue behind a megabyte
/// of a less urgent one, and memory in socket buffers is memory.
fn limit_unsent(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    if let Err(error) = socket.set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "cannot limit unsent bytes");
    }
}

async fn listen(read: OwnedReadHalf, messages: mpsc::Sender<ToParent>) -> Result<()> {
    let mut reader = FrameReader::new(read);
    let first = tokio::time::timeout(GREETING, reader.from_child()).await;
    let mut next = first.map_err(|_| idle("said nothing"))??;
    while let Some(message) = next {
        if messages.send(message).await.is_err() {
            break;
        }
        next = reader.from_child().await?;
    }
    Ok(())
}

struct Child<'a> {
    server: &'a PeerServer,
    io: OwnedWriteHalf,
    /// Messages to be written before the next block.
    out: BytesMut,
    /// Notified when anything happens in a followed task.
    waker: Arc<Notify>,
    followed: HashMap<TaskId, Followed>,
    /// Tasks that were asked about but are not known here yet.
    unknown: LinkedHashSet<TaskId>,
    seat: &'a Arc<Seat>,
    /// Made while it wants something.
    in_use: Option<InUse>,
    requests: Vec<Request>,
    /// Requests whose last word is in `out`: who waits until all are served waits for that too.
    unsaid: Vec<Request>,
    slot: Option<Slotted>,
    /// When a limit lets something through, if nothing but limits is in the way.
    again: Option<Instant>,
    /// Made while a foreground request could use the uplink.
    claim: Option<LineClaim>,
    /// A background request could use the uplink if nobody else did.
    yields: bool,
}

struct Followed {
    handle: Arc<TaskHandle>,
    /// `None` when the child only wants pieces, not news.
    news: Option<broadcast::Receiver<Change>>,
    /// The next block's way through the limits, whichever request it will be for.
    passage: Passage,
    _counts: Following,
}

impl Followed {
    /// Whether a piece of which so many bytes were sent is not here and will not come.
    fn is_hopeless(&self, piece: PieceIndex, sent: usize) -> bool {
        // Bytes that were sent and are gone were wrong or given up.
        matches!(self.handle.pieces.slot(piece), Slot::Missing)
            && (sent > 0 || !self.handle.planned.lock().covers(piece))
    }
}

struct Request {
    number: u32,
    task: TaskId,
    piece: PieceIndex,
    sent: usize,
    urgency: u32,
    since: Instant,
    /// Keeps the piece here as long as that is possible; `None` while the task is unknown.
    claim: Option<Claim>,
    awaited: Option<Awaited>,
    _level: Level,
}

impl Request {
    fn is_background(&self) -> bool {
        self.urgency & BACKGROUND != 0
    }

    /// Says at its task whether a reader waits there for bytes that are not here yet.
    fn awaits(&mut self, task: &Arc<TaskHandle>, awaits: bool) {
        if awaits != self.awaited.is_some() {
            self.awaited = awaits.then(|| Awaited::new(task, self.piece));
        }
    }
}

/// The right to use the uplink for one request.
struct Slotted {
    request: u32,
    /// `None` when the child turned out to be slower than we are.
    permit: Option<OwnedSemaphorePermit>,
    _level: Level,
}

/// What can be done for a request right now.
enum Next {
    Send { at: usize, block: Bytes },
    Finish { at: usize, size: usize },
    Refuse { at: usize },
    Nothing,
}

impl Child<'_> {
    async fn serve(&mut self, mut said: mpsc::Receiver<ToParent>) -> Result<()> {
        ToChild::hello(self.server.me).encode(&mut self.out);
        loop {
            while let Ok(message) = said.try_recv() {
                self.hear(message);
            }
            self.news();
            let wants = !self.requests.is_empty();
            if wants != self.in_use.is_some() {
                self.in_use = wants.then(|| self.seat.begin());
            }
            match self.next() {
                Next::Send { at, block } => self.send(at, block).await?,
                Next::Finish { at, size } => {
                    let request = self.requests.swap_remove(at);
                    let number = request.number;
                    if let Some(followed) = self.followed.get(&request.task) {
                        followed.handle.was_served(request.piece);
                    }
                    ToChild::Done {
                        request: number,
                        size: size as u32,
                    }
                    .encode(&mut self.out);
                    self.unsaid.push(request);
                    self.leave_slot(number);
                }
                Next::Refuse { at } => {
                    let request = self.requests.swap_remove(at).number;
                    self.refuse(request, Refusal::NotHere);
                    self.leave_slot(request);
                }
                Next::Nothing => {
                    // Who waits, for bytes or for a limit, keeps nobody from the uplink.
                    self.slot = None;
                    self.flush().await?;
                    self.wait(&mut said).await?;
                }
            }
        }
    }

    async fn wait(&mut self, said: &mut mpsc::Receiver<ToParent>) -> Result<()> {
        let changed = self.server.tasks.changed.notified();
        let others = self.server.line.changed();
        if self.yields && self.server.line.is_free() {
            return Ok(());
        }
        let unused =
            self.unknown.is_empty() && self.requests.is_empty() && self.followed.is_empty();
        let unknown = !self.unknown.is_empty()
            || self
                .requests
                .iter()
                .any(|request| !self.followed.contains_key(&request.task));
        let message = tokio::select! {
            message = said.recv() => message,
            () = self.waker.notified() => return Ok(()),
            () = others, if self.yields => return Ok(()),
            () = sleep_until(self.again), if self.again.is_some() => return Ok(()),
            () = tokio::time::sleep(IDLE), if unused => return Err(idle("wants nothing")),
            () = changed, if unknown => {
                self.look_for_unknown();
                return Ok(());
            }
            // Refuses what has waited too long for a task nobody knows.
            () = tokio::time::sleep(UNKNOWN_TASK), if unknown => {
                self.look_for_unknown();
                return Ok(());
            }
        };
        if let Some(message) = message {
            self.hear(message);
        }
        Ok(())
    }

    fn hear(&mut self, message: ToParent) {
        match message {
            ToParent::Hello { .. } => {}
            ToParent::Follow { task } => {
                if !self.follow(task) {
                    self.does_not_know(task);
                }
            }
            ToParent::Unfollow { task } => {
                self.unknown.remove(&task);
                self.requests.retain(|request| request.task != task);
                self.followed.remove(&task);
            }
            ToParent::Want {
                request,
                task,
                piece,
                offset,
                urgency,
            } => {
                if self.requests.len() >= REQUESTS {
                    self.refuse(request, Refusal::Busy);
                    return;
                }
                self.know(task);
                let followed = self.followed.get(&task);
                let sent = offset as usize;
                // Said at once, whatever is more urgent: the child can ask somebody else.
                if followed.is_some_and(|followed| followed.is_hopeless(piece, sent)) {
                    self.refuse(request, Refusal::NotHere);
                    return;
                }
                self.requests.push(Request {
                    number: request,
                    task,
                    piece,
                    sent,
                    urgency,
                    since: Instant::now(),
                    claim: followed.map(|followed| followed.handle.pieces.claim(piece)),
                    awaited: None,
                    _level: self.server.metrics.request(),
                });
            }
            ToParent::Urge { request, urgency } => {
                for found in &mut self.requests {
                    if found.number == request {
                        found.urgency = urgency;
                    }
                }
            }
            ToParent::AreYouThere => ToChild::Here.encode(&mut self.out),
            ToParent::Cancel { request } => {
                self.requests.retain(|found| found.number != request);
                self.leave_slot(request);
            }
        }
    }

    fn refuse(&mut self, request: u32, refusal: Refusal) {
        ToChild::Refused { request, refusal }.encode(&mut self.out);
    }

    /// Watches a task so that this child's requests are woken by it.
    fn know(&mut self, task: TaskId) -> bool {
        if self.followed.contains_key(&task) {
            return true;
        }
        let Some(handle) = self.server.tasks.get(&task) else {
            return false;
        };
        handle.pieces.wake_on_progress(&self.waker);
        for request in self.requests.iter_mut().filter(|found| found.task == task) {
            request.claim = Some(handle.pieces.claim(request.piece));
        }
        let followed = Followed {
            _counts: Following::new(&handle),
            handle,
            news: None,
            passage: Passage::default(),
        };
        self.followed.insert(task, followed);
        true
    }

    /// Tells the child what is here, and from now on what changes.
    fn follow(&mut self, task: TaskId) -> bool {
        if !self.know(task) {
            return false;
        }
        let Some(followed) = self.followed.get_mut(&task) else {
            return false;
        };
        let (held, receiving, news) = followed.handle.pieces.follow();
        followed.news = Some(news);
        state(task, &held, &receiving, &mut self.out);
        true
    }

    fn does_not_know(&mut self, task: TaskId) {
        self.unknown.insert(task);
        if self.unknown.len() > UNKNOWN_TASKS {
            self.unknown.pop_front();
        }
    }

    fn look_for_unknown(&mut self) {
        for task in std::mem::take(&mut self.unknown) {
            if !self.follow(task) {
                self.unknown.insert(task);
            }
        }
        let tasks: Vec<TaskId> = self.requests.iter().map(|request| request.task).collect();
        for task in tasks {
            self.know(task);
        }
    }

    /// Writes down what happened in the followed tasks.
    fn news(&mut self) {
        let mut closed = Vec::new();
        for (&task, followed) in &mut self.followed {
            let Some(news) = &mut followed.news else {
                continue;
            };
            loop {
                match news.try_recv() {
                    Ok(Change::Receiving(piece)) => {
                        ToChild::Receiving { task, piece }.encode(&mut self.out);
                    }
                    Ok(Change::Held(piece)) => {
                        ToChild::Holds {
                            task,
                            runs: vec![(piece, 1)],
                        }
                        .encode(&mut self.out);
                    }
                    Ok(Change::Lost(piece)) => {
                        ToChild::Lost {
                            task,
                            runs: vec![(piece, 1)],
                        }
                        .encode(&mut self.out);
                    }
                    Ok(Change::Ended(_)) => {}
                    Ok(Change::Closed) => closed.push(task),
                    Err(broadcast::error::TryRecvError::Lagged(_)) => {
                        // Too much happened: everything anew.
                        let (held, receiving, fresh) = followed.handle.pieces.follow();
                        *news = fresh;
                        let all = (PieceIndex::new(0), u32::MAX);
                        ToChild::Lost {
                            task,
                            runs: vec![all],
                        }
                        .encode(&mut self.out);
                        state(task, &held, &receiving, &mut self.out);
                    }
                    Err(_) => break,
                }
            }
        }
        for task in closed {
            self.followed.remove(&task);
            // The content may come back as another task handle with the same name.
            self.does_not_know(task);
        }
    }

    /// The most urgent request that something can be done for. A request that is being sent is
    /// finished before another of the same urgency is begun. Background is sent only when no child
    /// has a foreground request that something could be done for.
    fn next(&mut self) -> Next {
        let begun = self.slot.as_ref().map(|slot| slot.request);
        let key = |request: &Request| {
            (
                request.urgency,
                Some(request.number) != begun,
                request.since,
            )
        };
        self.requests.sort_unstable_by_key(key);
        self.again = None;
        let mut held_up = Vec::new();
        self.yields = false;
        let slot = self.slot.as_ref();
        let own_pace = slot.filter(|slot| slot.permit.is_none()).and(begun);
        let mut claims = false;
        for (at, request) in self.requests.iter_mut().enumerate() {
            let Some(followed) = self.followed.get_mut(&request.task) else {
                if request.since.elapsed() >= UNKNOWN_TASK {
                    return Next::Refuse { at };
                }
                continue;
            };
            let background = request.is_background();
            let (buffer, complete) = match followed.handle.pieces.slot(request.piece) {
                Slot::Held(buffer) => (buffer, true),
                Slot::Filling { buffer, .. } => {
                    let complete = buffer.len() == buffer.capacity();
                    (buffer, complete)
                }
                Slot::Missing => {
                    if followed.is_hopeless(request.piece, request.sent) {
                        return Next::Refuse { at };
                    }
                    request.awaits(&followed.handle, !background);
                    continue;
                }
            };
            request.awaits(&followed.handle, !background && !complete);
            let there = buffer.len();
            if there > request.sent {
                if background {
                    if !claims {
                        self.claim = None;
                    }
                    if claims || !self.server.line.is_free() {
                        self.yields = true;
                        continue;
                    }
                } else if own_pace != Some(request.number) {
                    claims = true;
                    let line = &self.server.line;
                    self.claim.get_or_insert_with(|| line.claim());
                }
                let end = there.min(request.sent + BLOCK);
                let limits = &followed.handle.rates.upload;
                let end = if limits.is_none() {
                    end
                } else {
                    // One place in line for all requests: the most urgent one has it.
                    if held_up.contains(&request.task) {
                        continue;
                    }
                    let passage = &mut followed.passage;
                    let len = match passage.bytes() {
                        0 => limits.step().min(end - request.sent),
                        len => len,
                    };
                    let now = Instant::now();
                    let passed = if background {
                        passage.give_way(limits, now, len)
                    } else {
                        passage.go_on(limits, now, len)
                    };
                    if let Err(again) = passed {
                        self.again = Some(self.again.map_or(again, |other| other.min(again)));
                        held_up.push(request.task);
                        continue;
                    }
                    followed.passage = Passage::default();
                    end.min(request.sent + len)
                };
                return Next::Send {
                    at,
                    block: buffer.slice(request.sent..end),
                };
            }
            if complete {
                return Next::Finish { at, size: there };
            }
        }
        if !claims {
            self.claim = None;
        }
        Next::Nothing
    }

    async fn send(&mut self, at: usize, block: Bytes) -> Result<()> {
        let (number, background) = {
            let request = &self.requests[at];
            (request.number, request.is_background())
        };
        self.take_slot(number, background).await;
        if background && !self.server.line.is_free() {
            // Somebody came while it waited for its slot.
            return Ok(());
        }
        let request = &mut self.requests[at];
        request.sent += block.len();
        let (task, piece) = (request.task, request.piece);
        let len = block.len();
        self.out.extend_from_slice(&data_header(number, len));
        let mut frame = std::mem::take(&mut self.out).chain(block);
        let mut writing = pin!(self.io.write_all_buf(&mut frame));
        let mut written = tokio::time::timeout(OWN_PACE, &mut writing).await;
        if written.is_err() {
            // Others have its slot before it has taken anything: it may have stopped for good.
            if let Some(slot) = &mut self.slot {
                slot.permit = None;
            }
            self.claim = None;
            written = tokio::time::timeout(STUCK, writing).await;
        }
        written
            .map_err(|_| stuck())?
            .map_err(|error| broke(&error))?;
        self.unsaid.clear();
        self.server.metrics.peer_sent(len as u64);
        if let Some(followed) = self.followed.get(&task) {
            followed.handle.pieces.touch(piece);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let mut out = std::mem::take(&mut self.out);
        let written = tokio::time::timeout(STUCK, self.io.write_all_buf(&mut out)).await;
        written
            .map_err(|_| stuck())?
            .map_err(|error| broke(&error))?;
        self.unsaid.clear();
        out.clear();
        self.out = out;
        Ok(())
    }

    /// Waits in line for the uplink, unless the request has its place already.
    async fn take_slot(&mut self, request: u32, background: bool) {
        if self
            .slot
            .as_ref()
            .is_some_and(|slot| slot.request == request)
        {
            return;
        }
        self.slot = None;
        // The semaphore is fair: who waits longest comes next. It is never closed.
        let slots = if background {
            &self.server.background_slots
        } else {
            &self.server.slots
        };
        let permit = slots.clone().acquire_owned().await.ok();
        self.slot = Some(Slotted {
            request,
            permit,
            _level: self.server.metrics.upload(),
        });
    }

    fn leave_slot(&mut self, request: u32) {
        if self
            .slot
            .as_ref()
            .is_some_and(|slot| slot.request == request)
        {
            self.slot = None;
        }
    }
}

fn state(task: TaskId, held: &PieceSet, receiving: &PieceSet, out: &mut BytesMut) {
    if !held.is_empty() {
        ToChild::Holds {
            task,
            runs: held.runs(),
        }
        .encode(out);
    }
    for piece in receiving.iter() {
        ToChild::Receiving { task, piece }.encode(out);
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

fn idle(why: &str) -> pantala_core::Error {
    use pantala_core::{Error, Kind, Who};
    Error::new(Who::Peer, Kind::Timeout, why)
}

fn stuck() -> pantala_core::Error {
    use pantala_core::{Error, Kind, Who};
    Error::new(Who::Peer, Kind::Timeout, "takes nothing any more")
}

fn broke(error: &std::io::Error) -> pantala_core::Error {
    use pantala_core::{Error, Kind, Who};
    Error::new(
        Who::Peer,
        Kind::Unreachable,
        format!("the connection broke: {error}"),
    )
}

#[cfg(test)]
mod tests;
