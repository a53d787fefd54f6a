//! Listening, connections, start and stop.

use std::{convert::Infallible, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use globset::Glob;
use http::uri::Authority;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pantala_core::{Error, Kind, Result, Who};
use pantala_node::{Node, Seat, Seats};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::{
    connection::{Abort, Connection},
    guard::Guard,
    headers::Via,
    heads::{Head, Heads},
    intercept::Intercept,
    interim::Interims,
    metrics::Metrics,
    outlet::{Gate, Outlet},
    room, route,
    rules::{Rule, Rules},
    stale::Stale,
    unsent::Unsent,
    upstreams::{Upstream, Upstreams},
    users::Users,
};

/// How long the head of a request may take, and how long a connection may be idle before it.
const HEAD: Duration = Duration::from_secs(30);
/// The most bytes the head of a request may have. As many of a body wait for the client's socket,
/// besides the chunk that makes it more: what a slow client pins.
const BUFFER: usize = 64 << 10;
/// A client that is silent for so long is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Connections beyond the limit, on which operators' pages are answered.
const OPERATORS: usize = 64;
/// How long a connection may take to end its last answer when it has to make room.
const LEAVE: Duration = Duration::from_secs(1);
/// The pause after a connection could not be accepted: file descriptors may be free by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a proxy is set up.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// Where clients connect. Port 0 takes any.
    pub listen: SocketAddr,
    /// The registry that `/v2/` mirrors for clients that name none.
    pub mirror: Option<Url>,
    /// The registries that clients name.
    pub upstreams: Vec<Upstream>,
    /// What happens to which requests of the HTTP proxy.
    pub rules: Vec<Rule>,
    /// The hosts whose HTTPS is opened, and the directory of the authority that answers for them.
    pub intercept: Option<(Vec<Glob>, PathBuf)>,
    /// A file of those who may use the HTTP proxy; everybody when `None`.
    pub users: Option<PathBuf>,
    /// The names that clients may know this daemon by, besides its addresses and `localhost`.
    pub allowed_hosts: Vec<Glob>,
    /// How old an answer for a tag may be while its registry is down; zero for none at all.
    pub serve_stale: Duration,
    /// Longest wait for a tunnel's connection.
    pub connect_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub client_timeout: Duration,
    /// Connections at once. More take the places of those without a request, or are answered with 503.
    pub connections: usize,
    /// The ports that tunnels may lead to: a tunnel to any port is a hole in somebody's firewall.
    pub tunnel_ports: Vec<u16>,
}

impl ProxyConfig {
    /// One that listens at `listen`, with the defaults.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            mirror: None,
            upstreams: Vec::new(),
            rules: Vec::new(),
            intercept: None,
            users: None,
            allowed_hosts: Vec::new(),
            serve_stale: Duration::ZERO,
            connect_timeout: Duration::from_secs(5),
            client_timeout: Duration::from_secs(300),
            connections: 4096,
            tunnel_ports: vec![443],
        }
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    stop: CancellationToken,
    kill: CancellationToken,
    tracker: TaskTracker,
}

/// What answering a request takes.
pub(crate) struct Context {
    pub node: Node,
    pub upstreams: Upstreams,
    pub rules: Rules,
    pub intercept: Option<Intercept>,
    pub users: Users,
    pub guard: Guard,
    pub stale: Stale,
    pub via: Via,
    pub metrics: Metrics,
    pub connect_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub client_timeout: Duration,
    pub connections: Arc<Seats>,
    pub tunnel_ports: Vec<u16>,
    /// Ends idle connections, and others after what they are at.
    pub stop: CancellationToken,
    /// Ends all connections at once.
    pub kill: CancellationToken,
    pub tracker: TaskTracker,
}

/// Who sent a request.
#[derive(Clone)]
pub(crate) struct Client {
    pub addr: SocketAddr,
    /// The host, and its port, that the client takes this connection to lead to: one that was
    /// intercepted.
    pub secure: Option<Authority>,
    pub abort: Abort,
    /// What is known of the request's head.
    pub head: Head,
    /// What holds an answer back while the client has to take what it was sent before.
    pub gate: Gate,
    /// What is to be sent before the answer.
    pub interims: Interims,
    /// One of the connections there may be at once.
    pub seat: Arc<Seat>,
}

/// Among a request's extensions: its connection counts for as long as this is held.
#[derive(Clone)]
pub(crate) struct Held(Arc<Seat>);

impl Held {
    pub fn of(client: &Client) -> Self {
        Self(client.seat.clone())
    }

    /// The connection goes on without further requests.
    pub fn engage(&self) {
        self.0.engage();
    }
}

impl Client {
    /// Whether it runs on this host.
    pub fn is_here(&self) -> bool {
        self.addr.ip().to_canonical().is_loopback()
    }
}

