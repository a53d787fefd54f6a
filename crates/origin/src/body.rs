use std::any::Any;
use std::{fmt, pin::Pin, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use pantala_core::{BLOCK_MAX, ByteRange, Error, Generation, Kind, Result, Who, display_url};
use tokio::time::Instant;
use url::Url;

use crate::{
    Expect, OriginClient, OriginRequest, backoff,
    client::Opened,
    connection::Transfer,
    failure::{self, Failure},
    head::Head,
};

/// The bytes of an answer, in order and without a gap, over as many connections as it takes.
///
/// What holds:
/// - `position` only grows, by what was handed over;
/// - bytes of two connections are joined only when a strong validator vouches that they are of the
///   same representation, or a digest will; where there is neither, all come from one connection;
/// - the end is reported only at `end`, or, without one, where the framing says so.
///
/// Dropping it closes the transfer.
pub struct OriginBody {
    client: OriginClient,
    /// As the caller asked, and asked again when the transfer breaks.
    request: Box<OriginRequest>,
    /// What the first answer said of the content.
    known: Expect,
    /// Where the body began.
    first: u64,
    /// The content's offset of the next byte to hand over.
    position: u64,
    /// Where the body must end, when known.
    end: Option<u64>,
    /// Whether the first answer was to the range, not to the whole in spite of it.
    partial: bool,
    state: State,
    /// Breaks in a row without a byte handed over in between.
    failures: u32,
    /// What of the last read was more than a block.
    leftover: Bytes,
    /// What the caller wants to live as long as the transfer.
    held: Option<Box<dyn Any + Send>>,
}

enum State {
    Reading(Box<Segment>),
    Resuming(Resuming),
    Ended,
    Failed(Error),
}

/// An attempt to go on. It lives here, not in `next`, so that a cancelled `next` loses nothing.
type Resuming = Pin<Box<dyn Future<Output = Result<Opened, Failure>> + Send>>;

/// One connection's share of the body.
struct Segment {
    url: Url,
    body: Transfer,
    /// The content's offset of the next byte that it brings.
    at: u64,
    /// Where it ends, when it says.
    end: Option<u64>,
    /// How long the caller has waited since the last byte.
    waited: Duration,
}

impl OriginBody {
    /// Keeps something for as long as the transfer is open: what its buffers were charged to.
    pub fn hold(&mut self, held: impl Any + Send) {
        self.held = Some(Box::new(held));
    }

    pub(crate) fn new(
        client: OriginClient,
        request: OriginRequest,
        url: Url,
        head: Head,
        body: Transfer,
    ) -> Self {
        let segment = Segment::new(url, &head, body);
        Self {
            client,
            known: known(&request, &head),
            first: head.start,
            position: head.start,
            end: target(&request, &head),
            partial: head.partial,
            request: request.into(),
            state: State::Reading(Box::new(segment)),
            failures: 0,
            leftover: Bytes::new(),
            held: None,
        }
    }

    /// The content has a digest of its own that its readers check: the transfer may go on over another
    /// connection whatever the origin says of its version.
    pub fn named_by_digest(&mut self) {
        self.known.generation = Generation::Digest;
    }

    /// The content's offset of the next byte that [`next`](Self::next) hands over.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The content's offset after the last byte, when it is known.
    pub fn end(&self) -> Option<u64> {
        self.end
    }

    /// The next bytes, [`BLOCK_MAX`] at most and never none; `None` where the body ends. A
    /// transfer that breaks goes on at the same byte over another connection.
    ///
    /// They share memory with the connection's read buffer: whoever keeps them copies them.
    ///
    /// Cancel safe: what a dropped call had not handed over, the next call does.
    ///
    /// # Errors
    /// When it cannot go on: [`Kind::Changed`] when the content is no longer the same, else what
    /// broke it last. It is final: further calls give the same error.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if !self.leftover.is_empty() {
                return Ok(Some(self.hand_over()));
            }
            match &mut self.state {
                State::Ended => return Ok(None),
                State::Failed(error) => return Err(error.clone()),
                State::Reading(segment) => {
                    let config = self.client.config();
                    // What is still to come of a complete body is only its framing.
                    let complete = segment.end == Some(segment.at);
                    let limit = if complete {
                        Duration::ZERO
                    } else {
                        config.read_timeout
                    };
                    match segment.read(limit).await {
                        Ok(Some(bytes)) => self.take(bytes),
                        Ok(None) => self.segment_ended(),
                        Err(_) if complete => self.segment_ended(),
                        Err(error) => self.broke(error.into()),
                    }
                }
                State::Resuming(attempt) => match attempt.as_mut().await {
                    Ok(opened) => self.resumed(opened),
                    Err(failure) => self.resumption_failed(failure),
                },
            }
        }
    }

    fn hand_over(&mut self) -> Bytes {
        let block = self.leftover.split_to(self.leftover.len().min(BLOCK_MAX));
        self.position += block.len() as u64;
        self.failures = 0;
        block
    }

    /// Takes what a connection brought, less what has been handed over before.
    fn take(&mut self, mut bytes: Bytes) {
        self.client.count(bytes.len());
        let State::Reading(segment) = &mut self.state else {
            return;
        };
        let again = self
            .position
            .saturating_sub(segment.at)
            .min(bytes.len() as u64);
        segment.at += bytes.len() as u64;
        if segment.end.is_some_and(|end| segment.at > end) {
            let error = failure::protocol(&segment.url, "sent more than it announced");
            self.state = State::Failed(error);
            return;
        }
        self.leftover = bytes.split_off(again as usize);
    }

    /// A connection brought all it had to, by its framing.
    fn segment_ended(&mut self) {
        let State::Reading(segment) = &self.state else {
            return;
        };
        let (at, whole, url) = (
            segment.at,
            segment.end == Some(segment.at),
            segment.url.clone(),
        );
        let short = match self.end {
            Some(end) => self.position < end,
            // Even without a length it must reach what was there before.
            None => at < self.position,
        };
        if !short {
            self.state = State::Ended;
        } else if whole && self.failures == 0 && at == self.position && self.can_go_on() {
            // An origin may answer a range in shorter parts (RFC 9110, 15.3.7): the next one.
            self.resume(Duration::ZERO);
        } else {
            let what = format!("{} ended early, at byte {at}", display_url(url.as_str()));
            self.broke(Error::new(Who::Origin, Kind::Unreachable, what).into());
        }
    }

    /// The transfer broke, or an attempt to go on failed: tries (again), or gives up.
    fn broke(&mut self, failure: Failure) {
        self.failures += 1;
        let hopeless =
            !failure.error.is_retryable() || self.failures > self.client.config().retries;
        let long = |asked: Duration| asked > backoff::PAUSE_WITHIN_MAX;
        if hopeless || failure.retry_after.is_some_and(long) {
            self.state = State::Failed(failure.error);
        } else if !self.can_go_on() {
            let url = display_url(self.request.url.as_str());
            let error = failure::no_way_on(&url, self.position, &failure.error);
            self.state = State::Failed(error);
        } else {
            let pause = backoff::pause(
                self.client.config().backoff,
                self.failures,
                failure.retry_after,
            );
            tracing::debug!(error = %failure.error, position = self.position, ?pause, "resuming");
            self.resume(pause);
        }
    }

    /// Whether another connection's bytes may follow: nothing was handed over yet, or something
    /// vouches for them.
    fn can_go_on(&self) -> bool {
        self.position == self.first || self.known.can_be_joined()
    }

    fn resume(&mut self, pause: Duration) {
        debug_assert!(self.can_go_on(), "two representations in one body");
        let client = self.client.clone();
        let end = if self.partial {
            self.request.range.end()
        } else {
            None
        };
        let request = OriginRequest {
            range: ByteRange::new(self.position, end).unwrap_or(ByteRange::from(self.position)),
            suffix: None,
            expect: Some(self.known.clone()),
            ..(*self.request).clone()
        };
        self.state = State::Resuming(Box::pin(async move {
            tokio::time::sleep(pause).await;
            client.open(&request).await
        }));
    }

    fn resumed(&mut self, opened: Opened) {
        let Opened {
            url,
            head,
            response,
        } = opened;
        let body = response.into_body();
        if head.start > self.position {
            let what = format!(
                "went on at byte {} instead of {}",
                head.start, self.position
            );
            self.state = State::Failed(failure::protocol(&url, what));
            return;
        }
        self.end = self.end.or_else(|| target(&self.request, &head));
        self.known.length = self.known.length.or(head.meta.length);
        self.state = State::Reading(Box::new(Segment::new(url, &head, body)));
    }

    fn resumption_failed(&mut self, failure: Failure) {
        // What broke in its last framing is complete when nothing follows.
        if self.end.is_none() && self.ends_here(&failure) {
            self.state = State::Ended;
        } else {
            self.broke(failure);
        }
    }

    /// Whether the origin refused to go on because the content ends exactly here.
    fn ends_here(&self, failure: &Failure) -> bool {
        failure.error.kind() == Kind::RangeNotSatisfiable && failure.length == Some(self.position)
    }
}

