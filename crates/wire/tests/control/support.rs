//! A supernode that only listens, and links that can be cut without a word.

use std::{future::Future, net::SocketAddr, time::Duration};

use pantala_core::{
    PeerId, TaskId,
    control::{FromPeer, Hello, PeerAddr, ToPeer},
};
use pantala_wire::control::{
    ClientConfig, Control, ControlEvent, Outbox, PATH, SessionEvent, serve, service,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Waits, but not for ever.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what)
        .await
        .expect("did not happen")
}

/// The server's end, its events in the hands of the test.
pub struct Server {
    pub addr: SocketAddr,
    pub events: mpsc::Receiver<SessionEvent>,
    pub cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    pub async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub fn on(listener: TcpListener) -> Self {
        let addr = listener.local_addr().unwrap();
        let (sender, events) = mpsc::channel(64);
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let app = axum::Router::new()
            .route("/healthz", axum::routing::get(|| async { "ok" }))
            .route_service(PATH, service(sender, tasks.clone()));
        tasks.spawn(serve(listener, app, cancel.clone()));
        tasks.close();
        Self {
            addr,
            events,
            cancel,
            tasks,
        }
    }

    /// Stops, and frees the port.
    pub async fn stop(self) {
        self.cancel.cancel();
        drop(self.events);
        soon(self.tasks.wait()).await;
    }

    pub async fn event(&mut self) -> SessionEvent {
        soon(self.events.recv()).await.expect("the service lives")
    }

    pub async fn connected(&mut self) -> (u64, Hello, Outbox) {
        match self.event().await {
            SessionEvent::Connected {
                session,
                hello,
                outbox,
            } => (session, hello, outbox),
            other => panic!("no peer but {other:?}"),
        }
    }

    pub async fn message(&mut self) -> FromPeer {
        match self.event().await {
            SessionEvent::Message { message, .. } => message,
            other => panic!("no message but {other:?}"),
        }
    }

    pub async fn gone(&mut self) -> u64 {
        match self.event().await {
            SessionEvent::Gone { session, .. } => session,
            other => panic!("not gone but {other:?}"),
        }
    }
}

/// A peer's end, its events in the hands of the test.
pub struct Peer {
    pub control: Control,
    pub events: mpsc::Receiver<ControlEvent>,
    pub cancel: CancellationToken,
    _stop: DropGuard,
}

impl Peer {
    pub fn start(supernodes: &[String]) -> Self {
        let mut config = ClientConfig::new(supernodes.to_vec(), hello(1));
        config.backoff_max = Duration::from_millis(200);
        let cancel = CancellationToken::new();
        let (control, events) = Control::start(config, cancel.clone());
        Self {
            control,
            events,
            _stop: cancel.clone().drop_guard(),
            cancel,
        }
    }

    pub fn at(addr: SocketAddr) -> Self {
        Self::start(&[addr.to_string()])
    }

    /// The next event, but those that only say that something accepted a connection.
    pub async fn event(&mut self) -> ControlEvent {
        loop {
            match soon(self.events.recv()).await.expect("the client lives") {
                ControlEvent::Dialled => {}
                event => return event,
            }
        }
    }

    pub async fn up(&mut self) -> SocketAddr {
        match self.event().await {
            ControlEvent::Up { advertised } => advertised,
            other => panic!("not up but {other:?}"),
        }
    }

    pub async fn down(&mut self) -> String {
        match self.event().await {
            ControlEvent::Down { reason } => reason,
            other => panic!("not down but {other:?}"),
        }
    }

    pub async fn message(&mut self) -> ToPeer {
        match self.event().await {
            ControlEvent::Message(message) => message,
            other => panic!("no message but {other:?}"),
        }
    }
}

/// A peer whose own address is for the client to find out.
pub fn hello(id: u8) -> Hello {
    Hello {
        peer: PeerAddr {
            id: PeerId::from_bytes([id; 16]),
            addr: "0.0.0.0:65002".parse().unwrap(),
        },
        labels: vec![("zone".to_owned(), "a".to_owned())],
    }
}

pub fn pulse(bytes: u64) -> FromPeer {
    FromPeer::Pulse {
        task: TaskId::from_bytes([9; 32]),
        bytes,
    }
}

pub fn ended(length: u64) -> ToPeer {
    ToPeer::Ended {
        task: TaskId::from_bytes([9; 32]),
        length,
    }
}

/// A link that carries bytes until it is cut; then both ends still have their connection, and
/// nothing comes through any more.
pub struct Link {
    pub addr: SocketAddr,
    pub cut: CancellationToken,
    _stop: DropGuard,
}

impl Link {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (cut, stop) = (CancellationToken::new(), CancellationToken::new());
        let (cutting, stopping) = (cut.clone(), stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(target).await.unwrap();
                let carry = carry(near, far, cutting.clone());
                tokio::spawn(stopping.clone().run_until_cancelled_owned(carry));
            }
        }));
        Self {
            addr,
            cut,
            _stop: stop.drop_guard(),
        }
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream, cut: CancellationToken) {
    let copy = tokio::io::copy_bidirectional(&mut near, &mut far);
    if cut.run_until_cancelled(copy).await.is_none() {
        // Held open, without a word, until the test is over.
        std::future::pending::<()>().await;
    }
}
