//! The first request to the origin for a content: a GET, or the question whether what is known stands there
//! still. Nothing is told to others here.

use std::time::Duration;

use pantala_core::{ByteRange, ContentMeta, TaskId};
use pantala_origin::{OriginRequest, OriginResponse, Refused, Revalidation};

use super::{FOR_EVER, Stale};
use crate::{
    error,
    node::{
        ContentRequest, Node, Range,
        admission::{Says, is_evidence},
    },
};

/// The alignment of the first byte asked for when nobody knows yet how large pieces are.
const ALIGN: u64 = pantala_core::MAX_PIECE;

/// The result of one GET for a content.
pub(super) enum First {
    /// A content that is known stands there.
    Unchanged {
        task: TaskId,
        /// The metadata of the answer, which is newer than what was known.
        meta: Box<ContentMeta>,
        /// Whether others than who asked may still have it.
        shareable: bool,
    },
    Sent(Box<OriginResponse>),
}

impl Node {
    pub(super) async fn first_get(
        &self,
        request: &ContentRequest,
        stale: Option<&Stale>,
    ) -> Result<First, Refused> {
        if !request.origin_allowed {
            return Err(error::nobody_has_it().into());
        }
        if let (Some((task, meta)), Some(_)) = (stale, &request.digest)
            && let Some(meta) = self.is_here_too(request, meta).await?
        {
            return Ok(First::Unchanged {
                task: *task,
                meta: meta.into(),
                shareable: true,
            });
        }
        let range = match request.range {
            Some(Range::Bytes(range)) if !range.is_all() => {
                // Pieces of any size begin at multiples of the largest.
                let start = range.start() / ALIGN * ALIGN;
                let end = range
                    .end()
                    .map(|end| end.div_ceil(ALIGN).saturating_mul(ALIGN));
                ByteRange::new(start, end).unwrap_or(ByteRange::ALL)
            }
            _ => ByteRange::ALL,
        };
        let asked = OriginRequest {
            headers: request.headers.clone(),
            range,
            follow: request.follow,
            ask_again: request.ask_again,
            interim: request.interim.clone(),
            asker: request.asker,
            ..OriginRequest::new(request.url.clone())
        };
        let origin = &self.inner.ports.origin;
        let charge = self.origin_buffer().await;
        let mut response = match stale.filter(|_| request.digest.is_none()) {
            Some((task, meta)) => match origin.revalidate(asked, meta).await? {
                Revalidation::Unchanged { meta, shareable } => {
                    return Ok(First::Unchanged {
                        task: *task,
                        meta,
                        shareable,
                    });
                }
                Revalidation::Sent(response) => response,
            },
            None => Box::new(origin.get_or_refusal(asked).await?),
        };
        response.body.hold(charge);
        Ok(First::Sent(response))
    }

    /// Asks the origin, without a body, whether a content that is here under its digest stands in
    /// this place as well. `None` where it does not say so.
    async fn is_here_too(
        &self,
        request: &ContentRequest,
        meta: &ContentMeta,
    ) -> Result<Option<ContentMeta>, Refused> {
        let origin = &self.inner.ports.origin;
        let (url, headers) = (&request.url, &request.headers);
        let served = origin.check(url, headers, request.follow, request.asker);
        // Its refusal has words of its own, which only the request itself brings.
        let Ok(served) = served.await else {
            return Ok(None);
        };
        Ok(
            is_evidence(&Says::from(&served), meta, request).then(|| ContentMeta {
                fresh_for: Some(FOR_EVER),
                age: Duration::ZERO,
                ..meta.clone()
            }),
        )
    }
}
