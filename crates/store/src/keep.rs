use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map},
};

use pantala_core::{PieceIndex, TaskId, Turn, control::Copies};

/// Which pieces leave first when room is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Eviction {
    /// Least recently used first, whatever others hold.
    Lru,
    /// First what other peers keep, so that peers in step hold different pieces; least recently
    /// used first among equals.
    #[default]
    Swarm,
}

/// The order in which pieces leave the piece data cache.
///
/// A plain machine: it knows names, not bytes; no IO, no clock, no randomness. Costs O(log n) a
/// call, but [`Keep::turn`], which looks at each piece of the task once.
///
/// Pinned pieces (a window needs them) never leave. With [`Eviction::Swarm`] the others leave so:
/// 1. by rank: how many peers come before this one as keepers of the piece (its [`Turn`]), the
///    most first, and of equals the least recently used. What this peer alone holds, as far as
///    it was told, ranks as what it is the first keeper of: last. What somebody else was told to
///    keep ranks before all that nobody was.
/// 2. The [`RECENT`] part of all pieces that was needed here last: it takes a moment until the
///    supernode can say that something has only one copy left.
/// 3. Claimed pieces (a child waits for them). They leave when nothing else is left: a slow child
///    must not stop the readers here.
///
/// Two peers with the same pieces let go of a piece in the order of their ranks, so the first
/// keeper has it when all others have not; and who holds the last copy is told.
#[derive(Debug, Default)]
pub struct Keep {
    eviction: Eviction,
    clock: u64,
    tasks: BTreeMap<TaskId, Pieces>,
    len: usize,
    spare: BTreeMap<(Reverse<u32>, u64), Name>,
    recent: BTreeMap<u64, Name>,
    claimed: BTreeMap<u64, Name>,
}

type Name = (TaskId, PieceIndex);

/// One of so many pieces, and at least one, is kept for having been needed last. More would cost:
/// it is the same pieces at all peers in step.
const RECENT: usize = 32;

#[derive(Debug)]
struct Pieces {
    turn: Turn,
    entries: BTreeMap<PieceIndex, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// When it was used last; no two pieces at the same time.
    at: u64,
    pins: u32,
    claimed: bool,
    copies: Copies,
    stand: Stand,
}

/// In which of the orders a piece stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// In none: a window needs it.
    Pinned,
    Spare(u32),
    Recent,
    Claimed,
}

impl Keep {
    /// Nothing in it.
    pub fn new(eviction: Eviction) -> Self {
        Self {
            eviction,
            ..Self::default()
        }
    }

    /// A piece came, with so many pins on it.
    pub fn insert(&mut self, task: TaskId, piece: PieceIndex, pins: u32) {
        self.remove(task, piece);
        self.clock += 1;
        let entry = Entry {
            at: self.clock,
            pins,
            claimed: false,
            copies: Copies::Several,
            stand: Stand::Pinned,
        };
        self.len += 1;
        self.task(task).entries.insert(piece, entry);
        self.place(task, piece, Stand::Recent);
    }

    /// A piece was used: it is the last to leave of its equals.
    pub fn touch(&mut self, task: TaskId, piece: PieceIndex) {
        if let Some(stand) = self.entry(task, piece).map(|entry| entry.stand) {
            self.used(task, piece);
            self.place(task, piece, stand);
        }
    }

    /// Sets how many windows need the piece; a piece that becomes free was just used.
    pub fn set_pins(&mut self, task: TaskId, piece: PieceIndex, pins: u32) {
        let Some(entry) = self.entry(task, piece) else {
            return;
        };
        let before = std::mem::replace(&mut entry.pins, pins);
        if (before == 0) != (pins == 0) {
            self.used(task, piece);
            self.place(task, piece, Stand::Recent);
        }
    }

    /// Whether children wait for the piece; one that they have was just used.
    pub fn claim(&mut self, task: TaskId, piece: PieceIndex, claimed: bool) {
        if self.eviction == Eviction::Lru {
            return;
        }
        let Some(entry) = self.entry(task, piece) else {
            return;
        };
        if std::mem::replace(&mut entry.claimed, claimed) != claimed {
            self.used(task, piece);
            self.place(task, piece, Stand::Recent);
        }
    }

    /// Who else has the piece, as far as the supernode knows.
    pub fn copies(&mut self, task: TaskId, piece: PieceIndex, copies: Copies) {
        let Some(entry) = self.entry(task, piece) else {
            return;
        };
        entry.copies = copies;
        let stand = entry.stand;
        self.place(task, piece, stand);
    }

