//! One request in each of its states: what it gets, and what ends it.

use tokio::time::{Instant, sleep};

use super::{
    super::{news::UNKNOWN_TASK, requests::REQUESTS},
    *,
};

const CANCEL: ToParent = ToParent::Cancel { request: 0 };
const UNFOLLOW: ToParent = ToParent::Unfollow { task: TASK };

#[tokio::test(start_paused = true)]
async fn what_is_asked_beyond_the_bound_is_refused_as_busy() {
    let parent = parent();
    let content = Content::new(&parent, TASK);
    let mut child = Asking::new(&parent);
    let last = REQUESTS as u32;
    let wants: Vec<ToParent> = (0..=last).map(|number| want(number, number)).collect();
    child.say(&wants).await;
    assert_eq!(child.word().await, Heard::Refused(last, Refusal::Busy));
    child.assert_quiet().await;
    assert_eq!(parent.metrics.requests(), REQUESTS as i64);
    // One less makes room for one more, and no more.
    child.say(&[CANCEL, want(last, 0), want(last + 1, 0)]).await;
    assert_eq!(child.word().await, Heard::Refused(last + 1, Refusal::Busy));
    content.hold(last);
    child.assert_served(last, last, 0).await;
}

// ---- awaiting its task ------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_request_is_served_when_its_task_comes_soon() {
    let parent = parent();
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 0)]).await;
    let began = Instant::now();
    sleep(UNKNOWN_TASK / 2).await;
    let content = Content::of(&parent, TASK, 1);
    child.assert_served(0, 0, 0).await;
    assert!(began.elapsed() <= UNKNOWN_TASK / 2 + MOMENT);
    assert_eq!(content.followers(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_for_a_task_that_does_not_come_is_refused_in_time() {
    let parent = parent();
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 0)]).await;
    let began = Instant::now();
    assert_eq!(child.word().await, Heard::Refused(0, Refusal::NotHere));
    let waited = began.elapsed();
    assert!(waited.abs_diff(UNKNOWN_TASK) <= 2 * MOMENT, "{waited:?}");
    parent.assert_at_rest();
}

/// What else happens does not make it wait longer.
#[tokio::test(start_paused = true)]
async fn a_request_for_an_unknown_task_waits_no_longer_beside_others() {
    let parent = parent();
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 0)]).await;
    let began = Instant::now();
    sleep(UNKNOWN_TASK * 3 / 4).await;
    child.say(&[ToParent::AreYouThere]).await;
    assert_eq!(child.word().await, Heard::Here);
    assert_eq!(child.word().await, Heard::Refused(0, Refusal::NotHere));
    let waited = began.elapsed();
    assert!(waited.abs_diff(UNKNOWN_TASK) <= 2 * MOMENT, "{waited:?}");
}

/// Nor does what is more urgent and awaits a slot.
#[tokio::test(start_paused = true)]
async fn a_request_for_an_unknown_task_is_refused_beside_one_that_awaits_a_slot() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 1);
    let mut child = Asking::new(&parent);
    let others = parent.take_slot();
    child.say(&[want(0, 0), want_of(OTHER, 1, 1)]).await;
    let began = Instant::now();
    assert_eq!(child.word().await, Heard::Refused(1, Refusal::NotHere));
    let waited = began.elapsed();
    assert!(waited.abs_diff(UNKNOWN_TASK) <= 2 * MOMENT, "{waited:?}");
    drop(others);
    child.assert_served(0, 0, 0).await;
}

/// The task comes while the child is being sent something else.
#[tokio::test(start_paused = true)]
async fn a_task_that_comes_during_a_block_is_not_missed() {
    let parent = parent();
    let content = Content::of(&parent, TASK, 1);
    let mut child = Asking::new(&parent);
    let follow = ToParent::Follow { task: OTHER };
    child.say(&[want(0, 0), want_of(OTHER, 1, 1), follow]).await;
    settle().await;
    let other = Content::of(&parent, OTHER, 2);
    let began = Instant::now();
    child.assert_served(0, 0, 0).await;
    child.assert_served(1, 1, 0).await;
    let waited = began.elapsed();
    assert!(waited <= 2 * MOMENT, "{waited:?}");
    assert_eq!((content.followers(), other.followers()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_cancelled_or_unfollowed_before_its_task_is_known() {
    for end in [CANCEL, UNFOLLOW] {
        let parent = parent();
        let mut child = Asking::new(&parent);
        child.say(&[want(0, 0)]).await;
        settle().await;
        assert_eq!(parent.metrics.requests(), 1);
        child.say(&[end]).await;
        settle().await;
        parent.assert_at_rest();
        let content = Content::of(&parent, TASK, 1);
        let quiet = timeout(2 * UNKNOWN_TASK, child.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        assert_eq!(content.followers(), 0);
    }
}

// ---- awaiting bytes ---------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_piece_in_flight_is_passed_on_as_it_grows() {
    let parent = parent();
    let content = Content::new(&parent, TASK);
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 0)]).await;
    child.assert_quiet().await;
    let mut arriving = content.receive(0);
    child.assert_quiet().await;
    let mut at = 0;
    for bytes in [1, 1000, 70_000] {
        arriving.grow(bytes);
        let block = Heard::Block(0, bytes_of(0, at..at + bytes));
        assert!(child.next().await == Some(block), "{bytes} from {at}");
        child.assert_quiet().await;
        assert_eq!(content.awaited(), 1, "a reader waits for the rest");
        assert_eq!(parent.slots.available_permits(), 1, "and keeps no slot");
        at += bytes;
    }
    arriving.seal();
    child.assert_served(0, 0, at).await;
    settle().await;
    assert_eq!(content.awaited(), 0);
    parent.assert_at_rest();
}

