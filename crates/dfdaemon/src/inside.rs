//! The supernode inside a dfdaemon that was given none.

use std::{
    io::{Write as _, stderr},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use pantala_core::{Error, Kind, Result, Who};
use pantala_supernode::{Supernode, SupernodeConfig};
use tokio_util::sync::CancellationToken;

/// What `--supernode-listen` is unless the user says otherwise.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8002);

pub(crate) struct Inside {
    supernode: Supernode,
    cancel: CancellationToken,
}

impl Inside {
    /// Starts it. When the address nobody chose is taken, by the supernode of another dfdaemon on
    /// this host perhaps, it listens on any port of this host instead.
    pub async fn start(listen: SocketAddr) -> Result<Self> {
        let cancel = CancellationToken::new();
        let start = |listen| {
            let config = SupernodeConfig {
                listen,
                swarm: Default::default(),
            };
            Supernode::start(config, cancel.clone())
        };
        let supernode = match start(listen).await {
            Err(error) if listen == DEFAULT => {
                let any = SocketAddr::new(listen.ip(), 0);
                let supernode = start(any).await?;
                let addr = supernode.local_addr();
                let _ = writeln!(
                    stderr(),
                    "dfdaemon: {}; the supernode inside listens on {addr} instead",
                    error.what()
                );
                supernode
            }
            Err(error) => {
                let what = format!("no supernode inside: {}", error.what());
                return Err(Error::new(Who::User, Kind::BadInput, what)
                    .hint("choose another --supernode-listen"));
            }
            Ok(supernode) => supernode,
        };
        Ok(Self { supernode, cancel })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.supernode.local_addr()
    }

    /// Where this very process reaches it.
    pub fn reachable(&self) -> SocketAddr {
        let mut addr = self.addr();
        if addr.ip().is_unspecified() {
            addr.set_ip(match addr {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        addr
    }

    pub async fn stop(self) -> Result<()> {
        self.cancel.cancel();
        self.supernode.stopped().await
    }
}
