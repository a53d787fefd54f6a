use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::{BufMut as _, BytesMut};
use pantala_core::{Error, Kind, PeerId, PieceIndex, Result, TaskId, Who, control::PeerAddr};
use pantala_store::{PieceWriter, TaskPieces};
use pantala_window::{AttemptId, Failure};
use pantala_wire::link::{DataFrame, FrameReader, Incoming, Refusal, ToChild, ToParent};
use parking_lot::Mutex;
use tokio::{
    io::AsyncWriteExt,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    limiter::Limits,
    metrics::Metrics,
    socket,
    task::{Command, TaskHandle},
};

/// This peer's connections to its parents, one a parent, shared by all tasks.
///
/// A task with a bound of its own on what it takes has connections of its own: what waits unread
/// in a connection would keep other tasks' bytes behind it.
pub(crate) struct Links {
    me: PeerId,
    metrics: Metrics,
    /// The limits that bytes are under which nobody wants any more.
    limits: Limits,
    open: Mutex<HashMap<LinkKey, LinkHandle>>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

/// The parent, and the task when it has a connection of its own.
type LinkKey = (PeerId, Option<TaskId>);

/// The way to ask one parent.
#[derive(Clone)]
pub(crate) struct LinkHandle {
    pub peer: PeerId,
    orders: mpsc::Sender<Order>,
}

/// A request for one piece.
pub(crate) struct Want {
    pub attempt: AttemptId,
    pub task: TaskId,
    pub piece: PieceIndex,
    pub urgency: u32,
    pub writer: PieceWriter,
    pub pieces: Arc<TaskPieces>,
    pub limits: Limits,
    pub commands: mpsc::Sender<Command>,
}

/// A request that a link did not take.
pub(crate) struct NotTaken {
    pub want: Box<Want>,
    /// The link is no more; otherwise it has too much to do.
    pub ended: bool,
}

enum Order {
    Follow {
        task: TaskId,
        commands: mpsc::Sender<Command>,
    },
    Unfollow {
        task: TaskId,
    },
    Want(Want),
    Urge {
        attempt: AttemptId,
        task: TaskId,
        urgency: u32,
    },
    Cancel {
        attempt: AttemptId,
        task: TaskId,
    },
    AskWhetherThere,
}

const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// A parent that says nothing at all for so long, though it was asked for something, is asked whether
/// it is there. If it says nothing for as long again it is gone.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a link is kept that no task uses.
const UNUSED: Duration = Duration::from_secs(10);
/// Orders that may wait for a link to be written to; when there are more the parent counts as busy.
const ORDERS: usize = 1024;

impl Links {
    pub fn new(
        me: PeerId,
        metrics: Metrics,
        limits: Limits,
        tracker: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            me,
            metrics,
            limits,
            open: Mutex::default(),
            tracker,
            cancel,
        }
    }

    /// Has a link to a parent and follows a task there. The driver hears of it by
    /// [`Command::LinkUp`] or [`Command::LinkDown`].
    pub fn follow(self: &Arc<Self>, parent: PeerAddr, task: &TaskHandle) {
        let key = (parent.id, task.rates.own_pace.then_some(task.id));
        let mut order = Order::Follow {
            task: task.id,
            commands: task.commands.clone(),
        };
        let mut open = self.open.lock();
        if let Some(link) = open.get(&key) {
            match link.orders.try_send(order) {
                Ok(()) => return,
                // It has just ended, or is hopelessly behind: a new one.
                Err(error) => order = error.into_inner(),
            }
        }
        let handle = self.start(parent, key, &mut open);
        let _ = handle.orders.try_send(order);
    }

    /// Ends all links: this peer needs nothing more from others.
    pub fn close(&self) {
        self.cancel.cancel();
    }

    fn start(
        self: &Arc<Self>,
        parent: PeerAddr,
        key: LinkKey,
        open: &mut HashMap<LinkKey, LinkHandle>,
    ) -> LinkHandle {
        let (orders, taken) = mpsc::channel(ORDERS);
        let handle = LinkHandle {
            peer: parent.id,
            orders,
        };
        open.insert(key, handle.clone());
        let (links, link) = (self.clone(), handle.clone());
        self.tracker.spawn(async move {
            links.run(parent, key, link, taken).await;
        });
        handle
    }

