use http::{HeaderMap, Method, header};
use pantala_core::{Error, Kind, Result, Who, display_url};
use url::Url;

use crate::{credentials::drop_credentials, failure, transport::Transport};

/// An answer, redirects followed.
pub(crate) struct Answer {
    /// Who gave it.
    pub(crate) url: Url,
    pub(crate) response: reqwest::Response,
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
    take_user(transport, &mut url, &mut headers);
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
        take_user(transport, &mut url, &mut headers);
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
) -> Result<reqwest::Response> {
    let client = transport.for_url(url).await?;
    let config = transport.config();
    let mut request = reqwest::Request::new(method, url.clone());
    *request.headers_mut() = headers;
    let limit = config.connect_timeout + config.read_timeout;
    match tokio::time::timeout(limit, client.execute(request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(failure::no_answer(&error, url, config.connect_timeout)),
        Err(_) => Err(failure::silence(url, config.read_timeout)),
    }
}

/// Makes the URL's user part into Basic credentials, unless there are others already.
fn take_user(transport: &Transport, url: &mut Url, headers: &mut HeaderMap) {
    if url.username().is_empty() && url.password().is_none() {
        return;
    }
    // reqwest knows how to encode them; building a request touches no network.
    let given = transport.plain().get(url.clone()).build();
    let basic = given
        .ok()
        .and_then(|request| request.headers().get(header::AUTHORIZATION).cloned());
    if let Some(basic) = basic {
        headers.entry(header::AUTHORIZATION).or_insert(basic);
    }
    // Both only fail for URLs without a host, which have no user part either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
}

fn redirect_target(url: &Url, response: &reqwest::Response) -> Result<Option<Url>> {
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
