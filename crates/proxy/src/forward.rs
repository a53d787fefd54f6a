//! Requests that are passed on as they are, and their answers.

use http::{HeaderValue, Request, header, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;
use pantala_core::display_url;
use url::Url;

use crate::{
    headers::{drop_hop_by_hop, list},
    reply::{self, Reply},
    server::Context,
};

/// Passes a request on to `url`, and its answer back. `body` is `None` when it has been found
/// empty.
pub(crate) async fn pass(
    context: &Context,
    mut parts: Parts,
    body: Option<Incoming>,
    url: &Url,
) -> Reply {
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
    *request.method_mut() = parts.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = parts.headers;
    let (node, asked) = (&context.node, request.headers().clone());
    let is_safe = request.method().is_safe();
    match node.origin().forward(request).await {
        Ok(answer) => {
            let status = answer.status();
            node.witness(url, &asked, status, answer.headers());
            if !is_safe && (status.is_success() || status.is_redirection()) {
                node.changed(url);
            }
            answer.map(Into::into)
        }
        Err(error) => reply::failure(&error),
    }
}
