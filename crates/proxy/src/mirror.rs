//! The registry mirror: `/v2/…` of many upstreams.

use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use pantala_core::ContentDigest;
use pantala_origin::Asker;
use url::Url;

use crate::{
    content::{self, Ask, Shared},
    forward,
    guard::Pages,
    reply::{self, Reply},
    rules::Way,
    server::{Client, Context},
    upstreams::{Destination, Kind, What},
};

/// Answers what an upstream registry would: what has a digest through the swarm, tags by the
/// registry's word alone, and everything else passed on.
pub(crate) async fn answer(
    context: &Context,
    client: &Client,
    mut request: Request<Incoming>,
) -> Reply {
    if let Some(refusal) = context.guard.refusal(request.headers(), Pages::None) {
        return refusal;
    }
    let uri = request.uri();
    // A mirror that leads anywhere is a proxy: where that has users, others get what is mirrored.
    let anywhere = client.is_here() || context.users.is_open();
    let found = context.upstreams.find(uri.path(), uri.query(), anywhere);
    let Some(destination) = found else {
        return nobody(uri.path());
    };
    if context.node.origin().lets_us_in(&destination.url) && !client.is_here() {
        let line = "this dfdaemon has credentials of its own for that registry: they are for its \
                    own host; run a dfdaemon on yours";
        return reply::text(StatusCode::FORBIDDEN, line);
    }
    let Destination {
        url,
        what,
        view,
        set_up,
    } = destination;
    // What stands on this host itself is meant by nobody who did not set it up here.
    let asker = match (set_up, client.is_here()) {
        (true, _) => Asker::Host,
        (false, true) => Asker::User,
        (false, false) => Asker::Stranger,
    };
    request.extensions_mut().insert(asker);
    let mut reply = at(context, request, url, what).await;
    view.put(reply.headers_mut());
    reply
}

async fn at(context: &Context, request: Request<Incoming>, url: Url, what: What) -> Reply {
    match (request.method(), what) {
        (&Method::GET | &Method::HEAD, What::Named(digest, kind)) => {
            let ask = Ask {
                url,
                digest: Some(digest),
                way: Way::Stream,
            };
            let mut reply = content::answer(context, request, ask).await;
            if reply.status().is_success() && reply.extensions().get::<Shared>().is_some() {
                complete(&mut reply, &digest, kind);
            }
            reply
        }
        (&Method::GET | &Method::HEAD, What::Tag) => {
            let (parts, body) = request.into_parts();
            let key = context.stale.key(&parts, &url);
            let reply = forward::pass(context, parts, Some(body), &url).await;
            match key {
                Some(key) => context.stale.keep_or_replace(key, reply).await,
                None => reply,
            }
        }
        _ => {
            let (parts, body) = request.into_parts();
            forward::pass(context, parts, Some(body), &url).await
        }
    }
}

/// When no registry is named.
fn nobody(path: &str) -> Reply {
    if matches!(path, "/v2" | "/v2/") {
        // Clients ask so whether this is a registry at all, before they name one.
        let json = HeaderValue::from_static("application/json");
        let mut reply = reply::page(StatusCode::OK, json, "{}");
        let version = HeaderValue::from_static("registry/2.0");
        reply
            .headers_mut()
            .insert("docker-distribution-api-version", version);
        return reply;
    }
    let line = "which registry? Name it in the path (/v2/registry.example/REPOSITORY/…) or with \
                ns=registry.example, or start dfdaemon with --mirror UPSTREAM_URL. One on this host \
                itself needs --upstream NAME=URL";
    reply::text(StatusCode::NOT_FOUND, line)
}

/// What clients expect of a content though some storage hosts do not send it. Not for an answer that
/// is passed on: it may be anything, and nobody has vouched for it.
fn complete(reply: &mut Reply, digest: &ContentDigest, kind: Kind) {
    let headers = reply.headers_mut();
    if kind == Kind::Blob {
        headers
            .entry(header::CONTENT_TYPE)
            .or_insert(HeaderValue::from_static("application/octet-stream"));
    }
    if let Ok(digest) = HeaderValue::try_from(digest.to_string()) {
        headers.entry("docker-content-digest").or_insert(digest);
    }
}
