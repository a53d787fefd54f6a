//! The flags of `dfdaemon`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use globset::Glob;
use http::HeaderName;
use pantala_core::{Error, display_url};
use url::Url;

use crate::{
    command::Program,
    exit::Exit,
    file::read_config,
    flag::{AnyFlag, Arity, Flag, Group},
    shared::{self, clash},
    sources::Values,
    types::{Cache, HostPort, Prefetch, Rule, Upstream, Window},
    value,
};

static LISTEN: Flag<SocketAddr> = Flag::text("listen", "IP:PORT", Group::What, value::listen)
    .default("127.0.0.1:65001")
    .help("Proxy, mirror, /metrics and /healthz");

static MIRROR: Flag<Url> = Flag::text("mirror", "UPSTREAM_URL", Group::What, value::upstream)
    .help("Mirror this registry: /v2/… at --listen, for clients that name none");

static UPSTREAM: Flag<Upstream> =
    Flag::text("upstream", "NAME=URL,…", Group::Clients, value::named_upstream)
        .arity(Arity::Commas)
        .help("Mirror the registry that clients call NAME at this URL")
        .more(
            "Clients name it by `ns=NAME` or as the first part of the path, /v2/NAME/…. Registries \
             that are not listed are found at https://NAME. In the file `[upstream.\"NAME\"]` tables \
             say more.",
        );

static INTERCEPT: Flag<Glob> =
    Flag::text("intercept", "HOST,…", Group::Clients, value::host_pattern)
        .arity(Arity::Commas)
        .help("Open the HTTPS of these hosts, like *.example, for clients that trust the CA")
        .more("All other tunnels stay closed. `dfdaemon ca init` makes a CA.");

static INTERCEPT_CA: Flag<PathBuf> = Flag::path("intercept-ca", "DIR", Group::Clients, value::path)
    .default("/etc/pantala/ca")
    .help("Where the CA for --intercept is: ca.pem and ca-key.pem");

static PROXY_AUTH: Flag<PathBuf> = Flag::path("proxy-auth", "FILE", Group::Clients, value::path)
    .help("Let only these through the proxy: a file of USER:PASSWORD lines");

static ALLOW_HOST: Flag<Glob> = Flag::text(
    "allow-host",
    "NAME,…",
    Group::Clients,
    value::host_pattern,
)
.arity(Arity::Commas)
.help("Names that clients know this dfdaemon by, like *.nodes.example")
.more(
    "Besides its addresses and localhost. The mirror and the local API refuse requests with \
             any other name in `Host`: a page in a browser may have sent them.",
)
.advanced();

static TUNNEL_PORTS: Flag<u16> = Flag::text("tunnel-ports", "PORT,…", Group::Clients, value::port)
    .arity(Arity::Commas)
    .default_words("443")
    .help("Ports that CONNECT may lead to")
    .advanced();

static PREFETCH: Flag<Prefetch> = Flag::text(
    "prefetch",
    "none|window|all",
    Group::Clients,
    value::prefetch,
)
.default("window")
.help("What to read besides the ranges that clients ask for")
.more(
    "window: what follows, when ranges come one after the other. all: the whole content, in \
             the background.",
);

static REMEMBER_AUTH: Flag<Duration> = Flag::text(
    "remember-auth",
    "DURATION",
    Group::Clients,
    value::duration,
)
.default("60s")
.help("How long to believe that the origin lets a client have a content")
.more(
    "Per content and credentials. Who loses access at the origin loses it here so much later \
             at most; 0 asks for each request.",
);

static SERVE_STALE: Flag<Duration> =
    Flag::text("serve-stale", "DURATION", Group::Clients, value::duration)
        .default("0")
        .default_words("never")
        .help("Answer for tags with what they were so long ago, while the registry is down");

static CLIENT_TIMEOUT: Flag<Duration> = Flag::text(
    "client-timeout",
    "DURATION",
    Group::Clients,
    value::wait,
)
.default("5m")
.help("End the connection of a client that takes nothing of an answer for so long")
.more(
    "A client that is merely slow is not ended. What one that stands still leaves in memory is \
             small, and what it still has to get comes again when it goes on.",
);

static CONNECTIONS: Flag<usize> = Flag::text(
    "connections",
    "N",
    Group::Clients,
    value::connections,
)
.default_words("by --memory, at most 4096")
.help("Connections of clients at once; /healthz and /metrics answer beyond that")
.more(
    "Who comes when there are so many takes the place of a connection without a request, or gets a \
             503. One address other than this host's has a quarter of them at most. By `--memory`: \
             one for each 256 KiB of it, at least 64. There are never more than 256 and those that a \
             quarter of `--memory` has room for, at 48 KiB each.",
);

