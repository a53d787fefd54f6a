//! How much one read takes from a connection.
//!
//! What is read of an answer waits in memory until its reader takes it, and the buffer that it was read into stays with the
//! connection as far as it was ever filled. An answer for which there is no room yet is read in little blocks, so that it goes on
//! nevertheless.
//!
//! This module must not know who reads, nor what there is room for.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

use crate::connect::Stream;

/// The most bytes that one read takes for an answer that has no room.
pub const LITTLE: usize = 8 << 10;

/// The largest limit that reads are held to.
pub const LIMIT_MAX: usize = 32 << 10;

/// The most bytes that one read of a connection is to take. A limit above [`LIMIT_MAX`] is none.
#[derive(Debug, Clone)]
pub(crate) struct Reads(Arc<AtomicUsize>);

/// A connection's stream, whose reads take no more than they are to take.
pub(crate) struct Measured {
    stream: Stream,
    reads: Reads,
}

impl Reads {
    /// Reads that take `most` bytes.
    pub(crate) fn of(most: usize) -> Self {
        Self(Arc::new(most.into()))
    }

    /// Sets how many bytes the next reads take.
    pub(crate) fn limit(&self, most: usize) {
        self.0.store(most, Ordering::Relaxed);
    }
}

impl Measured {
    pub(crate) fn new(stream: Stream, reads: Reads) -> Self {
        Self { stream, reads }
    }
}

impl Read for Measured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let limit = self.reads.0.load(Ordering::Relaxed);
        if limit > LIMIT_MAX {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        // hyper's cursor cannot be made shorter, so they are copied.
        let mut block = [MaybeUninit::uninit(); LIMIT_MAX];
        let most = limit.min(buffer.remaining());
        let mut part = ReadBuf::uninit(&mut block[..most]);
        ready!(Pin::new(&mut self.stream).poll_read(context, part.unfilled()))?;
        buffer.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Measured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn a_read_takes_no_more_than_it_is_to() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(&[7; 200 << 10]).await.unwrap();
        let reads = Reads::of(LITTLE);
        let mut stream = Measured::new(Stream::Pipe(TokioIo::new(near)), reads.clone());
        let mut took = Vec::new();
        for limit in [LITTLE, LIMIT_MAX, 100, usize::MAX] {
            reads.limit(limit);
            let mut bytes = vec![MaybeUninit::uninit(); 128 << 10];
            let mut buffer = ReadBuf::uninit(&mut bytes);
            poll_fn(|context| Pin::new(&mut stream).poll_read(context, buffer.unfilled()))
                .await
                .unwrap();
            assert!(buffer.filled().iter().all(|&byte| byte == 7));
            took.push(buffer.filled().len());
        }
        assert_eq!(took, [LITTLE, LIMIT_MAX, 100, 128 << 10]);
    }
}
