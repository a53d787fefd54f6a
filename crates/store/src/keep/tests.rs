use proptest::prelude::*;

use super::*;

const TASK: TaskId = TaskId::from_bytes([7; 32]);

fn order(keep: &Keep) -> Vec<u32> {
    keep.candidates().map(|(_, piece)| piece.get()).collect()
}

fn filled(eviction: Eviction, pieces: u32) -> Keep {
    let mut keep = Keep::new(eviction);
    (0..pieces).for_each(|i| keep.insert(TASK, PieceIndex::new(i), 0));
    keep
}

#[test]
fn the_least_recently_used_leaves_first() {
    for eviction in [Eviction::Lru, Eviction::Swarm] {
        let mut keep = filled(eviction, 3);
        keep.touch(TASK, PieceIndex::new(0));
        let expected = match eviction {
            Eviction::Lru => [1, 2, 0],
            // What was needed by a window last stays, whatever is sent to children.
            Eviction::Swarm => [1, 0, 2],
        };
        assert_eq!(order(&keep), expected);
    }
}

#[test]
fn a_pinned_piece_is_no_candidate() {
    for eviction in [Eviction::Lru, Eviction::Swarm] {
        let mut keep = Keep::new(eviction);
        keep.insert(TASK, PieceIndex::new(0), 1);
        keep.insert(TASK, PieceIndex::new(1), 0);
        assert_eq!(order(&keep), [1]);
        keep.set_pins(TASK, PieceIndex::new(0), 0);
        assert_eq!(order(&keep), [1, 0]);
    }
}

#[test]
fn what_a_child_waits_for_leaves_after_all_else() {
    let mut keep = filled(Eviction::Swarm, 64);
    keep.claim(TASK, PieceIndex::new(0), true);
    assert_eq!(order(&keep).last(), Some(&0));
    keep.claim(TASK, PieceIndex::new(0), false);
    let recent = order(&keep).split_off(62);
    assert_eq!(recent, [63, 0], "it was needed just now");
}

#[test]
fn the_last_copy_leaves_after_what_others_keep() {
    let mut keep = filled(Eviction::Swarm, 64);
    keep.turn(TASK, Turn::new(1, 4));
    let first = PieceIndex::new(order(&keep)[0]);
    assert_eq!(Turn::new(1, 4).rank(&TASK, first), 3);
    keep.copies(TASK, first, Copies::Sole);
    let ranked: Vec<u32> = order(&keep)[..62]
        .iter()
        .map(|&i| match PieceIndex::new(i) {
            piece if piece == first => 0,
            piece => Turn::new(1, 4).rank(&TASK, piece),
        })
        .collect();
    assert!(ranked.is_sorted_by(|a, b| a >= b), "{ranked:?}");
    keep.copies(TASK, first, Copies::Several);
    assert_eq!(order(&keep)[0], first.get());
    let own = PieceIndex::new(order(&keep)[61]);
    keep.copies(TASK, own, Copies::Kept);
    assert_eq!(order(&keep)[0], own.get(), "somebody else keeps it");
}

#[test]
fn a_forgotten_task_leaves_nothing() {
    let mut keep = filled(Eviction::Swarm, 20);
    keep.turn(TASK, Turn::new(1, 4));
    keep.forget(TASK);
    assert!(keep.is_empty() && keep.tasks.is_empty() && order(&keep).is_empty());
}

/// Peers that stream `pieces` pieces in step, each with room for `room`: how many different pieces
/// they hold together in the end.
fn covered(eviction: Eviction, peers: u32, pieces: u32, room: usize) -> usize {
    let mut caches: Vec<Keep> = (0..peers)
        .map(|at| {
            let mut keep = Keep::new(eviction);
            keep.turn(TASK, Turn::new(at, peers));
            keep
        })
        .collect();
    let mut held = vec![std::collections::BTreeSet::new(); peers as usize];
    for piece in (0..pieces).map(PieceIndex::new) {
        for (keep, held) in caches.iter_mut().zip(&mut held) {
            if held.len() == room {
                let (_, gone) = keep.candidates().next().unwrap();
                keep.remove(TASK, gone);
                held.remove(&gone);
            }
            keep.insert(TASK, piece, 0);
            held.insert(piece);
        }
    }
    held.into_iter()
        .flatten()
        .collect::<std::collections::BTreeSet<_>>()
        .len()
}