impl Proxy {
    /// Starts to serve clients from this node.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the files of users or of the authority cannot
    /// be used.
    pub async fn start(config: ProxyConfig, node: Node) -> Result<Self> {
        let failed = |error| {
            let what = format!("cannot listen for clients on {}: {error}", config.listen);
            Error::new(Who::User, Kind::BadInput, what).hint("choose another --listen")
        };
        let users = Users::read(config.users.as_deref())?;
        let intercept = match &config.intercept {
            Some((hosts, authority)) => Some(Intercept::new(hosts, authority)?),
            None => None,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let connections = config.connections.min(room::most(node.memory().limit));
        if connections < config.connections {
            tracing::warn!(
                connections,
                asked = config.connections,
                "the memory budget has room for fewer connections than asked for; give more --memory"
            );
        }
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let tracker = TaskTracker::new();
        let context = Arc::new(Context {
            via: Via::new(&node.peer().to_string()),
            metrics: Metrics::new(&node),
            node,
            upstreams: Upstreams::new(config.mirror, config.upstreams),
            rules: Rules::new(&config.rules),
            intercept,
            users,
            guard: Guard::new(&config.allowed_hosts)?,
            stale: Stale::new(config.serve_stale),
            connect_timeout: config.connect_timeout,
            client_timeout: config.client_timeout,
            connections: Seats::new(connections, OPERATORS),
            tunnel_ports: config.tunnel_ports,
            stop: stop.clone(),
            kill: kill.clone(),
            tracker: tracker.clone(),
        });
        if context.users.is_open() && !addr.ip().to_canonical().is_loopback() {
            tracing::warn!(
                %addr,
                "whoever reaches this address can use the proxy; name users with --proxy-auth, or \
                 listen on 127.0.0.1"
            );
        }
        tracker.spawn(stop.clone().run_until_cancelled_owned(async move {
            accept(&listener, &context).await;
        }));
        Ok(Self {
            addr,
            stop,
            kill,
            tracker,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Accepts nobody any more, lets what is under way finish for as long as `drain`, and breaks
    /// off the rest.
    pub async fn stop(self, drain: Duration) {
        self.stop.cancel();
        self.tracker.close();
        if timeout(drain, self.tracker.wait()).await.is_err() {
            tracing::warn!(
                left = self.tracker.len(),
                "breaking off what did not finish in time"
            );
            self.kill.cancel();
            self.tracker.wait().await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        self.kill.cancel();
    }
}

async fn accept(listener: &TcpListener, context: &Arc<Context>) {
    let unsent = Unsent::new(context.node.memory().limit);
    loop {
        match listener.accept().await {
            Ok((stream, addr)) => {
                let admitted = room::admit(&context.node, &context.connections, addr.ip());
                let Some((seat, memory)) = admitted else {
                    tracing::debug!(client = %addr, "closed a connection: far too many");
                    continue;
                };
                prepare(&stream);
                unsent.limit(&stream, context.connections.open());
                let stream = Connection::new(stream);
                let client = Client {
                    addr,
                    secure: None,
                    abort: stream.abort(),
                    head: Head::default(),
                    interims: Interims::default(),
                    gate: Gate::default(),
                    seat,
                };
                let context = context.clone();
                let tracker = context.tracker.clone();
                tracker.spawn(async move {
                    let _counted = (context.metrics.connection(), memory);
                    serve(stream, client, &context).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn prepare(stream: &TcpStream) {
    // A connection works without either, or is gone already.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 4);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Answers the requests of one connection, until it ends or the proxy stops.
pub(crate) async fn serve<S>(stream: S, mut client: Client, context: &Arc<Context>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    client.interims = Interims::default();
    let stream = Heads::new(stream, client.interims.clone());
    client.head = stream.head();
    let stream = Outlet::new(stream, client.gate.clone(), context.clone());
    let client = &client;
    let service = service_fn(move |request| async move {
        Ok::<_, Infallible>(route::answer(context, client, request).await)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(BUFFER)
        // Chunks go from the cache to the socket as they are. (`pipeline_flush` would copy each
        // into one buffer first.)
        .writev(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = context.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                served = &mut connection => served,
                () = context.kill.cancelled() => return,
            }
        }
        () = client.seat.closing() => {
            connection.as_mut().graceful_shutdown();
            let leave = match client.seat.was_used() {
                true => LEAVE,
                false => Duration::ZERO,
            };
            tokio::select! {
                served = &mut connection => served,
                // It ends what it has begun meanwhile, but is not waited for without a request.
                () = sleep(leave), if client.seat.is_idle() => return,
                () = context.kill.cancelled() => return,
            }
        }
    };
    if let Err(error) = served {
        // The client went away or sent nonsense, or a body broke, which has been logged.
        tracing::debug!(client = %client.addr, %error, "a connection broke");
    }
}
