//! Children that do anything at any time, at a parent whose pieces come and go.
//!
//! Whatever happens, a request's bytes are right and come in order, it ends once at most, and it ends when all
//! that it could wait for is there. When the children have gone nothing of theirs is left.

use std::collections::{BTreeMap, HashMap};

use pantala_wire::link::BACKGROUND;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::*;

const SEEDS: u64 = 30;
const STEPS: usize = 150;
/// As many pieces as there is room for.
const PIECES: u32 = 4;
/// Bytes a second, where there is a limit.
const RATE: u64 = 16 << 20;
const TASKS: [TaskId; 2] = [TASK, OTHER];

/// A request as its child sees it.
#[derive(Debug)]
struct Asked {
    task: TaskId,
    piece: u32,
    at: usize,
    ended: bool,
    /// The child has taken it back: there need be no end.
    dropped: bool,
}

struct Wild {
    child: Asking,
    asked: HashMap<u32, Asked>,
}

impl Wild {
    async fn new(parent: &Arc<PeerServer>) -> Self {
        let (mut child, asked) = (Asking::new(parent), HashMap::new());
        let peer = PeerId::from_bytes([2; 16]);
        child.say(&[ToParent::hello(peer)]).await;
        Self { child, asked }
    }

    /// Says something, be there sense in it or not.
    async fn say(&mut self, rng: &mut StdRng) {
        let request = rng.random_range(0..=self.asked.len() as u32);
        let task = *TASKS.choose(rng).expect("a task");
        let mut urgency = rng.random_range(0..4);
        if rng.random_bool(0.3) {
            urgency |= BACKGROUND;
        }
        let message = match rng.random_range(0..10) {
            0 => ToParent::Follow { task },
            1 => {
                self.drop_if(|asked| asked.task == task);
                ToParent::Unfollow { task }
            }
            2 => {
                if let Some(asked) = self.asked.get_mut(&request) {
                    asked.dropped = true;
                }
                ToParent::Cancel { request }
            }
            3 => ToParent::Urge { request, urgency },
            4 => ToParent::AreYouThere,
            _ => self.want(rng, task, urgency),
        };
        self.child.say(&[message]).await;
    }

    fn drop_if(&mut self, is_it: impl Fn(&Asked) -> bool) {
        let dropped = self.asked.values_mut().filter(|asked| is_it(asked));
        dropped.for_each(|asked| asked.dropped = true);
    }

    fn want(&mut self, rng: &mut StdRng, task: TaskId, urgency: u32) -> ToParent {
        let request = self.asked.len() as u32;
        let piece = rng.random_range(0..PIECES);
        let at = *[0, 1, PIECE / 3, PIECE].choose(rng).expect("an offset");
        let asked = Asked {
            task,
            piece,
            at,
            ended: false,
            dropped: false,
        };
        self.asked.insert(request, asked);
        ToParent::Want {
            request,
            task,
            piece: PieceIndex::new(piece),
            offset: at as u32,
            urgency,
        }
    }

    /// Takes what comes now.
    async fn take(&mut self) {
        while let Ok(heard) = timeout(MOMENT, self.child.next()).await {
            match heard {
                Some(Heard::Block(request, bytes)) => {
                    let asked = self.asked.get_mut(&request).expect("it was asked for");
                    assert!(!asked.ended, "{asked:?}");
                    let (from, end) = (asked.at, asked.at + bytes.len());
                    assert!(end <= PIECE && bytes == bytes_of(asked.piece, from..end));
                    asked.at = end;
                }
                Some(Heard::Done(request)) => {
                    let asked = self.asked.get_mut(&request).expect("it was asked for");
                    assert!(!asked.ended && asked.at == PIECE, "{asked:?}");
                    asked.ended = true;
                }
                Some(Heard::Refused(request, _)) => {
                    let asked = self.asked.get_mut(&request).expect("it was asked for");
                    assert!(!asked.ended, "{asked:?}");
                    asked.ended = true;
                }
                Some(Heard::News(_) | Heard::Here) => {}
                None => break,
            }
        }
    }

    /// Every request that it has not taken back has ended.
    fn assert_answered(&self) {
        for asked in self.asked.values() {
            assert!(asked.ended || asked.dropped, "{asked:?}");
        }
    }
}