    async fn run(
        &self,
        parent: PeerAddr,
        key: LinkKey,
        handle: LinkHandle,
        mut orders: mpsc::Receiver<Order>,
    ) {
        let state = LinkState::default();
        let ended = tokio::select! {
            () = self.cancel.cancelled() => crate::error::stopping(),
            error = self.connected(parent, key, &handle, &state, &mut orders) => error,
        };
        {
            let mut open = self.open.lock();
            if open
                .get(&key)
                .is_some_and(|link| link.orders.same_channel(&handle.orders))
            {
                open.remove(&key);
            }
        }
        drop(handle);
        // What was ordered but not begun fails as well.
        orders.close();
        while let Some(order) = orders.recv().await {
            match order {
                Order::Follow { task, commands } => {
                    let follower = Follower {
                        commands,
                        told: false,
                    };
                    state.inner.lock().followers.insert(task, follower);
                }
                Order::Want(want) => fail(want, Failure::Gone).await,
                Order::Unfollow { .. }
                | Order::Urge { .. }
                | Order::Cancel { .. }
                | Order::AskWhetherThere => {}
            }
        }
        let Inner {
            requests,
            followers,
            ..
        } = state.inner.into_inner();
        for (_, want) in requests {
            fail(want, Failure::Gone).await;
        }
        for Follower { commands, .. } in followers.into_values() {
            let down = Command::LinkDown {
                peer: parent.id,
                error: ended.clone(),
            };
            let _ = commands.send(down).await;
        }
    }

    /// Lives as long as the connection; gives why it ended.
    async fn connected(
        &self,
        parent: PeerAddr,
        key: LinkKey,
        handle: &LinkHandle,
        state: &LinkState,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Error {
        let unreachable = |why: String| {
            let what = format!("no connection to peer {}: {why}", parent.addr);
            Error::new(Who::Peer, Kind::Unreachable, what)
        };
        let stream = match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(parent.addr)).await
        {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return unreachable(error.to_string()),
            Err(_) => return unreachable(format!("no answer within {DIAL_TIMEOUT:?}")),
        };
        socket::prepare(&stream);
        let _level = self.metrics.link();
        let (read, write) = stream.into_split();
        let mut reader = FrameReader::new(read);
        tokio::select! {
            error = self.read(parent.id, handle, state, &mut reader) => error,
            error = self.write(key, handle, state, orders, write) => error,
        }
    }

    async fn write(
        &self,
        key: LinkKey,
        handle: &LinkHandle,
        state: &LinkState,
        orders: &mut mpsc::Receiver<Order>,
        mut io: OwnedWriteHalf,
    ) -> Error {
        let mut out = BytesMut::new();
        ToParent::hello(self.me).encode(&mut out);
        let mut next_request = 0u32;
        loop {
            if let Err(error) = io.write_all_buf(&mut out).await {
                let what = format!("the connection broke: {error}");
                return Error::new(Who::Peer, Kind::Unreachable, what);
            }
            // The handle in the table keeps the channel open: it ends when the link does.
            let ordered = async {
                match state.is_unused() {
                    false => Ok(orders.recv().await),
                    true => tokio::time::timeout(UNUSED, orders.recv()).await,
                }
            };
            let ordered = tokio::select! {
                ordered = ordered => ordered,
                () = state.tell_of_link() => continue,
            };
            let order = match ordered {
                Ok(Some(order)) => order,
                Err(_) if !self.give_up(key, handle, orders) => continue,
                Ok(None) | Err(_) => return crate::error::stopping(),
            };
            state.carry_out(order, &mut next_request, &mut out);
            while let Ok(order) = orders.try_recv() {
                state.carry_out(order, &mut next_request, &mut out);
            }
        }
    }

    /// Takes a link out of the table that no task uses, unless somebody has just ordered something: that
    /// happens with the table locked.
    fn give_up(&self, key: LinkKey, handle: &LinkHandle, orders: &mpsc::Receiver<Order>) -> bool {
        let mut open = self.open.lock();
        let unused = orders.is_empty();
        let known = open.get(&key);
        if unused && known.is_some_and(|link| link.orders.same_channel(&handle.orders)) {
            open.remove(&key);
        }
        unused
    }

