//! What this node knows URLs to answer: which content stands behind a resource, what the answer says
//! and how old it is. Bounded; nothing is asked of anybody here, and time comes in from outside.
//!
//! Requests and changes are counted here, in one order. An answer to a request that was made before the
//! last change of its URL may be of before the change: it is not kept.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hashlink::LruCache;
use pantala_core::{ContentMeta, Geometry, ResourceKey, TaskId, control::Serial};
use parking_lot::Mutex;

/// Resources that are remembered. What has not been asked for longest is forgotten; it is only asked
/// for again.
const REMEMBERED: usize = 4096;
/// URLs whose last change is remembered. When there are more, no answer is kept to a request that was
/// made before the change that is forgotten, whatever its URL.
const CHANGES: usize = 4096;

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
    state: Mutex<State>,
}

struct State {
    known: LruCache<ResourceKey, Standing>,
    /// The last change of a URL, by the least key that a resource of it can have.
    changes: LruCache<ResourceKey, Change>,
    /// No change up to this one is remembered.
    forgotten: Serial,
    /// What was given to a request or a change last.
    last: Serial,
    /// The supernode has heard all that came before this request.
    heard: Serial,
}

/// A change of what stands at a URL.
#[derive(Debug, Clone, Copy)]
struct Change {
    at: Serial,
    /// It was made through this node, which has to tell the supernode.
    own: bool,
}

impl State {
    fn next(&mut self) -> Serial {
        self.last = self.last.next();
        self.last
    }

    fn changed(&mut self, key: &ResourceKey, own: bool) {
        let of_url = key.of_same_url();
        self.known.retain(|key, _| !of_url.contains(key));
        let change = Change {
            at: self.next(),
            own,
        };
        if self.changes.len() == CHANGES
            && !self.changes.contains_key(of_url.start())
            && let Some((_, oldest)) = self.changes.remove_lru()
        {
            self.forgotten = self.forgotten.max(oldest.at);
        }
        self.changes.insert(*of_url.start(), change);
    }

    /// The last change of a URL.
    fn change(&self, key: &ResourceKey) -> Option<Change> {
        self.changes.peek(key.of_same_url().start()).copied()
    }

    fn owes(&self, change: &Change) -> bool {
        change.own && change.at > self.heard
    }
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

