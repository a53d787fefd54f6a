//! What children are served, over pipes and a clock that does not wait.

mod chaos;
mod cut_off;
mod news;
mod order;
mod requests;
mod seats;

use std::{
    ops::Range,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::{BufMut as _, BytesMut};
use pantala_core::{Class, Geometry, PeerId, PieceIndex, ResourceKey, Result, TaskId};
use pantala_store::{Arrival, Budget, PieceBuffer, PieceWriter, Store, TaskPieces};
use pantala_wire::link::{DataFrame, FrameReader, Incoming, Refusal, ToChild, ToParent};
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::PeerServer;
use crate::{
    metrics::Metrics,
    rates::{RateLimits, Rates, TaskRates},
    seats::Seats,
    task::{Planned, TaskHandle},
};

const TASK: TaskId = TaskId::from_bytes([7; 32]);
const OTHER: TaskId = TaskId::from_bytes([8; 32]);
/// A piece is four blocks.
const PIECE: usize = 1 << 20;
/// Bytes that wait between a parent and its child: less than a block.
const PIPE: usize = 64 << 10;
/// Children that the parent has at once.
const CHILDREN_HERE: usize = 4;
/// Longer than anything that ends by itself, on a clock that does not wait for it.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);
/// A moment in which everything happens that waits for no clock.
const MOMENT: Duration = Duration::from_millis(1);

/// A parent with one slot for the foreground and one for the background, that has nothing.
fn parent() -> Arc<PeerServer> {
    Arc::new(PeerServer {
        me: PeerId::from_bytes([1; 16]),
        tasks: Arc::default(),
        metrics: Metrics::new(),
        slots: Arc::new(Semaphore::new(1)),
        background_slots: Arc::new(Semaphore::new(1)),
        children: Seats::new(CHILDREN_HERE, 0),
        line: Arc::default(),
        tracker: TaskTracker::new(),
        cancel: CancellationToken::new(),
    })
}

impl PeerServer {
    /// Another child has the uplink.
    fn take_slot(&self) -> OwnedSemaphorePermit {
        self.slots.clone().try_acquire_owned().expect("a slot")
    }

    /// Everything that served children have had of the parent is free again.
    fn assert_at_rest(&self) {
        assert_eq!(self.metrics.requests(), 0, "requests");
        assert_eq!(self.slots.available_permits(), 1, "slots");
        assert_eq!(self.background_slots.available_permits(), 1, "slots");
        assert!(self.line.is_free(), "the uplink");
    }
}

/// No more than so many bytes a second leave.
fn limited(rate: u64) -> TaskRates {
    let limits = RateLimits {
        upload: Some(rate),
        ..RateLimits::default()
    };
    Rates::new(limits).task()
}

/// A content at a parent.
struct Content {
    store: Store,
    pieces: Arc<TaskPieces>,
    handle: Arc<TaskHandle>,
}

impl Content {
    /// A content of which nothing is there, nor expected by a reader.
    fn new(parent: &PeerServer, task: TaskId) -> Self {
        Self::with_rates(parent, task, TaskRates::default())
    }

    fn with_rates(parent: &PeerServer, task: TaskId, rates: TaskRates) -> Self {
        let budget = Budget::new(4 * PIECE as u64);
        let store = Store::new(budget, pantala_store::Eviction::default());
        let pieces = store.open(task, Geometry::new(Some(1 << 30)));
        let key = ResourceKey::of_url("http://origin/file", b"", Class::Anonymous);
        let (meta, commands) = (Default::default(), mpsc::channel(1).0);
        let shown = String::new();
        let handle = TaskHandle::new((task, key), shown, meta, pieces.clone(), rates, commands);
        let (handle, new) = parent.tasks.get_or_insert(task, || Arc::new(handle));
        assert!(new, "one content of a name");
        Self {
            store,
            pieces,
            handle,
        }
    }

    /// A content of some complete pieces.
    fn of(parent: &PeerServer, task: TaskId, count: u32) -> Self {
        let content = Self::new(parent, task);
        (0..count).for_each(|piece| content.hold(piece));
        content
    }

    fn buffer(&self) -> (Arc<PieceBuffer>, PieceWriter) {
        let charge = self.store.budget().try_charge(PIECE as u64);
        PieceBuffer::charged(charge.expect("room for a piece"))
    }

    /// A piece is there, complete.
    fn hold(&self, piece: u32) {
        let (buffer, mut writer) = self.buffer();
        writer.append(&bytes_of(piece, 0..PIECE));
        self.pieces.seal(PieceIndex::new(piece), buffer);
    }

    /// A piece is about to arrive from another peer.
    fn receive(&self, piece: u32) -> Arriving<'_> {
        Arriving {
            content: self,
            piece,
            arrival: self.pieces.arrival(false),
            writer: self.buffer().1,
        }
    }

    /// Which pieces a reader here still needs.
    fn plan(&self, planned: Planned) {
        *self.handle.planned.lock() = planned;
        self.pieces.wake();
    }

    /// How many pieces children's readers wait for here.
    fn awaited(&self) -> usize {
        self.handle.awaited.lock().len()
    }

    /// How many children follow it.
    fn followers(&self) -> usize {
        let followers = &self.handle.followers;
        followers.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The parent gives it up, as its driver does.
    fn close(&self, parent: &PeerServer) {
        assert!(parent.tasks.remove_if(&self.handle.id, |_| true));
        self.store.remove(&self.handle.id);
    }
}

/// A piece that arrives.
struct Arriving<'a> {
    content: &'a Content,
    piece: u32,
    arrival: Arc<Arrival>,
    writer: PieceWriter,
}

