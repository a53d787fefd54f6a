//! The node agent: a peer, the proxy that this host's clients speak to, and, where no supernode
//! is named, one of its own.
//!
//! Goals: one command serves one host; a stop lets what is under way finish; a start that cannot
//! succeed says why in one line.
//!
//! Non-goals: everything that moves bytes, which is `pantala_node`'s and `pantala_proxy`'s.

mod inside;
pub mod jobs;
mod limits;

use std::{
    io::{Write as _, stderr},
    net::SocketAddr,
    time::Instant,
};

use pantala_config::{Action, Cache, DfdaemonConfig, HostPort, Window};
use pantala_core::{Error, Kind, Result, Who, format_size};
use pantala_node::{Eviction, Node, NodeConfig, Prefetch, RateLimits};
use pantala_origin::{ClientCert, Credentials, Harmless, HostConfig, OriginConfig};
use pantala_proxy::{Proxy, ProxyConfig, Rule, Upstream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::inside::Inside;

/// Serves until SIGTERM or SIGINT comes, and then until what was under way has finished or
/// `--drain` is over. A second signal ends the wait.
///
/// # Errors
/// When it cannot start: an address that is taken, a file of certificates that cannot be read.
pub async fn run(config: DfdaemonConfig) -> Result<()> {
    let mut signals = Signals::new()?;
    limits::raise_open_files();
    let inside = match config.supernode.is_empty() {
        true => Some(Inside::start(config.supernode_listen).await?),
        false => None,
    };
    let supernodes = match &inside {
        Some(inside) => vec![inside.reachable().to_string()],
        None => config.supernode.iter().map(HostPort::to_string).collect(),
    };
    let node = Node::start(node_config(&config, supernodes)).await?;
    let proxy = Proxy::start(proxy_config(&config), node.clone()).await?;
    announce(
        &config,
        proxy.local_addr(),
        node.peer_addr(),
        inside.as_ref(),
    );

    signals.next().await;
    info!(drain = ?config.drain, "stopping");
    let stopping = async {
        let until = Instant::now() + config.drain;
        proxy.stop(config.drain).await;
        // Children may be in the middle of a piece.
        node.drain(until.saturating_duration_since(Instant::now()))
            .await;
    };
    tokio::select! {
        () = stopping => {}
        () = signals.next() => info!("stopping at once"),
    }
    node.stop().await;
    match inside {
        Some(inside) => inside.stop().await,
        None => Ok(()),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let wanted = |kind| {
            signal(kind).map_err(|error| {
                Error::new(Who::Us, Kind::Internal, format!("no signals: {error}"))
            })
        };
        Ok(Self {
            interrupt: wanted(SignalKind::interrupt())?,
            terminate: wanted(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn node_config(config: &DfdaemonConfig, supernodes: Vec<String>) -> NodeConfig {
    NodeConfig {
        peer_listen: config.peer_listen,
        advertise: config.advertise,
        supernodes,
        labels: config.labels.clone().into_iter().collect(),
        memory: config.memory,
        window: match config.window {
            Window::Auto => None,
            Window::Pieces(pieces) => Some(pieces.get()),
        },
        cache: match config.cache {
            Cache::Lru => Eviction::Lru,
            Cache::Swarm => Eviction::Swarm,
        },
        uploads: config.uploads,
        rates: RateLimits {
            upload: config.upload_rate,
            download: config.download_rate,
            task_upload: config.task_upload_rate,
            task_download: config.task_download_rate,
        },
        origin: OriginConfig {
            ca: config.ca.clone(),
            connect_timeout: config.connect_timeout,
            answer_timeout: config.timeout,
            read_timeout: config.read_timeout,
            retries: config.retries,
            harmless: Harmless::new(config.harmless_headers.clone()),
            hosts: host_configs(&config.upstreams),
            ..OriginConfig::default()
        },
        filter_query: config.filter_query.clone(),
        remember_admission: config.remember_auth,
        prefetch: match config.prefetch {
            pantala_config::Prefetch::None => Prefetch::None,
            pantala_config::Prefetch::Window => Prefetch::Window,
            pantala_config::Prefetch::All => Prefetch::All,
        },
    }
}

/// How upstreams are spoken to, each host once: several names may lead to it.
fn host_configs(upstreams: &[pantala_config::Upstream]) -> Vec<HostConfig> {
    let plain = HostConfig::default();
    let mut hosts: Vec<HostConfig> = Vec::new();
    for upstream in upstreams {
        let host = host_config(upstream);
        let says_nothing = HostConfig {
            host: String::new(),
            ..host.clone()
        } == plain;
        if !says_nothing && !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

/// How an upstream is spoken to, whoever asks for something there.
fn host_config(upstream: &pantala_config::Upstream) -> HostConfig {
    let url = &upstream.url;
    let host = url.host_str().unwrap_or_default();
    let credentials = upstream.credentials.clone();
    let certificate = upstream.client_cert.clone();
    HostConfig {
        host: match url.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        },
        ca: upstream.ca.clone(),
        client_cert: certificate.map(|(cert, key)| ClientCert { cert, key }),
        credentials: credentials.map(|(username, password)| Credentials { username, password }),
        anonymous_tokens: upstream.anonymous,
        cleartext_credentials: upstream.cleartext_credentials,
        ..HostConfig::default()
    }
}

fn proxy_config(config: &DfdaemonConfig) -> ProxyConfig {
    let upstreams = config.upstreams.iter().map(|upstream| Upstream {
        name: upstream.name.clone(),
        url: upstream.url.clone(),
    });
    let rules = config.rules.iter().map(|rule| Rule {
        host: rule.host.clone(),
        path: rule.path.clone(),
        action: match &rule.action {
            Action::Stream => pantala_proxy::Action::Stream,
            Action::Direct => pantala_proxy::Action::Direct,
            Action::Redirect(to) => pantala_proxy::Action::Redirect(to.clone()),
            Action::Refuse => pantala_proxy::Action::Refuse,
        },
    });
    let intercept = !config.intercept.is_empty();
    ProxyConfig {
        mirror: config.mirror.clone(),
        upstreams: upstreams.collect(),
        rules: rules.collect(),
        intercept: intercept.then(|| (config.intercept.clone(), config.intercept_ca.clone())),
        users: config.proxy_auth.clone(),
        allowed_hosts: config.allow_host.clone(),
        serve_stale: config.serve_stale,
        connect_timeout: config.connect_timeout,
        client_timeout: config.client_timeout,
        connections: config.connections,
        tunnel_ports: config.tunnel_ports.clone(),
        ..ProxyConfig::new(config.listen)
    }
}

/// One line, also when the log is off.
fn announce(
    config: &DfdaemonConfig,
    clients: SocketAddr,
    peers: SocketAddr,
    inside: Option<&Inside>,
) {
    let supernode = match inside {
        Some(inside) => format!("supernode inside on {}", inside.addr()),
        None => {
            let names: Vec<String> = config.supernode.iter().map(HostPort::to_string).collect();
            format!("supernode {}", names.join(", "))
        }
    };
    let memory = format_size(config.memory);
    // Whoever closed standard error does not want to know.
    let _ = writeln!(
        stderr(),
        "dfdaemon: listening on {clients} for clients and {peers} for peers, {supernode}, memory {memory}"
    );
}
