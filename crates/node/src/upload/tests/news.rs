//! What a child is told of the tasks that it follows.

use std::collections::BTreeSet;

use pantala_core::control::PieceRun;
use tokio::time::{Instant, sleep};

use super::{
    super::{
        child::IDLE,
        news::{UNKNOWN_TASK, UNKNOWN_TASKS},
    },
    *,
};

const FOLLOW: ToParent = ToParent::Follow { task: TASK };
const UNFOLLOW: ToParent = ToParent::Unfollow { task: TASK };

fn run(first: u32, count: u32) -> Vec<PieceRun> {
    vec![(PieceIndex::new(first), count)]
}

fn pieces(runs: &[PieceRun]) -> impl Iterator<Item = u32> {
    runs.iter()
        .flat_map(|&(first, count)| first.get()..first.get() + count)
}

fn holds(first: u32, count: u32) -> Option<Heard> {
    let runs = run(first, count);
    Some(Heard::News(ToChild::Holds { task: TASK, runs }))
}

fn lost(first: u32, count: u32) -> Option<Heard> {
    let runs = run(first, count);
    Some(Heard::News(ToChild::Lost { task: TASK, runs }))
}

fn receiving(piece: u32) -> Option<Heard> {
    let piece = PieceIndex::new(piece);
    Some(Heard::News(ToChild::Receiving { task: TASK, piece }))
}

#[tokio::test(start_paused = true)]
async fn a_child_is_told_what_is_here_and_what_changes() {
    let parent = parent();
    let content = Content::of(&parent, TASK, 2);
    let mut begun = content.receive(2);
    begun.grow(1);
    let mut child = Asking::new(&parent);
    child.say(&[FOLLOW]).await;
    assert_eq!(child.next().await, holds(0, 2));
    assert_eq!(child.next().await, receiving(2));
    begun.seal();
    assert_eq!(child.next().await, holds(2, 1));
    let mut wrong = content.receive(3);
    child.assert_quiet().await;
    wrong.grow(1);
    assert_eq!(child.next().await, receiving(3));
    wrong.give_up();
    assert_eq!(child.next().await, lost(3, 1));
    // It asks for nothing, and is told nothing any more.
    child.say(&[UNFOLLOW]).await;
    settle().await;
    assert_eq!(content.followers(), 0);
    content.hold(3);
    child.assert_quiet().await;
}

/// A child that takes nothing for a while misses news. Nothing that it then believes is wrong.
#[tokio::test(start_paused = true)]
async fn a_child_that_missed_news_is_told_everything_anew() {
    let parent = parent();
    let content = Content::of(&parent, TASK, 2);
    let mut child = Asking::new(&parent);
    child.say(&[FOLLOW, want(0, 0)]).await;
    settle().await;
    // It is in the middle of a block meanwhile.
    for _ in 0..2000 {
        let mut wrong = content.receive(2);
        wrong.grow(1);
        wrong.give_up();
    }
    content.hold(3);
    let mut held = BTreeSet::new();
    let mut messages = 0;
    let news = async {
        loop {
            match child.next().await.expect("the parent is there") {
                Heard::News(ToChild::Holds { runs, .. }) => held.extend(pieces(&runs)),
                Heard::News(ToChild::Lost { runs, .. }) => {
                    let (first, count) = runs[0];
                    held.retain(|&piece| piece < first.get() || piece - first.get() >= count);
                }
                Heard::Done(_) => break,
                _ => {}
            }
            messages += 1;
        }
    };
    timeout(FOR_EVER, news).await.expect("all news");
    assert_eq!(held, BTreeSet::from([0, 1, 3]));
    assert!(messages < 20, "{messages}");
}

#[tokio::test(start_paused = true)]
async fn a_child_is_told_of_the_tasks_it_asked_about_last() {
    let parent = parent();
    let mut child = Asking::new(&parent);
    let of = |number: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        TaskId::from_bytes(id)
    };
    let last = UNKNOWN_TASKS as u32;
    let many: Vec<ToParent> = (0..=last)
        .map(|number| ToParent::Follow { task: of(number) })
        .collect();
    child.say(&many).await;
    settle().await;
    let first = Content::of(&parent, of(0), 1);
    child.assert_quiet().await;
    for number in [1, last] {
        let _content = Content::of(&parent, of(number), 1);
        let heard = timeout(MOMENT, child.next()).await.expect("news");
        let runs = run(0, 1);
        let task = of(number);
        assert_eq!(heard, Some(Heard::News(ToChild::Holds { task, runs })));
    }
    assert_eq!(first.followers(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_content_that_comes_back_under_its_name_is_followed_again() {
    let parent = parent();
    let content = Content::new(&parent, TASK);
    let mut child = Asking::new(&parent);
    child.say(&[FOLLOW, want(0, 0)]).await;
    settle().await;
    assert_eq!((content.awaited(), content.followers()), (1, 1));
    content.close(&parent);
    settle().await;
    assert_eq!((content.awaited(), content.followers()), (0, 0));
    let again = Content::new(&parent, TASK);
    settle().await;
    assert_eq!((again.awaited(), again.followers()), (1, 1));
    again.hold(0);
    assert_eq!(child.next().await, holds(0, 1));
    child.assert_served(0, 0, 0).await;
}

/// It may be back before the child is told that it was gone.
#[tokio::test(start_paused = true)]
async fn a_content_that_is_back_at_once_is_not_missed() {
    let parent = parent();
    let content = Content::new(&parent, TASK);
    let mut child = Asking::new(&parent);
    // It waits for another one too, and is told of whatever comes.
    let unknown = ToParent::Follow { task: OTHER };
    child.say(&[FOLLOW, unknown, want(0, 0)]).await;
    settle().await;
    content.close(&parent);
    let again = Content::new(&parent, TASK);
    settle().await;
    assert_eq!((again.awaited(), again.followers()), (1, 1));
    again.hold(0);
    assert_eq!(child.next().await, holds(0, 1));
    child.assert_served(0, 0, 0).await;
}

/// Also for a child that wants no news of it.
#[tokio::test(start_paused = true)]
async fn a_request_for_a_content_that_is_given_up_does_not_wait_for_ever() {
    for follow in [&[FOLLOW][..], &[]] {
        let parent = parent();
        let content = Content::new(&parent, TASK);
        let mut child = Asking::new(&parent);
        child.say(follow).await;
        child.say(&[want(0, 0)]).await;
        settle().await;
        content.close(&parent);
        let began = Instant::now();
        let word = timeout(2 * UNKNOWN_TASK, child.word()).await;
        let refused = Heard::Refused(0, Refusal::NotHere);
        assert_eq!(word.expect("a word in time"), refused);
        assert!(began.elapsed() <= UNKNOWN_TASK + MOMENT);
        assert_eq!((content.awaited(), content.followers()), (0, 0));
        // It is asked for once more, and comes once more.
        child.say(&[want(1, 0)]).await;
        settle().await;
        let _again = Content::of(&parent, TASK, 2);
        child.assert_served(1, 1, 0).await;
    }
}

/// What happens in tasks that it follows no more is none of its business.
#[tokio::test(start_paused = true)]
async fn an_unfollowed_task_does_not_keep_a_child() {
    let parent = parent();
    let content = Content::new(&parent, TASK);
    let mut child = Asking::new(&parent);
    child.say(&[FOLLOW, UNFOLLOW]).await;
    settle().await;
    for _ in 0..4 {
        sleep(IDLE / 3).await;
        content.pieces.wake();
    }
    assert!(child.ended.is_finished());
}
