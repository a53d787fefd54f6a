//! Content through the swarm, for a client's GET, and what is known of it for a HEAD.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;
use pantala_core::{ContentDigest, ContentMeta, Error, Kind, Result, Who};
use pantala_node::{Content, ContentRequest, Direct, DirectHead, Node, Opened, Range, StreamIo};
use pantala_origin::{Directives, Refusal, Refused, Seconds, may_be_kept};
use url::Url;

use crate::{
    body::{Blocks, ContentBody, ReplyBody},
    conditions,
    forward::{asker, pass},
    headers::drop_hop_by_hop,
    outlet::Keeps,
    range,
    reply::{self, Reply},
    rules::Way,
    server::Context,
    upgrade,
};

/// How long the head of an answer waits for the first byte of content without a length: that may
/// be an endless stream whose first event is far away.
const FIRST_BYTE: Duration = Duration::from_secs(1);

/// A mark on an answer that gives shared content, opened under the name that was asked for, and not
/// what an origin said to this client alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared;

/// What a client asks for.
pub(crate) struct Ask {
    pub url: Url,
    /// Its name, where it has one.
    pub digest: Option<ContentDigest>,
    pub way: Way,
}

/// Answers a request for what stands somewhere: a GET through the swarm, a HEAD from what is known
/// here, and whatever cannot be shared as the origin does.
pub(crate) async fn answer(context: &Context, request: Request<Incoming>, ask: Ask) -> Reply {
    let (parts, body) = request.into_parts();
    let Ask { url, digest, way } = ask;
    let sharable = way != Way::Direct && body.is_end_stream() && upgrade::wanted(&parts).is_none();
    let wanted = wanted(&parts.headers, digest.is_some()).filter(|_| sharable);
    let cached_only = Directives::of(&parts.headers).has("only-if-cached")
        && matches!(parts.method, Method::GET | Method::HEAD);
    let Some(range) = wanted else {
        if cached_only {
            return not_cached();
        }
        return pass(context, parts, Some(body), &url).await;
    };
    let asked = ContentRequest {
        url,
        headers: origin_headers(context, &parts.headers, digest.is_some()),
        range,
        digest,
        share_pages: way == Way::Stream,
        // A registry's client wants the content; any other may want to know where it is.
        follow: digest.is_some(),
        limit_rate: None,
        origin_allowed: !cached_only,
        background: false,
        ask_again: false,
        interim: parts.extensions.get().cloned(),
        asker: asker(&parts),
    };
    match parts.method {
        Method::GET => get(context, parts, asked).await,
        Method::HEAD => head(context, parts, asked).await,
        _ => pass(context, parts, Some(body), &asked.url).await,
    }
}

/// What is known is not what the client wants: the origin's answer, if it may be asked.
async fn anew(context: &Context, parts: Parts, asked: &ContentRequest) -> Reply {
    match asked.origin_allowed {
        true => pass(context, parts, None, &asked.url).await,
        false => not_cached(),
    }
}

/// The client wants nothing that somebody would have to be asked for.
fn not_cached() -> Reply {
    let line = "no answer is cached for this request, which has only-if-cached";
    reply::text(StatusCode::GATEWAY_TIMEOUT, line)
}

async fn get(context: &Context, parts: Parts, mut asked: ContentRequest) -> Reply {
    let named = asked.digest.is_some();
    let is_stale = |content: &Content| {
        !named && !content.learned && !conditions::is_fresh_enough(&parts.headers, &content.meta)
    };
    let refused = match begin(&context.node, &asked).await {
        Ok(Begun::Content(content, _)) if is_stale(&content) => {
            drop(content);
            return anew(context, parts, &asked).await;
        }
        Ok(Begun::Content(content, first)) => {
            if asked.range.is_none() || conditions::range_holds(&parts.headers, &content.meta) {
                return reply_with(&parts.headers, asked.range.is_some(), *content, first);
            }
            // The part the client has is of another content: it wants the whole of this one.
            drop(content);
            asked.range = None;
            match begin(&context.node, &asked).await {
                Ok(Begun::Content(content, first)) => {
                    return reply_with(&parts.headers, false, *content, first);
                }
                Ok(Begun::Direct(direct)) => return relay(*direct),
                Err(refused) => refused,
            }
        }
        // It was read without the client's conditions.
        Ok(Begun::Direct(_)) if parts.headers.contains_key(header::IF_RANGE) => {
            return pass(context, parts, None, &asked.url).await;
        }
        Ok(Begun::Direct(direct)) => return relay(*direct),
        Err(refused) => refused,
    };
    let Refused { error, answer } = refused;
    tracing::debug!(%error, "no content for a client");
    if error.kind() == Kind::RangeNotSatisfiable
        && let Some(length) = context.node.known(&asked).and_then(|meta| meta.length)
    {
        let mut reply = reply::failure(&error);
        let range = format!("bytes */{length}").try_into();
        let range = range.unwrap_or_else(|_| HeaderValue::from_static("bytes */*"));
        reply.headers_mut().insert(header::CONTENT_RANGE, range);
        return reply;
    }
    if let Some(answer) = answer {
        // Its challenge, its headers and its page, as this very client would have got them.
        let Refusal {
            status,
            headers,
            body,
        } = *answer;
        let mut reply = Response::new(ReplyBody::from(body));
        *reply.status_mut() = status;
        *reply.headers_mut() = headers;
        return reply;
    }
    if is_the_origins_word(&error) {
        // With its challenge, its headers and its page.
        return pass(context, parts, None, &asked.url).await;
    }
    reply::failure(&error)
}

