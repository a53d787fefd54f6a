//! Interim answers (1xx) on their way to a client.
//!
//! hyper reads them from origins and has no way to send them to clients. They are put between the
//! answers where those go out to the connection: before the first byte of the answer that they
//! precede, and only where nothing of an earlier one is still to be written.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::Waker,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use http::{HeaderMap, StatusCode};
use pantala_origin::Interim;
use parking_lot::Mutex;

/// The most bytes that wait for one client. What is more is left out: a client can do without.
const MOST: usize = 64 << 10;

/// What waits to be sent to one client before its answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interims(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: AtomicU8,
    waiting: Mutex<BytesMut>,
    /// Who writes to the client.
    writer: AtomicWaker,
}

/// Nothing waits.
const NOTHING: u8 = 0;
/// Something waits, and the answer is still to come.
const WAITING: u8 = 1;
/// Something waits, and the answer is about to be written.
const ANSWERED: u8 = 2;

impl Interims {
    /// Takes what an origin says before its answer.
    pub fn listener(&self) -> Interim {
        let this = self.clone();
        Interim::new(move |status, headers| this.put(status, headers))
    }

    fn put(&self, status: StatusCode, headers: &HeaderMap) {
        let mut head = BytesMut::new();
        let reason = status.canonical_reason().unwrap_or_default();
        head.put_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).as_bytes());
        for (name, value) in headers {
            head.put_slice(name.as_str().as_bytes());
            head.put_slice(b": ");
            head.put_slice(value.as_bytes());
            head.put_slice(b"\r\n");
        }
        head.put_slice(b"\r\n");
        let mut waiting = self.0.waiting.lock();
        if waiting.len() + head.len() <= MOST {
            waiting.unsplit(head);
            self.0.state.store(WAITING, Ordering::Relaxed);
            drop(waiting);
            // The origin may have been heard by another task.
            self.0.writer.wake();
        }
    }

    /// Whoever writes to the client is woken when there is something to take.
    pub fn wake(&self, writer: &Waker) {
        self.0.writer.register(writer);
    }

    /// The answer to the request is there and will be written next.
    pub fn answered(&self) {
        let state = &self.0.state;
        let _ = state.compare_exchange(WAITING, ANSWERED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// What must go out before anything else. `between` says that nothing of an answer is still to
    /// be written, and `flushing` that no answer is about to begin. What has come too late is left
    /// out.
    pub fn take(&self, between: bool, flushing: bool) -> Option<Bytes> {
        let state = self.0.state.load(Ordering::Relaxed);
        let late = state == ANSWERED && (flushing || !between);
        if state == NOTHING || (!between && !late) {
            return None;
        }
        let mut waiting = self.0.waiting.lock();
        self.0.state.store(NOTHING, Ordering::Relaxed);
        let taken = std::mem::take(&mut *waiting).freeze();
        (!late && !taken.is_empty()).then_some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(interims: &Interims) {
        interims.put(StatusCode::from_u16(103).unwrap(), &HeaderMap::new());
    }

    #[test]
    fn they_go_out_between_answers_only() {
        let interims = Interims::default();
        assert_eq!(interims.take(true, true), None);
        hint(&interims);
        assert_eq!(interims.take(false, false), None);
        let hint_alone = "HTTP/1.1 103 Early Hints\r\n\r\n";
        assert_eq!(interims.take(true, true).unwrap(), hint_alone);
        assert_eq!(interims.take(true, true), None);
    }

    #[test]
    fn they_go_before_their_answer_or_not_at_all() {
        let interims = Interims::default();
        hint(&interims);
        interims.answered();
        assert!(interims.take(true, false).is_some());
        hint(&interims);
        interims.answered();
        assert_eq!(interims.take(false, false), None);
        assert_eq!(interims.take(true, false), None, "of the answer before");
        hint(&interims);
        interims.answered();
        assert_eq!(interims.take(true, true), None);
    }

    #[test]
    fn what_is_too_much_is_left_out() {
        let interims = Interims::default();
        (0..10_000).for_each(|_| hint(&interims));
        assert!(interims.take(true, true).unwrap().len() <= MOST);
    }
}
