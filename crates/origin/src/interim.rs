//! Interim answers (1xx): what an origin says before its answer, for who asked.

use std::{fmt, sync::Arc};

use http::{HeaderMap, Request, StatusCode};

use crate::{Body, request::drop_hop_by_hop};

/// Is told of each interim answer to a request, before the answer itself.
#[derive(Clone)]
pub struct Interim(Arc<Tell>);

type Tell = dyn Fn(StatusCode, &HeaderMap) + Send + Sync;

impl Interim {
    /// Calls `tell` with the status and the end-to-end headers.
    pub fn new(tell: impl Fn(StatusCode, &HeaderMap) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Listens for what is said before the answer to this request.
    pub(crate) fn listen(&self, request: &mut Request<Body>) {
        let this = self.clone();
        hyper::ext::on_informational(request, move |answer| {
            // These two are for the next hop alone.
            if matches!(answer.status().as_u16(), 100 | 101) {
                return;
            }
            let mut headers = answer.headers().clone();
            drop_hop_by_hop(&mut headers);
            (this.0)(answer.status(), &headers);
        });
    }
}

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interim").finish_non_exhaustive()
    }
}
