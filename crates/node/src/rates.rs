use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::limiter::{Limiter, Limits};

/// Bounds in bytes a second; none where `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// What the node sends to all peers together.
    pub upload: Option<u64>,
    /// What it takes from all peers and origins together.
    pub download: Option<u64>,
    /// What it sends of one task.
    pub task_upload: Option<u64>,
    /// What it takes of one task.
    pub task_download: Option<u64>,
}

/// The node's limits, and where those of its tasks come from.
pub(crate) struct Rates {
    limits: RateLimits,
    upload: Option<Arc<Limiter>>,
    download: Option<Arc<Limiter>>,
}

/// The limits that one task's bytes are under.
#[derive(Debug, Clone, Default)]
pub(crate) struct TaskRates {
    pub upload: Limits,
    pub download: Limits,
    /// The task's own bound on what it takes makes it read slower than others from one parent.
    pub own_pace: bool,
}

/// The longest that a limit makes a reader's patience.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

impl Rates {
    pub fn new(limits: RateLimits) -> Self {
        Self {
            limits,
            upload: limiter(limits.upload),
            download: limiter(limits.download),
        }
    }

    /// For a new task: its own limits and the node's.
    pub fn task(&self) -> TaskRates {
        let RateLimits {
            task_upload,
            task_download,
            ..
        } = self.limits;
        TaskRates {
            upload: Limits::new(limiter(task_upload), self.upload.clone()),
            download: Limits::new(limiter(task_download), self.download.clone()),
            own_pace: task_download.is_some(),
        }
    }

    /// For what comes to this node and belongs to no task.
    pub fn download(&self) -> Limits {
        Limits::new(None, self.download.clone())
    }

    /// For a reader of what belongs to no task.
    pub fn direct(&self, limit_rate: Option<u64>) -> Limits {
        Limits::new(limiter(limit_rate), self.download.clone())
    }

    /// How long a piece that a reader waits for may stand still: where this node itself is what is
    /// slow, no parent is to blame that a piece takes as long as it must.
    pub fn patience(&self, usual: Duration, piece_size: u64) -> Duration {
        let RateLimits {
            download,
            task_download,
            ..
        } = self.limits;
        let Some(rate) = download.into_iter().chain(task_download).min() else {
            return usual;
        };
        let piece = Duration::from_secs_f64(piece_size as f64 / rate.max(1) as f64);
        usual.max(piece.min(PATIENCE_MAX))
    }
}

/// A reader's own limit.
pub(crate) fn reader(limit_rate: Option<u64>) -> Limits {
    Limits::new(limiter(limit_rate), None)
}

fn limiter(rate: Option<u64>) -> Option<Arc<Limiter>> {
    rate.map(|rate| Arc::new(Limiter::new(rate, Instant::now())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_lasts_as_long_as_a_piece_must_take() {
        let usual = Duration::from_millis(200);
        let patience = |download, task_download| {
            let rates = Rates::new(RateLimits {
                download,
                task_download,
                ..RateLimits::default()
            });
            rates.patience(usual, 1 << 20)
        };
        assert_eq!(patience(None, None), usual);
        assert_eq!(patience(Some(100 << 20), None), usual);
        assert_eq!(
            patience(Some(100 << 20), Some(1 << 20)),
            Duration::from_secs(1)
        );
        assert_eq!(patience(Some(1000), None), PATIENCE_MAX);
    }

    #[test]
    fn without_limits_there_is_nothing_to_pass() {
        let rates = Rates::new(RateLimits::default());
        let task = rates.task();
        assert!(task.upload.is_none() && task.download.is_none() && !task.own_pace);
        assert!(rates.download().is_none() && rates.direct(None).is_none());
        assert!(reader(None).is_none() && !reader(Some(1)).is_none());
    }
}
