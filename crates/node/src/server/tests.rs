//! Whose request is served first.

use pantala_core::{Class, Geometry, ResourceKey};
use pantala_store::{Budget, PieceBuffer, Store};
use pantala_wire::link::Incoming;
use parking_lot::Mutex;

use super::*;
use crate::{rates::TaskRates, task::Planned};

const TASK: TaskId = TaskId::from_bytes([7; 32]);
const PIECE: u64 = 1 << 20;

/// A server with a task of three pieces.
fn server() -> Arc<PeerServer> {
    let tasks = Arc::new(Tasks::default());
    let store = Store::new(Budget::new(16 << 20), pantala_store::Eviction::default());
    let pieces = store.open(TASK, Geometry::new(Some(3 * PIECE)));
    for piece in 0..3 {
        let charge = store.budget().try_charge(PIECE).unwrap();
        let (buffer, mut writer) = PieceBuffer::charged(charge);
        writer.append(&vec![piece as u8; PIECE as usize]);
        drop(writer);
        pieces.seal(PieceIndex::new(piece), buffer);
    }
    tasks.get_or_insert(TASK, || {
        Arc::new(TaskHandle {
            id: TASK,
            key: ResourceKey::of_url("http://origin/file", b"", Class::Anonymous),
            resources: Default::default(),
            shown: String::new(),
            meta: Default::default(),
            pieces,
            readers: Default::default(),
            commands: mpsc::channel(1).0,
            rates: TaskRates::default(),
            planned: Mutex::new(Planned::Unknown),
            proven: false.into(),
            awaited: 0.into(),
            read_ahead: false.into(),
        })
    });
    Arc::new(PeerServer {
        me: PeerId::from_bytes([1; 16]),
        tasks,
        metrics: Metrics::new(),
        slots: Arc::new(Semaphore::new(1)),
        background_slots: Arc::new(Semaphore::new(1)),
        line: Arc::default(),
        tracker: TaskTracker::new(),
        cancel: CancellationToken::new(),
    })
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
