use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri, header,
    uri::{Authority, Scheme},
};
use http_body::Body as _;
use hyper::upgrade::Upgraded;
use pantala_core::{Error, Kind, Result, Who, display_url};
use url::Url;

use crate::{
    Asker, Body, OriginConfig,
    auth::Auth,
    connect::{Connector, Stream},
    connection::{Connection, READ, Transfer, upgrade},
    failure,
    hosts::Hosts,
    interim::Interim,
    pool::{Key, Pool},
    reads::LITTLE,
    tls::{Identity, Tls},
};

/// Bytes that one open transfer may have read ahead of who takes them, whatever its origin sends:
/// the block being handed over, one that waits behind it, and what TLS keeps of a record not yet
/// read and of one not yet complete.
pub const READ_AHEAD: u64 = 2 * READ as u64 + (32 << 10);

/// How many connections in a row a request may find closed by the other side.
const STALE: u32 = 3;

/// The connections to origins.
///
/// HTTP/1.1 alone: there a transfer that nobody reads holds up its own connection, within a
/// bound, and no other.
pub(crate) struct Transport {
    config: OriginConfig,
    connector: Connector,
    pool: Arc<Pool>,
    hosts: Arc<Hosts>,
    auth: Auth,
}

impl Transport {
    pub(crate) fn new(config: OriginConfig) -> Result<Self> {
        let hosts = Arc::new(Hosts::new(&config.hosts)?);
        let tls = Arc::new(Tls::new(&config, hosts.clone())?);
        Ok(Self {
            connector: Connector::new(tls, config.connect_timeout),
            config,
            pool: Arc::default(),
            auth: Auth::new(hosts.clone()),
            hosts,
        })
    }

    pub(crate) fn config(&self) -> &OriginConfig {
        &self.config
    }

    /// What the own credentials are good for.
    pub(crate) fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Whether the host at `url` is shown who we are before it is asked for anything.
    pub(crate) fn shows_certificate(&self, url: &Url) -> bool {
        let host = self.hosts.of(url);
        url.scheme() == "https" && host.is_some_and(|(_, host)| host.client_cert.is_some())
    }

    /// Whether both URLs lead to the same host as far as settings are concerned.
    pub(crate) fn same_settings(&self, one: &Url, other: &Url) -> bool {
        let of = |url| self.hosts.of(url).map(|(index, _)| index);
        of(one).is_some() && of(one) == of(other)
    }

    /// Sends one request and waits for the head of the answer, for as long as it takes.
    ///
    /// # Errors
    /// `BadInput` for a URL that cannot be asked, `Tls` when there is no authority to trust, `Denied`
    /// where the host is not for who asks; else why nobody answered.
    pub(crate) async fn execute(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Body,
        extra: Extra<'_>,
    ) -> Result<Response<Transfer>> {
        let (mut request, key) = self.request(method, url, headers, body, extra)?;
        let mut stale = 0;
        loop {
            let mut connection = match self.pool.take(&key) {
                Some(connection) if stale < STALE => connection,
                _ => self.connect(url, &key).await?,
            };
            let most = if extra.reads_little {
                LITTLE
            } else {
                usize::MAX
            };
            connection.limit_reads(most);
            let again = again(&request);
            let mut error = match connection.send(request).await {
                Ok(answer) => {
                    let pool = self.pool.clone();
                    return Ok(answer.map(|body| Transfer::new(body, connection, pool, key)));
                }
                Err(error) => error,
            };
            // It went out at the moment the other side closed the connection.
            match error.take_message().or(again) {
                Some(again) if connection.used => {
                    stale += 1;
                    request = again;
                }
                _ => return Err(self.no_answer(&error.into_error(), url)),
            }
        }
    }

    /// Sends one request that asks to go on in another protocol, on a connection of its own. Where
    /// the other side agrees, both ends of that connection are the caller's from then on.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub(crate) async fn upgrade(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Body,
        asker: Asker,
    ) -> Result<(Response<Body>, Option<Upgraded>)> {
        let extra = Extra {
            identity: asker.identity(),
            asker,
            ..Extra::default()
        };
        let (request, key) = self.request(method, url, headers, body, extra)?;
        let stream = self.reach(url, &key).await?;
        let answer = upgrade(stream, request).await;
        answer.map_err(|error| self.no_answer(&error, url))
    }

    async fn connect(&self, url: &Url, key: &Key) -> Result<Connection> {
        let connection = Connection::over(self.reach(url, key).await?).await;
        connection.map_err(|error| self.no_answer(&error, url))
    }

    async fn reach(&self, url: &Url, key: &Key) -> Result<Stream> {
        let (scheme, authority, identity, asker) = key;
        let uri = Uri::builder()
            .scheme(scheme.clone())
            .authority(authority.clone())
            .path_and_query("/")
            .build()
            .map_err(|error| Error::new(Who::Us, Kind::Internal, error.to_string()))?;
        let stream = self.connector.connect(uri, *identity, *asker).await;
        stream.map_err(|error| self.no_answer(&error, url))
    }

    /// A request as it goes over the wire, and the connection that it needs.
    fn request(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Body,
        extra: Extra<'_>,
    ) -> Result<(Request<Body>, Key)> {
        let target = Target::of(url)?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = match extra.whole_server {
            true => Uri::from_static("*"),
            false => target.path,
        };
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::HOST, target.host);
        if let Some(interim) = extra.interim {
            interim.listen(&mut request);
        }
        // Only where it makes a difference, so that all others share their connections.
        let identity = match self.shows_certificate(url) {
            true => extra.identity,
            false => Identity::Anonymous,
        };
        let (scheme, authority) = target.key;
        Ok((request, (scheme, authority, identity, extra.asker)))
    }

    fn no_answer(&self, error: &(dyn std::error::Error + 'static), url: &Url) -> Error {
        failure::no_answer(error, url, self.config.connect_timeout)
    }
}

