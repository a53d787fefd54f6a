//! How one value is read from its text. Each says what is wrong and what is allowed.

use std::{
    ffi::OsStr,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use http::{HeaderName, HeaderValue, header};
use pantala_core::{ByteRange, ContentDigest, format_size, parse_size};
use tracing_subscriber::EnvFilter;
use url::Url;

use crate::{
    flag::Bad,
    shared::MIN_MEMORY,
    tables,
    types::{Cache, DaemonUse, HostPort, Locality, Output, Prefetch, Range, Upstream, Window},
};

pub(crate) fn switch(text: &str) -> Result<bool, Bad> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Bad::new("neither yes nor no", "write true or false")),
    }
}

pub(crate) fn size(text: &str) -> Result<u64, Bad> {
    parse_size(text).map_err(|_| Bad::new("not a size", "write it like 64KiB, 512MiB or 2GiB"))
}

pub(crate) fn memory(text: &str) -> Result<u64, Bad> {
    match size(text)? {
        bytes if bytes < MIN_MEMORY => Err(Bad::too_little_memory(
            "below one window",
            format!("give at least {}", format_size(MIN_MEMORY)),
        )),
        bytes => Ok(bytes),
    }
}

pub(crate) fn rate(text: &str) -> Result<u64, Bad> {
    match size(text)? {
        0 => Err(Bad::new(
            "nothing would ever arrive",
            "give bytes per second, like 10MiB, or leave it out for no limit",
        )),
        rate => Ok(rate),
    }
}

/// A duration that may be zero.
pub(crate) fn duration(text: &str) -> Result<Duration, Bad> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|_| {
        if text.trim().parse::<f64>().is_ok_and(|n| n > 0.0) {
            Bad::new(
                "a duration without its unit",
                format!("write {text}s or {text}ms"),
            )
        } else {
            Bad::new("not a duration", "write it like 500ms, 10s or 2m")
        }
    })
}

/// A duration that must be longer than zero.
pub(crate) fn wait(text: &str) -> Result<Duration, Bad> {
    match duration(text)? {
        Duration::ZERO => Err(Bad::new(
            "no time at all",
            "give more than 0, like 500ms or 10s",
        )),
        wait => Ok(wait),
    }
}

fn number<T: FromStr>(text: &str, allowed: &str) -> Result<T, Bad> {
    text.trim()
        .parse()
        .map_err(|_| Bad::new("not a number that fits", allowed))
}

pub(crate) fn stripes(text: &str) -> Result<u32, Bad> {
    match number(text, "give 0 (automatic) to 64")? {
        stripes @ 0..=64 => Ok(stripes),
        _ => Err(Bad::new("too many", "give 0 (automatic) to 64")),
    }
}

pub(crate) fn retries(text: &str) -> Result<u32, Bad> {
    match number(text, "give 0 to 100")? {
        retries @ 0..=100 => Ok(retries),
        _ => Err(Bad::new("too many", "give 0 to 100")),
    }
}

pub(crate) fn uploads(text: &str) -> Result<usize, Bad> {
    match number(text, "give 1 to 1024")? {
        uploads @ 1..=1024 => Ok(uploads),
        0 => Err(Bad::new("nobody would get anything", "give 1 to 1024")),
        _ => Err(Bad::new("too many", "give 1 to 1024")),
    }
}

pub(crate) fn connections(text: &str) -> Result<usize, Bad> {
    const ALLOWED: &str = "give 16 to 1000000";
    match number(text, ALLOWED)? {
        connections @ 16..=1_000_000 => Ok(connections),
        0..16 => Err(Bad::new("too few", ALLOWED)),
        _ => Err(Bad::new("too many", ALLOWED)),
    }
}

pub(crate) fn window(text: &str) -> Result<Window, Bad> {
    if text == "auto" {
        return Ok(Window::Auto);
    }
    let pieces: Option<NonZeroU32> = text.parse().ok();
    pieces
        .map(Window::Pieces)
        .ok_or_else(|| Bad::new("not a window", "give auto or a number of pieces from 1"))
}

pub(crate) fn cache(text: &str) -> Result<Cache, Bad> {
    match text {
        "lru" => Ok(Cache::Lru),
        "swarm" => Ok(Cache::Swarm),
        _ => Err(Bad::new("no such order", "give lru or swarm")),
    }
}

pub(crate) fn locality(text: &str) -> Result<Locality, Bad> {
    match text {
        "labels" => Ok(Locality::Labels),
        "measured" => Ok(Locality::Measured),
        _ => Err(Bad::new("not a choice", "give labels or measured")),
    }
}

pub(crate) fn daemon(text: &str) -> Result<DaemonUse, Bad> {
    match text {
        "auto" => Ok(DaemonUse::Auto),
        "only" => Ok(DaemonUse::Only),
        "never" => Ok(DaemonUse::Never),
        _ => Err(Bad::new("not a choice", "give auto, only or never")),
    }
}