impl Arriving<'_> {
    fn grow(&mut self, bytes: usize) {
        let from = self.writer.position();
        self.writer
            .append(&bytes_of(self.piece, from..from + bytes));
        let piece = PieceIndex::new(self.piece);
        self.arrival.show(piece, self.writer.buffer());
    }

    /// It is complete and right.
    fn seal(mut self) {
        self.grow(self.writer.remaining());
        let buffer = self.writer.buffer().clone();
        self.content
            .pieces
            .seal(PieceIndex::new(self.piece), buffer);
    }

    /// Nobody wants it any more, or its bytes were wrong.
    fn give_up(self) {
        self.content.pieces.abandon(PieceIndex::new(self.piece));
    }
}

/// Bytes of a piece. Each differs from its neighbours and from the same one of another piece.
fn bytes_of(piece: u32, range: Range<usize>) -> Vec<u8> {
    static BYTES: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..2 * PIECE).map(|at| (at % 251) as u8).collect());
    BYTES[piece as usize..][range].to_vec()
}

/// A child, and how the parent ended with it.
struct Asking {
    read: FrameReader<ReadHalf<DuplexStream>>,
    /// What has come of a block.
    block: Option<(DataFrame, BytesMut)>,
    write: WriteHalf<DuplexStream>,
    ended: JoinHandle<Result<()>>,
}

/// What a child hears.
#[derive(Debug, PartialEq)]
enum Heard {
    /// Bytes of a request's piece.
    Block(u32, Vec<u8>),
    Done(u32),
    Refused(u32, Refusal),
    News(ToChild),
    /// The parent answers the question whether it is there.
    Here,
}

impl Asking {
    fn new(parent: &Arc<PeerServer>) -> Self {
        Self::over(parent, PIPE)
    }

    /// A child over a pipe that takes so many bytes.
    fn over(parent: &Arc<PeerServer>, pipe: usize) -> Self {
        let seat = parent
            .children
            .admit([127, 0, 0, 1].into())
            .expect("a seat");
        let (here, there) = duplex(pipe);
        let parent = parent.clone();
        let ended = tokio::spawn(async move {
            let (read, write) = split(there);
            parent.attend(read, write, &seat).await
        });
        let (read, write) = split(here);
        let read = FrameReader::new(read);
        Self {
            read,
            block: None,
            write,
            ended,
        }
    }

    async fn say(&mut self, messages: &[ToParent]) {
        let mut out = BytesMut::new();
        for message in messages {
            message.encode(&mut out);
        }
        self.write
            .write_all(&out)
            .await
            .expect("the parent listens");
    }