async fn head(context: &Context, parts: Parts, mut asked: ContentRequest) -> Reply {
    // A range means something to GET alone.
    asked.range = None;
    let named = asked.digest.is_some();
    let known = context.node.known(&asked);
    let known = known.filter(|meta| named || conditions::is_fresh_enough(&parts.headers, meta));
    let Some(meta) = known else {
        return anew(context, parts, &asked).await;
    };
    let mut reply = Response::new(ReplyBody::default());
    put_meta(reply.headers_mut(), &meta);
    reply.extensions_mut().insert(Shared);
    if conditions::is_unchanged(&parts.headers, &meta) {
        unchanged(&mut reply);
    } else if let Some(length) = meta.length {
        reply
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
    }
    reply
}

/// Content of which the reader may have the first bytes.
pub(crate) enum Begun {
    /// Shared content and its first bytes, as far as they are there.
    Content(Box<Content>, Option<Bytes>),
    /// A response for this reader alone.
    Direct(Box<Direct>),
}

/// Opens content and waits for its first bytes: until then whatever fails can still be said with
/// a status.
pub(crate) async fn begin(node: &Node, request: &ContentRequest) -> Result<Begun, Refused> {
    begin_as(node, request, true).await
}

/// The same, for a reader that can be told of a part of content without a length.
pub(crate) async fn begin_part(node: &Node, request: &ContentRequest) -> Result<Begun, Refused> {
    begin_as(node, request, false).await
}

async fn begin_as(node: &Node, request: &ContentRequest, whole: bool) -> Result<Begun, Refused> {
    let opened = match node.open_or_refusal(request.clone()).await {
        // It was dropped from memory at this very moment.
        Err(Refused { error, .. }) if error.who() == Who::Us && error.is_retryable() => {
            node.open_or_refusal(request.clone()).await
        }
        opened => opened,
    };
    let mut content = match opened? {
        Opened::Content(content) => content,
        Opened::Direct(direct) => return Ok(Begun::Direct(direct)),
    };
    if whole && request.range.is_some() && content.meta.length.is_none() {
        // Where it ends is not known, so no part of it can be named: a server may send it all.
        content.stream.read_all();
        (content.start, content.end) = (0, None);
    }
    content.end = content.end.or(content.meta.length);
    let endless = content.end.is_none() && !content.meta.private;
    let first = first(&mut content.stream, endless).await?;
    Ok(Begun::Content(Box::new(content), first))
}

/// The first bytes. Private content is never begun before the origin has admitted the reader.
async fn first(stream: &mut StreamIo, endless: bool) -> Result<Option<Bytes>> {
    if !endless {
        return stream.next().await;
    }
    match tokio::time::timeout(FIRST_BYTE, stream.next()).await {
        Ok(first) => first,
        Err(_) => Ok(None),
    }
}

/// The range a request wants of shared content, or `None` when the request must be passed on
/// because what it asks for depends on more than the URL.
fn wanted(headers: &HeaderMap, named: bool) -> Option<Option<Range>> {
    const CONDITIONS: [header::HeaderName; 2] = [header::IF_MATCH, header::IF_UNMODIFIED_SINCE];
    if CONDITIONS.iter().any(|name| headers.contains_key(name)) {
        return None;
    }
    let directives = Directives::of(headers);
    // What is named by its digest cannot be stale.
    let anew = directives.has("no-cache")
        || matches!(
            directives.seconds("max-age"),
            Seconds::Invalid | Seconds::Given(Duration::ZERO)
        );
    if directives.has("no-store") || (anew && !named) {
        return None;
    }
    let old = headers.contains_key(header::PRAGMA) && !headers.contains_key(header::CACHE_CONTROL);
    if old && !named {
        return None;
    }
    let mut ranges = headers.get_all(header::RANGE).iter();
    match (ranges.next(), ranges.next()) {
        (None, _) => Some(None),
        (Some(value), None) => range::parse(value.as_bytes()).map(Some),
        _ => None,
    }
}

/// The client's headers that select the content or let it through. The same for each of its
/// requests for one content, whichever part it wants.
fn origin_headers(context: &Context, headers: &HeaderMap, named: bool) -> HeaderMap {
    let mut headers = headers.clone();
    drop_hop_by_hop(&mut headers);
    for name in [
        header::HOST,
        header::RANGE,
        header::EXPECT,
        header::IF_RANGE,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::CONTENT_LENGTH,
    ] {
        headers.remove(name);
    }
    let encoding = headers.get(header::ACCEPT_ENCODING);
    // A digest names bytes, not an encoding of them; and asking for no encoding says the same as
    // not asking for any.
    if named || encoding.is_some_and(|encoding| encoding == "identity") {
        headers.remove(header::ACCEPT_ENCODING);
    }
    context.via.add(&mut headers);
    headers
}

