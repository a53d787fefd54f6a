//! The flags that more than one program has. Where defaults differ, the program says its own.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use http::HeaderName;
use pantala_core::{Error, Kind, MIN_PIECE, Who, format_size};

use crate::{
    flag::{Arity, Flag, Group, Reach},
    sources::Values,
    types::{Cache, HostPort, Window},
    value,
};

/// The least `--memory`: one window of the smallest pieces, or one of the largest.
pub const MIN_MEMORY: u64 = 4 << 20;

pub(crate) const SUPERNODE: Flag<HostPort> =
    Flag::text("supernode", "HOST:PORT,…", Group::Peers, value::host_port).arity(Arity::Commas);

pub(crate) const PEER_LISTEN: Flag<SocketAddr> = Flag::text(
    "peer-listen",
    "IP:PORT",
    Group::Peers,
    value::listen,
)
.more(
    "The default is 127.0.0.1 while all that is spoken to is on this host: no supernode, one inside that \
             listens on loopback, or only ones like 127.0.0.1:8002 and localhost:8002. With a \
             supernode or an `--advertise` beyond loopback it is 0.0.0.0.",
);

pub(crate) const ADVERTISE: Flag<SocketAddr> = Flag::text(
    "advertise",
    "IP:PORT",
    Group::Peers,
    value::advertise,
)
.default_words("found out")
.help("Where other peers reach this one")
.more(
    "Found out: the address of `--peer-listen`, or, when that is 0.0.0.0 or ::, the local one \
             that reaches the supernode. Port 0 stands for `--peer-listen`'s.",
);

pub(crate) const LABEL: Flag<(String, String)> =
    Flag::text("label", "KEY=VALUE", Group::Peers, value::label)
        .arity(Arity::Commas)
        .help("Where this host stands (rack, zone, region); repeatable")
        .more("Near peers are preferred. Without one the supernode finds out by measuring.");

pub(crate) const UPLOADS: Flag<usize> = Flag::text("uploads", "N", Group::Peers, value::uploads)
    .default("8")
    .help("Transfers to other peers at once; more wait");

pub(crate) const MEMORY: Flag<u64> = Flag::text("memory", "SIZE", Group::Limits, value::memory)
    .help("Most memory for content, at least 4MiB");

pub(crate) const WINDOW: Flag<Window> =
    Flag::text("window", "auto|PIECES", Group::Limits, value::window)
        .default("auto")
        .help("How many pieces a download runs ahead of its reader");

pub(crate) const CACHE: Flag<Cache> = Flag::text("cache", "lru|swarm", Group::Limits, value::cache)
    .default("swarm")
    .help("Which pieces leave memory first")
    .more(
        "lru: what was used least recently. swarm: what other peers keep, so that peers that read \
         the same together hold more of it than each of them has room for.",
    );
pub(crate) const UPLOAD_RATE: Flag<u64> =
    Flag::text("upload-rate", "SIZE", Group::Limits, value::rate)
        .default_words("no limit")
        .help("Send peers at most this much per second");

pub(crate) const HARMLESS_HEADER: Flag<HeaderName> = Flag::text(
    "harmless-header",
    "NAME,…",
    Group::Origin,
    value::harmless_header,
)
.arity(Arity::Commas)
.help("Request headers that play no part in who may read; repeatable")
.more(
    "Besides the well-known ones. Any other header counts as a credential: what it brings is \
             private, and it follows no redirect to another host.",
);

pub(crate) const CA: Flag<PathBuf> = Flag::path("ca", "FILE", Group::Origin, value::path)
    .arity(Arity::Paths)
    .help("Also trust the certificates in this file (PEM); repeatable");

pub(crate) const CONNECT_TIMEOUT: Flag<Duration> =
    Flag::text("connect-timeout", "DURATION", Group::Origin, value::wait)
        .default("5s")
        .help("Longest wait for a connection");

