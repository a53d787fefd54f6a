use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body::Body as _;
use hyper::upgrade::Upgraded;
use pantala_core::{ByteRange, ContentDigest, ContentMeta, Error, Kind, Result, Validators, Who};
use url::Url;

use crate::{
    Asker, Body, Harmless, Interim, OriginBody, OriginConfig, OriginRequest, backoff,
    connection::Transfer,
    credentials::is_signed,
    exchange::{Answer, Question, exchange, take_user},
    failure::{self, Failure},
    head::{self, Confirmed, Head},
    refusal::Refused,
    request::{self, drop_hop_by_hop, end_to_end},
    transport::{Extra, Transport},
};

/// Reads from origins. Cheap to clone: clones share connections and counters.
#[derive(Clone)]
pub struct OriginClient {
    transport: Arc<Transport>,
    received: Arc<AtomicU64>,
}

/// An origin's answer: what the content is, and its bytes.
pub struct OriginResponse {
    /// 200, or 206 when it holds a part.
    pub status: StatusCode,
    /// The headers as they came.
    pub headers: HeaderMap,
    /// What they say of the content.
    pub meta: ContentMeta,
    /// The content's offset of the body's first byte: where the range begins, or 0 when the
    /// origin ignored the range. Then the body is the whole content, and the caller leaves out
    /// what it does not want.
    pub start: u64,
    /// The content's offset after the body's last byte, when it is known.
    pub end: Option<u64>,
    /// The bytes.
    pub body: OriginBody,
    /// Whether others than who asked may have it at all: the origin forbids neither storing nor
    /// sharing it, and nothing of the request but the URL selected it. Apart from that, a
    /// [`private`](ContentMeta::private) content needs each reader checked.
    pub shareable: bool,
}

impl OriginResponse {
    /// The digest that a registry says the content has.
    pub fn digest(&self) -> Option<ContentDigest> {
        head::digest(&self.headers)
    }
}

/// Whether a content that was known before is still the same.
pub enum Revalidation {
    /// It is (304).
    Unchanged {
        /// What is known of it now: what the 304 says has taken the place of what was known
        /// (RFC 9111, 4.3.4). [`private`](ContentMeta::private) is what this very question found:
        /// whether the origin said so to somebody with credentials.
        meta: Box<ContentMeta>,
        /// As [`OriginResponse::shareable`].
        shareable: bool,
    },
    /// The origin sent it, changed or because it cannot tell.
    Sent(Box<OriginResponse>),
}

/// What an origin answered when it was asked whether it would serve a content to a reader.
#[derive(Debug)]
pub struct Served {
    /// The headers of its answer, redirects followed.
    pub headers: HeaderMap,
    /// Bytes of the whole content, when it said so.
    pub length: Option<u64>,
}

impl Served {
    /// What tells the content that it would serve from others.
    pub fn validators(&self) -> Validators {
        head::validators(&self.headers)
    }

    /// The digest that a registry says the content has.
    pub fn digest(&self) -> Option<ContentDigest> {
        head::digest(&self.headers)
    }
}

/// What a question brought.
enum Heard {
    Opened(Opened),
    /// A 304.
    Unchanged(Answer),
}

/// An answer whose head has been read and found good.
pub(crate) struct Opened {
    pub(crate) url: Url,
    pub(crate) head: Head,
    pub(crate) response: Response<Transfer>,
}

impl OriginClient {
    /// A client that speaks as `config` says. Connects to nobody.
    ///
    /// # Errors
    /// `BadInput` when a file or a host of the configuration cannot be used.
    pub fn new(config: OriginConfig) -> Result<Self> {
        Ok(Self::over(Transport::new(config)?))
    }

    pub(crate) fn over(transport: Transport) -> Self {
        Self {
            transport: Arc::new(transport),
            received: Arc::default(),
        }
    }

