//! TLS is always verified, and HTTP/1.1 is spoken over it.

use std::{convert::Infallible, io::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, body::Incoming, header::HeaderValue, service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pantala_core::Kind;
use pantala_origin::{OriginClient, OriginConfig, OriginRequest};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// A server for `localhost` that answers with the HTTP version it was asked in, its address, and
/// the PEM of the authority that vouches for it.
async fn server(alpn: &[&str], tasks: &mut JoinSet<()>) -> (SocketAddr, String) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();

    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
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
    (address, pem)
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
