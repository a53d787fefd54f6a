//! A connection that carries the sessions of several peers: for programs that stand for many of them, such as a load
//! generator. A peer's own end is [`super::Control`]. Nothing here dials again, and nothing waits for company.

use std::net::SocketAddr;

use hyper_util::rt::{TokioIo, TokioTimer};
use pantala_core::control::{FromPeer, Hello, ToPeer};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Duration, timeout},
};
use tokio_util::task::TaskTracker;
use tonic::{Streaming, body::Body};

use super::{
    decode::Invalid,
    limits::{Bounded as _, MAX_FRAME},
    outgoing::Outgoing,
    proto::{self, supernode_client::SupernodeClient},
    transport::{Connection, PING_INTERVAL, Tracked, WINDOW, one_line, status_line},
};

/// The sessions that a supernode takes on one connection.
pub const SESSIONS_PER_CONNECTION: u32 = super::serve::STREAMS;

/// Messages of one session that wait for the connection to take them. The sender of one more waits.
const QUEUE: usize = 256;
/// How long a supernode may take to accept the connection, to open a session, and to answer a ping. A peer's own end
/// waits for a second or two and then looks elsewhere; here there is nowhere else, and whoever measures wants to see
/// how long it takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a supernode, for as long as it or one of its sessions is kept.
#[derive(Debug)]
pub struct Trunk {
    client: SupernodeClient<Connection>,
}

impl Trunk {
    /// Connects to a supernode.
    ///
    /// # Errors
    /// Why there is no connection, in one line.
    pub async fn connect(supernode: SocketAddr) -> Result<Self, String> {
        let stream = timeout(PATIENCE, TcpStream::connect(supernode))
            .await
            .map_err(|_| format!("{supernode} does not answer"))?
            .map_err(|error| format!("{supernode}: {error}"))?;
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        let (sender, connection) =
            hyper::client::conn::http2::Builder::new(Tracked(TaskTracker::new()))
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PATIENCE)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .handshake::<_, Body>(TokioIo::new(stream))
                .await
                .map_err(|error| one_line(&error))?;
        // It ends when nobody has the connection any more, or with the supernode; the sessions say why.
        tokio::spawn(async move { drop(connection.await) });
        let origin = format!("http://{supernode}")
            .parse()
            .map_err(|_| format!("{supernode} is not HOST:PORT"))?;
        let client = SupernodeClient::with_origin(Connection(sender), origin)
            .max_decoding_message_size(MAX_FRAME);
        Ok(Self { client })
    }

    /// Opens a session of a peer: what it says goes into the sender, which waits while the connection takes no more,
    /// and what it is told comes out of [`TrunkSession::receive`]. Dropping both ends the session. The
    /// peer's address goes as it is and must be one that others can connect to.
    ///
    /// # Errors
    /// Why there is no session, in one line.
    pub async fn open(
        &self,
        hello: Hello,
    ) -> Result<(mpsc::Sender<FromPeer>, TrunkSession), String> {
        hello.check().map_err(|invalid| invalid.to_string())?;
        let (queue, queued) = mpsc::channel(QUEUE);
        let first = proto::PeerFrame {
            hello: Some(hello.into()),
            messages: Vec::new(),
        };
        let mut client = self.client.clone();
        let opening = client.session(Outgoing::new(queued, Some(first)));
        let response = timeout(PATIENCE, opening)
            .await
            .map_err(|_| "the supernode does not answer".to_owned())?
            .map_err(|status| status_line(&status))?;
        let incoming = response.into_inner();
        Ok((queue, TrunkSession { incoming }))
    }
}

/// What the supernode says to one peer of a [`Trunk`].
#[derive(Debug)]
pub struct TrunkSession {
    incoming: Streaming<proto::SupernodeFrame>,
}

impl TrunkSession {
    /// The messages that came together, as soon as there are some. It must be called over and over: while it is not,
    /// the supernode cannot say more.
    ///
    /// # Errors
    /// Why the session is over, in one line.
    pub async fn receive(&mut self) -> Result<Vec<ToPeer>, String> {
        let frame = match self.incoming.message().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err("the supernode ended the session".to_owned()),
            Err(status) => return Err(status_line(&status)),
        };
        let known = |message| match ToPeer::try_from(message) {
            Ok(message) => Some(Ok(message)),
            Err(Invalid::UnknownKind) => None,
            Err(invalid) => Some(Err(format!("the supernode broke the protocol: {invalid}"))),
        };
        frame.messages.into_iter().filter_map(known).collect()
    }
}
