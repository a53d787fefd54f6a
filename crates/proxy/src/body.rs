//! The body of a reply, whatever it comes from.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pantala_core::{Error, Kind, Result, Who};
use pantala_node::InUse;

use crate::{
    connection::Abort,
    outlet::{Gate, Keeps},
    passed::Passed,
};

/// Content bytes in order. An error is never followed by anything, and never by the end.
pub(crate) type Blocks = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Why a body cannot go on.
type Broken = Box<dyn std::error::Error + Send + Sync>;

/// The body of a reply. One type for all of them, so that a chunk costs no allocation and no
/// indirection but its source's own.
#[derive(Default)]
pub(crate) struct ReplyBody {
    source: Source,
    /// Breaks off a connection on which only its end ends a body.
    abort: Option<Abort>,
    /// What ends it next.
    broken: Option<Broken>,
    /// Closed while the client has to take what it was sent before.
    gate: Option<Gate>,
    /// Its connection is in use for as long.
    in_use: Option<InUse>,
}

#[derive(Default)]
enum Source {
    #[default]
    Nothing,
    /// A page of ours.
    Page(Bytes),
    /// What an origin answered to a request that was passed on.
    Passed(Box<Passed>),
    /// The same, for who keeps it here.
    Kept(pantala_origin::Body),
    Content(ContentBody),
}

/// Content on its way to a client.
pub(crate) struct ContentBody {
    /// Taken from `rest` before the head was sent.
    first: Option<Bytes>,
    rest: Blocks,
    /// Bytes still to come, when known.
    left: Option<u64>,
    /// What follows the last byte.
    trailers: Option<Trailers>,
    /// What it keeps while its client stands still.
    keeps: Keeps,
}

/// How a body's end, or its failure, is told in trailers.
pub(crate) type Trailers = fn(Result<()>) -> HeaderMap;

impl ContentBody {
    pub fn new(first: Option<Bytes>, rest: Blocks, left: Option<u64>) -> Self {
        Self {
            first,
            rest,
            left,
            trailers: None,
            keeps: Keeps::Nothing,
        }
    }

    /// It keeps this while its client stands still.
    pub fn keeping(mut self, keeps: Keeps) -> Self {
        self.keeps = keeps;
        self
    }

    /// Ends with these trailers, also when the content cannot go on: only for a client that is
    /// known to read them.
    pub fn with_trailers(mut self, trailers: Trailers) -> Self {
        self.trailers = Some(trailers);
        self
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let next = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None if self.left == Some(0) => None,
            None => ready!(self.rest.as_mut().poll_next(context)),
        };
        let end = match next {
            Some(Ok(bytes)) => {
                if let Some(left) = &mut self.left {
                    *left = left.saturating_sub(bytes.len() as u64);
                }
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Some(Err(error)) => Err(error),
            None if self.left.is_some_and(|left| left > 0) => Err(short()),
            None => Ok(()),
        };
        if let Some(trailers) = self.trailers.take() {
            // Nothing follows them: neither bytes nor another error.
            self.left = Some(0);
            self.rest = Box::pin(futures_util::stream::empty());
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(end)))));
        }
        Poll::Ready(end.err().map(Err))
    }
}

fn short() -> Error {
    Error::new(
        Who::Us,
        Kind::Internal,
        "the content ended before its length was reached",
    )
}

impl ReplyBody {
    /// Pulls `abort` when the body cannot go on.
    pub fn or_abort(&mut self, abort: Abort) {
        self.abort = Some(abort);
    }

    /// The same body, for a caller that keeps all of it here, within a bound, before any of it goes to the client.
    pub fn into_kept(mut self) -> Self {
        self.source = match self.source {
            Source::Passed(body) => Source::Kept(body.into_kept()),
            source => source,
        };
        self
    }

    /// Comes through this gate, on a connection that is in use meanwhile.
    pub fn behind(&mut self, gate: Gate, in_use: InUse) {
        gate.set_answer(match &self.source {
            Source::Content(body) => body.keeps.clone(),
            Source::Passed(body) => Keeps::Place(body.claim()),
            Source::Nothing | Source::Page(_) | Source::Kept(_) => Keeps::Nothing,
        });
        self.gate = Some(gate);
        self.in_use = Some(in_use);
    }
}

impl From<Bytes> for ReplyBody {
    fn from(page: Bytes) -> Self {
        Source::Page(page).into()
    }
}

impl From<Passed> for ReplyBody {
    fn from(body: Passed) -> Self {
        Source::Passed(Box::new(body)).into()
    }
}

impl From<ContentBody> for ReplyBody {
    fn from(body: ContentBody) -> Self {
        Source::Content(body).into()
    }
}

impl From<Source> for ReplyBody {
    fn from(source: Source) -> Self {
        Self {
            source,
            abort: None,
            broken: None,
            gate: None,
            in_use: None,
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(gate) = &self.gate {
            ready!(gate.poll_open(context));
        }
        if let Some(error) = self.broken.take() {
            self.source = Source::Nothing;
            return Poll::Ready(Some(Err(error)));
        }
        let frame: Option<Result<_, Broken>> = match &mut self.source {
            Source::Nothing => None,
            Source::Page(page) => {
                let page = std::mem::take(page);
                (!page.is_empty()).then(|| Ok(Frame::data(page)))
            }
            Source::Passed(body) => ready!(body.poll(context)),
            Source::Kept(body) => ready!(Pin::new(body).poll_frame(context)),
            Source::Content(body) => {
                ready!(body.poll(context)).map(|frame| frame.map_err(Into::into))
            }
        };
        if let Some(Err(error)) = frame {
            tracing::warn!(%error, "a body was broken off");
            if let Some(abort) = &self.abort {
                abort.pull();
            }
            // hyper drops what it has not written yet, the head even, when a body breaks: the
            // pause makes it write that first.
            self.broken = Some(error);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        if self.broken.is_some() {
            return false;
        }
        match &self.source {
            Source::Nothing => true,
            Source::Page(page) => page.is_empty(),
            Source::Passed(body) => body.is_end_stream(),
            Source::Kept(body) => body.is_end_stream(),
            Source::Content(body) => {
                body.first.is_none() && body.left == Some(0) && body.trailers.is_none()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Page(page) => SizeHint::with_exact(page.len() as u64),
            Source::Passed(body) => body.size_hint(),
            Source::Kept(body) => body.size_hint(),
            // With trailers it must be chunked, whatever is known of its length.
            Source::Content(body) => match body.left {
                Some(left) if body.trailers.is_none() => SizeHint::with_exact(left),
                _ => SizeHint::default(),
            },
        }
    }
}
