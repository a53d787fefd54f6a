//! Own credentials: what they answer, what is remembered of it, and where they never go.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{ask, config, read};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use pantala_core::{Kind, Who};
use pantala_origin::{Asker, Body, Credentials, HostConfig, OriginClient, OriginConfig};
use tokio::{net::TcpListener, task::JoinSet};

const BASIC: &str = "Basic bWU6cHc=";

/// What a server was asked.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    method: Method,
    target: String,
    authorization: Option<String>,
}

type Reply = Response<Full<Bytes>>;

/// A server that answers as a function says.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _task: JoinSet<()>,
}

impl Server {
    async fn new(answer: impl Fn(&Seen, SocketAddr) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (all, answer) = (seen.clone(), Arc::new(answer));
        let serve = move |request: Request<Incoming>| {
            let authorization = request.headers().get(header::AUTHORIZATION);
            let one = Seen {
                method: request.method().clone(),
                target: request.uri().to_string(),
                authorization: authorization.map(|value| value.to_str().unwrap().to_owned()),
            };
            all.lock().unwrap().push(one.clone());
            let reply = answer(&one, address);
            async { Ok::<_, Infallible>(reply) }
        };
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service_fn(serve.clone());
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            seen,
            _task: task,
        }
    }

    fn url(&self, path: &str) -> url::Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    /// What it was asked since this was last asked.
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// A client that has credentials for this server.
    fn client(&self) -> OriginClient {
        let credentials = Some(Credentials {
            username: "me".to_owned(),
            password: "pw".to_owned(),
        });
        client(HostConfig {
            host: self.address.to_string(),
            credentials,
            ..HostConfig::default()
        })
    }
}

fn client(host: HostConfig) -> OriginClient {
    OriginClient::new(OriginConfig {
        hosts: vec![host],
        retries: 0,
        ..config()
    })
    .unwrap()
}

fn reply(status: u16, body: &str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap();
    reply
}

fn challenge(value: &str) -> Reply {
    let mut reply = reply(401, "who are you?");
    let value = HeaderValue::from_str(value).unwrap();
    reply.headers_mut().insert("www-authenticate", value);
    reply
}

async fn basic() -> Server {
    Server::new(|seen, _| match seen.authorization.as_deref() {
        Some(BASIC) => reply(200, "content"),
        _ => challenge("Basic realm=\"x\""),
    })
    .await
}

/// A registry and its token service. Tokens are numbered, and good for 60 s and their repository.
async fn registry(valid: Arc<Mutex<usize>>) -> Server {
    Server::new(move |seen, address| {
        let token = *valid.lock().unwrap();
        if let Some(query) = seen.target.strip_prefix("/token?") {
            let scope = query.rsplit_once("repository%3A").unwrap().1;
            let repository = scope.split("%3A").next().unwrap();
            return reply(200, &format!(r#"{{"token":"{repository}-{token}"}}"#));
        }
        let repository = seen.target.split('/').nth(2).unwrap();
        if seen.authorization == Some(format!("Bearer {repository}-{token}")) {
            return reply(200, "content");
        }
        challenge(&format!(
            "Bearer realm=\"http://{address}/token\",service=\"r\",\
             scope=\"repository:{repository}:pull\""
        ))
    })
    .await
}

fn targets(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|seen| seen.target.as_str()).collect()
}

#[tokio::test]
async fn a_password_is_given_when_asked_for_and_then_at_once() {
    let server = basic().await;
    let client = server.client();
    let mut response = client.get(ask(server.url("/a"))).await.unwrap();
    assert!(response.meta.private);
    assert_eq!(read(&mut response.body).await.unwrap(), b"content");
    let given: Vec<_> = server
        .take()
        .into_iter()
        .map(|seen| seen.authorization)
        .collect();
    assert_eq!(given, [None, Some(BASIC.to_owned())]);

    let none = HeaderMap::new();
    client
        .check(&server.url("/b"), &none, true, Asker::Host)
        .await
        .unwrap();
    let seen = server.take();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].authorization.as_deref(), Some(BASIC));
}

