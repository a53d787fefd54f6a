//! The supernode's end: each peer's session as events.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt as _, Stream};
use pantala_core::{
    PeerId,
    control::{FromPeer, Hello, ToPeer},
};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, error};

use super::{
    VERSION_HEADER,
    decode::{Invalid, versions},
    limits::{Bounded, MAX_FRAME},
    outgoing::Outgoing,
    proto::{
        self,
        supernode_server::{Supernode, SupernodeServer},
    },
};
use crate::version;

/// Messages to one peer that wait for its connection to take them.
const OUTBOX: usize = 16384;
/// How long a peer may take from opening a session to its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the service is, as a route of an HTTP server.
pub const PATH: &str = "/pantala.v1.Supernode/{*method}";

/// The service: `axum::Router::route_service(PATH, service(…))`.
pub type Service = SupernodeServer<Sessions>;

/// What happens in the sessions of all peers. Events of one session come in order.
#[derive(Debug)]
// Most events are messages: a box each would cost an allocation each.
#[allow(clippy::large_enum_variant)]
pub enum SessionEvent {
    /// A peer is there.
    Connected {
        /// Names the session, never twice.
        session: u64,
        /// What the peer says of itself.
        hello: Hello,
        /// What is for this peer goes in here.
        outbox: Outbox,
    },
    /// A peer says something.
    Message {
        /// In which session.
        session: u64,
        /// Who.
        peer: PeerId,
        /// What.
        message: FromPeer,
    },
    /// A session is over, whatever ended it: exactly once, and the last that is told of it.
    Gone {
        /// Which session.
        session: u64,
        /// Whose it was.
        peer: PeerId,
    },
}

/// The way to one peer, in one session. Dropping it lets the session end once all was sent.
#[derive(Debug)]
pub struct Outbox {
    queue: mpsc::Sender<ToPeer>,
    ending: Arc<Ending>,
}

impl Outbox {
    /// Queues a message; it is on its way at once. Never blocks. `false` when it was not taken:
    /// the session is over, 16384 messages wait already, or the message is past the protocol's
    /// bounds. The peer would miss it, so the session must be dropped.
    pub fn send(&self, message: ToPeer) -> bool {
        if let Err(invalid) = message.check() {
            error!(%invalid, "message to a peer is too large");
            return false;
        }
        !self.ending.token.is_cancelled() && self.queue.try_send(message).is_ok()
    }

    /// Ends the session now; what is queued is lost.
    pub fn close(&self) {
        self.ending.end(None);
    }
}

/// The end of a session, wherever it comes from.
#[derive(Debug, Default)]
struct Ending {
    token: CancellationToken,
    /// What the peer is told, when it did something wrong.
    status: Mutex<Option<Status>>,
}

impl Ending {
    fn end(&self, status: Option<Status>) {
        if !self.token.is_cancelled() {
            *self.status.lock() = status;
        }
        self.token.cancel();
    }
}

/// The service behind the protocol; its sessions' events go to whoever owns the brain.
#[derive(Debug)]
pub struct Sessions {
    events: mpsc::Sender<SessionEvent>,
    tasks: TaskTracker,
    next: AtomicU64,
}

/// The service for an HTTP/2 server, see [`super::serve`](fn@super::serve). While nobody takes `events` nothing is
/// read from the peers. Each session has one task in `tasks`; the sessions end when the receiver
/// of `events` is dropped.
pub fn service(events: mpsc::Sender<SessionEvent>, tasks: TaskTracker) -> Service {
    let next = AtomicU64::new(0);
    SupernodeServer::new(Sessions {
        events,
        tasks,
        next,
    })
    .max_decoding_message_size(MAX_FRAME)
}

#[tonic::async_trait]
impl Supernode for Sessions {
    type SessionStream = Replies;