/// What is known of the content: what the caller knew, else what the first answer says.
fn known(request: &OriginRequest, head: &Head) -> Expect {
    let told = Expect::of(&head.meta);
    match &request.expect {
        Some(expect) => Expect {
            length: expect.length.or(told.length),
            ..expect.clone()
        },
        None => told,
    }
}

/// Where a body ends that begins with this answer: at the end of the range or of the content,
/// even when this answer brings less of it.
fn target(request: &OriginRequest, head: &Head) -> Option<u64> {
    if !head.partial {
        return head.end;
    }
    match (request.range.end(), head.meta.length) {
        (Some(end), Some(length)) => Some(end.min(length)),
        (None, Some(length)) => Some(length),
        (_, None) => head.end,
    }
}

impl Segment {
    fn new(url: Url, head: &Head, body: Transfer) -> Self {
        Self {
            url,
            body,
            at: head.start,
            end: head.end,
            waited: Duration::ZERO,
        }
    }

    /// The next bytes; `None` where the framing ends. `limit` bounds how long the caller waits
    /// for them, over cancelled calls.
    async fn read(&mut self, limit: Duration) -> Result<Option<Bytes>> {
        let left = limit.saturating_sub(self.waited);
        let waiting = Waiting {
            waited: &mut self.waited,
            since: Instant::now(),
        };
        let chunk = tokio::time::timeout(left, chunk(&mut self.body)).await;
        drop(waiting);
        match chunk {
            Ok(Ok(bytes)) => {
                self.waited = Duration::ZERO;
                Ok(bytes)
            }
            Ok(Err(error)) => Err(failure::broken_body(&error, &self.url, self.at)),
            Err(_) => Err(failure::silence(&self.url, limit)),
        }
    }
}

/// The next bytes of the body; its trailers say nothing of a content.
async fn chunk(body: &mut Transfer) -> Result<Option<Bytes>, hyper::Error> {
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
            _ => {}
        }
    }
    Ok(None)
}

/// Adds up the time spent waiting, also when the wait is cancelled. Time in which nobody waits
/// is not the origin's.
struct Waiting<'a> {
    waited: &'a mut Duration,
    since: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.waited += self.since.elapsed();
    }
}

impl fmt::Debug for OriginBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginBody")
            .field("request", &self.request)
            .field("position", &self.position)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
