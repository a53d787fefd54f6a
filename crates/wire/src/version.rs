//! Which versions of a protocol a program speaks, and which one two programs speak with each other.
//!
//! Programs of one fleet are replaced one after another, so for a while two versions meet. Each says in its greeting
//! the least and the greatest version that it speaks; both take the greatest that they have in common. What both sides
//! must hold for that to work:
//!
//! - A message of an unknown kind is skipped, and so is what a known message has beyond its known fields. A later
//!   version may add both at any time.
//! - Whatever else changes (a field's meaning, a new value where a list of values is closed, a message that must be
//!   answered) makes a new version, and is sent only to who agreed on it.
//! - Until the other side's greeting is here a program speaks its own least version.
//!
//! Nothing here knows what a version contains.

use std::fmt;

/// The versions of the protocol between peers that this program speaks.
pub const PEER: Versions = Versions::new(1, 1);
/// The versions of the protocol between a peer and its supernode that this program speaks.
pub const CONTROL: Versions = Versions::new(1, 1);

/// All versions of a protocol from a least to a greatest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    least: u16,
    greatest: u16,
}

impl Versions {
    /// The versions from `least` to `greatest`, both included.
    ///
    /// # Panics
    /// When `least` is above `greatest`.
    pub const fn new(least: u16, greatest: u16) -> Self {
        assert!(least <= greatest);
        Self { least, greatest }
    }

    /// What another program said of itself; `None` when no version is between the two.
    pub fn said(least: u16, greatest: u16) -> Option<Self> {
        (least <= greatest).then_some(Self { least, greatest })
    }

    /// The least version.
    pub const fn least(self) -> u16 {
        self.least
    }

    /// The greatest version.
    pub const fn greatest(self) -> u16 {
        self.greatest
    }

    /// Whether a version is among them.
    pub fn contains(self, version: u16) -> bool {
        (self.least..=self.greatest).contains(&version)
    }

    /// The version that a program of these versions and one of `other` speak with each other: the greatest that both
    /// know. `None` when there is none.
    pub fn common(self, other: Self) -> Option<u16> {
        let greatest = self.greatest.min(other.greatest);
        (self.contains(greatest) && other.contains(greatest)).then_some(greatest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.least == self.greatest {
            true => write!(f, "version {}", self.least),
            false => write!(f, "versions {} to {}", self.least, self.greatest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_programs_speak_the_greatest_version_that_both_know() {
        let common = |a: (u16, u16), b: (u16, u16)| {
            let (a, b) = (Versions::new(a.0, a.1), Versions::new(b.0, b.1));
            assert_eq!(a.common(b), b.common(a), "both sides come to the same");
            a.common(b)
        };
        assert_eq!(common((1, 1), (1, 1)), Some(1));
        assert_eq!(common((1, 1), (1, 2)), Some(1));
        assert_eq!(common((1, 3), (2, 5)), Some(3));
        assert_eq!(common((1, 5), (2, 3)), Some(3));
        assert_eq!(common((1, 1), (2, 3)), None);
        assert_eq!(common((4, 9), (1, 3)), None);
    }

    #[test]
    fn no_version_is_between_a_greater_and_a_lesser_one() {
        assert_eq!(Versions::said(2, 1), None);
        assert_eq!(Versions::said(1, 2), Some(Versions::new(1, 2)));
    }
}
