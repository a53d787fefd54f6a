use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::connection::{Driven, Transfer};

/// The body of a client's request broke off, or is framed wrongly: no fault of the origin's.
#[derive(Debug)]
pub(crate) struct ClientBroke(hyper::Error);

impl fmt::Display for ClientBroke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for ClientBroke {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// Why a body cannot go on.
type Broken = Box<dyn StdError + Send + Sync>;

/// The body of a request that is passed on to an origin, or of its answer. Trailers are kept.
#[derive(Default)]
pub struct Body(Source);

#[derive(Default)]
enum Source {
    #[default]
    Nothing,
    Whole(Bytes),
    /// Of a client's request.
    Request(Incoming),
    /// Of an origin's answer.
    Answer(Box<Transfer>),
    /// Of the answer of an origin that does not go on in another protocol.
    Driven(Box<Driven>),
    Wrapped(Pin<Box<dyn http_body::Body<Data = Bytes, Error = Broken> + Send>>),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Any other body, at the cost of an allocation.
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<Broken>> + Send + 'static,
    {
        use http_body_util::BodyExt as _;
        Source::Wrapped(Box::pin(body.map_err(Into::into))).into()
    }
}

impl Body {
    /// Has each read of the answer's connection take so many bytes at most from now on; there is no limit above
    /// [`LIMIT_MAX`](crate::LIMIT_MAX). It begins with [`LITTLE`](crate::LITTLE). What a limited read brought is to be copied by
    /// whoever keeps it: it pins the buffer of an unlimited one.
    pub fn limit_reads(&self, most: usize) {
        match &self.0 {
            Source::Answer(body) => body.limit_reads(most),
            Source::Driven(body) => body.limit_reads(most),
            Source::Nothing | Source::Whole(_) | Source::Request(_) | Source::Wrapped(_) => {}
        }
    }
}

impl From<Source> for Body {
    fn from(source: Source) -> Self {
        Self(source)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Source::Whole(bytes).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

/// The body of a request, as it arrives from a client.
impl From<Incoming> for Body {
    fn from(body: Incoming) -> Self {
        Source::Request(body).into()
    }
}

impl From<Transfer> for Body {
    fn from(body: Transfer) -> Self {
        Source::Answer(Box::new(body)).into()
    }
}

impl From<Driven> for Body {
    fn from(body: Driven) -> Self {
        Source::Driven(Box::new(body)).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = match &mut self.0 {
            Source::Nothing => None,
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
            }
            Source::Request(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                frame.map(|frame| frame.map_err(|error| ClientBroke(error).into()))
            }
            Source::Answer(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                frame.map(|frame| frame.map_err(Into::into))
            }
            Source::Driven(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                frame.map(|frame| frame.map_err(Into::into))
            }
            Source::Wrapped(body) => ready!(body.as_mut().poll_frame(context)),
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Nothing => true,
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Request(body) => body.is_end_stream(),
            Source::Answer(body) => body.is_end_stream(),
            Source::Driven(body) => body.is_end_stream(),
            Source::Wrapped(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Request(body) => body.size_hint(),
            Source::Answer(body) => body.size_hint(),
            Source::Driven(body) => body.size_hint(),
            Source::Wrapped(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}
