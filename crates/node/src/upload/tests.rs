//! Whose request is served first.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use pantala_core::{Class, Geometry, PeerId, PieceIndex, ResourceKey, TaskId};
use pantala_store::{Budget, PieceBuffer, Store};
use pantala_wire::link::{BACKGROUND, FrameReader, Incoming, ToChild, ToParent};
use tokio::{
    io::AsyncWriteExt as _,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{PeerServer, news::UNKNOWN_TASKS, outgoing::STUCK};
use crate::{metrics::Metrics, rates::TaskRates, seats::Seats, task::TaskHandle};

const TASK: TaskId = TaskId::from_bytes([7; 32]);
const PIECE: u64 = 1 << 20;

/// Children that the server below has at once.
const CHILDREN_HERE: usize = 4;

/// A server with a task of three pieces.
fn server() -> Arc<PeerServer> {
    let server = Arc::new(PeerServer {
        me: PeerId::from_bytes([1; 16]),
        tasks: Arc::default(),
        metrics: Metrics::new(),
        slots: Arc::new(Semaphore::new(1)),
        background_slots: Arc::new(Semaphore::new(1)),
        children: Seats::new(CHILDREN_HERE, 0),
        line: Arc::default(),
        tracker: TaskTracker::new(),
        cancel: CancellationToken::new(),
    });
    add_task_of(&server, TASK, 3, PIECE);
    server
}

/// A task of one piece comes.
fn add_task(server: &PeerServer, task: TaskId) {
    add_task_of(server, task, 1, 1);
}

fn add_task_of(server: &PeerServer, task: TaskId, count: u32, size: u64) {
    let length = u64::from(count) * size;
    let store = Store::new(Budget::new(length), pantala_store::Eviction::default());
    let pieces = store.open(task, Geometry::new(Some(length)));
    for piece in 0..count {
        let charge = store.budget().try_charge(size).unwrap();
        let (buffer, mut writer) = PieceBuffer::charged(charge);
        writer.append(&vec![piece as u8; size as usize]);
        drop(writer);
        pieces.seal(PieceIndex::new(piece), buffer);
    }
    server.tasks.get_or_insert(task, || {
        let key = ResourceKey::of_url("http://origin/file", b"", Class::Anonymous);
        let (meta, rates) = (Default::default(), TaskRates::default());
        let commands = mpsc::channel(1).0;
        Arc::new(TaskHandle::new(
            (task, key),
            String::new(),
            meta,
            pieces,
            rates,
            commands,
        ))
    });
}

fn want(request: u32, urgency: u32) -> ToParent {
    ToParent::Want {
        request,
        task: TASK,
        piece: PieceIndex::new(request),
        offset: 0,
        urgency,
    }
}

struct Asking {
    read: FrameReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Asking {
    async fn connect(to: SocketAddr) -> Self {
        let (read, write) = TcpStream::connect(to).await.unwrap().into_split();
        let read = FrameReader::new(read);
        Self { read, write }
    }

    async fn say(&mut self, messages: &[ToParent]) {
        let mut out = BytesMut::new();
        for message in messages {
            message.encode(&mut out);
        }
        self.write.write_all(&out).await.unwrap();
    }

    /// The requests that are answered, in order, until one has ended.
    async fn served(&mut self) -> Vec<u32> {
        let mut served = Vec::new();
        loop {
            match self.read.from_parent().await.unwrap().unwrap() {
                Incoming::Data(frame) => {
                    self.read.skip_data().await.unwrap();
                    served.push(frame.request);
                }
                Incoming::Message(ToChild::Done { .. }) => break,
                Incoming::Message(_) => {}
            }
        }
        served.dedup();
        served
    }
}

async fn listening(server: &Arc<PeerServer>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(server.clone().serve(listener));
    addr
}

#[tokio::test]
async fn background_is_served_when_nobody_else_could_be() {
    let server = server();
    let mut child = Asking::connect(listening(&server).await).await;
    // Another child has the uplink; this one has asked for the background first.
    let other = server.line.claim();
    child.say(&[want(0, BACKGROUND)]).await;
    child.say(&[want(1, 9), want(2, 5)]).await;
    assert_eq!(
        child.served().await,
        [2],
        "the urgent one of the foreground"
    );
    assert_eq!(child.served().await, [1], "all of the foreground");
    drop(other);
    assert_eq!(child.served().await, [0]);
    assert!(server.line.is_free());
}

#[tokio::test]
async fn what_somebody_waits_for_now_is_no_background_any_more() {
    let server = server();
    let mut child = Asking::connect(listening(&server).await).await;
    let other = server.line.claim();
    child
        .say(&[want(0, BACKGROUND), want(1, BACKGROUND | 1)])
        .await;
    let urge = ToParent::Urge {
        request: 1,
        urgency: 1,
    };
    child.say(&[urge]).await;
    assert_eq!(child.served().await, [1]);
    drop(other);
    assert_eq!(child.served().await, [0]);
}

#[tokio::test]
async fn background_does_not_keep_a_slot_from_the_foreground() {
    let server = server();
    let addr = listening(&server).await;
    let _all = server.background_slots.clone().acquire_owned().await;
    let (mut first, mut second) = (Asking::connect(addr).await, Asking::connect(addr).await);
    first.say(&[want(0, BACKGROUND)]).await;
    second.say(&[want(1, 0)]).await;
    assert_eq!(second.served().await, [1]);
}

/// Longer than anything that ends by itself, on a clock that does not wait for it.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// Whether the parent closes the connection sooner or later.
async fn is_closed(child: &mut Asking) -> bool {
    let end = async {
        loop {
            match child.read.from_parent().await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    };
    tokio::time::timeout(FOR_EVER, end).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_child_that_says_nothing_is_not_kept() {
    let mut child = Asking::connect(listening(&server()).await).await;
    assert!(is_closed(&mut child).await);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_wants_nothing_is_not_kept() {
    let mut child = Asking::connect(listening(&server()).await).await;
    let peer = PeerId::from_bytes([2; 16]);
    let unfollow = ToParent::Unfollow { task: TASK };
    child
        .say(&[
            ToParent::hello(peer),
            ToParent::Follow { task: TASK },
            unfollow,
        ])
        .await;
    assert!(is_closed(&mut child).await);
}

#[tokio::test]
async fn children_that_want_nothing_make_room() {
    let server = server();
    let addr = listening(&server).await;
    let mut silent = Vec::new();
    for _ in 0..CHILDREN_HERE {
        let mut child = Asking::connect(addr).await;
        child.say(&[ToParent::Follow { task: TASK }]).await;
        // What is held here has been told.
        assert!(child.read.from_parent().await.is_ok());
        silent.push(child);
    }
    let mut late = Asking::connect(addr).await;
    late.say(&[want(1, 0)]).await;
    assert_eq!(late.served().await, [1]);
    assert!(is_closed(&mut silent[0]).await, "it came first");
}

#[tokio::test]
async fn a_child_is_told_of_the_tasks_it_asked_about_last() {
    let server = server();
    let mut child = Asking::connect(listening(&server).await).await;
    let of = |number: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        TaskId::from_bytes(id)
    };
    let many: Vec<ToParent> = (0..UNKNOWN_TASKS as u32 + 10)
        .map(|number| ToParent::Follow { task: of(number) })
        .collect();
    child.say(&many).await;
    child.say(&[want(0, 0)]).await;
    assert_eq!(child.served().await, [0], "all of that has been heard");
    for number in [0, UNKNOWN_TASKS as u32 + 9] {
        add_task(&server, of(number));
    }
    let told = async {
        loop {
            match child.read.from_parent().await.unwrap().unwrap() {
                Incoming::Message(ToChild::Holds { task, .. }) => break task,
                Incoming::Data(_) => child.read.skip_data().await.unwrap(),
                Incoming::Message(_) => {}
            }
        }
    };
    assert_eq!(told.await, of(UNKNOWN_TASKS as u32 + 9));
}

#[tokio::test]
async fn who_takes_nothing_keeps_no_slot() {
    let server = server();
    let addr = listening(&server).await;
    // More than the kernel takes of what nobody reads.
    let big = TaskId::from_bytes([8; 32]);
    add_task_of(&server, big, 32, PIECE);
    let mut frozen = Asking::connect(addr).await;
    let wants: Vec<ToParent> = (0..32)
        .map(|piece| ToParent::Want {
            request: piece,
            task: big,
            piece: PieceIndex::new(piece),
            offset: 0,
            urgency: 0,
        })
        .collect();
    frozen.say(&wants).await;
    assert!(frozen.read.from_parent().await.is_ok());
    let mut other = Asking::connect(addr).await;
    other.say(&[want(1, 0)]).await;
    // The only slot is free again long before the frozen child is cut off.
    let served = tokio::time::timeout(STUCK / 2, other.served()).await;
    assert_eq!(served.expect("the slot is free"), [1]);
}
