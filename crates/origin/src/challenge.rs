use http::{HeaderMap, header};
use http_auth::{ChallengeRef, parse_challenges};
use url::Url;

/// What an origin wants to see before it answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Challenge {
    /// A token of that service.
    Bearer(Service),
    /// A user name and a password.
    Basic,
}

/// Where a token is to be had, and what for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Service {
    pub(crate) realm: Url,
    pub(crate) service: Option<String>,
    /// Several are told apart by spaces.
    pub(crate) scope: Option<String>,
}

/// The challenges of a 401 that can be met, in the order they are best tried: a token opens less
/// than a password.
pub(crate) fn read(headers: &HeaderMap) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        // A malformed line hides what stands in others from nobody.
        .filter_map(|line| parse_challenges(line).ok())
        .flatten()
        .filter_map(|challenge| known(&challenge))
        .collect();
    challenges.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
    challenges
}

fn known(challenge: &ChallengeRef<'_>) -> Option<Challenge> {
    if challenge.scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !challenge.scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let param = |wanted: &str| {
        let mut params = challenge.params.iter();
        let (_, value) = params.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        Some(value.to_unescaped()).filter(|value| !value.is_empty())
    };
    let realm: Url = param("realm")?.parse().ok()?;
    matches!(realm.scheme(), "http" | "https").then(|| {
        Challenge::Bearer(Service {
            realm,
            service: param("service"),
            scope: param("scope"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_lines(lines: &[&'static str]) -> Vec<Challenge> {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = http::HeaderValue::from_static(line);
            headers.append(header::WWW_AUTHENTICATE, value);
        }
        read(&headers)
    }

    fn bearer(service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer(Service {
            realm: "https://auth.example/token".parse().unwrap(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        })
    }

    #[test]
    fn a_registrys_challenge_names_service_and_scope() {
        let line = "Bearer realm=\"https://auth.example/token\",service=\"registry.example\",\
                    scope=\"repository:a/b:pull,push\"";
        assert_eq!(
            read_lines(&[line]),
            [bearer(
                Some("registry.example"),
                Some("repository:a/b:pull,push")
            )]
        );
    }

    #[test]
    fn several_challenges_stand_in_one_line_or_many() {
        let token = "bearer Realm=\"https://auth.example/token\"";
        for lines in [
            &["Basic realm=\"x\", Bearer realm=\"https://auth.example/token\""][..],
            &["basic realm=\"a, b\"", token],
            &["Negotiate", token, "Basic realm=\"x\", charset=\"UTF-8\""],
        ] {
            let expected = [bearer(None, None), Challenge::Basic];
            assert_eq!(read_lines(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_cannot_be_met_is_left_out() {
        for line in [
            "",
            "Negotiate",
            "Digest realm=\"x\", nonce=\"y\"",
            "Bearer",
            "Bearer error=\"invalid_token\"",
            "Bearer realm=\"the registry\"",
            "Bearer realm=\"file:///etc/passwd\"",
            "Bearer realm=\"https://auth.example/token",
        ] {
            assert_eq!(read_lines(&[line]), [], "{line}");
        }
    }
}
