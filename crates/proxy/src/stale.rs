//! What tags were, for the time while their registry is down.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hashlink::LruCache;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use url::Url;

use crate::{
    body::ReplyBody,
    reply::{self, Reply},
};

/// The longest manifest that is kept; registries take none longer.
const LONGEST: usize = 4 << 20;
/// The most bytes that are kept of all manifests together.
const MOST: usize = 16 << 20;
/// The most answers that are kept.
const ANSWERS: usize = 1024;

/// The last answers of registries for their tags, each for whoever got it.
pub(crate) struct Stale {
    limit: Duration,
    kept: Mutex<Shelf>,
}

struct Shelf {
    answers: LruCache<[u8; 32], Answer>,
    bytes: usize,
}

#[derive(Clone)]
struct Answer {
    at: Instant,
    headers: HeaderMap,
    body: Bytes,
}

/// What tells an answer from others: the credentials belong to it.
pub(crate) struct Key {
    this: [u8; 32],
    /// What answers a HEAD, too.
    get: [u8; 32],
}

impl Stale {
    /// Answers may be as old as `limit`; zero keeps none.
    pub fn new(limit: Duration) -> Self {
        let kept = Shelf {
            answers: LruCache::new(ANSWERS),
            bytes: 0,
        };
        Self {
            limit,
            kept: kept.into(),
        }
    }

    /// The key of a request, when answers are kept at all.
    pub fn key(&self, parts: &Parts, url: &Url) -> Option<Key> {
        if self.limit.is_zero() {
            return None;
        }
        let hash = |method: &Method| {
            let mut hash = blake3::Hasher::new();
            let mut put = |bytes: &[u8]| {
                hash.update(&(bytes.len() as u64).to_be_bytes());
                hash.update(bytes);
            };
            put(method.as_str().as_bytes());
            put(url.as_str().as_bytes());
            for name in [header::ACCEPT, header::AUTHORIZATION, header::COOKIE] {
                put(name.as_str().as_bytes());
                for value in parts.headers.get_all(name) {
                    put(value.as_bytes());
                }
            }
            *hash.finalize().as_bytes()
        };
        Some(Key {
            this: hash(&parts.method),
            get: hash(&Method::GET),
        })
    }

    /// Keeps a good answer, or stands in for one that the registry could not give.
    pub async fn keep_or_replace(&self, key: Key, reply: Reply) -> Reply {
        if reply.status().is_server_error() {
            return self.instead(&key).unwrap_or(reply);
        }
        if reply.status() != StatusCode::OK {
            return reply;
        }
        let long = reply.headers().get(header::CONTENT_LENGTH);
        let long = long.and_then(|long| long.to_str().ok()?.parse::<usize>().ok());
        if long.is_none_or(|long| long > LONGEST) {
            return reply;
        }
        let (parts, body) = reply.into_parts();
        let body = match Limited::new(body.into_kept(), LONGEST).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                // Half an answer is none.
                tracing::warn!(%error, "an answer for a tag was cut short");
                let failed = reply::text(
                    StatusCode::BAD_GATEWAY,
                    "origin: its answer was cut short; try again",
                );
                return self.instead(&key).unwrap_or(failed);
            }
        };
        let answer = Answer {
            at: Instant::now(),
            headers: parts.headers.clone(),
            body: body.clone(),
        };
        self.kept.lock().put(key.this, answer);
        Response::from_parts(parts, ReplyBody::from(body))
    }

    fn instead(&self, key: &Key) -> Option<Reply> {
        let mut kept = self.kept.lock();
        let known = match kept.answers.contains_key(&key.this) {
            true => key.this,
            false => key.get,
        };
        let answer = kept.answers.get(&known)?.clone();
        drop(kept);
        let age = answer.at.elapsed();
        if age > self.limit {
            return None;
        }
        tracing::info!(?age, "the registry is down: answering with what a tag was");
        let mut reply = Response::new(ReplyBody::from(answer.body));
        *reply.headers_mut() = answer.headers;
        let headers = reply.headers_mut();
        headers.insert(header::AGE, age.as_secs().into());
        let warning = HeaderValue::from_static("110 pantala \"the registry is down\"");
        headers.insert(header::WARNING, warning);
        Some(reply)
    }
}

impl Shelf {
    fn put(&mut self, key: [u8; 32], answer: Answer) {
        self.bytes += answer.body.len();
        if let Some(old) = self.answers.insert(key, answer) {
            self.bytes -= old.body.len();
        }
        while self.bytes > MOST
            && let Some((_, old)) = self.answers.remove_lru()
        {
            self.bytes -= old.body.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(method: Method, token: &str) -> Parts {
        let request = Request::builder()
            .method(method)
            .header("authorization", token);
        request.body(()).unwrap().into_parts().0
    }

    fn reply(status: u16, body: &'static str) -> Reply {
        let mut reply = Response::new(ReplyBody::from(Bytes::from_static(body.as_bytes())));
        *reply.status_mut() = StatusCode::from_u16(status).unwrap();
        reply
            .headers_mut()
            .insert(header::CONTENT_LENGTH, body.len().into());
        reply
    }

    async fn seen(stale: &Stale, parts: Parts, reply: Reply) -> (u16, Bytes) {
        let url = "http://registry.example/v2/a/manifests/v1".parse().unwrap();
        let key = stale.key(&parts, &url).unwrap();
        let reply = stale.keep_or_replace(key, reply).await;
        let status = reply.status().as_u16();
        (
            status,
            reply.into_body().collect().await.unwrap().to_bytes(),
        )
    }

    #[tokio::test]
    async fn a_tag_is_what_it_was_for_whoever_got_it() {
        let stale = Stale::new(Duration::from_secs(60));
        let get = |token| parts(Method::GET, token);
        assert_eq!(seen(&stale, get("ann"), reply(502, "down")).await.0, 502);
        assert_eq!(seen(&stale, get("ann"), reply(200, "is")).await.1, "is");
        assert_eq!(
            seen(&stale, get("ann"), reply(503, "down")).await,
            (200, "is".into())
        );
        let head = parts(Method::HEAD, "ann");
        assert_eq!(seen(&stale, head, reply(503, "")).await.0, 200);
        // What the registry says is not overruled, and others do not get it.
        assert_eq!(seen(&stale, get("ann"), reply(404, "gone")).await.0, 404);
        assert_eq!(seen(&stale, get("bob"), reply(503, "down")).await.0, 503);
    }

    #[tokio::test]
    async fn nothing_is_kept_unless_asked_for_or_for_too_long() {
        let url = "http://registry.example/v2/a/manifests/v1".parse().unwrap();
        assert!(
            Stale::new(Duration::ZERO)
                .key(&parts(Method::GET, "a"), &url)
                .is_none()
        );
        let stale = Stale::new(Duration::from_nanos(1));
        seen(&stale, parts(Method::GET, "ann"), reply(200, "is")).await;
        assert_eq!(
            seen(&stale, parts(Method::GET, "ann"), reply(503, ""))
                .await
                .0,
            503
        );
    }
}
