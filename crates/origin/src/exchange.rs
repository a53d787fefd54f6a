use http::{HeaderMap, HeaderValue, Method, Response, header};
use pantala_core::{Error, Kind, Result, Who, display_url};
use percent_encoding::percent_decode_str;
use url::Url;

use crate::{
    Body, connection::Transfer, credentials::drop_credentials, failure, transport::Transport,
};

/// An answer, redirects followed.
pub(crate) struct Answer {
    /// Who gave it.
    pub(crate) url: Url,
    pub(crate) response: Response<Transfer>,
}

/// Sends a request without a body and follows redirects.
///
/// # Errors
/// When nobody answers, or the redirects lead nowhere: too many, from https to http, to another
/// scheme.
pub(crate) async fn exchange(
    transport: &Transport,
    method: Method,
    url: &Url,
    mut headers: HeaderMap,
) -> Result<Answer> {
    let mut url = url.clone();
    take_user(&mut url, &mut headers);
    for _ in 0..=transport.config().max_redirects {
        let response = send(transport, method.clone(), &url, headers.clone()).await?;
        let Some(target) = redirect_target(&url, &response)? else {
            return Ok(Answer { url, response });
        };
        tracing::debug!(
            from = display_url(url.as_str()),
            to = display_url(target.as_str()),
            status = response.status().as_u16(),
            "redirected"
        );
        if target.origin() != url.origin() {
            drop_credentials(&mut headers);
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

/// Sends one request and waits for the head of the answer.
async fn send(
    transport: &Transport,
    method: Method,
    url: &Url,
    headers: HeaderMap,
) -> Result<Response<Transfer>> {
    let config = transport.config();
    let limit = config.connect_timeout + config.read_timeout;
    let answer = transport.execute(method, url, headers, Body::empty());
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(failure::silence(url, config.read_timeout)),
    }
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
    let basic = http_auth::basic::encode_credentials(&user, &password);
    if let Ok(mut basic) = HeaderValue::from_str(&basic) {
        basic.set_sensitive(true);
        headers.entry(header::AUTHORIZATION).or_insert(basic);
    }
    // Both only fail for URLs without a host, which have no user part either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
}

fn redirect_target(url: &Url, response: &Response<Transfer>) -> Result<Option<Url>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(header::LOCATION) else {
        return Ok(None);
    };
    let target = std::str::from_utf8(location.as_bytes())
        .ok()
        .and_then(|location| url.join(location).ok())
        .ok_or_else(|| failure::protocol(url, "redirects to what is no URL"))?;
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
