//! How a connection to an origin comes to be: resolving, connecting, and TLS where the URL says so.

use std::{
    error::Error as StdError,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{
        HttpConnector,
        dns::{GaiResolver, Name},
    },
    rt::TokioIo,
};
use pantala_core::Error;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

use crate::{
    Asker,
    tls::{Identity, Tls},
};

/// An idle connection is asked for a sign of life so often, and given up after as many silences
/// as [`KEEPALIVE_PROBES`]: a middlebox that forgot it sends no reset.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;
/// What was sent and is not acknowledged for so long breaks the connection. Longer than an origin
/// that is busy with an upload may keep its receive window shut.
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes connections.
pub(crate) struct Connector {
    tcp: HttpConnector<Resolver>,
    /// For whom services on this host's loopback are not.
    outside: HttpConnector<Resolver>,
    tls: Arc<Tls>,
    timeout: Duration,
}

impl Connector {
    /// `timeout` is for resolving, connecting and the TLS handshake together.
    pub(crate) fn new(tls: Arc<Tls>, timeout: Duration) -> Self {
        let tcp = |asker| Self::tcp(asker, timeout);
        Self {
            tcp: tcp(Asker::Host),
            outside: tcp(Asker::Stranger),
            tls,
            timeout,
        }
    }

    fn tcp(asker: Asker, timeout: Duration) -> HttpConnector<Resolver> {
        let system = GaiResolver::new();
        let mut tcp = HttpConnector::new_with_resolver(Resolver { system, asker });
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared out among a name's addresses, so that one that swallows packets leaves time for
        // the others.
        tcp.set_connect_timeout(Some(timeout));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
        tcp
    }

    /// Bytes that the kernel may hold of what an origin sent: known, where a test counts them.
    #[cfg(test)]
    pub(crate) fn set_receive_buffer(&mut self, size: usize) {
        self.tcp.set_recv_buffer_size(Some(size));
    }

    /// Connects to who stands at `uri`, with our certificate for it or without, if that is for who
    /// asks.
    pub(crate) async fn connect(
        &self,
        uri: Uri,
        identity: Identity,
        asker: Asker,
    ) -> Result<Stream, ConnectFailure> {
        // An address is not resolved.
        if !asker.may_ask(uri.host().unwrap_or_default()) {
            return Err(ConnectFailure::NotForThem);
        }
        let tcp = match asker {
            Asker::Host => &self.tcp,
            Asker::User | Asker::Stranger => &self.outside,
        };
        // Not on the connection's time: it happens once, and is no fault of the origin's.
        let tls = if uri.scheme() == Some(&Scheme::HTTPS) {
            Some(self.tls.config_for(&uri, identity).await?)
        } else {
            None
        };
        let connect = async {
            let tcp = tcp.clone().call(uri.clone()).await;
            let tcp = tcp.map_err(|error| ConnectFailure::Tcp(error.into()))?;
            let Some(config) = tls else {
                return Ok(Stream::Plain(tcp));
            };
            let host = uri.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(host)
                .map_err(|error| ConnectFailure::Handshake(io::Error::other(error)))?
                .to_owned();
            let stream = TlsConnector::from(config)
                .connect(name, tcp.into_inner())
                .await
                .map_err(ConnectFailure::Handshake)?;
            Ok(Stream::Tls(Box::new(TokioIo::new(stream))))
        };
        match tokio::time::timeout(self.timeout, connect).await {
            Ok(stream) => stream,
            Err(_) => Err(ConnectFailure::Late),
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectFailure {
    /// TLS cannot be spoken from here.
    Unprepared(Error),
    /// It would lead to a service of this very host, which is not for who asks.
    NotForThem,
    /// Resolving or connecting failed.
    Tcp(Box<dyn StdError + Send + Sync>),
    /// Somebody is there, but no TLS came about.
    Handshake(io::Error),
    /// It took too long.
    Late,
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unprepared(error) => error.fmt(f),
            Self::NotForThem => Inside.fmt(f),
            Self::Tcp(error) => error.fmt(f),
            Self::Handshake(error) => error.fmt(f),
            Self::Late => f.write_str("it took too long"),
        }
    }
}

impl StdError for ConnectFailure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Unprepared(error) => Some(error),
            Self::Tcp(error) => Some(&**error),
            Self::Handshake(error) => Some(error),
            Self::NotForThem => Some(&Inside),
            Self::Late => None,
        }
    }
}

impl From<Error> for ConnectFailure {
    fn from(error: Error) -> Self {
        Self::Unprepared(error)
    }
}

/// The system's resolver, whose errors can be told from those of connecting, less the addresses that
/// are not for who asks.
#[derive(Clone)]
struct Resolver {
    system: GaiResolver,
    asker: Asker,
}

/// A host name that does not resolve.
#[derive(Debug)]
pub(crate) struct Unresolved(io::Error);

/// All that a host name leads to is this very host's loopback, which is not for who asks.
#[derive(Debug)]
pub(crate) struct Inside;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let ready = self.system.poll_ready(context);
        ready.map_err(|error| Unresolved(error).into())
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (resolving, asker) = (self.system.call(name), self.asker);
        Box::pin(async move {
            let found = resolving.await.map_err(Unresolved)?;
            let mut some = false;
            let found = found.inspect(|_| some = true);
            let found: Vec<SocketAddr> = found.filter(|to| asker.may_reach(to.ip())).collect();
            match found.is_empty() && some {
                true => Err(Inside.into()),
                false => Ok(found.into_iter()),
            }
        })
    }
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is a service of this very host")
    }
}

impl StdError for Inside {}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Unresolved {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

/// The bytes of a connection to an origin, in both directions.
pub(crate) enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
    /// One whose other end a test counts at.
    #[cfg(test)]
    Pipe(TokioIo<tokio::io::DuplexStream>),
}

macro_rules! whichever {
    ($stream:expr, $wire:ident => $does:expr) => {
        match $stream {
            Stream::Plain($wire) => $does,
            Stream::Tls($wire) => $does,
            #[cfg(test)]
            Stream::Pipe($wire) => $does,
        }
    };
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        whichever!(&mut *self, wire => Pin::new(wire).poll_read(context, buffer))
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        whichever!(&mut *self, wire => Pin::new(wire).poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        whichever!(&mut *self, wire => Pin::new(wire).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        whichever!(&mut *self, wire => Pin::new(wire).poll_shutdown(context))
    }

    fn is_write_vectored(&self) -> bool {
        whichever!(self, wire => wire.is_write_vectored())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        whichever!(&mut *self, wire => Pin::new(wire).poll_write_vectored(context, bytes))
    }
}
