//! What this node knows URLs to answer: which content stands behind a resource, what the answer says
//! and how old it is. Bounded; nothing is asked of anybody here, and time comes in from outside.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hashlink::LruCache;
use pantala_core::{ContentMeta, ResourceKey, TaskId};
use parking_lot::Mutex;

/// Resources that are remembered. What has not been asked for longest is forgotten; it is only asked
/// for again.
const REMEMBERED: usize = 4096;

/// What stands behind a resource, and the answer that said so.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub task: TaskId,
    /// The answer; its age and freshness count from `at`.
    meta: Arc<ContentMeta>,
    at: Instant,
}

/// The resources that a node knows.
pub(crate) struct Shelf {
    known: Mutex<LruCache<ResourceKey, Standing>>,
}

impl Standing {
    fn age(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.at);
        self.meta.age.saturating_add(since)
    }

    fn fresh_for(&self, now: Instant) -> Duration {
        let fresh_for = self.meta.fresh_for.unwrap_or_default();
        fresh_for.saturating_sub(now.saturating_duration_since(self.at))
    }

    /// Bytes of the whole content, where the answer said so.
    pub fn length(&self) -> Option<u64> {
        self.meta.length
    }

    /// The answer as it is to be given now.
    pub fn meta(&self, now: Instant) -> ContentMeta {
        ContentMeta {
            age: self.age(now),
            fresh_for: Some(self.fresh_for(now)),
            ..ContentMeta::clone(&self.meta)
        }
    }
}

impl Shelf {
    pub fn new() -> Self {
        Self {
            known: LruCache::new(REMEMBERED).into(),
        }
    }

    /// Notes what stands behind a resource, unless something younger is known of it.
    pub fn put(&self, key: ResourceKey, task: TaskId, meta: ContentMeta, now: Instant) {
        let mut known = self.known.lock();
        let standing = Standing {
            task,
            meta: meta.into(),
            at: now,
        };
        let younger = |other: &Standing| other.age(now) < standing.age(now);
        // Who told of the same answer last knows best how long it holds.
        if known
            .peek(&key)
            .is_some_and(|other| other.task != task && younger(other))
        {
            return;
        }
        known.insert(key, standing);
    }

    /// What stands behind a resource, as far as that is known here without asking anybody.
    pub fn fresh(&self, key: &ResourceKey, now: Instant) -> Option<Standing> {
        let mut known = self.known.lock();
        let standing = known.get(key)?;
        (!standing.fresh_for(now).is_zero()).then(|| standing.clone())
    }

    /// What stood behind a resource when it was last heard of, fresh or not.
    pub fn last(&self, key: &ResourceKey) -> Option<Standing> {
        self.known.lock().get(key).cloned()
    }

    /// Forgets what any resource of a URL answers, whatever selects it and whoever asks.
    pub fn forget_url(&self, key: &ResourceKey) {
        let of_url = key.of_same_url();
        self.known.lock().retain(|key, _| !of_url.contains(key));
    }

    /// What stands behind a resource, if it is this task.
    pub fn of_task(&self, key: &ResourceKey, task: TaskId) -> Option<Standing> {
        let known = self.known.lock();
        known.peek(key).filter(|found| found.task == task).cloned()
    }
}

#[cfg(test)]
mod tests {
    use pantala_core::Class;

    use super::*;

    fn key(number: u32) -> ResourceKey {
        let url = format!("http://origin.example/{number}");
        ResourceKey::of_url(&url, b"", Class::Anonymous)
    }

    fn meta(age: u64, fresh_for: u64) -> ContentMeta {
        ContentMeta {
            age: Duration::from_secs(age),
            fresh_for: Some(Duration::from_secs(fresh_for)),
            ..ContentMeta::default()
        }
    }

    const OLD: TaskId = TaskId::from_bytes([1; 32]);
    const NEW: TaskId = TaskId::from_bytes([2; 32]);

    #[test]
    fn an_answer_ages_and_stops_being_fresh() {
        let (shelf, now) = (Shelf::new(), Instant::now());
        shelf.put(key(1), OLD, meta(5, 10), now);
        let later = now + Duration::from_secs(9);
        let meta = shelf.fresh(&key(1), later).unwrap().meta(later);
        assert_eq!(meta.age, Duration::from_secs(14));
        assert_eq!(meta.fresh_for, Some(Duration::from_secs(1)));
        let over = now + Duration::from_secs(10);
        assert!(shelf.fresh(&key(1), over).is_none());
        assert_eq!(shelf.last(&key(1)).unwrap().task, OLD);
    }

    #[test]
    fn an_old_version_never_takes_the_place_of_a_younger_one() {
        let (shelf, now) = (Shelf::new(), Instant::now());
        shelf.put(key(1), NEW, meta(0, 60), now);
        let later = now + Duration::from_secs(3);
        shelf.put(key(1), OLD, meta(600, 3600), later);
        assert_eq!(shelf.last(&key(1)).unwrap().task, NEW);
        assert!(shelf.of_task(&key(1), OLD).is_none());
        shelf.put(key(1), OLD, meta(0, 60), later);
        assert_eq!(shelf.last(&key(1)).unwrap().task, OLD);
    }

    #[test]
    fn a_url_is_forgotten_with_all_its_resources() {
        let (shelf, now) = (Shelf::new(), Instant::now());
        for class in [Class::Anonymous, Class::Credentialed] {
            shelf.put(key(1).of_class(class), OLD, meta(0, 60), now);
        }
        shelf.put(key(2), OLD, meta(0, 60), now);
        shelf.forget_url(&key(1));
        assert!(shelf.last(&key(1).of_class(Class::Credentialed)).is_none());
        assert!(shelf.last(&key(1)).is_none() && shelf.last(&key(2)).is_some());
    }

    #[test]
    fn what_was_not_asked_for_longest_is_forgotten_and_nothing_else() {
        let (shelf, now) = (Shelf::new(), Instant::now());
        for number in 0..=REMEMBERED as u32 {
            shelf.put(key(number), OLD, meta(0, 60), now);
            assert!(shelf.fresh(&key(0), now).is_some());
        }
        assert!(shelf.fresh(&key(1), now).is_none());
        assert!(shelf.fresh(&key(REMEMBERED as u32), now).is_some());
    }
}
