//! A response that is for one reader alone, cut to the range it wants and held against the digest
//! it gave.

use bytes::Bytes;
use futures_util::stream;
use pantala_core::{ContentDigest, ContentHasher, Error, Kind, Result, Who};
use pantala_node::Range;
use pantala_origin::{OriginBody, OriginResponse};

use crate::body::Blocks;

/// The bytes a reader wants of a response.
pub(crate) struct Direct {
    body: OriginBody,
    start: u64,
    end: Option<u64>,
    check: Option<(ContentHasher, ContentDigest)>,
}

impl Direct {
    /// `digest` counts only for the whole content.
    ///
    /// # Errors
    /// When the range lies outside the content.
    pub fn new(
        response: OriginResponse,
        range: Option<Range>,
        digest: Option<ContentDigest>,
    ) -> Result<Self> {
        let length = response.meta.length;
        let (start, end) = match (range, length) {
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
        let digest = digest.filter(|_| range.is_none());
        Ok(Self {
            body: response.body,
            start,
            end,
            check: digest.map(|digest| (digest.hasher(), digest)),
        })
    }

    /// The first byte's offset and the one after the last, when known.
    pub fn bounds(&self) -> (u64, Option<u64>) {
        (self.start, self.end)
    }

    pub fn into_blocks(self) -> Blocks {
        Box::pin(stream::try_unfold(self, |mut this| async move {
            Ok(this.next().await?.map(|bytes| (bytes, this)))
        }))
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let at = self.body.position();
            if self.end.is_some_and(|end| at >= end) {
                return self.finish().map(|()| None);
            }
            let Some(mut bytes) = self.body.next().await? else {
                return self.finish().map(|()| None);
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
            if !wanted.is_empty() {
                return Ok(Some(wanted));
            }
        }
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