    async fn read(
        &self,
        peer: PeerId,
        handle: &LinkHandle,
        state: &LinkState,
        reader: &mut FrameReader<OwnedReadHalf>,
    ) -> Error {
        let mut asked = false;
        loop {
            let greeted = state.inner.lock().greeted.is_some();
            let patience = if greeted { SILENCE } else { DIAL_TIMEOUT };
            let incoming = tokio::time::timeout(patience, reader.from_parent());
            let incoming = match incoming.await {
                Ok(Ok(Some(incoming))) => {
                    asked = false;
                    incoming
                }
                Ok(Ok(None)) => {
                    return Error::new(Who::Peer, Kind::Unreachable, "closed the connection");
                }
                Ok(Err(error)) => return error,
                // Something accepts connections there, but no peer that lives.
                Err(_) if !greeted => {
                    return Error::new(Who::Peer, Kind::Timeout, "does not greet");
                }
                Err(_) if !state.is_waiting() => continue,
                // A parent that lives has good reasons to send nothing for long: it waits itself, or
                // serves others before what nobody waits for.
                Err(_) if !std::mem::replace(&mut asked, true) => {
                    let _ = handle.orders.try_send(Order::AskWhetherThere);
                    continue;
                }
                Err(_) => return Error::new(Who::Peer, Kind::Timeout, "went silent"),
            };
            let handled = match incoming {
                Incoming::Data(frame) => self.block(state, reader, frame).await,
                Incoming::Message(message) => self.message(peer, handle, state, message).await,
            };
            if let Err(error) = handled {
                return error;
            }
        }
    }

    /// Reads a block straight into its piece.
    async fn block(
        &self,
        state: &LinkState,
        reader: &mut FrameReader<OwnedReadHalf>,
        frame: DataFrame,
    ) -> Result<()> {
        self.metrics.peer_received(frame.len as u64);
        let Some(mut want) = state.take(frame.request) else {
            self.limits.pass(frame.len).await;
            return reader.skip_data().await;
        };
        if frame.len > want.writer.remaining() {
            state.put_back(frame.request, want);
            return Err(Error::new(
                Who::Peer,
                Kind::Protocol,
                "sent more than the piece has",
            ));
        }
        let mut fresh = want.writer.position() == 0;
        let (mut left, mut may) = (frame.len, 0);
        let mut result = Ok(());
        want.pieces.filling(want.piece, want.writer.buffer(), false);
        while left > 0 {
            if may == 0 {
                may = left.min(want.limits.step());
                want.limits.pass(may).await;
            }
            match reader.read_data(&mut (&mut want.writer).limit(may)).await {
                Ok(len) => (left, may) = (left - len, may - len),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            if std::mem::take(&mut fresh) {
                want.pieces.receiving(want.piece);
            }
            want.pieces.wake_children();
        }
        state.put_back(frame.request, want);
        result
    }

    async fn message(
        &self,
        peer: PeerId,
        handle: &LinkHandle,
        state: &LinkState,
        message: ToChild,
    ) -> Result<()> {
        match message {
            ToChild::Hello { peer: found, .. } if found != peer => {
                return Err(Error::new(
                    Who::Peer,
                    Kind::Protocol,
                    "is another peer than expected",
                ));
            }
            ToChild::Hello { .. } => {
                let followers = {
                    let mut inner = state.inner.lock();
                    inner.greeted = Some(handle.clone());
                    let followers = inner.followers.values_mut();
                    let untold = followers.filter(|follower| !follower.told);
                    untold.map(Follower::tell).collect::<Vec<_>>()
                };
                for commands in followers {
                    let _ = commands
                        .send(Command::LinkUp {
                            link: handle.clone(),
                        })
                        .await;
                }
            }
            ToChild::Here => {}
            ToChild::Holds { task, runs } => {
                state.tell(task, Command::Holds { peer, runs }).await;
            }
            ToChild::Receiving { task, piece } => {
                state.tell(task, Command::Receiving { peer, piece }).await;
            }
            ToChild::Lost { task, runs } => state.tell(task, Command::Lost { peer, runs }).await,
            ToChild::Done { request, size } => {
                let want = state.inner.lock().requests.remove(&request);
                if let Some(want) = want {
                    if want.writer.position() != size as usize {
                        fail(want, Failure::Gone).await;
                        return Err(Error::new(Who::Peer, Kind::Protocol, "left bytes out"));
                    }
                    let Want {
                        attempt,
                        writer,
                        commands,
                        ..
                    } = want;
                    let buffer = writer.buffer().clone();
                    drop(writer);
                    let _ = commands.send(Command::Fetched { attempt, buffer }).await;
                }
            }
            ToChild::Refused { request, refusal } => {
                let want = state.inner.lock().requests.remove(&request);
                if let Some(want) = want {
                    let failure = match refusal {
                        Refusal::NotHere => Failure::NotHere,
                        Refusal::Busy => Failure::Busy,
                    };
                    fail(want, failure).await;
                }
            }
        }
        Ok(())
    }
}

async fn fail(want: Want, failure: Failure) {
    let Want {
        attempt,
        writer,
        commands,
        ..
    } = want;
    let writer = Some(writer);
    let _ = commands
        .send(Command::FetchFailed {
            attempt,
            failure,
            writer,
        })
        .await;
}

impl LinkHandle {
    /// Asks for a piece; gives the request back when the link has ended or takes no more.
    pub fn want(&self, want: Want) -> Result<(), NotTaken> {
        let (order, ended) = match self.orders.try_send(Order::Want(want)) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(order)) => (order, true),
            Err(mpsc::error::TrySendError::Full(order)) => (order, false),
        };
        match order {
            Order::Want(want) => Err(NotTaken {
                want: Box::new(want),
                ended,
            }),
            _ => unreachable!("the order that was sent comes back"),
        }
    }

    /// A request is not needed any more. When the link is too full to hear it the bytes come and
    /// go nowhere.
    pub fn cancel(&self, task: TaskId, attempt: AttemptId) {
        let _ = self.orders.try_send(Order::Cancel { attempt, task });
    }

    /// A request is of another urgency now. When the link is too full to hear it it stays as it is.
    pub fn urge(&self, task: TaskId, attempt: AttemptId, urgency: u32) {
        let _ = self.orders.try_send(Order::Urge {
            attempt,
            task,
            urgency,
        });
    }

    /// No more news of a task.
    pub fn unfollow(&self, task: TaskId) {
        let _ = self.orders.try_send(Order::Unfollow { task });
    }
}

