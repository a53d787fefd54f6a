//! Which request goes where.

use http::{HeaderValue, Method, Request, StatusCode, Version, uri::Scheme};
use hyper::body::Incoming;
use pantala_core::display_url;
use url::Url;

use crate::{
    api, content,
    metrics::Route,
    mirror,
    reply::{self, Reply},
    server::{Client, Context},
    tunnel,
};

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Answers one request.
pub(crate) async fn answer(
    context: &Context,
    client: &Client,
    request: Request<Incoming>,
) -> Reply {
    let old = request.version() == Version::HTTP_10;
    let (method, shown) = (request.method().clone(), shown(&request));
    let route = route(&request);
    let mut reply = match route {
        _ if context.via.is_in(request.headers()) => {
            let line = "this request has come by this dfdaemon before; \
                        let neither --mirror nor a proxy setting point at dfdaemon itself";
            reply::text(StatusCode::LOOP_DETECTED, line)
        }
        Route::Tunnel => tunnel::open(context, client, request).await,
        Route::Proxy => proxied(context, request).await,
        Route::Mirror => mirror::answer(context, request).await,
        Route::Api => api::server::answer(context, client, request).await,
        Route::Own => own(context, &request),
    };
    if old {
        reply.body_mut().or_abort(client.abort.clone());
    }
    context.metrics.request(route, reply.status());
    tracing::debug!(client = %client.addr, %method, target = shown, status = reply.status().as_u16(), "request");
    reply
}

fn route(request: &Request<Incoming>) -> Route {
    let uri = request.uri();
    if request.method() == Method::CONNECT {
        return Route::Tunnel;
    }
    if uri.scheme().is_some() {
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
fn shown(request: &Request<Incoming>) -> String {
    match request.uri().scheme() {
        Some(_) => display_url(&request.uri().to_string()),
        None if request.method() == Method::CONNECT => request.uri().to_string(),
        None => request.uri().path().to_owned(),
    }
}

async fn proxied(context: &Context, request: Request<Incoming>) -> Reply {
    let uri = request.uri();
    let url = match uri.to_string().parse::<Url>() {
        Ok(url) if url.has_host() => url,
        _ => return reply::text(StatusCode::BAD_REQUEST, "usage: that is no URL with a host"),
    };
    if !(uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS)) {
        let line = format!(
            "usage: cannot read from {} URLs; use http or https",
            url.scheme()
        );
        return reply::text(StatusCode::BAD_REQUEST, &line);
    }
    content::get(context, request, url, None).await
}

/// Pages for operators.
fn own(context: &Context, request: &Request<Incoming>) -> Reply {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let line = "nothing here takes that method; to use this dfdaemon as a proxy, \
                    send the whole URL";
        return reply::text(StatusCode::METHOD_NOT_ALLOWED, line);
    }
    match request.uri().path() {
        "/healthz" => reply::text(StatusCode::OK, "ok"),
        "/metrics" => reply::page(StatusCode::OK, OPEN_METRICS, context.metrics.text()),
        _ => {
            let line = "not found: this is a dfdaemon. Use it as an HTTP proxy \
                        (http_proxy=http://HOST:PORT) or as a registry mirror (/v2/); \
                        it also has /healthz, /metrics and /v1/streams";
            reply::text(StatusCode::NOT_FOUND, line)
        }
    }
}