#[tokio::test(start_paused = true)]
async fn all_of_a_piece_is_said_to_be_sent_before_it_is_verified() {
    let parent = parent();
    let content = Content::new(&parent, TASK);
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 0)]).await;
    let mut arriving = content.receive(0);
    arriving.grow(PIECE);
    child.assert_served(0, 0, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_was_given_up_is_refused_if_a_part_of_it_was_sent() {
    let parent = parent();
    let content = Content::new(&parent, TASK);
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 0), want(1, 1)]).await;
    let (mut begun, unbegun) = (content.receive(0), content.receive(1));
    begun.grow(1000);
    assert_eq!(
        child.next().await,
        Some(Heard::Block(0, bytes_of(0, 0..1000)))
    );
    begun.give_up();
    unbegun.give_up();
    assert_eq!(
        child.next().await,
        Some(Heard::Refused(0, Refusal::NotHere))
    );
    // Of the other one nothing was wrong yet, and it may come from elsewhere.
    child.assert_quiet().await;
    content.hold(1);
    child.assert_served(1, 1, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_no_reader_here_needs_is_refused() {
    let parent = parent();
    let content = Content::new(&parent, TASK);
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 0), want(5, 0)]).await;
    child.assert_quiet().await;
    let (first, end) = (PieceIndex::new(3), None);
    content.plan(Planned::Pieces(first, end));
    assert_eq!(child.word().await, Heard::Refused(0, Refusal::NotHere));
    // Nor does it wait when it is asked for now.
    child.say(&[want(1, 0)]).await;
    assert_eq!(child.word().await, Heard::Refused(1, Refusal::NotHere));
    content.plan(Planned::Nothing);
    assert_eq!(child.word().await, Heard::Refused(5, Refusal::NotHere));
    parent.assert_at_rest();
    assert_eq!(content.awaited(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_is_evicted_before_its_turn_is_refused() {
    let parent = parent();
    let content = Content::of(&parent, TASK, 1);
    content.plan(Planned::Nothing);
    let mut child = Asking::new(&parent);
    let others = parent.take_slot();
    child.say(&[want(0, 0)]).await;
    settle().await;
    // All the memory there is, once what is held is let go.
    let budget = content.store.budget();
    let room = budget.charge(budget.limit());
    let room = timeout(FOR_EVER, room).await;
    assert!(
        room.is_ok(),
        "who waits for a slot keeps no piece from eviction"
    );
    drop(others);
    assert_eq!(child.word().await, Heard::Refused(0, Refusal::NotHere));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_cancelled_or_unfollowed_while_it_awaits_bytes() {
    for end in [CANCEL, UNFOLLOW] {
        let parent = parent();
        let content = Content::new(&parent, TASK);
        let mut child = Asking::new(&parent);
        child.say(&[want(0, 0)]).await;
        settle().await;
        assert_eq!(content.awaited(), 1);
        child.say(&[end]).await;
        settle().await;
        assert_eq!(content.awaited(), 0);
        parent.assert_at_rest();
        content.hold(0);
        child.assert_quiet().await;
    }
}

// ---- awaiting a slot --------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_request_is_cancelled_or_unfollowed_while_it_awaits_a_slot() {
    for end in [CANCEL, UNFOLLOW] {
        let parent = parent();
        let _content = Content::of(&parent, TASK, 1);
        let mut child = Asking::new(&parent);
        let others = parent.take_slot();
        child.say(&[want(0, 0)]).await;
        settle().await;
        assert!(!parent.line.is_free(), "it could use the uplink");
        child.say(&[end]).await;
        settle().await;
        assert!(
            parent.line.is_free(),
            "nor does it keep the background away"
        );
        drop(others);
        child.assert_quiet().await;
        parent.assert_at_rest();
    }
}

#[tokio::test(start_paused = true)]
async fn a_parent_answers_while_a_request_awaits_a_slot() {
    let parent = parent();
    let content = Content::of(&parent, TASK, 1);
    let mut child = Asking::new(&parent);
    let _others = parent.take_slot();
    child
        .say(&[want(0, 0), ToParent::Follow { task: TASK }])
        .await;
    settle().await;
    child.say(&[ToParent::AreYouThere]).await;
    assert_eq!(child.word().await, Heard::Here);
    content.hold(1);
    assert!(matches!(child.next().await, Some(Heard::News(_))));
}

/// A child must not wait for the end of a piece, which it has, until the next one may be sent.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_piece_is_said_before_the_next_one_awaits_its_slot() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 2);
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 0), want(1, 1)]).await;
    settle().await;
    // Somebody else is next.
    let slots = parent.slots.clone();
    let others = tokio::spawn(slots.acquire_owned());
    child.assert_served(0, 0, 0).await;
    child.assert_quiet().await;
    assert!(others.is_finished());
    drop(others.await);
    child.assert_served(1, 1, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_comes_serves_what_is_most_urgent_then() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 3);
    let mut child = Asking::new(&parent);
    let others = parent.take_slot();
    child.say(&[want(0, 5)]).await;
    settle().await;
    child.say(&[want(1, 7), want(2, 3)]).await;
    settle().await;
    drop(others);
    child.assert_served(2, 2, 0).await;
    child.assert_served(0, 0, 0).await;
    child.assert_served(1, 1, 0).await;
}

