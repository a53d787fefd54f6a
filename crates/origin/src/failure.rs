use std::{error::Error as StdError, fmt, io, time::Duration};

use http::{HeaderMap, Response, StatusCode, header};
use pantala_core::{Error, Kind, Who, display_url};
use rustls::{AlertDescription, CertificateError};
use url::Url;

use crate::{
    connect::{ConnectFailure, Inside, Unresolved},
    connection::Transfer,
    passed::ClientBroke,
};

/// Why an attempt failed, with what the origin said about trying again.
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// What `Retry-After` asked for.
    pub(crate) retry_after: Option<Duration>,
    /// Bytes of the whole content, as a 416 tells them.
    pub(crate) length: Option<u64>,
    /// The answer itself, where it is the word of who was asked.
    pub(crate) answer: Option<Box<Response<Transfer>>>,
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            retry_after: None,
            length: None,
            answer: None,
        }
    }
}

/// A defect of the origin's answer that asking again will not mend.
pub(crate) fn protocol(url: &Url, what: impl fmt::Display) -> Error {
    let url = display_url(url.as_str());
    Error::new(Who::Origin, Kind::Protocol, format!("{url} {what}")).retryable(false)
}

/// The origin took a request and did not begin to answer it for as long as it may. It is not asked
/// again: it may be at work on the answer, and would begin anew.
pub(crate) fn no_head(url: &Url, limit: Duration) -> Error {
    let url = display_url(url.as_str());
    let what = format!("{url} did not answer within {limit:?}");
    Error::new(Who::Origin, Kind::Timeout, what)
        .hint("wait longer with --timeout")
        .retryable(false)
}

/// A transfer broke that no other answer can be told to go on with. `url` as it may be shown.
pub(crate) fn no_way_on(url: &str, position: u64, why: &Error) -> Error {
    let what = format!(
        "the transfer of {url} broke at byte {position} ({}), and nothing tells whether another answer \
         is of the same version: the origin gives neither a strong ETag nor a settled Last-Modified",
        why.what()
    );
    Error::new(Who::Origin, Kind::Changed, what).hint("start again")
}

/// The origin said nothing for as long as it may.
pub(crate) fn silence(url: &Url, limit: Duration) -> Error {
    let url = display_url(url.as_str());
    Error::new(
        Who::Origin,
        Kind::Timeout,
        format!("{url} sent nothing for {limit:?}"),
    )
}

/// The origin answered with a status that is no success.
pub(crate) fn status(
    url: &Url,
    status: StatusCode,
    headers: &HeaderMap,
    credentials: bool,
) -> Failure {
    let code = status.as_u16();
    let kind = match code {
        401 | 403 => Kind::Denied,
        404 | 410 => Kind::NotFound,
        416 => Kind::RangeNotSatisfiable,
        code => Kind::Status(code),
    };
    let mut what = format!("{} answered {code}", display_url(url.as_str()));
    if let Some(reason) = status.canonical_reason() {
        what.push_str(&format!(" ({})", reason.to_ascii_lowercase()));
    }
    let mut failure = Failure::from(Error::new(Who::Origin, kind, what));
    let hint = match kind {
        Kind::Denied if credentials => {
            Some("the credentials given are not accepted there".to_owned())
        }
        Kind::Denied => Some("pass credentials with --header".to_owned()),
        Kind::NotFound => Some("check the URL".to_owned()),
        Kind::RangeNotSatisfiable => {
            failure.length = unsatisfied_length(headers);
            failure
                .length
                .map(|length| format!("the content has {length} bytes"))
        }
        _ => None,
    };
    if let Some(hint) = hint {
        failure.error = failure.error.hint(hint);
    }
    if matches!(code, 429 | 503) {
        failure.retry_after = retry_after(headers);
        if let Some(pause) = failure.retry_after {
            failure.error = failure.error.retry_after(pause);
        }
    }
    failure
}

/// The length in the `Content-Range: bytes */LENGTH` of a 416.
fn unsatisfied_length(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    value
        .trim()
        .strip_prefix("bytes")?
        .trim()
        .strip_prefix("*/")?
        .parse()
        .ok()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    at.duration_since(std::time::SystemTime::now()).ok()
}

