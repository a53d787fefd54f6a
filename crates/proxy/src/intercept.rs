//! Opens the HTTPS of chosen hosts, for clients that trust the authority that answers for them.

use std::{path::Path, sync::Arc, time::Duration};

use globset::{Glob, GlobSet, GlobSetBuilder};
use http::{Request, Response, uri::Authority};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pantala_core::{Error, Kind, Result, Who};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::{
    body::ReplyBody,
    connection::Abort,
    names,
    outlet::Gate,
    reply::{self, Reply},
    server::{self, Client, Context},
};

/// How long a client may take for its side of a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The hosts whose tunnels are opened.
pub(crate) struct Intercept {
    hosts: GlobSet,
    authority: Arc<pantala_ca::Authority>,
}

impl Intercept {
    /// Opens what leads to `hosts`, with the authority in the directory `authority`.
    ///
    /// # Errors
    /// When the authority's files cannot be used.
    pub fn new(hosts: &[Glob], authority: &Path) -> Result<Self> {
        let mut set = GlobSetBuilder::new();
        for host in hosts {
            set.add(names::of_hosts(host));
        }
        let hosts = set.build().map_err(|error| {
            let what = format!("--intercept: {error}");
            Error::new(Who::User, Kind::BadInput, what).hint("write hosts like *.example")
        })?;
        let authority = pantala_ca::Authority::load(authority)?;
        tracing::info!(authority = authority.fingerprint(), "intercepting HTTPS");
        Ok(Self {
            hosts,
            authority: authority.into(),
        })
    }

    /// Whether tunnels to this host are opened.
    pub fn wants(&self, host: &str) -> bool {
        self.hosts.is_match(names::host(host))
    }

    /// Answers for the host to which a `CONNECT` would lead.
    pub fn open(
        &self,
        context: &Arc<Context>,
        client: &Client,
        request: Request<Incoming>,
        to: Authority,
    ) -> Reply {
        let host = to.host().trim_start_matches('[').trim_end_matches(']');
        let config = match self.authority.server_config(host) {
            Ok(config) => config,
            Err(error) => return reply::failure(&error),
        };
        // On TLS the end of a body is marked: none is taken for complete that is not.
        let inner = Client {
            secure: Some(to),
            abort: Abort::default(),
            gate: Gate::default(),
            ..client.clone()
        };
        inner.seat.engage();
        let (kill, serving) = (context.kill.clone(), context.clone());
        context
            .tracker
            .spawn(kill.run_until_cancelled_owned(async move {
                let Ok(upgraded) = hyper::upgrade::on(request).await else {
                    return;
                };
                let accepting = TlsAcceptor::from(config).accept(TokioIo::new(upgraded));
                match timeout(HANDSHAKE, accepting).await {
                    Ok(Ok(stream)) => server::serve(stream, inner, &serving).await,
                    Ok(Err(error)) => {
                        // Most often a client that was not told to trust the authority.
                        let host = inner.secure.map(|to| to.to_string());
                        tracing::warn!(
                            client = %inner.addr,
                            host,
                            %error,
                            "a client broke off the handshake; does it trust ca.pem?"
                        );
                    }
                    Err(_) => tracing::debug!(client = %inner.addr, "a handshake took too long"),
                }
            }));
        Response::new(ReplyBody::default())
    }
}