static SUPERNODE: Flag<HostPort> = shared::SUPERNODE
    .default_words("one inside")
    .help("Supernodes to ask for peers");

static SUPERNODE_LISTEN: Flag<SocketAddr> =
    Flag::text("supernode-listen", "IP:PORT", Group::Peers, value::listen)
        .default("127.0.0.1:8002")
        .help("Where the supernode inside listens")
        .more("No effect with `--supernode`.");

static PEER_LISTEN: Flag<SocketAddr> = shared::PEER_LISTEN
    .default_words("loopback or all, port 65002")
    .help("Where to serve pieces to peers");

static ADVERTISE: Flag<SocketAddr> = shared::ADVERTISE;

static LABEL: Flag<(String, String)> = shared::LABEL;

static UPLOADS: Flag<usize> = shared::UPLOADS;
static MEMORY: Flag<u64> = shared::MEMORY.default("512MiB");
static WINDOW: Flag<Window> = shared::WINDOW;
static CACHE: Flag<Cache> = shared::CACHE;

static UPLOAD_RATE: Flag<u64> = shared::UPLOAD_RATE;

static DOWNLOAD_RATE: Flag<u64> = Flag::text("download-rate", "SIZE", Group::Limits, value::rate)
    .default_words("no limit")
    .help("Take from peers and origins at most this much per second")
    .more("What only passes through the proxy, a POST for one, is not counted.");

static TASK_UPLOAD_RATE: Flag<u64> =
    Flag::text("task-upload-rate", "SIZE", Group::Limits, value::rate)
        .default_words("no limit")
        .help("The same bound for each content that is sent");

static TASK_DOWNLOAD_RATE: Flag<u64> =
    Flag::text("task-download-rate", "SIZE", Group::Limits, value::rate)
        .default_words("no limit")
        .help("The same bound for each content that is taken");

static DRAIN: Flag<Duration> = Flag::text("drain", "DURATION", Group::Limits, value::duration)
    .default("10s")
    .help("How long running streams may finish when stopped");

static FILTER_QUERY: Flag<String> =
    Flag::text("filter-query", "NAME,…", Group::Origin, value::query_name)
        .arity(Arity::Commas)
        .help("Query parameters that are no part of a URL's identity")
        .more("Signatures and tokens: the same content under another signature is the same task.");

static HARMLESS_HEADER: Flag<HeaderName> = shared::HARMLESS_HEADER;
static CA: Flag<PathBuf> = shared::CA;
static CONNECT_TIMEOUT: Flag<Duration> = shared::CONNECT_TIMEOUT;
static TIMEOUT: Flag<Duration> = Flag::text("timeout", "DURATION", Group::Origin, value::wait)
    .default("60s")
    .help("Longest wait for an origin to begin its answer")
    .more("It is waited for as long as the client waits, and not asked again meanwhile.");

static READ_TIMEOUT: Flag<Duration> = shared::READ_TIMEOUT;
static RETRIES: Flag<u32> = shared::RETRIES;
static CONFIG: Flag<PathBuf> = shared::CONFIG;
static LOG: Flag<String> = shared::LOG;

/// The port of the peer server unless the user says otherwise.
const PEER_PORT: u16 = 65002;

static FLAGS: &[&dyn AnyFlag] = &[
    &LISTEN,
    &MIRROR,
    &UPSTREAM,
    &INTERCEPT,
    &INTERCEPT_CA,
    &PROXY_AUTH,
    &ALLOW_HOST,
    &TUNNEL_PORTS,
    &PREFETCH,
    &REMEMBER_AUTH,
    &SERVE_STALE,
    &CLIENT_TIMEOUT,
    &CONNECTIONS,
    &SUPERNODE,
    &SUPERNODE_LISTEN,
    &PEER_LISTEN,
    &ADVERTISE,
    &LABEL,
    &UPLOADS,
    &MEMORY,
    &WINDOW,
    &CACHE,
    &UPLOAD_RATE,
    &DOWNLOAD_RATE,
    &TASK_UPLOAD_RATE,
    &TASK_DOWNLOAD_RATE,
    &DRAIN,
    &FILTER_QUERY,
    &HARMLESS_HEADER,
    &CA,
    &CONNECT_TIMEOUT,
    &TIMEOUT,
    &READ_TIMEOUT,
    &RETRIES,
    &CONFIG,
    &LOG,
];

pub(crate) static PROGRAM: Program = Program {
    name: "dfdaemon",
    about: "Serves this host's downloads from its peers' memory: HTTP proxy, registry mirror, peer.",
    usage: "dfdaemon [FLAGS]\n       \
            dfdaemon setup containerd|docker|podman|crio   make a runtime pull through it\n       \
            dfdaemon ca init                               make a CA for hosts it intercepts",
    after: "\
Flags are also variables (PANTALA_MEMORY) and keys of the --config file (memory).

Examples:
  dfdaemon                                    one host, nothing else needed
  http_proxy=http://127.0.0.1:65001 curl -O http://origin.example/file
  dfdaemon --supernode supernode.example:8002 --mirror https://registry.example
  dfdaemon --config /etc/pantala/dfdaemon.toml",
    flags: FLAGS,
    tables: true,
};

