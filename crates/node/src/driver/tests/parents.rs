//! What a driver makes of parents that lie, refuse, close and come back.

use pantala_core::Kind;
use pantala_store::PieceBuffer;
use pantala_window::RunId;
use pantala_wire::link::{Refusal, ToChild};
use tokio::time::{Instant, timeout};

use super::fixture::*;
use crate::task::Command;

#[tokio::test(start_paused = true)]
async fn wrong_bytes_are_given_up_and_asked_for_again() {
    let node = Node::start();
    let (_reader, mut parent) = node.reads_from_parent(true).await;
    let wrong = [6; PIECE];
    let request = parent.hear_want().await.request;
    parent.send(request, &wrong).await;
    parent.done(request, PIECE).await;
    node.settled().await;
    // It is taken not to have the piece until it says so again.
    parent.holds(TASK, FIRST).await;
    let again = parent.hear_want().await;
    assert_eq!((again.offset, node.ports.metrics.corrupt_pieces()), (0, 1));
    assert!(!node.is_held() && !node.shows_bytes());
    parent.send(again.request, &BYTES).await;
    parent.done(again.request, PIECE).await;
    until("the piece", || node.is_held()).await;
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_ends_early_is_wrong() {
    let node = Node::start();
    let (_reader, mut parent) = node.reads_from_parent(true).await;
    let request = parent.hear_want().await.request;
    parent.send(request, &BYTES[..60]).await;
    parent.done(request, 60).await;
    node.settled().await;
    parent.holds(TASK, FIRST).await;
    assert_eq!(parent.hear_want().await.offset, 0);
    assert_eq!(node.ports.metrics.corrupt_pieces(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_vouches_for_waits_for_its_digest() {
    let node = Node::start();
    let (reader, mut parent) = node.reads_from_parent(false).await;
    let request = parent.hear_want().await.request;
    parent.send(request, &BYTES).await;
    parent.done(request, PIECE).await;
    node.settled().await;
    assert!(node.shows_bytes() && !node.is_held());
    node.register(true).await;
    until("the piece", || node.is_held()).await;
    assert!(reader.failure().is_none() && !node.shows_bytes());
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_on_where_a_closed_connection_left_it() {
    let node = Node::start();
    let (_reader, mut parent) = node.reads_from_parent(true).await;
    let request = parent.hear_want().await.request;
    parent.begin_block(request, PIECE, &BYTES[..10]).await;
    drop(parent);
    until("the end of the link", || node.ports.links.count() == 0).await;
    node.settled().await;
    // It is dialled again after a while.
    let mut parent = node.connect().await;
    parent.holds(TASK, FIRST).await;
    parent.hear_follow(TASK).await;
    parent.holds(TASK, FIRST).await;
    let again = parent.hear_want().await;
    assert_eq!(again.offset, 10);
    parent.send(again.request, &BYTES[10..]).await;
    parent.done(again.request, PIECE).await;
    until("the piece", || node.is_held()).await;
    assert_eq!(node.ports.metrics.corrupt_pieces(), 0);
}

/// The brain is told of a parent that has too much to do at the next tick: it would ask its only one at once.
#[tokio::test(start_paused = true)]
async fn a_busy_parent_is_left_alone_for_a_moment() {
    let node = Node::start();
    let (_reader, mut parent) = node.reads_from_parent(true).await;
    let mut asked = parent.hear_want().await;
    for _ in 0..3 {
        let request = asked.request;
        let (refusal, refused) = (Refusal::Busy, Instant::now());
        parent.say(&[ToChild::Refused { request, refusal }]).await;
        assert_eq!(node.settled().await.in_flight, 1);
        asked = parent.hear_want().await;
        assert!(Instant::now() > refused);
    }
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_has_it_not_is_asked_when_it_has() {
    let node = Node::start();
    let (_reader, mut parent) = node.reads_from_parent(true).await;
    let (request, refusal) = (parent.hear_want().await.request, Refusal::NotHere);
    parent.say(&[ToChild::Refused { request, refusal }]).await;
    assert!(timeout(FOR_EVER / 10, parent.hear_want()).await.is_err());
    parent.holds(TASK, FIRST).await;
    parent.hear_want().await;
}

/// Memory is awaited to ask a parent, and the parent goes: no other is asked with that memory, because the
/// brain decides anew.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_room_to_ask_a_parent_that_has_gone() {
    let node = Node::start();
    let all = node.ports.store.budget().try_charge(PIECE as u64);
    let (_reader, parent) = node.reads_from_parent(true).await;
    until("a request without room", || node.waiting() == 1).await;
    drop(parent);
    until("nobody in the line", || node.waiting() == 0).await;
    drop(all);
}

/// A transfer from the origin tells that it begins a piece, and is stopped before that is heard.
#[tokio::test(start_paused = true)]
async fn a_transfer_that_was_stopped_shows_nothing_more() {
    let node = Node::start();
    let _reader = node.read();
    node.settled().await;
    let charge = node.ports.store.budget().try_charge(PIECE as u64);
    let (buffer, mut writer) = PieceBuffer::charged(charge.expect("room"));
    writer.append(&BYTES[..10]);
    node.handle.pieces.arrival(true).show(FIRST, &buffer);
    drop((buffer, writer));
    let (run, piece) = (RunId(1), FIRST);
    node.tell(Command::RunAt { run, piece }).await;
    node.settled().await;
    assert_eq!(node.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_hears_that_nobody_has_it() {
    let node = Node::start();
    node.register(true).await;
    let reader = node.read();
    timeout(FOR_EVER, reader.waker.notified())
        .await
        .expect("it is told");
    assert_eq!(reader.failure().expect("why").kind(), Kind::Unavailable);
}