    async fn session(
        &self,
        request: Request<Streaming<proto::PeerFrame>>,
    ) -> Result<Response<Replies>, Status> {
        let mut incoming = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came"))??
            .ok_or_else(|| broken(&Invalid::Hello))?;
        let hello = first.hello.ok_or_else(|| broken(&Invalid::Hello))?;
        let version = common_version(&hello)?;
        let hello = Hello::try_from(hello).map_err(|invalid| broken(&invalid))?;

        let (queue, queued) = mpsc::channel(OUTBOX);
        let ending = Arc::new(Ending::default());
        let session = Session {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            peer: hello.peer.id,
            events: self.events.clone(),
            ending: ending.clone(),
        };
        let outbox = Outbox {
            queue,
            ending: ending.clone(),
        };
        // No await from here on: who was announced is in the hands of a task of its own.
        self.tasks
            .spawn(session.run(hello, outbox, first.messages, incoming));
        let mut response = Response::new(Replies {
            frames: Outgoing::new(queued, None),
            ended: Box::pin(ending.token.clone().cancelled_owned()),
            ending,
            over: false,
        });
        let metadata = response.metadata_mut();
        metadata.insert(VERSION_HEADER, version.into());
        Ok(response)
    }
}

struct Session {
    id: u64,
    peer: PeerId,
    events: mpsc::Sender<SessionEvent>,
    ending: Arc<Ending>,
}

impl Session {
    async fn run(
        self,
        hello: Hello,
        outbox: Outbox,
        first: Vec<proto::FromPeer>,
        incoming: Streaming<proto::PeerFrame>,
    ) {
        let connected = SessionEvent::Connected {
            session: self.id,
            hello,
            outbox,
        };
        if self.events.send(connected).await.is_err() {
            self.ending
                .end(Some(Status::unavailable("the supernode stops")));
            return;
        }
        // Whatever happens in there, the peer's end is told.
        let listening = AssertUnwindSafe(self.listen(first, incoming)).catch_unwind();
        let status = match self.ending.token.run_until_cancelled(listening).await {
            None | Some(Ok(Ok(()))) => None,
            Some(Ok(Err(status))) => Some(status),
            Some(Err(_panic)) => Some(Status::internal("the session failed")),
        };
        debug!(session = self.id, peer = ?self.peer, ?status, "session over");
        self.ending.end(status);
        let gone = SessionEvent::Gone {
            session: self.id,
            peer: self.peer,
        };
        // Nobody left to tell: the supernode stops.
        let _ = self.events.send(gone).await;
    }

    /// Passes on what the peer says until it ends its side.
    async fn listen(
        &self,
        first: Vec<proto::FromPeer>,
        mut incoming: Streaming<proto::PeerFrame>,
    ) -> Result<(), Status> {
        self.pass_on(first).await?;
        while let Some(frame) = incoming.message().await? {
            if frame.hello.is_some() {
                return Err(broken(&Invalid::Hello));
            }
            self.pass_on(frame.messages).await?;
        }
        Ok(())
    }

    async fn pass_on(&self, messages: Vec<proto::FromPeer>) -> Result<(), Status> {
        for message in messages {
            let message = match FromPeer::try_from(message) {
                Ok(message) => message,
                Err(Invalid::UnknownKind) => continue,
                Err(invalid) => return Err(broken(&invalid)),
            };
            let event = SessionEvent::Message {
                session: self.id,
                peer: self.peer,
                message,
            };
            self.events
                .send(event)
                .await
                .map_err(|_| Status::unavailable("the supernode stops"))?;
        }
        Ok(())
    }
}

/// The version that the session is led in; a status that says both sides' versions when there is none.
fn common_version(hello: &proto::Hello) -> Result<u16, Status> {
    let theirs = versions(hello).map_err(|invalid| broken(&invalid))?;
    let ours = version::CONTROL;
    ours.common(theirs).ok_or_else(|| {
        Status::failed_precondition(format!(
            "the peer speaks {theirs} of the control protocol, and this supernode {ours}: update the older one"
        ))
    })
}

fn broken(invalid: &Invalid) -> Status {
    Status::invalid_argument(format!("the peer broke the protocol: {invalid}"))
}

/// What goes to the peer. Dropped with its connection, it ends the session.
pub struct Replies {
    frames: Outgoing<proto::SupernodeFrame>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    ending: Arc<Ending>,
    over: bool,
}

impl Stream for Replies {
    type Item = Result<proto::SupernodeFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        if this.ended.as_mut().poll(cx).is_ready() {
            this.over = true;
            return Poll::Ready(this.ending.status.lock().take().map(Err));
        }
        Pin::new(&mut this.frames)
            .poll_next(cx)
            .map(|frame| frame.map(Ok))
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.ending.end(None);
    }
}
