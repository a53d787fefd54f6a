//! Every message survives the wire, and nothing else does.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use pantala_core::{
    ContentMeta, Error, Generation, Kind, PeerId, PieceDigest, PieceIndex, ResourceKey, TaskId,
    Turn, Validators, Who,
    control::{
        Copies, FromPeer, Hello, Known, KnownResource, Learned, Parents, PeerAddr, PieceRun,
        Register, Resume, RoundTrip, Serial, ToPeer, Trouble,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use prost::Message as _;

use crate::control::{Invalid, MAX_MEASURED, MAX_PIECES, MAX_TEXT, limits::Bounded as _, proto};

fn key() -> impl Strategy<Value = ResourceKey> {
    any::<[u8; 32]>().prop_map(ResourceKey::from_bytes)
}

fn serial() -> impl Strategy<Value = Serial> {
    any::<u64>().prop_map(Serial::new)
}

fn task() -> impl Strategy<Value = TaskId> {
    any::<[u8; 32]>().prop_map(TaskId::from_bytes)
}

fn peer() -> impl Strategy<Value = PeerId> {
    any::<[u8; 16]>().prop_map(PeerId::from_bytes)
}

fn piece() -> impl Strategy<Value = PieceIndex> {
    prop_oneof![0u32..20, any::<u32>(), Just(u32::MAX)].prop_map(PieceIndex::new)
}

fn copies() -> impl Strategy<Value = Copies> {
    prop_oneof![
        Just(Copies::Several),
        Just(Copies::Sole),
        Just(Copies::Kept)
    ]
}

fn runs() -> impl Strategy<Value = Vec<PieceRun>> {
    let run = (any::<u32>(), any::<u32>()).prop_map(|(first, count)| {
        let first = first.min(u32::MAX - 1);
        (PieceIndex::new(first), count.clamp(1, u32::MAX - first))
    });
    vec(run, 0..5)
}

fn digest() -> impl Strategy<Value = PieceDigest> {
    any::<[u8; 32]>().prop_map(PieceDigest::from_bytes)
}

/// Neighbours, repetitions and the last piece there can be, in any order.
fn digests() -> impl Strategy<Value = Vec<(PieceIndex, PieceDigest)>> {
    let lone = vec((piece(), digest()), 0..8);
    let row = (any::<u32>(), vec(digest(), 0..8)).prop_map(|(first, digests)| {
        let first = first.min(u32::MAX - 7);
        let number = |(at, digest)| (PieceIndex::new(first + at), digest);
        (0..).zip(digests).map(number).collect::<Vec<_>>()
    });
    (lone, row).prop_map(|(lone, row)| [lone, row].concat())
}

fn texts() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((any::<String>(), any::<String>()), 0..4)
}

fn meta() -> impl Strategy<Value = ContentMeta> {
    let text = || option::of(any::<String>());
    let freshness = option::of((any::<u64>(), 0..1_000_000_000u32));
    let age = (any::<u64>(), 0..1_000_000_000u32);
    let generation = prop_oneof![
        Just(Generation::Validators),
        Just(Generation::Digest),
        Just(Generation::Transfer),
    ];
    let cut = (
        generation,
        option::of((20..=22u32).prop_map(|shift| 1 << shift)),
    );
    let rest = (texts(), freshness, age, any::<bool>(), any::<bool>(), cut);
    (
        option::of(any::<u64>()),
        [text(), text(), text(), text()],
        rest,
    )
        .prop_map(
            |(length, texts, (headers, fresh_for, age, ranges, private, cut))| {
                let [etag, last_modified, content_type, content_encoding] = texts;
                ContentMeta {
                    length,
                    validators: Validators {
                        etag,
                        last_modified,
                    },
                    ranges,
                    content_type,
                    content_encoding,
                    headers,
                    fresh_for: fresh_for.map(|(seconds, nanos)| Duration::new(seconds, nanos)),
                    age: Duration::new(age.0, age.1),
                    private,
                    generation: cut.0,
                    piece_size: cut.1,
                }
            },
        )
}

