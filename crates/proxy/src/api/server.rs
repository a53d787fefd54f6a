//! The daemon's side of the local API.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use pantala_core::{ContentMeta, Error, Kind, Result, TaskId, Who};
use pantala_node::ContentRequest;
use pantala_origin::Asker;
use url::Url;

use super::{
    END, ERROR, ErrorReport, LENGTH, START, StreamRequest, TASK,
    pages::{self, JSON, Part},
};
use crate::{
    body::{Blocks, ContentBody},
    content::{self, Begun},
    guard::Pages,
    headers::list,
    outlet::Keeps,
    range,
    reply::{self, Reply},
    server::{Client, Context},
};

/// The most bytes a request may have: a URL and a handful of headers.
const REQUEST: usize = 256 << 10;

/// Answers a request of a program on this host.
pub(crate) async fn answer(
    context: &Context,
    client: &Client,
    request: Request<Incoming>,
) -> Reply {
    let headers = request.headers();
    if let Some(refusal) = refusal(context, client, headers) {
        return refusal;
    }
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/stream") => match stream(context, request).await {
            Ok(reply) => reply,
            Err(error) => failure(&error),
        },
        (&Method::GET | &Method::HEAD, "/v1/streams") => {
            pages::part(context, headers, Part::Streams).await
        }
        (&Method::GET | &Method::HEAD, "/v1/cache") => {
            pages::part(context, headers, Part::Cache).await
        }
        (_, "/v1/stream" | "/v1/streams" | "/v1/cache") => reply::text(
            StatusCode::METHOD_NOT_ALLOWED,
            "use POST /v1/stream, GET /v1/streams or GET /v1/cache",
        ),
        _ => reply::text(
            StatusCode::NOT_FOUND,
            "not found: the local API has POST /v1/stream, GET /v1/streams and GET /v1/cache",
        ),
    }
}

/// The answer to a request that comes from another host, or from a page in a browser on this one.
pub(super) fn refusal(context: &Context, client: &Client, headers: &HeaderMap) -> Option<Reply> {
    if !client.is_here() {
        let line = "the local API is for programs on this host only";
        return Some(reply::text(StatusCode::FORBIDDEN, line));
    }
    context.guard.refusal(headers, Pages::Ours)
}

async fn stream(context: &Context, request: Request<Incoming>) -> Result<Reply> {
    let trailers = list(request.headers(), header::TE).any(|coding| coding == "trailers");
    let kind = request.headers().get(header::CONTENT_TYPE);
    // Whatever a browser sends without asking first is not this.
    if kind.is_none_or(|kind| kind != JSON) {
        return Err(bad("the request must be application/json".to_owned()));
    }
    let body = Limited::new(request.into_body(), REQUEST)
        .collect()
        .await
        .map_err(|error| bad(format!("cannot read the request: {error}")))?;
    let wanted: StreamRequest = serde_json::from_slice(&body.to_bytes())
        .map_err(|error| bad(format!("cannot read the request: {error}")))?;
    let wanted = content_request(context, &wanted)?;
    let (meta, task, start, end, first, rest, keeps): (_, _, _, _, _, Blocks, _) =
        match content::begin_part(&context.node, &wanted)
            .await
            .map_err(|refused| refused.error)?
        {
            Begun::Content(content, first) => {
                let content = *content;
                let keeps = Keeps::Pieces(content.stream.pause());
                let rest = Box::pin(content.stream.into_stream());
                let task = Some(content.task);
                let (start, end) = (content.start, content.end);
                (content.meta, task, start, end, first, rest, keeps)
            }
            Begun::Direct(direct) => {
                let meta = direct.meta().clone();
                let stream = direct.wanted()?;
                let (start, end) = stream.bounds();
                let keeps = Keeps::Place(stream.claim());
                let rest = Box::pin(stream.into_stream());
                (meta, None, start, end, None, rest, keeps)
            }
        };
    // The content may end before the range does.
    let end = end.filter(|_| meta.length.is_some());
    let length = end.map(|end| end.saturating_sub(start));
    let mut body = ContentBody::new(first, rest, length).keeping(keeps);
    if trailers {
        body = body.with_trailers(last_words);
    }
    let mut reply = Response::new(body.into());
    put_head(reply.headers_mut(), &meta, task, start, length);
    Ok(reply)
}

fn put_head(
    headers: &mut HeaderMap,
    meta: &ContentMeta,
    task: Option<TaskId>,
    start: u64,
    length: Option<u64>,
) {
    content::put_meta(headers, meta);
    headers.insert(
        header::SERVER,
        HeaderValue::from_static(crate::reply::SERVER),
    );
    headers.remove(header::ACCEPT_RANGES);
    headers.insert(START, start.into());
    if let Some(length) = length {
        headers.insert(LENGTH, length.into());
    }
    if let Some(task) = task
        && let Ok(task) = HeaderValue::try_from(task.to_string())
    {
        headers.insert(TASK, task);
    }
    // hyper sends no trailer that is not announced.
    headers.insert(
        header::TRAILER,
        HeaderValue::from_static("x-pantala-end, x-pantala-error"),
    );
}

/// How a body ended, in its trailers.
fn last_words(end: Result<()>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let report = match end {
        Ok(()) => {
            trailers.insert(END, HeaderValue::from_static("complete"));
            return trailers;
        }
        Err(error) => {
            tracing::warn!(%error, "a stream was broken off");
            serde_json::to_string(&ErrorReport::from(&error)).unwrap_or_default()
        }
    };
    // JSON has no line breaks in it, but may have characters that no header may.
    let report = HeaderValue::from_bytes(report.as_bytes());
    trailers.insert(
        ERROR,
        report.unwrap_or_else(|_| HeaderValue::from_static("{}")),
    );
    trailers
}

fn content_request(context: &Context, wanted: &StreamRequest) -> Result<ContentRequest> {
    let url: Url = wanted
        .url
        .parse()
        .map_err(|error| bad(format!("cannot use the URL: {error}")))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &wanted.headers {
        let parsed = HeaderName::try_from(name).ok();
        let (Some(name), Ok(value)) = (parsed, HeaderValue::from_str(value)) else {
            return Err(bad(format!("cannot use the header {name:?}")));
        };
        headers.append(name, value);
    }
    context.via.add(&mut headers);
    let range = match &wanted.range {
        None => None,
        Some(spec) => Some(
            range::parse_spec(spec).ok_or_else(|| bad(format!("cannot use the range {spec:?}")))?,
        ),
    };
    let digest = match &wanted.digest {
        None => None,
        Some(digest) => Some(digest.parse().map_err(|error| bad(format!("{error}")))?),
    };
    Ok(ContentRequest {
        url,
        headers,
        range,
        digest,
        share_pages: true,
        follow: true,
        limit_rate: wanted.limit_rate,
        origin_allowed: !wanted.no_origin,
        background: wanted.background,
        ask_again: true,
        interim: None,
        asker: Asker::Host,
    })
}

fn bad(what: String) -> Error {
    Error::new(Who::User, Kind::BadInput, what)
}

/// An error before the first byte.
fn failure(error: &Error) -> Reply {
    match serde_json::to_vec(&ErrorReport::from(error)) {
        Ok(report) => reply::page(reply::status(error.kind()), JSON, report),
        Err(_) => reply::failure(error),
    }
}
