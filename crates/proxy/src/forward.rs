//! Requests that are passed on as they are, and their answers.

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;
use pantala_core::display_url;
use pantala_origin::{Asker, Interim, WholeServer};
use url::Url;

use crate::{
    headers::{drop_hop_by_hop, list},
    passed::Passed,
    reply::{self, Reply},
    server::Context,
    upgrade,
};

/// Passes a request on to `url`, and its answer back. `body` is `None` when it has been found
/// empty.
pub(crate) async fn pass(
    context: &Context,
    mut parts: Parts,
    body: Option<Incoming>,
    url: &Url,
) -> Reply {
    if let Some(reply) = last_hop(context, &mut parts) {
        return reply;
    }
    let protocol = upgrade::wanted(&parts);
    let trailers = list(&parts.headers, header::TE).any(|coding| coding == "trailers");
    drop_hop_by_hop(&mut parts.headers);
    if trailers {
        let trailers = HeaderValue::from_static("trailers");
        parts.headers.insert(header::TE, trailers);
    }
    // Whoever sent it is told to go on when its body is first asked for, by this proxy.
    parts.headers.remove(header::EXPECT);
    context.via.add(&mut parts.headers);
    let uri = match url.as_str().parse() {
        Ok(uri) => uri,
        Err(_) => {
            let shown = display_url(url.as_str());
            let line = format!("usage: cannot pass on a request to {shown}; check the URL");
            return reply::text(http::StatusCode::BAD_REQUEST, &line);
        }
    };
    let body = match body {
        Some(body) if !body.is_end_stream() => body.into(),
        _ => pantala_origin::Body::empty(),
    };
    let mut request = Request::new(body);
    request.extensions_mut().insert(asker(&parts));
    if let Some(whole) = parts.extensions.remove::<WholeServer>() {
        request.extensions_mut().insert(whole);
    }
    if let Some(interim) = parts.extensions.remove::<Interim>() {
        request.extensions_mut().insert(interim);
    }
    *request.method_mut() = parts.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = parts.headers;
    if let Some(protocol) = protocol {
        request.headers_mut().insert(header::UPGRADE, protocol);
        return upgrade::pass(context, request, parts.extensions).await;
    }
    let (node, asked) = (&context.node, request.headers().clone());
    let is_safe = request.method().is_safe();
    match node.origin().forward(request).await {
        Ok(answer) => {
            let status = answer.status();
            node.witness(url, &asked, status, answer.headers());
            if !is_safe && (status.is_success() || status.is_redirection()) {
                changed(url, answer.headers()).for_each(|url| node.changed(&url));
            }
            answer.map(|body| Passed::new(body, node.clone()).into())
        }
        Err(error) => reply::failure(&error),
    }
}

/// For whom a request asks an origin: for a stranger, where nobody has said more.
pub(crate) fn asker(parts: &Parts) -> Asker {
    let asker = parts.extensions.get();
    asker.copied().unwrap_or(Asker::Stranger)
}

/// What a write has changed: what stands at its URL and, on the same host, at those that its answer
/// names (RFC 9111, 4.4).
fn changed(url: &Url, answer: &HeaderMap) -> impl Iterator<Item = Url> {
    let named = [header::LOCATION, header::CONTENT_LOCATION].map(|name| {
        let named = answer.get(name)?.to_str().ok()?;
        url.join(named).ok()
    });
    let named = named.into_iter().flatten();
    let here = named.filter(|named| named.origin() == url.origin());
    std::iter::once(url.clone()).chain(here)
}

/// Counts the hops of a `TRACE` or an `OPTIONS`, and answers as the last one where this is it
/// (RFC 9110, 7.6.2).
fn last_hop(context: &Context, parts: &mut Parts) -> Option<Reply> {
    if !matches!(parts.method, Method::TRACE | Method::OPTIONS) {
        return None;
    }
    let value = parts.headers.get(header::MAX_FORWARDS)?;
    let hops: u64 = value.to_str().ok()?.trim().parse().ok()?;
    if let Some(left) = hops.checked_sub(1) {
        parts.headers.insert(header::MAX_FORWARDS, left.into());
        return None;
    }
    if parts.method == Method::OPTIONS {
        let mut reply = reply::text(StatusCode::OK, "this is a dfdaemon");
        let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE");
        reply.headers_mut().insert(header::ALLOW, allow);
        return Some(reply);
    }
    let message = HeaderValue::from_static("message/http");
    Some(reply::page(StatusCode::OK, message, traced(context, parts)))
}

/// A request as it came, without what proves who sent it.
fn traced(context: &Context, parts: &Parts) -> Vec<u8> {
    let mut message =
        format!("{} {} {:?}\r\n", parts.method, parts.uri, parts.version).into_bytes();
    let harmless = context.node.origin().harmless();
    let secret = harmless.credentials_in(&parts.headers);
    let secret: Vec<_> = secret.map(|(name, _)| name).collect();
    for (name, value) in &parts.headers {
        if !secret.contains(&name) {
            message.extend_from_slice(name.as_str().as_bytes());
            message.extend_from_slice(b": ");
            message.extend_from_slice(value.as_bytes());
            message.extend_from_slice(b"\r\n");
        }
    }
    message.extend_from_slice(b"\r\n");
    message
}
