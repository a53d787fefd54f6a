//! A reader that leaves at each state of its request leaves nothing behind.

use pantala_wire::link::{Refusal, ToChild, ToParent};

use super::fixture::*;
use crate::{download::scripted::Parent, task::Command};

/// Where a request stands when its reader leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    AwaitingRoom,
    Asked,
    Receiving,
    MidBlock,
    TurnedAway,
    /// Its parent has gone and left a part of the piece.
    Left,
    Fetched,
    Judged,
}

/// Brings a request to a state, with what the test needs for that. Gives the parent, if there is one still.
async fn bring(node: &Node, mut parent: Parent, at: At) -> Option<Parent> {
    if at == At::AwaitingRoom {
        until("a request without room", || node.waiting() == 1).await;
        return Some(parent);
    }
    let request = parent.hear_want().await.request;
    let part = &BYTES[..10];
    match at {
        At::AwaitingRoom | At::Asked => {}
        At::Receiving => parent.send(request, part).await,
        At::MidBlock | At::Left => parent.begin_block(request, PIECE, part).await,
        At::TurnedAway => {
            let refusal = Refusal::Busy;
            parent.say(&[ToChild::Refused { request, refusal }]).await;
        }
        At::Fetched | At::Judged => {
            parent.send(request, &BYTES).await;
            parent.done(request, PIECE).await;
        }
    }
    let in_flight = node.settled().await.in_flight;
    assert_eq!(in_flight, usize::from(at != At::Judged), "{at:?}");
    let shows = !matches!(at, At::Asked | At::TurnedAway | At::Judged);
    assert_eq!(node.shows_bytes(), shows, "{at:?}");
    assert_eq!(node.is_held(), at == At::Judged, "{at:?}");
    if at != At::Left {
        return Some(parent);
    }
    drop(parent);
    assert_eq!(node.settled().await.in_flight, 0);
    assert!(node.shows_bytes(), "to be gone on with");
    None
}

async fn leaves_nothing(at: At) {
    let node = Node::start();
    let budget = node.ports.store.budget().clone();
    let all = (at == At::AwaitingRoom).then(|| budget.try_charge(PIECE as u64).expect("room"));
    let (reader, parent) = node.reads_from_parent(at == At::Judged).await;
    let mut parent = bring(&node, parent, at).await;
    node.handle.readers.close(&reader);
    drop(reader);
    assert_eq!(node.settled().await.in_flight, 0, "{at:?}");
    assert!(!node.shows_bytes(), "{at:?}");
    assert_eq!(node.waiting(), 0, "{at:?}");
    // The test has it, or the cache, or what is left of the block.
    let kept = matches!(at, At::AwaitingRoom | At::Judged | At::MidBlock);
    assert_eq!(node.used(), if kept { PIECE as u64 } else { 0 }, "{at:?}");
    drop(all);
    if at == At::MidBlock
        && let Some(parent) = &mut parent
    {
        parent.write_bytes(&BYTES[10..]).await;
        node.settled().await;
        assert_eq!((node.shows_bytes(), node.used()), (false, 0));
    }
    if at == At::Judged {
        tokio::time::sleep(FOR_EVER).await;
        assert_eq!(node.ports.links.count(), 0, "the task needs no link");
        drop(budget.charge(PIECE as u64).await);
    }
    node.goes().await;
    let mut cancels = 0;
    if let Some(mut parent) = parent {
        while let Some(said) = parent.hear().await {
            cancels += usize::from(matches!(said, ToParent::Cancel { .. }));
        }
    }
    let asked = matches!(at, At::Asked | At::Receiving | At::MidBlock);
    assert_eq!(cancels, usize::from(asked), "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_before_there_is_room() {
    leaves_nothing(At::AwaitingRoom).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_once_a_parent_is_asked() {
    leaves_nothing(At::Asked).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_between_two_blocks() {
    leaves_nothing(At::Receiving).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_in_the_middle_of_a_block() {
    leaves_nothing(At::MidBlock).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_when_its_parent_has_too_much_to_do() {
    leaves_nothing(At::TurnedAway).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_when_its_parent_has_left_a_part() {
    leaves_nothing(At::Left).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_before_the_verdict() {
    leaves_nothing(At::Fetched).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_after_the_verdict() {
    leaves_nothing(At::Judged).await;
}

/// Memory comes at the moment in which nobody needs it any more.
#[tokio::test(start_paused = true)]
async fn room_for_a_request_that_is_over_is_given_back() {
    let node = Node::start();
    let charge = node
        .ports
        .store
        .budget()
        .try_charge(PIECE as u64)
        .expect("room");
    let attempt = pantala_window::AttemptId(1);
    node.tell(Command::Room { attempt, charge }).await;
    node.settled().await;
    assert_eq!(node.used(), 0);
}
