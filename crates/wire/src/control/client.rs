//! The peer's end: a connection that is always there, or being made.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper_util::rt::{TokioIo, TokioTimer};
use pantala_core::control::{FromPeer, Hello, ToPeer};
use parking_lot::Mutex;
use rand::Rng as _;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Streaming, body::Body, metadata::MetadataMap};
use tracing::{debug, error, info};

use super::{
    VERSION_HEADER,
    decode::Invalid,
    limits::{Bounded, MAX_FRAME},
    outgoing::Outgoing,
    proto::{self, supernode_client::SupernodeClient},
    transport::{
        CLIENT_PING_TIMEOUT, Connection, PING_INTERVAL, Tracked, WINDOW, one_line, status_line,
    },
};
use crate::version;

/// Messages to the supernode that wait for the connection to take them. One more ends the
/// session.
const QUEUE: usize = 4096;
/// Events that wait for the node. When they are so many nothing more is read from the socket.
const EVENTS: usize = 1024;
/// How long a supernode may take to accept a connection, and then to open the session.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long stopping may take to say what is still queued.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a peer's end needs to know.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `host:port` of each supernode, in the order of preference.
    pub supernodes: Vec<String>,
    /// What the peer says of itself. An unspecified IP address in it stands for the local one
    /// that reaches the supernode.
    pub hello: Hello,
    /// The pause after the list was tried in vain for the first time.
    pub backoff_min: Duration,
    /// What the pause doubles up to.
    pub backoff_max: Duration,
}

