//! Own credentials: answers to what origins challenge us with, where the operator gave us some or
//! allowed tokens for nobody in particular.
//!
//! What holds:
//! - nothing is answered for a request that brought credentials of its own, or that would change
//!   something at the origin;
//! - credentials go to the host they were given for and the token service it names, encrypted
//!   unless that is this machine or the operator allowed it, and never because another host
//!   redirected there;
//! - of concurrent requests for one token one asks for it, and what was learned is remembered, so
//!   that the next request is let through at once.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, header};
use pantala_core::{Error, Kind, Result, Who};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use url::Url;

use crate::{
    Asker, HostConfig,
    challenge::{self, Challenge, Service},
    credentials::{basic, is_signed},
    hosts::{Hosts, is_loopback},
    place::Place,
    tls::Identity,
    token::{self, Token},
    transport::{Extra, Transport},
};

/// Repositories and tokens that are remembered; who has not been asked for longest is forgotten.
const REMEMBERED: usize = 1024;

/// What is known of how to be let through.
pub(crate) struct Auth {
    hosts: Arc<Hosts>,
    /// What each part of an origin wants to see.
    wanted: Mutex<Recent<Door, Challenge>>,
    tokens: Mutex<Recent<TokenKey, TokenSlot>>,
}

/// What one challenge stands in front of. What opens it with our credentials is kept apart from
/// what opens it for nobody in particular.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Door {
    place: Place,
    ours: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    /// Whose credentials it was given for.
    origin: String,
    /// Whether it was given to us, not to nobody in particular.
    ours: bool,
    /// For whom it was asked for: its service may not be for everybody.
    asker: Asker,
    service: Service,
}

/// A token, or why there is none, as soon as who asks for it knows. Who comes later than that and
/// finds an error asks again.
type TokenSlot = Arc<OnceCell<Result<Token>>>;

/// A request that may be answered for.
pub(crate) struct Case<'a> {
    url: &'a Url,
    host: &'a HostConfig,
    door: Door,
    /// Whether the host's credentials may be sent over the connection that the URL asks for.
    ours: bool,
    /// For whom it is asked.
    asker: Asker,
}

/// What lets a request through.
pub(crate) struct Pass {
    pub(crate) value: HeaderValue,
    /// Whether it proves who we are.
    pub(crate) credentialed: bool,
    challenge: Challenge,
}

impl Auth {
    pub(crate) fn new(hosts: Arc<Hosts>) -> Self {
        Self {
            hosts,
            wanted: Mutex::default(),
            tokens: Mutex::default(),
        }
    }

    /// Whether the operator gave us credentials for who stands at this URL.
    pub(crate) fn has_credentials(&self, url: &Url) -> bool {
        let host = self.hosts.of(url);
        host.is_some_and(|(_, host)| host.credentials.is_some())
    }

    /// Whether a request may be answered for at all.
    pub(crate) fn case<'a>(
        &'a self,
        method: &Method,
        url: &'a Url,
        headers: &HeaderMap,
        extra: &Extra<'_>,
    ) -> Option<Case<'a>> {
        let (_, host) = self.hosts.of(url)?;
        let ours = extra.identity == Identity::Ours
            && host.credentials.is_some()
            && (is_private(url) || host.cleartext_credentials);
        let answerable = ours || host.anonymous_tokens;
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let speaks_for_itself = headers.contains_key(header::AUTHORIZATION) || is_signed(url);
        (answerable && reads && !speaks_for_itself).then(|| Case {
            url,
            host,
            door: Door {
                place: Place::of(url),
                ours,
            },
            ours,
            asker: extra.asker,
        })
    }

    /// What let the last such request through, renewed where it has expired.
    pub(crate) async fn foresee(&self, transport: &Transport, case: &Case<'_>) -> Option<Pass> {
        let challenge = self.wanted.lock().get(&case.door)?;
        match self.pass(transport, case, challenge).await {
            Ok(pass) => Some(pass),
            Err(error) => {
                tracing::debug!(%error, "no token ahead of a request");
                None
            }
        }
    }

    /// The challenge of a 401 that can be met.
    pub(crate) fn challenge(&self, case: &Case<'_>, headers: &HeaderMap) -> Option<Challenge> {
        let mut challenges = challenge::read(headers).into_iter();
        challenges.find(|challenge| match challenge {
            Challenge::Basic => case.ours,
            Challenge::Bearer(service) => {
                let sound = case.may_ask(&service.realm);
                if !sound {
                    let realm = pantala_core::display_url(service.realm.as_str());
                    tracing::warn!(
                        host = case.host.host,
                        realm,
                        "a token service is not secure"
                    );
                }
                sound
            }
        })
    }

    /// What meets the challenge.
    ///
    /// # Errors
    /// When the token service gives no token.
    pub(crate) async fn pass(
        &self,
        transport: &Transport,
        case: &Case<'_>,
        challenge: Challenge,
    ) -> Result<Pass> {
        let credentials = case.host.credentials.as_ref().filter(|_| case.ours);
        let value = match &challenge {
            Challenge::Basic => credentials
                .and_then(|ours| basic(&ours.username, &ours.password))
                .ok_or_else(|| Error::new(Who::Us, Kind::Internal, "there are no credentials"))?,
            Challenge::Bearer(service) => {
                let slot = self.slot(&case.token_key(service));
                let client = (credentials, case.asker);
                let ask = || token::fetch(transport, case.url, service, client);
                slot.get_or_init(ask).await.clone()?.value
            }
        };
        Ok(Pass {
            value,
            credentialed: credentials.is_some(),
            challenge,
        })
    }

    /// It let the request through.
    pub(crate) fn accepted(&self, case: &Case<'_>, pass: Pass) {
        self.wanted.lock().put(case.door.clone(), pass.challenge);
    }

    /// It did not let the request through. Gives whether it may be worth trying anew because
    /// `again`, what is wanted now, is something else or something that can be renewed.
    pub(crate) fn refused(&self, case: &Case<'_>, pass: &Pass, again: Option<&Challenge>) -> bool {
        self.wanted.lock().remove(&case.door);
        if let Challenge::Bearer(service) = &pass.challenge {
            let key = case.token_key(service);
            let mut tokens = self.tokens.lock();
            // Another request may have renewed it meanwhile.
            let is_this = tokens.get(&key).is_some_and(|slot| {
                let token = slot.get().and_then(|token| token.as_ref().ok());
                token.is_some_and(|token| token.value == pass.value)
            });
            if is_this {
                tokens.remove(&key);
            }
            return again.is_some();
        }
        again.is_some_and(|again| *again != pass.challenge)
    }

    /// Where the token is, or will be: a new slot where the old one's is of no use any more.
    fn slot(&self, key: &TokenKey) -> TokenSlot {
        let mut tokens = self.tokens.lock();
        if let Some(slot) = tokens.get(key) {
            let usable = |token: &Result<Token>| token.as_ref().is_ok_and(Token::is_good);
            if slot.get().is_none_or(usable) {
                return slot;
            }
        }
        let slot = TokenSlot::default();
        tokens.put(key.clone(), slot.clone());
        slot
    }
}