/// What the two directions of a link share.
#[derive(Default)]
struct LinkState {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    requests: HashMap<u32, Want>,
    /// The request a block is being read for now: it is not among the others meanwhile.
    reading: Option<Reading>,
    numbers: HashMap<(TaskId, AttemptId), u32>,
    followers: HashMap<TaskId, Follower>,
    /// Set once the parent has said who it is.
    greeted: Option<LinkHandle>,
}

/// A request a block is being read for.
struct Reading {
    request: u32,
    task: TaskId,
    /// It was cancelled meanwhile.
    cancelled: bool,
}

impl Inner {
    /// Lets go of the request a block is being read for once the block has been read, if it is this one.
    fn cancel_reading(&mut self, is_it: impl FnOnce(&Reading) -> bool) {
        if let Some(reading) = self.reading.as_mut() {
            reading.cancelled |= is_it(reading);
        }
    }
}

/// A task's driver that wants the parent's news of that task.
struct Follower {
    commands: mpsc::Sender<Command>,
    /// Whether it knows of the link: news mean nothing to it before.
    told: bool,
}

impl Follower {
    /// Where it is to be told of the link.
    fn tell(&mut self) -> mpsc::Sender<Command> {
        self.told = true;
        self.commands.clone()
    }
}

impl LinkState {
    fn carry_out(&self, order: Order, next_request: &mut u32, out: &mut BytesMut) {
        let mut inner = self.inner.lock();
        match order {
            Order::Follow { task, commands } => {
                // A driver whose channel is full is told as soon as it has room.
                let told = inner
                    .greeted
                    .clone()
                    .is_some_and(|link| commands.try_send(Command::LinkUp { link }).is_ok());
                inner.followers.insert(task, Follower { commands, told });
                ToParent::Follow { task }.encode(out);
            }
            Order::Unfollow { task } => {
                if inner.followers.remove(&task).is_some() {
                    ToParent::Unfollow { task }.encode(out);
                }
                // The parent drops what it was asked for of the task, and nobody here waits for it: its
                // memory must not wait either.
                inner.requests.retain(|_, want| want.task != task);
                inner.cancel_reading(|reading| reading.task == task);
                inner.numbers.retain(|(of, _), _| *of != task);
            }
            Order::Want(want) => {
                let request = *next_request;
                *next_request = next_request.wrapping_add(1);
                ToParent::Want {
                    request,
                    task: want.task,
                    piece: want.piece,
                    offset: want.writer.position() as u32,
                    urgency: want.urgency,
                }
                .encode(out);
                inner.numbers.insert((want.task, want.attempt), request);
                inner.requests.insert(request, want);
            }
            Order::Urge {
                attempt,
                task,
                urgency,
            } => {
                if let Some(&request) = inner.numbers.get(&(task, attempt)) {
                    if let Some(want) = inner.requests.get_mut(&request) {
                        want.urgency = urgency;
                    }
                    ToParent::Urge { request, urgency }.encode(out);
                }
            }
            Order::Cancel { attempt, task } => {
                if let Some(request) = inner.numbers.remove(&(task, attempt)) {
                    if inner.requests.remove(&request).is_none() {
                        inner.cancel_reading(|reading| reading.request == request);
                    }
                    ToParent::Cancel { request }.encode(out);
                }
            }
            Order::AskWhetherThere => ToParent::AreYouThere.encode(out),
        }
        let Inner {
            requests, numbers, ..
        } = &mut *inner;
        if numbers.len() > 2 * requests.len() + 64 {
            numbers.retain(|_, request| requests.contains_key(request));
        }
    }

