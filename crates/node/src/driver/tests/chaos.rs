//! Whatever readers and parents do, in whatever order: brain, requests, links and store agree at every step,
//! which the driver checks, and in the end nothing is left.

use std::{collections::BTreeMap, time::Duration};

use pantala_core::PeerId;
use pantala_store::Charge;
use pantala_wire::link::{Refusal, ToChild, ToParent};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::fixture::*;
use crate::download::scripted::Parent;

const PEERS: [PeerId; 2] = [PARENT, PeerId::from_bytes([10; 16])];
const RUNS: u64 = 24;
const STEPS: usize = 200;

/// A parent without a plan.
struct Wild {
    parent: Parent,
    /// How far the requests are that it has heard and not answered.
    asked: BTreeMap<u32, usize>,
}

impl Wild {
    /// Does something; `false` when the connection is over.
    async fn act(&mut self, rng: &mut StdRng) -> bool {
        let Some(heard) = self.parent.hear_now().await else {
            return false;
        };
        for message in heard {
            match message {
                ToParent::Want {
                    request, offset, ..
                } => drop(self.asked.insert(request, offset as usize)),
                ToParent::Cancel { request } => drop(self.asked.remove(&request)),
                ToParent::Unfollow { .. } => self.asked.clear(),
                ToParent::AreYouThere if rng.random() => self.parent.say(&[ToChild::Here]).await,
                _ => {}
            }
        }
        let (task, runs) = (TASK, vec![(FIRST, 1)]);
        match rng.random_range(0..40) {
            0..8 => self.parent.holds(task, FIRST).await,
            8..12 => {
                let piece = FIRST;
                self.parent.say(&[ToChild::Receiving { task, piece }]).await;
            }
            12 => self.parent.say(&[ToChild::Lost { task, runs }]).await,
            13 => return false,
            14 => self.parent.write_bytes(&[32, 64, 0, 0, 0]).await,
            _ => self.answer(rng).await,
        }
        true
    }

    async fn answer(&mut self, rng: &mut StdRng) {
        let Some(mut asked) = self.asked.first_entry() else {
            return;
        };
        let (request, at) = (*asked.key(), *asked.get());
        let refusal = match rng.random_range(0..12) {
            0 => Refusal::Busy,
            1 => Refusal::NotHere,
            _ if at < PIECE => {
                let to = rng.random_range(at + 1..=PIECE);
                let wrong = [6; PIECE];
                let bytes = if rng.random_ratio(1, 9) { wrong } else { BYTES };
                *asked.get_mut() = to;
                return self.parent.send(request, &bytes[at..to]).await;
            }
            _ => {
                asked.remove();
                return self.parent.done(request, at).await;
            }
        };
        asked.remove();
        let refused = ToChild::Refused { request, refusal };
        self.parent.say(&[refused]).await;
    }
}

async fn run(seed: u64) -> bool {
    let mut rng = StdRng::seed_from_u64(seed);
    let node = Node::start();
    let budget = node.ports.store.budget().clone();
    let mut parents: [Option<Wild>; 2] = [None, None];
    let mut reader = Some(node.read());
    let mut memory: Option<Charge> = None;
    let mut held = false;
    node.register_with(&PEERS, rng.random_ratio(3, 4)).await;
    for _ in 0..STEPS {
        if node.driver.is_finished() {
            break;
        }
        match rng.random_range(0..40) {
            0..5 => {
                reader.get_or_insert_with(|| node.read());
            }
            5 => {
                if let Some(reader) = reader.take() {
                    node.handle.readers.close(&reader);
                }
            }
            6 => memory = budget.try_charge(PIECE as u64),
            7..10 => memory = None,
            10 => node.register_with(&PEERS, true).await,
            11..16 => tokio::time::sleep(Duration::from_millis(rng.random_range(1..900))).await,
            which => {
                let which = which % 2;
                if let Some(wild) = &mut parents[which] {
                    if !wild.act(&mut rng).await {
                        parents[which] = None;
                    }
                } else {
                    let parent = node.connect_to(PEERS[which]).await;
                    let asked = BTreeMap::new();
                    parents[which] = Some(Wild { parent, asked });
                }
            }
        }
        for _ in 0..rng.random_range(0..40) {
            tokio::task::yield_now().await;
        }
        held |= node.is_held();
    }
    if let Some(reader) = reader.take() {
        node.handle.readers.close(&reader);
    }
    drop((memory, parents));
    tokio::time::sleep(FOR_EVER).await;
    // What the cache holds leaves for others.
    drop(budget.charge(PIECE as u64).await);
    node.goes().await;
    held
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_all_agree_and_nothing_is_left() {
    let mut held = 0;
    for seed in 0..RUNS {
        held += u64::from(run(seed).await);
    }
    assert!(held > RUNS / 5, "{held} of {RUNS} pieces came");
}
