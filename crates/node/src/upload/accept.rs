//! Who may be a child: the listener, seats for connections, and what is set on a child's socket.
//!
//! This file must not know what children say.

use std::{sync::Arc, time::Duration};

use tokio::net::{TcpListener, TcpStream};

use super::PeerServer;
use crate::socket;

/// Children connected at once. The one without a request for the longest makes room for more; when all
/// have some, more are turned away.
pub(crate) const CHILDREN: usize = 1024;
/// Bytes that may wait unsent in the kernel before it takes more.
const UNSENT: u32 = 256 << 10;
/// How long nobody is accepted after that has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl PeerServer {
    /// Accepts children until cancelled.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.cancel.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: it passes when somebody leaves.
                    tracing::warn!(%error, "cannot accept a child");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(seat) = self.children.admit(from.ip()) else {
                tracing::debug!(%from, "turned a child away: too many");
                continue;
            };
            tracing::trace!(%from, "a child came");
            let server = self.clone();
            self.tracker.spawn(async move {
                socket::prepare(&stream);
                limit_unsent(&stream);
                let (read, write) = stream.into_split();
                tokio::select! {
                    () = server.cancel.cancelled() => {}
                    result = server.attend(read, write, &seat) => {
                        if let Err(error) = result {
                            tracing::debug!(%from, %error, "a child left");
                        }
                    }
                }
            });
        }
    }
}

/// Keeps what is written but not sent small: a more urgent piece must not queue behind a megabyte
/// of a less urgent one, and memory in socket buffers is memory.
fn limit_unsent(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    if let Err(error) = socket.set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "cannot limit unsent bytes");
    }
}