impl ClientConfig {
    /// The usual pauses: 100 ms, doubling up to 5 s.
    pub fn new(supernodes: Vec<String>, hello: Hello) -> Self {
        Self {
            supernodes,
            hello,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// What happened on the standing connection.
#[derive(Debug, Clone, PartialEq, Eq)]
// Most events are messages: a box each would cost an allocation each.
#[allow(clippy::large_enum_variant)]
pub enum ControlEvent {
    /// Something at the supernode's address accepted a connection. It has not said a word: it may be
    /// frozen, or a load balancer in front of a dead supernode. Told in attempts that come before
    /// the first [`ControlEvent::Up`] or [`ControlEvent::Down`].
    Dialled,
    /// The supernode has answered and opened a session; messages are taken. It knows nothing of
    /// this peer but its hello, and what was sent before the first outcome.
    Up {
        /// Where the supernode is told that this peer serves.
        advertised: SocketAddr,
    },
    /// There is none: once after each [`ControlEvent::Up`], and once when at the start the whole
    /// list was tried in vain. It is tried again until the client is stopped.
    Down {
        /// Why, in one line.
        reason: String,
    },
    /// The supernode says something.
    Message(ToPeer),
}

/// A handle on the standing connection.
#[derive(Debug, Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    line: Mutex<Line>,
    tasks: TaskTracker,
}

/// Where messages go.
#[derive(Debug)]
enum Line {
    /// Nothing has come of any attempt yet. Messages are kept for the first session, [`QUEUE`] of
    /// them at most, and go along with its hello: a round trip earlier than its answer.
    Early(Vec<FromPeer>),
    /// The supernode has answered.
    Up(Session),
    /// No supernode answers. Messages are not taken.
    Down,
}

#[derive(Debug)]
struct Session {
    queue: mpsc::Sender<FromPeer>,
    /// Cancelled when the queue overflows.
    overflow: CancellationToken,
}

impl Control {
    /// Starts to connect. What happens is told on the receiver, which the caller must keep
    /// reading: while it does not, nothing is read from the socket either. The connection is
    /// closed, after what is queued was sent, when `cancel` is cancelled, and when the receiver is
    /// dropped.
    pub fn start(
        config: ClientConfig,
        cancel: CancellationToken,
    ) -> (Control, mpsc::Receiver<ControlEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared {
            line: Mutex::new(Line::Early(Vec::new())),
            tasks: TaskTracker::new(),
        });
        let client = Client {
            config,
            cancel,
            events,
            shared: shared.clone(),
        };
        shared.tasks.spawn(client.run());
        shared.tasks.close();
        (Control { shared }, receiver)
    }

    /// Queues a message; it is on its way at once. Never blocks. `false` when it was not taken:
    /// no session stands, or the message is past the protocol's bounds (then it is logged), or
    /// 4096 messages wait already (then the session ends and a new one is begun, because a
    /// supernode that misses one message has a wrong idea of this peer).
    ///
    /// Before the first [`ControlEvent::Up`] or [`ControlEvent::Down`] messages are taken too: they
    /// go along with the hello of the first session, or are lost when no supernode answers.
    pub fn send(&self, message: FromPeer) -> bool {
        let mut line = self.shared.line.lock();
        if matches!(*line, Line::Down) {
            return false;
        }
        if let Err(invalid) = message.check() {
            error!(%invalid, "message to the supernode is too large and was dropped");
            return false;
        }
        let Session { queue, overflow } = match &mut *line {
            Line::Early(early) => {
                let room = early.len() < QUEUE;
                if room {
                    early.push(message);
                }
                return room;
            }
            Line::Up(session) => session,
            Line::Down => return false,
        };
        match queue.try_send(message) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                overflow.cancel();
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Whether a supernode has answered and its session stands.
    pub fn is_up(&self) -> bool {
        matches!(*self.shared.line.lock(), Line::Up(_))
    }

    /// Returns when nothing of the connection is left after it was stopped.
    pub async fn stopped(&self) {
        self.shared.tasks.wait().await;
    }
}

/// A session whose supernode has not answered yet.
struct Opening {
    session: Session,
    /// How many early messages go along with the hello.
    early: usize,
    advertised: SocketAddr,
}

/// How an attempt at a session ended.
enum End {
    /// On purpose.
    Stopped,
    /// The supernode never opened the session.
    Refused(String),
    /// It stood, and broke.
    Broke(String),
}

/// The node does not want to hear any more.
struct Deaf;

struct Client {
    config: ClientConfig,
    cancel: CancellationToken,
    events: mpsc::Sender<ControlEvent>,
    shared: Arc<Shared>,
}

impl Client {
    async fn run(self) {
        let supernodes = self.config.supernodes.clone();
        let mut pause = self.config.backoff_min;
        let mut at = 0;
        // Down was told, and no Up since then.
        let mut told = false;
        loop {
            let name = supernodes.get(at).map_or("", String::as_str);
            let (up, end) = self.attempt(name).await;
            let reason = match end {
                End::Stopped => return,
                End::Refused(reason) => {
                    at += 1;
                    reason
                }
                // From the top: where supernodes do not share what they know, peers must meet at
                // the same one. One that does not open sessions is passed by, see above.
                End::Broke(reason) => {
                    at = 0;
                    pause = self.config.backoff_min;
                    reason
                }
            };
            debug!(supernode = name, %reason, "no session");
            let exhausted = at >= supernodes.len();
            if up || (exhausted && !told) {
                info!(supernode = name, %reason, "supernode lost");
                told = true;
                *self.shared.line.lock() = Line::Down;
                if self.tell(ControlEvent::Down { reason }).await.is_err() {
                    return;
                }
            }
            if at == 0 || exhausted {
                at = 0;
                // A supernode that restarts is not met by all its peers at the same moment.
                let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
                pause = (pause * 2).min(self.config.backoff_max);
                if self
                    .cancel
                    .run_until_cancelled(sleep(jittered))
                    .await
                    .is_none()
                {
                    return;
                }
            }
        }
    }

    /// One attempt at one supernode: whether [`ControlEvent::Up`] was told, and how it ended.
    async fn attempt(&self, name: &str) -> (bool, End) {
        match self.cancel.run_until_cancelled(dial(name)).await {
            None => (false, End::Stopped),
            Some(Err(reason)) => (false, End::Refused(reason)),
            Some(Ok(stream)) => match self.session(name, stream).await {
                Ok(end) => (matches!(end, End::Broke(_)), end),
                Err(reason) => (false, End::Refused(reason)),
            },
        }
    }

    /// Leads a session until it ends; an error when it could not even be tried.
    async fn session(&self, name: &str, stream: TcpStream) -> Result<End, String> {
        let origin = format!("http://{name}")
            .parse()
            .map_err(|_| format!("{name} is not HOST:PORT"))?;
        let mut hello = self.config.hello.clone();
        hello
            .check()
            .map_err(|invalid| format!("this peer's labels: {invalid}"))?;
        let advertised = &mut hello.peer.addr;
        if advertised.ip().is_unspecified() {
            let local = stream.local_addr().map_err(|error| error.to_string())?;
            advertised.set_ip(local.ip().to_canonical());
        }
        let advertised = *advertised;
        let (sender, connection) =
            hyper::client::conn::http2::Builder::new(Tracked(self.shared.tasks.clone()))
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(CLIENT_PING_TIMEOUT)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .handshake::<_, Body>(TokioIo::new(stream))
                .await
                .map_err(|error| one_line(&error))?;

        let (queue, queued) = mpsc::channel(QUEUE);
        let overflow = CancellationToken::new();
        let session = Session {
            queue,
            overflow: overflow.clone(),
        };
        let client = SupernodeClient::with_origin(Connection(sender), origin)
            .max_decoding_message_size(MAX_FRAME);
        let first = proto::PeerFrame {
            hello: Some(hello.into()),
            messages: Vec::new(),
        };
        let outgoing = Outgoing::new(queued, Some(first));
        let early = self.early(&session);

        let mut opened = false;
        let end = {
            let opening = Opening {
                session,
                early,
                advertised,
            };
            let talk = self.talk(client, outgoing, opening, &mut opened);
            let lead = async {
                tokio::select! {
                    // The connection is driven here: also while the node is slow to take what
                    // was read, so that pings are answered.
                    ended = connection => Ok(match ended {
                        Ok(()) => "the supernode closed the connection".to_owned(),
                        Err(error) => one_line(&error),
                    }),
                    ended = talk => ended,
                    () = overflow.cancelled() => {
                        Ok(format!("{QUEUE} messages wait for the supernode"))
                    }
                }
            };
            let mut lead = pin!(lead);
            tokio::select! {
                ended = &mut lead => ended,
                () = self.cancel.cancelled() => {
                    // Without its sender the queue ends once it was sent, and the supernode then
                    // ends the session.
                    *self.shared.line.lock() = Line::Down;
                    let _ = timeout(FAREWELL, lead).await;
                    Err(Deaf)
                }
            }
        };
        if opened {
            *self.shared.line.lock() = Line::Down;
        }
        Ok(match end {
            Err(Deaf) => End::Stopped,
            Ok(reason) if opened => End::Broke(reason),
            Ok(reason) => End::Refused(reason),
        })
    }

    /// Puts what was sent before any outcome into a session that is being opened; gives how much
    /// that was. It stays where it is in case that nothing comes of this one either.
    fn early(&self, session: &Session) -> usize {
        let line = self.shared.line.lock();
        let Line::Early(early) = &*line else {
            return 0;
        };
        let put = |message: &FromPeer| session.queue.try_send(message.clone()).is_ok();
        early.iter().take_while(|message| put(message)).count()
    }

    /// Says hello and passes on what the supernode says, until it does not; returns why.
    async fn talk(
        &self,
        mut client: SupernodeClient<Connection>,
        outgoing: Outgoing<proto::PeerFrame>,
        opening: Opening,
        opened: &mut bool,
    ) -> Result<String, Deaf> {
        let Opening {
            session,
            early,
            advertised,
        } = opening;
        if matches!(*self.shared.line.lock(), Line::Early(_)) {
            self.tell(ControlEvent::Dialled).await?;
        }
        let mut incoming = match timeout(DIAL_TIMEOUT, client.session(outgoing)).await {
            Ok(Ok(response)) => match version_of(response.metadata()) {
                Ok(version) => {
                    debug!(version, "the supernode opened a session");
                    response.into_inner()
                }
                Err(reason) => return Ok(reason),
            },
            Ok(Err(status)) => return Ok(status_line(&status)),
            Err(_) => return Ok("the supernode does not answer".to_owned()),
        };
        if self.cancel.is_cancelled() {
            return Err(Deaf);
        }
        *opened = true;
        {
            let mut line = self.shared.line.lock();
            if let Line::Early(messages) = &mut *line {
                for message in messages.drain(..).skip(early) {
                    // The queue takes as many as are kept.
                    let _ = session.queue.try_send(message);
                }
            }
            *line = Line::Up(session);
        }
        self.tell(ControlEvent::Up { advertised }).await?;
        let Err(reason) = self.pass_on(&mut incoming).await?;
        Ok(reason)
    }

    async fn pass_on(
        &self,
        incoming: &mut Streaming<proto::SupernodeFrame>,
    ) -> Result<Result<Infallible, String>, Deaf> {
        loop {
            let frame = match incoming.message().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(Err("the supernode ended the session".to_owned())),
                Err(status) => return Ok(Err(status_line(&status))),
            };
            for message in frame.messages {
                match ToPeer::try_from(message) {
                    Ok(message) => self.tell(ControlEvent::Message(message)).await?,
                    Err(Invalid::UnknownKind) => {}
                    Err(invalid) => {
                        return Ok(Err(format!("the supernode broke the protocol: {invalid}")));
                    }
                }
            }
        }
    }

    /// Tells the node, however long it takes to listen.
    async fn tell(&self, event: ControlEvent) -> Result<(), Deaf> {
        match self.events.send(event).await {
            Ok(()) => Ok(()),
            // A node that stops may not listen any more, but what it queued is still to be sent.
            Err(_) if self.cancel.is_cancelled() => Ok(()),
            Err(_) => Err(Deaf),
        }
    }
}

/// A connection to any of the addresses behind `host:port`.
async fn dial(name: &str) -> Result<TcpStream, String> {
    let late = |_| format!("{name} does not answer");
    let mut reason = format!("{name} has no address");
    let addresses = timeout(DIAL_TIMEOUT, lookup_host(name))
        .await
        .map_err(late)?
        .map_err(|error| format!("{name} does not resolve: {error}"))?;
    for address in addresses {
        match timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without it a message could wait for the acknowledgement of the one before.
                stream
                    .set_nodelay(true)
                    .map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            Ok(Err(error)) => reason = format!("{address}: {error}"),
            Err(elapsed) => reason = late(elapsed),
        }
    }
    Err(reason)
}

/// The version that the supernode chose for the session; an error in words when this peer does not speak it.
fn version_of(metadata: &MetadataMap) -> Result<u16, String> {
    // A supernode that does not say speaks the first version.
    let Some(said) = metadata.get(VERSION_HEADER) else {
        return Ok(1);
    };
    let version = said.to_str().ok().and_then(|said| said.parse().ok());
    let spoken = version.filter(|&version| version::CONTROL.contains(version));
    spoken.ok_or_else(|| {
        let ours = version::CONTROL;
        format!("the supernode chose version {said:?} of the control protocol, and this peer speaks {ours}")
    })
}
