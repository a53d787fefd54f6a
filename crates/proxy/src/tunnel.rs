//! `CONNECT`: a blind tunnel, so that clients that use this proxy for HTTPS too go on working.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, net::TcpStream, time::timeout};

use crate::{
    body::ReplyBody,
    reply::{self, Reply},
    server::{Client, Context},
};

/// Connects to where the request says and joins the two connections.
pub(crate) async fn open(
    context: &Arc<Context>,
    client: &Client,
    request: Request<Incoming>,
) -> Reply {
    let authority = request.uri().authority().cloned();
    let Some((authority, host, port)) = authority.and_then(|authority| {
        let (host, port) = (authority.host().to_owned(), authority.port_u16()?);
        (!host.is_empty()).then_some((authority, host, port))
    }) else {
        let line = "CONNECT needs a host and a port, like origin.example:443";
        return reply::text(StatusCode::BAD_REQUEST, line);
    };
    if !context.tunnel_ports.contains(&port) {
        let ports: Vec<String> = context.tunnel_ports.iter().map(u16::to_string).collect();
        let ports = ports.join(", ");
        let line = format!("tunnels lead to port {ports} only, not to {host}:{port}");
        return reply::text(StatusCode::FORBIDDEN, &line);
    }
    // An IPv6 address stands in brackets in a URI only.
    let name = host.trim_start_matches('[').trim_end_matches(']');
    if context.rules.refuses_host(name) {
        let line = format!("a rule of this dfdaemon refuses {name}");
        return reply::text(StatusCode::FORBIDDEN, &line);
    }
    if let Some(intercept) = context.intercept.as_ref().filter(|one| one.wants(name)) {
        return intercept.open(context, client, request, authority);
    }
    let failed = |status, why: String| {
        let line = format!("origin: cannot connect to {host}:{port}: {why}");
        reply::text(status, &line)
    };
    let connecting = TcpStream::connect((name, port));
    let mut origin = match timeout(context.connect_timeout, connecting).await {
        Ok(Ok(origin)) => origin,
        Ok(Err(error)) => return failed(StatusCode::BAD_GATEWAY, error.to_string()),
        Err(_) => {
            let why = format!("no answer within {:?}", context.connect_timeout);
            return failed(StatusCode::GATEWAY_TIMEOUT, why);
        }
    };
    let loops = (origin.peer_addr()).is_ok_and(|addr| addr.ip().to_canonical().is_loopback());
    if loops && !client.is_here() {
        let line = "what listens on loopback here is for programs on this host only";
        return reply::text(StatusCode::FORBIDDEN, line);
    }
    // Only speeds it up.
    let _ = origin.set_nodelay(true);
    // The connection counts for as long as the tunnel stands.
    let (kill, held) = (context.kill.clone(), client.seat.clone());
    held.engage();
    context
        .tracker
        .spawn(kill.run_until_cancelled_owned(async move {
            let _held = held;
            // Either side may go away at any time.
            if let Ok(upgraded) = hyper::upgrade::on(request).await {
                let _ = copy_bidirectional(&mut TokioIo::new(upgraded), &mut origin).await;
            }
        }));
    Response::new(ReplyBody::default())
}
