//! Whose request is served first.

use pantala_core::BLOCK_MAX;
use pantala_wire::link::BACKGROUND;
use tokio::time::Instant;

use super::*;

fn urge(request: u32, urgency: u32) -> ToParent {
    ToParent::Urge { request, urgency }
}

#[tokio::test(start_paused = true)]
async fn background_is_served_when_nobody_else_could_be() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 3);
    let mut child = Asking::new(&parent);
    // Another child has the uplink; this one has asked for the background first.
    let other = parent.line.claim();
    child.say(&[want(0, BACKGROUND)]).await;
    child.say(&[want(1, 9), want(2, 5)]).await;
    assert_eq!(
        child.served().await,
        [2],
        "the urgent one of the foreground"
    );
    assert_eq!(child.served().await, [1], "all of the foreground");
    child.assert_quiet().await;
    drop(other);
    assert_eq!(child.served().await, [0]);
    assert!(parent.line.is_free());
}

#[tokio::test(start_paused = true)]
async fn what_somebody_waits_for_now_is_no_background_any_more() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 2);
    let mut child = Asking::new(&parent);
    let other = parent.line.claim();
    child
        .say(&[want(0, BACKGROUND), want(1, BACKGROUND | 1)])
        .await;
    child.assert_quiet().await;
    child.say(&[urge(1, 1)]).await;
    assert_eq!(child.served().await, [1]);
    child.assert_quiet().await;
    drop(other);
    assert_eq!(child.served().await, [0]);
}

#[tokio::test(start_paused = true)]
async fn background_does_not_keep_a_slot_from_the_foreground() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 2);
    let _all = parent.background_slots.clone().acquire_owned().await;
    let (mut first, mut second) = (Asking::new(&parent), Asking::new(&parent));
    first.say(&[want(0, BACKGROUND)]).await;
    second.say(&[want(1, 0)]).await;
    assert_eq!(second.served().await, [1]);
}

/// Nor does it keep the child's own foreground from being heard.
#[tokio::test(start_paused = true)]
async fn background_that_awaits_a_slot_holds_up_no_foreground() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 2);
    let _all = parent.background_slots.clone().acquire_owned().await;
    let mut child = Asking::new(&parent);
    child.say(&[want(0, BACKGROUND)]).await;
    settle().await;
    child.say(&[want(1, 0)]).await;
    child.assert_served(1, 1, 0).await;
}

#[tokio::test(start_paused = true)]
async fn background_that_is_being_sent_yields_after_its_block() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 2);
    let (mut first, mut second) = (Asking::new(&parent), Asking::new(&parent));
    first.say(&[want(0, BACKGROUND)]).await;
    settle().await;
    second.say(&[want(1, 0)]).await;
    settle().await;
    let block = Heard::Block(0, bytes_of(0, 0..BLOCK_MAX));
    assert!(first.next().await == Some(block));
    first.assert_quiet().await;
    assert_eq!(parent.background_slots.available_permits(), 1);
    second.assert_served(1, 1, 0).await;
    first.assert_served(0, 0, BLOCK_MAX).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_more_urgent_goes_first_after_each_block() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 3);
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 5), want(1, 5)]).await;
    settle().await;
    // What was begun is finished before another one of the same urgency, but for what is more urgent.
    child.say(&[want(2, 4)]).await;
    settle().await;
    assert!(matches!(child.next().await, Some(Heard::Block(0, _))));
    child.assert_served(2, 2, 0).await;
    child.assert_served(0, 0, BLOCK_MAX).await;
    child.assert_served(1, 1, 0).await;
}

