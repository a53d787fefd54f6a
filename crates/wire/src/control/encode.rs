//! Values to the wire. Nothing can go wrong here but size, which [`super::limits`] looks after.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use pantala_core::{
    ContentMeta, Error, Generation, Kind, PeerId, PieceDigest, PieceIndex, ResourceKey, TaskId,
    Who,
    control::{
        Copies, FromPeer, Hello, Known, KnownResource, Learned, Parents, PeerAddr, PieceRun,
        PieceSpan, Register, Resume, RoundTrip, ToPeer, Trouble,
    },
};

use super::proto;
use crate::version;

impl From<Hello> for proto::Hello {
    fn from(hello: Hello) -> Self {
        let label = |(name, value)| proto::Label { name, value };
        Self {
            peer: Some(peer_addr(&hello.peer)),
            labels: hello.labels.into_iter().map(label).collect(),
            least_version: Some(version::CONTROL.least().into()),
            greatest_version: Some(version::CONTROL.greatest().into()),
        }
    }
}

impl From<FromPeer> for proto::FromPeer {
    fn from(message: FromPeer) -> Self {
        use proto::from_peer::Kind;
        let kind = match message {
            FromPeer::Register(Register {
                key,
                shown,
                start,
                content,
                serial,
            }) => Kind::Register(proto::Register {
                key: key_bytes(&key),
                serial: serial.get(),
                shown,
                start,
                content: content.as_ref().map(task_bytes),
            }),
            FromPeer::Resume(value) => Kind::Resume(resume(value)),
            FromPeer::Learned {
                key,
                serial,
                learned,
            } => Kind::Learned(proto::Learned {
                key: key_bytes(&key),
                serial: serial.get(),
                outcome: Some(outcome(learned)),
            }),
            FromPeer::Have {
                task,
                gained,
                lost,
                position,
                in_flight,
                reader_bound,
            } => Kind::Have(proto::Have {
                task: task_bytes(&task),
                gained: runs(gained),
                lost: runs(lost),
                position: position.get(),
                in_flight,
                reader_bound,
            }),
            FromPeer::Sealed {
                task,
                piece,
                digest,
            } => Kind::Sealed(proto::Sealed {
                task: task_bytes(&task),
                piece: piece.get(),
                digest: Bytes::copy_from_slice(digest.as_bytes()),
            }),
            FromPeer::Ended { task, length } => Kind::Ended(ended(&task, length)),
            FromPeer::AskLease { task, piece, late } => Kind::AskLease(proto::AskLease {
                task: task_bytes(&task),
                piece: piece.get(),
                late,
            }),
            FromPeer::ReturnLease { task, first, end } => {
                Kind::ReturnLease(span(&task, first, end))
            }
            FromPeer::OriginFailed {
                task,
                first,
                end,
                error: value,
            } => {
                let proto::Span { task, pieces } = span(&task, first, end);
                Kind::OriginFailed(proto::OriginFailure {
                    task,
                    pieces,
                    error: Some(error(&value)),
                })
            }
            FromPeer::OfferLease { task, first, end } => Kind::OfferLease(span(&task, first, end)),
            FromPeer::Pulse { task, bytes } => Kind::Pulse(proto::Pulse {
                task: task_bytes(&task),
                bytes,
            }),
            FromPeer::Trouble {
                task,
                peer,
                trouble,
            } => Kind::Trouble(proto::Trouble {
                task: task_bytes(&task),
                peer: peer_bytes(&peer),
                what: what(trouble).into(),
                piece: match trouble {
                    Trouble::Corrupt { piece } => piece.get(),
                    Trouble::Slow | Trouble::Gone | Trouble::Unreachable => 0,
                },
            }),
            FromPeer::Poison { task } => Kind::Poison(task_only(&task)),
            FromPeer::Leave { task } => Kind::Leave(task_only(&task)),
            FromPeer::Changed { key } => Kind::Changed(proto::KeyOnly {
                key: key_bytes(&key),
            }),
            FromPeer::RoundTrips { round_trips } => Kind::RoundTrips(proto::RoundTrips {
                round_trips: round_trips.iter().map(round_trip).collect(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl From<ToPeer> for proto::ToPeer {
    fn from(message: ToPeer) -> Self {
        use proto::to_peer::Kind;
        let kind = match message {
            ToPeer::Known {
                key,
                serial,
                known: value,
            } => Kind::Known(proto::KnownFor {
                key: key_bytes(&key),
                serial: serial.get(),
                known: Some(known(value)),
            }),
            ToPeer::Learn { key, serial, stale } => Kind::Learn(proto::Learn {
                key: key_bytes(&key),
                serial: serial.get(),
                stale: stale.map(|(task, value)| content(&task, value)),
            }),
            ToPeer::Direct { key, serial } => Kind::Direct(proto::Direct {
                key: key_bytes(&key),
                serial: serial.get(),
            }),
            ToPeer::Refused {
                key,
                serial,
                error: value,
            } => Kind::Refused(proto::Refused {
                key: key_bytes(&key),
                serial: serial.get(),
                error: Some(error(&value)),
            }),
            ToPeer::Parents {
                task,
                parents: value,
            } => Kind::Parents(proto::ParentsOf {
                task: task_bytes(&task),
                parents: Some(parents(value)),
            }),
            ToPeer::Digests {
                task,
                digests: value,
            } => Kind::Digests(proto::DigestsOf {
                task: task_bytes(&task),
                digests: Some(digests(value)),
            }),
            ToPeer::Lease { task, first, end } => Kind::Lease(span(&task, first, end)),
            ToPeer::LeaseEnded { task, first, end } => Kind::LeaseEnded(span(&task, first, end)),
            ToPeer::Ended { task, length } => Kind::Ended(ended(&task, length)),
            ToPeer::OriginFailed { task, error: value } => Kind::OriginFailed(proto::OriginDown {
                task: task_bytes(&task),
                error: Some(error(&value)),
            }),
            ToPeer::Poisoned { task } => Kind::Poisoned(task_only(&task)),
            ToPeer::Unknown { task } => Kind::Unknown(task_only(&task)),
            ToPeer::Changed { key } => Kind::Changed(proto::KeyOnly {
                key: key_bytes(&key),
            }),
            ToPeer::Turn { task, turn } => Kind::Turn(proto::Turn {
                task: task_bytes(&task),
                at: turn.at(),
                of: turn.of(),
            }),
            ToPeer::Unobtainable { task, piece } => Kind::Unobtainable(proto::Unobtainable {
                task: task_bytes(&task),
                piece: piece.get(),
            }),
            ToPeer::Unlisted { task } => Kind::Unlisted(task_only(&task)),
            ToPeer::Copies {
                task,
                pieces,
                copies,
            } => Kind::Copies(proto::Copies {
                task: task_bytes(&task),
                pieces: runs(pieces),
                who: match copies {
                    Copies::Several => proto::copies::Who::Several,
                    Copies::Sole => proto::copies::Who::Sole,
                    Copies::Kept => proto::copies::Who::Kept,
                }
                .into(),
            }),
            ToPeer::Measure { peers, enough } => Kind::Measure(proto::Measure {
                peers: peers.iter().map(peer_addr).collect(),
                enough_micros: micros(enough),
            }),
        };
        Self { kind: Some(kind) }
    }
}

fn round_trip(round_trip: &RoundTrip) -> proto::RoundTrip {
    proto::RoundTrip {
        peer: peer_bytes(&round_trip.peer),
        micros: round_trip.took.map(micros),
    }
}

/// More than an hour is an hour.
fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

fn task_bytes(task: &TaskId) -> Bytes {
    Bytes::copy_from_slice(task.as_bytes())
}

fn key_bytes(key: &ResourceKey) -> Bytes {
    Bytes::copy_from_slice(key.as_bytes())
}

fn peer_bytes(peer: &PeerId) -> Bytes {
    Bytes::copy_from_slice(peer.as_bytes())
}

fn task_only(task: &TaskId) -> proto::TaskOnly {
    proto::TaskOnly {
        task: task_bytes(task),
    }
}

fn ended(task: &TaskId, length: u64) -> proto::Ended {
    proto::Ended {
        task: task_bytes(task),
        length,
    }
}

fn span(task: &TaskId, first: PieceIndex, end: Option<PieceIndex>) -> proto::Span {
    proto::Span {
        task: task_bytes(task),
        pieces: Some(piece_span((first, end))),
    }
}

fn socket_address(addr: SocketAddr) -> proto::SocketAddress {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    };
    proto::SocketAddress {
        ip,
        port: addr.port().into(),
    }
}

fn peer_addr(peer: &PeerAddr) -> proto::PeerAddr {
    proto::PeerAddr {
        id: peer_bytes(&peer.id),
        addr: Some(socket_address(peer.addr)),
    }
}

fn runs(runs: Vec<PieceRun>) -> Vec<proto::PieceRun> {
    let run = |(first, count): PieceRun| proto::PieceRun {
        first: first.get(),
        count,
    };
    runs.into_iter().map(run).collect()
}

fn digests(digests: Vec<(PieceIndex, PieceDigest)>) -> proto::PieceDigests {
    let mut runs: Vec<proto::PieceRun> = Vec::new();
    let mut bytes = Vec::with_capacity(32 * digests.len());
    for (piece, digest) in digests {
        let piece = piece.get();
        match runs.last_mut() {
            // Not `first + count == piece`: the run must not overflow at the last piece there is.
            Some(run) if piece.checked_sub(run.first) == Some(run.count) && piece < u32::MAX => {
                run.count += 1;
            }
            _ => runs.push(proto::PieceRun {
                first: piece,
                count: 1,
            }),
        }
        bytes.extend_from_slice(digest.as_bytes());
    }
    proto::PieceDigests {
        runs,
        digests: bytes.into(),
    }
}

fn meta(meta: ContentMeta) -> proto::ContentMeta {
    let header = |(name, value)| proto::Header { name, value };
    proto::ContentMeta {
        length: meta.length,
        etag: meta.validators.etag,
        last_modified: meta.validators.last_modified,
        ranges: meta.ranges,
        content_type: meta.content_type,
        content_encoding: meta.content_encoding,
        headers: meta.headers.into_iter().map(header).collect(),
        fresh_for: meta.fresh_for.map(duration),
        age: (!meta.age.is_zero()).then(|| duration(meta.age)),
        private: meta.private,
        generation: match meta.generation {
            Generation::Validators => proto::Generation::Validators,
            Generation::Digest => proto::Generation::Digest,
            Generation::Transfer => proto::Generation::Transfer,
        }
        .into(),
        piece_size: meta.piece_size,
    }
}

fn duration(duration: Duration) -> proto::Duration {
    proto::Duration {
        seconds: duration.as_secs(),
        nanos: duration.subsec_nanos(),
    }
}

fn content(task: &TaskId, value: ContentMeta) -> proto::LearnedContent {
    proto::LearnedContent {
        task: task_bytes(task),
        meta: Some(meta(value)),
    }
}

fn resume(resume: Resume) -> proto::Resume {
    proto::Resume {
        key: key_bytes(&resume.key),
        task: task_bytes(&resume.task),
        meta: Some(meta(resume.meta)),
        held: runs(resume.held),
        digests: Some(digests(resume.digests)),
        position: resume.position.get(),
        shown: resume.shown,
        leases: resume.leases.into_iter().map(piece_span).collect(),
        resources: resume.resources.into_iter().map(known_resource).collect(),
    }
}

fn known_resource(resource: KnownResource) -> proto::KnownResource {
    proto::KnownResource {
        key: key_bytes(&resource.key),
        meta: Some(meta(resource.meta)),
    }
}

fn piece_span((first, end): PieceSpan) -> proto::PieceSpan {
    proto::PieceSpan {
        first: first.get(),
        end: end.map(PieceIndex::get),
    }
}

fn outcome(learned: Learned) -> proto::learned::Outcome {
    use proto::learned::Outcome;
    match learned {
        Learned::Content { task, meta: value } => Outcome::Content(content(&task, value)),
        Learned::Unchanged { task, meta: value } => Outcome::Unchanged(content(&task, value)),
        Learned::Unshareable => Outcome::Unshareable(proto::Unshareable {}),
        Learned::Failed { error: value } => Outcome::Failed(error(&value)),
    }
}

fn parents(parents: Parents) -> proto::Parents {
    let slot = |parent: Option<PeerAddr>| proto::ParentSlot {
        parent: parent.as_ref().map(peer_addr),
    };
    proto::Parents {
        preferred: parents.preferred.into_iter().map(slot).collect(),
        others: parents.others.iter().map(peer_addr).collect(),
    }
}

fn known(known: Known) -> proto::Known {
    proto::Known {
        task: task_bytes(&known.task),
        meta: Some(meta(known.meta)),
        digests: Some(digests(known.digests)),
        parents: Some(parents(known.parents)),
    }
}

fn what(trouble: Trouble) -> proto::trouble::What {
    use proto::trouble::What;
    match trouble {
        Trouble::Slow => What::Slow,
        Trouble::Gone => What::Gone,
        Trouble::Unreachable => What::Unreachable,
        Trouble::Corrupt { .. } => What::Corrupt,
    }
}

fn error(error: &Error) -> proto::Error {
    let who = match error.who() {
        Who::Origin => proto::Who::Origin,
        Who::Peer => proto::Who::Peer,
        Who::Supernode => proto::Who::Supernode,
        Who::Reader => proto::Who::Reader,
        Who::User => proto::Who::User,
        Who::Us => proto::Who::Us,
    };
    let (kind, status) = match error.kind() {
        Kind::BadInput => (proto::Kind::BadInput, 0),
        Kind::Unreachable => (proto::Kind::Unreachable, 0),
        Kind::Tls => (proto::Kind::Tls, 0),
        Kind::Denied => (proto::Kind::Denied, 0),
        Kind::NotFound => (proto::Kind::NotFound, 0),
        Kind::RangeNotSatisfiable => (proto::Kind::RangeNotSatisfiable, 0),
        Kind::Status(status) => (proto::Kind::Status, status.into()),
        Kind::Protocol => (proto::Kind::Protocol, 0),
        Kind::Changed => (proto::Kind::Changed, 0),
        Kind::DigestMismatch => (proto::Kind::DigestMismatch, 0),
        Kind::Timeout => (proto::Kind::Timeout, 0),
        Kind::File => (proto::Kind::File, 0),
        Kind::NoSpace => (proto::Kind::NoSpace, 0),
        Kind::NoMemory => (proto::Kind::NoMemory, 0),
        Kind::Unavailable => (proto::Kind::Unavailable, 0),
        Kind::Cancelled => (proto::Kind::Cancelled, 0),
        Kind::Internal => (proto::Kind::Internal, 0),
    };
    proto::Error {
        who: who.into(),
        kind: kind.into(),
        status,
        what: error.what().to_owned(),
        hint: error.advice().map(str::to_owned),
        retryable: error.is_retryable(),
        retry_after_millis: error
            .pause()
            .map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
    }
}
