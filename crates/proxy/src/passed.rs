//! The way of an answer that is passed on from its origin to its client.
//!
//! What is read ahead of a client that stops reading stays in memory, so it must have room there. But nobody can say
//! when an origin goes on: an event stream that waits must neither keep room nor wait for it when the next event comes.
//! What holds:
//! - While nothing of an answer is on its way, one little block of it may be read. Its client's connection has been charged for
//!   that, so it waits for nobody.
//! - More is read only at a place, in larger blocks, which the answer has from the moment it needs it until its origin pauses and the client
//!   has taken what was read. Where there is none the answer goes on in little blocks, one after the other.
//!
//! So no answer waits for memory, whatever other clients do, and one that waits for its origin holds none.
//!
//! This module must not know who is ended when places are scarce.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body as _, Frame, SizeHint};
use pantala_node::{Claim, Node, Place};
use pantala_origin::{LIMIT_MAX, LITTLE};

type Polled = Poll<Option<Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>>>;

/// The body of such an answer.
pub(crate) struct Passed {
    body: pantala_origin::Body,
    node: Node,
    /// Since more than a little was needed, until the origin pauses.
    place: Option<Place>,
    claim: Claim,
    way: Way,
}

/// What is on its way to a client.
#[derive(Clone, Default)]
struct Way(Arc<Blocks>);

#[derive(Default)]
struct Blocks {
    count: AtomicUsize,
    /// Who waits until there are none.
    waiting: AtomicWaker,
}

/// Bytes on their way. They keep the place at which they were read.
struct Block {
    bytes: Vec<u8>,
    way: Way,
    _place: Option<Place>,
}

impl Passed {
    pub fn new(body: pantala_origin::Body, node: Node) -> Self {
        Self {
            body,
            node,
            place: None,
            claim: Claim::default(),
            way: Way::default(),
        }
    }

    /// The way to ask the place back that it has when its client stands still.
    pub fn claim(&self) -> Claim {
        self.claim.clone()
    }

    /// The origin's body by itself, for a caller that keeps all of it here, within a bound.
    pub fn into_kept(self) -> pantala_origin::Body {
        debug_assert!(self.place.is_none(), "some of it is on its way");
        // Of limited reads each would keep the buffer of an unlimited one.
        self.body.limit_reads(usize::MAX);
        self.body
    }

    pub fn poll(&mut self, context: &mut Context<'_>) -> Polled {
        if self.place.is_none() && !self.way.is_empty() {
            self.place = self.enter();
            if self.place.is_none() {
                ready!(self.way.poll_empty(context));
            }
        }
        self.body.limit_reads(match self.place {
            Some(_) => LIMIT_MAX,
            None => LITTLE,
        });
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let frame = frame.map_data(|bytes| self.way.put(bytes, self.place.clone()));
                Poll::Ready(Some(Ok(frame)))
            }
            // Nothing of it is here but what is on its way.
            polled => {
                self.place = None;
                polled
            }
        }
    }

    pub fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    /// A place: the one that bytes on their way have still, or another one.
    fn enter(&self) -> Option<Place> {
        let place = self.claim.place();
        let place = place.or_else(|| self.node.place_for_passed())?;
        self.claim.is_for(&place);
        Some(place)
    }
}

impl Way {
    fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
    }

    fn poll_empty(&self, context: &mut Context<'_>) -> Poll<()> {
        self.0.waiting.register(context.waker());
        match self.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// The same bytes, counted until they are dropped.
    fn put(&self, bytes: Bytes, place: Option<Place>) -> Bytes {
        // The connection's buffer is not kept with them, so that the next read uses it again.
        let bytes = bytes.to_vec();
        self.0.count.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Block {
            bytes,
            way: self.clone(),
            _place: place,
        })
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.way.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.way.0.waiting.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;

    use super::*;

    #[test]
    fn the_way_is_empty_when_the_last_bytes_were_dropped() {
        let way = Way::default();
        let mut context = Context::from_waker(noop_waker_ref());
        assert!(way.poll_empty(&mut context).is_ready());
        let block = way.put(Bytes::from_static(b"0123"), None);
        let part = block.slice(1..2);
        drop(block);
        assert!(way.poll_empty(&mut context).is_pending());
        assert_eq!(&part[..], b"1");
        drop(part);
        assert!(way.poll_empty(&mut context).is_ready());
    }
}
