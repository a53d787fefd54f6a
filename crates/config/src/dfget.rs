//! The flags of `dfget`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use pantala_core::{ByteRange, ContentDigest, Error, display_url};
use percent_encoding::percent_decode_str;
use url::Url;

use crate::{
    command::Program,
    exit::Exit,
    file::read_config,
    flag::{AnyFlag, Arity, Flag, Group, Reach},
    shared::{self, clash},
    sources::{Values, bad_input},
    types::{Cache, DaemonUse, HostPort, Output, Range, Window},
    value,
};

static URL: Flag<Url> = Flag::text("URL", "URL", Group::What, value::url)
    .arity(Arity::Positional)
    .reach(Reach::CommandLine)
    .help("What to download: http://… or https://…");

static OUTPUT: Flag<Output> = Flag::path("output", "FILE|-", Group::What, value::output)
    .short('o')
    .reach(Reach::CommandLine)
    .default_words("the URL's file name")
    .help("Where to write it; - is standard output")
    .more(
        "The URL's file name is its last path segment; the file goes into the current directory.",
    );

static DIGEST: Flag<ContentDigest> = Flag::text("digest", "ALGO:HEX", Group::What, value::digest)
    .reach(Reach::CommandLine)
    .help("Fail unless it is this: sha256:…, sha512:… or blake3:…");

static RANGE: Flag<Range> = Flag::text("range", "RANGE", Group::What, value::range)
    .reach(Reach::CommandLine)
    .help("Only bytes 0-1023 (both included), 1024- or -1024 (the last)");

static SUPERNODE: Flag<HostPort> =
    shared::SUPERNODE.help("Supernodes to ask for peers; dfdaemon uses its own");

static DAEMON: Flag<DaemonUse> =
    Flag::text("daemon", "auto|only|never", Group::Peers, value::daemon)
        .default("auto")
        .help("Go through this host's dfdaemon or not")
        .more("auto: when it answers. only: or fail. never: download in dfget's own process.");

static DAEMON_ADDR: Flag<SocketAddr> =
    Flag::text("daemon-addr", "IP:PORT", Group::Peers, value::connect)
        .default("127.0.0.1:65001")
        .help("Where that dfdaemon listens");

static NO_ORIGIN: Flag<bool> = Flag::text("no-origin", "", Group::Peers, value::switch)
    .arity(Arity::Switch)
    .help("Take it from peers only, fail if they do not have it");

static BACKGROUND: Flag<bool> = Flag::text("background", "", Group::Limits, value::switch)
    .arity(Arity::Switch)
    .help("Let all other downloads go first, here and at peers")
    .more("For what nobody waits for yet. It stands still for as long as others need the bytes.");

static PEER_LISTEN: Flag<SocketAddr> = shared::PEER_LISTEN
    .default_words("loopback or all, any port")
    .help("Where to serve pieces to peers meanwhile");

static ADVERTISE: Flag<SocketAddr> = shared::ADVERTISE;
static LABEL: Flag<(String, String)> = shared::LABEL;
static UPLOADS: Flag<usize> = shared::UPLOADS;
static MEMORY: Flag<u64> = shared::MEMORY.default("256MiB");
static WINDOW: Flag<Window> = shared::WINDOW;
static CACHE: Flag<Cache> = shared::CACHE;

static LIMIT_RATE: Flag<u64> = Flag::text("limit-rate", "SIZE", Group::Limits, value::rate)
    .default_words("no limit")
    .help("Download at most this much per second");

static UPLOAD_RATE: Flag<u64> = shared::UPLOAD_RATE;

static TIMEOUT: Flag<Duration> = Flag::text("timeout", "DURATION", Group::Limits, value::wait)
    .default_words("no limit")
    .help("Longest time for the whole download");

static HEADER: Flag<(HeaderName, HeaderValue)> =
    Flag::text("header", "'NAME: VALUE'", Group::Origin, value::header)
        .short('H')
        .arity(Arity::Lines)
        .secret()
        .help("Send this header to the origin; repeatable");

static HARMLESS_HEADER: Flag<HeaderName> = shared::HARMLESS_HEADER;
static CA: Flag<PathBuf> = shared::CA;
static CONNECT_TIMEOUT: Flag<Duration> = shared::CONNECT_TIMEOUT;
static READ_TIMEOUT: Flag<Duration> = shared::READ_TIMEOUT;
static RETRIES: Flag<u32> = shared::RETRIES;

static QUIET: Flag<bool> = Flag::text("quiet", "", Group::Other, value::switch)
    .short('q')
    .arity(Arity::Switch)
    .help("No progress bar; errors only");

