//! What is known of resources: which content stands behind a URL for one class of requests, what the
//! answer says, and how old that is. Nothing is decided here about the content's pieces.

use std::{collections::VecDeque, time::Duration};

use pantala_core::{ContentMeta, Error, PeerId, TaskId, Time};

use crate::outage::Outage;

/// What is known of a resource: one URL for one class of requests.
#[derive(Debug)]
pub(crate) enum Resource {
    /// One peer asks the origin; the others wait for what it learns.
    Learning(Learning),
    /// The content behind it.
    Known(Standing),
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
}

#[derive(Debug)]
pub(crate) struct Learning {
    pub holder: Waiting,
    /// The content that may be what stands there, if it is asked whether it does.
    pub stale: Option<TaskId>,
    /// What stands there was changed meanwhile: what is learned may be what stood there before.
    pub changed: bool,
    pub waiting: VecDeque<Waiting>,
    /// The origin's failures, whoever of those that asked it met them.
    pub outage: Outage,
}

/// A reader that waits to learn what content stands behind a resource.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub peer: PeerId,
    pub start: u64,
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
        }
    }

    /// The answer holds no more: the origin has to say what stands there now.
    pub fn end(&mut self) {
        self.fresh_for = Duration::ZERO;
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
