//! From a bounded queue of messages to frames: what is queued when the connection can take more
//! goes into one frame. Nothing waits for company.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use pantala_core::control::{FromPeer, ToPeer};
use prost::Message as _;
use tokio::sync::mpsc;

use super::proto;

/// A frame is closed when it has this many bytes, so that a few large messages do not make one
/// that is past the receiver's bound.
const FULL: usize = 64 << 10;

/// What a frame is made of.
pub(super) trait Frame: Default {
    type Message;

    /// Adds a message; says how many bytes it takes.
    fn push(&mut self, message: Self::Message) -> usize;
}

impl Frame for proto::PeerFrame {
    type Message = FromPeer;

    fn push(&mut self, message: FromPeer) -> usize {
        let message = proto::FromPeer::from(message);
        let len = message.encoded_len();
        self.messages.push(message);
        len
    }
}

impl Frame for proto::SupernodeFrame {
    type Message = ToPeer;

    fn push(&mut self, message: ToPeer) -> usize {
        let message = proto::ToPeer::from(message);
        let len = message.encoded_len();
        self.messages.push(message);
        len
    }
}

/// Moves what is queued into `frame`. `Ready(true)` when there was something, `Ready(false)` when
/// the queue is empty and will stay so.
fn fill<F: Frame>(
    queue: &mut mpsc::Receiver<F::Message>,
    frame: &mut F,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    let Some(message) = ready!(queue.poll_recv(cx)) else {
        return Poll::Ready(false);
    };
    let mut bytes = frame.push(message);
    while bytes < FULL {
        // Its end, should it be there, comes up again with the next frame.
        let Poll::Ready(Some(message)) = queue.poll_recv(cx) else {
            break;
        };
        bytes += frame.push(message);
    }
    Poll::Ready(true)
}

/// A stream of frames from a queue; ends when all senders are gone and the queue is empty.
pub(super) struct Outgoing<F: Frame> {
    queue: mpsc::Receiver<F::Message>,
    /// The first frame, when it has something besides queued messages.
    first: Option<F>,
}

impl<F: Frame> Outgoing<F> {
    pub(super) fn new(queue: mpsc::Receiver<F::Message>, first: Option<F>) -> Self {
        Self { queue, first }
    }
}

impl<F: Frame + Unpin> Stream for Outgoing<F> {
    type Item = F;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F>> {
        let this = &mut *self;
        if let Some(mut frame) = this.first.take() {
            let _ = fill(&mut this.queue, &mut frame, cx);
            return Poll::Ready(Some(frame));
        }
        let mut frame = F::default();
        let more = ready!(fill(&mut this.queue, &mut frame, cx));
        Poll::Ready(more.then_some(frame))
    }
}