static CONFIG: Flag<PathBuf> = shared::CONFIG;
static LOG: Flag<String> = shared::LOG.default("warn");

static FLAGS: &[&dyn AnyFlag] = &[
    &URL,
    &OUTPUT,
    &DIGEST,
    &RANGE,
    &SUPERNODE,
    &DAEMON,
    &DAEMON_ADDR,
    &NO_ORIGIN,
    &PEER_LISTEN,
    &ADVERTISE,
    &LABEL,
    &UPLOADS,
    &MEMORY,
    &WINDOW,
    &CACHE,
    &LIMIT_RATE,
    &UPLOAD_RATE,
    &BACKGROUND,
    &TIMEOUT,
    &HEADER,
    &HARMLESS_HEADER,
    &CA,
    &CONNECT_TIMEOUT,
    &READ_TIMEOUT,
    &RETRIES,
    &QUIET,
    &CONFIG,
    &LOG,
];

pub(crate) static PROGRAM: Program = Program {
    name: "dfget",
    about: "Downloads a file from its origin and from peers, in order, checked.",
    usage: "dfget [FLAGS] URL",
    after: "\
Most flags are also variables (PANTALA_MEMORY) and keys of the --config file (memory).
Exit codes: 0 complete, 2 usage, 3 to 7 origin, 8 digest, 9 output, 10 disk full, 11 timeout,
12 no peer has it, 13 changed meanwhile, 14 memory, 130 interrupted.

Examples:
  dfget https://origin.example/models/big.bin
  dfget https://origin.example/big.tar -o - | tar x
  dfget https://origin.example/big.bin -o /data/big.bin --supernode supernode.example:8002
  dfget https://hub.example/big.bin -H 'Authorization: Bearer …' --digest sha256:…",
    flags: FLAGS,
    tables: false,
};

/// What `dfget` was told.
#[derive(Clone, PartialEq, Eq)]
pub struct DfgetConfig {
    /// What to download, `http` or `https`, with a host.
    pub url: Url,
    /// Where to write it.
    pub output: Output,
    /// The digest the whole content must have; never together with a `range` that leaves
    /// something out.
    pub digest: Option<ContentDigest>,
    /// Which bytes; `None` for all.
    pub range: Option<Range>,
    /// The supernodes to use in this process.
    pub supernode: Vec<HostPort>,
    /// Whether to go through the host's dfdaemon.
    pub daemon: DaemonUse,
    /// Where that dfdaemon listens.
    pub daemon_addr: SocketAddr,
    /// Only peers are asked. There is a supernode or a daemon to ask for them.
    pub no_origin: bool,
    /// Where this process serves pieces; port 0 for any.
    pub peer_listen: SocketAddr,
    /// The address to announce, its port never 0. `None`: the one `peer_listen` is bound to, and
    /// when that has no definite IP address, the local one that reaches the supernode.
    pub advertise: Option<SocketAddr>,
    /// Where this host stands, for peers near it: `rack`, `zone`, `region`.
    pub labels: BTreeMap<String, String>,
    /// Transfers to other peers at once.
    pub uploads: usize,
    /// The memory budget in bytes, at least [`MIN_MEMORY`](crate::MIN_MEMORY).
    pub memory: u64,
    /// The window's size; a fixed one fits the budget.
    pub window: Window,
    /// Which pieces leave memory first.
    pub cache: Cache,
    /// Bytes per second, never 0.
    pub limit_rate: Option<u64>,
    /// Bytes per second sent to peers, never 0.
    pub upload_rate: Option<u64>,
    /// Nobody waits for the bytes: others go first.
    pub background: bool,
    /// Longest time for the whole download.
    pub timeout: Option<Duration>,
    /// Headers for the origin, in the order given; all values are marked sensitive.
    pub headers: HeaderMap,
    /// Request headers that are no credentials, besides the well-known ones.
    pub harmless_headers: Vec<HeaderName>,
    /// Files with further trusted certificates, PEM.
    pub ca: Vec<PathBuf>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the next byte.
    pub read_timeout: Duration,
    /// How often a failed request is tried again.
    pub retries: u32,
    /// No progress bar.
    pub quiet: bool,
    /// The filter for `tracing`; it parses.
    pub log: String,
    /// The file that was read.
    pub config: Option<PathBuf>,
}

