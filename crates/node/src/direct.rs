//! A response that is for one reader alone, as fast as that reader and the node may take it, cut to
//! the range it wants and held against the digest it gave.

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, StatusCode};
use pantala_core::{ContentDigest, ContentHasher, ContentMeta, Error, Kind, Result, Who};
use pantala_origin::{OriginBody, OriginResponse};

use crate::{
    alone::{Claim, Place},
    limiter::Limits,
    node::Range,
};

/// A response that is not shared, straight from the origin.
pub struct Direct {
    response: OriginResponse,
    place: Place,
    range: Option<Range>,
    digest: Option<ContentDigest>,
    limits: Limits,
}

/// The head of an origin's response, and where its body lies in the content.
#[derive(Debug)]
pub struct DirectHead {
    /// 200, or 206 when it holds a part.
    pub status: StatusCode,
    /// The headers as they came.
    pub headers: HeaderMap,
    /// What they say of the content.
    pub meta: ContentMeta,
    /// The offset of the body's first byte.
    pub start: u64,
    /// The offset after its last byte, when known.
    pub end: Option<u64>,
}

/// The bytes of a [`Direct`] response.
pub struct DirectStream {
    body: OriginBody,
    place: Place,
    start: u64,
    end: Option<u64>,
    check: Option<(ContentHasher, ContentDigest)>,
    limits: Limits,
    /// Of the last read what has not been handed over yet.
    left: Bytes,
}

impl Direct {
    pub(crate) fn new(
        response: OriginResponse,
        place: Place,
        range: Option<Range>,
        digest: Option<ContentDigest>,
        limits: Limits,
    ) -> Self {
        Self {
            response,
            place,
            range,
            digest,
            limits,
        }
    }

    /// What the origin said of the content.
    pub fn meta(&self) -> &ContentMeta {
        &self.response.meta
    }

    /// The response as it came, for who passes it on.
    pub fn whole(self) -> (DirectHead, DirectStream) {
        let OriginResponse {
            status,
            headers,
            meta,
            start,
            end,
            body,
            ..
        } = self.response;
        let head = DirectHead {
            status,
            headers,
            meta,
            start,
            end,
        };
        let stream = DirectStream {
            body,
            place: self.place,
            start,
            end: None,
            check: None,
            limits: self.limits,
            left: Bytes::new(),
        };
        (head, stream)
    }

    /// The bytes that the reader asked for. Its digest counts only for the whole content.
    ///
    /// # Errors
    /// When the range lies outside the content.
    pub fn wanted(self) -> Result<DirectStream> {
        let length = self.response.meta.length;
        let (start, end) = match (self.range, length) {
            (None, _) => (0, length),
            (Some(Range::Bytes(range)), Some(length)) if range.start() < length => (
                range.start(),
                Some(range.end().unwrap_or(length).min(length)),
            ),
            (Some(Range::Bytes(range)), None) => (range.start(), range.end()),
            (Some(Range::Suffix(last)), Some(length)) if last > 0 && length > 0 => {
                (length.saturating_sub(last), Some(length))
            }
            _ => return Err(outside(length)),
        };
        let digest = self.digest.filter(|_| self.range.is_none());
        Ok(DirectStream {
            body: self.response.body,
            place: self.place,
            start,
            end,
            check: digest.map(|digest| (digest.hasher(), digest)),
            limits: self.limits,
            left: Bytes::new(),
        })
    }
}

impl DirectStream {
    /// The first byte's offset and the one after the last, when known.
    pub fn bounds(&self) -> (u64, Option<u64>) {
        (self.start, self.end)
    }

    /// The way to ask for the place back that this response takes from others.
    pub fn claim(&self) -> Claim {
        self.place.claim()
    }

    /// The next bytes; `None` at the end of what was asked for.
    ///
    /// # Errors
    /// When the origin cannot go on, or the whole has not the digest it must have. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.left.is_empty() {
            if !self.read().await? {
                return self.finish().map(|()| None);
            }
        }
        let len = self.left.len().min(self.limits.step());
        self.limits.pass(len).await;
        Ok(Some(self.left.split_to(len)))
    }

    /// The stream as a [`Stream`] of blocks; it ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send {
        stream::try_unfold(self, |mut this| async move {
            Ok(this.next().await?.map(|bytes| (bytes, this)))
        })
    }

    /// Reads on; `false` at the end.
    async fn read(&mut self) -> Result<bool> {
        let at = self.body.position();
        if self.end.is_some_and(|end| at >= end) {
            return Ok(false);
        }
        let Some(mut bytes) = self.body.next().await? else {
            return Ok(false);
        };
        if let Some((hasher, _)) = &mut self.check {
            hasher.update(&bytes);
        }
        let skip = self.start.saturating_sub(at).min(bytes.len() as u64);
        let mut wanted = bytes.split_off(skip as usize);
        if let Some(end) = self.end {
            let room = end.saturating_sub(at + skip).min(wanted.len() as u64);
            wanted.truncate(room as usize);
            // The last bytes are kept back until the whole is known to be right.
            if self.body.position() >= end {
                self.finish()?;
            }
        }
        self.left = wanted;
        Ok(true)
    }

    fn finish(&mut self) -> Result<()> {
        let Some((hasher, expected)) = self.check.take() else {
            return Ok(());
        };
        let found = hasher.finish();
        if found == expected {
            return Ok(());
        }
        let what = format!("the content has {found}, not {expected}");
        Err(Error::new(Who::Origin, Kind::DigestMismatch, what)
            .hint("check the digest; the origin may serve something else under this name"))
    }
}

fn outside(length: Option<u64>) -> Error {
    let of = length.map_or(String::from("of unknown length"), |length| {
        format!("of {length} bytes")
    });
    let what = format!("the range lies outside the content {of}");
    Error::new(Who::User, Kind::RangeNotSatisfiable, what)
}
