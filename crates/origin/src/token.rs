use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use pantala_core::{Error, Kind, Result, Who, display_url};
use tokio::time::Instant;
use url::Url;

use crate::{
    Asker, Body, Credentials,
    challenge::Service,
    credentials::basic,
    failure,
    tls::Identity,
    transport::{Extra, Transport},
};

/// How long a token is good when its service does not say.
const LIFETIME: Duration = Duration::from_secs(60);
/// A token is no longer used so long before it expires, or for the last tenth of its life: the
/// request that carries it takes time to arrive.
const MARGIN: Duration = Duration::from_secs(10);
/// The longest answer of a token service, in bytes.
const LONGEST: usize = 64 << 10;

/// What opens a part of a registry for a while.
#[derive(Clone)]
pub(crate) struct Token {
    /// The value of `Authorization`.
    pub(crate) value: HeaderValue,
    until: Instant,
}

impl Token {
    pub(crate) fn is_good(&self) -> bool {
        Instant::now() < self.until
    }
}

/// Asks a token service for what `registry` wants, in the name of `credentials` or of nobody, where the
/// service is for who asks the registry.
///
/// # Errors
/// `Denied` when it refuses; else why there is no token.
pub(crate) async fn fetch(
    transport: &Transport,
    registry: &Url,
    service: &Service,
    (credentials, asker): (Option<&Credentials>, Asker),
) -> Result<Token> {
    let config = transport.config();
    let url = question(service);
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    if let Ok(agent) = HeaderValue::from_str(&config.user_agent) {
        headers.insert(header::USER_AGENT, agent);
    }
    if let Some(credentials) = credentials {
        headers.extend(
            basic(&credentials.username, &credentials.password)
                .map(|basic| (header::AUTHORIZATION, basic)),
        );
    }
    // A registry that is a stranger to us may name any service.
    let known = credentials.is_some() || transport.same_settings(registry, &url);
    let extra = Extra {
        identity: match known {
            true => Identity::Ours,
            false => Identity::Anonymous,
        },
        asker,
        ..Extra::default()
    };
    let asked = Instant::now();
    let limit = config.connect_timeout + config.read_timeout;
    let answer = async {
        // A redirect is no token: the credentials are for this service alone.
        let answer = transport
            .execute(Method::GET, &url, headers, Body::empty(), extra)
            .await?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(refused(&url, registry, status, credentials.is_some()));
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| unusable(&url, error))?;
        read(&body.to_bytes(), asked).ok_or_else(|| unusable(&url, "it holds no token"))
    };
    match tokio::time::timeout(limit, answer).await {
        Ok(token) => token,
        Err(_) => Err(failure::silence(&url, limit)),
    }
}

fn question(service: &Service) -> Url {
    let mut url = service.realm.clone();
    // A realm that has its own query keeps it.
    let mut query = url.query_pairs_mut();
    if let Some(service) = &service.service {
        query.append_pair("service", service);
    }
    for scope in service.scope.iter().flat_map(|scope| scope.split(' ')) {
        if !scope.is_empty() {
            query.append_pair("scope", scope);
        }
    }
    drop(query);
    url
}

fn read(answer: &Bytes, asked: Instant) -> Option<Token> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let text = |name: &str| answer.get(name)?.as_str().filter(|text| !text.is_empty());
    let token = text("token").or_else(|| text("access_token"))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    let lifetime = match answer.get("expires_in").and_then(serde_json::Value::as_u64) {
        // More than a day is as good as for ever, and an `Instant` has an end.
        Some(seconds) => Duration::from_secs(seconds.min(86_400)),
        None => LIFETIME,
    };
    Some(Token {
        value,
        until: asked + (lifetime - MARGIN.min(lifetime / 10)),
    })
}

fn refused(url: &Url, registry: &Url, status: StatusCode, ours: bool) -> Error {
    let (service, code) = (display_url(url.as_str()), status.as_u16());
    let what = format!("the token service {service} answered {code}");
    let registry = registry.host_str().unwrap_or_default();
    match (code, ours) {
        (401 | 403, true) => Error::new(Who::Origin, Kind::Denied, what)
            .hint(format!("check the credentials configured for {registry}")),
        (401 | 403, false) => Error::new(Who::Origin, Kind::Denied, what)
            .hint(format!("configure credentials for {registry}")),
        _ => Error::new(Who::Origin, Kind::Status(code), what),
    }
}

fn unusable(url: &Url, why: impl fmt::Display) -> Error {
    let service = display_url(url.as_str());
    let what = format!("the answer of the token service {service} is of no use: {why}");
    Error::new(Who::Origin, Kind::Protocol, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_is_a_parameter_of_its_own() {
        let service = Service {
            realm: "https://auth.example/token?account=a".parse().unwrap(),
            service: Some("registry.example".into()),
            scope: Some("repository:a:pull repository:b:pull".into()),
        };
        assert_eq!(
            question(&service).as_str(),
            "https://auth.example/token?account=a&service=registry.example\
             &scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull"
        );
    }

    #[test]
    fn a_token_is_good_until_shortly_before_its_end() {
        let now = Instant::now();
        for (answer, seconds) in [
            (r#"{"token":"t"}"#, 54),
            (r#"{"access_token":"t","expires_in":300}"#, 290),
            (r#"{"token":"t","access_token":"u","expires_in":0}"#, 0),
            (r#"{"token":"t","expires_in":18446744073709551615}"#, 86_390),
        ] {
            let token = read(&Bytes::from_static(answer.as_bytes()), now).unwrap();
            assert_eq!(token.value, "Bearer t", "{answer}");
            assert!(token.value.is_sensitive());
            assert_eq!((token.until - now).as_secs(), seconds, "{answer}");
        }
        for answer in ["", "{}", r#"{"token":""}"#, r#"{"token":1}"#, "\"t\""] {
            assert!(read(&Bytes::from_static(answer.as_bytes()), now).is_none());
        }
    }
}