fn error() -> impl Strategy<Value = Error> {
    let who = [
        Who::Origin,
        Who::Peer,
        Who::Supernode,
        Who::Reader,
        Who::User,
        Who::Us,
    ];
    let kinds = [
        Kind::BadInput,
        Kind::Unreachable,
        Kind::Tls,
        Kind::Denied,
        Kind::NotFound,
        Kind::RangeNotSatisfiable,
        Kind::Protocol,
        Kind::Changed,
        Kind::DigestMismatch,
        Kind::Timeout,
        Kind::File,
        Kind::NoSpace,
        Kind::NoMemory,
        Kind::Unavailable,
        Kind::Cancelled,
        Kind::Internal,
    ];
    let kind = prop_oneof![select(kinds.to_vec()), any::<u16>().prop_map(Kind::Status)];
    let hint = option::of(any::<String>());
    (
        select(who.to_vec()),
        kind,
        any::<String>(),
        hint,
        any::<bool>(),
        option::of(0..=86_400_000u64),
    )
        .prop_map(|(who, kind, what, hint, retry, pause)| {
            let mut error = Error::new(who, kind, what).retryable(retry);
            if let Some(hint) = hint {
                error = error.hint(hint);
            }
            if let Some(millis) = pause {
                error = error.retry_after(Duration::from_millis(millis));
            }
            error
        })
}

fn peer_addr() -> impl Strategy<Value = PeerAddr> {
    let addr = (any::<std::net::IpAddr>(), any::<u16>()).prop_map(SocketAddr::from);
    (peer(), addr).prop_map(|(id, addr)| PeerAddr { id, addr })
}

fn parents() -> impl Strategy<Value = Parents> {
    (vec(option::of(peer_addr()), 0..4), vec(peer_addr(), 0..4))
        .prop_map(|(preferred, others)| Parents { preferred, others })
}

fn hello() -> impl Strategy<Value = Hello> {
    let peer = peer_addr().prop_filter("a place", |peer| !peer.addr.ip().is_unspecified());
    (peer, texts()).prop_map(|(peer, labels)| Hello { peer, labels })
}

fn learned() -> impl Strategy<Value = Learned> {
    prop_oneof![
        (task(), meta()).prop_map(|(task, meta)| Learned::Content { task, meta }),
        (task(), meta()).prop_map(|(task, meta)| Learned::Unchanged { task, meta }),
        Just(Learned::Unshareable),
        error().prop_map(|error| Learned::Failed { error }),
    ]
}

fn span() -> impl Strategy<Value = (TaskId, PieceIndex, Option<PieceIndex>)> {
    (task(), piece(), option::of(piece()))
        .prop_map(|(task, first, end)| (task, first, end.map(|end| end.max(first))))
}

fn round_trip() -> impl Strategy<Value = RoundTrip> {
    let took = option::of(any::<u32>().prop_map(micros));
    (peer(), took).prop_map(|(peer, took)| RoundTrip { peer, took })
}

fn micros(micros: u32) -> Duration {
    Duration::from_micros(micros.into())
}

