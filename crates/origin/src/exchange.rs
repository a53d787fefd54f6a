use std::time::Duration;

use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use pantala_core::{Error, Kind, Result, Who, display_url};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use url::Url;

use crate::{
    Asker, Body,
    auth::Pass,
    connection::Transfer,
    credentials::basic,
    failure,
    hosts::is_loopback,
    interim::Interim,
    tls::Identity,
    transport::{Extra, Transport},
};

/// Bytes of an answer that are read so that its connection can be used again, and for how long.
const SHORT: usize = 16 << 10;
const DRAIN: Duration = Duration::from_secs(1);

/// An answer, redirects followed.
pub(crate) struct Answer {
    /// Who gave it.
    pub(crate) url: Url,
    pub(crate) response: Response<Transfer>,
    /// Whether it may be for us alone: it was asked for with credentials of our own.
    pub(crate) credentialed: bool,
    /// How long it took to begin: the last one's time, where there were redirects.
    pub(crate) delay: Duration,
}

/// Sends a request without a body and follows redirects, unless whoever asks wants to know of them.
///
/// # Errors
/// When nobody answers, or the redirects lead nowhere: too many, from https to http, to another
/// scheme.
pub(crate) async fn exchange(
    transport: &Transport,
    method: Method,
    url: &Url,
    mut headers: HeaderMap,
    follow: bool,
    (asker, interim): (Asker, Option<&Interim>),
) -> Result<Answer> {
    let mut url = url.clone();
    take_user(&mut url, &mut headers);
    // Nothing is added to what the client says of itself, wherever that leads.
    let silent = !headers.contains_key(header::AUTHORIZATION);
    // Our own are for the host that was asked. Clients that may not ask a host for what our
    // credentials open could have a server of their own send us there.
    let mut identity = asker.identity();
    let mut credentialed = false;
    for redirects in 0..=transport.config().max_redirects {
        let limit = Some(transport.config().answer_timeout);
        let asked = Instant::now();
        let question = Question {
            transport,
            method: &method,
            url: &url,
            headers: &headers,
            limit,
            extra: Extra {
                // Another host's words are not for who asked this one.
                interim: interim.filter(|_| redirects == 0),
                identity,
                asker,
                ..Extra::default()
            },
        };
        let (response, proven) = if silent {
            question.send().await?
        } else {
            (question.send_as(None).await?, false)
        };
        let shown = identity == Identity::Ours && transport.shows_certificate(&url);
        credentialed |= proven || shown;
        let target = match follow {
            true => redirect_target(&url, response.status(), response.headers())?,
            false => None,
        };
        let Some(target) = target else {
            return Ok(Answer {
                url,
                response,
                credentialed,
                delay: asked.elapsed(),
            });
        };
        tracing::debug!(
            from = display_url(url.as_str()),
            to = display_url(target.as_str()),
            status = response.status().as_u16(),
            "redirected"
        );
        if target.origin() != url.origin() {
            transport.config().harmless.drop_credentials(&mut headers);
            if !transport.same_settings(&target, &url) {
                identity = Identity::Anonymous;
            }
        }
        url = target;
        // A user part in a `Location` is the origin's to give.
        take_user(&mut url, &mut headers);
    }
    let limit = transport.config().max_redirects;
    Err(failure::protocol(
        &url,
        format!("is reached after more than {limit} redirects"),
    ))
}

/// A request without a body for one host.
pub(crate) struct Question<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) method: &'a Method,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a HeaderMap,
    /// How long the head of the answer may take, if not for ever.
    pub(crate) limit: Option<Duration>,
    pub(crate) extra: Extra<'a>,
}

impl Question<'_> {
    /// Sends it and waits for the head of the answer. Where there are own credentials for the host
    /// they answer its challenge, once. Gives whether the answer was let through by them.
    pub(crate) async fn send(&self) -> Result<(Response<Transfer>, bool)> {
        let auth = self.transport.auth();
        let Some(case) = auth.case(self.method, self.url, self.headers, &self.extra) else {
            return Ok((self.send_as(None).await?, false));
        };
        let first = auth.foresee(self.transport, &case).await;
        let answer = self.send_as(first.as_ref()).await?;
        let proven = first.as_ref().is_some_and(|pass| pass.credentialed);
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok((answer, proven));
        }
        let challenge = auth.challenge(&case, answer.headers());
        let hopeless = first.is_some_and(|pass| !auth.refused(&case, &pass, challenge.as_ref()));
        let Some(challenge) = challenge.filter(|_| !hopeless) else {
            return Ok((answer, proven));
        };
        // So that its connection carries the next request.
        drain(answer.into_body()).await;
        let pass = auth.pass(self.transport, &case, challenge).await?;
        let answer = self.send_as(Some(&pass)).await?;
        let proven = pass.credentialed;
        if answer.status() == StatusCode::UNAUTHORIZED {
            auth.refused(&case, &pass, None);
        } else {
            auth.accepted(&case, pass);
        }
        Ok((answer, proven))
    }

    async fn send_as(&self, pass: Option<&Pass>) -> Result<Response<Transfer>> {
        let mut headers = self.headers.clone();
        if let Some(pass) = pass {
            headers.insert(header::AUTHORIZATION, pass.value.clone());
        }
        let method = self.method.clone();
        let body = Body::empty();
        let answer = self
            .transport
            .execute(method, self.url, headers, body, self.extra);
        let Some(limit) = self.limit else {
            return answer.await;
        };
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(failure::no_head(self.url, limit)),
        }
    }
}

/// Reads the rest of a short answer, for a short time.
async fn drain(body: Transfer) {
    let read = Limited::new(body, SHORT).collect();
    let _ = tokio::time::timeout(DRAIN, read).await;
}

/// Makes the URL's user part into Basic credentials, unless there are others already.
pub(crate) fn take_user(url: &mut Url, headers: &mut HeaderMap) {
    if url.username().is_empty() && url.password().is_none() {
        return;
    }
    let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let (user, password) = (
        decoded(url.username()),
        decoded(url.password().unwrap_or_default()),
    );
    if let Some(basic) = basic(&user, &password) {
        headers.entry(header::AUTHORIZATION).or_insert(basic);
    }
    // Both only fail for URLs without a host, which have no user part either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
}

fn redirect_target(url: &Url, status: StatusCode, headers: &HeaderMap) -> Result<Option<Url>> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = headers.get(header::LOCATION) else {
        return Ok(None);
    };
    let target = std::str::from_utf8(location.as_bytes())
        .ok()
        .and_then(|location| url.join(location).ok())
        .ok_or_else(|| failure::protocol(url, "redirects to what is no URL"))?;
    if is_loopback(&target) && !is_loopback(url) {
        let shown = display_url(target.as_str());
        let what = format!("redirects to {shown}, a service of this very machine");
        return Err(failure::protocol(url, what).hint("use that URL itself if that is meant"));
    }
    match (url.scheme(), target.scheme()) {
        ("https", "http") => {
            let shown = display_url(target.as_str());
            Err(failure::protocol(
                url,
                format!("redirects from https to {shown}, which is not secure"),
            )
            .hint("use that URL itself if you trust the network"))
        }
        (_, "http" | "https") => Ok(Some(target)),
        (_, scheme) => Err(Error::new(
            Who::Origin,
            Kind::Protocol,
            format!("{} redirects to a {scheme} URL", display_url(url.as_str())),
        )
        .retryable(false)),
    }
}