/// An address to listen at; port 0 lets the system choose.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, Bad> {
    text.parse().map_err(|_| {
        let example = match text.rsplit_once(':') {
            Some(("", port)) if port.parse::<u16>().is_ok() => format!("write 0.0.0.0:{port}"),
            Some(("localhost", port)) => format!("write 127.0.0.1:{port}"),
            _ if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) => {
                format!("the port is missing, write {text}:PORT")
            }
            _ if text.parse::<u16>().is_ok() => format!("write 0.0.0.0:{text}"),
            _ => "write it like 10.0.0.5:8002 or [::1]:8002".to_owned(),
        };
        Bad::new("not an IP address and port", example)
    })
}

/// An address that others connect to. Port 0 stands for that of another flag.
pub(crate) fn advertise(text: &str) -> Result<SocketAddr, Bad> {
    let addr = listen(text)?;
    if addr.ip().is_unspecified() {
        return Err(Bad::new(
            "nobody can connect to that address",
            "give the IP address other peers reach this host at",
        ));
    }
    Ok(addr)
}

/// An address to connect to.
pub(crate) fn connect(text: &str) -> Result<SocketAddr, Bad> {
    let addr = listen(text)?;
    if addr.ip().is_unspecified() || addr.port() == 0 {
        return Err(Bad::new(
            "nobody can connect to that address",
            "write it like 127.0.0.1:65001",
        ));
    }
    Ok(addr)
}

pub(crate) fn host_port(text: &str) -> Result<HostPort, Bad> {
    let shape = || {
        Bad::new(
            "not a host and port",
            "write it like supernode.example:8002",
        )
    };
    if text.contains("://") {
        return Err(Bad::new(
            "a URL",
            "leave the scheme out, like supernode.example:8002",
        ));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return match url::Host::parse(text) {
            Ok(_) => Err(Bad::new("without a port", format!("write {text}:8002"))),
            Err(_) => Err(shape()),
        };
    };
    let host = url::Host::parse(host).map_err(|_| shape())?;
    let port = port.parse().ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| Bad::new("not a port", "give 1 to 65535 after the colon"))?;
    let host = match host {
        url::Host::Ipv6(ip) => ip.to_string(),
        host => host.to_string(),
    };
    Ok(HostPort { host, port })
}

/// Something to download.
pub(crate) fn url(text: &str) -> Result<Url, Bad> {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(url::ParseError::RelativeUrlWithoutBase) => {
            return Err(Bad::new("not a URL", "begin it with http:// or https://"));
        }
        Err(error) => {
            return Err(Bad::new(
                format!("not a URL, {error}"),
                "write it like https://origin.example/file",
            ));
        }
    };
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(Bad::new(
            format!("{}: is not a scheme dfget and dfdaemon speak", url.scheme()),
            "begin it with http:// or https://",
        ));
    }
    Ok(url)
}

/// A registry to mirror.
pub(crate) fn upstream(text: &str) -> Result<Url, Bad> {
    let url = url(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Bad::new(
            "more than a registry's address",
            "leave out what begins with ? or #",
        ));
    }
    Ok(url)
}

/// A registry's name as clients write it before a repository: a host, and a port where it has one.
pub(crate) fn registry_name(text: &str) -> Result<String, Bad> {
    let bad = || {
        Bad::new(
            format!("{text:?} is not a registry's name"),
            "write it like registry.example or registry.example:5000",
        )
    };
    let name = text.to_ascii_lowercase();
    let url = Url::parse(&format!("https://{name}/")).map_err(|_| bad())?;
    let whole = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && !name.contains('/');
    if whole { Ok(name) } else { Err(bad()) }
}

/// A registry and where it is: `NAME=URL`.
pub(crate) fn named_upstream(text: &str) -> Result<Upstream, Bad> {
    let Some((name, url)) = text.split_once('=') else {
        return Err(Bad::new(
            "a name without a URL",
            "write it like hub.example=https://registry.example",
        ));
    };
    Ok(Upstream {
        name: registry_name(name)?,
        url: upstream(url)?,
        ca: Vec::new(),
        client_cert: None,
        credentials: None,
        anonymous: false,
        cleartext_credentials: false,
    })
}

/// A pattern of host names.
pub(crate) fn host_pattern(text: &str) -> Result<globset::Glob, Bad> {
    if text.is_empty() || text.contains(['/', ':']) {
        return Err(Bad::new(
            "not a host's name",
            "write it like *.example, without scheme and port",
        ));
    }
    tables::pattern(&text.to_ascii_lowercase(), false)
}

pub(crate) fn prefetch(text: &str) -> Result<Prefetch, Bad> {
    match text {
        "none" => Ok(Prefetch::None),
        "window" => Ok(Prefetch::Window),
        "all" => Ok(Prefetch::All),
        _ => Err(Bad::new("not a choice", "give none, window or all")),
    }
}

/// A port that tunnels may lead to.
pub(crate) fn port(text: &str) -> Result<u16, Bad> {
    match number(text, "give 1 to 65535")? {
        0 => Err(Bad::new("not a port", "give 1 to 65535")),
        port => Ok(port),
    }
}