    /// This peer's place among those who keep the task's pieces.
    pub fn turn(&mut self, task: TaskId, turn: Turn) {
        let found = self.task(task);
        found.turn = turn;
        let spare = |(&piece, entry): (&PieceIndex, &Entry)| {
            matches!(entry.stand, Stand::Spare(_)).then_some((piece, entry.stand))
        };
        let spare: Vec<_> = found.entries.iter().filter_map(spare).collect();
        for (piece, stand) in spare {
            self.place(task, piece, stand);
        }
    }

    /// A piece went.
    pub fn remove(&mut self, task: TaskId, piece: PieceIndex) {
        self.withdraw(task, piece);
        if let Some(found) = self.tasks.get_mut(&task)
            && found.entries.remove(&piece).is_some()
        {
            self.len -= 1;
            self.settle();
        }
    }

    /// A task went: its pieces and the peer's place in its swarm.
    pub fn forget(&mut self, task: TaskId) {
        let pieces = |found: &Pieces| found.entries.keys().copied().collect::<Vec<_>>();
        for piece in self.tasks.get(&task).map(pieces).unwrap_or_default() {
            self.remove(task, piece);
        }
        self.tasks.remove(&task);
    }

    /// The pieces that may leave, the first to go first.
    pub fn candidates(&self) -> impl Iterator<Item = (TaskId, PieceIndex)> + '_ {
        let spare = self.spare.values();
        spare
            .chain(self.recent.values())
            .chain(self.claimed.values())
            .copied()
    }

    /// How many pieces it knows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn task(&mut self, task: TaskId) -> &mut Pieces {
        match self.tasks.entry(task) {
            btree_map::Entry::Occupied(found) => found.into_mut(),
            btree_map::Entry::Vacant(new) => new.insert(Pieces {
                turn: Turn::ALONE,
                entries: BTreeMap::new(),
            }),
        }
    }

    fn entry(&mut self, task: TaskId, piece: PieceIndex) -> Option<&mut Entry> {
        self.tasks.get_mut(&task)?.entries.get_mut(&piece)
    }

    /// Takes a piece out of its order.
    fn withdraw(&mut self, task: TaskId, piece: PieceIndex) {
        let Some(entry) = self.entry(task, piece) else {
            return;
        };
        let at = entry.at;
        match std::mem::replace(&mut entry.stand, Stand::Pinned) {
            Stand::Pinned => None,
            Stand::Spare(rank) => self.spare.remove(&(Reverse(rank), at)),
            Stand::Recent => self.recent.remove(&at),
            Stand::Claimed => self.claimed.remove(&at),
        };
    }

    /// Makes it the piece that was used last. It stands nowhere until it is placed.
    fn used(&mut self, task: TaskId, piece: PieceIndex) {
        self.withdraw(task, piece);
        self.clock += 1;
        let now = self.clock;
        if let Some(entry) = self.entry(task, piece) {
            entry.at = now;
        }
    }

    /// Puts a piece where it belongs: one that nobody needs among the recent ones, if `free` says
    /// so, else by its rank.
    fn place(&mut self, task: TaskId, piece: PieceIndex, free: Stand) {
        self.put(task, piece, free);
        self.settle();
    }

    fn put(&mut self, task: TaskId, piece: PieceIndex, free: Stand) {
        self.withdraw(task, piece);
        let lru = self.eviction == Eviction::Lru;
        let Some(found) = self.tasks.get_mut(&task) else {
            return;
        };
        let turn = found.turn;
        let Some(entry) = found.entries.get_mut(&piece) else {
            return;
        };
        entry.stand = if entry.pins > 0 {
            Stand::Pinned
        } else if lru {
            Stand::Spare(0)
        } else if entry.claimed {
            Stand::Claimed
        } else if free == Stand::Recent {
            Stand::Recent
        } else {
            Stand::Spare(match entry.copies {
                Copies::Sole => 0,
                Copies::Several => turn.rank(&task, piece),
                Copies::Kept => turn.rank(&task, piece).saturating_add(turn.of()),
            })
        };
        let (at, name) = (entry.at, (task, piece));
        match entry.stand {
            Stand::Pinned => None,
            Stand::Spare(rank) => self.spare.insert((Reverse(rank), at), name),
            Stand::Recent => self.recent.insert(at, name),
            Stand::Claimed => self.claimed.insert(at, name),
        };
    }

    /// What is not recent any more stands with the rest.
    fn settle(&mut self) {
        while self.recent.len() > (self.len / RECENT).max(1) {
            let Some((_, &(task, piece))) = self.recent.first_key_value() else {
                return;
            };
            self.put(task, piece, Stand::Spare(0));
        }
    }
}

#[cfg(test)]
mod tests;
