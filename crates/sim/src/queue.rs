use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use pantala_core::{
    PieceIndex, Time,
    control::{FromPeer, ToPeer},
};
use pantala_window::AttemptId;

use crate::measure::Measuring;

/// A point on the simulator's clock, in nanoseconds: fine enough that rounding a block's time
/// does not add up.
pub(crate) type Nanos = u64;

/// The brains' clock counts microseconds.
pub(crate) fn time(now: Nanos) -> Time {
    Time::from_micros(now / 1000)
}

/// A host's, a seat's, a link's or a transfer's place in the world's lists.
pub(crate) type Index = u32;

/// What happens at a point in time.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A host's reader comes.
    Arrival {
        visit: Index,
    },
    /// A reader has had one of its contents, and goes on with the next.
    NextContent {
        visit: Index,
    },
    /// A host goes for good.
    Departure {
        host: Index,
    },
    Fault {
        fault: Index,
    },
    /// A host's message reaches the supernode.
    ToSwarm {
        host: Index,
        message: Box<FromPeer>,
    },
    /// A supernode's message reaches a host.
    ToPeer {
        host: Index,
        message: Box<ToPeer>,
    },
    /// The supernode's connection to a host broke, or is back.
    Connection {
        host: Index,
        up: bool,
    },
    Connect {
        host: Index,
    },
    Disconnect {
        host: Index,
    },
    /// A host has tried the ways to others once.
    Tried {
        host: Index,
        measuring: Box<Measuring>,
    },
    SwarmTick,
    PickerTick {
        seat: Index,
    },
    /// The origin answered the request for metadata.
    Metadata {
        seat: Index,
    },
    Dialled {
        link: Index,
    },
    /// The other end of a link is gone.
    LinkDown {
        link: Index,
    },
    /// A seat's announcements leave for its children.
    Announce {
        seat: Index,
    },
    /// Announcements reach a child.
    News {
        link: Index,
    },
    /// A request reaches a parent.
    Want {
        link: Index,
        piece: PieceIndex,
        attempt: AttemptId,
        from: u32,
        urgency: u32,
    },
    Unwant {
        link: Index,
        piece: PieceIndex,
        attempt: AttemptId,
    },
    /// A parent says that it does not have and will not get the piece.
    Refused {
        link: Index,
        attempt: AttemptId,
    },
    /// The first bytes of a request to the origin may flow.
    RunOpen {
        run: Index,
    },
    /// Something that was sent over a connection is acknowledged.
    Acknowledged {
        conn: Index,
    },
    /// Bytes of no content arrive.
    Plain {
        bytes: u32,
    },
    /// What found a queue full is sent again.
    SentAgain {
        conn: Index,
    },
    /// A connection's pace lets it send again.
    Paced {
        conn: Index,
    },
    /// An uplink has sent its block; the origin's is `None`.
    Sent {
        host: Option<Index>,
    },
    /// A block reaches a child.
    Block {
        link: Index,
        piece: PieceIndex,
        attempt: AttemptId,
        from: u32,
        bytes: u32,
    },
    /// A block whose beginning came before has come in full.
    Whole {
        link: Index,
        piece: PieceIndex,
        attempt: AttemptId,
        from: u32,
        bytes: u32,
    },
    RunBlock {
        run: Index,
        piece: PieceIndex,
        from: u32,
        bytes: u32,
    },
    /// A reader has taken a piece.
    Taken {
        seat: Index,
        reader: u32,
    },
    Have {
        seat: Index,
    },
    Progress {
        seat: Index,
    },
    Pulse {
        seat: Index,
    },
    /// The figures are looked at.
    Sample,
}

#[derive(Debug)]
struct Entry {
    at: Nanos,
    seq: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// A bucket spans 2^14 ns (16 µs).
const WIDTH: u32 = 14;
/// So many buckets (0.27 s) are kept apart; what lies further off waits in a heap.
const BUCKETS: usize = 1 << 14;
/// So many entries are in order before they are due,
pub(crate) const AHEAD: usize = 64;
/// unless the bucket that they would come from is further off than this.
const NEAR: u64 = 4;

/// What is to come, the earliest first; at one point in time what was put in first.
///
/// A calendar: a put costs a push to its bucket's list, whatever the number of entries. Only the
/// buckets that come next are put in order: as many as it takes to see some way ahead.
#[derive(Debug)]
pub(crate) struct Queue {
    seq: u64,
    /// The number of the last bucket that was put in order.
    bucket: u64,
    /// What is left of it and those before.
    now: VecDeque<Entry>,
    /// What was put in after that.
    late: BinaryHeap<Reverse<Entry>>,
    /// The bucket at which it is time for the next one.
    refill: u64,
    ring: Vec<Vec<Entry>>,
    /// A bit for each bucket of the ring that has something in it.
    filled: Vec<u64>,
    far: BinaryHeap<Reverse<Entry>>,
    /// Lists of buckets that were emptied.
    spare: Vec<Vec<Entry>>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            seq: 0,
            bucket: 0,
            now: VecDeque::new(),
            late: BinaryHeap::new(),
            refill: 0,
            ring: std::iter::repeat_with(Vec::new).take(BUCKETS).collect(),
            filled: vec![0; BUCKETS / 64],
            far: BinaryHeap::new(),
            spare: Vec::new(),
        }
    }
}

