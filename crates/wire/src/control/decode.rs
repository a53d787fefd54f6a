//! The wire to values. Everything is checked; what does not pass ends the session.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use pantala_core::{
    ContentMeta, Error, Generation, Kind, PieceDigest, PieceIndex, Turn, Validators, Who,
    control::{
        Copies, FromPeer, Hello, Known, KnownResource, Learned, Parents, PeerAddr, PieceRun,
        PieceSpan, Register, Resume, RoundTrip, Serial, ToPeer, Trouble,
    },
    is_piece_size,
};
use thiserror::Error;

use super::{
    limits::{Bounded, MAX_MEASURED, MAX_PARENTS, MAX_PIECES, MAX_SPANS, list},
    proto,
};
use crate::version::Versions;

/// Why a message is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Invalid {
    /// A message of a kind that this side does not know: a later version's. It is skipped, and ends no session.
    #[error("a message of an unknown kind")]
    UnknownKind,
    /// A field that must be there is not, or a kind is one this side does not know.
    #[error("{0} is missing or unknown")]
    Missing(&'static str),
    /// An identifier, a digest or an address of a wrong size.
    #[error("{what} of {len} bytes")]
    Size {
        /// Of what.
        what: &'static str,
        /// Its bytes.
        len: usize,
    },
    /// A list or text past its bound.
    #[error("{len} {what}, more than {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        len: usize,
        /// How many there may be.
        max: usize,
    },
    /// A run without a piece, or past the last piece there can be.
    #[error("a run of {count} pieces from {first}")]
    Run {
        /// Its first piece.
        first: u32,
        /// How many it claims.
        count: u32,
    },
    /// A number that its meaning does not allow.
    #[error("{what} {value} is out of range")]
    Range {
        /// Of what.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// A first frame without a hello, or a later one with it.
    #[error("a hello belongs in the first frame, and only there")]
    Hello,
}

/// The versions of the control protocol that a peer's greeting names.
pub(super) fn versions(hello: &proto::Hello) -> Result<Versions, Invalid> {
    let least = hello.least_version.unwrap_or(1);
    let greatest = hello.greatest_version.unwrap_or(1);
    let (Ok(least), Ok(greatest)) = (u16::try_from(least), u16::try_from(greatest)) else {
        return Err(Invalid::Range {
            what: "a version",
            value: least.max(greatest).into(),
        });
    };
    Versions::said(least, greatest).ok_or(Invalid::Missing("a version"))
}

impl TryFrom<proto::Hello> for Hello {
    type Error = Invalid;
    fn try_from(hello: proto::Hello) -> Result<Self, Invalid> {
        let peer = peer_addr(hello.peer.ok_or(Invalid::Missing("a peer"))?)?;
        // Children would be told to connect to themselves.
        if peer.addr.ip().is_unspecified() {
            return Err(Invalid::Missing("the address of a peer"));
        }
        let label = |label: proto::Label| (label.name, label.value);
        let hello = Hello {
            peer,
            labels: hello.labels.into_iter().map(label).collect(),
        };
        hello.check()?;
        Ok(hello)
    }
}

