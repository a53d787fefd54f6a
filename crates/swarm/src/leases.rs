use std::time::Duration;

use pantala_core::{PeerId, PieceIndex, Time};

/// One peer's right to fetch consecutive pieces from the origin.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub holder: PeerId,
    /// The first piece that has not come yet.
    pub first: PieceIndex,
    pub end: Option<PieceIndex>,
    /// When it was granted.
    pub since: Time,
    /// When its holder was last heard of.
    pub alive: Time,
    /// The longest time between two words of its holder lately.
    pub hush: Duration,
    /// When bytes last came from the origin.
    pub progressed: Time,
    /// Its holder's reader has no room: whoever wants it may have it.
    pub offered: bool,
    /// What comes under it is for its holder alone, who is not believed or reaches nobody: to others it
    /// is no lease.
    pub alone: bool,
}

/// How long a holder that lives says nothing at most: twice the pause between two of its pulses.
const SILENT: Duration = Duration::from_millis(220);
/// How long between two words of a holder is taken for usual before it is known,
const HUSH: Duration = Duration::from_millis(200);
/// and how fast a longer time is forgotten, a word.
const FADE: f64 = 0.95;

/// The source leases of one task; no piece is in two of them, unless forced.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    list: Vec<Lease>,
}

impl Leases {
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.list.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn holder(&self, piece: PieceIndex) -> Option<&Lease> {
        let mut list = self.list.iter().filter(|lease| !lease.alone);
        list.find(|lease| lease.covers(piece))
    }

    /// Where a piece is leased to several, who got bytes last.
    pub fn liveliest(&self, piece: PieceIndex) -> Option<&Lease> {
        let list = self.list.iter().filter(|lease| !lease.alone);
        let covers = list.filter(|lease| lease.covers(piece));
        covers.max_by_key(|lease| lease.progressed)
    }

    pub fn holds(&self, peer: PeerId, piece: PieceIndex) -> bool {
        self.list
            .iter()
            .any(|lease| lease.holder == peer && lease.covers(piece))
    }

    /// Whether a peer is to fetch this piece, or whatever comes after all that is leased to others.
    pub fn reads_on(&self, peer: PeerId, piece: PieceIndex) -> bool {
        let mut own = self.list.iter().filter(|lease| lease.holder == peer);
        own.any(|lease| lease.covers(piece) || lease.end.is_none())
    }

    pub fn any_of(&self, peer: PeerId) -> bool {
        self.list.iter().any(|lease| lease.holder == peer)
    }

    /// The first piece at or after `from` that somebody holds a lease for.
    pub fn next_from(&self, from: PieceIndex) -> Option<PieceIndex> {
        self.list
            .iter()
            .filter(|lease| !lease.alone && lease.end.is_none_or(|end| end > from))
            .map(|lease| lease.first.max(from))
            .min()
    }

    pub fn grant(&mut self, holder: PeerId, first: PieceIndex, end: Option<PieceIndex>, now: Time) {
        self.list.push(Lease {
            holder,
            first,
            end,
            since: now,
            alive: now,
            hush: HUSH,
            progressed: now,
            offered: false,
            alone: false,
        });
    }

    /// Pieces for a peer that is not believed, or that nobody can be fetched from: nobody else is kept
    /// from them.
    pub fn grant_alone(&mut self, holder: PeerId, first: PieceIndex, end: PieceIndex, now: Time) {
        self.grant(holder, first, Some(end), now);
        if let Some(lease) = self.list.last_mut() {
            lease.alone = true;
        }
    }

    /// A peer that was not believed is.
    pub fn believe(&mut self, holder: PeerId) {
        // What spans several pieces was for a member that reaches nobody.
        let single = |lease: &&mut Lease| lease.end == Some(lease.first.next());
        let own = self.list.iter_mut().filter(|lease| lease.holder == holder);
        for lease in own.filter(single) {
            lease.alone = false;
        }
    }

    /// The holder is heard of; with bytes it also makes progress.
    pub fn heard(&mut self, holder: PeerId, bytes: bool, now: Time) {
        for lease in self.list.iter_mut().filter(|lease| lease.holder == holder) {
            lease.hush = now.since(lease.alive).max(lease.hush.mul_f64(FADE));
            lease.alive = now;
            if bytes {
                lease.progressed = now;
                lease.offered = false;
            }
        }
    }

