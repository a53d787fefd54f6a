//! The way to a client that may stop reading.
//!
//! What hyper is about to write are slices of pieces, and a client that stands still would keep those
//! pieces in memory. So when it has taken nothing for [`STILL`] what is left is copied, as much as fits a few
//! hundred KiB, and hyper lets go of the pieces. Until the client has taken that, its [`Gate`] is closed
//! and no more is asked of the content. A client that takes nothing for too long is ended.
//!
//! This module must not know what the bytes are.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use pantala_node::{Claim, Kept, Pause};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::server;

/// How long a client takes nothing until what it leaves is copied.
const STILL: Duration = Duration::from_millis(250);
/// How often it is looked whether others need what a client that stands still has.
const LOOK: Duration = Duration::from_secs(1);
/// The part of the time limit after which a client is ended if others need what it has.
const PRESSED: u32 = 30;

/// Keeps more from being asked of an answer while the client has to take what was copied.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<State>);

#[derive(Default)]
struct State {
    closed: AtomicBool,
    answer: Mutex<Keeps>,
    waiting: AtomicWaker,
}

/// What an answer keeps while it is not taken, though others may need it.
#[derive(Clone, Debug, Default)]
pub(crate) enum Keeps {
    #[default]
    Nothing,
    /// Pieces of shared content.
    Pieces(Pause),
    /// A place among the answers that are for one client alone.
    Place(Claim),
}

impl Gate {
    /// Ready while it is open.
    pub fn poll_open(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_closed() {
            return Poll::Ready(());
        }
        self.0.waiting.register(context.waker());
        match self.is_closed() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    /// What the answer that comes keeps.
    pub fn set_answer(&self, keeps: Keeps) {
        *self.0.answer.lock() = keeps;
    }

    /// The client takes nothing.
    fn stands_still(&self) {
        if let Keeps::Pieces(pause) = &*self.0.answer.lock() {
            pause.stands_still();
        }
    }

    /// Whether another client waits for what the answer keeps and only its end gives back.
    fn is_taken_back(&self) -> bool {
        match &*self.0.answer.lock() {
            Keeps::Place(claim) => claim.takes_back(),
            Keeps::Nothing | Keeps::Pieces(_) => false,
        }
    }

    fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
    }

    fn open(&self) {
        self.0.closed.store(false, Ordering::Release);
        self.0.waiting.wake();
    }
}

/// A client's connection as hyper writes to it.
pub(crate) struct Outlet<S> {
    stream: S,
    gate: Gate,
    context: Arc<server::Context>,
    copied: Option<Copied>,
    /// What the copied bytes were taken from has not been let go of yet, as far as is known.
    lets_go: bool,
    /// Since when the client has taken nothing.
    still: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

/// What a client has not taken yet.
struct Copied {
    bytes: Box<[u8]>,
    taken: usize,
    _memory: Kept,
}

impl<S: AsyncWrite + Unpin> Outlet<S> {
    pub fn new(stream: S, gate: Gate, context: Arc<server::Context>) -> Self {
        Self {
            stream,
            gate,
            context,
            copied: None,
            lets_go: false,
            still: None,
            timer: Box::pin(sleep(Duration::ZERO)),
        }
    }

    /// Writes what was copied.
    fn poll_copied(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper has seen that all was written, and dropped it.
        if std::mem::take(&mut self.lets_go) {
            self.context.node.let_go();
        }
        while let Some(copied) = &mut self.copied {
            let left = &copied.bytes[copied.taken..];
            match Pin::new(&mut self.stream).poll_write(context, left) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(taken)) => {
                    copied.taken += taken;
                    self.still = None;
                    if copied.taken == copied.bytes.len() {
                        self.copied = None;
                        self.gate.open();
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    ready!(self.poll_still(context))?;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The client takes nothing. Ready each time that something may have to be done about it, and
    /// an error when it is to be ended.
    fn poll_still(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let limit = self.context.client_timeout;
        let since = match self.still {
            Some(since) => since,
            None => {
                let now = Instant::now();
                self.timer.as_mut().reset(now + STILL.min(limit));
                *self.still.insert(now)
            }
        };
        ready!(self.timer.as_mut().poll(context));
        self.gate.stands_still();
        let now = Instant::now();
        let stood = now - since;
        if stood >= limit || (stood >= limit / PRESSED && self.is_needed()) {
            let what = format!("the client has taken nothing for {stood:.1?}");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
        }
        let pause = match self.copied {
            Some(_) => LOOK,
            None => STILL,
        };
        let next = now + pause.min(limit - stood);
        self.timer.as_mut().reset(next);
        Poll::Ready(Ok(()))
    }

    /// Whether this client has to make room for one that waits.
    fn is_needed(&self) -> bool {
        self.gate.is_taken_back() || self.context.connections.takes_back()
    }

    /// Copies what the client does not take; `None` when there is no memory even for that.
    fn copy(&mut self, parts: &[io::IoSlice<'_>]) -> Option<usize> {
        let len = parts.iter().map(|part| part.len()).sum();
        let memory = self.context.node.keep_for_client(len as u64)?;
        let mut bytes = Vec::with_capacity(len);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        self.copied = Some(Copied {
            bytes: bytes.into_boxed_slice(),
            taken: 0,
            _memory: memory,
        });
        self.lets_go = true;
        self.gate.close();
        Some(len)
    }

    /// Writes with `write`, or copies where the client stands still.
    fn poll_parts(
        &mut self,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_copied(context))?;
        if let Poll::Ready(written) = write(Pin::new(&mut self.stream), context) {
            self.still = None;
            return Poll::Ready(written);
        }
        loop {
            ready!(self.poll_still(context))?;
            if let Some(len) = self.copy(parts) {
                return Poll::Ready(Ok(len));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Outlet<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outlet<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let parts = [io::IoSlice::new(bytes)];
        self.poll_parts(context, &parts, |stream, context| {
            stream.poll_write(context, bytes)
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_parts(context, parts, |stream, context| {
            stream.poll_write_vectored(context, parts)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_copied(context))?;
        loop {
            if let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(context) {
                self.still = None;
                return Poll::Ready(flushed);
            }
            ready!(self.poll_still(context))?;
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_copied(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
