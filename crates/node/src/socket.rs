//! What is set on every connection between peers.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// A peer that is silent for so long is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How often it is asked again, each time a third of that, until it is taken for gone.
const ASKED: u32 = 3;

/// Messages are sent at once, and a host that has gone without a word is noticed.
pub(crate) fn prepare(stream: &TcpStream) {
    // A connection works without either, or is gone already.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / ASKED)
        .with_retries(ASKED);
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "cannot keep a connection alive");
    }
}