/// Two halves of pieces are of no use to a reader.
#[tokio::test(start_paused = true)]
async fn what_is_begun_is_finished_before_an_older_one_that_is_as_urgent() {
    let parent = parent();
    let content = Content::new(&parent, TASK);
    content.hold(1);
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 5)]).await;
    settle().await;
    child.say(&[want(1, 5)]).await;
    settle().await;
    content.hold(0);
    child.assert_served(1, 1, 0).await;
    child.assert_served(0, 0, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_gets_urgent_goes_first() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 3);
    let mut child = Asking::new(&parent);
    let others = parent.take_slot();
    child.say(&[want(0, 1), want(1, 2), want(2, 3)]).await;
    settle().await;
    child.say(&[urge(2, 0), urge(0, 4)]).await;
    // An unknown one is passed over.
    child.say(&[urge(77, 0)]).await;
    settle().await;
    drop(others);
    child.assert_served(2, 2, 0).await;
    child.assert_served(1, 1, 0).await;
    child.assert_served(0, 0, 0).await;
}

/// While only background waits for bytes, the parent may fetch them as background itself.
#[tokio::test(start_paused = true)]
async fn only_the_foreground_counts_as_waiting_for_bytes() {
    let parent = parent();
    let content = Content::of(&parent, TASK, 1);
    let mut child = Asking::new(&parent);
    child.say(&[want(1, BACKGROUND)]).await;
    settle().await;
    assert_eq!(content.awaited(), 0);
    child.say(&[urge(1, 3)]).await;
    settle().await;
    assert_eq!(content.awaited(), 1);
    child.say(&[urge(1, BACKGROUND | 3)]).await;
    settle().await;
    assert_eq!(content.awaited(), 0);
}

/// It counts at once, and no longer than that, whatever else the child is being sent meanwhile.
#[tokio::test(start_paused = true)]
async fn waiting_for_bytes_counts_beside_what_is_being_sent() {
    let parent = parent();
    let content = Content::of(&parent, TASK, 1);
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 0), want(1, 1)]).await;
    settle().await;
    assert_eq!(content.awaited(), 1, "for the second");
    child.say(&[urge(1, BACKGROUND)]).await;
    assert!(matches!(child.next().await, Some(Heard::Block(0, _))));
    settle().await;
    assert_eq!(content.awaited(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_limit_holds_up_keeps_no_slot_and_comes_in_time() {
    let parent = parent();
    let rate = PIECE as u64;
    let content = Content::with_rates(&parent, TASK, limited(rate));
    content.hold(0);
    let _free = Content::of(&parent, OTHER, 2);
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 0), want_of(OTHER, 1, 9)]).await;
    let began = Instant::now();
    // The other content is under no limit, and goes on while this one is held up.
    let mut from = 0;
    let mut other = 0;
    while other < PIECE {
        match child.next().await.expect("the parent is there") {
            Heard::Block(0, bytes) => from += bytes.len(),
            Heard::Block(1, bytes) => other += bytes.len(),
            word => panic!("{word:?}"),
        }
    }
    assert_eq!(child.next().await, Some(Heard::Done(1)));
    assert!(began.elapsed() <= 30 * MOMENT, "{:?}", began.elapsed());
    settle().await;
    assert_eq!(parent.slots.available_permits(), 1);
    assert!(!parent.line.is_free(), "it goes before the background");
    child.assert_served(0, 0, from).await;
    // A twentieth of a second's bytes may come at once.
    let expected = Duration::from_millis(950);
    let took = began.elapsed();
    assert!(took.abs_diff(expected) <= 20 * MOMENT, "{took:?}");
    parent.assert_at_rest();
}

/// Bytes that have passed the limits are sent, or are others' to be sent.
#[tokio::test(start_paused = true)]
async fn what_passed_a_limit_is_not_lost_while_it_awaits_a_slot() {
    let parent = parent();
    let rate = PIECE as u64;
    let content = Content::with_rates(&parent, TASK, limited(rate));
    content.hold(0);
    let mut child = Asking::new(&parent);
    let others = parent.take_slot();
    child.say(&[want(0, 0)]).await;
    settle().await;
    // Whatever wakes it meanwhile.
    for _ in 0..100 {
        content.pieces.wake();
        settle().await;
    }
    drop(others);
    let began = Instant::now();
    child.assert_served(0, 0, 0).await;
    let took = began.elapsed();
    let expected = Duration::from_millis(950);
    assert!(took.abs_diff(expected) <= 20 * MOMENT, "{took:?}");
}