    /// How long the content is, where the answer said so, and what it was cut into.
    pub fn geometry(&self) -> Geometry {
        Geometry::of(&self.meta)
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
            state: Mutex::new(State {
                known: LruCache::new(REMEMBERED),
                changes: LruCache::new(CHANGES),
                forgotten: Serial::NONE,
                last: Serial::NONE,
                heard: Serial::NONE,
            }),
        }
    }

    /// The place of a request that is made now.
    pub fn serial(&self) -> Serial {
        self.state.lock().next()
    }

    /// Notes what stands behind a resource, as it was `asked` for, unless something younger is known of
    /// it or it was changed since.
    pub fn put(
        &self,
        key: ResourceKey,
        task: TaskId,
        meta: ContentMeta,
        asked: Serial,
        now: Instant,
    ) {
        let mut state = self.state.lock();
        let changed = state.change(&key).map(|change| change.at);
        if asked < changed.unwrap_or(state.forgotten) {
            return;
        }
        let known = &mut state.known;
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
        let known = &mut self.state.lock().known;
        let standing = known.get(key)?;
        (!standing.fresh_for(now).is_zero()).then(|| standing.clone())
    }

    /// What stood behind a resource when it was last heard of, fresh or not.
    pub fn last(&self, key: &ResourceKey) -> Option<Standing> {
        self.state.lock().known.get(key).cloned()
    }

    /// What stands at a URL was changed through another node: what any resource of it answered is
    /// forgotten, whatever selects it and whoever asks.
    pub fn changed(&self, key: &ResourceKey) {
        self.state.lock().changed(key, false);
    }

    /// The same, changed through this node. The change is owed to the supernode until that has answered a
    /// request that was made after it: the connection may break while the change is told. `tell` tells it
    /// now, before any request gets a later serial, so that none overtakes it.
    pub fn changed_here(&self, key: &ResourceKey, tell: impl FnOnce()) {
        let mut state = self.state.lock();
        state.changed(key, true);
        tell();
    }

    /// The supernode answers this request, so that it has heard all that was said before it.
    pub fn heard(&self, serial: Serial) {
        let mut state = self.state.lock();
        state.heard = state.heard.max(serial);
    }

    /// Whether a change of this URL is owed to the supernode.
    pub fn owes(&self, key: &ResourceKey) -> bool {
        let state = self.state.lock();
        state.change(key).is_some_and(|change| state.owes(&change))
    }

    /// All changes that are owed to the supernode.
    pub fn owed(&self) -> Vec<ResourceKey> {
        let state = self.state.lock();
        let owed = state
            .changes
            .iter()
            .filter(|(_, change)| state.owes(change));
        owed.map(|(key, _)| *key).collect()
    }

    /// What stands behind a resource, if it is this task.
    pub fn of_task(&self, key: &ResourceKey, task: TaskId) -> Option<Standing> {
        let known = &self.state.lock().known;
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
        shelf.put(key(1), OLD, meta(5, 10), shelf.serial(), now);
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
        shelf.put(key(1), NEW, meta(0, 60), shelf.serial(), now);
        let later = now + Duration::from_secs(3);
        shelf.put(key(1), OLD, meta(600, 3600), shelf.serial(), later);
        assert_eq!(shelf.last(&key(1)).unwrap().task, NEW);
        assert!(shelf.of_task(&key(1), OLD).is_none());
        shelf.put(key(1), OLD, meta(0, 60), shelf.serial(), later);
        assert_eq!(shelf.last(&key(1)).unwrap().task, OLD);
    }

    #[test]
    fn a_url_is_forgotten_with_all_its_resources() {
        let (shelf, now) = (Shelf::new(), Instant::now());
        for class in [Class::Anonymous, Class::Credentialed] {
            shelf.put(
                key(1).of_class(class),
                OLD,
                meta(0, 60),
                shelf.serial(),
                now,
            );
        }
        shelf.put(key(2), OLD, meta(0, 60), shelf.serial(), now);
        shelf.changed(&key(1));
        assert!(shelf.last(&key(1).of_class(Class::Credentialed)).is_none());
        assert!(shelf.last(&key(1)).is_none() && shelf.last(&key(2)).is_some());
    }

    #[test]
    fn what_was_not_asked_for_longest_is_forgotten_and_nothing_else() {
        let (shelf, now) = (Shelf::new(), Instant::now());
        for number in 0..=REMEMBERED as u32 {
            shelf.put(key(number), OLD, meta(0, 60), shelf.serial(), now);
            assert!(shelf.fresh(&key(0), now).is_some());
        }
        assert!(shelf.fresh(&key(1), now).is_none());
        assert!(shelf.fresh(&key(REMEMBERED as u32), now).is_some());
    }

    #[test]
    fn what_was_asked_before_a_change_is_not_kept_after_it() {
        let (shelf, now) = (Shelf::new(), Instant::now());
        let before = shelf.serial();
        shelf.changed(&key(1));
        for class in [Class::Anonymous, Class::Credentialed] {
            shelf.put(key(1).of_class(class), OLD, meta(0, 60), before, now);
            assert!(shelf.last(&key(1).of_class(class)).is_none());
        }
        shelf.put(key(2), OLD, meta(0, 60), before, now);
        assert!(shelf.last(&key(2)).is_some(), "another URL");
        shelf.put(key(1), NEW, meta(0, 60), shelf.serial(), now);
        assert_eq!(shelf.last(&key(1)).unwrap().task, NEW);
    }

    #[test]
    fn a_change_that_is_forgotten_makes_no_old_answer_good() {
        let (shelf, now) = (Shelf::new(), Instant::now());
        let before = shelf.serial();
        for number in 0..=CHANGES as u32 {
            shelf.changed(&key(number));
        }
        shelf.put(key(0), OLD, meta(0, 60), before, now);
        assert!(shelf.last(&key(0)).is_none());
        shelf.put(key(0), NEW, meta(0, 60), shelf.serial(), now);
        assert_eq!(shelf.last(&key(0)).unwrap().task, NEW);
    }

    #[test]
    fn a_change_is_owed_until_the_supernode_has_answered_what_came_after_it() {
        let shelf = Shelf::new();
        let before = shelf.serial();
        shelf.changed_here(&key(1), || {});
        shelf.changed(&key(2));
        let after = shelf.serial();
        assert!(shelf.owes(&key(1).of_class(Class::Credentialed)));
        assert!(!shelf.owes(&key(2)), "others' changes are theirs to tell");
        shelf.heard(before);
        assert_eq!(shelf.owed().len(), 1);
        shelf.heard(after);
        assert!(!shelf.owes(&key(1)) && shelf.owed().is_empty());
    }
}