    /// Whoever wants pieces of a peer's from `first` on may have them.
    pub fn offer(&mut self, holder: PeerId, first: PieceIndex) {
        let own = |lease: &&mut Lease| lease.holder == holder;
        let beyond = |lease: &&mut Lease| lease.end.is_none_or(|end| first < end);
        for lease in self.list.iter_mut().filter(own).filter(beyond) {
            lease.offered = true;
        }
    }

    /// A leased piece came.
    pub fn came(&mut self, holder: PeerId, piece: PieceIndex, now: Time) {
        self.heard(holder, true, now);
        self.cut(|lease| lease.holder == holder, piece, Some(piece.next()));
    }

    /// Takes pieces out of the leases of one peer; says whether it had any of them.
    pub fn give_back(
        &mut self,
        holder: PeerId,
        first: PieceIndex,
        end: Option<PieceIndex>,
    ) -> bool {
        let touches = |lease: &Lease| {
            lease.holder == holder
                && end.is_none_or(|end| lease.first < end)
                && lease.end.is_none_or(|stop| first < stop)
        };
        let any = self.list.iter().any(touches);
        self.cut(touches, first, end);
        any
    }

    /// When the lease was granted that a peer has for a piece.
    pub fn since(&self, holder: PeerId, piece: PieceIndex) -> Option<Time> {
        let mut own = self.list.iter().filter(|lease| lease.holder == holder);
        own.find(|lease| lease.covers(piece))
            .map(|lease| lease.since)
    }

    /// Takes all leases of a peer away.
    pub fn take_all(&mut self, holder: PeerId) -> Vec<Lease> {
        let (taken, kept) = std::mem::take(&mut self.list)
            .into_iter()
            .partition(|lease| lease.holder == holder);
        self.list = kept;
        taken
    }

    /// Leases for nothing but what lies past the content's end are done with.
    pub fn drop_past(&mut self, end: PieceIndex) {
        self.list.retain(|lease| lease.first < end);
    }

    /// The content ends before `end`.
    pub fn limit(&mut self, end: PieceIndex) {
        self.cut(|_| true, end, None);
    }

    fn cut(&mut self, which: impl Fn(&Lease) -> bool, first: PieceIndex, end: Option<PieceIndex>) {
        // A reversed range would leave both sides of the cut overlapping.
        if end.is_some_and(|end| end <= first) {
            return;
        }
        let mut kept = Vec::with_capacity(self.list.len() + 1);
        for lease in self.list.drain(..) {
            if !which(&lease) {
                kept.push(lease);
                continue;
            }
            let left = Lease {
                end: Some(lease.end.map_or(first, |old| old.min(first))),
                ..lease.clone()
            };
            if left.end.is_some_and(|end| lease.first < end) {
                kept.push(left);
            }
            if let Some(end) = end {
                let right = Lease {
                    first: lease.first.max(end),
                    ..lease
                };
                if right.end.is_none_or(|stop| right.first < stop) {
                    kept.push(right);
                }
            }
        }
        self.list = kept;
    }
}

impl Lease {
    /// Whether its holder says nothing for longer than it takes between two words of its, where
    /// its machine or the way here is busy too.
    pub fn silent(&self, now: Time) -> bool {
        now.since(self.alive) > SILENT.max(self.hush * 2)
    }

    pub fn covers(&self, piece: PieceIndex) -> bool {
        self.first <= piece && self.end.is_none_or(|end| piece < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId::from_bytes([1; 16]);
    const B: PeerId = PeerId::from_bytes([2; 16]);

    fn p(n: u32) -> PieceIndex {
        PieceIndex::new(n)
    }

    #[test]
    fn a_lease_shrinks_as_its_pieces_come() {
        let mut leases = Leases::default();
        leases.grant(A, p(0), None, Time::ZERO);
        leases.came(A, p(0), Time::ZERO);
        leases.came(A, p(2), Time::ZERO);
        assert!(!leases.holds(A, p(0)) && leases.holds(A, p(1)) && !leases.holds(A, p(2)));
        assert!(leases.holds(A, p(1000)));
        assert_eq!(leases.next_from(p(2)), Some(p(3)));
    }

    #[test]
    fn only_the_holders_own_pieces_are_given_back() {
        let mut leases = Leases::default();
        leases.grant(A, p(0), Some(p(4)), Time::ZERO);
        leases.grant(B, p(4), None, Time::ZERO);
        leases.give_back(A, p(2), None);
        assert!(leases.holds(A, p(1)) && leases.holder(p(2)).is_none() && leases.holds(B, p(4)));
        leases.limit(p(6));
        assert!(leases.holds(B, p(5)) && leases.holder(p(6)).is_none());
    }
}