// ---- being sent -------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_request_is_cancelled_or_unfollowed_while_it_is_sent() {
    for end in [CANCEL, UNFOLLOW] {
        let parent = parent();
        let content = Content::of(&parent, TASK, 2);
        let other = Content::of(&parent, OTHER, 2);
        let mut child = Asking::new(&parent);
        child.say(&[want(0, 0), want_of(OTHER, 1, 1)]).await;
        settle().await;
        child.say(&[end]).await;
        settle().await;
        // The block that was begun is a whole one, since a frame has the length that it says; no other is.
        let whole = bytes_of(0, 0..pantala_core::BLOCK_MAX);
        assert!(child.next().await == Some(Heard::Block(0, whole)));
        child.assert_served(1, 1, 0).await;
        settle().await;
        parent.assert_at_rest();
        assert_eq!((content.awaited(), other.awaited()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_on_where_another_connection_ended() {
    let parent = parent();
    let _content = Content::of(&parent, TASK, 1);
    let mut child = Asking::new(&parent);
    child.say(&[want(0, 0)]).await;
    let Some(Heard::Block(0, begun)) = child.next().await else {
        panic!("a block");
    };
    drop(child);
    let mut again = Asking::new(&parent);
    let rest = ToParent::Want {
        request: 9,
        task: TASK,
        piece: PieceIndex::new(0),
        offset: begun.len() as u32,
        urgency: 0,
    };
    again.say(&[rest]).await;
    again.assert_served(9, 0, begun.len()).await;
    // It had everything but the word that it is all.
    let nothing = ToParent::Want {
        request: 10,
        task: TASK,
        piece: PieceIndex::new(0),
        offset: PIECE as u32,
        urgency: 0,
    };
    again.say(&[nothing]).await;
    again.assert_served(10, 0, PIECE).await;
}

// ---- said -------------------------------------------------------------------------------------

/// Too late: all was written, and what was said stays said.
#[tokio::test(start_paused = true)]
async fn a_request_is_cancelled_or_unfollowed_after_its_last_word() {
    for end in [CANCEL, UNFOLLOW] {
        let parent = parent();
        let _content = Content::of(&parent, TASK, 1);
        // The last block's end stays in the pipe, so that there is no room for the last word.
        let mut child = Asking::over(&parent, 16);
        child.say(&[want(0, 0)]).await;
        let last = PIECE / pantala_core::BLOCK_MAX - 1;
        for _ in 0..last {
            assert!(matches!(child.next().await, Some(Heard::Block(0, _))));
        }
        leave_the_end(&mut child).await;
        assert_eq!(
            parent.metrics.requests(),
            1,
            "until its last word is written"
        );
        let mut out = BytesMut::new();
        end.encode(&mut out);
        let (write, heard) = (&mut child.write, &mut child.read);
        let (said, ()) = tokio::join!(write.write_all(&out), async {
            heard.skip_data().await.unwrap();
            let done = ToChild::Done {
                request: 0,
                size: PIECE as u32,
            };
            let word = heard.from_parent().await.unwrap();
            assert_eq!(word, Some(Incoming::Message(done)));
        });
        said.unwrap();
        settle().await;
        parent.assert_at_rest();
    }
}