#[tokio::test]
async fn a_wrong_password_is_a_refusal() {
    let server = Server::new(|_, _| challenge("Basic realm=\"x\"")).await;
    let client = server.client();
    for asked in [2, 2] {
        let error = client.get(ask(server.url("/a"))).await.unwrap_err();
        assert_eq!((error.who(), error.kind()), (Who::Origin, Kind::Denied));
        assert_eq!(server.take().len(), asked);
    }
}

#[tokio::test]
async fn a_token_serves_its_repository_until_it_expires() {
    let server = registry(Arc::default()).await;
    let client = server.client();
    let get = async |path: &str| {
        let mut response = client.get(ask(server.url(path))).await.unwrap();
        assert!(response.meta.private);
        assert_eq!(read(&mut response.body).await.unwrap(), b"content");
        server.take()
    };
    let token = |name: &str| format!("/token?service=r&scope=repository%3A{name}%3Apull");

    let seen = get("/v2/a/blobs/1").await;
    assert_eq!(
        targets(&seen),
        ["/v2/a/blobs/1", &token("a"), "/v2/a/blobs/1"]
    );
    assert_eq!(seen[1].authorization.as_deref(), Some(BASIC));
    assert_eq!(targets(&get("/v2/a/blobs/2").await), ["/v2/a/blobs/2"]);
    assert_eq!(targets(&get("/v2/a/manifests/x").await).len(), 1);
    assert_eq!(targets(&get("/v2/b/blobs/1").await).len(), 3);

    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(55)).await;
    tokio::time::resume();
    assert_eq!(
        targets(&get("/v2/a/blobs/1").await),
        [token("a"), "/v2/a/blobs/1".to_owned()]
    );
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once() {
    let valid = Arc::<Mutex<usize>>::default();
    let server = registry(valid.clone()).await;
    let client = server.client();
    client.get(ask(server.url("/v2/a/blobs/1"))).await.unwrap();
    server.take();
    *valid.lock().unwrap() += 1;
    client.get(ask(server.url("/v2/a/blobs/1"))).await.unwrap();
    assert_eq!(server.take().len(), 3);
    client.get(ask(server.url("/v2/a/blobs/1"))).await.unwrap();
    assert_eq!(server.take().len(), 1);
}

#[tokio::test]
async fn who_waits_for_the_same_token_shares_it() {
    let server = registry(Arc::default()).await;
    let client = server.client();
    let mut gets = JoinSet::new();
    for number in 0..16 {
        let url = server.url(&format!("/v2/a/blobs/{number}"));
        let client = client.clone();
        gets.spawn(async move { client.get(ask(url)).await.map(|response| response.status) });
    }
    while let Some(status) = gets.join_next().await {
        assert_eq!(status.unwrap().unwrap(), StatusCode::OK);
    }
    let seen = server.take();
    let tokens = seen.iter().filter(|seen| seen.target.starts_with("/token"));
    assert_eq!(tokens.count(), 1);
}

#[tokio::test]
async fn a_token_for_nobody_makes_nothing_private() {
    let server = registry(Arc::default()).await;
    let client = client(HostConfig {
        host: "127.0.0.1".to_owned(),
        anonymous_tokens: true,
        ..HostConfig::default()
    });
    let response = client.get(ask(server.url("/v2/a/blobs/1"))).await.unwrap();
    assert!(!response.meta.private);
    let seen = server.take();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[1].authorization, None);

    // A password is nothing that nobody has.
    let server = basic().await;
    let error = client.get(ask(server.url("/a"))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert_eq!(server.take().len(), 1);
}

