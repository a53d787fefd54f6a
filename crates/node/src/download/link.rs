//! One connection to a parent: what is said on it, and what comes by it.
//!
//! It is driven over any two directions of bytes. It must not know how a connection is made, nor what any
//! piece is needed for.

use std::{pin::pin, time::Duration};

use bytes::{BufMut as _, BytesMut};
use pantala_core::{Error, Kind, PeerId, Result, TaskId, Who};
use pantala_window::Failure;
use pantala_wire::link::{DataFrame, FrameReader, Incoming, Refusal, ToChild, ToParent};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
};

use super::{
    followers::Followers,
    orders::{LinkHandle, Order, Want},
    requests::Requests,
};
use crate::{limiter::Limits, metrics::Metrics, task::Command};

/// One connection to a parent.
pub(super) struct Link {
    pub me: PeerId,
    /// The way to ask this parent.
    pub handle: LinkHandle,
    pub metrics: Metrics,
    /// The limits that bytes are under which nobody wants any more.
    pub limits: Limits,
    pub state: Mutex<LinkState>,
}

/// The state that the two directions of a link share.
#[derive(Default)]
pub(super) struct LinkState {
    pub requests: Requests,
    pub followers: Followers,
}

/// How long a parent may take to say who it is.
const GREETING: Duration = Duration::from_secs(2);
/// A parent that says nothing at all for so long, though it was asked for something, is asked whether
/// it is there. If it says nothing for as long again it is gone.
const SILENCE: Duration = Duration::from_secs(5);
/// Bytes of what nobody wants that are read at once.
const SKIP: usize = 16 << 10;
/// How long a link is kept that no task uses.
const UNUSED: Duration = Duration::from_secs(10);

impl Link {
    /// Lives as long as the connection; gives why it ended. A link that no task uses asks `give_up` whether
    /// it may end.
    pub async fn talk(
        &self,
        read: impl AsyncRead + Unpin,
        write: impl AsyncWrite + Unpin,
        orders: &mut mpsc::Receiver<Order>,
        give_up: impl Fn(&mpsc::Receiver<Order>) -> bool,
    ) -> Error {
        let _level = self.metrics.link();
        tokio::select! {
            error = self.read(FrameReader::new(read)) => error,
            error = self.write(orders, write, give_up) => error,
        }
    }

    /// The connection has ended, or was never made: tells all drivers what has become of what they asked
    /// for. What was ordered but not begun fails as well.
    pub async fn end(self, mut orders: mpsc::Receiver<Order>, why: Error) {
        let peer = self.handle.peer;
        drop(self.handle);
        orders.close();
        let LinkState {
            requests,
            mut followers,
        } = self.state.into_inner();
        while let Some(order) = orders.recv().await {
            match order {
                Order::Follow { task, commands } => followers.follow_in_vain(task, commands),
                Order::Want(want) => want.fail(Failure::Gone).await,
                Order::Unfollow { .. }
                | Order::Urge { .. }
                | Order::Cancel { .. }
                | Order::AskWhetherThere => {}
            }
        }
        for want in requests.end_all() {
            want.fail(Failure::Gone).await;
        }
        for commands in followers.end() {
            let error = why.clone();
            let _ = commands.send(Command::LinkDown { peer, error }).await;
        }
    }

    async fn write(
        &self,
        orders: &mut mpsc::Receiver<Order>,
        mut io: impl AsyncWrite + Unpin,
        give_up: impl Fn(&mpsc::Receiver<Order>) -> bool,
    ) -> Error {
        let mut out = BytesMut::new();
        ToParent::hello(self.me).encode(&mut out);
        loop {
            if let Err(error) = io.write_all_buf(&mut out).await {
                let what = format!("the connection broke: {error}");
                return Error::new(Who::Peer, Kind::Unreachable, what);
            }
            // The handle in the table keeps the channel open: it ends when the link does.
            let ordered = async {
                match self.is_unused() {
                    false => Ok(orders.recv().await),
                    true => tokio::time::timeout(UNUSED, orders.recv()).await,
                }
            };
            let ordered = tokio::select! {
                ordered = ordered => ordered,
                () = self.tell_of_link() => continue,
            };
            let order = match ordered {
                Ok(Some(order)) => order,
                Err(_) if !give_up(orders) => continue,
                Ok(None) | Err(_) => return crate::error::stopping(),
            };
            self.carry_out(order, &mut out);
            while let Ok(order) = orders.try_recv() {
                self.carry_out(order, &mut out);
            }
        }
    }

