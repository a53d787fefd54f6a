use bytes::{Buf, BufMut, BytesMut};
use pantala_core::{BLOCK_MAX, Error, Kind, PeerId, PieceIndex, TaskId, Who, control::PieceRun};

use crate::version::{self, Versions};

const MAGIC: &[u8; 4] = b"PNTL";

/// The largest payload of a frame that is no data.
pub(super) const CONTROL_MAX: usize = 64 << 10;
/// The largest payload of a data frame: the request's number and a block.
pub(super) const DATA_MAX: usize = 4 + BLOCK_MAX;
/// Kind and length.
pub(super) const HEADER: usize = 5;

/// Set in an urgency: others go first, whoever's they are and however far from their reader.
pub const BACKGROUND: u32 = 1 << 31;

/// A child to its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToParent {
    /// First of all: who dials.
    Hello {
        /// The child.
        peer: PeerId,
        /// Which versions of the protocol it speaks. Of what arrives at least one is also this program's.
        speaks: Versions,
    },
    /// Tell me what you hold of this task, now and as it changes.
    Follow {
        /// Which task.
        task: TaskId,
    },
    /// No more news of this task.
    Unfollow {
        /// Which task.
        task: TaskId,
    },
    /// Send a piece, as soon as you have it and while you receive it.
    Want {
        /// The request's number on this connection.
        request: u32,
        /// Of which task.
        task: TaskId,
        /// Which piece.
        piece: PieceIndex,
        /// From which of its bytes on.
        offset: u32,
        /// How many pieces lie between the child's reader and this one: 0 goes first. With
        /// [`BACKGROUND`] nobody waits for it.
        urgency: u32,
    },
    /// The request is of another urgency now.
    Urge {
        /// Which.
        request: u32,
        /// As in [`ToParent::Want`].
        urgency: u32,
    },
    /// The request is not needed any more.
    Cancel {
        /// Which.
        request: u32,
    },
    /// Answer with [`ToChild::Here`]: nothing has been heard of the parent for a while.
    AreYouThere,
}

/// Why a parent does not serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It does not have the piece and will not get it, or what it had was wrong.
    NotHere,
    /// It has too many requests already.
    Busy,
}

/// A parent to its child. The bytes themselves travel as data frames: see [`data_header`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToChild {
    /// First of all: who answers.
    Hello {
        /// The parent.
        peer: PeerId,
        /// Which versions of the protocol it speaks. Of what arrives at least one is also this program's.
        speaks: Versions,
    },
    /// Complete, verified pieces.
    Holds {
        /// Of which task.
        task: TaskId,
        /// Which.
        runs: Vec<PieceRun>,
    },
    /// The first bytes of a piece are here.
    Receiving {
        /// Of which task.
        task: TaskId,
        /// Which.
        piece: PieceIndex,
    },
    /// Pieces that are here no more.
    Lost {
        /// Of which task.
        task: TaskId,
        /// Which.
        runs: Vec<PieceRun>,
    },
    /// All bytes of the request's piece have been sent.
    Done {
        /// Which request.
        request: u32,
        /// The piece's size in bytes.
        size: u32,
    },
    /// The request is not served, or not to its end.
    Refused {
        /// Which request.
        request: u32,
        /// Why.
        refusal: Refusal,
    },
    /// The answer to [`ToParent::AreYouThere`].
    Here,
}

mod kind {
    pub const HELLO: u8 = 1;
    pub const FOLLOW: u8 = 2;
    pub const UNFOLLOW: u8 = 3;
    pub const WANT: u8 = 4;
    pub const CANCEL: u8 = 5;
    pub const URGE: u8 = 6;
    pub const ARE_YOU_THERE: u8 = 7;
    pub const HOLDS: u8 = 16;
    pub const RECEIVING: u8 = 17;
    pub const LOST: u8 = 18;
    pub const DONE: u8 = 19;
    pub const REFUSED: u8 = 20;
    pub const HERE: u8 = 21;
    pub const DATA: u8 = 32;
}
pub(super) use kind::DATA;

/// Runs that fit one frame; more travel in several.
const RUNS_MAX: usize = 4096;

