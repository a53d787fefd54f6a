//! The control plane: decides who pulls from whom. Holds no content.
//!
//! Participants: peers keep a standing connection each ([`pantala_wire::control`]); one task owns
//! the brain ([`pantala_swarm::Swarm`]), feeds it what the peers say and delivers what it decides;
//! operators ask `/healthz` and `/metrics` on the same port.
//!
//! Goals: one peer's slowness or nonsense costs that peer its session and nobody else anything;
//! nothing is kept on disk, so a restarted supernode learns all from its peers.
//!
//! Non-goals: policy, which is the brain's; content, which never comes here.

mod driver;
mod http;
mod metrics;

use std::{io, net::SocketAddr};

use pantala_core::{Error, Kind, Result, Who};
use pantala_wire::control;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{driver::Driver, metrics::Metrics};

/// Events of all sessions that wait for the brain. When they are so many nothing more is read
/// from the peers.
const EVENTS: usize = 8192;
/// Connections that wait to be accepted: all peers of a restarted supernode come at once. The
/// kernel may allow fewer.
const BACKLOG: u32 = 4096;

/// What a supernode needs to know.
#[derive(Debug, Clone)]
pub struct SupernodeConfig {
    /// Where peers connect, and where `/healthz` and `/metrics` answer. Port 0 takes any.
    pub listen: SocketAddr,
    /// The brain's settings.
    pub swarm: pantala_swarm::Config,
}

/// A running supernode.
#[derive(Debug)]
pub struct Supernode {
    addr: SocketAddr,
    driver: JoinHandle<()>,
    server: JoinHandle<()>,
    sessions: TaskTracker,
}

impl Supernode {
    /// Starts to serve. It goes on until `cancel` is cancelled; then peers are told that their
    /// session is over, and HTTP requests under way get 2 s to end.
    ///
    /// # Errors
    /// When the address cannot be listened on, with what to do about it.
    pub async fn start(config: SupernodeConfig, cancel: CancellationToken) -> Result<Supernode> {
        let failed = |error| cannot_listen(config.listen, &error);
        let listener = listen(config.listen).map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;

        let (events_in, events) = mpsc::channel(EVENTS);
        let (asks_in, asks) = mpsc::channel(1);
        let (sessions, metrics) = (TaskTracker::new(), Metrics::new());
        let service = control::service(events_in, sessions.clone());
        let driver = Driver::new(config.swarm, metrics.messages());
        let app = http::router(metrics, asks_in).route_service(control::PATH, service);

        // Should the brain's task fail, nothing is left to serve.
        let stop = cancel.child_token();
        let stopped = stop.clone().drop_guard();
        let server = tokio::spawn(control::serve(listener, app, stop.clone()));
        let driver = tokio::spawn(async move {
            let _stopped = stopped;
            driver.run(events, asks, stop).await;
        });
        Ok(Supernode {
            addr,
            driver,
            server,
            sessions,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns when nothing of it is left after it was stopped.
    ///
    /// # Errors
    /// When it was not stopped but failed; a defect of ours.
    pub async fn stopped(self) -> Result<()> {
        let (driver, server) = tokio::join!(self.driver, self.server);
        self.sessions.close();
        self.sessions.wait().await;
        driver
            .and(server)
            .map_err(|error| Error::new(Who::Us, Kind::Internal, format!("supernode: {error}")))
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restarted supernode takes its port back although old connections are still fading.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

fn cannot_listen(addr: SocketAddr, error: &io::Error) -> Error {
    let (why, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            "the address is in use".to_owned(),
            "stop the program that has it, or listen on another port",
        ),
        io::ErrorKind::PermissionDenied => (
            "permission denied".to_owned(),
            "listen on a port from 1024 up, or run it with the right to lower ones",
        ),
        io::ErrorKind::AddrNotAvailable => (
            "this host does not have the address".to_owned(),
            "listen on one that it has, or on 0.0.0.0 for all",
        ),
        _ => (error.to_string(), "listen on another address"),
    };
    let what = format!("cannot listen on {addr}: {why}");
    Error::new(Who::Us, Kind::Unreachable, what).hint(hint)
}
