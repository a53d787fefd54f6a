//! The table of parents and the connections to them: dialling, sharing among tasks, ending.
//!
//! It must not look into what is asked of a parent, nor decide which parents there are.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use pantala_core::{Error, Kind, PeerId, Result, TaskId, Who, control::PeerAddr};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    link::Link,
    orders::{LinkHandle, Order},
};
use crate::{error, limiter::Limits, metrics::Metrics, socket, task::TaskHandle};

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

/// How long a parent may take to accept a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// [`Command::LinkUp`](crate::task::Command::LinkUp) or
    /// [`Command::LinkDown`](crate::task::Command::LinkDown).
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
        let handle = self.start(key, dial(parent.addr), &mut open);
        let _ = handle.orders.try_send(order);
    }

    /// Ends all links: this peer needs nothing more from others.
    pub fn close(&self) {
        self.cancel.cancel();
    }

    /// Makes a link over what `connect` brings.
    fn start<R, W>(
        self: &Arc<Self>,
        key: LinkKey,
        connect: impl Future<Output = Result<(R, W)>> + Send + 'static,
        open: &mut HashMap<LinkKey, LinkHandle>,
    ) -> LinkHandle
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (handle, orders) = LinkHandle::new(key.0);
        open.insert(key, handle.clone());
        let link = Link {
            me: self.me,
            handle: handle.clone(),
            metrics: self.metrics.clone(),
            limits: self.limits.clone(),
            state: Mutex::default(),
        };
        let links = self.clone();
        self.tracker
            .spawn(async move { links.run(key, link, connect, orders).await });
        handle
    }

    async fn run<R, W>(
        &self,
        key: LinkKey,
        link: Link,
        connect: impl Future<Output = Result<(R, W)>>,
        mut orders: mpsc::Receiver<Order>,
    ) where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let connected = async {
            let (read, write) = match connect.await {
                Ok(stream) => stream,
                Err(error) => return error,
            };
            let give_up = |orders: &mpsc::Receiver<Order>| self.give_up(key, &link.handle, orders);
            link.talk(read, write, &mut orders, give_up).await
        };
        let ended = tokio::select! {
            () = self.cancel.cancelled() => error::stopping(),
            error = connected => error,
        };
        self.forget(key, &link.handle, &mut self.open.lock());
        link.end(orders, ended).await;
    }

    /// Takes a link out of the table that no task uses, unless somebody has just ordered something: that
    /// happens with the table locked.
    fn give_up(&self, key: LinkKey, handle: &LinkHandle, orders: &mpsc::Receiver<Order>) -> bool {
        let mut open = self.open.lock();
        let unused = orders.is_empty();
        if unused {
            self.forget(key, handle, &mut open);
        }
        unused
    }

    /// Takes a link out of the table, unless another one has taken its place.
    fn forget(&self, key: LinkKey, handle: &LinkHandle, open: &mut HashMap<LinkKey, LinkHandle>) {
        if open.get(&key).is_some_and(|link| link.is_same(handle)) {
            open.remove(&key);
        }
    }
}

/// Makes a connection to a parent.
async fn dial(addr: SocketAddr) -> Result<(OwnedReadHalf, OwnedWriteHalf)> {
    let unreachable = |why: String| {
        let what = format!("no connection to peer {addr}: {why}");
        Error::new(Who::Peer, Kind::Unreachable, what)
    };
    match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(addr)).await {
        Ok(Ok(stream)) => {
            socket::prepare(&stream);
            Ok(stream.into_split())
        }
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("no answer within {DIAL_TIMEOUT:?}"))),
    }
}

#[cfg(test)]
impl Links {
    /// Makes a link over a connection that is there, to be followed by as if it had been dialled.
    pub fn connect<R, W>(self: &Arc<Self>, parent: PeerId, read: R, write: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let connected = std::future::ready(Ok((read, write)));
        self.start((parent, None), connected, &mut self.open.lock());
    }

    /// How many connections there are.
    pub fn count(&self) -> usize {
        self.open.lock().len()
    }
}
