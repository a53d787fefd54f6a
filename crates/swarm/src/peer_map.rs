use std::{
    collections::BTreeMap,
    ops::{Index, RangeBounds},
};

use pantala_core::PeerId;

/// What is known of each of many peers, ascending by name.
///
/// A message names its peer, and every look at a tree of a hundred thousand names costs a dozen
/// reads from slow memory. So most names are found in a table in one; what has no room there, as
/// when somebody chooses names that fall on each other, is found in the tree.
#[derive(Debug)]
pub(crate) struct PeerMap<V> {
    slots: Vec<Option<V>>,
    /// Slots without a value.
    free: Vec<u32>,
    order: BTreeMap<PeerId, u32>,
    /// As many as a power of two, and at least as many as there are peers.
    rows: Vec<Row>,
}

/// Some of the peers whose names fall on the same place, and their slots: one line of a cache.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Row {
    names: [PeerId; WAYS],
    slots: [u32; WAYS],
}

const WAYS: usize = 3;
/// No slot.
const NONE: u32 = u32::MAX;

impl Row {
    const EMPTY: Self = Self {
        names: [PeerId::from_bytes([0; 16]); WAYS],
        slots: [NONE; WAYS],
    };

    fn find(&self, peer: PeerId) -> Option<usize> {
        (0..WAYS).find(|&at| self.slots[at] != NONE && self.names[at] == peer)
    }
}

impl<V> PeerMap<V> {
    pub fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            order: BTreeMap::new(),
            rows: vec![Row::EMPTY],
        }
    }

    /// Names are random; where they are not the tree is there.
    fn row(&self, peer: PeerId) -> usize {
        let bytes = peer.as_bytes();
        let half = |from: usize| {
            let half = bytes[from..from + 8].iter();
            half.fold(0, |all, &byte| all << 8 | u64::from(byte))
        };
        let mixed = (half(0) ^ half(8).rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize & (self.rows.len() - 1)
    }

    fn slot(&self, peer: PeerId) -> Option<usize> {
        let row = &self.rows[self.row(peer)];
        let slot = match row.find(peer) {
            Some(at) => row.slots[at],
            None => *self.order.get(&peer)?,
        };
        Some(slot as usize)
    }

    /// Puts a name into the table, if there is room.
    fn enter(&mut self, peer: PeerId, slot: u32) {
        let row = self.row(peer);
        let row = &mut self.rows[row];
        if let Some(at) = row.slots.iter().position(|&slot| slot == NONE) {
            (row.names[at], row.slots[at]) = (peer, slot);
        }
    }

    pub fn get(&self, peer: &PeerId) -> Option<&V> {
        self.slots[self.slot(*peer)?].as_ref()
    }

    pub fn get_mut(&mut self, peer: &PeerId) -> Option<&mut V> {
        let slot = self.slot(*peer)?;
        self.slots[slot].as_mut()
    }

    pub fn contains_key(&self, peer: &PeerId) -> bool {
        self.slot(*peer).is_some()
    }

    pub fn insert(&mut self, peer: PeerId, value: V) {
        if let Some(old) = self.get_mut(&peer) {
            *old = value;
            return;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some(value);
        self.order.insert(peer, slot);
        if self.order.len() > self.rows.len() {
            self.rows = vec![Row::EMPTY; self.rows.len() * 2];
            let order = std::mem::take(&mut self.order);
            order
                .iter()
                .for_each(|(&peer, &slot)| self.enter(peer, slot));
            self.order = order;
        } else {
            self.enter(peer, slot);
        }
    }

    pub fn remove(&mut self, peer: &PeerId) -> Option<V> {
        let slot = self.order.remove(peer)?;
        let at = self.row(*peer);
        if let Some(way) = self.rows[at].find(*peer) {
            self.rows[at].slots[way] = NONE;
        }
        self.free.push(slot);
        self.slots[slot as usize].take()
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub fn keys(&self) -> impl Iterator<Item = &PeerId> + '_ {
        self.order.keys()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &V)> + '_ {
        self.range(..)
    }

    pub fn range(&self, names: impl RangeBounds<PeerId>) -> impl Iterator<Item = (&PeerId, &V)> {
        let found = self.order.range(names);
        found.filter_map(|(peer, &slot)| Some((peer, self.slots[slot as usize].as_ref()?)))
    }

    /// In no order that means anything.
    pub fn values(&self) -> impl Iterator<Item = &V> + '_ {
        self.slots.iter().flatten()
    }

    /// In no order that means anything.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> + '_ {
        self.slots.iter_mut().flatten()
    }
}

impl<V> Index<&PeerId> for PeerMap<V> {
    type Output = V;

    fn index(&self, peer: &PeerId) -> &V {
        self.get(peer).expect("nobody of that name")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: u8, same: bool) -> PeerId {
        let mut name = [0; 16];
        name[0] = number;
        // Then all fall on the same row.
        name[12] = if same { number } else { 0 };
        PeerId::from_bytes(name)
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(
            same in any::<bool>(),
            ops in prop::collection::vec((0u8..3, 0u8..40, any::<u32>()), 0..200),
        ) {
            let (mut peers, mut model) = (PeerMap::new(), BTreeMap::new());
            for (what, number, value) in ops {
                let peer = name(number, same);
                if what == 0 {
                    prop_assert_eq!(peers.remove(&peer), model.remove(&peer));
                } else {
                    peers.insert(peer, value);
                    model.insert(peer, value);
                }
                prop_assert_eq!(peers.len(), model.len());
                for number in 0..40 {
                    let peer = name(number, same);
                    prop_assert_eq!(peers.get(&peer), model.get(&peer));
                    prop_assert_eq!(peers.contains_key(&peer), model.contains_key(&peer));
                }
            }
            prop_assert!(peers.iter().eq(model.iter()));
            let mut values: Vec<u32> = peers.values().copied().collect();
            let mut expected: Vec<u32> = model.values().copied().collect();
            values.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(values, expected);
            let from = name(20, same);
            prop_assert!(peers.range(from..).eq(model.range(from..)));
        }
    }
}
