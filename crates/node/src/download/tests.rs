//! What a link keeps, and for how long.

mod link;

use std::{future::pending, sync::Arc, time::Duration};

use bytes::BytesMut;
use pantala_core::{Geometry, PeerId, PieceIndex, TaskId, control::PeerAddr};
use pantala_store::{Budget, Eviction, PieceBuffer, Store};
use pantala_window::AttemptId;
use pantala_wire::link::{FrameReader, ToChild, ToParent};
use tokio::{
    io::AsyncWriteExt as _,
    net::{
        TcpListener,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Links, Want, requests::Requests};
use crate::{
    limiter::Limits,
    metrics::Metrics,
    rates::TaskRates,
    task::{Command, TaskHandle},
};

const TASK: TaskId = TaskId::from_bytes([7; 32]);
const PARENT: PeerId = PeerId::from_bytes([9; 16]);
const PIECE: u64 = 64;
/// Longer than anything that ends by itself, on a clock that does not wait for it.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

fn store() -> Store {
    Store::new(Budget::new(4 * PIECE), Eviction::default())
}

/// An address that is never dialled.
fn addr() -> PeerAddr {
    let addr = ([127, 0, 0, 1], 9).into();
    PeerAddr { id: PARENT, addr }
}

fn want(store: &Store, commands: &mpsc::Sender<Command>) -> Want {
    let charge = store.budget().try_charge(PIECE).expect("room");
    Want {
        attempt: AttemptId(1),
        task: TASK,
        piece: PieceIndex::new(0),
        urgency: 0,
        writer: PieceBuffer::charged(charge).1,
        arrival: store.open(TASK, Geometry::new(Some(PIECE))).arrival(false),
        limits: Limits::default(),
        commands: commands.clone(),
    }
}

#[test]
fn a_task_that_goes_takes_its_requests_along() {
    let store = store();
    let (commands, _heard) = mpsc::channel(4);
    let mut requests = Requests::default();
    requests.ask(want(&store, &commands));
    assert_eq!(store.budget().used(), PIECE);
    requests.cancel_all_of(TASK);
    assert_eq!(store.budget().used(), 0, "the parent may never answer");

    // The same while a block of it is being read.
    requests.ask(want(&store, &commands));
    let reading = requests.take(1).expect("the request is open");
    requests.cancel_all_of(TASK);
    requests.put_back(1, reading);
    assert_eq!(store.budget().used(), 0);
}

fn task(id: TaskId, commands: mpsc::Sender<Command>) -> TaskHandle {
    let store = Store::new(Budget::new(PIECE), Eviction::default());
    let class = pantala_core::Class::Anonymous;
    let key = pantala_core::ResourceKey::of_url("http://origin/file", b"", class);
    let pieces = store.open(id, Geometry::new(Some(PIECE)));
    let (meta, rates) = (Default::default(), TaskRates::default());
    TaskHandle::new((id, key), String::new(), meta, pieces, rates, commands)
}

fn links() -> Arc<Links> {
    let me = PeerId::from_bytes([1; 16]);
    let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
    Arc::new(Links::new(
        me,
        Metrics::new(),
        Limits::default(),
        tracker,
        cancel,
    ))
}

/// Accepts one child as a parent, and reads what it says to the end of the connection.
async fn serve_one(listener: &TcpListener) -> Vec<ToParent> {
    let (stream, _) = listener.accept().await.expect("a child");
    let (read, mut write) = stream.into_split();
    let mut hello = BytesMut::new();
    ToChild::hello(PARENT).encode(&mut hello);
    write.write_all(&hello).await.expect("the child listens");
    let (mut reader, mut said) = (FrameReader::new(read), Vec::new());
    while let Ok(Some(message)) = reader.from_child().await {
        said.push(message);
    }
    said
}

#[tokio::test(start_paused = true)]
async fn a_link_that_no_task_uses_is_closed_and_made_anew() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("its address");
    let (commands, mut heard) = mpsc::channel(16);
    let task = task(TASK, commands);
    let (links, parent) = (links(), PeerAddr { id: PARENT, addr });
    for _ in 0..2 {
        links.follow(parent, &task);
        let unfollowed = async {
            while let Some(command) = heard.recv().await {
                if let Command::LinkUp { link } = command {
                    link.unfollow(TASK);
                }
            }
            pending::<()>().await;
        };
        let said = tokio::select! {
            said = timeout(FOR_EVER, serve_one(&listener)) => said.expect("it stays for ever"),
            () = unfollowed => unreachable!(),
        };
        let follow = ToParent::Follow { task: TASK };
        assert!(said.contains(&follow), "{said:?}");
        assert_eq!(links.count(), 0, "it is no more");
    }
}

/// A parent of one child, which says something once this child has followed `TASK`.
/// Gives both halves of the connection, which ends with either.
async fn answer_follow(
    listener: &TcpListener,
    says: Option<ToChild>,
) -> (FrameReader<OwnedReadHalf>, OwnedWriteHalf) {
    let (stream, _) = listener.accept().await.expect("a child");
    let (read, mut write) = stream.into_split();
    let mut out = BytesMut::new();
    ToChild::hello(PARENT).encode(&mut out);
    write.write_all(&out).await.expect("the child listens");
    let mut reader = FrameReader::new(read);
    let follow = ToParent::Follow { task: TASK };
    while reader.from_child().await.expect("a child's frame") != Some(follow.clone()) {}
    out.clear();
    if let Some(says) = says {
        says.encode(&mut out);
        write.write_all(&out).await.expect("the child listens");
    }
    (reader, write)
}

/// A driver whose channel is full at the moment in which it follows a parent that others have a link to
/// hears of the link as soon as it has room, and before any news of that parent.
#[tokio::test(start_paused = true)]
async fn a_driver_that_is_behind_hears_of_its_link_later() {
    let runs = vec![(PieceIndex::new(0), 1)];
    let holds = ToChild::Holds { task: TASK, runs };
    for says in [None, Some(holds)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let (links, parent) = (links(), PeerAddr { id: PARENT, addr });
        let (commands, mut heard) = mpsc::channel(4);
        links.follow(parent, &task(TaskId::from_bytes([8; 32]), commands));
        let (commands, mut late) = mpsc::channel(1);
        commands.try_send(Command::Alone).expect("there is room");
        let task = task(TASK, commands);
        let follows = async {
            let up = heard.recv().await;
            assert!(matches!(up, Some(Command::LinkUp { .. })));
            links.follow(parent, &task);
        };
        let (_open, ()) = tokio::join!(answer_follow(&listener, says.clone()), follows);
        assert!(matches!(late.recv().await, Some(Command::Alone)));
        let up = timeout(FOR_EVER, late.recv()).await;
        assert!(matches!(up, Ok(Some(Command::LinkUp { .. }))), "{says:?}");
        let news = async {
            loop {
                match late.recv().await {
                    // To be told of it twice changes nothing.
                    Some(Command::LinkUp { .. }) => {}
                    other => break other,
                }
            }
        };
        if says.is_some() {
            let news = timeout(FOR_EVER, news).await;
            assert!(matches!(news, Ok(Some(Command::Holds { .. }))));
        }
    }
}