/// What comes before a block of `len` bytes for a request.
pub fn data_header(request: u32, len: usize) -> [u8; 9] {
    let mut header = [0; 9];
    header[0] = DATA;
    header[1..5].copy_from_slice(&(4 + len as u32).to_be_bytes());
    header[5..].copy_from_slice(&request.to_be_bytes());
    header
}

fn frame(out: &mut BytesMut, kind: u8, payload: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let length_at = out.len();
    out.put_u32(0);
    payload(out);
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
}

fn hello(out: &mut BytesMut, peer: &PeerId, speaks: Versions) {
    frame(out, kind::HELLO, |out| {
        out.put_slice(MAGIC);
        out.put_u16(speaks.least());
        out.put_u16(speaks.greatest());
        out.put_slice(peer.as_bytes());
    });
}

fn runs(out: &mut BytesMut, kind: u8, task: &TaskId, runs: &[PieceRun]) {
    for part in runs.chunks(RUNS_MAX) {
        frame(out, kind, |out| {
            out.put_slice(task.as_bytes());
            out.put_u32(part.len() as u32);
            for (first, count) in part {
                out.put_u32(first.get());
                out.put_u32(*count);
            }
        });
    }
}

impl ToParent {
    /// The greeting of this program.
    pub fn hello(peer: PeerId) -> Self {
        let speaks = version::PEER;
        ToParent::Hello { peer, speaks }
    }

    /// Appends the message to what is to be written.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            ToParent::Hello { peer, speaks } => hello(out, peer, *speaks),
            ToParent::Follow { task } => {
                frame(out, kind::FOLLOW, |out| out.put_slice(task.as_bytes()));
            }
            ToParent::Unfollow { task } => {
                frame(out, kind::UNFOLLOW, |out| out.put_slice(task.as_bytes()));
            }
            ToParent::Want {
                request,
                task,
                piece,
                offset,
                urgency,
            } => {
                frame(out, kind::WANT, |out| {
                    out.put_u32(*request);
                    out.put_slice(task.as_bytes());
                    out.put_u32(piece.get());
                    out.put_u32(*offset);
                    out.put_u32(*urgency);
                });
            }
            ToParent::Urge { request, urgency } => frame(out, kind::URGE, |out| {
                out.put_u32(*request);
                out.put_u32(*urgency);
            }),
            ToParent::Cancel { request } => {
                frame(out, kind::CANCEL, |out| out.put_u32(*request));
            }
            ToParent::AreYouThere => frame(out, kind::ARE_YOU_THERE, |_| {}),
        }
    }

    /// The message in a frame; `None` for a kind of a later version. What a later version appended to a
    /// message's fields is left out.
    pub(super) fn decode(kind: u8, mut payload: &[u8]) -> Result<Option<Self>, Error> {
        let message = match kind {
            kind::HELLO => {
                let (peer, speaks) = take_hello(&mut payload)?;
                ToParent::Hello { peer, speaks }
            }
            kind::FOLLOW => ToParent::Follow {
                task: take_task(&mut payload)?,
            },
            kind::UNFOLLOW => ToParent::Unfollow {
                task: take_task(&mut payload)?,
            },
            kind::WANT => ToParent::Want {
                request: take_u32(&mut payload)?,
                task: take_task(&mut payload)?,
                piece: PieceIndex::new(take_u32(&mut payload)?),
                offset: take_u32(&mut payload)?,
                urgency: take_u32(&mut payload)?,
            },
            kind::URGE => ToParent::Urge {
                request: take_u32(&mut payload)?,
                urgency: take_u32(&mut payload)?,
            },
            kind::CANCEL => ToParent::Cancel {
                request: take_u32(&mut payload)?,
            },
            kind::ARE_YOU_THERE => ToParent::AreYouThere,
            _ => return Ok(None),
        };
        Ok(Some(message))
    }
}

impl ToChild {
    /// The greeting of this program.
    pub fn hello(peer: PeerId) -> Self {
        let speaks = version::PEER;
        ToChild::Hello { peer, speaks }
    }

