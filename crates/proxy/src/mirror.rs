//! The registry mirror: `/v2/…` of one upstream.

use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use pantala_core::ContentDigest;
use url::Url;

use crate::{
    content, forward,
    reply::{self, Reply},
    server::Context,
};

/// Answers what an upstream registry would: blobs through the swarm, everything else passed on.
pub(crate) async fn answer(context: &Context, request: Request<Incoming>) -> Reply {
    let Some(base) = &context.mirror else {
        let line = "no registry is mirrored here; start dfdaemon with --mirror UPSTREAM_URL";
        return reply::text(StatusCode::NOT_FOUND, line);
    };
    let uri = request.uri();
    let url = upstream(base, uri.path(), uri.query());
    let blob = (request.method() == Method::GET)
        .then(|| blob_digest(uri.path()))
        .flatten();
    let Some(digest) = blob else {
        let (parts, body) = request.into_parts();
        return forward::pass(context, parts, Some(body), &url).await;
    };
    let mut reply = content::get(context, request, url, Some(digest)).await;
    if reply.status().is_success() {
        complete(&mut reply, &digest);
    }
    reply
}

/// What clients expect of a blob though some storage hosts do not send it.
fn complete(reply: &mut Reply, digest: &ContentDigest) {
    let headers = reply.headers_mut();
    headers
        .entry(header::CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/octet-stream"));
    if let Ok(digest) = HeaderValue::try_from(digest.to_string()) {
        headers.entry("docker-content-digest").or_insert(digest);
    }
}

/// The upstream's URL for a path of ours. `ns=`, by which clients tell a mirror which registry
/// they mean, is not for the upstream.
fn upstream(base: &Url, path: &str, query: Option<&str>) -> Url {
    let mut url = base.clone();
    let root = base.path().trim_end_matches('/');
    url.set_path(&format!("{root}{path}"));
    let query: Vec<&str> = query
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty() && *pair != "ns" && !pair.starts_with("ns="))
        .collect();
    url.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
    url
}

/// The digest of `/v2/NAME/blobs/DIGEST`, when it is one that can be checked.
fn blob_digest(path: &str) -> Option<ContentDigest> {
    let (name, digest) = path.strip_prefix("/v2/")?.rsplit_once("/blobs/")?;
    if name.is_empty() {
        return None;
    }
    digest.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn blobs_are_told_from_everything_else() {
        for blob in ["a", "library/a", "a/blobs/b"] {
            assert!(blob_digest(&format!("/v2/{blob}/blobs/sha256:{HEX}")).is_some());
        }
        for other in [
            "/v2/".to_owned(),
            "/v2/a/blobs/uploads/".to_owned(),
            "/v2/a/blobs/sha256:12".to_owned(),
            format!("/v2/a/manifests/sha256:{HEX}"),
            format!("/v2//blobs/sha256:{HEX}"),
            format!("/v2/a/blobs/sha256:{HEX}/x"),
        ] {
            assert!(blob_digest(&other).is_none(), "{other}");
        }
    }

    #[test]
    fn the_upstream_is_asked_under_its_own_name() {
        let url = |base: &str, query| {
            upstream(&base.parse().unwrap(), "/v2/a/tags/list", query).to_string()
        };
        assert_eq!(
            url(
                "https://registry.example",
                Some("ns=hub.example&n=3&last=a%2Fb")
            ),
            "https://registry.example/v2/a/tags/list?n=3&last=a%2Fb"
        );
        assert_eq!(
            url("http://registry.example:5000/sub/", Some("ns=x")),
            "http://registry.example:5000/sub/v2/a/tags/list"
        );
        assert_eq!(
            url("https://registry.example", None),
            "https://registry.example/v2/a/tags/list"
        );
    }
}