pub(crate) fn digest(text: &str) -> Result<ContentDigest, Bad> {
    text.parse().map_err(|_| {
        Bad::new(
            "not a digest",
            "write sha256: and 64, sha512: and 128, or blake3: and 64 hexadecimal digits",
        )
    })
}

pub(crate) fn range(text: &str) -> Result<Range, Bad> {
    let shape = |what| {
        Bad::new(
            what,
            "write 0-1023, 1024- (from there on) or -1024 (the last)",
        )
    };
    let digits = |text: &str| match text {
        "" => Ok(None),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => text
            .parse::<u64>()
            .map(Some)
            .map_err(|_| shape("too large")),
        _ => Err(shape("not a range")),
    };
    let (first, last) = text.split_once('-').ok_or_else(|| shape("not a range"))?;
    match (digits(first)?, digits(last)?) {
        (Some(first), None) => Ok(Range::Bytes(ByteRange::from(first))),
        (None, Some(0)) => Err(shape("no bytes at all")),
        (None, Some(last)) => Ok(Range::Suffix(last)),
        (Some(first), Some(last)) if first <= last => {
            let end = last.checked_add(1).ok_or_else(|| shape("too large"))?;
            let range = ByteRange::new(first, Some(end));
            range.map(Range::Bytes).ok_or_else(|| shape("reversed"))
        }
        (Some(_), Some(_)) => Err(shape("reversed")),
        (None, None) => Err(shape("not a range")),
    }
}

/// A header for the origin. Its value is marked sensitive, so that no log shows it.
pub(crate) fn header(text: &str) -> Result<(HeaderName, HeaderValue), Bad> {
    const SHAPE: &str = "write it like 'Accept: text/plain'";
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| Bad::new("a header without a colon", SHAPE))?;
    let name = HeaderName::from_bytes(name.trim().as_bytes())
        .map_err(|_| Bad::new(format!("{:?} is not a header's name", name.trim()), SHAPE))?;
    if name == header::RANGE {
        return Err(Bad::new("Range has a flag of its own", "use --range"));
    }
    let ours = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::IF_RANGE,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    if ours.contains(&name) {
        return Err(Bad::new(
            format!("{name} belongs to the transfer itself"),
            "leave it out",
        ));
    }
    let mut value = HeaderValue::from_str(value.trim())
        .map_err(|_| Bad::new(format!("the value of {name} has control characters"), SHAPE))?;
    value.set_sensitive(true);
    Ok((name, value))
}

pub(crate) fn label(text: &str) -> Result<(String, String), Bad> {
    let plain = |text: &str| {
        let of_label = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        !text.is_empty() && text.len() <= 63 && text.bytes().all(of_label)
    };
    match text.split_once('=') {
        Some((key, value)) if plain(key) && plain(value) => Ok((key.into(), value.into())),
        _ => Err(Bad::new(
            "not a label",
            "write it like rack=r12: letters, digits, and . _ - /, at most 63 on each side",
        )),
    }
}

/// The name of a request header that is no credential.
pub(crate) fn harmless_header(text: &str) -> Result<HeaderName, Bad> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| Bad::new("not a header's name", "write it like X-Build-Id"))?;
    let credentials = [
        header::AUTHORIZATION,
        header::COOKIE,
        header::PROXY_AUTHORIZATION,
    ];
    if credentials.contains(&name) {
        return Err(Bad::new("a credential always", "leave it out"));
    }
    Ok(name)
}

pub(crate) fn query_name(text: &str) -> Result<String, Bad> {
    if text.is_empty() || text.contains(['=', '&', '?', '#']) {
        return Err(Bad::new(
            "not a query parameter's name",
            "write it like X-Amz-Signature,token",
        ));
    }
    Ok(text.to_owned())
}

pub(crate) fn path(raw: &OsStr) -> Result<PathBuf, Bad> {
    if raw.is_empty() {
        return Err(Bad::new("no file", "give a file's path"));
    }
    Ok(raw.into())
}

pub(crate) fn output(raw: &OsStr) -> Result<Output, Bad> {
    if raw == "-" {
        return Ok(Output::Stdout);
    }
    path(raw).map(Output::File)
}

/// A filter of `tracing`: a level, or `target=level` pairs.
pub(crate) fn log_filter(text: &str) -> Result<String, Bad> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const SHAPE: &str =
        "give off, error, warn, info, debug or trace, or like pantala_node=debug,info";
    let filter = EnvFilter::builder().parse(text);
    if text.trim().is_empty() || filter.is_err() {
        return Err(Bad::new("not a log filter", SHAPE));
    }
    // A bare word that is no level is a module's name to tracing, so a typing error would turn
    // logging off in silence.
    for word in text.split(',').map(|word| word.trim().to_lowercase()) {
        let near = |level: &&&str| strsim::damerau_levenshtein(level, &word) <= 2;
        if word.bytes().all(|byte| byte.is_ascii_alphabetic())
            && !LEVELS.contains(&word.as_str())
            && let Some(level) = LEVELS.iter().find(near)
        {
            return Err(Bad::new("not a level", format!("did you mean {level}?")));
        }
    }
    Ok(text.to_owned())
}