fn from_peer() -> impl Strategy<Value = FromPeer> {
    let register = (
        (key(), serial()),
        any::<String>(),
        any::<u64>(),
        option::of(task()),
    );
    let resources = vec((key(), meta()), 0..3);
    let resume = (
        (key(), task(), meta(), resources),
        (
            runs(),
            digests(),
            piece(),
            any::<String>(),
            vec(span().prop_map(|(_, first, end)| (first, end)), 0..4),
        ),
    );
    let have = (task(), runs(), runs(), piece(), any::<u64>(), any::<bool>());
    let corrupt = Trouble::Corrupt {
        piece: PieceIndex::new(7),
    };
    let trouble = select(vec![
        Trouble::Slow,
        Trouble::Gone,
        Trouble::Unreachable,
        corrupt,
    ]);
    prop_oneof![
        register.prop_map(
            |((key, serial), shown, start, content)| FromPeer::Register(Register {
                key,
                serial,
                shown,
                start,
                content
            })
        ),
        resume.prop_map(
            |((key, task, meta, resources), (held, digests, position, shown, leases))| {
                FromPeer::Resume(Resume {
                    key,
                    task,
                    meta,
                    resources: resources
                        .into_iter()
                        .map(|(key, meta)| KnownResource { key, meta })
                        .collect(),
                    held,
                    digests,
                    position,
                    leases,
                    shown,
                })
            }
        ),
        (key(), serial(), learned()).prop_map(|(key, serial, learned)| FromPeer::Learned {
            key,
            serial,
            learned
        }),
        have.prop_map(
            |(task, gained, lost, position, in_flight, reader_bound)| FromPeer::Have {
                task,
                gained,
                lost,
                position,
                in_flight,
                reader_bound
            }
        ),
        (task(), piece(), digest()).prop_map(|(task, piece, digest)| FromPeer::Sealed {
            task,
            piece,
            digest
        }),
        (task(), any::<u64>()).prop_map(|(task, length)| FromPeer::Ended { task, length }),
        (task(), piece(), any::<bool>()).prop_map(|(task, piece, late)| FromPeer::AskLease {
            task,
            piece,
            late
        }),
        span().prop_map(|(task, first, end)| FromPeer::ReturnLease { task, first, end }),
        span().prop_map(|(task, first, end)| FromPeer::OfferLease { task, first, end }),
        (span(), error()).prop_map(|((task, first, end), error)| FromPeer::OriginFailed {
            task,
            first,
            end,
            error
        }),
        (task(), any::<u64>()).prop_map(|(task, bytes)| FromPeer::Pulse { task, bytes }),
        (task(), peer(), trouble).prop_map(|(task, peer, trouble)| FromPeer::Trouble {
            task,
            peer,
            trouble
        }),
        task().prop_map(|task| FromPeer::Poison { task }),
        task().prop_map(|task| FromPeer::Leave { task }),
        key().prop_map(|key| FromPeer::Changed { key }),
        vec(round_trip(), 0..=MAX_MEASURED)
            .prop_map(|round_trips| FromPeer::RoundTrips { round_trips }),
    ]
}

fn to_peer() -> impl Strategy<Value = ToPeer> {
    let known = (task(), meta(), digests(), parents());
    prop_oneof![
        (key(), serial(), known).prop_map(|(key, serial, (task, meta, digests, parents))| {
            ToPeer::Known {
                key,
                serial,
                known: Known {
                    task,
                    meta,
                    digests,
                    parents,
                },
            }
        }),
        (key(), serial(), option::of((task(), meta())))
            .prop_map(|(key, serial, stale)| ToPeer::Learn { key, serial, stale }),
        (key(), serial()).prop_map(|(key, serial)| ToPeer::Direct { key, serial }),
        (key(), serial(), error()).prop_map(|(key, serial, error)| ToPeer::Refused {
            key,
            serial,
            error
        }),
        (task(), error()).prop_map(|(task, error)| ToPeer::OriginFailed { task, error }),
        (task(), parents()).prop_map(|(task, parents)| ToPeer::Parents { task, parents }),
        (task(), digests()).prop_map(|(task, digests)| ToPeer::Digests { task, digests }),
        span().prop_map(|(task, first, end)| ToPeer::Lease { task, first, end }),
        span().prop_map(|(task, first, end)| ToPeer::LeaseEnded { task, first, end }),
        (task(), any::<u64>()).prop_map(|(task, length)| ToPeer::Ended { task, length }),
        task().prop_map(|task| ToPeer::Poisoned { task }),
        task().prop_map(|task| ToPeer::Unknown { task }),
        key().prop_map(|key| ToPeer::Changed { key }),
        task().prop_map(|task| ToPeer::Unlisted { task }),
        (task(), piece()).prop_map(|(task, piece)| ToPeer::Unobtainable { task, piece }),
        (task(), any::<u32>(), any::<u32>()).prop_map(|(task, at, of)| ToPeer::Turn {
            task,
            turn: Turn::new(at, of)
        }),
        (task(), runs(), copies()).prop_map(|(task, pieces, copies)| ToPeer::Copies {
            task,
            pieces,
            copies
        }),
        (vec(peer_addr(), 0..=MAX_MEASURED), any::<u32>()).prop_map(|(peers, enough)| {
            ToPeer::Measure {
                peers,
                enough: micros(enough),
            }
        }),
    ]
}

