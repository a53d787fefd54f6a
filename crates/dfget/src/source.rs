use std::time::Duration;

use bytes::Bytes;
use pantala_config::{Cache, DaemonUse, DfgetConfig, HostPort, Range as ConfigRange, Window};
use pantala_core::{Error, Kind, Result, Who};
use pantala_node::{
    ContentRequest, DirectStream, Eviction, Node, NodeConfig, Opened, Prefetch, Range, RateLimits,
    StreamIo, Totals,
};
use pantala_origin::{Asker, Harmless, OriginConfig};
use pantala_proxy::api::{
    StreamRequest,
    client::{self, DaemonStream},
};

/// Where the bytes come from.
pub(crate) struct Source {
    length: Option<u64>,
    /// This process's own peer; none when a dfdaemon is the peer.
    node: Option<Node>,
    bytes: Body,
}

enum Body {
    Daemon(Box<DaemonStream>),
    Stream(Box<StreamIo>),
    /// A response that is not shared.
    Direct(Box<DirectStream>),
}

impl Source {
    /// Opens the content, up to and including its metadata.
    pub async fn open(config: &DfgetConfig) -> Result<Self> {
        let daemon = config.daemon_addr;
        match config.daemon {
            DaemonUse::Never => {}
            DaemonUse::Auto if !client::is_running(daemon).await => {}
            DaemonUse::Only if !client::is_running(daemon).await => {
                let what = format!("no dfdaemon answers on {daemon}");
                return Err(Error::new(Who::Peer, Kind::Unavailable, what)
                    .hint("start dfdaemon, or leave out --daemon only"));
            }
            DaemonUse::Auto | DaemonUse::Only => {
                let stream = client::stream(daemon, &daemon_request(config)?).await?;
                let length = stream.length();
                return Ok(Self {
                    length,
                    node: None,
                    bytes: Body::Daemon(Box::new(stream)),
                });
            }
        }
        Self::own(config).await
    }

    async fn own(config: &DfgetConfig) -> Result<Self> {
        let node = Node::start(node_config(config)).await?;
        let opened = node.open(request(config)).await?;
        let (length, bytes) = match opened {
            Opened::Content(content) => {
                let length = content
                    .end
                    .or(content.meta.length)
                    .map(|end| end - content.start);
                (length, Body::Stream(Box::new(content.stream)))
            }
            Opened::Direct(direct) => {
                let stream = direct.wanted()?;
                let (start, end) = stream.bounds();
                let length = end.map(|end| end.saturating_sub(start));
                (length, Body::Direct(Box::new(stream)))
            }
        };
        Ok(Self {
            length,
            node: Some(node),
            bytes,
        })
    }

    /// Bytes there will be, when known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// What this process's own peer has moved; `None` when a dfdaemon moves the bytes.
    pub fn totals(&self) -> Option<Totals> {
        self.node.as_ref().map(Node::totals)
    }

    /// The next bytes, or the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match &mut self.bytes {
            Body::Daemon(stream) => stream.next().await,
            Body::Stream(stream) => stream.next().await,
            Body::Direct(stream) => stream.next().await,
        }
    }

    /// Lets children finish what they are receiving, and leaves.
    pub async fn close(self, farewell: Duration) {
        let Self { node, bytes, .. } = self;
        drop(bytes);
        if let Some(node) = node {
            node.drain(farewell).await;
            node.stop().await;
        }
    }
}

fn daemon_request(config: &DfgetConfig) -> Result<StreamRequest> {
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let value = value.to_str().map_err(|_| {
            let what = format!("the header {name} has a value that is no text");
            Error::new(Who::User, Kind::BadInput, what)
        })?;
        Ok((name.to_string(), value.to_owned()))
    };
    Ok(StreamRequest {
        url: config.url.to_string(),
        headers: config.headers.iter().map(header).collect::<Result<_>>()?,
        range: request(config).range.map(|range| match range {
            Range::Bytes(range) => match range.end() {
                Some(end) => format!("{}-{}", range.start(), end.saturating_sub(1)),
                None => format!("{}-", range.start()),
            },
            Range::Suffix(last) => format!("-{last}"),
        }),
        digest: config.digest.map(|digest| digest.to_string()),
        limit_rate: config.limit_rate,
        no_origin: config.no_origin,
        background: config.background,
    })
}

fn node_config(config: &DfgetConfig) -> NodeConfig {
    NodeConfig {
        peer_listen: config.peer_listen,
        advertise: config.advertise,
        supernodes: config.supernode.iter().map(HostPort::to_string).collect(),
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
            ..RateLimits::default()
        },
        origin: OriginConfig {
            ca: config.ca.clone(),
            connect_timeout: config.connect_timeout,
            answer_timeout: config
                .timeout
                .unwrap_or(OriginConfig::default().answer_timeout),
            read_timeout: config.read_timeout,
            retries: config.retries,
            harmless: Harmless::new(config.harmless_headers.clone()),
            ..OriginConfig::default()
        },
        filter_query: Vec::new(),
        remember_admission: Duration::from_secs(60),
        prefetch: Prefetch::None,
    }
}

fn request(config: &DfgetConfig) -> ContentRequest {
    ContentRequest {
        url: config.url.clone(),
        headers: config.headers.clone(),
        range: config.range.and_then(|range| match range {
            // A range that asks for everything is none.
            ConfigRange::Bytes(range) if range.is_all() => None,
            ConfigRange::Bytes(range) => Some(Range::Bytes(range)),
            ConfigRange::Suffix(last) => Some(Range::Suffix(last)),
        }),
        digest: config.digest,
        share_pages: true,
        follow: true,
        limit_rate: config.limit_rate,
        origin_allowed: !config.no_origin,
        background: config.background,
        ask_again: true,
        interim: None,
        asker: Asker::Host,
    }
}