impl TryFrom<proto::FromPeer> for FromPeer {
    type Error = Invalid;
    fn try_from(message: proto::FromPeer) -> Result<Self, Invalid> {
        use proto::from_peer::Kind;
        let message = match message.kind.ok_or(Invalid::UnknownKind)? {
            Kind::Register(m) => FromPeer::Register(Register {
                key: id("a key", &m.key)?,
                serial: Serial::new(m.serial),
                shown: m.shown,
                start: m.start,
                content: match m.content {
                    Some(content) => Some(id("a task", &content)?),
                    None => None,
                },
            }),
            Kind::Resume(m) => FromPeer::Resume(Resume {
                key: id("a key", &m.key)?,
                task: id("a task", &m.task)?,
                meta: meta(m.meta)?,
                held: runs(m.held)?,
                digests: digests(m.digests)?,
                position: PieceIndex::new(m.position),
                shown: m.shown,
                resources: m
                    .resources
                    .into_iter()
                    .map(known_resource)
                    .collect::<Result<_, _>>()?,
                leases: spans(m.leases)?,
            }),
            Kind::Learned(m) => FromPeer::Learned {
                key: id("a key", &m.key)?,
                serial: Serial::new(m.serial),
                learned: learned(m.outcome.ok_or(Invalid::Missing("what was learned"))?)?,
            },
            Kind::Have(m) => FromPeer::Have {
                task: id("a task", &m.task)?,
                gained: runs(m.gained)?,
                lost: runs(m.lost)?,
                position: PieceIndex::new(m.position),
                in_flight: m.in_flight,
                reader_bound: m.reader_bound,
            },
            Kind::Sealed(m) => FromPeer::Sealed {
                task: id("a task", &m.task)?,
                piece: PieceIndex::new(m.piece),
                digest: digest(&m.digest)?,
            },
            Kind::Ended(m) => FromPeer::Ended {
                task: id("a task", &m.task)?,
                length: m.length,
            },
            Kind::AskLease(m) => FromPeer::AskLease {
                task: id("a task", &m.task)?,
                piece: PieceIndex::new(m.piece),
                late: m.late,
            },
            Kind::ReturnLease(m) => {
                let (first, end) = span(m.pieces)?;
                let task = id("a task", &m.task)?;
                FromPeer::ReturnLease { task, first, end }
            }
            Kind::OriginFailed(m) => {
                let (first, end) = span(m.pieces)?;
                FromPeer::OriginFailed {
                    task: id("a task", &m.task)?,
                    first,
                    end,
                    error: error(m.error.ok_or(Invalid::Missing("an error"))?)?,
                }
            }
            Kind::OfferLease(m) => {
                let (first, end) = span(m.pieces)?;
                let task = id("a task", &m.task)?;
                FromPeer::OfferLease { task, first, end }
            }
            Kind::Pulse(m) => FromPeer::Pulse {
                task: id("a task", &m.task)?,
                bytes: m.bytes,
            },
            Kind::Trouble(m) => FromPeer::Trouble {
                trouble: trouble(m.what(), m.piece)?,
                task: id("a task", &m.task)?,
                peer: id("a peer", &m.peer)?,
            },
            Kind::Poison(m) => FromPeer::Poison {
                task: id("a task", &m.task)?,
            },
            Kind::Leave(m) => FromPeer::Leave {
                task: id("a task", &m.task)?,
            },
            Kind::Changed(m) => FromPeer::Changed {
                key: id("a key", &m.key)?,
            },
            Kind::RoundTrips(m) => FromPeer::RoundTrips {
                round_trips: round_trips(&m.round_trips)?,
            },
        };
        message.check()?;
        Ok(message)
    }
}

