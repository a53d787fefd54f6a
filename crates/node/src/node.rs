//! The node: what it is set up with, its start and its stop, and what it shows of itself.

mod admission;
mod fits;
mod heard;
mod open;
mod request;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pantala_core::{
    Error, Kind, PeerId, Result, TaskId, Who,
    control::{Hello, PeerAddr},
};
use pantala_origin::{OriginClient, OriginConfig};
use pantala_store::{Budget, Charge, Eviction, Holder, Store, StoreStats};
use pantala_window::Snapshot;
use pantala_wire::control::{ClientConfig, Control};
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    alone::Alone,
    clock::Clock,
    download::Links,
    driver::Ports,
    metrics::{Metrics, Totals},
    prefetch::{Prefetch, ReadAhead},
    rates::{RateLimits, Rates},
    registration::Registrations,
    seats::Seats,
    shelf::Shelf,
    task::{Command, TaskHandle, Tasks},
    upload::{CHILDREN, PeerServer},
};
use admission::Admissions;
use heard::Contact;

pub(crate) use heard::ControlPort;
pub(crate) use open::{Arrival, Stale};
pub use request::{Content, ContentRequest, Opened, Range};

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where the peer server listens.
    pub peer_listen: SocketAddr,
    /// Where children reach it; found out when `None`.
    pub advertise: Option<SocketAddr>,
    /// Supernodes as `host:port`; none means that this node streams from origins alone.
    pub supernodes: Vec<String>,
    /// The operator's labels, for locality.
    pub labels: Vec<(String, String)>,
    /// The memory budget in bytes.
    pub memory: u64,
    /// A fixed window in pieces; adaptive when `None`.
    pub window: Option<u32>,
    /// Which pieces leave the cache first.
    pub cache: Eviction,
    /// Transfers to children at once.
    pub uploads: usize,
    /// How fast it sends and takes.
    pub rates: RateLimits,
    /// How origins are spoken to.
    pub origin: OriginConfig,
    /// Query parameters that do not tell contents apart, besides those of signed URLs.
    pub filter_query: Vec<String>,
    /// How long the origin's word that a reader may have a content is remembered.
    pub remember_admission: Duration,
    /// What is read besides the ranges that readers ask for.
    pub prefetch: Prefetch,
}

/// One stream as the operator's page shows it.
#[derive(Debug, Clone)]
pub struct StreamView {
    /// The task.
    pub task: TaskId,
    /// The URL without credentials.
    pub url: String,
    /// Bytes of the whole content, when known.
    pub length: Option<u64>,
    /// Pieces held here.
    pub held: usize,
    /// Bytes of a piece.
    pub piece_size: u64,
    /// Windows, pieces in flight and parents.
    pub state: Snapshot,
}

/// Memory that is kept for a client, until it is dropped.
#[derive(Debug)]
pub struct Kept(#[expect(dead_code, reason = "it is only dropped")] Charge);

/// A peer. Cheap to clone; [`Node::stop`] ends all clones.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    config: NodeConfig,
    peer: PeerId,
    peer_addr: SocketAddr,
    ports: Ports,
    registrations: Registrations,
    rates: Rates,
    /// Readers that the origin would serve, remembered for a short time.
    admissions: Admissions,
    readers: watch::Sender<usize>,
    /// Responses that are not shared.
    alone: Alone,
    /// Who reads ahead of readers.
    read_ahead: ReadAhead,
    /// Round trips are measured for one question at a time.
    measuring: Arc<Semaphore>,
}

impl Node {
    /// Starts a node: binds the peer server and connects to the supernode in the background.
    ///
    /// # Errors
    /// When the peer server cannot listen, or a CA file cannot be used.
    pub async fn start(config: NodeConfig) -> Result<Self> {
        let origin = OriginClient::new(config.origin.clone())?;
        let listener = TcpListener::bind(config.peer_listen)
            .await
            .map_err(|error| {
                let what = format!("cannot listen for peers on {}: {error}", config.peer_listen);
                Error::new(Who::User, Kind::BadInput, what).hint("choose another --peer-listen")
            })?;
        let peer_addr = listener.local_addr().map_err(|error| {
            Error::new(
                Who::Us,
                Kind::Internal,
                format!("no local address: {error}"),
            )
        })?;
        let peer = PeerId::from_bytes(rand::random());
        let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
        let rates = Rates::new(config.rates);
        let store = Store::new(Budget::new(config.memory), config.cache);
        let metrics = Metrics::new();
        let tasks: Arc<Tasks> = Arc::default();
        let (readers, readers_seen) = watch::channel(0);
        let (contact, contact_seen) = watch::channel(Contact::Pending);
        let hello = Hello {
            peer: PeerAddr {
                id: peer,
                addr: config.advertise.unwrap_or(peer_addr),
            },
            labels: config.labels.clone(),
        };
        let (control, events) = if config.supernodes.is_empty() {
            (None, None)
        } else {
            let client = ClientConfig::new(config.supernodes.clone(), hello);
            let (control, events) = Control::start(client, cancel.clone());
            (Some(control), Some(events))
        };
        let ports = Ports {
            tasks: tasks.clone(),
            store,
            origin,
            links: Arc::new(Links::new(
                peer,
                metrics.clone(),
                rates.download(),
                tracker.clone(),
                cancel.child_token(),
            )),
            control: ControlPort {
                control,
                contact: contact_seen,
            },
            metrics: metrics.clone(),
            clock: Clock::new(),
            readers: readers_seen,
            line: Arc::default(),
            shelf: Arc::new(Shelf::new()),
            tracker: tracker.clone(),
            cancel: cancel.clone(),
        };
        let server = Arc::new(PeerServer {
            me: peer,
            tasks,
            metrics,
            slots: Arc::new(Semaphore::new(config.uploads.max(1))),
            background_slots: Arc::new(Semaphore::new(config.uploads.max(1))),
            children: Seats::new(CHILDREN, 0),
            line: Arc::default(),
            tracker: tracker.clone(),
            cancel,
        });
        tracker.spawn(server.serve(listener));
        let node = Self {
            inner: Arc::new(Inner {
                read_ahead: ReadAhead::new(config.memory),
                alone: Alone::new(config.memory),
                config,
                peer,
                peer_addr,
                ports,
                registrations: Registrations::default(),
                rates,
                admissions: Admissions::new(),
                measuring: Arc::new(Semaphore::new(1)),
                readers,
            }),
        };
        if let Some(events) = events {
            let this = node.clone();
            tracker.spawn(async move { this.dispatch(events, contact).await });
        }
        Ok(node)
    }

