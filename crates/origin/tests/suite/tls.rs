//! TLS is always verified, and HTTP/1.1 is spoken over it.

use std::{convert::Infallible, io::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, body::Incoming, header::HeaderValue, service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pantala_core::Kind;
use pantala_origin::{ClientCert, HostConfig, OriginClient, OriginConfig, OriginRequest};
use rustls::{
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// A certificate authority of our own.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            certificate,
        }
    }

    /// A certificate for `localhost` and its key, good until the year given.
    fn vouch(&self, until: i32) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

const LATER: i32 = 4000;

/// A server for `localhost` that answers with the HTTP version it was asked in, its address, and
/// the PEM of the authority that vouches for it.
async fn server(alpn: &[&str], tasks: &mut JoinSet<()>) -> (SocketAddr, String) {
    let authority = Authority::new();
    let address = server_with(&authority, LATER, None, alpn, tasks).await;
    (address, authority.certificate.pem())
}

/// One that serves only those for whom `clients` vouches.
async fn server_with(
    authority: &Authority,
    until: i32,
    clients: Option<&Authority>,
    alpn: &[&str],
    tasks: &mut JoinSet<()>,
) -> SocketAddr {
    let (certificate, key) = authority.vouch(until);
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match clients {
        Some(clients) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(clients.certificate.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            config.with_client_cert_verifier(verifier.unwrap())
        }
        None => config.with_no_client_auth(),
    };
    let mut config = config
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(serve(acceptor.clone(), stream));
        }
    });
    address
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream) {
    // Who does not trust us hangs up.
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let version = format!("{:?}", request.version());
    let mut response = Response::new(Full::new(Bytes::from(version)));
    if request.uri().path() == "/down" {
        *response.status_mut() = StatusCode::FOUND;
        let target = HeaderValue::from_static("http://localhost/f");
        response.headers_mut().insert("location", target);
    }
    Ok(response)
}

fn client(ca: Option<&str>) -> OriginClient {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut config = OriginConfig {
        retries: 0,
        ..OriginConfig::default()
    };
    if let Some(pem) = ca {
        file.write_all(pem.as_bytes()).unwrap();
        config.ca.push(file.path().to_owned());
    }
    OriginClient::new(config).unwrap()
}

#[tokio::test]
async fn only_a_named_authority_is_trusted() {
    let mut tasks = JoinSet::new();
    let (address, pem) = server(&["http/1.1"], &mut tasks).await;
    let url: url::Url = format!("https://localhost:{}/f", address.port())
        .parse()
        .unwrap();
    // Another authority besides the system's, so that this holds on a machine without any.
    let (_, other) = server(&[], &mut tasks).await;
    let error = client(Some(&other))
        .get(OriginRequest::new(url.clone()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Tls, "{error}");
    assert!(error.to_string().contains("--ca"), "{error}");
    assert!(!error.is_retryable());

    let mut response = client(Some(&pem))
        .get(OriginRequest::new(url))
        .await
        .unwrap();
    assert_eq!(response.body.next().await.unwrap().unwrap(), "HTTP/1.1");

    let ip: url::Url = format!("https://{address}/f").parse().unwrap();
    let error = client(Some(&pem))
        .get(OriginRequest::new(ip))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Tls, "{error}");
    assert!(error.to_string().contains("use a host name"), "{error}");
}

#[tokio::test]
async fn http_1_is_spoken_where_both_are_offered() {
    let mut tasks = JoinSet::new();
    let (address, pem) = server(&["h2", "http/1.1"], &mut tasks).await;
    let url: url::Url = format!("https://localhost:{}/f", address.port())
        .parse()
        .unwrap();
    let mut response = client(Some(&pem))
        .get(OriginRequest::new(url))
        .await
        .unwrap();
    assert_eq!(response.meta.length, Some(8));
    assert_eq!(response.body.next().await.unwrap().unwrap(), "HTTP/1.1");
    assert_eq!(response.body.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_redirect_never_leaves_tls() {
    let mut tasks = JoinSet::new();
    let (address, pem) = server(&[], &mut tasks).await;
    let url = format!("https://localhost:{}/down", address.port());
    let request = OriginRequest::new(url.parse().unwrap());
    let error = client(Some(&pem)).get(request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(
        error
            .to_string()
            .contains("from https to http://localhost/f"),
        "{error}"
    );
}

#[tokio::test]
async fn who_accepts_and_says_nothing_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/f", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    let (_, pem) = server(&[], &mut tasks).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(pem.as_bytes()).unwrap();
    let config = OriginConfig {
        ca: vec![file.path().to_owned()],
        connect_timeout: Duration::from_millis(50),
        retries: 0,
        ..OriginConfig::default()
    };
    let request = OriginRequest::new(url.parse().unwrap());
    let error = OriginClient::new(config)
        .unwrap()
        .get(request)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(
        error.to_string().contains("did not accept a connection"),
        "{error}"
    );
}

#[tokio::test]
async fn plain_http_behind_an_https_url_is_recognised() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let refusal = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, refusal)
            .await
            .unwrap();
        std::future::pending::<()>().await;
    });
    let (_, pem) = server(&[], &mut tasks).await;
    let url: url::Url = format!("https://{address}/f").parse().unwrap();
    let error = client(Some(&pem))
        .get(OriginRequest::new(url))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Tls, "{error}");
    assert!(error.to_string().contains("use http://"), "{error}");
}

