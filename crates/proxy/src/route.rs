//! Which request goes where.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, StatusCode, Version, header, uri::Authority};
use hyper::body::{Body as _, Incoming};
use pantala_core::display_url;
use pantala_origin::{Asker, WholeServer, is_loopback};
use url::Url;

use crate::{
    api,
    content::{self, Ask},
    metrics::Route,
    mirror,
    reply::{self, Reply},
    rules::Verdict,
    server::{Client, Context, Held},
    tunnel,
    upstreams::{self, What},
    users,
};

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Answers one request.
pub(crate) async fn answer(
    context: &Arc<Context>,
    client: &Client,
    mut request: Request<Incoming>,
) -> Reply {
    let in_use = client.seat.begin();
    let old = request.version() == Version::HTTP_10;
    if !old {
        let extensions = request.extensions_mut();
        extensions.insert(client.interims.listener());
    }
    request.extensions_mut().insert(Held::of(client));
    if client.head.is_for_whole_server() {
        request.extensions_mut().insert(WholeServer);
    }
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let bodiless = request.body().is_end_stream();
    let (method, shown) = (request.method().clone(), shown(client, &request));
    let route = route(client, &request);
    let mut reply = match refusal(context, client, &request, route) {
        Some(refusal) => refusal,
        None => match route {
            Route::Tunnel => tunnel::open(context, client, request).await,
            Route::Proxy => proxied(context, client, request).await,
            Route::Mirror => mirror::answer(context, client, request).await,
            Route::Api => api::server::answer(context, client, request).await,
            Route::Own => own(context, client, &request).await,
        },
    };
    client.interims.answered();
    if old {
        reply.body_mut().or_abort(client.abort.clone());
    }
    reply.body_mut().behind(client.gate.clone(), in_use);
    if chunked {
        // Whatever else it may have said of its length, nothing can hide behind it.
        let close = HeaderValue::from_static("close");
        reply.headers_mut().insert(header::CONNECTION, close);
    }
    if bodiless {
        client.head.expect_next();
    }
    context.metrics.request(route, reply.status());
    tracing::debug!(client = %client.addr, %method, target = shown, status = reply.status().as_u16(), "request");
    reply
}

/// What no route takes.
fn refusal(
    context: &Context,
    client: &Client,
    request: &Request<Incoming>,
    route: Route,
) -> Option<Reply> {
    let headers = request.headers();
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        let line = "usage: send one Host header";
        return Some(reply::text(StatusCode::BAD_REQUEST, line));
    }
    let page = match route {
        Route::Own => true,
        Route::Api => matches!(*request.method(), Method::GET | Method::HEAD),
        Route::Proxy | Route::Mirror | Route::Tunnel => false,
    };
    if client.seat.is_beyond() && !page {
        context.connections.turn_away();
        tracing::debug!(client = %client.addr, "turned a client away: too many connections");
        return Some(too_many());
    }
    if context.via.is_in(headers) {
        let line = "this request has come by this dfdaemon before; \
                    let neither --mirror nor a proxy setting point at dfdaemon itself";
        tracing::warn!(client = %client.addr, target = shown(client, request), "a request went in a circle");
        return Some(reply::text(StatusCode::LOOP_DETECTED, line));
    }
    if client.head.is_ambiguous() {
        tracing::warn!(client = %client.addr, "a request has both Transfer-Encoding and Content-Length");
        let line = "usage: send either Transfer-Encoding or Content-Length, not both";
        return Some(reply::text(StatusCode::BAD_REQUEST, line));
    }
    if matches!(route, Route::Proxy | Route::Tunnel)
        && client.secure.is_none()
        && !context.users.admit(headers)
    {
        return Some(users::ask());
    }
    None
}

/// The answer to who comes when there are too many connections.
fn too_many() -> Reply {
    let line = "this dfdaemon has as many connections as it may have (--connections), or as many of \
                your address as one may have";
    let mut reply = reply::text(StatusCode::SERVICE_UNAVAILABLE, line);
    let headers = reply.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}

fn route(client: &Client, request: &Request<Incoming>) -> Route {
    let uri = request.uri();
    if request.method() == Method::CONNECT {
        return Route::Tunnel;
    }
    if uri.scheme().is_some() || client.secure.is_some() {
        return Route::Proxy;
    }
    match uri.path() {
        "/v2" => Route::Mirror,
        path if path.starts_with("/v2/") => Route::Mirror,
        path if path.starts_with("/v1/") => Route::Api,
        _ => Route::Own,
    }
}

