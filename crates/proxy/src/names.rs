//! One spelling for what URLs can spell in many ways, so that rules compare what is meant.
//!
//! `Url` has done a part of it already: hosts in small letters and in Punycode, IPv4 addresses in
//! four decimal parts, default ports left out, `.` and `..` resolved, also as `%2e`.

use std::net::IpAddr;

use globset::{Glob, GlobBuilder};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// The host of a URL: a name without the dot at its end, or an address without brackets.
pub(crate) fn host_of(url: &Url) -> String {
    url.host_str().map(host).unwrap_or_default()
}

/// The same for a host that stands by itself, as in a `CONNECT`.
pub(crate) fn host(text: &str) -> String {
    let name = text.trim_end_matches('.');
    match Host::parse(name) {
        Ok(Host::Domain(name)) => name.trim_end_matches('.').to_owned(),
        Ok(Host::Ipv4(address)) => address.to_string(),
        Ok(Host::Ipv6(address)) => IpAddr::from(address).to_canonical().to_string(),
        // An IPv6 address that stands without its brackets, or nothing that leads anywhere.
        Err(_) => match name.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().to_string(),
            Err(_) => name.to_ascii_lowercase(),
        },
    }
}

/// The pattern for hosts that are spelled as [`host`] does.
pub(crate) fn of_hosts(pattern: &Glob) -> Glob {
    respelled(pattern, &host_pattern(pattern.glob()), false)
}

/// The pattern for paths that are spelled as [`path`] does.
pub(crate) fn of_paths(pattern: &Glob) -> Glob {
    respelled(pattern, &path(pattern.glob()), true)
}

/// The pattern in another spelling. Where that is none it stays as it was written.
fn respelled(pattern: &Glob, text: &str, path: bool) -> Glob {
    let built = GlobBuilder::new(text)
        .literal_separator(path)
        .backslash_escape(true)
        .build();
    match built {
        Ok(built) if pattern.glob() != text => built,
        _ => pattern.clone(),
    }
}

/// Names in Punycode where no wildcard is.
fn host_pattern(text: &str) -> String {
    let literal = !text.contains(['*', '?', '{', '}', '[', ']', '\\']);
    if literal || text.parse::<IpAddr>().is_ok() {
        return host(text);
    }
    let label = |label: &str| match label.is_ascii() {
        true => label.to_ascii_lowercase(),
        false => host(label),
    };
    let labels: Vec<String> = text.trim_end_matches('.').split('.').map(label).collect();
    labels.join(".")
}

/// A path, or the pattern of one, without escapes for what needs none (RFC 3986, 6.2.2) and
/// without empty segments, which most servers pass over.
pub(crate) fn path(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let escape = rest.get(at..at + 3);
        let byte = escape.and_then(|escape| u8::from_str_radix(&escape[1..], 16).ok());
        match (byte, escape) {
            (Some(byte), _) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                plain.push(char::from(byte));
            }
            (Some(_), Some(escape)) => plain.push_str(&escape.to_ascii_uppercase()),
            _ => {
                plain.push('%');
                rest = &rest[at + 1..];
                continue;
            }
        }
        rest = &rest[at + 3..];
    }
    plain.push_str(rest);
    while plain.contains("//") {
        plain = plain.replace("//", "/");
    }
    plain
}

/// What a lenient server may make of a path: all escapes read, `\` taken for `/`, the parameters of
/// segments left out, `.` and `..` resolved after that.
pub(crate) fn lenient_path(path: &str) -> String {
    let plain = percent_decode_str(path).decode_utf8_lossy();
    let mut segments: Vec<&str> = Vec::new();
    for segment in plain.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let end = match plain.ends_with('/') && !segments.is_empty() {
        true => "/",
        false => "",
    };
    format!("/{}{end}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_spelling() {
        for (text, expected) in [
            ("ads.example", "ads.example"),
            ("ADS.example.", "ads.example"),
            ("ads.example..", "ads.example"),
            ("b%C3%BCcher.example", "xn--bcher-kva.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("127.1", "127.0.0.1"),
            ("0x7f.0.0.1", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("[0:0::0:1]", "::1"),
            ("[::ffff:10.0.0.1]", "10.0.0.1"),
        ] {
            assert_eq!(host(text), expected, "{text}");
        }
        for (text, expected) in [
            ("*.Example", "*.example"),
            ("*.bücher.example", "*.xn--bcher-kva.example"),
            ("ads.example.", "ads.example"),
            ("0:0::1", "::1"),
            ("*", "*"),
        ] {
            assert_eq!(host_pattern(text), expected, "{text}");
        }
    }

    #[test]
    fn paths_have_one_spelling() {
        for (text, expected) in [
            ("/secret", "/secret"),
            ("/%73ecret", "/secret"),
            ("//secret///x", "/secret/x"),
            ("/a%2fb%7E", "/a%2Fb~"),
            ("/100%", "/100%"),
            ("/%zz%7", "/%zz%7"),
            ("/%%73", "/%s"),
            ("/é%C3%A9", "/é%C3%A9"),
        ] {
            assert_eq!(path(text), expected, "{text}");
        }
        for (text, expected) in [
            ("/secret/", "/secret/"),
            ("/secret//;x", "/secret"),
            ("/%73ecret;v=1/x;y", "/secret/x"),
            ("/public/..%2fsecret", "/secret"),
            ("/public/..;/secret", "/secret"),
            ("/public/%5c..%5csecret", "/secret"),
            ("/../..", "/"),
        ] {
            assert_eq!(lenient_path(text), expected, "{text}");
        }
    }
}