/// No answer came.
pub(crate) fn no_answer(
    error: &(dyn StdError + 'static),
    url: &Url,
    connect_timeout: Duration,
) -> Error {
    let host = authority(url);
    let unreachable = |what: String| Error::new(Who::Origin, Kind::Unreachable, what);
    let connecting = find::<ConnectFailure>(error);
    if let Some(ConnectFailure::Unprepared(error)) = connecting {
        return error.clone();
    }
    if let Some(broke) = find::<ClientBroke>(error) {
        let what = format!("the request's body broke off: {}", root_cause(broke));
        return Error::new(Who::Reader, Kind::BadInput, what).retryable(false);
    }
    if let Some(cause) = find_tls(error) {
        return tls(cause, &host);
    }
    if find::<Inside>(error).is_some() {
        let what = format!("{host} is a service of this very host, for its own programs alone");
        return Error::new(Who::User, Kind::Denied, what)
            .hint("name it with --upstream if others may use it as a registry");
    }
    if find::<Unresolved>(error).is_some() {
        let name = url.host_str().unwrap_or_default();
        return unreachable(format!("the host name {name} does not resolve"))
            .hint("check the host name");
    }
    let kind = find::<io::Error>(error).map(io::Error::kind);
    let late = kind == Some(io::ErrorKind::TimedOut);
    if matches!(connecting, Some(ConnectFailure::Late)) || (late && connecting.is_some()) {
        let what = format!("{host} did not accept a connection within {connect_timeout:?}");
        return Error::new(Who::Origin, Kind::Timeout, what)
            .hint("check the host and port, and that no firewall is in the way");
    }
    if late {
        let what = format!("{host} stopped answering");
        return Error::new(Who::Origin, Kind::Timeout, what);
    }
    if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) {
        return protocol(
            url,
            format!("gave an answer that is not HTTP: {}", root_cause(error)),
        );
    }
    match kind {
        Some(io::ErrorKind::ConnectionRefused) => {
            unreachable(format!("{host} refused the connection"))
                .hint("check the host and port, and that a server listens there")
        }
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            unreachable(format!("there is no route to {host}")).hint("check the network")
        }
        _ if connecting.is_some() => {
            unreachable(format!("cannot connect to {host}: {}", root_cause(error)))
        }
        _ => unreachable(format!(
            "the connection to {host} broke before it answered: {}",
            root_cause(error)
        )),
    }
}

/// A body broke after `position` bytes of the content.
pub(crate) fn broken_body(error: &hyper::Error, url: &Url, position: u64) -> Error {
    let url = display_url(url.as_str());
    let what = format!("{url} broke off at byte {position}: {}", root_cause(error));
    // An end before the announced one is a break like any other.
    let malformed = find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse);
    let kind = if malformed {
        Kind::Protocol
    } else {
        Kind::Unreachable
    };
    Error::new(Who::Origin, kind, what).hint("try again later, or ask who runs the origin")
}

fn tls(cause: &rustls::Error, host: &str) -> Error {
    let hint = match cause {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "add the certificate authority with --ca if you trust it"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "renew its certificate, or set this machine's clock",
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "use a host name that its certificate covers",
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => "configure a client certificate for it that it accepts",
        rustls::Error::InvalidMessage(_) => "if it speaks plain HTTP, use http://",
        _ => "add the certificate authority with --ca if it is a private one",
    };
    let what = format!("TLS with {host} failed: {cause}");
    Error::new(Who::Origin, Kind::Tls, what).hint(hint)
}

/// `HOST:PORT`, the port even where it is the scheme's own: it is what a firewall sees.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

/// The TLS error in a chain. An IO error hides what it wraps from `source`, and shows the wrapped
/// one's source instead.
fn find_tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    chain(error).find_map(|cause| {
        cause.downcast_ref().or_else(|| {
            let mut inner = cause.downcast_ref::<io::Error>()?.get_ref()?;
            // Layers may each have wrapped it once more.
            loop {
                if let Some(found) = inner.downcast_ref() {
                    return Some(found);
                }
                inner = inner.downcast_ref::<io::Error>()?.get_ref()?;
            }
        })
    })
}

fn root_cause(error: &(dyn StdError + 'static)) -> String {
    chain(error)
        .last()
        .map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: u16, headers: &[(&'static str, &str)]) -> Failure {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let url = "http://me:pw@origin.example/f?sig=1".parse().unwrap();
        status(&url, StatusCode::from_u16(code).unwrap(), &map, false)
    }

    #[test]
    fn statuses_become_kinds() {
        for (code, kind) in [
            (401, Kind::Denied),
            (403, Kind::Denied),
            (404, Kind::NotFound),
            (410, Kind::NotFound),
            (416, Kind::RangeNotSatisfiable),
            (500, Kind::Status(500)),
        ] {
            assert_eq!(failure(code, &[]).error.kind(), kind);
        }
        assert_eq!(
            failure(403, &[]).error.to_string(),
            "origin: http://origin.example/f answered 403 (forbidden); pass credentials with --header"
        );
    }

    #[test]
    fn an_origin_says_when_to_come_back_and_how_long_it_is() {
        assert_eq!(
            failure(429, &[("retry-after", "3")]).retry_after,
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            failure(503, &[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]).retry_after,
            None
        );
        assert_eq!(
            failure(416, &[("content-range", "bytes */0")]).length,
            Some(0)
        );
    }
}
