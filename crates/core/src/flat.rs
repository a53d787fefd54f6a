use std::{cmp::Ordering, collections::VecDeque};

/// A map of few entries, ascending by key, in one allocation: what a peer has under way.
///
/// The newest entries are mostly the highest and the oldest the first to go: both ends are found and
/// changed without moving or reading what is between them.
#[derive(Debug, Clone)]
pub struct Flat<K, V>(VecDeque<(K, V)>);

/// So many of the lowest keys are looked at one by one before the others are searched.
const NEAR: usize = 6;

impl<K, V> Default for Flat<K, V> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K: Ord + Copy, V> Flat<K, V> {
    /// The empty map.
    pub fn new() -> Self {
        Self::default()
    }

    fn at(&self, key: K) -> Result<usize, usize> {
        match self.0.back() {
            None => return Err(0),
            Some(&(last, _)) => match last.cmp(&key) {
                Ordering::Less => return Err(self.0.len()),
                Ordering::Equal => return Ok(self.0.len() - 1),
                Ordering::Greater => {}
            },
        }
        for (at, &(other, _)) in self.0.iter().take(NEAR).enumerate() {
            match other.cmp(&key) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(at),
                Ordering::Greater => return Err(at),
            }
        }
        self.0.binary_search_by(|(other, _)| other.cmp(&key))
    }

    /// The value of a key.
    pub fn get(&self, key: K) -> Option<&V> {
        self.at(key).ok().map(|at| &self.0[at].1)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.at(key).ok().map(|at| &mut self.0[at].1)
    }

    /// The value of a key, the default where there was none.
    pub fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let at = match self.at(key) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (key, V::default()));
                at
            }
        };
        &mut self.0[at].1
    }

    /// Whether there is such a key.
    pub fn contains(&self, key: K) -> bool {
        self.at(key).is_ok()
    }

    /// Puts a value in the place of whatever the key had.
    pub fn insert(&mut self, key: K, value: V) {
        match self.at(key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let at = self.at(key).ok()?;
        self.0.remove(at).map(|(_, value)| value)
    }

    /// Takes out what `keep` does not say yes to.
    pub fn retain(&mut self, mut keep: impl FnMut(K, &V) -> bool) {
        self.0.retain(|(key, value)| keep(*key, value));
    }

    /// The entries, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (K, &V)> + Clone + '_ {
        self.0.iter().map(|(key, value)| (*key, value))
    }

    /// The entries, ascending, their values to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> + '_ {
        self.0.iter_mut().map(|(key, value)| (*key, value))
    }

    /// The keys, ascending.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = K> + Clone + '_ {
        self.0.iter().map(|(key, _)| *key)
    }

    /// The values, ascending by key.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone + '_ {
        self.0.iter().map(|(_, value)| value)
    }

    /// The values, ascending by key, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> + '_ {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// The lowest key and the highest.
    pub fn ends(&self) -> Option<(K, K)> {
        Some((self.0.front()?.0, self.0.back()?.0))
    }

    /// Where the lowest entry lies, for who wants it in the processor's cache before it is read.
    pub fn place(&self) -> Option<*const u8> {
        let first = self.0.front()?;
        Some(std::ptr::from_ref(first).cast())
    }

    /// All entries; leaves the map empty.
    pub fn take(&mut self) -> impl Iterator<Item = (K, V)> + use<K, V> {
        std::mem::take(&mut self.0).into_iter()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all out and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_map(ops in prop::collection::vec((0u32..4, 0u32..40, any::<u32>()), 0..400)) {
            let (mut flat, mut map) = (Flat::new(), BTreeMap::new());
            for (what, key, value) in ops {
                match what {
                    0 => prop_assert_eq!(flat.remove(key), map.remove(&key)),
                    1 => {
                        let (a, b) = (flat.get_or_default(key), map.entry(key).or_default());
                        prop_assert_eq!(*a, *b);
                        (*a, *b) = (value, value);
                    }
                    _ => {
                        flat.insert(key, value);
                        map.insert(key, value);
                    }
                }
                prop_assert_eq!(flat.get(key), map.get(&key));
                prop_assert!(flat.iter().eq(map.iter().map(|(&key, value)| (key, value))));
                let ends = map.keys().next().zip(map.keys().next_back());
                prop_assert_eq!(flat.ends(), ends.map(|(&low, &high)| (low, high)));
            }
        }
    }
}
