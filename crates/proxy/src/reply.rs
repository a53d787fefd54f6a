//! Replies of our own: pages, and what failed in one line.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use pantala_core::{Error, Kind};

use crate::body::ReplyBody;

/// How a Pantala dfdaemon names itself in what it answers itself.
pub(crate) const SERVER: &str = "pantala-dfdaemon";

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

pub(crate) type Reply = Response<ReplyBody>;

/// A page of ours.
pub(crate) fn page(
    status: StatusCode,
    content_type: HeaderValue,
    content: impl Into<Bytes>,
) -> Reply {
    let mut reply = Response::new(ReplyBody::from(content.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// A page of text; `line` is without its line break.
pub(crate) fn text(status: StatusCode, line: &str) -> Reply {
    page(status, TEXT, format!("{line}\n"))
}

/// What failed, and whose fault it was.
pub(crate) fn failure(error: &Error) -> Reply {
    text(status(error.kind()), &error.to_string())
}

/// The status that tells a client of an error.
pub(crate) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::BadInput => StatusCode::BAD_REQUEST,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        Kind::Unreachable
        | Kind::Tls
        | Kind::Protocol
        | Kind::Status(_)
        | Kind::Changed
        | Kind::DigestMismatch => StatusCode::BAD_GATEWAY,
        Kind::Timeout | Kind::Unavailable => StatusCode::GATEWAY_TIMEOUT,
        Kind::NoMemory | Kind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Kind::File | Kind::NoSpace | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