    /// Appends the message to what is to be written.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            ToChild::Hello { peer, speaks } => hello(out, peer, *speaks),
            ToChild::Holds { task, runs: held } => runs(out, kind::HOLDS, task, held),
            ToChild::Lost { task, runs: lost } => runs(out, kind::LOST, task, lost),
            ToChild::Receiving { task, piece } => frame(out, kind::RECEIVING, |out| {
                out.put_slice(task.as_bytes());
                out.put_u32(piece.get());
            }),
            ToChild::Done { request, size } => frame(out, kind::DONE, |out| {
                out.put_u32(*request);
                out.put_u32(*size);
            }),
            ToChild::Refused { request, refusal } => frame(out, kind::REFUSED, |out| {
                out.put_u32(*request);
                out.put_u8(match refusal {
                    Refusal::NotHere => 0,
                    Refusal::Busy => 1,
                });
            }),
            ToChild::Here => frame(out, kind::HERE, |_| {}),
        }
    }

    /// The message in a frame; `None` for a kind of a later version. What a later version appended to a
    /// message's fields is left out.
    pub(super) fn decode(kind: u8, mut payload: &[u8]) -> Result<Option<Self>, Error> {
        let message = match kind {
            kind::HELLO => {
                let (peer, speaks) = take_hello(&mut payload)?;
                ToChild::Hello { peer, speaks }
            }
            kind::HOLDS => {
                let task = take_task(&mut payload)?;
                ToChild::Holds {
                    task,
                    runs: take_runs(&mut payload)?,
                }
            }
            kind::LOST => {
                let task = take_task(&mut payload)?;
                ToChild::Lost {
                    task,
                    runs: take_runs(&mut payload)?,
                }
            }
            kind::RECEIVING => ToChild::Receiving {
                task: take_task(&mut payload)?,
                piece: PieceIndex::new(take_u32(&mut payload)?),
            },
            kind::DONE => ToChild::Done {
                request: take_u32(&mut payload)?,
                size: take_u32(&mut payload)?,
            },
            kind::REFUSED => ToChild::Refused {
                request: take_u32(&mut payload)?,
                refusal: match payload.try_get_u8() {
                    Ok(0) => Refusal::NotHere,
                    Ok(1) => Refusal::Busy,
                    _ => return Err(broken("a refusal of unknown reason")),
                },
            },
            kind::HERE => ToChild::Here,
            _ => return Ok(None),
        };
        Ok(Some(message))
    }
}

pub(super) fn broken(what: impl std::fmt::Display) -> Error {
    Error::new(
        Who::Peer,
        Kind::Protocol,
        format!("sent something that is no protocol: {what}"),
    )
}

fn take_u32(payload: &mut &[u8]) -> Result<u32, Error> {
    payload
        .try_get_u32()
        .map_err(|_| broken("a frame that is too short"))
}

fn take<const N: usize>(payload: &mut &[u8]) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    payload
        .try_copy_to_slice(&mut bytes)
        .map_err(|_| broken("a frame that is too short"))?;
    Ok(bytes)
}

fn take_task(payload: &mut &[u8]) -> Result<TaskId, Error> {
    take(payload).map(TaskId::from_bytes)
}

fn take_hello(payload: &mut &[u8]) -> Result<(PeerId, Versions), Error> {
    if take::<4>(payload)? != *MAGIC {
        return Err(broken("no greeting of a pantala peer"));
    }
    let (least, greatest) = (take(payload)?, take(payload)?);
    let (least, greatest) = (u16::from_be_bytes(least), u16::from_be_bytes(greatest));
    let Some(theirs) = Versions::said(least, greatest) else {
        return Err(broken("a greeting without a version"));
    };
    if version::PEER.common(theirs).is_none() {
        let what = format!(
            "speaks {theirs} of the peer protocol, and this peer {}",
            version::PEER
        );
        return Err(Error::new(Who::Peer, Kind::Protocol, what).hint("update the older one"));
    }
    Ok((PeerId::from_bytes(take(payload)?), theirs))
}