/// Where a request goes, as it may be logged.
fn shown(client: &Client, request: &Request<Incoming>) -> String {
    if let Some(host) = &client.secure {
        return format!("https://{host}{}", request.uri().path());
    }
    match request.uri().scheme() {
        Some(_) => display_url(&request.uri().to_string()),
        None if request.method() == Method::CONNECT => request.uri().to_string(),
        None => request.uri().path().to_owned(),
    }
}

async fn proxied(context: &Context, client: &Client, mut request: Request<Incoming>) -> Reply {
    let url = match proxied_url(client, &request) {
        Ok(url) => url,
        Err((status, line)) => return reply::text(status, &line),
    };
    if is_loopback(&url) && !client.is_here() {
        let line = "what listens on loopback here is for programs on this host only";
        return reply::text(StatusCode::FORBIDDEN, line);
    }
    let (way, url) = match context.rules.judge(url) {
        Verdict::Go(way, url) => (way, url),
        Verdict::Refused => {
            let line = "a rule of this dfdaemon refuses that";
            return reply::text(StatusCode::FORBIDDEN, line);
        }
    };
    // Its users have said who they are.
    let asker = match (client.is_here(), context.users.is_open()) {
        (true, _) => Asker::Host,
        (false, false) => Asker::User,
        (false, true) => Asker::Stranger,
    };
    request.extensions_mut().insert(asker);
    if context.node.origin().lets_us_in(&url) && asker == Asker::Stranger {
        let line = "this dfdaemon has credentials of its own for that host: they are for its own \
                    users";
        return reply::text(StatusCode::FORBIDDEN, line);
    }
    let digest = match upstreams::what(url.path()) {
        What::Named(digest, _) => Some(digest),
        _ => None,
    };
    content::answer(context, request, Ask { url, digest, way }).await
}

/// The URL of a request to the proxy.
fn proxied_url(client: &Client, request: &Request<Incoming>) -> Result<Url, (StatusCode, String)> {
    let uri = request.uri();
    let bad = |line: &str| Err((StatusCode::BAD_REQUEST, format!("usage: {line}")));
    let text = match &client.secure {
        None => uri.to_string(),
        Some(to) => {
            if !is_for(to, request) {
                let line = format!("this connection leads to {to}, not to another host");
                return Err((StatusCode::MISDIRECTED_REQUEST, line));
            }
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            // The server as a whole has no path.
            let path = if path == "*" { "/" } else { path };
            format!("https://{to}{path}")
        }
    };
    let Some(url) = text.parse::<Url>().ok().filter(Url::has_host) else {
        return bad("that is no URL with a host");
    };
    match url.scheme() {
        "http" | "https" => Ok(url),
        scheme => bad(&format!(
            "cannot read from {scheme} URLs; use http or https"
        )),
    }
}

/// Whether a request of an intercepted connection is for the host the connection was made to.
fn is_for(to: &Authority, request: &Request<Incoming>) -> bool {
    let same = |other: &Authority| {
        other.host().eq_ignore_ascii_case(to.host())
            && other.port_u16().unwrap_or(443) == to.port_u16().unwrap_or(443)
    };
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let named = hosts
        .next()
        .and_then(|host| host.to_str().ok()?.parse().ok());
    request.uri().authority().is_none_or(same)
        && hosts.next().is_none()
        && named.is_some_and(|named: Authority| same(&named))
}

/// Pages for operators.
async fn own(context: &Context, client: &Client, request: &Request<Incoming>) -> Reply {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let line = "nothing here takes that method; to use this dfdaemon as a proxy, \
                    send the whole URL";
        return reply::text(StatusCode::METHOD_NOT_ALLOWED, line);
    }
    match request.uri().path() {
        "/" => api::pages::front(context, client, request.headers()).await,
        "/healthz" => reply::text(StatusCode::OK, "ok"),
        "/metrics" => reply::page(StatusCode::OK, OPEN_METRICS, context.metrics.text()),
        _ => {
            let line = "not found: this is a dfdaemon. Use it as an HTTP proxy \
                        (http_proxy=http://HOST:PORT) or as a registry mirror (/v2/); \
                        it also has /, /healthz, /metrics, /v1/streams and /v1/cache";
            reply::text(StatusCode::NOT_FOUND, line)
        }
    }
}
