use bytes::{Buf, BufMut, BytesMut, buf::Limit};
use pantala_core::{Error, Kind, Who};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::frame::{CONTROL_MAX, DATA, DATA_MAX, HEADER, ToChild, ToParent, broken};

/// Reads frames off one direction of a connection.
///
/// Small frames are gathered in a small buffer; a block's bytes are read straight to where they
/// belong, so that only what came along with its header is copied.
#[derive(Debug)]
pub struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
    /// Bytes of the data frame that is being read.
    data_left: usize,
}

/// The beginning of a block; its bytes are taken with [`FrameReader::read_data`] or
/// [`FrameReader::skip_data`], all of them, before the next frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataFrame {
    /// The request it belongs to.
    pub request: u32,
    /// Its bytes.
    pub len: usize,
}

/// What a child reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A message.
    Message(ToChild),
    /// A block begins.
    Data(DataFrame),
}

/// Enough for headers and news; little is copied out of it when a block follows.
const BUFFER: usize = 4 << 10;

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `io`.
    pub fn new(io: R) -> Self {
        Self {
            io,
            buffer: BytesMut::with_capacity(BUFFER),
            data_left: 0,
        }
    }

    /// The next thing the parent says; `None` when it closed the connection between frames.
    ///
    /// # Errors
    /// When the connection breaks or what comes is no protocol: the connection is of no use then.
    /// Not cancel-safe while a frame is half read only in that the caller must go on with it.
    pub async fn from_parent(&mut self) -> Result<Option<Incoming>, Error> {
        debug_assert_eq!(self.data_left, 0, "the block before has not been taken");
        loop {
            let Some((kind, len)) = self.header().await? else {
                return Ok(None);
            };
            if kind == DATA {
                return self.data(len).await.map(Some);
            }
            let payload = self.payload(len).await?;
            // What a later version says besides is skipped.
            if let Some(message) = ToChild::decode(kind, &payload)? {
                return Ok(Some(Incoming::Message(message)));
            }
        }
    }

    async fn data(&mut self, len: usize) -> Result<Incoming, Error> {
        if !(5..=DATA_MAX).contains(&len) {
            return Err(broken(format!("a block of {len} bytes")));
        }
        self.gather(HEADER + 4).await?;
        self.buffer.advance(HEADER);
        let request = self.buffer.get_u32();
        self.data_left = len - 4;
        Ok(Incoming::Data(DataFrame {
            request,
            len: len - 4,
        }))
    }

    /// The next thing the child says; `None` when it closed the connection between frames.
    ///
    /// # Errors
    /// As [`FrameReader::from_parent`].
    pub async fn from_child(&mut self) -> Result<Option<ToParent>, Error> {
        loop {
            let Some((kind, len)) = self.header().await? else {
                return Ok(None);
            };
            let payload = self.payload(len).await?;
            // What a later version says besides is skipped.
            if let Some(message) = ToParent::decode(kind, &payload)? {
                return Ok(Some(message));
            }
        }
    }

    /// Reads some of the current block into `to`; gives how many bytes. The block is done when all
    /// its bytes have been read.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn read_data(&mut self, to: &mut impl BufMut) -> Result<usize, Error> {
        let want = self.data_left.min(to.remaining_mut());
        if !self.buffer.is_empty() {
            let len = want.min(self.buffer.len());
            to.put(self.buffer.split_to(len));
            self.data_left -= len;
            return Ok(len);
        }
        let mut limited: Limit<_> = to.limit(want);
        let len = self
            .io
            .read_buf(&mut limited)
            .await
            .map_err(|error| lost(&error))?;
        if len == 0 && want > 0 {
            return Err(ended());
        }
        self.data_left -= len;
        Ok(len)
    }

    /// Reads the rest of the current block and throws it away.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn skip_data(&mut self) -> Result<(), Error> {
        let mut sink = BytesMut::new();
        while self.data_left > 0 {
            sink.clear();
            sink.reserve(self.data_left.min(16 << 10));
            let room = sink.capacity();
            self.read_data(&mut (&mut sink).limit(room)).await?;
        }
        Ok(())
    }

    async fn header(&mut self) -> Result<Option<(u8, usize)>, Error> {
        if self.buffer.is_empty() {
            self.buffer.reserve(BUFFER);
            let len = self
                .io
                .read_buf(&mut self.buffer)
                .await
                .map_err(|error| lost(&error))?;
            if len == 0 {
                return Ok(None);
            }
        }
        self.gather(HEADER).await?;
        let len = u32::from_be_bytes([
            self.buffer[1],
            self.buffer[2],
            self.buffer[3],
            self.buffer[4],
        ]);
        Ok(Some((self.buffer[0], len as usize)))
    }

    async fn payload(&mut self, len: usize) -> Result<BytesMut, Error> {
        if len > CONTROL_MAX {
            return Err(broken(format!("a message of {len} bytes")));
        }
        self.gather(HEADER + len).await?;
        self.buffer.advance(HEADER);
        Ok(self.buffer.split_to(len))
    }

    /// Has at least `len` bytes in the buffer.
    async fn gather(&mut self, len: usize) -> Result<(), Error> {
        while self.buffer.len() < len {
            self.buffer.reserve((len - self.buffer.len()).max(BUFFER));
            if self
                .io
                .read_buf(&mut self.buffer)
                .await
                .map_err(|error| lost(&error))?
                == 0
            {
                return Err(ended());
            }
        }
        Ok(())
    }
}

