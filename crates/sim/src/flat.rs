/// A map of few entries, ascending by key, in one allocation: what a peer has under way.
#[derive(Debug, Clone)]
pub(crate) struct Flat<K, V>(Vec<(K, V)>);

impl<K, V> Default for Flat<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Copy, V> Flat<K, V> {
    fn at(&self, key: K) -> Result<usize, usize> {
        // Most keys are the newest or near it.
        match self.0.last() {
            None => Err(0),
            Some(&(last, _)) if last < key => Err(self.0.len()),
            _ => self.0.binary_search_by(|(other, _)| other.cmp(&key)),
        }
    }

    pub fn get(&self, key: K) -> Option<&V> {
        self.at(key).ok().map(|at| &self.0[at].1)
    }

    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.at(key).ok().map(|at| &mut self.0[at].1)
    }

    pub fn contains(&self, key: K) -> bool {
        self.at(key).is_ok()
    }

    pub fn insert(&mut self, key: K, value: V) {
        match self.at(key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    pub fn remove(&mut self, key: K) -> Option<V> {
        self.at(key).ok().map(|at| self.0.remove(at).1)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(K, &V) -> bool) {
        self.0.retain(|(key, value)| keep(*key, value));
    }

    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> + '_ {
        self.0.iter().map(|(key, value)| (*key, value))
    }

    pub fn values(&self) -> impl Iterator<Item = &V> + '_ {
        self.0.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> + '_ {
        self.0.iter_mut().map(|(key, value)| (*key, value))
    }

    pub fn take(&mut self) -> Vec<(K, V)> {
        std::mem::take(&mut self.0)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn behaves_as_a_map() {
        let (mut flat, mut map) = (Flat::default(), BTreeMap::new());
        let mut draw = crate::draw::Draw(7);
        for _ in 0..2000 {
            let (key, value) = (draw.next() % 20, draw.next());
            if value % 3 == 0 {
                assert_eq!(flat.remove(key), map.remove(&key));
            } else {
                flat.insert(key, value);
                map.insert(key, value);
            }
            assert_eq!(flat.get(key), map.get(&key));
            assert!(flat.iter().eq(map.iter().map(|(&key, value)| (key, value))));
        }
    }
}
