//! One link over a connection in memory, on a clock that does not wait: a parent that stalls, lies, refuses,
//! closes, and children that change their minds.

use std::sync::Arc;

use pantala_core::{Error, Geometry, Kind, PeerId, PieceIndex, TaskId};
use pantala_store::{Arrival, PieceBuffer, PieceWriter, Store, TaskPieces};
use pantala_window::{AttemptId, Failure};
use pantala_wire::link::{Refusal, ToChild, ToParent};
use tokio::{io::duplex, sync::mpsc, time::timeout};

use super::{FOR_EVER, PARENT, PIECE, TASK, links, store, task};
use crate::{
    download::{LinkHandle, Links, Want, scripted::Parent},
    limiter::Limits,
    task::Command,
};

/// A driver that follows a parent, and the parent.
struct Child {
    store: Store,
    links: Arc<Links>,
    pieces: Arc<TaskPieces>,
    commands: mpsc::Sender<Command>,
    heard: mpsc::Receiver<Command>,
    link: LinkHandle,
}

/// The bytes that a pipe holds before anybody reads them.
const UNREAD_BYTES: usize = 64 << 10;
const BYTES: [u8; PIECE as usize] = [7; PIECE as usize];

async fn linked() -> (Child, Parent) {
    let (near, far) = (duplex(UNREAD_BYTES), duplex(UNREAD_BYTES));
    let (links, store) = (links(), store());
    let (commands, mut heard) = mpsc::channel(16);
    links.connect(PARENT, near.0, far.1);
    links.follow(super::addr(), &task(TASK, commands.clone()));
    let mut parent = Parent::new(PARENT, far.0, near.1);
    parent.greet().await;
    let link = match heard.recv().await {
        Some(Command::LinkUp { link }) => link,
        _ => panic!("the link is up"),
    };
    assert!(matches!(parent.hear().await, Some(ToParent::Hello { .. })));
    assert_eq!(parent.hear().await, Some(ToParent::Follow { task: TASK }));
    let pieces = store.open(TASK, Geometry::new(Some(PIECE)));
    let child = Child {
        store,
        links,
        pieces,
        commands,
        heard,
        link,
    };
    (child, parent)
}

impl Child {
    fn writer(&self) -> PieceWriter {
        let charge = self.store.budget().try_charge(PIECE).expect("room");
        PieceBuffer::charged(charge).1
    }

    fn want(&self, attempt: u64) -> Arc<Arrival> {
        self.want_on(attempt, self.writer())
    }

    fn want_on(&self, attempt: u64, writer: PieceWriter) -> Arc<Arrival> {
        let arrival = self.pieces.arrival(false);
        let want = Want {
            attempt: AttemptId(attempt),
            task: TASK,
            piece: PieceIndex::new(0),
            urgency: 0,
            writer,
            arrival: arrival.clone(),
            limits: Limits::default(),
            commands: self.commands.clone(),
        };
        assert!(self.link.want(want).is_ok());
        arrival
    }

    fn cancel(&self, attempt: u64) {
        self.link.cancel(TASK, AttemptId(attempt));
    }

    async fn hear(&mut self) -> Option<Command> {
        let heard = timeout(FOR_EVER, self.heard.recv()).await;
        heard.expect("the driver is told something")
    }

    /// How a request has failed, with what came of the piece.
    async fn failed(&mut self) -> (Failure, PieceWriter) {
        match self.hear().await {
            Some(Command::FetchFailed {
                failure, writer, ..
            }) => (failure, writer.expect("what came")),
            Some(Command::Fetched { .. }) => panic!("all of it came"),
            _ => panic!("something else"),
        }
    }

    async fn fetched(&mut self) -> (AttemptId, Arc<PieceBuffer>) {
        match self.hear().await {
            Some(Command::Fetched { attempt, buffer }) => (attempt, buffer),
            Some(Command::FetchFailed { failure, .. }) => panic!("{failure:?}"),
            _ => panic!("something else"),
        }
    }

    /// Why the link has ended; nothing of it is left then.
    async fn down(&mut self) -> Error {
        let Some(Command::LinkDown { peer, error }) = self.hear().await else {
            panic!("the link goes on");
        };
        assert_eq!((peer, self.links.count()), (PARENT, 0));
        error
    }

    /// Waits until bytes of the piece are here.
    async fn sees_bytes(&self) {
        until(|| !self.pieces.unverified().is_empty()).await;
    }

    /// Waits until no request has memory any more.
    async fn is_free(&self) {
        until(|| self.store.budget().used() == 0).await;
    }
}

/// Waits for what needs no time to pass.
async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("waited in vain");
}

