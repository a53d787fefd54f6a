//! A parent that does what a test says, at the other end of a connection in memory.

use std::time::Duration;

use bytes::BytesMut;
use pantala_core::{PeerId, PieceIndex, TaskId};
use pantala_wire::link::{FrameReader, ToChild, ToParent, data_header};
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream},
    time::timeout,
};

/// Longer than a child is silent that has something to say, on a clock that does not wait for it.
const LONG: Duration = Duration::from_secs(3600);

pub(crate) struct Parent {
    pub peer: PeerId,
    read: FrameReader<DuplexStream>,
    write: DuplexStream,
}

/// A request as a parent hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub request: u32,
    pub piece: PieceIndex,
    pub offset: u32,
}

impl Parent {
    /// A parent that has these directions of a connection.
    pub fn new(peer: PeerId, read: DuplexStream, write: DuplexStream) -> Self {
        let read = FrameReader::new(read);
        Self { peer, read, write }
    }

    /// Closes the direction by which it hears the child.
    pub fn stop_listening(self) -> DuplexStream {
        self.write
    }

    pub async fn say(&mut self, messages: &[ToChild]) {
        let mut out = BytesMut::new();
        for message in messages {
            message.encode(&mut out);
        }
        self.write_bytes(&out).await;
    }

    pub async fn greet(&mut self) {
        self.say(&[ToChild::hello(self.peer)]).await;
    }

    pub async fn holds(&mut self, task: TaskId, piece: PieceIndex) {
        let runs = vec![(piece, 1)];
        self.say(&[ToChild::Holds { task, runs }]).await;
    }

    /// Sends a block.
    pub async fn send(&mut self, request: u32, block: &[u8]) {
        self.begin_block(request, block.len(), block).await;
    }

    /// Says that a block of so many bytes comes, and sends these.
    pub async fn begin_block(&mut self, request: u32, len: usize, bytes: &[u8]) {
        let mut out = BytesMut::from(&data_header(request, len)[..]);
        out.extend_from_slice(bytes);
        self.write_bytes(&out).await;
    }

    pub async fn done(&mut self, request: u32, size: usize) {
        let size = size as u32;
        self.say(&[ToChild::Done { request, size }]).await;
    }

    pub async fn write_bytes(&mut self, bytes: &[u8]) {
        // A child that has left hears nothing.
        let _ = self.write.write_all(bytes).await;
    }

    /// Waits for the next message of the child; `None` when it has closed the connection.
    pub async fn hear(&mut self) -> Option<ToParent> {
        let heard = timeout(LONG, self.read.from_child()).await;
        heard
            .expect("the child says something")
            .expect("frames of a child")
    }

    /// Takes all messages that the child has sent by now; `None` when it has closed the connection, or this
    /// parent cannot be heard any more.
    pub async fn hear_now(&mut self) -> Option<Vec<ToParent>> {
        let mut heard = Vec::new();
        loop {
            match timeout(Duration::ZERO, self.read.from_child()).await {
                Ok(Ok(Some(message))) => heard.push(message),
                Ok(Ok(None) | Err(_)) => return None,
                Err(_) => return Some(heard),
            }
        }
    }

    /// Waits until the child follows a task.
    pub async fn hear_follow(&mut self, task: TaskId) {
        let follow = ToParent::Follow { task };
        while self.hear().await.expect("the child follows") != follow {}
    }

    /// The child's next request; what it says before is let pass.
    pub async fn hear_want(&mut self) -> Asked {
        loop {
            match self.hear().await.expect("the child asks") {
                ToParent::Want {
                    request,
                    piece,
                    offset,
                    ..
                } => {
                    return Asked {
                        request,
                        piece,
                        offset,
                    };
                }
                ToParent::Cancel { request } => panic!("{request} is cancelled"),
                _ => {}
            }
        }
    }
}