    /// Which peer this is.
    pub fn peer(&self) -> PeerId {
        self.inner.peer
    }

    /// Where the peer server listens.
    pub fn peer_addr(&self) -> SocketAddr {
        self.inner.peer_addr
    }

    /// The client for requests that are passed through.
    pub fn origin(&self) -> &OriginClient {
        &self.inner.ports.origin
    }

    pub(crate) fn prefetch(&self) -> Prefetch {
        self.inner.config.prefetch
    }

    pub(crate) fn reading_ahead(&self) -> &ReadAhead {
        &self.inner.read_ahead
    }

    pub(crate) fn task_of(&self, task: &TaskId) -> Option<Arc<TaskHandle>> {
        self.inner.ports.tasks.get(task)
    }

    /// Runs something until it is done or the node stops.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.inner.ports.cancel.clone();
        self.inner
            .ports
            .tracker
            .spawn(async move { cancel.run_until_cancelled(work).await });
    }

    /// Content bytes moved since the start.
    pub fn totals(&self) -> Totals {
        self.inner.ports.metrics.totals(&self.inner.ports.origin)
    }

    /// Makes the node's figures part of a metrics registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let ports = &self.inner.ports;
        ports
            .metrics
            .register(registry, ports.store.clone(), ports.origin.clone());
    }

    /// Memory for bytes that a client does not take, in exchange for the pieces they are copied from: what
    /// is let go of is more than what is taken, so it need not wait for those who wait for room.
    pub fn keep_for_client(&self, bytes: u64) -> Option<Kept> {
        let budget = self.inner.ports.store.budget();
        let charge = budget.charge_ahead(bytes)?;
        Some(Kept(charge.held_by(Holder::Copies)))
    }

    /// Memory for what a client's connection takes by itself; `None` when there is none. Nobody waits for it: a client
    /// is told at once that there is no room.
    pub fn keep_for_connection(&self, bytes: u64) -> Option<Kept> {
        let budget = self.inner.ports.store.budget();
        let charge = budget.charge_ahead(bytes)?;
        Some(Kept(charge.held_by(Holder::Connections)))
    }

    /// A client's answer keeps no piece any more that it kept: whoever waits for memory looks for it again.
    pub fn let_go(&self) {
        self.inner.ports.store.budget().nudge();
    }

    /// What memory is used for.
    pub fn memory(&self) -> StoreStats {
        self.inner.ports.store.stats()
    }

    /// What streams or is held now.
    pub async fn streams(&self) -> Vec<StreamView> {
        let mut views = Vec::new();
        for task in self.inner.ports.tasks.all() {
            let (reply, state) = oneshot::channel();
            if task
                .commands
                .send(Command::Snapshot { reply })
                .await
                .is_err()
            {
                continue;
            }
            let Ok(state) = state.await else { continue };
            let geometry = task.pieces.geometry();
            views.push(StreamView {
                task: task.id,
                url: task.shown.clone(),
                length: geometry.length(),
                held: task.pieces.held(),
                piece_size: geometry.piece_size(),
                state,
            });
        }
        views
    }

    /// Makes ready to leave: asks nothing more of others, and waits until no child is left, but no
    /// longer than `limit`, or twice that while a child is still being served.
    pub async fn drain(&self, limit: Duration) {
        let ports = &self.inner.ports;
        // Its parents see that they are rid of this child: peers that finish together do not wait
        // for each other.
        ports.links.close();
        let started = Instant::now();
        let waits = || {
            let waited = started.elapsed();
            (ports.metrics.children() > 0 && waited < limit)
                || (ports.metrics.requests() > 0 && waited < 2 * limit)
        };
        while waits() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops everything and waits until it has stopped.
    pub async fn stop(&self) {
        self.inner.ports.cancel.cancel();
        self.inner.ports.tracker.close();
        self.inner.ports.tracker.wait().await;
        if let Some(control) = &self.inner.ports.control.control {
            control.stopped().await;
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("peer", &self.inner.peer)
            .field("addr", &self.inner.peer_addr)
            .finish_non_exhaustive()
    }
}
