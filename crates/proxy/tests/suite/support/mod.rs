//! A proxy with a node and a supernode of its own, an origin that does as a test says, and a
//! client that sees what is on the wire.

pub mod client;
pub mod origin;

use std::{net::SocketAddr, time::Duration};

use pantala_node::{Node, NodeConfig, Prefetch};
use pantala_origin::OriginConfig;
use pantala_proxy::{Proxy, ProxyConfig};
use pantala_supernode::{Supernode, SupernodeConfig};
use tokio_util::sync::CancellationToken;

pub use client::{Framing, exchange, get};
pub use origin::{Origin, Reply, Seen};

/// A whole dfdaemon but for its flags.
pub struct Daemon {
    pub node: Node,
    pub addr: SocketAddr,
    proxy: Proxy,
    supernode: Supernode,
    cancel: CancellationToken,
}

impl Daemon {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn mirroring(origin: &Origin) -> Self {
        let upstream = origin.url("/");
        Self::with(|config| config.mirror = Some(upstream)).await
    }

    pub async fn with(change: impl FnOnce(&mut ProxyConfig)) -> Self {
        Self::of(|_| {}, change).await
    }

    /// One whose node is set up otherwise.
    pub async fn of(
        change_node: impl FnOnce(&mut NodeConfig),
        change: impl FnOnce(&mut ProxyConfig),
    ) -> Self {
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let cancel = CancellationToken::new();
        let config = SupernodeConfig {
            listen: local,
            swarm: Default::default(),
        };
        let supernode = Supernode::start(config, cancel.clone()).await.unwrap();
        let mut node = NodeConfig {
            peer_listen: local,
            advertise: None,
            supernodes: vec![supernode.local_addr().to_string()],
            labels: Vec::new(),
            memory: 64 << 20,
            window: None,
            cache: Default::default(),
            uploads: 8,
            origin: OriginConfig {
                retries: 1,
                backoff: Duration::from_millis(1),
                ..OriginConfig::default()
            },
            rates: Default::default(),
            filter_query: Vec::new(),
            remember_admission: Duration::from_secs(60),
            prefetch: Prefetch::Window,
        };
        change_node(&mut node);
        let node = Node::start(node).await.unwrap();
        let mut config = ProxyConfig::new(local);
        change(&mut config);
        let proxy = Proxy::start(config, node.clone()).await.unwrap();
        Self {
            node,
            addr: proxy.local_addr(),
            proxy,
            supernode,
            cancel,
        }
    }

    /// Everything ends: nothing may hang.
    pub async fn stop(self) {
        self.proxy.stop(Duration::from_secs(10)).await;
        self.node.stop().await;
        self.cancel.cancel();
        self.supernode.stopped().await.unwrap();
    }
}

/// Bytes that differ everywhere.
pub fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
