//! What listens on this host's loopback is for its own programs: others do not reach it under any name.

use crate::support::{Answer, Server, Then, client, read};
use http::Method;
use pantala_core::{Kind, Who};
use pantala_origin::{Asker, Body, OriginClient, OriginRequest};
use url::Url;

const OTHERS: [Asker; 2] = [Asker::User, Asker::Stranger];

/// The same place under a name that has to be resolved.
fn by_name(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_host(Some("localhost")).unwrap();
    url
}

fn ask(url: &Url, asker: Asker) -> OriginRequest {
    OriginRequest {
        asker,
        ..OriginRequest::new(url.clone())
    }
}

async fn assert_refused(client: &OriginClient, url: &Url) {
    for asker in OTHERS {
        let error = client.get(ask(url, asker)).await.unwrap_err();
        assert_eq!(
            (error.who(), error.kind()),
            (Who::User, Kind::Denied),
            "{error}"
        );
        assert!(!error.is_retryable(), "{error}");
        let nothing = Default::default();
        let error = client.check(url, &nothing, true, asker).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        for method in [Method::GET, Method::POST] {
            let request = http::Request::builder().method(method).uri(url.as_str());
            let mut request = request.body(Body::empty()).unwrap();
            request.extensions_mut().insert(asker);
            let error = client.forward(request).await.map(drop).unwrap_err();
            assert_eq!(error.kind(), Kind::Denied, "{error}");
        }
    }
}

#[tokio::test]
async fn a_name_that_leads_to_loopback_is_for_this_hosts_programs() {
    let answer = || Answer::new("200 OK\nContent-Length: 5", "hello").then(Then::Hang);
    let server = Server::new([answer(), answer()]).await;
    for url in [server.url("/f"), by_name(&server.url("/f"))] {
        let client = client();
        assert_refused(&client, &url).await;
        let mut response = client.get(ask(&url, Asker::Host)).await.unwrap();
        assert_eq!(read(&mut response.body).await.unwrap(), b"hello");
        // Nor over the connection that a program of this host has left behind.
        assert_refused(&client, &url).await;
    }
    assert_eq!(server.requests().len(), 2);
}