impl TryFrom<proto::ToPeer> for ToPeer {
    type Error = Invalid;
    fn try_from(message: proto::ToPeer) -> Result<Self, Invalid> {
        use proto::to_peer::Kind;
        let message = match message.kind.ok_or(Invalid::UnknownKind)? {
            Kind::Known(m) => ToPeer::Known {
                key: id("a key", &m.key)?,
                serial: Serial::new(m.serial),
                known: known(m.known.ok_or(Invalid::Missing("what is known"))?)?,
            },
            Kind::Learn(m) => ToPeer::Learn {
                key: id("a key", &m.key)?,
                serial: Serial::new(m.serial),
                stale: match m.stale {
                    Some(stale) => Some((id("a task", &stale.task)?, meta(stale.meta)?)),
                    None => None,
                },
            },
            Kind::Direct(m) => ToPeer::Direct {
                key: id("a key", &m.key)?,
                serial: Serial::new(m.serial),
            },
            Kind::Refused(m) => ToPeer::Refused {
                key: id("a key", &m.key)?,
                serial: Serial::new(m.serial),
                error: error(m.error.ok_or(Invalid::Missing("an error"))?)?,
            },
            Kind::Parents(m) => ToPeer::Parents {
                task: id("a task", &m.task)?,
                parents: parents(m.parents)?,
            },
            Kind::Digests(m) => ToPeer::Digests {
                task: id("a task", &m.task)?,
                digests: digests(m.digests)?,
            },
            Kind::Lease(m) => {
                let (first, end) = span(m.pieces)?;
                let task = id("a task", &m.task)?;
                ToPeer::Lease { task, first, end }
            }
            Kind::LeaseEnded(m) => {
                let (first, end) = span(m.pieces)?;
                let task = id("a task", &m.task)?;
                ToPeer::LeaseEnded { task, first, end }
            }
            Kind::Ended(m) => ToPeer::Ended {
                task: id("a task", &m.task)?,
                length: m.length,
            },
            Kind::Poisoned(m) => ToPeer::Poisoned {
                task: id("a task", &m.task)?,
            },
            Kind::Unknown(m) => ToPeer::Unknown {
                task: id("a task", &m.task)?,
            },
            Kind::Changed(m) => ToPeer::Changed {
                key: id("a key", &m.key)?,
            },
            Kind::Turn(m) => ToPeer::Turn {
                task: id("a task", &m.task)?,
                turn: Turn::new(m.at, m.of),
            },
            Kind::Unobtainable(m) => ToPeer::Unobtainable {
                task: id("a task", &m.task)?,
                piece: PieceIndex::new(m.piece),
            },
            Kind::Unlisted(m) => ToPeer::Unlisted {
                task: id("a task", &m.task)?,
            },
            Kind::Copies(m) => ToPeer::Copies {
                task: id("a task", &m.task)?,
                copies: match m.who() {
                    proto::copies::Who::Sole => Copies::Sole,
                    proto::copies::Who::Kept => Copies::Kept,
                    // What is not known says nothing.
                    proto::copies::Who::Several | proto::copies::Who::Unspecified => {
                        Copies::Several
                    }
                },
                pieces: runs(m.pieces)?,
            },
            Kind::OriginFailed(m) => ToPeer::OriginFailed {
                task: id("a task", &m.task)?,
                error: error(m.error.ok_or(Invalid::Missing("an error"))?)?,
            },
            Kind::Measure(m) => {
                list("peers to measure", m.peers.len(), MAX_MEASURED)?;
                let peers = m.peers.into_iter().map(peer_addr);
                ToPeer::Measure {
                    peers: peers.collect::<Result<_, _>>()?,
                    enough: Duration::from_micros(m.enough_micros.into()),
                }
            }
        };
        message.check()?;
        Ok(message)
    }
}

fn id<'a, T: TryFrom<&'a [u8]>>(what: &'static str, bytes: &'a Bytes) -> Result<T, Invalid> {
    T::try_from(bytes).map_err(|_| Invalid::Size {
        what,
        len: bytes.len(),
    })
}

fn digest(bytes: &[u8]) -> Result<PieceDigest, Invalid> {
    let sized = bytes.try_into().map_err(|_| Invalid::Size {
        what: "a digest",
        len: bytes.len(),
    })?;
    Ok(PieceDigest::from_bytes(sized))
}

fn run(run: &proto::PieceRun) -> Result<PieceRun, Invalid> {
    let &proto::PieceRun { first, count } = run;
    if count == 0 || first.checked_add(count).is_none() {
        return Err(Invalid::Run { first, count });
    }
    Ok((PieceIndex::new(first), count))
}

fn runs(runs: Vec<proto::PieceRun>) -> Result<Vec<PieceRun>, Invalid> {
    list("runs", runs.len(), MAX_PIECES)?;
    runs.iter().map(run).collect()
}

fn digests(
    digests: Option<proto::PieceDigests>,
) -> Result<Vec<(PieceIndex, PieceDigest)>, Invalid> {
    let proto::PieceDigests { runs, digests } = digests.unwrap_or_default();
    let (bytes, rest) = digests.as_chunks::<32>();
    // Counted before anything is allocated for it.
    list("digests", bytes.len(), MAX_PIECES)?;
    let named: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
    if !rest.is_empty() || named != bytes.len() as u64 {
        return Err(Invalid::Size {
            what: "digests",
            len: digests.len(),
        });
    }
    let mut pairs = Vec::with_capacity(bytes.len());
    let mut bytes = bytes.iter();
    for each in &runs {
        // A lone last piece has no run's end to speak of, and is a piece all the same.
        let last = each.first == u32::MAX && each.count == 1;
        let (first, count) = if last {
            (PieceIndex::new(each.first), 1)
        } else {
            run(each)?
        };
        for (offset, digest) in (0..count).zip(&mut bytes) {
            let piece = PieceIndex::new(first.get() + offset);
            pairs.push((piece, PieceDigest::from_bytes(*digest)));
        }
    }
    Ok(pairs)
}