impl Case<'_> {
    fn token_key(&self, service: &Service) -> TokenKey {
        TokenKey {
            origin: self.door.place.origin.clone(),
            ours: self.ours,
            asker: self.asker,
            service: service.clone(),
        }
    }

    /// Whether a token service may see what we would send it.
    fn may_ask(&self, realm: &Url) -> bool {
        let as_open =
            self.url.scheme() == "http" && (!self.ours || self.host.cleartext_credentials);
        is_private(realm) || as_open
    }
}

/// Whether nobody on the way can read what is sent there.
fn is_private(url: &Url) -> bool {
    url.scheme() == "https" || is_loopback(url)
}

/// A bounded map: what was put in first leaves first.
struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    next: u64,
}

impl<K: Clone + Eq + Hash, V: Clone> Recent<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.entries.get(key).map(|(_, value)| value.clone())
    }

    fn put(&mut self, key: K, value: V) {
        self.entries.insert(key, (self.next, value));
        self.next += 1;
        if self.entries.len() > REMEMBERED {
            let oldest = self.entries.iter().min_by_key(|(_, (age, _))| *age);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.entries.remove(&key);
            }
        }
    }

    fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            next: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credentials;

    const OURS: Extra<'_> = Extra {
        identity: Identity::Ours,
        interim: None,
        whole_server: false,
        asker: Asker::Host,
        reads_little: false,
    };

    fn auth(hosts: &[HostConfig]) -> Auth {
        Auth::new(Arc::new(Hosts::new(hosts).unwrap()))
    }

    fn with_credentials(host: &str) -> HostConfig {
        HostConfig {
            host: host.to_owned(),
            credentials: Some(Credentials {
                username: "me".to_owned(),
                password: "pw".to_owned(),
            }),
            ..HostConfig::default()
        }
    }

    fn answerable(auth: &Auth, method: Method, url: &str) -> bool {
        let url = url.parse().unwrap();
        auth.case(&method, &url, &HeaderMap::new(), &OURS).is_some()
    }

    #[test]
    fn only_reading_without_credentials_is_answered_for() {
        let auth = auth(&[with_credentials("registry.example")]);
        let url = "https://registry.example/v2/a/blobs/x";
        assert!(answerable(&auth, Method::GET, url));
        assert!(answerable(&auth, Method::HEAD, url));
        assert!(!answerable(&auth, Method::DELETE, url));
        assert!(!answerable(&auth, Method::POST, url));
        assert!(!answerable(&auth, Method::GET, "https://hub.example/x"));
        assert!(!answerable(&auth, Method::GET, &format!("{url}?sig=1")));
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("x"));
        let url = url.parse().unwrap();
        let case = auth.case(&Method::GET, &url, &headers, &OURS);
        assert!(case.is_none());
    }

    #[test]
    fn credentials_are_not_sent_where_others_can_read_them() {
        let mut open = with_credentials("open.example");
        open.cleartext_credentials = true;
        let auth = auth(&[
            with_credentials("registry.example"),
            with_credentials("localhost"),
            open,
        ]);
        for (url, realm, sent) in [
            ("http://registry.example/x", "https://auth.example/", false),
            ("https://registry.example/x", "https://auth.example/", true),
            ("https://registry.example/x", "http://auth.example/", false),
            ("https://registry.example/x", "http://127.0.0.1:5001/", true),
            ("http://localhost:5000/x", "http://localhost:5001/", true),
            ("http://localhost:5000/x", "http://auth.example/", false),
            ("http://open.example/x", "http://auth.example/", true),
            ("https://open.example/x", "http://auth.example/", false),
        ] {
            let (url, realm) = (url.parse().unwrap(), realm.parse().unwrap());
            let case = auth.case(&Method::GET, &url, &HeaderMap::new(), &OURS);
            let may = case.is_some_and(|case| case.may_ask(&realm));
            assert_eq!(may, sent, "{url} {realm}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        for number in 0..2 * REMEMBERED {
            recent.put(number, ());
            recent.put(number, ());
        }
        assert_eq!(recent.entries.len(), REMEMBERED);
        assert!(recent.get(&(REMEMBERED - 1)).is_none());
        assert!(recent.get(&REMEMBERED).is_some());
    }
}
