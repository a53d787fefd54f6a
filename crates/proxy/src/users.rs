//! Who may use the proxy.

use std::{collections::HashMap, path::Path};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use pantala_core::{Error, Kind, Result, Who};

use crate::reply::{self, Reply};

/// The users of the proxy, by the hash of what they must send.
#[derive(Default)]
pub(crate) struct Users {
    /// `None` when everybody may.
    known: Option<HashMap<[u8; 32], String>>,
}

impl Users {
    /// Reads a file of `USER:PASSWORD` lines; empty lines and those that begin with `#` are left
    /// out.
    ///
    /// # Errors
    /// `BadInput` when it cannot be read or holds anything else.
    pub fn read(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let bad = |what: String| {
            let what = format!("--proxy-auth {}: {what}", path.display());
            Error::new(Who::User, Kind::BadInput, what).hint("write one USER:PASSWORD per line")
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| bad(format!("cannot be read, {error}")))?;
        let mut known = HashMap::new();
        for (at, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((user, _)) = line.split_once(':').filter(|(user, _)| !user.is_empty()) else {
                return Err(bad(format!("line {at} is not USER:PASSWORD")));
            };
            known.insert(hash(&basic(line)), user.to_owned());
        }
        if known.is_empty() {
            return Err(bad("holds no user".to_owned()));
        }
        Ok(Self { known: Some(known) })
    }

    /// Whether nobody has to say who they are.
    pub fn is_open(&self) -> bool {
        self.known.is_none()
    }

    /// Whether a request may use the proxy.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(known) = &self.known else {
            return true;
        };
        let mut given = headers.get_all(header::PROXY_AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else {
            return false;
        };
        let Some((scheme, token)) = given.to_str().ok().and_then(|text| text.split_once(' '))
        else {
            return false;
        };
        // Looked up by a hash, so that the time it takes says nothing of the password.
        scheme.eq_ignore_ascii_case("basic") && known.contains_key(&hash(token.trim()))
    }
}

/// What Basic sends for `user:password`.
fn basic(pair: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(pair)
}

fn hash(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}

/// Asks who it is.
pub(crate) fn ask() -> Reply {
    let line = "this proxy wants a user name and a password (Proxy-Authorization: Basic)";
    let mut reply = reply::text(StatusCode::PROXY_AUTHENTICATION_REQUIRED, line);
    let challenge = HeaderValue::from_static("Basic realm=\"pantala\", charset=\"UTF-8\"");
    reply
        .headers_mut()
        .insert(header::PROXY_AUTHENTICATE, challenge);
    reply
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::PROXY_AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn only_those_in_the_file_are_let_in() {
        let file = file("# users\n\nann:with:colon\nbob:x\n");
        let users = Users::read(Some(file.path())).unwrap();
        assert!(!users.is_open());
        for good in ["ann:with:colon", "bob:x"] {
            assert!(
                users.admit(&headers(&format!("basic {}", basic(good)))),
                "{good}"
            );
        }
        for bad in ["ann:with", "bob:", "", "bob:x "] {
            assert!(
                !users.admit(&headers(&format!("Basic {}", basic(bad)))),
                "{bad}"
            );
        }
        assert!(!users.admit(&HeaderMap::new()));
        assert!(!users.admit(&headers("Bearer x")));
        assert!(Users::default().admit(&HeaderMap::new()));
    }

    #[test]
    fn a_bad_file_is_refused_by_name() {
        for text in ["", "ann\n", ":x\n"] {
            let file = file(text);
            let error = Users::read(Some(file.path())).err().unwrap();
            assert!(
                error
                    .to_string()
                    .contains(&file.path().display().to_string())
            );
        }
        assert!(Users::read(Some(Path::new("/nowhere/at/all"))).is_err());
    }
}