/// What `dfdaemon` was told.
#[derive(Clone, PartialEq, Eq)]
pub struct DfdaemonConfig {
    /// Proxy, mirror, local API, `/metrics` and `/healthz`.
    pub listen: SocketAddr,
    /// The registry that `/v2/` mirrors.
    pub mirror: Option<Url>,
    /// Registries by name, each once: the file's tables, their URL by the flags.
    pub upstreams: Vec<Upstream>,
    /// What happens to which requests, the first that matches; only the file says so.
    pub rules: Vec<Rule>,
    /// The hosts whose HTTPS is opened.
    pub intercept: Vec<Glob>,
    /// Where the CA for that is.
    pub intercept_ca: PathBuf,
    /// A file of those who may use the proxy; everybody when `None`.
    pub proxy_auth: Option<PathBuf>,
    /// Names that clients know it by, besides its addresses and `localhost`.
    pub allow_host: Vec<Glob>,
    /// The ports that tunnels may lead to, never empty.
    pub tunnel_ports: Vec<u16>,
    /// What is read besides the ranges that clients ask for.
    pub prefetch: Prefetch,
    /// How long the origin's word on a client counts; may be zero.
    pub remember_auth: Duration,
    /// How old an answer for a tag may be while the registry is down; zero for none at all.
    pub serve_stale: Duration,
    /// How long a client may take nothing of an answer, never 0.
    pub client_timeout: Duration,
    /// Connections of clients at once, never 0.
    pub connections: usize,
    /// The supernodes to use; none means one is started inside, at `supernode_listen`.
    pub supernode: Vec<HostPort>,
    /// Where the supernode inside listens.
    pub supernode_listen: SocketAddr,
    /// Where the peer server listens.
    pub peer_listen: SocketAddr,
    /// The address to announce, its port never 0. `None`: the one `peer_listen` is bound to, and
    /// when that has no definite IP address, the local one that reaches the supernode.
    pub advertise: Option<SocketAddr>,
    /// Where this host stands: rack, zone, region.
    pub labels: BTreeMap<String, String>,
    /// Transfers to other peers at once.
    pub uploads: usize,
    /// The memory budget in bytes, at least [`MIN_MEMORY`](crate::MIN_MEMORY).
    pub memory: u64,
    /// The window's size; a fixed one fits the budget.
    pub window: Window,
    /// Which pieces leave memory first.
    pub cache: Cache,
    /// Bytes per second sent to peers, never 0.
    pub upload_rate: Option<u64>,
    /// Bytes per second taken from peers and origins, never 0.
    pub download_rate: Option<u64>,
    /// Bytes per second sent of each task, never 0.
    pub task_upload_rate: Option<u64>,
    /// Bytes per second taken of each task, never 0.
    pub task_download_rate: Option<u64>,
    /// How long running streams may finish at a graceful stop; may be zero.
    pub drain: Duration,
    /// Query parameters left out of a URL's identity.
    pub filter_query: Vec<String>,
    /// Request headers that are no credentials, besides the well-known ones.
    pub harmless_headers: Vec<HeaderName>,
    /// Files with further trusted certificates, PEM.
    pub ca: Vec<PathBuf>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for an origin to begin its answer.
    pub timeout: Duration,
    /// Longest wait for the next byte.
    pub read_timeout: Duration,
    /// How often a failed request is tried again.
    pub retries: u32,
    /// The filter for `tracing`; it parses.
    pub log: String,
    /// The file that was read.
    pub config: Option<PathBuf>,
}

