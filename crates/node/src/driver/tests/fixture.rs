//! A driver whose parents are scripts, on a clock that does not wait.

use std::sync::LazyLock;

use pantala_core::{ContentMeta, Geometry, PeerId, PieceDigest, ResourceKey, TaskId, control::*};
use pantala_origin::{OriginClient, OriginConfig};
use pantala_store::{Budget, Eviction};
use pantala_window::{Config, Snapshot};
use tokio::{io::duplex, sync::oneshot, task::JoinHandle};

use super::super::*;
use crate::{
    download::scripted::Parent,
    limiter::Limits,
    rates::TaskRates,
    readers::{OriginSource, Reader},
    stream::Counted,
};

pub const TASK: TaskId = TaskId::from_bytes([7; 32]);
pub const PARENT: PeerId = PeerId::from_bytes([9; 16]);
/// The content is one piece of so many bytes, and there is memory for one such piece.
pub const PIECE: usize = 64;
pub const BYTES: [u8; PIECE] = [7; PIECE];
pub const FIRST: PieceIndex = PieceIndex::new(0);
/// Longer than anything that ends by itself, on a clock that does not wait for it.
pub const FOR_EVER: Duration = Duration::from_secs(120);

/// It takes time to make one, and none here asks an origin.
static ORIGIN: LazyLock<OriginClient> =
    LazyLock::new(|| OriginClient::new(OriginConfig::default()).expect("a client"));

/// A node with one task that has a driver.
pub struct Node {
    pub handle: Arc<TaskHandle>,
    pub ports: Ports,
    pub driver: JoinHandle<()>,
    readers: watch::Sender<usize>,
}

impl Node {
    pub fn start() -> Self {
        let (tasks, metrics) = (Arc::new(Tasks::default()), Metrics::new());
        let store = Store::new(Budget::new(PIECE as u64), Eviction::default());
        let (tracker, cancel) = (TaskTracker::new(), CancellationToken::new());
        let me = PeerId::from_bytes([1; 16]);
        let links = Links::new(
            me,
            metrics.clone(),
            Limits::default(),
            tracker.clone(),
            cancel.clone(),
        );
        let (readers, readers_seen) = watch::channel(0);
        let ports = Ports {
            tasks,
            store,
            origin: ORIGIN.clone(),
            links: links.into(),
            control: ControlPort::none(),
            metrics,
            clock: Clock::new(),
            readers: readers_seen,
            line: Arc::default(),
            shelf: Arc::new(Shelf::new()),
            tracker,
            cancel,
        };
        let geometry = Geometry::new(Some(PIECE as u64));
        let pieces = ports.store.open(TASK, geometry);
        let (commands, taken) = mpsc::channel(64);
        let (handle, _) = ports.tasks.get_or_insert(TASK, || {
            let class = pantala_core::Class::Anonymous;
            let key = ResourceKey::of_url("http://origin/file", b"", class);
            let (meta, rates) = (meta(), TaskRates::default());
            let shown = String::new();
            let task = TaskHandle::new((TASK, key), shown, meta, pieces, rates, commands);
            Arc::new(task)
        });
        let now = ports.clock.now();
        let picker = Picker::new(Config::default(), geometry.piece_size(), now);
        let driver = Driver::new(handle.clone(), taken, picker, ports.clone(), true);
        Self {
            handle,
            ports,
            driver: tokio::spawn(driver.run()),
            readers,
        }
    }

    /// A connection to the parent, which has greeted.
    pub async fn connect(&self) -> Parent {
        self.connect_to(PARENT).await
    }

    pub async fn connect_to(&self, peer: PeerId) -> Parent {
        let (near, far) = (duplex(1 << 16), duplex(1 << 16));
        self.ports.links.connect(peer, near.0, far.1);
        let mut parent = Parent::new(peer, far.0, near.1);
        parent.greet().await;
        parent
    }

    /// The supernode names the parent, and vouches for the piece if it `knows` that.
    pub async fn register(&self, knows: bool) {
        self.register_with(&[PARENT], knows).await;
    }

    /// The same with several parents, the first of which is the preferred one.
    pub async fn register_with(&self, peers: &[PeerId], knows: bool) {
        let addr = ([127, 0, 0, 1], 9).into();
        let mut peers = peers.iter().map(|&id| PeerAddr { id, addr });
        let (preferred, others) = (vec![peers.next()], peers.collect());
        let digests = match knows {
            true => vec![(FIRST, PieceDigest::of(&BYTES))],
            false => Vec::new(),
        };
        self.tell(Command::Known(Known {
            task: TASK,
            meta: meta(),
            digests,
            parents: Parents { preferred, others },
        }))
        .await;
    }

    pub async fn tell(&self, command: Command) {
        let told = self.handle.commands.send(command).await;
        assert!(told.is_ok(), "the driver is there");
    }

    pub fn read(&self) -> Arc<Reader> {
        let source = OriginSource {
            url: "http://origin/file".parse().expect("a URL"),
            headers: Default::default(),
            allowed: false,
            asker: Default::default(),
        };
        let counted = Arc::new(Counted::new(&self.readers));
        let readers = &self.handle.readers;
        readers.open(FIRST, None, source, false, counted)
    }

    /// A reader, and a parent that holds the piece.
    pub async fn reads_from_parent(&self, knows: bool) -> (Arc<Reader>, Parent) {
        let mut parent = self.connect().await;
        self.register(knows).await;
        let reader = self.read();
        parent.holds(TASK, FIRST).await;
        (reader, parent)
    }

    /// Waits until all has been heard that is on its way, without any time passing.
    pub async fn settled(&self) -> Snapshot {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        self.snapshot().await
    }

    async fn snapshot(&self) -> Snapshot {
        let (reply, snapshot) = oneshot::channel();
        self.tell(Command::Snapshot { reply }).await;
        snapshot.await.expect("the driver answers")
    }

    pub fn used(&self) -> u64 {
        self.ports.store.budget().used()
    }

    pub fn waiting(&self) -> usize {
        self.ports.store.budget().waiting()
    }

    pub fn shows_bytes(&self) -> bool {
        !self.handle.pieces.unverified().is_empty()
    }

    pub fn is_held(&self) -> bool {
        self.handle.pieces.held() == 1
    }

    /// Nothing is left of the task, its requests and its links.
    pub async fn goes(mut self) {
        (&mut self.driver).await.expect("its invariants hold");
        tokio::time::sleep(FOR_EVER).await;
        assert!(self.ports.tasks.get(&TASK).is_none());
        assert_eq!((self.used(), self.waiting()), (0, 0));
        assert_eq!(self.ports.links.count(), 0);
        assert_eq!(self.ports.metrics.links(), 0);
        assert!(self.ports.line.is_free());
        assert_eq!(*self.readers.borrow(), 0);
    }
}

fn meta() -> ContentMeta {
    ContentMeta {
        length: Some(PIECE as u64),
        ..ContentMeta::default()
    }
}

/// Waits for what needs no time to pass.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("waited in vain: {what}");
}