    /// Content bytes read off origin connections so far: all transfers, what was read again
    /// included.
    pub fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Asks for a content, or a range of it. Follows redirects, and tries again with back-off
    /// while that may help. Dropping the future gives up.
    ///
    /// # Errors
    /// Whose fault it was and what to do: see [`Kind`].
    pub async fn get(&self, request: OriginRequest) -> Result<OriginResponse> {
        self.try_get(request).await.map_err(|failure| failure.error)
    }

    /// As [`get`](Self::get), for who passes the origin's own words on when it refuses.
    ///
    /// # Errors
    /// As [`get`](Self::get), with the answer of an origin that refused.
    pub async fn get_or_refusal(&self, request: OriginRequest) -> Result<OriginResponse, Refused> {
        match self.try_get(request).await {
            Ok(response) => Ok(response),
            Err(failure) => Err(Refused::read(failure, self.config().read_timeout).await),
        }
    }

    async fn try_get(&self, request: OriginRequest) -> Result<OriginResponse, Failure> {
        if request.range.end() == Some(request.range.start()) {
            let error = Error::new(Who::User, Kind::BadInput, "the range is empty");
            return Err(error.into());
        }
        let opened = match self.open_persistently(&request).await {
            // No range of an empty content can be satisfied, so that its beginning is refused too.
            Err(failure) if failure.length == Some(0) && request.range.start() == 0 => {
                let whole = OriginRequest {
                    range: ByteRange::ALL,
                    ..request.clone()
                };
                self.open_persistently(&whole).await
            }
            result => result,
        };
        Ok(self.response(request, opened?))
    }

    /// Asks whether the content is still the one that is known, and for it if not: one GET, if
    /// nothing goes wrong.
    ///
    /// # Errors
    /// As [`get_or_refusal`](Self::get_or_refusal).
    pub async fn revalidate(
        &self,
        request: OriginRequest,
        known: &ContentMeta,
    ) -> Result<Revalidation, Refused> {
        match self.try_revalidate(&request, known).await {
            Ok(Some(revalidation)) => Ok(revalidation),
            Ok(None) => {
                let response = self.get_or_refusal(request).await?;
                Ok(Revalidation::Sent(Box::new(response)))
            }
            Err(failure) => Err(Refused::read(failure, self.config().read_timeout).await),
        }
    }

