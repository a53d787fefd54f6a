//! Requests that ask to go on in another protocol (RFC 9110, 7.8): WebSockets and the like.

use http::{Extensions, HeaderValue, Request, StatusCode, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::{
    body::ReplyBody,
    headers::list,
    passed::Passed,
    reply::{self, Reply},
    server::{Context, Held},
};

/// The protocols that a request would rather go on in.
pub(crate) fn wanted(parts: &Parts) -> Option<HeaderValue> {
    let named = list(&parts.headers, header::CONNECTION).any(|name| name == "upgrade");
    let protocol = parts.headers.get(header::UPGRADE)?;
    // HTTP itself would bring further requests, which nobody here would see.
    let http = list(&parts.headers, header::UPGRADE)
        .any(|protocol| protocol == "h2c" || protocol.starts_with("http"));
    let can = parts.extensions.get::<OnUpgrade>().is_some();
    (named && !http && can).then(|| protocol.clone())
}

/// Passes such a request on. Where the origin agrees the two connections are joined, until either
/// side ends.
pub(crate) async fn pass(
    context: &Context,
    request: Request<pantala_origin::Body>,
    mut extensions: Extensions,
) -> Reply {
    let (answer, origin) = match context.node.origin().upgrade(request).await {
        Ok(answer) => answer,
        Err(error) => return reply::failure(&error),
    };
    let Some(origin) = origin else {
        return answer.map(|body| Passed::new(body, context.node.clone()).into());
    };
    let Some(client) = extensions.remove::<OnUpgrade>() else {
        let line = "this connection cannot go on in another protocol";
        return reply::text(StatusCode::BAD_GATEWAY, line);
    };
    // The connection counts for as long as the two are joined.
    let (kill, held) = (context.kill.clone(), extensions.remove::<Held>());
    if let Some(held) = &held {
        held.engage();
    }
    context
        .tracker
        .spawn(kill.run_until_cancelled_owned(async move {
            let _held = held;
            // Either side may go away at any time.
            if let Ok(client) = client.await {
                let (mut client, mut origin) = (TokioIo::new(client), TokioIo::new(origin));
                let _ = copy_bidirectional(&mut client, &mut origin).await;
            }
        }));
    answer.map(|_| ReplyBody::default())
}
