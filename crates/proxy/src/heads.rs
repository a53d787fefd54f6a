//! Sees heads of requests with two words on where the body ends.
//!
//! hyper takes a request with both `Transfer-Encoding` and `Content-Length` by the former and hides
//! the latter. That is safe here, because what is passed on is framed anew; but whoever sends such
//! a request may have another server in mind that sits in front of this one and takes it by the
//! latter (RFC 9112, 11.2). It is refused, and for that it must be seen.
//!
//! It also takes `OPTIONS http://host`, which asks the server as a whole, for
//! `OPTIONS http://host/` (RFC 9112, 3.2.4).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::interim::Interims;

/// What is known of the request that is being read.
#[derive(Debug, Clone)]
pub(crate) struct Head(Arc<AtomicU8>);

/// Its head is to come.
const AWAITED: u8 = 0;
/// Its head has come and was sound, or is not looked at.
const PASSED: u8 = 1;
/// Its head says twice where the body ends.
const AMBIGUOUS: u8 = 2;
/// Its head has come, was sound, and asks a server as a whole.
const WHOLE: u8 = 3;

/// The longest head that is looked at; a longer one is refused anyway.
const LONGEST: usize = 64 << 10;

impl Default for Head {
    fn default() -> Self {
        Self(Arc::new(AtomicU8::new(AWAITED)))
    }
}

impl Head {
    /// Whether the request that has just been read says twice where its body ends.
    pub fn is_ambiguous(&self) -> bool {
        self.0.load(Ordering::Relaxed) == AMBIGUOUS
    }

    /// Whether the request that has just been read asks a server as a whole.
    pub fn is_for_whole_server(&self) -> bool {
        self.0.load(Ordering::Relaxed) == WHOLE
    }

    /// The request was answered and had no body: what comes next is a head.
    pub fn expect_next(&self) {
        self.0.store(AWAITED, Ordering::Relaxed);
    }
}

/// A connection whose heads are looked at as they come. Of requests that come together only the
/// first one's is; the others were not waited for, and none of them follows a chunked body.
///
/// Answers go out by the same way: what an origin says before its answer is put in front of it.
pub(crate) struct Heads<S> {
    stream: S,
    head: Head,
    seen: Vec<u8>,
    interims: Interims,
    /// Of an interim answer, what is still to be written.
    interim: Bytes,
    /// Whether all that was written has gone out.
    between: bool,
}

impl<S> Heads<S> {
    pub fn new(stream: S, interims: Interims) -> Self {
        Self {
            stream,
            head: Head::default(),
            seen: Vec::new(),
            interims,
            interim: Bytes::new(),
            between: true,
        }
    }

    pub fn head(&self) -> Head {
        self.head.clone()
    }

    fn look(&mut self, bytes: &[u8]) {
        if self.head.0.load(Ordering::Relaxed) != AWAITED {
            return;
        }
        self.seen.extend_from_slice(bytes);
        let end = self.seen.windows(4).position(|four| four == b"\r\n\r\n");
        if end.is_none() && self.seen.len() < LONGEST {
            return;
        }
        let seen = std::mem::take(&mut self.seen);
        let head = &seen[..end.unwrap_or(seen.len())];
        let found = match (is_ambiguous(head), is_for_whole_server(head)) {
            (true, _) => AMBIGUOUS,
            (false, true) => WHOLE,
            (false, false) => PASSED,
        };
        self.head.0.store(found, Ordering::Relaxed);
    }
}

/// Whether a head begins with `OPTIONS` and a URL without path and query, or with `OPTIONS *`.
fn is_for_whole_server(head: &[u8]) -> bool {
    let Some(rest) = head.trim_ascii_start().strip_prefix(b"OPTIONS ") else {
        return false;
    };
    let target = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
    let authority = target
        .windows(3)
        .position(|three| three == b"://")
        .map(|scheme| &target[scheme + 3..]);
    target == b"*" || authority.is_some_and(|rest| !rest.contains(&b'/') && !rest.contains(&b'?'))
}

fn is_ambiguous(head: &[u8]) -> bool {
    let has = |name: &str| {
        head.split(|byte| *byte == b'\n').any(|line| {
            let given = line.split(|byte| *byte == b':').next().unwrap_or_default();
            given.eq_ignore_ascii_case(name.as_bytes())
        })
    };
    has("transfer-encoding") && has("content-length")
}

impl<S: AsyncRead + Unpin> AsyncRead for Heads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        self.look(&buffer.filled()[before..]);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> Heads<S> {
    /// Writes what an origin said before its answer, as far as it is to go out now.
    fn poll_interim(&mut self, context: &mut Context<'_>, flushing: bool) -> Poll<io::Result<()>> {
        if self.interim.is_empty()
            && let Some(interim) = self.interims.take(self.between, flushing)
        {
            self.interim = interim;
        }
        while !self.interim.is_empty() {
            let stream = Pin::new(&mut self.stream);
            match ready!(stream.poll_write(context, &self.interim))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.interim.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heads<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(context, false))?;
        self.between = false;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(context, false))?;
        self.between = false;
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.interims.wake(context.waker());
        if !self.between {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.between = true;
        }
        ready!(self.poll_interim(context, true))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_words_on_the_end_are_seen_in_whatever_parts_they_come() {
        let both = b"POST / HTTP/1.1\r\ncontent-LENGTH: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        let one = b"POST /content-length: HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for step in 1..both.len() {
            let mut heads = Heads::new((), Interims::default());
            both.chunks(step).for_each(|part| heads.look(part));
            assert!(heads.head().is_ambiguous(), "{step}");
        }
        let mut heads = Heads::new((), Interims::default());
        heads.look(one);
        // What follows is a body.
        heads.look(both);
        assert!(!heads.head().is_ambiguous());
        heads.head().expect_next();
        heads.look(both);
        assert!(heads.head().is_ambiguous());
    }

    #[test]
    fn a_server_is_told_from_its_root() {
        for (line, server) in [
            ("OPTIONS http://origin.example HTTP/1.1", true),
            ("OPTIONS * HTTP/1.1", true),
            ("OPTIONS http://origin.example/ HTTP/1.1", false),
            ("OPTIONS http://origin.example?a HTTP/1.1", false),
            ("OPTIONS / HTTP/1.1", false),
            ("GET http://origin.example HTTP/1.1", false),
        ] {
            let mut heads = Heads::new((), Interims::default());
            heads.look(line.as_bytes());
            heads.look(b"\r\nHost: a\r\n\r\n");
            assert_eq!(heads.head().is_for_whole_server(), server, "{line}");
        }
    }
}