pub(crate) const READ_TIMEOUT: Flag<Duration> =
    Flag::text("read-timeout", "DURATION", Group::Origin, value::wait)
        .default("15s")
        .help("Longest wait for the next byte");

pub(crate) const RETRIES: Flag<u32> = Flag::text("retries", "N", Group::Origin, value::retries)
    .default("4")
    .help("How often a failed request is tried again")
    .more("Only what may succeed later: no connection, a broken one, 429, 5xx.");

pub(crate) const CONFIG: Flag<PathBuf> = Flag::path("config", "FILE", Group::Other, value::path)
    .reach(Reach::Environment)
    .help("Settings in TOML; the keys are the flags' names");

pub(crate) const LOG: Flag<String> = Flag::text("log", "FILTER", Group::Other, value::log_filter)
    .default("info")
    .help("off, error, warn, info, debug or trace")
    .more("Also by module: `pantala_node=debug,info`.");

/// An error of the user's about how values go together.
pub(crate) fn clash(what: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::new(Who::User, Kind::BadInput, what).hint(hint)
}

/// Where the peer server listens: where it was told to, else on loopback unless peers on other hosts can
/// hear of this one. `beyond` says whether a supernode is reached, or reachable, beyond this host.
pub(crate) fn peer_listen(
    values: &Values,
    listen: &'static Flag<SocketAddr>,
    advertise: &'static Flag<SocketAddr>,
    beyond: bool,
    port: u16,
) -> Result<SocketAddr, Error> {
    if let Some(given) = values.maybe(listen)? {
        return Ok(given);
    }
    let advertised = values.maybe(advertise)?;
    let advertised = advertised.is_some_and(|addr| !addr.ip().to_canonical().is_loopback());
    let ip = match beyond || advertised {
        true => Ipv4Addr::UNSPECIFIED,
        false => Ipv4Addr::LOCALHOST,
    };
    Ok(SocketAddr::new(ip.into(), port))
}

/// The address to advertise, when one was given, with the port it means.
pub(crate) fn advertised(
    values: &Values,
    advertise: &'static Flag<SocketAddr>,
    listen: &'static Flag<SocketAddr>,
    peer_listen: SocketAddr,
) -> Result<Option<SocketAddr>, Error> {
    let Some(mut given) = values.maybe(advertise)? else {
        return Ok(None);
    };
    if peer_listen.port() == 0 {
        return Err(clash(
            format!(
                "{} {given}: the port is not known beforehand, because {} is {peer_listen}",
                values.place(&advertise.spec),
                values.place(&listen.spec),
            ),
            format!(
                "give a port in both, like --peer-listen {}",
                SocketAddr::new(peer_listen.ip(), 65002)
            ),
        ));
    }
    if given.port() == 0 {
        given.set_port(peer_listen.port());
    }
    Ok(Some(given))
}

/// A window of the smallest pieces must fit the budget.
pub(crate) fn check_window(
    values: &Values,
    window: &'static Flag<Window>,
    memory: &'static Flag<u64>,
) -> Result<(), Error> {
    let budget = values.one(memory)?;
    match values.one(window)? {
        Window::Pieces(pieces) if u64::from(pieces.get()) * MIN_PIECE > budget => Err(clash(
            format!(
                "{} {pieces}: a window of {pieces} pieces of {} does not fit {} {}",
                values.place(&window.spec),
                format_size(MIN_PIECE),
                values.place(&memory.spec),
                format_size(budget),
            ),
            format!("give at most {} pieces or more memory", budget / MIN_PIECE),
        )),
        _ => Ok(()),
    }
}

/// The labels by key, each once.
pub(crate) fn labels(
    values: &Values,
    flag: &Flag<(String, String)>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut labels = BTreeMap::new();
    for (key, value) in values.list(flag)? {
        if labels.contains_key(&key) {
            let place = values.place(&flag.spec);
            return Err(clash(
                format!("{place} {key}={value}: {key} is given twice"),
                "give it once",
            ));
        }
        labels.insert(key, value);
    }
    Ok(labels)
}
