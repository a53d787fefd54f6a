//! Children that the parent does not keep, and what becomes of what they had.

use pantala_core::Kind;
use tokio::time::{Instant, sleep};

use super::{
    super::{
        child::{GREETING, IDLE},
        outgoing::{OWN_PACE, STUCK},
    },
    *,
};

/// How long after this the parent ended with a child.
async fn cut_off_after(child: Asking) -> (Kind, Duration) {
    let began = Instant::now();
    let Asking {
        ended,
        read: _read,
        write: _write,
        ..
    } = child;
    let ended = timeout(FOR_EVER, ended).await.expect("it is cut off");
    let error = ended.expect("no panic").expect_err("it did not leave");
    (error.kind(), began.elapsed())
}

/// Clocks tick in milliseconds, and a test has waited for a few.
fn assert_timeout((kind, after): (Kind, Duration), expected: Duration) {
    assert_eq!(kind, Kind::Timeout);
    assert!(after.abs_diff(expected) <= 3 * MOMENT, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_says_nothing_is_not_kept() {
    let parent = parent();
    assert_timeout(cut_off_after(Asking::new(&parent)).await, GREETING);
    let mut child = Asking::new(&parent);
    // A frame's kind, and half of its length.
    child.write.write_all(&[1, 0, 0]).await.unwrap();
    assert_timeout(cut_off_after(child).await, GREETING);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_follows_nothing_and_wants_nothing_is_not_kept() {
    let parent = parent();
    let _content = Content::new(&parent, TASK);
    let peer = PeerId::from_bytes([2; 16]);
    let mut child = Asking::new(&parent);
    let follow = ToParent::Follow { task: TASK };
    child.say(&[ToParent::hello(peer), follow]).await;
    sleep(2 * IDLE).await;
    assert!(!child.ended.is_finished(), "it follows a task");
    child.say(&[ToParent::Unfollow { task: TASK }]).await;
    assert_timeout(cut_off_after(child).await, IDLE);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_follows_what_is_not_here_is_kept() {
    let parent = parent();
    let mut child = Asking::new(&parent);
    child.say(&[ToParent::Follow { task: TASK }]).await;
    sleep(2 * IDLE).await;
    let content = Content::of(&parent, TASK, 1);
    assert!(matches!(child.next().await, Some(Heard::News(_))));
    assert_eq!(content.followers(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_takes_nothing_is_cut_off_and_keeps_no_slot_until_then() {
    let parent = parent();
    let content = Content::of(&parent, TASK, 2);
    let (mut frozen, mut other) = (Asking::new(&parent), Asking::new(&parent));
    frozen.say(&[want(0, 0)]).await;
    settle().await;
    assert_eq!(parent.slots.available_permits(), 0, "it is being sent");
    let began = Instant::now();
    other.say(&[want(1, 0)]).await;
    other.assert_served(1, 1, 0).await;
    assert!(
        began.elapsed() <= OWN_PACE + MOMENT,
        "{:?}",
        began.elapsed()
    );
    assert!(parent.line.is_free(), "the background may go on too");
    let (kind, _) = cut_off_after(frozen).await;
    assert_timeout((kind, began.elapsed()), OWN_PACE + STUCK);
    parent.assert_at_rest();
    assert_eq!(content.followers(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_takes_no_message_is_cut_off() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 1);
    let mut child = Asking::over(&parent, 16);
    let (mut out, follow) = (BytesMut::new(), ToParent::Follow { task: TASK });
    follow.encode(&mut out);
    child.write.write_all(&out).await.unwrap();
    assert_timeout(cut_off_after(child).await, STUCK);
}

#[tokio::test(start_paused = true)]
async fn a_child_on_a_slow_link_is_served_at_its_own_pace() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 1);
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 0)]).await;
    for _ in 0..PIECE / pantala_core::BLOCK_MAX {
        sleep(STUCK - OWN_PACE).await;
        assert_eq!(parent.slots.available_permits(), 1, "it needs no slot");
        assert!(matches!(child.next().await, Some(Heard::Block(0, _))));
    }
    assert_eq!(child.next().await, Some(Heard::Done(0)));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_leaves_in_the_middle_of_a_block_leaves_nothing_behind() {
    let parent = parent();
    let content = Content::of(&parent, TASK, 2);
    let mut arriving = content.receive(2);
    arriving.grow(1000);
    let mut child = Asking::new(&parent);
    child.say(&[ToParent::Follow { task: TASK }]).await;
    child
        .say(&[want(0, 0), want(2, 1), want_of(OTHER, 9, 2)])
        .await;
    settle().await;
    assert_eq!((content.followers(), parent.metrics.requests()), (1, 3));
    let Asking {
        read, write, ended, ..
    } = child;
    drop((read, write));
    // Whether reading or writing shows it first is nobody's promise.
    let _ = ended.await.expect("no panic");
    settle().await;
    parent.assert_at_rest();
    assert_eq!(parent.metrics.children(), 0);
    assert_eq!((content.awaited(), content.followers()), (0, 0));
    assert_evictable(&content, arriving, 2);
}

/// None of so many complete pieces is held by anybody any more.
fn assert_evictable(content: &Content, arriving: Arriving<'_>, pieces: u64) {
    arriving.give_up();
    let budget = content.store.budget();
    assert_eq!(budget.used(), pieces * PIECE as u64, "no slice is kept");
    assert!(
        budget.try_charge(budget.limit()).is_some(),
        "no claim is kept"
    );
}

#[tokio::test(start_paused = true)]
async fn a_child_that_says_goodbye_is_let_go() {
    let parent = parent();
    let content = Content::new(&parent, TASK);
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 0)]).await;
    settle().await;
    assert_eq!(content.awaited(), 1);
    child.write.shutdown().await.unwrap();
    child.end().await.expect("no error");
    assert_eq!((content.awaited(), content.followers()), (0, 0));
    parent.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn what_is_no_protocol_ends_the_connection() {
    let parent = parent();
    let too_long = [2, 255, 255, 255, 255];
    let too_short = [4, 0, 0, 0, 2, 0, 0];
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (garbage, kind) in [
        (&too_long[..], Kind::Protocol),
        (&too_short, Kind::Protocol),
        (http, Kind::Protocol),
    ] {
        let mut child = Asking::new(&parent);
        child.say(&[ToParent::AreYouThere]).await;
        child.write.write_all(garbage).await.unwrap();
        let error = child.end().await.expect_err("it is no protocol");
        assert_eq!(error.kind(), kind, "{error}");
    }
    let mut child = Asking::new(&parent);
    // A frame that ends too early.
    child.write.write_all(&[4, 0, 0, 0, 20, 0]).await.unwrap();
    child.write.shutdown().await.unwrap();
    assert_eq!(child.end().await.unwrap_err().kind(), Kind::Unreachable);
    parent.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn what_only_a_later_version_says_is_passed_over() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 1);
    let mut child = Asking::new(&parent);
    child
        .write
        .write_all(&[200, 0, 0, 0, 3, 1, 2, 3])
        .await
        .unwrap();
    child.say(&[want(0, 0)]).await;
    child.assert_served(0, 0, 0).await;
}
