//! Where peers are, as their operators labelled them or as was found out, and who is near whom.

/// A set of peers that are near each other: a rack, a zone, a region; or all there are.
pub(crate) type Group = u64;

/// The group everybody is in.
pub(crate) const ALL: Group = 0;

/// Labels that say where a host is, the widest first. Two hosts are in the same zone only if they
/// are in the same region.
const LEVELS: [&str; 3] = ["region", "zone", "rack"];

/// Where one peer is: the groups it is in but [`ALL`], the widest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place(Vec<Group>);

impl Place {
    /// From an operator's labels; those that say nothing about the place are passed over.
    pub fn of(labels: &[(String, String)]) -> Self {
        let mut path = Vec::new();
        let mut groups = Vec::new();
        for level in LEVELS {
            let Some((_, value)) = labels.iter().find(|(key, _)| key == level) else {
                continue;
            };
            for part in [level, value] {
                path.extend_from_slice(&(part.len() as u64).to_le_bytes());
                path.extend_from_slice(part.as_bytes());
            }
            groups.push(name(&path));
        }
        Self(groups)
    }

    /// In a site that was found, not labelled.
    pub fn site(number: u64) -> Self {
        // No path of labels begins with a length like that.
        let path = [u64::MAX.to_le_bytes(), number.to_le_bytes()].concat();
        Self(vec![name(&path)])
    }

    /// Whether no label says anything.
    pub fn is_nowhere(&self) -> bool {
        self.0.is_empty()
    }

    /// The groups it is in, the narrowest first; [`ALL`] is the last.
    pub fn groups(&self) -> impl Iterator<Item = Group> + '_ {
        self.named().chain([ALL])
    }

    /// The same without [`ALL`].
    pub fn named(&self) -> impl Iterator<Item = Group> + '_ {
        self.0.iter().rev().copied()
    }

    pub fn is_in(&self, group: Group) -> bool {
        group == ALL || self.0.contains(&group)
    }

    /// The groups it is in that the other is not in.
    pub fn without(&self, other: &Place) -> Place {
        let groups = self.0.iter().copied();
        Place(groups.filter(|&group| !other.is_in(group)).collect())
    }

    /// The widest group it is in that the other is not.
    pub fn apart(&self, other: &Place) -> Option<Group> {
        self.0.iter().copied().find(|&group| !other.is_in(group))
    }

    /// How far apart two peers are: the groups of this one that the other is not in.
    pub fn distance(&self, other: &Place) -> usize {
        self.without(other).0.len()
    }
}

/// FNV-1a, 64 bits: a name for a group that is the same everywhere, and never [`ALL`].
fn name(path: &[u8]) -> Group {
    let fold = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    path.iter().fold(0xcbf2_9ce4_8422_2325, fold).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(labels: &[(&str, &str)]) -> Place {
        let owned = labels.iter().map(|&(k, v)| (k.to_owned(), v.to_owned()));
        Place::of(&owned.collect::<Vec<_>>())
    }

    #[test]
    fn the_widest_difference_counts() {
        let here = place(&[("rack", "1"), ("zone", "a"), ("region", "x")]);
        let there = place(&[("rack", "1"), ("zone", "b"), ("region", "x")]);
        assert_eq!(here.distance(&here), 0);
        // A rack of the same name in another zone is another rack.
        assert_eq!(here.distance(&there), 2);
        assert_eq!(here.apart(&there), here.groups().nth(1));
        assert_eq!(here.apart(&here), None);
    }

    #[test]
    fn who_has_no_labels_is_near_everybody() {
        let nowhere = place(&[("name", "value")]);
        assert_eq!(nowhere, Place::default());
        assert_eq!(nowhere.groups().collect::<Vec<_>>(), [ALL]);
        assert_eq!(nowhere.distance(&place(&[("zone", "a")])), 0);
    }
}