    /// What comes next but greetings; `None` when the parent has closed the connection.
    async fn next(&mut self) -> Option<Heard> {
        let next = timeout(FOR_EVER, self.hear());
        next.await.expect("something comes")
    }

    /// Can be given up and begun again: a block that has begun is gone on with.
    async fn hear(&mut self) -> Option<Heard> {
        loop {
            if let Some((frame, block)) = &mut self.block {
                while block.len() < frame.len {
                    let more = frame.len - block.len();
                    self.read.read_data(&mut block.limit(more)).await.ok()?;
                }
                let heard = Heard::Block(frame.request, block.to_vec());
                self.block = None;
                return Some(heard);
            }
            let message = match self.read.from_parent().await.ok()?? {
                Incoming::Data(frame) => {
                    self.block = Some((frame, BytesMut::with_capacity(frame.len)));
                    continue;
                }
                Incoming::Message(message) => message,
            };
            return Some(match message {
                ToChild::Hello { .. } => continue,
                ToChild::Done { request, size } => {
                    assert_eq!(size as usize, PIECE);
                    Heard::Done(request)
                }
                ToChild::Refused { request, refusal } => Heard::Refused(request, refusal),
                ToChild::Here => Heard::Here,
                news => Heard::News(news),
            });
        }
    }

    /// What comes next, sooner or later, and is neither a block nor news.
    async fn word(&mut self) -> Heard {
        let word = async {
            loop {
                match self.next().await.expect("the parent is there") {
                    Heard::Block(..) | Heard::News(_) => {}
                    word => break word,
                }
            }
        };
        timeout(FOR_EVER, word).await.expect("a word")
    }

    /// Nothing comes for now.
    async fn assert_quiet(&mut self) {
        let next = timeout(MOMENT, self.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    /// The rest of a request's piece comes from this byte on, in blocks, and is all that comes.
    async fn assert_served(&mut self, request: u32, piece: u32, from: usize) {
        let served = async {
            let mut at = from;
            while at < PIECE {
                match self.next().await.expect("the parent is there") {
                    Heard::Block(of, bytes) => {
                        assert_eq!(of, request, "another request's block");
                        assert!(at + bytes.len() <= PIECE, "more than a piece");
                        assert!(bytes == bytes_of(piece, at..at + bytes.len()), "at {at}");
                        at += bytes.len();
                    }
                    Heard::News(_) => {}
                    other => panic!("{other:?} at {at}"),
                }
            }
            assert_eq!(self.next().await, Some(Heard::Done(request)));
        };
        timeout(FOR_EVER, served).await.expect("it is served");
    }

    /// The requests of which blocks come, in order, until one has ended.
    async fn served(&mut self) -> Vec<u32> {
        let served = async {
            let mut served = Vec::new();
            loop {
                match self.next().await.expect("the parent is there") {
                    Heard::Block(request, _) => served.push(request),
                    Heard::Done(_) => break,
                    _ => {}
                }
            }
            served.dedup();
            served
        };
        timeout(FOR_EVER, served).await.expect("it is served")
    }

    /// How the parent ends with it.
    async fn end(self) -> Result<()> {
        let ended = timeout(FOR_EVER, self.ended).await;
        ended.expect("it ends").expect("it does not panic")
    }
}

/// A piece of a task, under its own number.
fn want_of(task: TaskId, request: u32, urgency: u32) -> ToParent {
    ToParent::Want {
        request,
        task,
        piece: PieceIndex::new(request),
        offset: 0,
        urgency,
    }
}

fn want(request: u32, urgency: u32) -> ToParent {
    want_of(TASK, request, urgency)
}

/// All happens that waits for no clock.
async fn settle() {
    tokio::time::sleep(MOMENT).await;
}

/// Takes a block but for its last bytes.
async fn leave_the_end(child: &mut Asking) {
    let Some(Incoming::Data(frame)) = child.read.from_parent().await.unwrap() else {
        panic!("a block");
    };
    let mut left = frame.len;
    while left > 12 {
        let mut sink = Vec::new();
        left -= child
            .read
            .read_data(&mut (&mut sink).limit(left - 12))
            .await
            .unwrap();
    }
    settle().await;
}
