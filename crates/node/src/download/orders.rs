//! The orders that drivers give to a link. Nothing here waits: a link that is too far behind does not hear one.

use std::sync::Arc;

use pantala_core::{PeerId, PieceIndex, TaskId};
use pantala_store::{Arrival, PieceWriter};
use pantala_window::{AttemptId, Failure};
use tokio::sync::mpsc;

use crate::{limiter::Limits, task::Command};

/// The way to ask one parent.
#[derive(Clone)]
pub(crate) struct LinkHandle {
    pub peer: PeerId,
    pub(super) orders: mpsc::Sender<Order>,
}

/// A request for one piece.
pub(crate) struct Want {
    pub attempt: AttemptId,
    pub task: TaskId,
    pub piece: PieceIndex,
    pub urgency: u32,
    pub writer: PieceWriter,
    /// Where it shows what it brings.
    pub arrival: Arc<Arrival>,
    pub limits: Limits,
    pub commands: mpsc::Sender<Command>,
}

/// A request that a link did not take.
pub(crate) struct NotTaken {
    pub want: Box<Want>,
    /// The link is no more; otherwise it has too much to do.
    pub ended: bool,
}

pub(super) enum Order {
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

/// Orders that may wait for a link to be written to; when there are more the parent counts as busy.
const ORDERS: usize = 1024;

impl LinkHandle {
    /// The way to ask a parent, and the other end of it.
    pub(super) fn new(peer: PeerId) -> (Self, mpsc::Receiver<Order>) {
        let (orders, taken) = mpsc::channel(ORDERS);
        (Self { peer, orders }, taken)
    }

    /// Whether both lead to the same connection.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.orders.same_channel(&other.orders)
    }

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
    /// go nowhere: the driver has ended the request's arrival.
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

impl Want {
    /// Tells the driver that the request has failed; what it has of the piece can be gone on with.
    pub(super) async fn fail(self, failure: Failure) {
        let Self {
            attempt,
            writer,
            commands,
            ..
        } = self;
        let writer = Some(writer);
        let failed = Command::FetchFailed {
            attempt,
            failure,
            writer,
        };
        let _ = commands.send(failed).await;
    }

    /// Tells the driver that all bytes are here.
    pub(super) async fn finish(self) {
        let Self {
            attempt,
            writer,
            commands,
            ..
        } = self;
        let buffer = writer.buffer().clone();
        drop(writer);
        let _ = commands.send(Command::Fetched { attempt, buffer }).await;
    }
}
