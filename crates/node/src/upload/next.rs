//! What can be done for a child's requests right now.
//!
//! The most urgent request that something can be done for is served, a block at a time. Nothing here writes or waits.

use bytes::Bytes;
use pantala_core::{BLOCK_MAX, TaskId};
use tokio::time::Instant;

use super::{child::Child, news::Followed, requests::Request};

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
        // Whatever is more urgent, and may be waiting for a slot.
        if let Some(at) = self.requests.waiting_in_vain() {
            return Next::Refuse { at };
        }
        self.again = None;
        self.place.begin();
        let mut held_up: Vec<TaskId> = Vec::new();
        for (at, request) in self.requests.by_urgency() {
            let Some(followed) = self.news.get_mut(&request.task) else {
                debug_assert!(request.awaits_task(), "the news do not know its task");
                continue;
            };
            debug_assert!(!request.awaits_task(), "the news know its task");
            let present = followed.present(request.piece);
            let complete = present.as_ref().is_some_and(|(_, complete)| *complete);
            request.awaits(followed, !complete);
            let Some((buffer, _)) = present else {
                if followed.is_hopeless(request.piece, request.sent()) {
                    return Next::Refuse { at };
                }
                continue;
            };
            let there = buffer.len();
            if there <= request.sent() {
                if complete {
                    return Next::Finish { at, size: there };
                }
                continue;
            }
            let own_pace = request.slot().is_some_and(|slot| slot.is_own_pace());
            // One place in line for all requests of a task: the most urgent one has it.
            if !self.place.admits(request.is_background(), own_pace)
                || held_up.contains(&request.task)
            {
                continue;
            }
            match pass(followed, request, there) {
                Ok(end) => {
                    let block = buffer.slice(request.sent()..end);
                    return Next::Send { at, block };
                }
                Err(again) => {
                    self.again = Some(self.again.map_or(again, |other| other.min(again)));
                    held_up.push(request.task);
                }
            }
        }
        self.place.end();
        Next::Nothing
    }
}

/// Up to which byte a request may be sent now of those that are `there`; or when to look again, if a limit
/// holds it up. What has passed the limits stays so until it is sent.
fn pass(followed: &mut Followed, request: &Request, there: usize) -> Result<usize, Instant> {
    let end = there.min(request.sent() + BLOCK);
    let limits = &followed.handle.rates.upload;
    if limits.is_none() {
        return Ok(end);
    }
    let passage = &mut followed.passage;
    let len = match passage.bytes() {
        0 => limits.step().min(end - request.sent()),
        len => len,
    };
    let now = Instant::now();
    if request.is_background() {
        passage.give_way(limits, now, len)?;
    } else {
        passage.go_on(limits, now, len)?;
    }
    Ok(end.min(request.sent() + len))
}
