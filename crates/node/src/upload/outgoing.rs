//! The way to one child: its messages are gathered and written before the next block.
//!
//! This file must not know what messages and blocks are about, only how long a child may take over them.

use std::{pin::pin, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use pantala_core::{Error, Kind, Result, Who};
use pantala_wire::link::{ToChild, data_header};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

/// A write that takes longer is limited by the child's own link: it needs no slot of ours.
pub(super) const OWN_PACE: Duration = Duration::from_millis(100);
/// A child that has not taken a block, or its messages, after so long is cut off.
pub(super) const STUCK: Duration = Duration::from_secs(30);

/// What is on its way to a child.
pub(super) struct Outgoing<W> {
    io: W,
    /// Messages to be written before the next block.
    pub messages: Messages,
}

/// Messages that wait to be written.
#[derive(Default)]
pub(super) struct Messages(BytesMut);

impl Messages {
    /// Appends a message.
    pub fn say(&mut self, message: &ToChild) {
        message.encode(&mut self.0);
    }
}

impl<W: AsyncWrite + Unpin> Outgoing<W> {
    pub fn new(io: W) -> Self {
        let messages = Messages::default();
        Self { io, messages }
    }

    /// Writes all messages, and a block of a request after them. Calls `too_slow` as soon as the child is slower
    /// to take that than this peer is to send it.
    pub async fn block(
        &mut self,
        request: u32,
        block: Bytes,
        too_slow: impl FnOnce(),
    ) -> Result<()> {
        let mut messages = std::mem::take(&mut self.messages.0);
        messages.extend_from_slice(&data_header(request, block.len()));
        let mut frame = messages.chain(block);
        let mut writing = pin!(self.io.write_all_buf(&mut frame));
        let mut written = timeout(OWN_PACE, &mut writing).await;
        if written.is_err() {
            too_slow();
            written = timeout(STUCK, writing).await;
        }
        written.map_err(|_| stuck())?.map_err(|error| broke(&error))
    }

    /// Writes all messages.
    pub async fn flush(&mut self) -> Result<()> {
        let messages = &mut self.messages.0;
        if messages.is_empty() {
            return Ok(());
        }
        let written = timeout(STUCK, self.io.write_all_buf(messages)).await;
        written.map_err(|_| stuck())?.map_err(|error| broke(&error))
    }
}

fn stuck() -> Error {
    Error::new(Who::Peer, Kind::Timeout, "takes nothing any more")
}

fn broke(error: &std::io::Error) -> Error {
    let what = format!("the connection broke: {error}");
    Error::new(Who::Peer, Kind::Unreachable, what)
}