impl fmt::Debug for DfgetConfig {
    /// Without what may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DfgetConfig")
            .field("url", &display_url(self.url.as_str()))
            .field("output", &self.output)
            .field("range", &self.range)
            .field("supernode", &self.supernode)
            .field("daemon", &self.daemon)
            .field("memory", &self.memory)
            .field("window", &self.window)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl DfgetConfig {
    /// From this process's command line, environment and the file they name.
    ///
    /// # Errors
    /// [`Exit::Text`] when help or the version was asked for, else what cannot be used.
    pub fn from_env_args() -> Result<Self, Exit> {
        Self::parse_from(std::env::args_os(), std::env::vars_os(), read_config)
    }

    /// From these; `args` begins with the program's name.
    ///
    /// # Errors
    /// As [`DfgetConfig::from_env_args`].
    pub fn parse_from(
        args: impl IntoIterator<Item = OsString>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        read_file: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Self, Exit> {
        let values = Values::gather(&PROGRAM, PROGRAM.parse(args)?, env, read_file)?;
        Ok(Self::from_values(&values)?)
    }

    fn from_values(values: &Values) -> Result<Self, Error> {
        let url = values
            .maybe(&URL)?
            .ok_or_else(|| bad_input("URL: it is missing", "see dfget --help"))?;
        shared::check_window(values, &WINDOW, &MEMORY)?;
        let output = match values.maybe(&OUTPUT)? {
            Some(output) => output,
            None => Output::File(file_name(&url)?),
        };
        let supernode = values.list(&SUPERNODE)?;
        let beyond = supernode.iter().any(|one: &HostPort| !one.is_loopback());
        let peer_listen = shared::peer_listen(values, &PEER_LISTEN, &ADVERTISE, beyond, 0)?;
        let mut headers = HeaderMap::new();
        for (name, value) in values.list(&HEADER)? {
            headers.append(name, value);
        }
        let config = Self {
            url,
            output,
            digest: values.maybe(&DIGEST)?,
            range: values.maybe(&RANGE)?,
            supernode,
            daemon: values.one(&DAEMON)?,
            daemon_addr: values.one(&DAEMON_ADDR)?,
            no_origin: values.on(&NO_ORIGIN)?,
            peer_listen,
            advertise: shared::advertised(values, &ADVERTISE, &PEER_LISTEN, peer_listen)?,
            labels: shared::labels(values, &LABEL)?,
            uploads: values.one(&UPLOADS)?,
            memory: values.one(&MEMORY)?,
            window: values.one(&WINDOW)?,
            cache: values.one(&CACHE)?,
            limit_rate: values.maybe(&LIMIT_RATE)?,
            upload_rate: values.maybe(&UPLOAD_RATE)?,
            background: values.on(&BACKGROUND)?,
            timeout: values.maybe(&TIMEOUT)?,
            headers,
            harmless_headers: values.list(&HARMLESS_HEADER)?,
            ca: values.list(&CA)?,
            connect_timeout: values.one(&CONNECT_TIMEOUT)?,
            read_timeout: values.one(&READ_TIMEOUT)?,
            retries: values.one(&RETRIES)?,
            quiet: values.on(&QUIET)?,
            log: values.one(&LOG)?,
            config: values.maybe(&CONFIG)?,
        };
        config.check(values)?;
        Ok(config)
    }

    /// What goes wrong only together.
    fn check(&self, values: &Values) -> Result<(), Error> {
        if self.no_origin && self.supernode.is_empty() && self.daemon == DaemonUse::Never {
            let [no_origin, daemon] =
                [&NO_ORIGIN.spec, &DAEMON.spec].map(|spec| values.place(spec));
            return Err(clash(
                format!(
                    "{no_origin}: with {daemon} never and no --supernode there is nobody to ask"
                ),
                "give --supernode HOST:PORT",
            ));
        }
        let part = self
            .range
            .is_some_and(|range| range != Range::Bytes(ByteRange::ALL));
        if self.digest.is_some() && part {
            return Err(clash(
                "--digest: it is the whole content's and cannot be checked on a --range",
                "leave one of them out",
            ));
        }
        Ok(())
    }
}

/// The file's name when none was given: the URL's last path segment.
fn file_name(url: &Url) -> Result<PathBuf, Error> {
    let segment = url.path().rsplit('/').next().unwrap_or_default();
    let decoded = percent_decode_str(segment).decode_utf8();
    match decoded {
        Ok(name)
            if !matches!(&*name, "" | "." | "..")
                && name.len() <= 255
                && !name.contains(|c: char| c == '/' || c == '\\' || c.is_control()) =>
        {
            Ok(PathBuf::from(&*name))
        }
        _ => Err(bad_input(
            format!(
                "{}: its path does not end in a file's name",
                display_url(url.as_str())
            ),
            "give -o FILE, or -o - for standard output",
        )),
    }
}