fn lost(error: &std::io::Error) -> Error {
    Error::new(
        Who::Peer,
        Kind::Unreachable,
        format!("the connection broke: {error}"),
    )
}

fn ended() -> Error {
    Error::new(
        Who::Peer,
        Kind::Unreachable,
        "the connection ended in the middle of a frame",
    )
}

#[cfg(test)]
mod tests {
    use pantala_core::{PeerId, PieceIndex, TaskId};

    use super::*;
    use crate::link::data_header;

    const TASK: TaskId = TaskId::from_bytes([3; 32]);

    #[tokio::test]
    async fn messages_and_blocks_come_in_order_however_they_are_cut() {
        let mut wire = BytesMut::new();
        let hello = ToChild::hello(PeerId::from_bytes([1; 16]));
        let news = ToChild::Receiving {
            task: TASK,
            piece: PieceIndex::new(5),
        };
        let block: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
        hello.encode(&mut wire);
        wire.put_slice(&data_header(7, block.len()));
        wire.put_slice(&block);
        // Something that only a later version knows.
        wire.put_slice(&[250, 0, 0, 0, 3, 1, 2, 3]);
        news.encode(&mut wire);
        for cut in [1usize, 3, 700, 100_000] {
            let mut parts = tokio_test_reader(&wire, cut);
            let mut reader = FrameReader::new(&mut parts);
            assert_eq!(
                reader.from_parent().await.unwrap(),
                Some(Incoming::Message(hello.clone()))
            );
            let frame = DataFrame {
                request: 7,
                len: block.len(),
            };
            assert_eq!(
                reader.from_parent().await.unwrap(),
                Some(Incoming::Data(frame))
            );
            let mut got = BytesMut::with_capacity(block.len());
            while got.len() < block.len() {
                reader.read_data(&mut got).await.unwrap();
            }
            assert_eq!(&got[..], &block[..]);
            assert_eq!(
                reader.from_parent().await.unwrap(),
                Some(Incoming::Message(news.clone()))
            );
            assert_eq!(reader.from_parent().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn an_oversized_frame_is_refused_before_it_is_read() {
        let mut wire = BytesMut::new();
        wire.put_u8(16);
        wire.put_u32(1 << 30);
        let mut reader = FrameReader::new(&wire[..]);
        assert_eq!(
            reader.from_parent().await.unwrap_err().kind(),
            Kind::Protocol
        );
    }

    #[tokio::test]
    async fn an_end_within_a_block_is_no_clean_end() {
        let mut wire = BytesMut::new();
        wire.put_slice(&data_header(7, 100));
        wire.put_slice(&[0; 10]);
        let mut reader = FrameReader::new(&wire[..]);
        reader.from_parent().await.unwrap();
        assert_eq!(
            reader.skip_data().await.unwrap_err().kind(),
            Kind::Unreachable
        );
    }

    /// Gives at most `cut` bytes a read.
    fn tokio_test_reader(bytes: &[u8], cut: usize) -> impl AsyncRead + Unpin {
        struct Cut<'a>(&'a [u8], usize);
        impl AsyncRead for Cut<'_> {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                to: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                let len = self.0.len().min(self.1).min(to.remaining());
                to.put_slice(&self.0[..len]);
                self.0 = &self.0[len..];
                std::task::Poll::Ready(Ok(()))
            }
        }
        Cut(bytes, cut)
    }
}