impl fmt::Debug for DfdaemonConfig {
    /// Without what may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DfdaemonConfig")
            .field("listen", &self.listen)
            .field(
                "mirror",
                &self.mirror.as_ref().map(|url| display_url(url.as_str())),
            )
            .field("supernode", &self.supernode)
            .field("peer_listen", &self.peer_listen)
            .field("advertise", &self.advertise)
            .field("memory", &self.memory)
            .field("window", &self.window)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// Registries by name: the file's tables and the flags, which say only where they are.
fn upstreams(values: &Values) -> Result<Vec<Upstream>, Error> {
    let mut upstreams = values.tables.upstreams.clone();
    for upstream in values.list(&UPSTREAM)? {
        if let Some(other) = upstreams
            .iter_mut()
            .find(|other| other.name == upstream.name)
        {
            // The flag says only where it is.
            other.url = upstream.url;
        } else {
            upstreams.push(upstream);
        }
    }
    Ok(upstreams)
}

/// How many connections of clients a memory budget carries: what stalled ones keep of it stays below a
/// third.
fn connections(memory: u64) -> usize {
    const EACH: u64 = 256 << 10;
    usize::try_from(memory / EACH)
        .unwrap_or(usize::MAX)
        .clamp(64, 4096)
}

impl DfdaemonConfig {
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
    /// As [`DfdaemonConfig::from_env_args`].
    pub fn parse_from(
        args: impl IntoIterator<Item = OsString>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        read_file: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Self, Exit> {
        let values = Values::gather(&PROGRAM, PROGRAM.parse(args)?, env, read_file)?;
        Ok(Self::from_values(&values)?)
    }

    fn from_values(values: &Values) -> Result<Self, Error> {
        shared::check_window(values, &WINDOW, &MEMORY)?;
        let memory = values.one(&MEMORY)?;
        let supernode: Vec<HostPort> = values.list(&SUPERNODE)?;
        let supernode_listen = values.one(&SUPERNODE_LISTEN)?;
        let beyond = match supernode.is_empty() {
            // Peers on other hosts can find the one inside.
            true => !supernode_listen.ip().to_canonical().is_loopback(),
            false => !supernode.iter().all(HostPort::is_loopback),
        };
        let peer_listen = shared::peer_listen(values, &PEER_LISTEN, &ADVERTISE, beyond, PEER_PORT)?;
        let config = Self {
            listen: values.one(&LISTEN)?,
            mirror: values.maybe(&MIRROR)?,
            upstreams: upstreams(values)?,
            rules: values.tables.rules.clone(),
            intercept: values.list(&INTERCEPT)?,
            intercept_ca: values.one(&INTERCEPT_CA)?,
            proxy_auth: values.maybe(&PROXY_AUTH)?,
            allow_host: values.list(&ALLOW_HOST)?,
            tunnel_ports: match values.list(&TUNNEL_PORTS)? {
                none if none.is_empty() => vec![443],
                ports => ports,
            },
            prefetch: values.one(&PREFETCH)?,
            remember_auth: values.one(&REMEMBER_AUTH)?,
            serve_stale: values.one(&SERVE_STALE)?,
            client_timeout: values.one(&CLIENT_TIMEOUT)?,
            connections: values
                .maybe(&CONNECTIONS)?
                .unwrap_or_else(|| connections(memory)),
            supernode,
            supernode_listen,
            peer_listen,
            advertise: shared::advertised(values, &ADVERTISE, &PEER_LISTEN, peer_listen)?,
            labels: shared::labels(values, &LABEL)?,
            uploads: values.one(&UPLOADS)?,
            memory,
            window: values.one(&WINDOW)?,
            cache: values.one(&CACHE)?,
            upload_rate: values.maybe(&UPLOAD_RATE)?,
            download_rate: values.maybe(&DOWNLOAD_RATE)?,
            task_upload_rate: values.maybe(&TASK_UPLOAD_RATE)?,
            task_download_rate: values.maybe(&TASK_DOWNLOAD_RATE)?,
            drain: values.one(&DRAIN)?,
            filter_query: values.list(&FILTER_QUERY)?,
            harmless_headers: values.list(&HARMLESS_HEADER)?,
            ca: values.list(&CA)?,
            connect_timeout: values.one(&CONNECT_TIMEOUT)?,
            timeout: values.one(&TIMEOUT)?,
            read_timeout: values.one(&READ_TIMEOUT)?,
            retries: values.one(&RETRIES)?,
            log: values.one(&LOG)?,
            config: values.maybe(&CONFIG)?,
        };
        config.check_listeners(values)?;
        Ok(config)
    }

    /// No two of the listeners may want the same address.
    fn check_listeners(&self, values: &Values) -> Result<(), Error> {
        let mut listeners = vec![(&LISTEN, self.listen), (&PEER_LISTEN, self.peer_listen)];
        if self.supernode.is_empty() {
            listeners.push((&SUPERNODE_LISTEN, self.supernode_listen));
        }
        for (at, (flag, addr)) in listeners.iter().enumerate() {
            for (other, taken) in &listeners[..at] {
                let one_ip = addr.ip() == taken.ip()
                    || addr.ip().is_unspecified()
                    || taken.ip().is_unspecified();
                if one_ip && addr.port() == taken.port() && addr.port() != 0 {
                    let flag = values.place(&flag.spec);
                    let other = values.place(&other.spec);
                    return Err(clash(
                        format!("{flag} {addr}: {other} {taken} takes that port"),
                        "give them different ports",
                    ));
                }
            }
        }
        Ok(())
    }
}
