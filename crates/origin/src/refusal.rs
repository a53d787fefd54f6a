use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use pantala_core::Error;

use crate::{connection::Transfer, failure::Failure, request::drop_hop_by_hop};

/// The longest answer that is kept to be passed on, in bytes.
const LONGEST: usize = 64 << 10;

/// Why there is no content, with the origin's own words where it gave some.
#[derive(Debug)]
pub struct Refused {
    /// What failed and whose fault it was.
    pub error: Error,
    /// What the origin answered. `None` when it did not answer, when its answer is longer than
    /// 64 KiB or breaks, and when another host gave it after a redirect: such an answer's
    /// challenges and cookies would be taken for those of the host that was asked.
    pub answer: Option<Box<Refusal>>,
}

/// An answer that is no success, as it may be passed on.
pub struct Refusal {
    /// Neither 200 nor 206.
    pub status: StatusCode,
    /// As they came, without those for the next hop alone.
    pub headers: HeaderMap,
    /// All of it.
    pub body: Bytes,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self {
            error,
            answer: None,
        }
    }
}

impl Refused {
    /// `limit` is how long the rest of the answer may take.
    pub(crate) async fn read(failure: Failure, limit: Duration) -> Self {
        let answer = match failure.answer {
            Some(answer) => Refusal::read(*answer, limit).await,
            None => None,
        };
        Self {
            error: failure.error,
            answer: answer.map(Box::new),
        }
    }
}

impl Refusal {
    async fn read(answer: Response<Transfer>, limit: Duration) -> Option<Self> {
        let (mut parts, body) = answer.into_parts();
        let read = Limited::new(body, LONGEST).collect();
        let body = tokio::time::timeout(limit, read).await.ok()?.ok()?;
        drop_hop_by_hop(&mut parts.headers);
        Some(Self {
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }
}

/// Leaves out what the origin said: it may be for the client alone.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal")
            .field("status", &self.status)
            .field("length", &self.body.len())
            .finish_non_exhaustive()
    }
}
