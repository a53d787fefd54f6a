//! What can be done for a child's requests right now.
//!
//! The most urgent request that something can be done for is served, a block at a time. Nothing here writes or waits.

use bytes::Bytes;
use pantala_core::{BLOCK_MAX, TaskId};
use pantala_store::Slot as Present;
use tokio::time::Instant;

use super::{
    child::Child,
    news::{Followed, UNKNOWN_TASK},
    requests::Request,
};

/// Bytes written to one child before others of its requests, and its messages, are looked at.
const BLOCK: usize = BLOCK_MAX;

/// What can be done for a request right now.
pub(super) enum Next {
    Send { at: usize, block: Bytes },
    Finish { at: usize, size: usize },
    Refuse { at: usize },
    Nothing,
}

impl<W> Child<'_, W> {
    /// The most urgent request that something can be done for. A request that is being sent is
    /// finished before another of the same urgency is begun. Background is sent only when no child
    /// has a foreground request that something could be done for.
    pub(super) fn next(&mut self) -> Next {
        self.again = None;
        self.place.set_yields(false);
        let mut held_up: Vec<TaskId> = Vec::new();
        let mut claims = false;
        for (at, request) in self.requests.by_urgency() {
            let Some(followed) = self.news.get_mut(&request.task) else {
                debug_assert!(request.awaits_task());
                if request.since.elapsed() >= UNKNOWN_TASK {
                    return Next::Refuse { at };
                }
                continue;
            };
            debug_assert!(!request.awaits_task());
            let background = request.is_background();
            let (buffer, complete) = match followed.handle.pieces.slot(request.piece) {
                Present::Held(buffer) => (buffer, true),
                Present::Filling { buffer, .. } => {
                    let complete = buffer.len() == buffer.capacity();
                    (buffer, complete)
                }
                Present::Missing => {
                    if followed.is_hopeless(request.piece, request.sent) {
                        return Next::Refuse { at };
                    }
                    request.awaits(followed, !background);
                    continue;
                }
            };
            request.awaits(followed, !background && !complete);
            let there = buffer.len();
            if there <= request.sent {
                if complete {
                    return Next::Finish { at, size: there };
                }
                continue;
            }
            if background {
                if !claims {
                    self.place.leave();
                }
                if claims || !self.place.line().is_free() {
                    self.place.set_yields(true);
                    continue;
                }
            } else if !request.slot().is_some_and(|slot| slot.is_own_pace()) {
                claims = true;
                self.place.claim();
            }
            if held_up.contains(&request.task) {
                // One place in line for all requests of a task: the most urgent one has it.
                continue;
            }
            match pass(followed, request, there) {
                Ok(end) => {
                    let block = buffer.slice(request.sent..end);
                    return Next::Send { at, block };
                }
                Err(again) => {
                    self.again = Some(self.again.map_or(again, |other| other.min(again)));
                    held_up.push(request.task);
                }
            }
        }
        if !claims {
            self.place.leave();
        }
        Next::Nothing
    }
}

/// Up to which byte a request may be sent now of those that are `there`; or when to look again, if a limit
/// holds it up.
fn pass(followed: &mut Followed, request: &Request, there: usize) -> Result<usize, Instant> {
    let end = there.min(request.sent + BLOCK);
    let limits = &followed.handle.rates.upload;
    if limits.is_none() {
        return Ok(end);
    }
    let passage = &mut followed.passage;
    let len = match passage.bytes() {
        0 => limits.step().min(end - request.sent),
        len => len,
    };
    let now = Instant::now();
    if request.is_background() {
        passage.give_way(limits, now, len)?;
    } else {
        passage.go_on(limits, now, len)?;
    }
    followed.passage = Default::default();
    Ok(end.min(request.sent + len))
}
