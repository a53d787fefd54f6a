//! What `Cache-Control` says, read as RFC 9111 writes it. What it means is for whoever asks.

use std::time::Duration;

use http::{HeaderMap, header};

/// The longest time that a directive can name; a longer one counts as this (RFC 9111, 1.2.2).
const LONGEST: Duration = Duration::from_secs(1 << 31);

/// The directives of a message's `Cache-Control` lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives(Vec<Directive>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Directive {
    /// Lower-case.
    name: String,
    /// Without quotes.
    value: Option<String>,
}

/// A number of seconds that a directive names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seconds {
    /// The directive is not there.
    Absent,
    /// Its value is no number, or it is there twice with different values.
    Invalid,
    /// So long.
    Given(Duration),
}

impl Directives {
    /// Those of a message with these headers.
    pub fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(header::CACHE_CONTROL);
        let directives = lines.iter().flat_map(|line| elements(line.as_bytes()));
        Self(directives.collect())
    }

    /// Whether a directive is there, with or without a value. `name` is lower-case.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|directive| directive.name == name)
    }

    /// How long the directive says. `name` is lower-case.
    pub fn seconds(&self, name: &str) -> Seconds {
        let mut found = Seconds::Absent;
        for directive in self.0.iter().filter(|directive| directive.name == name) {
            let seconds = match directive.value.as_deref().and_then(delta) {
                Some(seconds) => Seconds::Given(seconds),
                None => Seconds::Invalid,
            };
            if found != Seconds::Absent && found != seconds {
                return Seconds::Invalid;
            }
            found = seconds;
        }
        found
    }
}

/// Reads a number of seconds (RFC 9111, 1.2.2): digits alone.
pub(crate) fn delta(text: &str) -> Option<Duration> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Digits that are too many for a number are a very long time.
    let seconds = text.parse().unwrap_or(u64::MAX);
    Some(Duration::from_secs(seconds).min(LONGEST))
}

/// The directives of one line: separated by commas outside of quotes.
fn elements(line: &[u8]) -> impl Iterator<Item = Directive> {
    let mut rest = line;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = end_of_element(rest);
            let element = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            if let Some(directive) = directive(element) {
                return Some(directive);
            }
        }
        None
    })
}

/// Where the comma stands that ends the first element.
fn end_of_element(line: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    let comma = line.iter().position(|&byte| {
        let ends = byte == b',' && !quoted;
        quoted ^= byte == b'"' && !escaped;
        escaped = byte == b'\\' && quoted && !escaped;
        ends
    });
    comma.unwrap_or(line.len())
}

fn directive(element: &[u8]) -> Option<Directive> {
    let text = String::from_utf8_lossy(element);
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (&*text, None),
    };
    let name = name.trim().to_ascii_lowercase();
    let value = value.map(|value| {
        let value = value.trim_end();
        let unquoted = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'));
        unquoted.unwrap_or(value).to_owned()
    });
    (!name.is_empty()).then_some(Directive { name, value })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(lines: &[&'static str]) -> Directives {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_static(line));
        }
        Directives::of(&headers)
    }

    fn max_age(lines: &[&'static str]) -> Seconds {
        of(lines).seconds("max-age")
    }

    fn given(seconds: u64) -> Seconds {
        Seconds::Given(Duration::from_secs(seconds))
    }

    #[test]
    fn directives_are_known_whatever_their_case() {
        for line in ["No-CaChE", "a, NO-cache ,b", "no-cache=\"set-cookie, x\""] {
            assert!(of(&[line]).has("no-cache"), "{line}");
        }
        for line in [
            "",
            ",,",
            "x-no-cache",
            "x=\"no-cache\"",
            "x=\"a, no-cache\"",
        ] {
            assert!(!of(&[line]).has("no-cache"), "{line}");
        }
    }

    #[test]
    fn what_stands_in_quotes_is_no_directive_of_its_own() {
        assert_eq!(max_age(&["x=\"max-age=3600\", MAX-age=1"]), given(1));
        assert_eq!(max_age(&["max-age=\"1\", x=\"max-age=3600\""]), given(1));
        assert_eq!(max_age(&["x=\"a\\\", max-age=3600\""]), Seconds::Absent);
        assert_eq!(max_age(&["x=\"max-age=3600"]), Seconds::Absent);
    }

    #[test]
    fn only_digits_are_seconds() {
        assert_eq!(max_age(&["max-age=003600"]), given(3600));
        assert_eq!(max_age(&["max-age=99999999999999999999"]), given(1 << 31));
        for line in [
            "max-age",
            "max-age=",
            "max-age=-1",
            "max-age=+1",
            "max-age='3600'",
            "max-age=3600.0",
            "max-age= 3600",
            "max-age=a3600",
        ] {
            assert_eq!(max_age(&[line]), Seconds::Invalid, "{line}");
        }
    }

    #[test]
    fn two_that_differ_say_nothing() {
        assert_eq!(max_age(&["max-age=1, max-age=1"]), given(1));
        assert_eq!(max_age(&["max-age=1800", "max-age=1"]), Seconds::Invalid);
    }
}