    /// `None` when only the plain question can say what the content is.
    async fn try_revalidate(
        &self,
        request: &OriginRequest,
        known: &ContentMeta,
    ) -> Result<Option<Revalidation>, Failure> {
        if known.validators.is_empty() {
            return Ok(None);
        }
        let heard = self
            .ask_persistently(request, Some(&known.validators))
            .await;
        let answer = match heard {
            Ok(Heard::Opened(opened)) => {
                let response = self.response(request.clone(), opened);
                return Ok(Some(Revalidation::Sent(Box::new(response))));
            }
            Ok(Heard::Unchanged(answer)) => answer,
            // It has become empty, so that no range of it can be satisfied.
            Err(failure) if failure.length == Some(0) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let headers = answer.response.headers();
        let private = answer.credentialed || !self.is_anonymous(&request.url, &request.headers);
        let confirmed = head::confirm(known, request, headers, private, answer.delay);
        Ok(
            confirmed.map(|Confirmed { meta, shareable }| Revalidation::Unchanged {
                meta: Box::new(meta),
                shareable,
            }),
        )
    }

    fn response(&self, request: OriginRequest, opened: Opened) -> OriginResponse {
        let Opened {
            url,
            head,
            response,
        } = opened;
        let (parts, body) = response.into_parts();
        let (start, meta, shareable) = (head.start, head.meta.clone(), head.shareable);
        let body = OriginBody::new(self.clone(), request, url, head, body);
        OriginResponse {
            status: parts.status,
            headers: parts.headers,
            meta,
            start,
            end: body.end(),
            body,
            shareable,
        }
    }

    /// Passes a request of any method on, and its answer back, as they are: no retry, no redirect
    /// followed, bodies streamed, with trailers where the request has `TE: trailers`. Hop-by-hop
    /// headers and `Host` are dropped, as a proxy must. An [`Interim`] among its extensions is told
    /// of what is said before the answer, [`WholeServer`] makes it one for the server, and an
    /// [`Asker`] says whom it is for. A request without a body and without credentials may be let through by the
    /// [host's own](crate::HostConfig::credentials).
    ///
    /// Its answer has no room yet: it is read in [little](crate::LITTLE) blocks until
    /// [`Body::limit_reads`] says otherwise.
    ///
    /// There is no limit on how long an answer may take, because some take minutes (a registry
    /// that checks an upload): dropping the future or the body ends it.
    ///
    /// # Errors
    /// When nobody answers. Any status is an answer.
    pub async fn forward(&self, request: http::Request<Body>) -> Result<Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let trailers = parts
            .headers
            .get(header::TE)
            .is_some_and(|te| te == "trailers");
        let url = passed_on(&mut parts)?;
        if trailers {
            // Of this connection again, because whoever asked takes them too.
            let te = http::HeaderValue::from_static("te");
            parts.headers.insert(header::CONNECTION, te);
            let trailers = http::HeaderValue::from_static("trailers");
            parts.headers.insert(header::TE, trailers);
        }
        let asker = parts.extensions.get().copied().unwrap_or_default();
        let extra = Extra {
            interim: parts.extensions.get::<Interim>(),
            whole_server: parts.extensions.get::<WholeServer>().is_some(),
            identity: Asker::identity(asker),
            asker,
            reads_little: true,
        };
        let answer = if body.is_end_stream() {
            let question = Question {
                transport: &self.transport,
                method: &parts.method,
                url: &url,
                headers: &parts.headers,
                limit: None,
                extra,
            };
            question.send().await?.0
        } else {
            self.transport
                .execute(parts.method, &url, parts.headers, body, extra)
                .await?
        };
        let (mut parts, body) = answer.into_parts();
        let announced: Vec<_> = parts
            .headers
            .get_all(header::TRAILER)
            .iter()
            .cloned()
            .collect();
        drop_hop_by_hop(&mut parts.headers);
        for names in announced {
            parts.headers.append(header::TRAILER, names);
        }
        let body = Body::from(body.count(self.received.clone()));
        Ok(Response::from_parts(parts, body))
    }

    /// Whether a request for this URL may be let through by what the operator gave us alone: then
    /// the answer is not for everybody, though the request proves nothing of its sender.
    pub fn lets_us_in(&self, url: &Url) -> bool {
        self.transport.auth().has_credentials(url) || self.transport.shows_certificate(url)
    }

