use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use pantala_core::{
    ByteRange, ContentMeta, Error, Geometry, Kind, PieceDigest, PieceIndex, Result, Who,
};
use pantala_origin::{Expect, OriginBody, OriginClient, OriginRequest};
use pantala_store::{Arrival, Budget, Holder, PieceBuffer, PieceWriter, TaskPieces};
use pantala_window::RunId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{limiter::Limits, readers::OriginSource, task::Command};

/// One transfer from the origin over consecutive pieces, carried out.
pub(crate) struct OriginRun {
    pub run: RunId,
    pub pieces: Arc<TaskPieces>,
    /// Where it shows what it brings.
    pub arrival: Arc<Arrival>,
    pub budget: Arc<Budget>,
    pub limits: Limits,
    pub commands: mpsc::Sender<Command>,
    /// Counts the bytes that come: a lease whose bytes come is a good one, however long a piece takes.
    pub received: Arc<AtomicU64>,
    /// The piece that must not be begun before told.
    pub until: watch::Receiver<PieceIndex>,
    pub stop: CancellationToken,
}

/// What a transfer from the origin may have read ahead of who takes it.
pub(crate) const ORIGIN_BUFFER: u64 = pantala_origin::READ_AHEAD;

/// Where a run's bytes come from.
pub(crate) enum RunSource {
    /// A transfer that is open already: the one that brought the metadata.
    Open(OriginBody),
    /// A request yet to be made.
    Request {
        origin: OriginClient,
        source: OriginSource,
        meta: Box<ContentMeta>,
        goal: Option<PieceIndex>,
    },
}

impl OriginRun {
    /// Reads from `first` on until stopped, ended or failed, and tells the driver.
    pub async fn drive(mut self, first: PieceIndex, source: RunSource) {
        let stop = self.stop.clone();
        let result = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            result = self.read(first, source) => result,
        };
        let command = match result {
            Ok(()) => return,
            Err(error) => Command::RunFailed {
                run: self.run,
                error,
            },
        };
        let _ = self.commands.send(command).await;
    }

    async fn read(&mut self, first: PieceIndex, source: RunSource) -> Result<()> {
        let geometry = self.pieces.geometry();
        let mut body = match source {
            RunSource::Open(body) => body,
            RunSource::Request {
                origin,
                source,
                meta,
                goal,
            } => {
                let range = range_of(&geometry, first, goal, &meta);
                let request = OriginRequest {
                    headers: source.headers,
                    asker: source.asker,
                    range,
                    expect: Some(Expect::of(&meta)),
                    ..OriginRequest::new(source.url)
                };
                let charge = self.budget.charge(ORIGIN_BUFFER).await;
                let mut body = origin.get(request).await?.body;
                body.hold(charge.held_by(Holder::Origins));
                body
            }
        };
        let mut left = self.skip_to(&mut body, geometry.start(first)).await?;
        let mut piece = first;
        while geometry.has(piece) {
            if self.wait_for_leave(piece).await.is_err() {
                return Ok(());
            }
            let charge = self.budget.charge(geometry.size(piece)).await;
            let (buffer, mut writer) = PieceBuffer::charged(charge);
            let known = geometry.length().is_some();
            // A piece of content without length may turn out not to exist.
            if known {
                self.begin(piece).await;
            }
            let ended = self
                .fill(&mut body, &mut left, &mut writer, piece, known)
                .await?;
            if ended && known && writer.remaining() > 0 {
                let what = "the origin's answer ended before the content did";
                return Err(Error::new(Who::Origin, Kind::Protocol, what));
            }
            if !buffer.is_empty() {
                let digest = PieceDigest::of(buffer.filled());
                let _ = self
                    .commands
                    .send(Command::RunSealed {
                        piece,
                        buffer,
                        digest,
                    })
                    .await;
            }
            if ended {
                if !known {
                    let _ = self
                        .commands
                        .send(Command::RunEnded {
                            length: body.position(),
                        })
                        .await;
                }
                return Ok(());
            }
            piece = piece.next();
        }
        Ok(())
    }

    /// Tells the brain how far the transfer has got, whether bytes of the piece are there or not.
    async fn begin(&self, piece: PieceIndex) {
        let run = self.run;
        let _ = self.commands.send(Command::RunAt { run, piece }).await;
    }

    /// Fills one piece; `true` when the body ended.
    async fn fill(
        &self,
        body: &mut OriginBody,
        left: &mut bytes::Bytes,
        writer: &mut PieceWriter,
        piece: PieceIndex,
        begun: bool,
    ) -> Result<bool> {
        while writer.remaining() > 0 {
            if left.is_empty() {
                match body.next().await? {
                    Some(bytes) => *left = bytes,
                    None => return Ok(true),
                }
            }
            let fresh = writer.position() == 0;
            let take = left.len().min(writer.remaining()).min(self.limits.step());
            self.limits.pass(take).await;
            writer.append(&left.split_to(take));
            self.received.fetch_add(take as u64, Ordering::Relaxed);
            if fresh && !begun {
                self.begin(piece).await;
            }
            self.arrival.show(piece, writer.buffer());
        }
        // An end that falls on a piece's end is seen when the next one is begun.
        Ok(false)
    }

    /// Reads past what lies before `offset`; gives what came beyond it.
    async fn skip_to(&self, body: &mut OriginBody, offset: u64) -> Result<bytes::Bytes> {
        while body.position() < offset {
            let at = body.position();
            let Some(mut bytes) = body.next().await? else {
                let what = format!("the origin's answer ended at byte {at}, before byte {offset}");
                return Err(Error::new(Who::Origin, Kind::Protocol, what));
            };
            self.received
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if body.position() > offset {
                self.limits.pass((offset - at) as usize).await;
                return Ok(bytes.split_off((offset - at) as usize));
            }
            self.limits.pass(bytes.len()).await;
        }
        Ok(bytes::Bytes::new())
    }

    /// Waits until the piece may be begun; an error when that can never be.
    async fn wait_for_leave(&mut self, piece: PieceIndex) -> Result<(), watch::error::RecvError> {
        self.until.wait_for(|&until| piece < until).await.map(drop)
    }
}

/// What to ask the origin for: no range at all when it is everything.
fn range_of(
    geometry: &Geometry,
    first: PieceIndex,
    goal: Option<PieceIndex>,
    meta: &ContentMeta,
) -> ByteRange {
    if !meta.ranges {
        return ByteRange::ALL;
    }
    let start = geometry.start(first);
    let end = goal.map(|goal| geometry.start(goal));
    let end = end.filter(|&end| geometry.length().is_none_or(|length| end < length));
    ByteRange::new(start, end).unwrap_or(ByteRange::from(start))
}