    pub(super) fn carry_out(&self, order: Order, out: &mut BytesMut) {
        let LinkState {
            requests,
            followers,
        } = &mut *self.state.lock();
        let message = match order {
            Order::Follow { task, commands } => {
                followers.follow(task, commands);
                Some(ToParent::Follow { task })
            }
            Order::Unfollow { task } => {
                requests.cancel_all_of(task);
                let followed = followers.unfollow(task);
                followed.then_some(ToParent::Unfollow { task })
            }
            Order::Want(want) => Some(requests.ask(want)),
            Order::Urge {
                attempt,
                task,
                urgency,
            } => requests.urge(task, attempt, urgency),
            Order::Cancel { attempt, task } => requests.cancel(task, attempt),
            Order::AskWhetherThere => Some(ToParent::AreYouThere),
        };
        if let Some(message) = message {
            message.encode(out);
        }
    }

    /// Waits until a driver has room that could not be told of the link when it followed, and tells it.
    /// Without such a driver it never ends. Cancel safe.
    async fn tell_of_link(&self) {
        let untold = self.state.lock().followers.untold();
        let Some((link, task, commands)) = untold else {
            return std::future::pending().await;
        };
        let room = commands.reserve().await;
        self.state.lock().followers.was_told(task, &commands);
        // To a driver that is no more there is nothing to say.
        if let Ok(room) = room {
            room.send(Command::LinkUp { link });
        }
    }

    /// Whether no task uses the link.
    fn is_unused(&self) -> bool {
        let state = self.state.lock();
        state.followers.is_empty() && state.requests.is_empty()
    }

    async fn read<R: AsyncRead + Unpin>(&self, mut reader: FrameReader<R>) -> Error {
        loop {
            let handled = match self.next(&mut reader).await {
                Ok(Incoming::Data(frame)) => self.block(&mut reader, frame).await,
                Ok(Incoming::Message(message)) => self.message(message).await,
                Err(error) => Err(error),
            };
            if let Err(error) = handled {
                return error;
            }
        }
    }

    async fn next<R: AsyncRead + Unpin>(&self, reader: &mut FrameReader<R>) -> Result<Incoming> {
        let next = reader.from_parent();
        let incoming = if self.state.lock().followers.is_greeted() {
            self.patiently(next, || !self.state.lock().requests.is_empty())
                .await?
        } else {
            // Something may accept connections there, but no peer that lives.
            let greeting = tokio::time::timeout(GREETING, next).await;
            greeting.map_err(|_| Error::new(Who::Peer, Kind::Timeout, "does not greet"))??
        };
        incoming.ok_or_else(|| Error::new(Who::Peer, Kind::Unreachable, "closed the connection"))
    }

    /// Waits for what the parent sends next. While something `is_due`, it must say a word now and then; one
    /// that lives has good reasons to send nothing for long: it waits itself, or serves others before what
    /// nobody waits for.
    async fn patiently<T>(
        &self,
        next: impl Future<Output = Result<T>>,
        is_due: impl Fn() -> bool,
    ) -> Result<T> {
        let mut next = pin!(next);
        let mut asked = false;
        loop {
            if let Ok(next) = tokio::time::timeout(SILENCE, &mut next).await {
                return next;
            }
            if !is_due() {
                asked = false;
            } else if std::mem::replace(&mut asked, true) {
                return Err(Error::new(Who::Peer, Kind::Timeout, "went silent"));
            } else {
                let _ = self.handle.orders.try_send(Order::AskWhetherThere);
            }
        }
    }