    /// Takes a request out for as long as a block of it is being read.
    fn take(&self, request: u32) -> Option<Want> {
        let mut inner = self.inner.lock();
        let want = inner.requests.remove(&request)?;
        inner.reading = Some(Reading {
            request,
            task: want.task,
            cancelled: false,
        });
        Some(want)
    }

    fn put_back(&self, request: u32, want: Want) {
        let mut inner = self.inner.lock();
        let reading = inner.reading.take();
        if reading.is_some_and(|reading| !reading.cancelled) {
            inner.requests.insert(request, want);
        }
    }

    /// Waits until a driver has room that could not be told of the link when it followed, and tells it.
    /// Without such a driver it never ends. Cancel safe.
    async fn tell_of_link(&self) {
        let untold = {
            let inner = self.inner.lock();
            let mut followers = inner.followers.iter();
            let untold = followers.find(|(_, follower)| !follower.told);
            let untold = untold.map(|(&task, follower)| (task, follower.commands.clone()));
            inner.greeted.clone().zip(untold)
        };
        let Some((link, (task, commands))) = untold else {
            return std::future::pending().await;
        };
        let room = commands.reserve().await;
        if let Some(follower) = self.inner.lock().followers.get_mut(&task) {
            // Another driver may have taken its place meanwhile.
            follower.told |= follower.commands.same_channel(&commands);
        }
        // To a driver that is no more there is nothing to say.
        if let Ok(room) = room {
            room.send(Command::LinkUp { link });
        }
    }

    /// Whether no task uses the link.
    fn is_unused(&self) -> bool {
        let inner = self.inner.lock();
        inner.followers.is_empty() && inner.requests.is_empty()
    }

    /// Whether a word of the parent is due.
    fn is_waiting(&self) -> bool {
        !self.inner.lock().requests.is_empty()
    }

    /// Gives news to a task's follower, which is told of the link before if it was not yet.
    async fn tell(&self, task: TaskId, command: Command) {
        let (commands, up) = {
            let mut inner = self.inner.lock();
            let greeted = inner.greeted.clone();
            let Some(follower) = inner.followers.get_mut(&task) else {
                return;
            };
            let up = greeted.filter(|_| !follower.told);
            if !follower.told && up.is_none() {
                return;
            }
            (follower.tell(), up)
        };
        if let Some(link) = up {
            let _ = commands.send(Command::LinkUp { link }).await;
        }
        let _ = commands.send(command).await;
    }
}

#[cfg(test)]
mod tests;