fn spans(list_of: Vec<proto::PieceSpan>) -> Result<Vec<PieceSpan>, Invalid> {
    list("spans", list_of.len(), MAX_SPANS)?;
    list_of.into_iter().map(|each| span(Some(each))).collect()
}

fn span(span: Option<proto::PieceSpan>) -> Result<(PieceIndex, Option<PieceIndex>), Invalid> {
    let proto::PieceSpan { first, end } = span.ok_or(Invalid::Missing("a span of pieces"))?;
    match end {
        Some(end) if end < first => Err(Invalid::Range {
            what: "the end of a span",
            value: end.into(),
        }),
        _ => Ok((PieceIndex::new(first), end.map(PieceIndex::new))),
    }
}

fn peer_addr(peer: proto::PeerAddr) -> Result<PeerAddr, Invalid> {
    let addr = peer.addr.ok_or(Invalid::Missing("the address of a peer"))?;
    let ip = if let Ok(ip) = <[u8; 4]>::try_from(&addr.ip[..]) {
        IpAddr::V4(Ipv4Addr::from(ip))
    } else if let Ok(ip) = <[u8; 16]>::try_from(&addr.ip[..]) {
        IpAddr::V6(Ipv6Addr::from(ip))
    } else {
        let len = addr.ip.len();
        return Err(Invalid::Size {
            what: "an ip address",
            len,
        });
    };
    Ok(PeerAddr {
        id: id("a peer", &peer.id)?,
        addr: SocketAddr::new(ip, narrow("a port", addr.port)?),
    })
}

fn narrow(what: &'static str, value: u32) -> Result<u16, Invalid> {
    value.try_into().map_err(|_| Invalid::Range {
        what,
        value: value.into(),
    })
}

fn round_trips(all: &[proto::RoundTrip]) -> Result<Vec<RoundTrip>, Invalid> {
    list("round trips", all.len(), MAX_MEASURED)?;
    let one = |one: &proto::RoundTrip| {
        let took = one
            .micros
            .map(|micros| Duration::from_micros(micros.into()));
        let peer = id("a peer", &one.peer)?;
        Ok(RoundTrip { peer, took })
    };
    all.iter().map(one).collect()
}

fn parents(parents: Option<proto::Parents>) -> Result<Parents, Invalid> {
    let parents = parents.ok_or(Invalid::Missing("parents"))?;
    list("parents", parents.preferred.len(), MAX_PARENTS)?;
    list("parents", parents.others.len(), MAX_PARENTS)?;
    let slot = |slot: proto::ParentSlot| slot.parent.map(peer_addr).transpose();
    Ok(Parents {
        preferred: parents
            .preferred
            .into_iter()
            .map(slot)
            .collect::<Result<_, _>>()?,
        others: parents
            .others
            .into_iter()
            .map(peer_addr)
            .collect::<Result<_, _>>()?,
    })
}

fn meta(meta: Option<proto::ContentMeta>) -> Result<ContentMeta, Invalid> {
    let meta = meta.ok_or(Invalid::Missing("metadata"))?;
    let generation = match meta.generation() {
        proto::Generation::Validators | proto::Generation::Unspecified => Generation::Validators,
        proto::Generation::Digest => Generation::Digest,
        proto::Generation::Transfer => Generation::Transfer,
    };
    let header = |header: proto::Header| (header.name, header.value);
    Ok(ContentMeta {
        length: meta.length,
        validators: Validators {
            etag: meta.etag,
            last_modified: meta.last_modified,
        },
        ranges: meta.ranges,
        content_type: meta.content_type,
        content_encoding: meta.content_encoding,
        headers: meta.headers.into_iter().map(header).collect(),
        fresh_for: meta.fresh_for.map(duration).transpose()?,
        age: meta.age.map_or(Ok(Duration::ZERO), duration)?,
        private: meta.private,
        generation,
        piece_size: meta.piece_size.map(piece_size).transpose()?,
    })
}

