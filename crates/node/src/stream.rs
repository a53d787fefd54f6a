use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use pantala_core::{ContentDigest, ContentHasher, Error, Kind, PieceIndex, Result, Who};
use pantala_store::{PieceBuffer, Slot};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::task::TaskTracker;

use crate::{
    error,
    limiter::Limits,
    metrics::{Level, Metrics},
    rates,
    readers::{Pause, Reader},
    task::{Command, TaskHandle},
};

/// Hands a content's bytes to one reader: in ascending order, each once, verified (or straight
/// from the origin), and with an error that cannot be taken for the end.
///
/// What the reader takes moves its window; a reader that stops taking stops its window and nothing
/// else. Dropping the stream closes the window.
pub struct StreamIo {
    task: Arc<TaskHandle>,
    reader: Arc<Reader>,
    metrics: Metrics,
    position: u64,
    /// The byte after the last one wanted; the content's end when `None`.
    end: Option<u64>,
    /// The buffer the position lies in.
    current: Option<Current>,
    checksum: Option<Checksum>,
    limits: Limits,
    /// The node's memory budget in bytes.
    memory: u64,
    /// The origin's word that this reader may have the content.
    admission: Option<JoinHandle<Result<()>>>,
    /// This reader's own request brought the answer.
    learned: bool,
    opened: Instant,
    first_byte: bool,
    over: bool,
    _level: Level,
    counted: Arc<Counted>,
    tracker: TaskTracker,
}

struct Current {
    piece: PieceIndex,
    buffer: Arc<PieceBuffer>,
    /// Whether the buffer is complete.
    held: bool,
}

impl Current {
    /// The bytes that may be handed over. The last ones of a piece that comes straight from the
    /// origin wait until it is sealed: a reader is never past a piece that others cannot have.
    fn there(&self) -> usize {
        let (len, capacity) = (self.buffer.len(), self.buffer.capacity());
        if self.held || len < capacity {
            len
        } else {
            capacity.saturating_sub(1) & !(KEPT_BACK - 1)
        }
    }
}

struct Checksum {
    hasher: ContentHasher,
    expected: ContentDigest,
    /// A digest given by the reader alone says nothing about the content others have.
    names_content: bool,
}

/// One of the node's readers, for the shares of the memory budget.
pub(crate) struct Counted {
    readers: watch::Sender<usize>,
    counts: AtomicBool,
}

impl Counted {
    pub fn new(readers: &watch::Sender<usize>) -> Self {
        readers.send_modify(|count| *count += 1);
        Self {
            readers: readers.clone(),
            counts: true.into(),
        }
    }

    /// Whether it has a share: one that takes nothing has none.
    pub fn count(&self, counts: bool) {
        if self.counts.swap(counts, Ordering::Relaxed) != counts {
            self.readers.send_modify(|count| match counts {
                true => *count += 1,
                false => *count -= 1,
            });
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count(false);
    }
}

/// What the node knows of a reader when it opens the stream.
pub(crate) struct StreamSetup {
    pub task: Arc<TaskHandle>,
    pub reader: Arc<Reader>,
    pub metrics: Metrics,
    pub start: u64,
    pub end: Option<u64>,
    pub digest: Option<(ContentDigest, bool)>,
    pub limit_rate: Option<u64>,
    pub admission: Option<JoinHandle<Result<()>>>,
    pub memory: u64,
    pub learned: bool,
    pub opened: Instant,
    pub counted: Arc<Counted>,
    pub tracker: TaskTracker,
}

/// How much of a piece waits for its seal, at most.
const KEPT_BACK: usize = 64 << 10;
/// The most bytes handed over at once: what a slow reader's socket keeps from being freed.
const CHUNK: usize = 256 << 10;
/// The most where many readers share little memory.
const CHUNK_MIN: usize = 16 << 10;
/// What is handed over to all readers and not written yet is at most this part of the memory.
const HANDED_OVER: u64 = 8;

impl StreamIo {
    pub(crate) fn new(setup: StreamSetup) -> Self {
        let StreamSetup {
            task,
            reader,
            metrics,
            start,
            end,
            digest,
            limit_rate,
            admission,
            memory,
            learned,
            opened,
            counted,
            tracker,
        } = setup;
        task.pieces.wake_on_readable(&reader.waker);
        let checksum = digest.map(|(expected, names_content)| Checksum {
            hasher: expected.hasher(),
            expected,
            names_content,
        });
        Self {
            _level: metrics.reader(),
            task,
            reader,
            metrics,
            position: start,
            end,
            current: None,
            checksum,
            limits: rates::reader(limit_rate),
            memory,
            admission,
            learned,
            opened,
            first_byte: false,
            over: false,
            counted,
            tracker,
        }
    }