impl Queue {
    pub fn push(&mut self, at: Nanos, what: Happening) {
        self.seq += 1;
        let seq = self.seq;
        let entry = Entry { at, seq, what };
        let bucket = at >> WIDTH;
        if bucket <= self.bucket {
            self.late.push(Reverse(entry));
        } else if bucket < self.bucket + BUCKETS as u64 {
            let slot = bucket as usize % BUCKETS;
            let list = &mut self.ring[slot];
            if list.is_empty() {
                self.filled[slot / 64] |= 1 << (slot % 64);
                *list = self.spare.pop().unwrap_or_default();
            }
            list.push(entry);
            self.refill = self.refill.min(bucket.saturating_sub(NEAR));
        } else {
            self.far.push(Reverse(entry));
        }
    }

    pub fn pop(&mut self) -> Option<(Nanos, Happening)> {
        if self.now.len() < AHEAD {
            self.look();
        }
        let late = match (self.now.front(), self.late.peek()) {
            (Some(next), Some(Reverse(late))) => late < next,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let entry = match late {
            true => self.late.pop().map(|Reverse(entry)| entry),
            false => self.now.pop_front(),
        };
        entry.map(|entry| (entry.at, entry.what))
    }

    /// What will come so many places later, as far as that is known.
    pub fn ahead(&self, places: usize) -> Option<&Happening> {
        self.now.get(places).map(|entry| &entry.what)
    }

    /// Puts the next buckets in order: at least one that has something, and more to see ahead.
    fn look(&mut self) {
        let next = self.now.front().map(|entry| entry.at >> WIDTH);
        if next.is_some_and(|next| next < self.refill) {
            return;
        }
        while self.now.len() < AHEAD {
            let near = self.next_filled();
            let far = self.far.peek().map(|Reverse(entry)| entry.at >> WIDTH);
            let Some(bucket) = near.into_iter().chain(far).min() else {
                self.refill = u64::MAX;
                return;
            };
            let next = self.now.front().map(|entry| entry.at >> WIDTH);
            if next.is_some_and(|next| bucket > next + NEAR) {
                self.refill = bucket - NEAR;
                return;
            }
            self.take(bucket, near == Some(bucket));
        }
        self.refill = 0;
    }

    /// Puts a bucket in order behind what there is.
    fn take(&mut self, bucket: u64, near: bool) {
        self.bucket = bucket;
        let slot = bucket as usize % BUCKETS;
        let mut list = match near {
            true => std::mem::take(&mut self.ring[slot]),
            false => self.spare.pop().unwrap_or_default(),
        };
        self.filled[slot / 64] &= !(1 << (slot % 64));
        while self
            .far
            .peek()
            .is_some_and(|Reverse(entry)| entry.at >> WIDTH <= bucket)
        {
            list.extend(self.far.pop().map(|Reverse(entry)| entry));
        }
        list.sort_unstable();
        self.now.extend(list.drain(..));
        self.spare.push(list);
    }

    /// The first bucket after those that were put in order that has something in it.
    fn next_filled(&self) -> Option<u64> {
        let start = (self.bucket + 1) as usize % BUCKETS;
        let words = self.filled.len();
        let first = self.filled[start / 64] & (u64::MAX << (start % 64));
        let found = |word: usize, bits: u64| {
            let slot = word * 64 + bits.trailing_zeros() as usize;
            let ahead = (slot + BUCKETS - start) % BUCKETS;
            self.bucket + 1 + ahead as u64
        };
        if first != 0 {
            return Some(found(start / 64, first));
        }
        // The last of them is the first word again: its lower bits are the furthest off.
        (1..=words)
            .map(|step| (start / 64 + step) % words)
            .find(|&word| self.filled[word] != 0)
            .map(|word| found(word, self.filled[word]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Draw;

    #[test]
    fn what_comes_first_comes_out_first() {
        let (mut queue, mut model) = (Queue::default(), Vec::new());
        let (mut draw, mut now, mut last) = (Draw(3), 0, 0);
        for number in 0..4_000u32 {
            let ahead = match draw.next() % 4 {
                0 => 0,
                1 => draw.next() % 100_000,
                2 => draw.next() % 300_000_000,
                _ => draw.next() % 5_000_000_000,
            };
            queue.push(now + ahead, Happening::Arrival { visit: number });
            model.push((now + ahead, number));
            if draw.next() % 5 < 3 {
                let Some((at, Happening::Arrival { visit })) = queue.pop() else {
                    unreachable!("only arrivals were put in")
                };
                let least = model.iter().copied().min();
                assert_eq!(least, Some((at, visit)));
                model.retain(|&entry| entry != (at, visit));
                assert!(at >= last);
                (now, last) = (at, at);
            }
        }
        assert_eq!(
            std::iter::from_fn(|| queue.pop()).count(),
            model.len(),
            "something got lost"
        );
    }
}