fn duration(duration: proto::Duration) -> Result<Duration, Invalid> {
    let proto::Duration { seconds, nanos } = duration;
    if nanos >= 1_000_000_000 {
        return Err(Invalid::Range {
            what: "nanoseconds",
            value: nanos.into(),
        });
    }
    Ok(Duration::new(seconds, nanos))
}

fn known_resource(resource: proto::KnownResource) -> Result<KnownResource, Invalid> {
    Ok(KnownResource {
        key: id("a key", &resource.key)?,
        meta: meta(resource.meta)?,
    })
}

fn piece_size(size: u64) -> Result<u64, Invalid> {
    match is_piece_size(size) {
        true => Ok(size),
        false => Err(Invalid::Range {
            what: "the bytes of a piece",
            value: size,
        }),
    }
}

fn known(known: proto::Known) -> Result<Known, Invalid> {
    Ok(Known {
        task: id("a task", &known.task)?,
        meta: meta(known.meta)?,
        digests: digests(known.digests)?,
        parents: parents(known.parents)?,
    })
}

fn learned(outcome: proto::learned::Outcome) -> Result<Learned, Invalid> {
    use proto::learned::Outcome;
    Ok(match outcome {
        Outcome::Content(content) => Learned::Content {
            task: id("a task", &content.task)?,
            meta: meta(content.meta)?,
        },
        Outcome::Unchanged(unchanged) => Learned::Unchanged {
            task: id("a task", &unchanged.task)?,
            meta: meta(unchanged.meta)?,
        },
        Outcome::Unshareable(proto::Unshareable {}) => Learned::Unshareable,
        Outcome::Failed(failed) => Learned::Failed {
            error: error(failed)?,
        },
    })
}

fn trouble(what: proto::trouble::What, piece: u32) -> Result<Trouble, Invalid> {
    use proto::trouble::What;
    match what {
        What::Unspecified => Err(Invalid::Missing("a trouble's kind")),
        What::Slow => Ok(Trouble::Slow),
        What::Gone => Ok(Trouble::Gone),
        What::Unreachable => Ok(Trouble::Unreachable),
        What::Corrupt => Ok(Trouble::Corrupt {
            piece: PieceIndex::new(piece),
        }),
    }
}

fn error(error: proto::Error) -> Result<Error, Invalid> {
    let who = match error.who() {
        proto::Who::Unspecified => return Err(Invalid::Missing("whose error it is")),
        proto::Who::Origin => Who::Origin,
        proto::Who::Peer => Who::Peer,
        proto::Who::Supernode => Who::Supernode,
        proto::Who::Reader => Who::Reader,
        proto::Who::User => Who::User,
        proto::Who::Us => Who::Us,
    };
    let kind = match error.kind() {
        proto::Kind::Unspecified => return Err(Invalid::Missing("an error's kind")),
        proto::Kind::BadInput => Kind::BadInput,
        proto::Kind::Unreachable => Kind::Unreachable,
        proto::Kind::Tls => Kind::Tls,
        proto::Kind::Denied => Kind::Denied,
        proto::Kind::NotFound => Kind::NotFound,
        proto::Kind::RangeNotSatisfiable => Kind::RangeNotSatisfiable,
        proto::Kind::Status => Kind::Status(narrow("a status", error.status)?),
        proto::Kind::Protocol => Kind::Protocol,
        proto::Kind::Changed => Kind::Changed,
        proto::Kind::DigestMismatch => Kind::DigestMismatch,
        proto::Kind::Timeout => Kind::Timeout,
        proto::Kind::File => Kind::File,
        proto::Kind::NoSpace => Kind::NoSpace,
        proto::Kind::NoMemory => Kind::NoMemory,
        proto::Kind::Unavailable => Kind::Unavailable,
        proto::Kind::Cancelled => Kind::Cancelled,
        proto::Kind::Internal => Kind::Internal,
    };
    let mut value = Error::new(who, kind, error.what).retryable(error.retryable);
    if let Some(hint) = error.hint {
        value = value.hint(hint);
    }
    if let Some(millis) = error.retry_after_millis {
        value = value.retry_after(Duration::from_millis(millis));
    }
    Ok(value)
}