    /// Reads a block straight into its piece. A parent that stalls within it keeps all else that it was asked
    /// for behind it, and the memory of this piece, whoever wants that still.
    async fn block<R: AsyncRead + Unpin>(
        &self,
        reader: &mut FrameReader<R>,
        frame: DataFrame,
    ) -> Result<()> {
        self.metrics.peer_received(frame.len as u64);
        let Some(mut being_read) = BeingRead::take(&self.state, frame.request) else {
            self.limits.pass(frame.len).await;
            return self.skip(reader, frame.len).await;
        };
        let want = being_read.want();
        if frame.len > want.writer.remaining() {
            let what = "sent more than the piece has";
            return Err(Error::new(Who::Peer, Kind::Protocol, what));
        }
        let (mut left, mut may) = (frame.len, 0);
        while left > 0 {
            if may == 0 {
                may = left.min(want.limits.step());
                want.limits.pass(may).await;
            }
            let mut room = (&mut want.writer).limit(may);
            let len = self.patiently(reader.read_data(&mut room), || true).await?;
            (left, may) = (left - len, may - len);
            want.arrival.show(want.piece, want.writer.buffer());
        }
        Ok(())
    }

    /// Reads a block that nobody wants.
    async fn skip<R: AsyncRead + Unpin>(
        &self,
        reader: &mut FrameReader<R>,
        mut left: usize,
    ) -> Result<()> {
        let mut sink = BytesMut::with_capacity(left.min(SKIP));
        while left > 0 {
            sink.clear();
            let mut room = (&mut sink).limit(left.min(SKIP));
            left -= self.patiently(reader.read_data(&mut room), || true).await?;
        }
        Ok(())
    }

    async fn message(&self, message: ToChild) -> Result<()> {
        let peer = self.handle.peer;
        match message {
            ToChild::Hello { peer: found, .. } if found != peer => {
                return Err(Error::new(
                    Who::Peer,
                    Kind::Protocol,
                    "is another peer than expected",
                ));
            }
            ToChild::Hello { .. } => {
                let link = &self.handle;
                let untold = self.state.lock().followers.greet(link.clone());
                for commands in untold {
                    let link = link.clone();
                    let _ = commands.send(Command::LinkUp { link }).await;
                }
            }
            ToChild::Here => {}
            ToChild::Holds { task, runs } => self.tell(task, Command::Holds { peer, runs }).await,
            ToChild::Receiving { task, piece } => {
                self.tell(task, Command::Receiving { peer, piece }).await;
            }
            ToChild::Lost { task, runs } => self.tell(task, Command::Lost { peer, runs }).await,
            ToChild::Done { request, size } => {
                let want = self.state.lock().requests.end(request);
                match want {
                    Some(want) if want.writer.position() == size as usize => want.finish().await,
                    Some(want) => {
                        want.fail(Failure::Gone).await;
                        return Err(Error::new(Who::Peer, Kind::Protocol, "left bytes out"));
                    }
                    None => {}
                }
            }
            ToChild::Refused { request, refusal } => {
                let want = self.state.lock().requests.end(request);
                if let Some(want) = want {
                    let failure = match refusal {
                        Refusal::NotHere => Failure::NotHere,
                        Refusal::Busy => Failure::Busy,
                    };
                    want.fail(failure).await;
                }
            }
        }
        Ok(())
    }

    /// Gives news to a task's follower, which is told of the link before if it was not yet.
    async fn tell(&self, task: TaskId, command: Command) {
        let Some((commands, untold)) = self.state.lock().followers.of(task) else {
            return;
        };
        if let Some(link) = untold {
            let _ = commands.send(Command::LinkUp { link }).await;
        }
        let _ = commands.send(command).await;
    }
}

/// A request that a block is being read for. However the reading ends, by an error or with the whole link,
/// the request goes back among the others, so that its driver hears what has become of it.
struct BeingRead<'a> {
    state: &'a Mutex<LinkState>,
    request: u32,
    /// `None` only while it is dropped.
    want: Option<Want>,
}

impl<'a> BeingRead<'a> {
    fn take(state: &'a Mutex<LinkState>, request: u32) -> Option<Self> {
        let want = Some(state.lock().requests.take(request)?);
        Some(Self {
            state,
            request,
            want,
        })
    }

    fn want(&mut self) -> &mut Want {
        match &mut self.want {
            Some(want) => want,
            None => unreachable!("it is taken when this is dropped"),
        }
    }
}

impl Drop for BeingRead<'_> {
    fn drop(&mut self) {
        if let Some(want) = self.want.take() {
            self.state.lock().requests.put_back(self.request, want);
        }
    }
}
