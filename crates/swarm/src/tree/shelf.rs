use std::collections::{BTreeMap, BTreeSet};

use pantala_core::PeerId;

use crate::place::Group;

/// Depth, age and name of a peer: the shallowest and oldest come first.
pub(super) type Key = (u32, u64, PeerId);

/// Peers in the order in which they are to be chosen, by the groups they are in.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    by_group: BTreeMap<Group, BTreeSet<Key>>,
}

impl Shelf {
    pub fn insert(&mut self, groups: impl IntoIterator<Item = Group>, key: Key) {
        for group in groups {
            self.by_group.entry(group).or_default().insert(key);
        }
    }

    pub fn remove(&mut self, groups: impl IntoIterator<Item = Group>, key: &Key) {
        for group in groups {
            if let Some(keys) = self.by_group.get_mut(&group) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_group.remove(&group);
                }
            }
        }
    }

    /// Those of one group.
    pub fn of(&self, group: Group) -> impl DoubleEndedIterator<Item = Key> + '_ {
        let keys = self.by_group.get(&group);
        keys.into_iter().flat_map(|keys| keys.iter().copied())
    }

    /// The first and the last of a group, so many from either end: the shallowest, and the newest in the
    /// deepest.
    pub fn ends(&self, group: Group, count: usize) -> impl Iterator<Item = Key> + '_ {
        let len = self.by_group.get(&group).map_or(0, BTreeSet::len);
        let last = len.saturating_sub(count).min(count);
        self.of(group)
            .take(count)
            .chain(self.of(group).rev().take(last))
    }
}
