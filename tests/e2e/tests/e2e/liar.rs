//! A peer made by hand, that says it has brought everything: one that sends wrong bytes, and one that
//! is right about a content whose length nobody knew.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::BytesMut;
use pantala_core::{
    Class, ContentMeta, PeerId, PieceDigest, PieceIndex, ResourceKey, TaskId, Validators,
    control::{FromPeer, Hello, Learned, PeerAddr, Register, Serial, ToPeer},
};
use pantala_e2e::{Content, MIB, Origin, Peers, Script, Supernode};
use pantala_wire::{
    control::{ClientConfig, Control, ControlEvent},
    link::{FrameReader, ToChild, ToParent, data_header},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

#[test]
fn wrong_bytes_of_a_peer_reach_no_reader() {
    let content = Content::new(50, 12 * MIB);
    let origin = Origin::start(&content, Script::default());
    let supernode = Supernode::start();
    let liar = ByHand::start(&content, &origin.url(), supernode.addr(), Says::Wrong);

    let mut peers = Peers::new();
    peers.start(3, &origin.url(), &supernode);
    peers.assert_complete(0..3, &content);
    assert!(liar.pieces_sent() > 0, "nobody asked the liar");
    assert!(
        origin.sent() >= content.len(),
        "where else did it come from?"
    );
}

/// Who comes when the length of a large content is known cuts it as those who began without it.
#[test]
fn newcomers_ask_for_the_pieces_that_there_are() {
    let content = Content::new(51, 4 * MIB);
    let origin = Origin::start(&content, Script::default());
    let supernode = Supernode::start();
    // The beginning of a content of more than 1 GiB: pieces of such a length are of 2 MiB.
    let says = Says::EndedAfter((1 << 30) + 1);
    let holder = ByHand::start(&content, &origin.url(), supernode.addr(), says);

    let mut peers = Peers::new();
    let supernode = supernode.addr().to_string();
    let flags = ["--supernode", &supernode, "--range", "0-4194303"];
    peers.start_with(2, &origin.url(), &flags);
    peers.assert_complete(0..2, &content);
    assert!(holder.pieces_sent() >= 4);
    assert_eq!(
        origin.sent(),
        0,
        "an honest holder was not believed: {:?}",
        origin.asked()
    );
}

/// What the peer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// It sends one wrong bit in each piece.
    Wrong,
    /// It is right, and has found out where the content ends.
    EndedAfter(u64),
}

struct ByHand {
    sent: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl ByHand {
    /// Registers as somebody who has the whole content, with the right digests, and waits until
    /// the supernode takes it for that.
    fn start(content: &Content, url: &str, supernode: SocketAddr, says: Says) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let sent = Arc::new(AtomicUsize::new(0));
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let me = PeerAddr {
                id: PeerId::from_bytes([0x66; 16]),
                addr: listener.local_addr().unwrap(),
            };
            let task = register(content, url, supernode, me, says).await;
            let (content, sent) = (content.clone(), sent.clone());
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (content, sent) = (content.clone(), sent.clone());
                    tokio::spawn(serve(stream, me.id, task, content, sent, says));
                }
            });
        });
        Self {
            sent,
            _runtime: runtime,
        }
    }

    fn pieces_sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Says that it learned the content and brought all of it from the origin.
async fn register(
    content: &Content,
    url: &str,
    supernode: SocketAddr,
    me: PeerAddr,
    says: Says,
) -> TaskId {
    let hello = Hello {
        peer: me,
        labels: Vec::new(),
    };
    let config = ClientConfig::new(vec![supernode.to_string()], hello);
    let (control, mut events) = Control::start(config, CancellationToken::new());
    let key = ResourceKey::of_url(url, b"", Class::Anonymous);
    let meta = ContentMeta {
        length: (says == Says::Wrong).then_some(content.len()),
        validators: Validators {
            // The scripted origin's.
            etag: Some(format!("\"{}\"", &content.sha256()[..16])),
            last_modified: None,
        },
        ranges: true,
        ..ContentMeta::default()
    };
    let task = TaskId::of_content(&key, &meta.validators, meta.length, 0);
    let pieces: Vec<&[u8]> = content.bytes().chunks(MIB).collect();
    while let Some(event) = events.recv().await {
        match event {
            ControlEvent::Dialled => {}
            ControlEvent::Up { .. } => {
                let shown = url.to_owned();
                assert!(control.send(FromPeer::Register(Register {
                    key,
                    serial: Serial::new(1),
                    shown,
                    start: 0,
                    content: None,
                })));
            }
            ControlEvent::Message(ToPeer::Learn { serial, .. }) => {
                let meta = meta.clone();
                let learned = Learned::Content { task, meta };
                assert!(control.send(FromPeer::Learned {
                    key,
                    serial,
                    learned
                }));
                for (piece, bytes) in (0..).map(PieceIndex::new).zip(&pieces) {
                    let digest = PieceDigest::of(bytes);
                    assert!(control.send(FromPeer::Sealed {
                        task,
                        piece,
                        digest
                    }));
                }
                if let Says::EndedAfter(length) = says {
                    assert!(control.send(FromPeer::Ended { task, length }));
                }
                assert!(control.send(FromPeer::Have {
                    task,
                    gained: vec![(PieceIndex::new(0), pieces.len() as u32)],
                    lost: Vec::new(),
                    position: PieceIndex::new(pieces.len() as u32),
                    in_flight: 0,
                    reader_bound: false,
                }));
                // Whoever asks the supernode after this answer is told of this peer.
                assert!(control.send(FromPeer::Register(Register {
                    key,
                    serial: serial.next(),
                    shown: url.to_owned(),
                    start: 0,
                    content: None,
                })));
            }
            ControlEvent::Message(ToPeer::Known { known, .. }) if !known.digests.is_empty() => {
                assert_eq!(known.digests.len(), pieces.len());
                break;
            }
            ControlEvent::Down { reason } => panic!("no supernode: {reason}"),
            ControlEvent::Message(_) => {}
        }
    }
    // The session goes on as long as somebody listens.
    tokio::spawn(async move {
        let _control = control;
        while events.recv().await.is_some() {}
    });
    task
}

/// Serves one child: every piece, complete.
async fn serve(
    stream: TcpStream,
    me: PeerId,
    task: TaskId,
    content: Content,
    sent: Arc<AtomicUsize>,
    says: Says,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut reader = FrameReader::new(read);
    let mut out = BytesMut::new();
    ToChild::hello(me).encode(&mut out);
    loop {
        write.write_all(&out.split()).await?;
        let Ok(Some(message)) = reader.from_child().await else {
            return Ok(());
        };
        match message {
            ToParent::Follow { task: of } if of == task => {
                let count = content.bytes().chunks(MIB).len() as u32;
                let runs = vec![(PieceIndex::new(0), count)];
                ToChild::Holds { task, runs }.encode(&mut out);
            }
            ToParent::Want {
                request,
                piece,
                offset,
                ..
            } => {
                let all: Vec<&[u8]> = content.bytes().chunks(MIB).collect();
                let mut wrong = all[piece.get() as usize].to_vec();
                let last = wrong.len() - 1;
                wrong[last] ^= u8::from(says == Says::Wrong);
                for block in wrong[offset as usize..].chunks(64 << 10) {
                    out.extend_from_slice(&data_header(request, block.len()));
                    out.extend_from_slice(block);
                }
                let size = wrong.len() as u32;
                ToChild::Done { request, size }.encode(&mut out);
                sent.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}