#[tokio::test]
async fn a_token_service_that_refuses_is_told() {
    let server = Server::new(|seen, address| {
        if seen.target.starts_with("/token") {
            return reply(403, "no");
        }
        challenge(&format!("Bearer realm=\"http://{address}/token\""))
    })
    .await;
    let error = server
        .client()
        .get(ask(server.url("/v2/a/blobs/1")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    let text = error.to_string();
    assert!(text.contains("the token service"), "{text}");
    assert!(text.contains("configured for 127.0.0.1"), "{text}");
    assert!(!text.contains("pw"), "{text}");
}

#[tokio::test]
async fn what_a_client_says_of_itself_stays_alone() {
    let server = basic().await;
    let mut request = ask(server.url("/a"));
    let theirs = HeaderValue::from_static("Bearer theirs");
    request.headers.insert(header::AUTHORIZATION, theirs);
    let client = server.client();
    let error = client.get(request.clone()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    let error = client
        .check(&request.url, &request.headers, true, Asker::Host)
        .await;
    assert_eq!(error.unwrap_err().kind(), Kind::Denied);
    for seen in server.take() {
        assert_eq!(seen.authorization.as_deref(), Some("Bearer theirs"));
    }
}

#[tokio::test]
async fn own_credentials_follow_no_redirect() {
    let elsewhere = basic().await;
    let target = elsewhere.url("/there").to_string();
    let here = Server::new(move |seen, _| match seen.authorization.as_deref() {
        Some(BASIC) => {
            let mut reply = reply(307, "");
            let target = HeaderValue::from_str(&target).unwrap();
            reply.headers_mut().insert("location", target);
            reply
        }
        _ => challenge("Basic realm=\"x\""),
    })
    .await;
    let error = here.client().get(ask(here.url("/a"))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert_eq!(here.take().len(), 2);
    let seen = elsewhere.take();
    assert_eq!(targets(&seen), ["/there"]);
    assert_eq!(seen[0].authorization, None);
}

#[tokio::test]
async fn no_redirect_leads_to_what_our_credentials_open() {
    let guarded = basic().await;
    let target = guarded.url("/secret").to_string();
    let stranger = Server::new(move |_, _| {
        let mut reply = reply(307, "");
        let target = HeaderValue::from_str(&target).unwrap();
        reply.headers_mut().insert("location", target);
        reply
    })
    .await;
    let client = guarded.client();
    let request = ask(stranger.url("/a"));
    let error = client.get(request.clone()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    let error = client
        .check(&request.url, &request.headers, true, Asker::Host)
        .await;
    assert_eq!(error.unwrap_err().kind(), Kind::Denied);
    // Not even what let another request through a moment ago.
    client.get(ask(guarded.url("/secret"))).await.unwrap();
    client.get(request).await.unwrap_err();
    let given: Vec<bool> = (guarded.take().iter())
        .map(|seen| seen.authorization.is_some())
        .collect();
    assert_eq!(given, [false, false, false, true, false]);
}

#[tokio::test]
async fn what_is_passed_on_is_let_through_only_when_it_reads() {
    let server = basic().await;
    let client = server.client();
    let forward = async |method: Method| {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = server.url("/a").as_str().parse().unwrap();
        client.forward(request).await.unwrap().status()
    };
    assert_eq!(forward(Method::DELETE).await, StatusCode::UNAUTHORIZED);
    assert_eq!(forward(Method::GET).await, StatusCode::OK);
    assert_eq!(forward(Method::HEAD).await, StatusCode::OK);
    assert_eq!(forward(Method::POST).await, StatusCode::UNAUTHORIZED);
    let given: Vec<bool> = server
        .take()
        .iter()
        .map(|seen| seen.authorization.is_some())
        .collect();
    assert_eq!(given, [false, false, true, true, false]);
}

#[test]
fn credentials_are_never_shown() {
    let host = HostConfig {
        host: "registry.example".to_owned(),
        credentials: Some(Credentials {
            username: "someone".to_owned(),
            password: "secret".to_owned(),
        }),
        ..HostConfig::default()
    };
    let shown = format!("{host:?}");
    assert!(!shown.contains("someone") && !shown.contains("secret"));
}