// ---- it stalls --------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_silent_parent_is_asked_whether_it_is_there_and_then_given_up() {
    let (mut child, mut parent) = linked().await;
    child.want(1);
    let asked = parent.hear_want().await;
    parent.begin_block(asked.request, 64, &BYTES[..10]).await;
    assert_eq!(parent.hear().await, Some(ToParent::AreYouThere));
    assert_eq!(parent.hear().await, None, "nothing came for as long again");
    let (failure, writer) = child.failed().await;
    assert_eq!((failure, writer.position()), (Failure::Gone, 10));
    assert_eq!(child.down().await.kind(), Kind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_says_it_is_there_may_take_its_time() {
    let (mut child, mut parent) = linked().await;
    child.want(1);
    let asked = parent.hear_want().await;
    for _ in 0..20 {
        assert_eq!(parent.hear().await, Some(ToParent::AreYouThere));
        parent.say(&[ToChild::Here]).await;
    }
    parent.send(asked.request, &BYTES).await;
    parent.done(asked.request, BYTES.len()).await;
    assert_eq!(child.fetched().await.1.filled(), BYTES);
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_was_asked_for_nothing_may_be_silent() {
    let (mut child, mut parent) = linked().await;
    tokio::time::sleep(FOR_EVER).await;
    child.want(1);
    let next = parent.hear().await;
    assert!(matches!(next, Some(ToParent::Want { .. })), "{next:?}");
    assert!(child.heard.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_never_greets_is_given_up() {
    let (near, far) = (duplex(UNREAD_BYTES), duplex(UNREAD_BYTES));
    let (links, (commands, mut heard)) = (links(), mpsc::channel(16));
    links.connect(PARENT, near.0, far.1);
    links.follow(super::addr(), &task(TASK, commands));
    let Ok(Some(Command::LinkDown { error, .. })) = timeout(FOR_EVER, heard.recv()).await else {
        panic!("it is not up");
    };
    assert_eq!((error.kind(), links.count()), (Kind::Timeout, 0));
}

// ---- it lies ----------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_block_beyond_the_piece_is_not_read() {
    let (mut child, mut parent) = linked().await;
    child.want(1);
    let request = parent.hear_want().await.request;
    parent.send(request, &BYTES[..60]).await;
    parent.send(request, &BYTES[..5]).await;
    let (failure, writer) = child.failed().await;
    assert_eq!((failure, writer.position()), (Failure::Gone, 60));
    assert_eq!(child.down().await.kind(), Kind::Protocol);
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_leaves_bytes_out_is_left() {
    let (mut child, mut parent) = linked().await;
    child.want(1);
    let request = parent.hear_want().await.request;
    parent.send(request, &BYTES[..60]).await;
    parent.done(request, 64).await;
    assert_eq!(child.failed().await.0, Failure::Gone);
    assert_eq!(child.down().await.kind(), Kind::Protocol);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asked_for_goes_nowhere() {
    let (mut child, mut parent) = linked().await;
    child.want(1);
    let request = parent.hear_want().await.request;
    let nobody = request + 1;
    parent.send(nobody, &[1; 1000]).await;
    parent.done(nobody, 1000).await;
    let refusal = Refusal::Busy;
    let refused = ToChild::Refused {
        request: nobody,
        refusal,
    };
    let other = TaskId::from_bytes([3; 32]);
    let runs = vec![(PieceIndex::new(0), 1)];
    let news = ToChild::Holds { task: other, runs };
    parent.say(&[refused, news]).await;
    parent.send(request, &BYTES).await;
    parent.done(request, BYTES.len()).await;
    let (attempt, buffer) = child.fetched().await;
    assert_eq!((attempt, buffer.filled()), (AttemptId(1), &BYTES[..]));
    assert_eq!(child.store.budget().used(), PIECE);
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_greeting_is_refused() {
    let (near, far) = (duplex(UNREAD_BYTES), duplex(UNREAD_BYTES));
    let (links, (commands, mut heard)) = (links(), mpsc::channel(16));
    links.connect(PARENT, near.0, far.1);
    links.follow(super::addr(), &task(TASK, commands));
    let mut parent = Parent::new(PeerId::from_bytes([8; 16]), far.0, near.1);
    parent.greet().await;
    let Ok(Some(Command::LinkDown { error, .. })) = timeout(FOR_EVER, heard.recv()).await else {
        panic!("it is not up");
    };
    assert_eq!(error.kind(), Kind::Protocol);
}

#[tokio::test(start_paused = true)]
async fn garbage_ends_the_link_and_its_requests_alone() {
    let garbage: [&[u8]; 4] = [
        // A message of a gigabyte.
        &[16, 64, 0, 0, 0],
        // A block without a byte.
        &[32, 0, 0, 0, 4, 0, 0, 0, 0],
        // A block larger than any.
        &[32, 64, 0, 0, 0, 0, 0, 0, 0],
        // News of a task with half a name.
        &[17, 0, 0, 0, 3, 1, 2, 3],
    ];
    for bytes in garbage {
        let (mut child, mut parent) = linked().await;
        child.want(1);
        parent.hear_want().await;
        // What only a later version knows is no garbage.
        parent.write_bytes(&[250, 0, 0, 0, 1, 9]).await;
        parent.write_bytes(bytes).await;
        let (failure, writer) = child.failed().await;
        assert_eq!((failure, writer.position()), (Failure::Gone, 0));
        assert_eq!(child.down().await.kind(), Kind::Protocol, "{bytes:?}");
        drop(writer);
        child.is_free().await;
    }
}

// ---- it refuses, it closes --------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_one_request() {
    let (mut child, mut parent) = linked().await;
    let refusals = [
        (Refusal::Busy, Failure::Busy),
        (Refusal::NotHere, Failure::NotHere),
    ];
    for (refusal, failure) in refusals {
        child.want(1);
        let request = parent.hear_want().await.request;
        parent.say(&[ToChild::Refused { request, refusal }]).await;
        assert_eq!(child.failed().await.0, failure);
        child.is_free().await;
    }
    assert_eq!(child.links.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_closed_connection_brought_is_gone_on_with_by_the_next() {
    let (mut child, mut parent) = linked().await;
    child.want(1);
    let request = parent.hear_want().await.request;
    parent.begin_block(request, 64, &BYTES[..10]).await;
    drop(parent);
    let (failure, writer) = child.failed().await;
    assert_eq!((failure, writer.position()), (Failure::Gone, 10));
    assert_eq!(child.down().await.kind(), Kind::Unreachable);

    let (mut next, mut parent) = linked().await;
    next.want_on(1, writer);
    let asked = parent.hear_want().await;
    assert_eq!(asked.offset, 10);
    parent.send(asked.request, &BYTES[10..]).await;
    parent.done(asked.request, BYTES.len()).await;
    assert_eq!(next.fetched().await.1.filled(), BYTES);
}

/// The direction to the parent breaks while a block comes from it: the block's request fails as the others
/// do, and is not lost with what was reading it.
#[tokio::test(start_paused = true)]
async fn a_link_that_cannot_be_written_to_loses_no_request() {
    let (mut child, mut parent) = linked().await;
    child.want(1);
    let request = parent.hear_want().await.request;
    parent.begin_block(request, 64, &BYTES[..10]).await;
    child.sees_bytes().await;
    let _still_sends = parent.stop_listening();
    child.want(2);
    let (first, second) = (child.failed().await, child.failed().await);
    let came = [first.1.position(), second.1.position()];
    assert_eq!((first.0, second.0), (Failure::Gone, Failure::Gone));
    assert_eq!(came.iter().sum::<usize>(), 10);
    assert_eq!(child.down().await.kind(), Kind::Unreachable);
}

// ---- its child changes its mind ---------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_request_without_bytes_is_cancelled() {
    let (mut child, mut parent) = linked().await;
    child.want(1);
    let request = parent.hear_want().await.request;
    child.cancel(1);
    assert_eq!(parent.hear().await, Some(ToParent::Cancel { request }));
    child.is_free().await;
    // The parent has sent it before it heard.
    parent.send(request, &BYTES).await;
    parent.done(request, BYTES.len()).await;
    child.want(2);
    let request = parent.hear_want().await.request;
    parent.send(request, &BYTES).await;
    parent.done(request, BYTES.len()).await;
    assert_eq!(child.fetched().await.0, AttemptId(2));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_cancelled_in_the_middle_of_a_block() {
    let (mut child, mut parent) = linked().await;
    let arrival = child.want(1);
    let request = parent.hear_want().await.request;
    parent.begin_block(request, 64, &BYTES[..10]).await;
    child.sees_bytes().await;
    // What a driver does.
    arrival.end();
    child.pieces.abandon(PieceIndex::new(0));
    child.cancel(1);
    assert_eq!(parent.hear().await, Some(ToParent::Cancel { request }));
    parent.write_bytes(&BYTES[10..]).await;
    child.is_free().await;
    assert!(child.pieces.unverified().is_empty());
    child.want(2);
    let request = parent.hear_want().await.request;
    parent.send(request, &BYTES).await;
    parent.done(request, BYTES.len()).await;
    assert_eq!(child.fetched().await.0, AttemptId(2));
}

#[tokio::test(start_paused = true)]
async fn what_has_been_answered_is_not_cancelled() {
    let (mut child, mut parent) = linked().await;
    child.want(1);
    let request = parent.hear_want().await.request;
    parent.send(request, &BYTES).await;
    parent.done(request, BYTES.len()).await;
    child.fetched().await;
    child.cancel(1);
    child.link.urge(TASK, AttemptId(1), 3);
    child.want(2);
    let next = parent.hear().await;
    assert!(matches!(next, Some(ToParent::Want { .. })), "{next:?}");
}