fn take_runs(payload: &mut &[u8]) -> Result<Vec<PieceRun>, Error> {
    let len = take_u32(payload)? as usize;
    let mut runs = Vec::with_capacity(len.min(payload.len() / 8));
    for _ in 0..len {
        let (first, count) = (take_u32(payload)?, take_u32(payload)?);
        if count == 0 || first.checked_add(count).is_none() {
            return Err(broken("a run of pieces without an end"));
        }
        runs.push((PieceIndex::new(first), count));
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = TaskId> {
        any::<[u8; 32]>().prop_map(TaskId::from_bytes)
    }

    fn piece_runs() -> impl Strategy<Value = Vec<PieceRun>> {
        let run = (0u32..1 << 20, 1u32..1000).prop_map(|(a, n)| (PieceIndex::new(a), n));
        prop::collection::vec(run, 1..50)
    }

    /// Versions that have one in common with this program's.
    fn versions() -> impl Strategy<Value = Versions> {
        let greatest = version::PEER.greatest();
        (0..=greatest, greatest..).prop_map(|(least, greatest)| Versions::new(least, greatest))
    }

    fn to_child() -> impl Strategy<Value = ToChild> {
        prop_oneof![
            (any::<[u8; 16]>(), versions()).prop_map(|(b, speaks)| ToChild::Hello {
                peer: PeerId::from_bytes(b),
                speaks
            }),
            (id(), piece_runs()).prop_map(|(task, runs)| ToChild::Holds { task, runs }),
            (id(), piece_runs()).prop_map(|(task, runs)| ToChild::Lost { task, runs }),
            (id(), any::<u32>()).prop_map(|(task, n)| ToChild::Receiving {
                task,
                piece: PieceIndex::new(n)
            }),
            any::<(u32, u32)>().prop_map(|(request, size)| ToChild::Done { request, size }),
            any::<u32>().prop_map(|request| ToChild::Refused {
                request,
                refusal: Refusal::Busy
            }),
            Just(ToChild::Here),
        ]
    }

    fn to_parent() -> impl Strategy<Value = ToParent> {
        prop_oneof![
            (any::<[u8; 16]>(), versions()).prop_map(|(b, speaks)| ToParent::Hello {
                peer: PeerId::from_bytes(b),
                speaks
            }),
            id().prop_map(|task| ToParent::Follow { task }),
            id().prop_map(|task| ToParent::Unfollow { task }),
            (any::<[u32; 4]>(), id()).prop_map(|([request, piece, offset, urgency], task)| {
                ToParent::Want {
                    request,
                    task,
                    piece: PieceIndex::new(piece),
                    offset,
                    urgency,
                }
            }),
            any::<(u32, u32)>().prop_map(|(request, urgency)| ToParent::Urge { request, urgency }),
            any::<u32>().prop_map(|request| ToParent::Cancel { request }),
            Just(ToParent::AreYouThere),
        ]
    }

    proptest! {
        #[test]
        fn what_a_parent_says_arrives(message in to_child(), appended in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            // Fields of a later version.
            out.put_slice(&appended);
            prop_assert_eq!(ToChild::decode(out[0], &out[HEADER..]).unwrap(), Some(message));
        }

        #[test]
        fn what_a_child_says_arrives(message in to_parent(), appended in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            // Fields of a later version.
            out.put_slice(&appended);
            prop_assert_eq!(ToParent::decode(out[0], &out[HEADER..]).unwrap(), Some(message));
        }

        #[test]
        fn nonsense_is_an_error(kind: u8, payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ToChild::decode(kind, &payload);
            let _ = ToParent::decode(kind, &payload);
        }
    }

    #[test]
    fn a_peer_without_a_common_version_is_refused_in_words() {
        let mut out = BytesMut::new();
        let later = version::PEER.greatest() + 1;
        let speaks = Versions::new(later, later + 1);
        let peer = PeerId::from_bytes([1; 16]);
        ToChild::Hello { peer, speaks }.encode(&mut out);
        let error = ToChild::decode(out[0], &out[HEADER..]).unwrap_err();
        assert_eq!(error.kind(), Kind::Protocol);
        let expected = format!("speaks {speaks} of the peer protocol");
        assert!(error.to_string().contains(&expected), "{error}");
    }
}
