//! A supernode and peers that only talk, over real sockets.

use std::{future::Future, net::SocketAddr, time::Duration};

use pantala_core::{
    Class, ContentMeta, PeerId, PieceDigest, PieceIndex, ResourceKey, TaskId,
    control::{FromPeer, Hello, Known, Learned, PeerAddr, Register, RoundTrip, Serial, ToPeer},
};
use pantala_supernode::{Supernode, SupernodeConfig};
use pantala_swarm::Locality;
use pantala_wire::control::{ClientConfig, Control, ControlEvent};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what)
        .await
        .expect("did not happen")
}

async fn supernode(cancel: &CancellationToken) -> Supernode {
    supernode_with(Locality::Labels, cancel).await
}

async fn supernode_with(locality: Locality, cancel: &CancellationToken) -> Supernode {
    let config = SupernodeConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        swarm: pantala_swarm::Config {
            // A slow machine is not a lost lease.
            lease_timeout: Duration::from_secs(30),
            locality,
            ..Default::default()
        },
    };
    Supernode::start(config, cancel.clone()).await.unwrap()
}

struct Peer {
    control: Control,
    events: mpsc::Receiver<ControlEvent>,
    _stop: DropGuard,
}

impl Peer {
    async fn start(id: u8, supernode: SocketAddr) -> Self {
        let hello = Hello {
            peer: addr(id),
            labels: Vec::new(),
        };
        let cancel = CancellationToken::new();
        let config = ClientConfig::new(vec![supernode.to_string()], hello);
        let (control, events) = Control::start(config, cancel.clone());
        let mut peer = Self {
            control,
            events,
            _stop: cancel.drop_guard(),
        };
        assert!(matches!(peer.event().await, ControlEvent::Up { .. }));
        peer
    }

    async fn event(&mut self) -> ControlEvent {
        loop {
            match soon(self.events.recv()).await.expect("the client lives") {
                ControlEvent::Dialled => {}
                event => return event,
            }
        }
    }

    async fn message(&mut self) -> ToPeer {
        match self.event().await {
            ControlEvent::Message(message) => message,
            other => panic!("no message but {other:?}"),
        }
    }

    fn say(&self, message: FromPeer) {
        assert!(self.control.send(message));
    }

    /// Skips what else the supernode says.
    async fn known(&mut self) -> Known {
        loop {
            if let ToPeer::Known { known, .. } = self.message().await {
                return known;
            }
        }
    }
}

fn addr(id: u8) -> PeerAddr {
    PeerAddr {
        id: PeerId::from_bytes([id; 16]),
        addr: SocketAddr::from(([10, 0, 0, id], 65002)),
    }
}

fn key() -> ResourceKey {
    ResourceKey::of_url("http://origin.example/f", b"", Class::Anonymous)
}

fn task() -> TaskId {
    TaskId::from_bytes([2; 32])
}

fn register() -> FromPeer {
    FromPeer::Register(Register {
        key: key(),
        serial: Serial::new(1),
        shown: "http://origin.example/f".to_owned(),
        start: 0,
        content: None,
    })
}

fn learned(meta: &ContentMeta) -> FromPeer {
    FromPeer::Learned {
        key: key(),
        serial: Serial::new(1),
        learned: Learned::Content {
            task: task(),
            meta: meta.clone(),
        },
    }
}

async fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn the_second_peer_is_sent_to_the_first() {
    let cancel = CancellationToken::new();
    let supernode = supernode(&cancel).await;
    let place = supernode.local_addr();
    let meta = ContentMeta {
        length: Some(8 << 20),
        ranges: true,
        content_type: Some("application/octet-stream".to_owned()),
        ..Default::default()
    };

    let mut first = Peer::start(1, place).await;
    first.say(register());
    assert_eq!(
        first.message().await,
        ToPeer::Learn {
            key: key(),
            serial: Serial::new(1),
            stale: None
        }
    );

    // The second waits for what the first learns, and hears it without asking again.
    let mut second = Peer::start(2, place).await;
    second.say(register());
    first.say(learned(&meta));
    let known = second.known().await;
    // What is left of its freshness is counted from when the first learned it.
    let mut told = known.meta.clone();
    let left = told.fresh_for.take();
    told.age = std::time::Duration::ZERO;
    // The supernode says into which pieces it cuts the content.
    assert_eq!(told.piece_size.take(), Some(1 << 20));
    assert!(left.is_some_and(|left| left <= std::time::Duration::from_secs(10)));
    assert_eq!((known.task, &told), (task(), &meta));
    let parents = known.parents;
    let preferred = parents.preferred.iter().flatten();
    assert!(
        preferred
            .chain(&parents.others)
            .any(|parent| *parent == addr(1))
    );

    // Digests that the lease holder makes reach the others.
    let digest = PieceDigest::of(b"a piece");
    first.say(FromPeer::Sealed {
        task: task(),
        piece: PieceIndex::new(0),
        digest,
    });
    loop {
        if let ToPeer::Digests { digests, .. } = second.message().await {
            assert_eq!(digests, [(PieceIndex::new(0), digest)]);
            break;
        }
    }

    let figures = get(place, "/metrics").await;
    for line in [
        "application/openmetrics-text",
        "\npantala_supernode_peers 2\n",
        "\npantala_supernode_tasks 1\n",
        "\npantala_supernode_members 2\n",
        "\npantala_supernode_messages_received_total 4\n",
    ] {
        assert!(figures.contains(line), "{line} is not in\n{figures}");
    }

    cancel.cancel();
    soon(supernode.stopped()).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_comes_back_is_not_taken_for_gone() {
    let cancel = CancellationToken::new();
    let supernode = supernode(&cancel).await;
    let place = supernode.local_addr();
    let mut old = Peer::start(1, place).await;
    old.say(register());
    assert!(matches!(old.message().await, ToPeer::Learn { .. }));

    // The same peer again: the older session ends, and its end is not the new one's.
    let mut new = Peer::start(1, place).await;
    loop {
        if let ControlEvent::Down { .. } = old.event().await {
            break;
        }
    }
    drop(old);
    // The session that was replaced may come back once before its client is stopped, and replace
    // this one: then this one comes back, too.
    new.control.send(register());
    loop {
        match new.event().await {
            ControlEvent::Message(ToPeer::Learn { .. }) => break,
            ControlEvent::Up { .. } => {
                new.control.send(register());
            }
            ControlEvent::Dialled | ControlEvent::Down { .. } | ControlEvent::Message(_) => {}
        }
    }
    let figures = get(place, "/metrics").await;
    assert!(
        figures.contains("\npantala_supernode_peers 1\n"),
        "{figures}"
    );
    cancel.cancel();
    soon(supernode.stopped()).await.unwrap();
}

#[tokio::test]
async fn operators_get_answers() {
    let cancel = CancellationToken::new();
    let supernode = supernode(&cancel).await;
    let place = supernode.local_addr();
    let healthy = get(place, "/healthz").await;
    assert!(healthy.starts_with("HTTP/1.1 200"), "{healthy}");
    assert!(healthy.ends_with("ok\n"), "{healthy}");
    let lost = get(place, "/elsewhere").await;
    assert!(lost.starts_with("HTTP/1.1 404"), "{lost}");
    assert!(
        lost.ends_with("\r\n\r\nnot found: try /healthz or /metrics\n"),
        "{lost}"
    );
    cancel.cancel();
    soon(supernode.stopped()).await.unwrap();
}

#[tokio::test]
async fn a_restarted_supernode_takes_its_port_back() {
    let cancel = CancellationToken::new();
    let first = supernode(&cancel).await;
    let place = first.local_addr();
    let mut peer = Peer::start(1, place).await;
    cancel.cancel();
    soon(first.stopped()).await.unwrap();
    assert!(matches!(peer.event().await, ControlEvent::Down { .. }));

    let (listen, cancel) = (place, CancellationToken::new());
    let swarm = pantala_swarm::Config::default();
    let config = SupernodeConfig { listen, swarm };
    let again = Supernode::start(config, cancel.clone()).await.unwrap();
    assert!(matches!(peer.event().await, ControlEvent::Up { .. }));
    peer.say(register());
    assert!(matches!(peer.message().await, ToPeer::Learn { .. }));
    cancel.cancel();
    soon(again.stopped()).await.unwrap();
}

/// Two data centres, of odd and of even peers; who is asked measures and says so.
#[tokio::test]
async fn data_centres_are_found_from_what_peers_measure() {
    let cancel = CancellationToken::new();
    let supernode = supernode_with(Locality::Measured, &cancel).await;
    let place = supernode.local_addr();
    let _first = Peer::start(1, place).await;
    let mut others = Vec::new();
    for id in 2..=5 {
        let mut peer = Peer::start(id, place).await;
        let ToPeer::Measure { peers, .. } = peer.message().await else {
            panic!("{id} is not asked");
        };
        assert!(peers.iter().all(|of| of.id.as_bytes()[0] < id));
        let round_trip = |of: PeerAddr| {
            let near = (of.id.as_bytes()[0] ^ id) & 1 == 0;
            RoundTrip {
                peer: of.id,
                took: Some(Duration::from_micros(if near { 300 } else { 9000 })),
            }
        };
        let round_trips = peers.into_iter().map(round_trip).collect();
        peer.say(FromPeer::RoundTrips { round_trips });
        // What it says next is heard after that; nobody else has asked for it.
        let key = ResourceKey::from_bytes([id; 32]);
        peer.say(FromPeer::Register(Register {
            key,
            serial: Serial::new(1),
            shown: String::new(),
            start: 0,
            content: None,
        }));
        loop {
            match peer.message().await {
                ToPeer::Learn { key: asked, .. } if asked == key => break,
                _ => {}
            }
        }
        others.push(peer);
    }
    let figures = get(place, "/metrics").await;
    assert!(
        figures.contains("\npantala_supernode_sites 2\n"),
        "{figures}"
    );
    cancel.cancel();
    soon(supernode.stopped()).await.unwrap();
}