#[tokio::test]
async fn an_unusable_authority_is_refused_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path().to_owned(), "/no/such/file.pem".into()] {
        let config = OriginConfig {
            ca: vec![path],
            ..OriginConfig::default()
        };
        assert_eq!(
            OriginClient::new(config).unwrap_err().kind(),
            Kind::BadInput
        );
    }
}

fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn with_hosts(hosts: Vec<HostConfig>) -> pantala_core::Result<OriginClient> {
    OriginClient::new(OriginConfig {
        retries: 0,
        hosts,
        ..OriginConfig::default()
    })
}

async fn get(client: &OriginClient, address: SocketAddr) -> pantala_core::Result<bool> {
    let url = format!("https://localhost:{}/f", address.port());
    let mut response = client.get(OriginRequest::new(url.parse().unwrap())).await?;
    assert_eq!(response.body.next().await?.unwrap(), "HTTP/1.1");
    Ok(response.meta.private)
}

#[tokio::test]
async fn a_hosts_own_authority_is_trusted_there_alone() {
    let mut tasks = JoinSet::new();
    let authority = Authority::new();
    let here = server_with(&authority, LATER, None, &[], &mut tasks).await;
    let there = server_with(&authority, LATER, None, &[], &mut tasks).await;
    let ca = file(&authority.certificate.pem());
    let other = file(&Authority::new().certificate.pem());
    for ca_only in [false, true] {
        let client = with_hosts(vec![
            HostConfig {
                host: format!("localhost:{}", here.port()),
                ca: vec![ca.path().to_owned()],
                ca_only,
                ..HostConfig::default()
            },
            // Of its own too, so that this holds on a machine without authorities.
            HostConfig {
                host: "localhost".to_owned(),
                ca: vec![other.path().to_owned()],
                ..HostConfig::default()
            },
        ]);
        let client = client.unwrap();
        assert!(!get(&client, here).await.unwrap());
        let error = get(&client, there).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Tls, "{error}");
    }
}

#[tokio::test]
async fn a_host_that_asks_who_we_are_is_shown() {
    let mut tasks = JoinSet::new();
    let (authority, clients) = (Authority::new(), Authority::new());
    let address = server_with(&authority, LATER, Some(&clients), &[], &mut tasks).await;
    let ca = file(&authority.certificate.pem());
    let (certificate, key) = clients.vouch(LATER);
    let (cert, key) = (file(&certificate.pem()), file(&key.serialize_pem()));
    let mut host = HostConfig {
        host: "localhost".to_owned(),
        ca: vec![ca.path().to_owned()],
        ..HostConfig::default()
    };
    let error = get(&with_hosts(vec![host.clone()]).unwrap(), address).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::Tls, "{error}");
    assert!(error.to_string().contains("client certificate"), "{error}");

    host.client_cert = Some(ClientCert {
        cert: cert.path().to_owned(),
        key: key.path().to_owned(),
    });
    let client = with_hosts(vec![host]).unwrap();
    assert!(get(&client, address).await.unwrap(), "it is private");

    // But not because another host sent us there.
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", stranger.local_addr().unwrap());
    tasks.spawn(async move {
        let to = format!("https://localhost:{}/f", address.port());
        let (mut stream, _) = stranger.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        let head = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let request = OriginRequest::new(url.parse().unwrap());
    let error = client.get(request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Tls, "{error}");
    assert!(error.to_string().contains("client certificate"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_told_so() {
    let mut tasks = JoinSet::new();
    let authority = Authority::new();
    let address = server_with(&authority, 2000, None, &[], &mut tasks).await;
    let error = get(&client(Some(&authority.certificate.pem())), address).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::Tls, "{error}");
    assert!(
        error.to_string().contains("renew its certificate"),
        "{error}"
    );
}

#[test]
fn an_unusable_client_certificate_names_its_file() {
    let (certificate, key) = Authority::new().vouch(LATER);
    let (_, other) = Authority::new().vouch(LATER);
    let (cert, key) = (file(&certificate.pem()), file(&key.serialize_pem()));
    let (other, empty) = (file(&other.serialize_pem()), file(""));
    for (cert, key, named) in [
        (&empty, &key, &empty),
        (&cert, &empty, &empty),
        (&cert, &other, &other),
    ] {
        let host = HostConfig {
            host: "localhost".to_owned(),
            client_cert: Some(ClientCert {
                cert: cert.path().to_owned(),
                key: key.path().to_owned(),
            }),
            ..HostConfig::default()
        };
        let error = with_hosts(vec![host]).unwrap_err();
        assert_eq!(error.kind(), Kind::BadInput);
        let name = named.path().display().to_string();
        assert!(error.to_string().contains(&name), "{error}");
    }
}