#[test]
fn peers_in_step_hold_the_content_together() {
    // A quarter of the content each, and what the reader's window takes beside it.
    let share = |eviction| covered(eviction, 4, 256, 64 + 4);
    assert_eq!(share(Eviction::Lru), 68);
    assert!(
        share(Eviction::Swarm) >= 256 * 95 / 100,
        "{}",
        share(Eviction::Swarm)
    );
    // Nothing but a quarter: what is kept for those who follow is the same everywhere.
    let bare = covered(Eviction::Swarm, 4, 256, 64);
    assert!(bare >= 256 * 95 / 100, "{bare}");
    // Much more content than all of them have room for: what has few copies is kept.
    let little = covered(Eviction::Swarm, 8, 4096, 64);
    assert!(little >= 8 * 64 - 7 * 64 / RECENT - 8, "{little}");
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Insert(u32, u32),
    Touch(u32),
    Pins(u32, u32),
    Claim(u32, bool),
    Copies(u32, Copies),
    Turn(u32, u32),
    Remove(u32),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let piece = 0u32..80;
    let copies = prop_oneof![
        Just(Copies::Several),
        Just(Copies::Sole),
        Just(Copies::Kept)
    ];
    let op = prop_oneof![
        4 => (piece.clone(), 0u32..2).prop_map(|(i, pins)| Op::Insert(i, pins)),
        1 => piece.clone().prop_map(Op::Touch),
        3 => (piece.clone(), 0u32..2).prop_map(|(i, pins)| Op::Pins(i, pins)),
        1 => (piece.clone(), any::<bool>()).prop_map(|(i, yes)| Op::Claim(i, yes)),
        1 => (piece.clone(), copies).prop_map(|(i, copies)| Op::Copies(i, copies)),
        1 => (0u32..9, 1u32..9).prop_map(|(at, of)| Op::Turn(at, of)),
        1 => piece.prop_map(Op::Remove),
    ];
    prop::collection::vec(op, 0..400)
}

/// The same order by a plain list, the last used last.
#[derive(Debug, Default)]
struct Naive {
    list: Vec<Item>,
    turn: Option<Turn>,
    lru: bool,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    piece: u32,
    pins: u32,
    claimed: bool,
    copies: Copies,
    recent: bool,
}

impl Naive {
    fn of(&mut self, piece: u32) -> Option<&mut Item> {
        self.list.iter_mut().find(|item| item.piece == piece)
    }

    fn last(&mut self, piece: u32) {
        if let Some(at) = self.list.iter().position(|item| item.piece == piece) {
            let item = self.list.remove(at);
            self.list.push(item);
        }
    }

    fn act(&mut self, op: Op) {
        match op {
            Op::Insert(piece, pins) => {
                self.act(Op::Remove(piece));
                self.list.push(Item {
                    piece,
                    pins,
                    claimed: false,
                    copies: Copies::Several,
                    recent: true,
                });
            }
            Op::Touch(piece) => self.last(piece),
            Op::Pins(piece, pins) => {
                if let Some(item) = self.of(piece) {
                    let turned = (item.pins == 0) != (pins == 0);
                    item.pins = pins;
                    if turned {
                        item.recent = true;
                        self.last(piece);
                    }
                }
            }
            Op::Claim(piece, claimed) if !self.lru => {
                if let Some(item) = self.of(piece)
                    && item.claimed != claimed
                {
                    item.claimed = claimed;
                    item.recent = true;
                    self.last(piece);
                }
            }
            Op::Claim(..) => {}
            Op::Copies(piece, copies) => {
                if let Some(item) = self.of(piece) {
                    item.copies = copies;
                }
            }
            Op::Turn(at, of) => self.turn = Some(Turn::new(at, of)),
            Op::Remove(piece) => self.list.retain(|item| item.piece != piece),
        }
        let room = (self.list.len() / RECENT).max(1);
        let free = |item: &Item| item.pins == 0 && !item.claimed && item.recent;
        let over = self
            .list
            .iter()
            .filter(|item| free(item))
            .count()
            .saturating_sub(room);
        self.list
            .iter_mut()
            .filter(|item| free(item))
            .take(over)
            .for_each(|item| item.recent = false);
    }

    fn order(&self) -> Vec<u32> {
        let turn = self.turn.unwrap_or(Turn::ALONE);
        let key = |item: &Item| match item {
            _ if self.lru => (0, 0),
            Item { claimed: true, .. } => (2, 0),
            Item { recent: true, .. } => (1, 0),
            Item {
                copies: Copies::Sole,
                ..
            } => (0, 0),
            item => {
                let kept = u32::from(item.copies == Copies::Kept) * turn.of();
                let rank = turn.rank(&TASK, PieceIndex::new(item.piece));
                (0, -i64::from(rank + kept))
            }
        };
        let mut free: Vec<Item> = self
            .list
            .iter()
            .filter(|item| item.pins == 0)
            .copied()
            .collect();
        free.sort_by_key(key);
        free.into_iter().map(|item| item.piece).collect()
    }
}

proptest! {
    #[test]
    fn orders_as_a_list_does(ops in ops(), lru in any::<bool>()) {
        let mut keep = Keep::new(if lru { Eviction::Lru } else { Eviction::Swarm });
        let mut naive = Naive { lru, ..Naive::default() };
        for op in ops {
            match op {
                Op::Insert(i, pins) => keep.insert(TASK, PieceIndex::new(i), pins),
                Op::Touch(i) => keep.touch(TASK, PieceIndex::new(i)),
                Op::Pins(i, pins) => keep.set_pins(TASK, PieceIndex::new(i), pins),
                Op::Claim(i, yes) => keep.claim(TASK, PieceIndex::new(i), yes),
                Op::Copies(i, copies) => keep.copies(TASK, PieceIndex::new(i), copies),
                Op::Turn(at, of) => keep.turn(TASK, Turn::new(at, of)),
                Op::Remove(i) => keep.remove(TASK, PieceIndex::new(i)),
            }
            naive.act(op);
            prop_assert_eq!(order(&keep), naive.order());
            prop_assert_eq!(keep.len(), naive.list.len());
        }
    }
}
