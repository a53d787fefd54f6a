//! HTTP/2 as both ends use it: owned tasks, and pings that notice a dead link.

use std::{
    error::Error,
    future::Future,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use tokio_util::task::TaskTracker;
use tonic::body::Body;

/// How often each end asks the other whether it lives.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long a peer waits for the supernode's answer to a ping: it shall look elsewhere within
/// 2 s of a cut.
pub(super) const CLIENT_PING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a supernode waits for a peer's answer: longer, because a busy host is not a dead one
/// and taking a peer for dead moves its children and leases.
pub(super) const SERVER_PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes on their way that the receiver has not taken yet, per session: a whole large file's
/// digests go through without a round trip in between.
pub(super) const WINDOW: u32 = 1 << 20;

/// Lets hyper spawn what somebody can wait for.
#[derive(Clone)]
pub(super) struct Tracked(pub(super) TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// One HTTP/2 connection as tonic wants it. Unlike a tonic channel it never dials again by
/// itself: a session that ended must begin anew, and its owner says when.
#[derive(Clone, Debug)]
pub(super) struct Connection(pub(super) SendRequest<Body>);

impl tower::Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// An error in one line, with its causes.
pub(super) fn one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

/// A status of the RPC in one line.
pub(super) fn status_line(status: &tonic::Status) -> String {
    if status.message().is_empty() {
        one_line(status)
    } else {
        status.message().to_owned()
    }
}