proptest! {
    #[test]
    fn a_hello_survives(hello in hello()) {
        let bytes = proto::Hello::from(hello.clone()).encode_to_vec();
        let arrived = proto::Hello::decode(&bytes[..]).unwrap();
        prop_assert_eq!(Hello::try_from(arrived), Ok(hello));
    }

    #[test]
    fn what_a_peer_says_survives(message in from_peer()) {
        prop_assert_eq!(message.check(), Ok(()));
        let bytes = proto::FromPeer::from(message.clone()).encode_to_vec();
        let arrived = proto::FromPeer::decode(&bytes[..]).unwrap();
        prop_assert_eq!(FromPeer::try_from(arrived), Ok(message));
    }

    #[test]
    fn what_a_supernode_says_survives(message in to_peer()) {
        prop_assert_eq!(message.check(), Ok(()));
        let bytes = proto::ToPeer::from(message.clone()).encode_to_vec();
        let arrived = proto::ToPeer::decode(&bytes[..]).unwrap();
        prop_assert_eq!(ToPeer::try_from(arrived), Ok(message));
    }

    /// Damaged bytes are refused or mean something else; they never panic.
    #[test]
    fn damage_is_no_panic(
        message in from_peer(),
        reply in to_peer(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = proto::FromPeer::from(message).encode_to_vec();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        if let Ok(arrived) = proto::FromPeer::decode(&bytes[..]) {
            let _ = FromPeer::try_from(arrived);
        }
        let mut bytes = proto::ToPeer::from(reply).encode_to_vec();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        if let Ok(arrived) = proto::ToPeer::decode(&bytes[..]) {
            let _ = ToPeer::try_from(arrived);
        }
    }
}

fn have(first: u32, count: u32, runs: usize) -> Result<FromPeer, Invalid> {
    let have = proto::Have {
        task: Bytes::from_static(&[0; 32]),
        gained: vec![proto::PieceRun { first, count }; runs],
        ..Default::default()
    };
    proto::FromPeer {
        kind: Some(proto::from_peer::Kind::Have(have)),
    }
    .try_into()
}

#[test]
fn runs_are_pieces_that_can_be() {
    assert!(have(0, 1, 1).is_ok());
    assert!(have(u32::MAX - 1, 1, 1).is_ok());
    let run = |first, count| Err(Invalid::Run { first, count });
    assert_eq!(have(5, 0, 1), run(5, 0));
    assert_eq!(have(u32::MAX, 1, 1), run(u32::MAX, 1));
    assert_eq!(have(2, u32::MAX, 1), run(2, u32::MAX));
}

#[test]
fn lists_have_a_bound() {
    assert!(have(0, 1, MAX_PIECES).is_ok());
    assert!(matches!(
        have(0, 1, MAX_PIECES + 1),
        Err(Invalid::TooMany { .. })
    ));
    let register = |len| {
        FromPeer::Register(Register {
            key: ResourceKey::from_bytes([0; 32]),
            serial: Serial::new(1),
            shown: "x".repeat(len),
            start: 0,
            content: None,
        })
    };
    for (len, fits) in [(MAX_TEXT, true), (MAX_TEXT + 1, false)] {
        assert_eq!(register(len).check().is_ok(), fits);
        let arrived = FromPeer::try_from(proto::FromPeer::from(register(len)));
        assert_eq!(arrived.is_ok(), fits);
    }
}

#[test]
fn only_a_few_are_measured_at_once() {
    let measure = |count| {
        let peer = proto::PeerAddr {
            id: Bytes::from_static(&[1; 16]),
            addr: Some(proto::SocketAddress {
                ip: Bytes::from_static(&[10, 0, 0, 1]),
                port: 65002,
            }),
        };
        ToPeer::try_from(proto::ToPeer {
            kind: Some(proto::to_peer::Kind::Measure(proto::Measure {
                peers: vec![peer; count],
                enough_micros: 2000,
            })),
        })
    };
    let round_trips = |count| {
        let round_trip = proto::RoundTrip {
            peer: Bytes::from_static(&[1; 16]),
            micros: None,
        };
        FromPeer::try_from(proto::FromPeer {
            kind: Some(proto::from_peer::Kind::RoundTrips(proto::RoundTrips {
                round_trips: vec![round_trip; count],
            })),
        })
    };
    assert!(measure(MAX_MEASURED).is_ok() && round_trips(MAX_MEASURED).is_ok());
    let many = MAX_MEASURED + 1;
    assert!(matches!(measure(many), Err(Invalid::TooMany { .. })));
    assert!(matches!(round_trips(many), Err(Invalid::TooMany { .. })));
}

fn vouched(runs: Vec<(u32, u32)>, bytes: usize) -> Result<ToPeer, Invalid> {
    let run = |(first, count)| proto::PieceRun { first, count };
    let digests = proto::DigestsOf {
        task: Bytes::from_static(&[0; 32]),
        digests: Some(proto::PieceDigests {
            runs: runs.into_iter().map(run).collect(),
            digests: vec![7; bytes].into(),
        }),
    };
    proto::ToPeer {
        kind: Some(proto::to_peer::Kind::Digests(digests)),
    }
    .try_into()
}

#[test]
fn every_digest_has_its_piece() {
    assert!(vouched(vec![(0, 2), (9, 1)], 96).is_ok());
    assert!(vouched(vec![(u32::MAX, 1)], 32).is_ok());
    // One too few, one too many, half of one, a claim of four thousand million.
    for (runs, bytes) in [
        (vec![(0, 2)], 32),
        (vec![(0, 1)], 64),
        (vec![(0, 1)], 48),
        (vec![(0, u32::MAX), (0, u32::MAX)], 0),
        (vec![(0, 0)], 0),
        (vec![(u32::MAX, 2)], 64),
    ] {
        assert!(vouched(runs.clone(), bytes).is_err(), "{runs:?}");
    }
}

#[test]
fn what_means_nothing_is_refused() {
    assert_eq!(
        FromPeer::try_from(proto::FromPeer { kind: None }),
        Err(Invalid::UnknownKind)
    );
    // A kind of a later version: prost drops what it does not know.
    let later = proto::ToPeer::decode(&[0xfa, 0x01, 0x00][..]).unwrap();
    assert_eq!(ToPeer::try_from(later), Err(Invalid::UnknownKind));
    let leave = |bytes: &'static [u8]| {
        let task = Bytes::from_static(bytes);
        FromPeer::try_from(proto::FromPeer {
            kind: Some(proto::from_peer::Kind::Leave(proto::TaskOnly { task })),
        })
    };
    assert!(leave(&[1; 32]).is_ok());
    for bad in [&[1; 31][..], &[1; 33], &[]] {
        assert_eq!(
            leave(bad),
            Err(Invalid::Size {
                what: "a task",
                len: bad.len()
            })
        );
    }
}

#[test]
fn a_hello_says_where_the_peer_is() {
    let hello = |ip: &'static [u8], port| {
        Hello::try_from(proto::Hello {
            peer: Some(proto::PeerAddr {
                id: Bytes::from_static(&[1; 16]),
                addr: Some(proto::SocketAddress {
                    ip: Bytes::from_static(ip),
                    port,
                }),
            }),
            ..proto::Hello::default()
        })
    };
    assert!(hello(&[10, 0, 0, 1], 65002).is_ok());
    assert!(hello(&[0, 0, 0, 0], 65002).is_err());
    assert!(hello(&[0; 16], 65002).is_err());
    assert!(hello(&[10, 0, 0], 65002).is_err());
    assert!(hello(&[10, 0, 0, 1], 65536).is_err());
    assert!(Hello::try_from(proto::Hello::default()).is_err());
}
