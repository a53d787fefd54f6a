//! What is known of resources: which content stands behind a URL for one class of requests, what the
//! answer says, and how old that is. Nothing is decided here about the content's pieces.

use std::{collections::VecDeque, time::Duration};

use pantala_core::{ContentMeta, Error, PeerId, TaskId, Time, control::Serial};

use crate::outage::Outage;

/// What is known of a resource: one URL for one class of requests.
#[derive(Debug)]
pub(crate) enum Resource {
    /// One peer asks the origin; the others wait for what it learns.
    Learning(Learning),
    /// The content behind it.
    Known(Standing),
    /// What stood there was changed, and nobody has asked the origin with success since. Until then nobody's
    /// earlier word is taken for what stands there.
    Changed { until: Time },
    /// Not shared until then: each reader's request is its own.
    Unshareable { until: Time },
    /// The origin asked not to be asked before then; what it said is everybody's answer.
    Paused { error: Error, until: Time },
}

/// The content that stands behind a resource, and the answer that said so.
#[derive(Debug)]
pub(crate) struct Standing {
    pub task: TaskId,
    /// The answer; its age and freshness count from `at`.
    meta: Box<ContentMeta>,
    at: Time,
    fresh_for: Duration,
    /// What stands there was changed since. Only who asks the origin afterwards can say what it is now.
    changed: bool,
}

#[derive(Debug)]
pub(crate) struct Learning {
    pub holder: Waiting,
    /// The content that may be what stands there, if it is asked whether it does.
    pub stale: Option<TaskId>,
    /// What stands there was changed meanwhile: what is learned may be what stood there before.
    pub changed: bool,
    /// What stood there was changed before the holder asked: no other peer's word is as good, because
    /// nobody knows when that one asked.
    pub after_change: bool,
    pub waiting: VecDeque<Waiting>,
    /// The origin's failures, whoever of those that asked it met them.
    pub outage: Outage,
}

/// A reader that waits to learn what content stands behind a resource.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub peer: PeerId,
    /// The request of that peer.
    pub serial: Serial,
    pub start: u64,
}

impl Waiting {
    /// Whether it is the very request of that peer.
    pub fn is_same_request(&self, other: &Self) -> bool {
        (self.peer, self.serial) == (other.peer, other.serial)
    }
}

impl Learning {
    /// Whether a peer asks the origin for it, or waits.
    pub fn concerns(&self, peer: PeerId) -> bool {
        self.holder.peer == peer || self.waiting.iter().any(|waiting| waiting.peer == peer)
    }

    /// Whether only the holder can say what stands there, and not whoever asked at some time.
    pub fn needs_holder(&self) -> bool {
        self.changed || self.after_change
    }
}

impl Standing {
    /// An answer that says now what stands there; `fresh_for` is how long it holds where the answer
    /// does not say.
    pub fn new(task: TaskId, meta: ContentMeta, fresh_for: Duration, now: Time) -> Self {
        Self {
            task,
            fresh_for: meta.fresh_for.unwrap_or(fresh_for),
            meta: meta.into(),
            at: now,
            changed: false,
        }
    }

    /// What stands there was changed: the origin has to say what it is now.
    pub fn end(&mut self) {
        self.fresh_for = Duration::ZERO;
        self.changed = true;
    }

    /// Whether what stands there was changed since the origin said this.
    pub fn was_changed(&self) -> bool {
        self.changed
    }

    pub fn is_fresh(&self, now: Time) -> bool {
        now.since(self.at) < self.fresh_for
    }

    /// How long ago the origin said it.
    pub fn age(&self, now: Time) -> Duration {
        self.meta.age.saturating_add(now.since(self.at))
    }

    /// The answer as it is to be said now.
    pub fn meta(&self, now: Time) -> ContentMeta {
        ContentMeta {
            age: self.age(now),
            fresh_for: Some(self.fresh_for.saturating_sub(now.since(self.at))),
            ..ContentMeta::clone(&self.meta)
        }
    }
}