    /// Passes on a request whose sender would rather go on in the protocol that its `Upgrade` names
    /// (RFC 9110, 7.8). With a 101 comes the connection itself; any other answer is as
    /// [`forward`](Self::forward) gives it.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub async fn upgrade(
        &self,
        request: http::Request<Body>,
    ) -> Result<(Response<Body>, Option<Upgraded>)> {
        let (mut parts, body) = request.into_parts();
        let asker = parts.extensions.get().copied().unwrap_or_default();
        let protocol = parts.headers.get(header::UPGRADE).cloned();
        let url = passed_on(&mut parts)?;
        put_upgrade(&mut parts.headers, protocol);
        let (mut answer, upgraded) = self
            .transport
            .upgrade(parts.method, &url, parts.headers, body, asker)
            .await?;
        let protocol = answer.headers().get(header::UPGRADE).cloned();
        drop_hop_by_hop(answer.headers_mut());
        if upgraded.is_some() {
            put_upgrade(answer.headers_mut(), protocol);
        }
        Ok((answer, upgraded))
    }

    /// Whether the origin would serve this content to a reader with these headers: a HEAD, or a
    /// GET of one byte where HEAD is no help. Gives what it says of the content it would serve: that
    /// it answers at all is no evidence, because a page that asks for a password is an answer too,
    /// and so is, to whoever does not `follow`, a redirect.
    ///
    /// # Errors
    /// [`Kind::Denied`] when it would not, and what else keeps it from answering.
    pub async fn check(
        &self,
        url: &Url,
        headers: &HeaderMap,
        follow: bool,
        asker: Asker,
    ) -> Result<Served> {
        let sent = end_to_end(headers, &self.transport.config().user_agent);
        let mut method = if is_signed(url) {
            Method::GET
        } else {
            Method::HEAD
        };
        let anonymous = self.is_anonymous(url, headers);
        let mut failures = 0;
        loop {
            let failure = match self.ask(&method, url, &sent, follow, asker).await {
                Ok(answer) => match judge(&method, anonymous, &answer) {
                    Verdict::Served => {
                        let headers = answer.response.into_parts().0.headers;
                        let length = head::whole_length(&headers);
                        return Ok(Served { headers, length });
                    }
                    Verdict::AskWithGet => {
                        method = Method::GET;
                        continue;
                    }
                    Verdict::Refused(failure) => failure,
                },
                Err(error) => error.into(),
            };
            failures += 1;
            self.pause_or_give_up(failure, failures)
                .await
                .map_err(|failure| failure.error)?;
        }
    }

    async fn ask(
        &self,
        method: &Method,
        url: &Url,
        sent: &HeaderMap,
        follow: bool,
        asker: Asker,
    ) -> Result<Answer> {
        let mut sent = sent.clone();
        if *method == Method::GET {
            sent.insert(header::RANGE, http::HeaderValue::from_static("bytes=0-0"));
        }
        let asker = (asker, None);
        exchange(&self.transport, method.clone(), url, sent, follow, asker).await
    }

    /// One attempt at a GET: the head of a success.
    pub(crate) async fn open(&self, request: &OriginRequest) -> Result<Opened, Failure> {
        let answer = self.ask_for(request, None).await?;
        self.opened(request, answer)
    }

    /// One GET, and its answer whatever that is. `unless` it is the content with these validators.
    async fn ask_for(
        &self,
        request: &OriginRequest,
        unless: Option<&Validators>,
    ) -> Result<Answer> {
        let mut headers = request.sent_headers(&self.transport.config().user_agent);
        if let Some(known) = unless {
            request::put_unless(&mut headers, known);
        }
        exchange(
            &self.transport,
            Method::GET,
            &request.url,
            headers,
            request.follow,
            (request.asker, request.interim.as_ref()),
        )
        .await
    }

    /// The head of an answer to a GET, when it is a success.
    fn opened(&self, request: &OriginRequest, answer: Answer) -> Result<Opened, Failure> {
        let Answer {
            url,
            response,
            credentialed,
            delay,
        } = answer;
        let (status, headers) = (response.status(), response.headers());
        if !matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            let credentials = credentialed || !self.is_anonymous(&request.url, &request.headers);
            let mut failure = failure::status(&url, status, headers, credentials);
            // Another host's words are not for who asked this one.
            if url.origin() == request.url.origin() {
                failure.answer = Some(Box::new(response));
            }
            return Err(failure);
        }
        let private = credentialed || !self.is_anonymous(&request.url, &request.headers);
        let head = head::read(&url, request, status, headers, private, delay)?;
        Ok(Opened {
            url,
            head,
            response,
        })
    }

    async fn open_persistently(&self, request: &OriginRequest) -> Result<Opened, Failure> {
        match self.ask_persistently(request, None).await? {
            Heard::Opened(opened) => Ok(opened),
            // Nobody asked whether something has changed.
            Heard::Unchanged(answer) => self.opened(request, answer),
        }
    }

    async fn ask_persistently(
        &self,
        request: &OriginRequest,
        unless: Option<&Validators>,
    ) -> Result<Heard, Failure> {
        let mut failures = 0;
        loop {
            let heard = match self.ask_for(request, unless).await {
                Ok(answer) if answer.response.status() == StatusCode::NOT_MODIFIED => {
                    Ok(Heard::Unchanged(answer))
                }
                Ok(answer) => self.opened(request, answer).map(Heard::Opened),
                Err(error) => Err(error.into()),
            };
            match heard {
                Ok(heard) => return Ok(heard),
                Err(failure) => {
                    let said = matches!(failure.error.kind(), Kind::Status(_));
                    if said && !request.ask_again {
                        return Err(failure);
                    }
                    failures += 1;
                    self.pause_or_give_up(failure, failures).await?;
                }
            }
        }
    }

    /// Waits before the next attempt, or gives the failure back when there should be none.
    async fn pause_or_give_up(&self, failure: Failure, failures: u32) -> Result<(), Failure> {
        let hopeless = !failure.error.is_retryable() || failures > self.config().retries;
        // A longer pause is for whoever asks us to keep, who can do something else meanwhile.
        let long = |asked: Duration| asked > backoff::PAUSE_MAX;
        if hopeless || failure.retry_after.is_some_and(long) {
            return Err(failure);
        }
        let pause = backoff::pause(self.config().backoff, failures, failure.retry_after);
        tracing::debug!(error = %failure.error, failures, ?pause, "asking the origin again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// The request headers that play no part in who may read.
    pub fn harmless(&self) -> &Harmless {
        &self.config().harmless
    }

    fn is_anonymous(&self, url: &Url, headers: &HeaderMap) -> bool {
        self.harmless().is_anonymous(url, headers)
    }

    pub(crate) fn config(&self) -> &OriginConfig {
        self.transport.config()
    }

    pub(crate) fn count(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Among a request's extensions: it is for the server as a whole, not for what stands at its URL
/// (`OPTIONS *`; RFC 9112, 3.2.4).
#[derive(Debug, Clone, Copy)]
pub struct WholeServer;

/// Takes out of a request what is not for the origin, and gives the URL it is for.
fn passed_on(parts: &mut http::request::Parts) -> Result<Url> {
    drop_hop_by_hop(&mut parts.headers);
    parts.headers.remove(header::HOST);
    let url = parts.uri.to_string().parse();
    let mut url: Url = url.map_err(|error: url::ParseError| {
        let what = format!("cannot pass on a request to that URL: {error}");
        Error::new(Who::User, Kind::BadInput, what)
    })?;
    take_user(&mut url, &mut parts.headers);
    Ok(url)
}

/// Names a protocol to go on in, for the next hop.
fn put_upgrade(headers: &mut HeaderMap, protocol: Option<http::HeaderValue>) {
    if let Some(protocol) = protocol {
        let upgrade = http::HeaderValue::from_static("upgrade");
        headers.insert(header::CONNECTION, upgrade);
        headers.insert(header::UPGRADE, protocol);
    }
}

/// What an answer to a check says.
enum Verdict {
    Served,
    AskWithGet,
    Refused(Failure),
}

fn judge(method: &Method, anonymous: bool, answer: &Answer) -> Verdict {
    let status = answer.response.status();
    // One byte of an empty content is out of range, but was not refused to the reader. A redirect is
    // here only where none is followed.
    if status.is_success() || status.is_redirection() || status == StatusCode::RANGE_NOT_SATISFIABLE
    {
        return Verdict::Served;
    }
    // What was signed for GET is refused to a HEAD.
    let signed_for_get = status == StatusCode::FORBIDDEN && is_signed(&answer.url);
    if *method == Method::HEAD && (signed_for_get || matches!(status.as_u16(), 400 | 405 | 501)) {
        return Verdict::AskWithGet;
    }
    let credentials = answer.credentialed || !anonymous;
    Verdict::Refused(failure::status(
        &answer.url,
        status,
        answer.response.headers(),
        credentials,
    ))
}

impl fmt::Debug for OriginClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginClient")
            .field("received_bytes", &self.received_bytes())
            .finish_non_exhaustive()
    }
}

/// Leaves the headers out: they may carry credentials.
impl fmt::Debug for OriginResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginResponse")
            .field("status", &self.status)
            .field("start", &self.start)
            .field("end", &self.end)
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}
