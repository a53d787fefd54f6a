use std::collections::VecDeque;

use pantala_core::{PeerId, TaskId, Time};

/// What is known of a resource: a URL, or a content's own digest.
#[derive(Debug)]
pub(crate) enum Resource {
    /// One peer asks the origin; the others wait for what it learns.
    Learning(Learning),
    /// The content behind it, fresh until then.
    Known { task: TaskId, fresh_until: Time },
    /// Not shared until then: each reader's request is its own.
    Unshareable { until: Time },
}

#[derive(Debug)]
pub(crate) struct Learning {
    pub holder: Waiting,
    pub since: Time,
    /// The content known before, if it is asked whether that is unchanged.
    pub stale: Option<TaskId>,
    pub waiting: VecDeque<Waiting>,
}

/// A reader that waits to learn what content stands behind a resource.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub peer: PeerId,
    pub start: u64,
    /// It brought credentials: the origin's refusal of somebody else is not for it.
    pub private: bool,
}