/// A parent's contents, as far as they are there now.
#[derive(Default)]
struct Shelf {
    contents: BTreeMap<TaskId, Content>,
    /// How much has come of the pieces that arrive.
    arriving: BTreeMap<(TaskId, u32), PieceWriter>,
    rates: TaskRates,
}

impl Shelf {
    fn change(&mut self, parent: &PeerServer, rng: &mut StdRng) {
        let task = *TASKS.choose(rng).expect("a task");
        let piece = rng.random_range(0..PIECES);
        let Some(content) = self.contents.get(&task) else {
            let content = Content::with_rates(parent, task, self.rates.clone());
            self.contents.insert(task, content);
            return;
        };
        let index = PieceIndex::new(piece);
        match rng.random_range(0..20) {
            0 => {
                self.arriving.retain(|(of, _), _| *of != task);
                content.close(parent);
                self.contents.remove(&task);
            }
            1 => content.plan(Planned::Nothing),
            2 => content.plan(Planned::Pieces(index, None)),
            3 => content.plan(Planned::Unknown),
            4 => {
                if self.arriving.remove(&(task, piece)).is_some() {
                    content.pieces.abandon(index);
                }
            }
            // All that nobody needs is evicted.
            5 => drop(content.store.budget().try_charge(4 * PIECE as u64)),
            _ => self.grow(task, piece, rng.random_range(1..PIECE)),
        }
    }

    fn grow(&mut self, task: TaskId, piece: u32, bytes: usize) {
        let (content, index) = (&self.contents[&task], PieceIndex::new(piece));
        let mut writer = match self.arriving.remove(&(task, piece)) {
            Some(writer) => writer,
            None if matches!(content.pieces.slot(index), pantala_store::Slot::Missing) => {
                let Some(charge) = content.store.budget().try_charge(PIECE as u64) else {
                    return;
                };
                PieceBuffer::charged(charge).1
            }
            None => return,
        };
        let from = writer.position();
        let bytes = bytes.min(writer.remaining());
        writer.append(&bytes_of(piece, from..from + bytes));
        if writer.remaining() == 0 {
            content.pieces.seal(index, writer.buffer().clone());
        } else {
            content.pieces.arrival(false).show(index, writer.buffer());
            self.arriving.insert((task, piece), writer);
        }
    }

    /// Everything is there.
    fn complete(&mut self, parent: &PeerServer) {
        for task in TASKS {
            let rates = self.rates.clone();
            let missing = || Content::with_rates(parent, task, rates);
            self.contents.entry(task).or_insert_with(missing);
            (0..PIECES).for_each(|piece| self.grow(task, piece, PIECE));
        }
    }
}

async fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let parent = parent();
    let mut shelf = Shelf::default();
    if seed.is_multiple_of(2) {
        shelf.rates = limited(RATE);
    }
    let mut children = Vec::new();
    for _ in 0..3 {
        children.push(Wild::new(&parent).await);
    }
    let (mut slot, mut claim) = (None, None);
    for _ in 0..STEPS {
        let child = rng.random_range(0..children.len());
        match rng.random_range(0..12) {
            0 => slot = parent.slots.clone().try_acquire_owned().ok(),
            1 => slot = None,
            2 => claim = Some(parent.line.claim()),
            3 => claim = None,
            4 => tokio::time::sleep(MOMENT * rng.random_range(0..1500)).await,
            5 | 6 => children[child].take().await,
            7 | 8 => children[child].say(&mut rng).await,
            9 if rng.random_bool(0.1) => {
                children[child] = Wild::new(&parent).await;
                settle().await;
            }
            _ => shelf.change(&parent, &mut rng),
        }
    }
    drop((slot, claim));
    // Enough time for whatever waits for a task, a slot or another child.
    for _ in 0..20 {
        shelf.complete(&parent);
        for child in &mut children {
            child.take().await;
        }
        tokio::time::sleep(MOMENT * 200).await;
    }
    for child in &children {
        assert!(!child.child.ended.is_finished(), "it was cut off");
        child.assert_answered();
    }
    drop(children);
    settle().await;
    parent.assert_at_rest();
    for content in shelf.contents.values() {
        assert_eq!((content.awaited(), content.followers()), (0, 0));
        let budget = content.store.budget();
        assert!(budget.try_charge(budget.limit()).is_some(), "what is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_all_requests_end_and_nothing_is_left_over() {
    for seed in 0..SEEDS {
        let ran = tokio::spawn(run(seed));
        assert!(ran.await.is_ok(), "seed {seed}");
    }
}