    /// The offset in the content of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes on at another offset: a new window that starts there. What a checksum over the whole
    /// would have said cannot be said any more.
    pub fn seek(&mut self, position: u64) {
        self.read_from(position, self.reader.end);
    }

    /// Reads all of the content instead of the part that was asked for.
    pub fn read_all(&mut self) {
        self.end = None;
        self.read_from(0, None);
    }

    fn read_from(&mut self, position: u64, end: Option<PieceIndex>) {
        let geometry = self.task.pieces.geometry();
        let reader = self.task.readers.open(
            geometry.piece_at(position),
            end,
            self.reader.source.clone(),
            self.reader.background,
            self.counted.clone(),
        );
        // Not before: what comes for this reader alone would be stopped.
        let former = std::mem::replace(&mut self.reader, reader);
        self.task.readers.close(&former);
        self.counted.count(true);
        self.task.pieces.wake_on_readable(&self.reader.waker);
        self.position = position;
        self.current = None;
        self.checksum = None;
        self.over = false;
    }

    /// The next bytes; `None` at the end of what was asked for. After an error or the end there is
    /// nothing more.
    ///
    /// # Errors
    /// Only when nobody can serve the content any more, the origin included, or when the whole has
    /// not the digest it must have. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.over {
            return Ok(None);
        }
        let result = self.take().await;
        match &result {
            Ok(Some(bytes)) => {
                self.metrics.reader_sent(bytes.len() as u64);
                if !std::mem::replace(&mut self.first_byte, true) {
                    self.metrics.first_byte(self.opened.elapsed());
                }
            }
            Ok(None) | Err(_) => self.over = true,
        }
        result
    }

    /// The way to say that the reader takes nothing of what it was handed.
    pub fn pause(&self) -> Pause {
        Pause::new(&self.task, &self.reader)
    }

    /// The stream as a [`Stream`] of blocks; it ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send {
        stream::try_unfold(self, |mut this| async move {
            Ok(this.next().await?.map(|bytes| (bytes, this)))
        })
    }

    /// The stream as a reader for whoever copies bytes.
    pub fn into_async_read(self) -> impl tokio::io::AsyncRead + Send {
        use futures_util::TryStreamExt as _;
        tokio_util::io::StreamReader::new(Box::pin(
            self.into_stream().map_err(std::io::Error::other),
        ))
    }

    /// The origin's word that this reader may have the content.
    pub(crate) async fn admitted(&mut self) -> Result<()> {
        let Some(admission) = &mut self.admission else {
            return Ok(());
        };
        let admitted = admission.await.unwrap_or_else(|_| Err(error::stopping()));
        self.admission = None;
        admitted
    }

    /// Waits until the stream's first bytes are there, or it is known that they never come. The reader
    /// whose own request brought the answer does not wait: it is told the head at once.
    pub(crate) async fn begins(&mut self) -> Result<()> {
        if self.learned {
            return Ok(());
        }
        self.admitted().await?;
        self.ready().await.map(drop)
    }

    async fn take(&mut self) -> Result<Option<Bytes>> {
        self.admitted().await?;
        self.task.readers.asks(&self.reader);
        if self.is_at_end() {
            return self.finish().map(|()| None);
        }
        let Some((from, to)) = self.ready().await? else {
            return self.finish().map(|()| None);
        };
        let to = to.min(from + self.limits.step());
        self.limits.pass(to - from).await;
        // Nothing of it is kept: while nobody asks for more its memory may be needed elsewhere.
        let Some(current) = self.current.take() else {
            return Err(internal());
        };
        let bytes = current.buffer.slice(from..to);
        drop(current);
        if let Some(checksum) = &mut self.checksum {
            checksum.hasher.update(&bytes);
        }
        self.position += bytes.len() as u64;
        self.moved();
        // The last bytes are kept back until the whole is known to be right: a body of the right
        // length must not look complete when it is wrong.
        if self.is_at_end() {
            self.finish()?;
        }
        Ok(Some(bytes))
    }

    fn end(&self) -> Option<u64> {
        let length = self.task.pieces.geometry().length();
        match (self.end, length) {
            (Some(end), Some(length)) => Some(end.min(length)),
            (end, length) => end.or(length),
        }
    }

    fn is_at_end(&self) -> bool {
        self.end().is_some_and(|end| self.position >= end)
    }

    /// Waits until bytes at the position may be handed over; gives where in the current buffer
    /// they lie, or `None` when the content turned out to end here.
    async fn ready(&mut self) -> Result<Option<(usize, usize)>> {
        let waker = self.reader.waker.clone();
        let chunk = self.chunk();
        loop {
            let notified = waker.notified();
            if self.is_at_end() {
                return Ok(None);
            }
            let geometry = self.task.pieces.geometry();
            let piece = geometry.piece_at(self.position);
            if self
                .current
                .as_ref()
                .is_none_or(|current| current.piece != piece || !current.held)
            {
                self.look(piece);
            }
            if let Some(current) = &self.current {
                let from = (self.position - geometry.start(piece)) as usize;
                let there = current.there();
                let wanted = self.end().map_or(u64::MAX, |end| end - self.position);
                let to =
                    there.min(from.saturating_add(chunk.min(wanted.min(chunk as u64) as usize)));
                if to > from {
                    return Ok(Some((from, to)));
                }
            }
            if let Some(failure) = self.reader.failure() {
                return Err(failure.clone());
            }
            if self.task.pieces.is_closed() {
                return Err(error::stopping());
            }
            notified.await;
            self.task.readers.asks(&self.reader);
        }
    }

    /// The most bytes to hand over at once: a client that stands still keeps as many.
    fn chunk(&self) -> usize {
        let each = self.memory / HANDED_OVER / self.metrics.readers().max(1) as u64;
        usize::try_from(each)
            .unwrap_or(CHUNK)
            .clamp(CHUNK_MIN, CHUNK)
    }

    fn look(&mut self, piece: PieceIndex) {
        self.current = match self.task.pieces.slot(piece) {
            Slot::Held(buffer) => {
                self.task.pieces.touch(piece);
                Some(Current {
                    piece,
                    buffer,
                    held: true,
                })
            }
            Slot::Filling {
                buffer,
                trusted: true,
            } => Some(Current {
                piece,
                buffer,
                held: false,
            }),
            Slot::Filling { trusted: false, .. } | Slot::Missing => None,
        };
    }

    /// The piece of which a reader had the part it wanted before the rest of it came. It is not
    /// given up: who reads small parts comes for the next one.
    fn unfinished(&self) -> Option<PieceIndex> {
        let end = self.end.filter(|end| self.position >= *end && *end > 0)?;
        let piece = self.task.pieces.geometry().piece_at(end - 1);
        let coming = matches!(self.task.pieces.slot(piece), Slot::Filling { .. });
        (coming && !self.task.pieces.is_closed()).then_some(piece)
    }

    /// Tells the driver when the reader needs another piece.
    fn moved(&mut self) {
        let next = self.task.pieces.geometry().piece_at(self.position);
        if self.reader.next() < next {
            self.task.readers.took(&self.reader, next);
            self.current = None;
        }
    }

    fn finish(&mut self) -> Result<()> {
        let Some(checksum) = self.checksum.take() else {
            return Ok(());
        };
        let found = checksum.hasher.finish();
        if found == checksum.expected {
            self.task
                .proven
                .store(checksum.names_content, Ordering::Relaxed);
            return Ok(());
        }
        if checksum.names_content {
            // Whoever has it has something else under its name.
            let _ = self.task.commands.try_send(Command::Poison);
        }
        let what = format!("the content has {found}, not {}", checksum.expected);
        Err(Error::new(Who::Origin, Kind::DigestMismatch, what)
            .hint("check the digest; the origin may serve something else under this name"))
    }
}

fn internal() -> Error {
    Error::new(Who::Us, Kind::Internal, "a stream lost its place")
}

impl Drop for StreamIo {
    fn drop(&mut self) {
        if let Some(admission) = &self.admission {
            admission.abort();
        }
        match self.unfinished() {
            Some(piece) => {
                let (task, reader) = (self.task.clone(), self.reader.clone());
                let counted = self.counted.clone();
                self.tracker.spawn(finish(task, reader, piece, counted));
            }
            None => self.task.readers.close(&self.reader),
        }
    }
}

/// Waits until a piece is whole, or cannot be had.
async fn finish(
    task: Arc<TaskHandle>,
    reader: Arc<Reader>,
    piece: PieceIndex,
    _counted: Arc<Counted>,
) {
    let waker = reader.waker.clone();
    loop {
        let notified = waker.notified();
        let held = matches!(task.pieces.slot(piece), Slot::Held(_));
        if held || reader.failure().is_some() || task.pieces.is_closed() {
            break;
        }
        notified.await;
    }
    task.readers.close(&reader);
}

impl std::fmt::Debug for StreamIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamIo")
            .field("task", &self.task.id)
            .field("position", &self.position)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