/// What is to be known of a request besides its message.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extra<'a> {
    /// Who is told of what is said before the answer.
    pub(crate) interim: Option<&'a Interim>,
    /// Whether the request is for the server as a whole: `OPTIONS *`.
    pub(crate) whole_server: bool,
    /// Whether the host may learn who we are.
    pub(crate) identity: Identity,
    /// For whom it is asked.
    pub(crate) asker: Asker,
    /// Whether the answer has no room yet when it comes.
    pub(crate) reads_little: bool,
}

/// A request to send in place of this one although that may have reached the other side: only
/// what asks for nothing but an answer can be sent twice.
fn again(request: &Request<Body>) -> Option<Request<Body>> {
    if !request.method().is_safe() || !request.body().is_end_stream() {
        return None;
    }
    let mut again = Request::new(Body::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    Some(again)
}

/// A URL as a request names it.
struct Target {
    key: (Scheme, Authority),
    path: Uri,
    host: HeaderValue,
}

impl Target {
    fn of(url: &Url) -> Result<Self> {
        let bad = |what: String| Error::new(Who::User, Kind::BadInput, what);
        if !matches!(url.scheme(), "http" | "https") {
            let what = format!("cannot read from {} URLs", url.scheme());
            return Err(bad(what).hint("use an http or https URL"));
        }
        let unusable = |error: http::Error| {
            let url = display_url(url.as_str());
            bad(format!("cannot ask for {url}: {error}")).hint("check the URL")
        };
        let uri: Uri = url
            .as_str()
            .parse()
            .map_err(|error: http::uri::InvalidUri| unusable(error.into()))?;
        // As the URL has it: without a port where that is the scheme's own.
        let host = url.host_str().unwrap_or_default();
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let parts = uri.into_parts();
        let (Some(scheme), Ok(authority)) = (parts.scheme, host.parse()) else {
            return Err(bad(format!("cannot ask for {}", display_url(url.as_str()))));
        };
        let path = parts.path_and_query.map_or_else(Uri::default, Uri::from);
        let host = HeaderValue::from_str(&host).map_err(|error| unusable(error.into()))?;
        Ok(Self {
            key: (scheme, authority),
            path,
            host,
        })
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        task::yield_now,
    };

    use super::*;
    use crate::{OriginClient, OriginRequest};

    const LENGTH: usize = 64 << 20;
    /// Turns without a byte written after which nobody will take any more.
    const STILL: usize = 1000;

    #[tokio::test]
    async fn a_reader_that_stops_taking_stops_its_origin() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/f", listener.local_addr().unwrap());
        let receive_buffer = 16 << 10;
        let mut transport = Transport::new(OriginConfig::default()).unwrap();
        transport.connector.set_receive_buffer(receive_buffer);
        let client = OriginClient::over(transport);

        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            SockRef::from(&stream)
                .set_send_buffer_size(16 << 10)
                .unwrap();
            let mut head = [0; 4096];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream
        };
        let get = client.get(OriginRequest::new(url.parse().unwrap()));
        let (mut stream, response) = tokio::join!(serve, get);
        let mut body = response.unwrap().body;

        let block = vec![7; 1 << 20];
        stream.write_all(&block[..1]).await.unwrap();
        let mut taken = body.next().await.unwrap().unwrap().len();
        let (mut written, mut still) = (1, 0);
        while still < STILL {
            match stream.try_write(&block) {
                Ok(bytes) => (written, still) = (written + bytes, 0),
                Err(_) => still += 1,
            }
            // Somebody who asks for more but never gets to take it.
            if written > 1 && taken == 1 {
                taken += body.next().await.unwrap().unwrap().len();
            }
            yield_now().await;
        }
        let kernel = SockRef::from(&stream).send_buffer_size().unwrap() + 2 * receive_buffer;
        let ahead = written - taken;
        assert!(
            ahead <= READ_AHEAD as usize + kernel,
            "{ahead} bytes, {kernel} in the kernel"
        );
    }
}