/// Whether the origin said no, so that its own words tell more than ours.
fn is_the_origins_word(error: &Error) -> bool {
    match error.kind() {
        Kind::RangeNotSatisfiable => true,
        Kind::Denied | Kind::NotFound | Kind::Status(_) => error.who() == Who::Origin,
        _ => false,
    }
}

/// The client has it already.
fn unchanged(reply: &mut Reply) {
    *reply.status_mut() = StatusCode::NOT_MODIFIED;
    reply.headers_mut().remove(header::CONTENT_TYPE);
    reply.headers_mut().remove(header::CONTENT_ENCODING);
}

/// Shared content as an answer.
fn reply_with(asked: &HeaderMap, ranged: bool, content: Content, first: Option<Bytes>) -> Reply {
    let Content {
        meta,
        start,
        end,
        stream,
        ..
    } = content;
    let mut reply = Response::new(ReplyBody::default());
    put_meta(reply.headers_mut(), &meta);
    reply.extensions_mut().insert(Shared);
    if conditions::is_unchanged(asked, &meta) {
        unchanged(&mut reply);
        return reply;
    }
    let length = end.map(|end| end - start);
    if let Some(length) = length {
        reply
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length.into());
    }
    if let (true, Some(end), Some(total)) = (ranged, end, meta.length)
        && start < end
    {
        *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
        let part = range::content_range(start, end, total);
        reply.headers_mut().insert(header::CONTENT_RANGE, part);
    }
    let keeps = Keeps::Pieces(stream.pause());
    let rest: Blocks = Box::pin(stream.into_stream());
    let body = ContentBody::new(first, rest, length).keeping(keeps);
    *reply.body_mut() = body.into();
    reply
}

/// What readers are told of a content.
pub(crate) fn put_meta(headers: &mut HeaderMap, meta: &ContentMeta) {
    // Another peer may have sent them: what cannot stand in a header is left out, and what is for
    // one reader or says where the message ends.
    for (name, value) in &meta.headers {
        if let (Ok(name), Ok(value)) = (
            header::HeaderName::try_from(name),
            HeaderValue::from_bytes(value.as_bytes()),
        ) && may_be_kept(&name)
        {
            headers.append(name, value);
        }
    }
    let own = [
        (header::CONTENT_TYPE, &meta.content_type),
        (header::CONTENT_ENCODING, &meta.content_encoding),
        (header::ETAG, &meta.validators.etag),
        (header::LAST_MODIFIED, &meta.validators.last_modified),
    ];
    for (name, value) in own {
        if let Some(Ok(value)) = value.as_ref().map(|value| value.as_bytes().try_into()) {
            headers.insert(name, value);
        }
    }
    headers.insert(header::AGE, meta.age.as_secs().into());
    if meta.length.is_some() {
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
}

/// A response for this client alone.
fn relay(direct: Direct) -> Reply {
    let (head, stream) = direct.whole();
    let DirectHead {
        status,
        mut headers,
        meta,
        start,
        end,
    } = head;
    drop_hop_by_hop(&mut headers);
    let length = end.map(|end| end.saturating_sub(start));
    // The body goes on where this very answer ends short of what was asked for.
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if let (StatusCode::PARTIAL_CONTENT, Some(end), Some(total)) = (status, end, meta.length) {
        headers.insert(
            header::CONTENT_RANGE,
            range::content_range(start, end, total),
        );
    }
    let keeps = Keeps::Place(stream.claim());
    let rest: Blocks = Box::pin(stream.into_stream());
    let body = ContentBody::new(None, rest, length).keeping(keeps);
    let mut reply = Response::new(body.into());
    *reply.status_mut() = status;
    *reply.headers_mut() = headers;
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_of_the_message_or_of_one_reader_is_left_out() {
        let meta = ContentMeta {
            content_type: Some("text/plain".into()),
            headers: [
                ("set-cookie", "session=theirs"),
                ("Transfer-Encoding", "chunked"),
                ("content-length", "7"),
                ("content-range", "bytes 0-6/7"),
                ("connection", "close"),
                ("keep-alive", "timeout=1"),
                ("proxy-authenticate", "Basic"),
                ("content-type", "text/html"),
                ("age", "5"),
                ("x-a", "1\r\nset-cookie: a=b"),
                ("x b", "1"),
                ("content-disposition", "attachment; filename=\"ü\""),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            ..ContentMeta::default()
        };
        let mut headers = HeaderMap::new();
        put_meta(&mut headers, &meta);
        let mut names: Vec<&str> = headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["age", "content-disposition", "content-type"]);
        assert_eq!(headers["age"], "0");
        assert_eq!(headers["content-type"], "text/plain");
    }
}
