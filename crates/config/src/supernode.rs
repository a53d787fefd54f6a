//! The flags of `supernode`.

use std::{
    ffi::OsString,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    command::Program,
    exit::Exit,
    file::read_config,
    flag::{AnyFlag, Flag, Group},
    shared::{CONFIG, LOG},
    sources::Values,
    types::Locality,
    value,
};

static LISTEN: Flag<SocketAddr> = Flag::text("listen", "IP:PORT", Group::Peers, value::listen)
    .default("0.0.0.0:8002")
    .help("For peers, /metrics and /healthz");

static FRESH_FOR: Flag<Duration> =
    Flag::text("fresh-for", "DURATION", Group::Origin, value::duration)
        .default("10s")
        .help("How long metadata is fresh if the origin says nothing");

static LEASE_TIMEOUT: Flag<Duration> =
    Flag::text("lease-timeout", "DURATION", Group::Peers, value::wait)
        .default("1s")
        .help("How long a silent peer keeps a source lease");

static STRIPES: Flag<u32> = Flag::text("stripes", "N", Group::Peers, value::stripes)
    .default("0")
    .default_words("0, automatic")
    .help("Into how many trees a swarm spreads the first copies of pieces")
    .advanced();

static LOCALITY: Flag<Locality> = Flag::text(
    "locality",
    "labels|measured",
    Group::Peers,
    value::locality,
)
.default("labels")
.help("How peers near each other are found")
.more(
    "labels: by `--label` of dfdaemon and dfget alone. measured: peers without a label that says \
     where they are are asked to measure round trips to some others.",
);

static THE_CONFIG: Flag<PathBuf> = CONFIG;
static THE_LOG: Flag<String> = LOG;

static FLAGS: &[&dyn AnyFlag] = &[
    &LISTEN,
    &LEASE_TIMEOUT,
    &STRIPES,
    &LOCALITY,
    &FRESH_FOR,
    &THE_CONFIG,
    &THE_LOG,
];

pub(crate) static PROGRAM: Program = Program {
    name: "supernode",
    about: "Decides which peer pulls which piece from whom. Holds no content.",
    usage: "supernode [FLAGS]",
    after: "\
Flags are also variables (PANTALA_LISTEN) and keys of the --config file (listen).

Examples:
  supernode
  supernode --listen 10.0.0.5:8002 --log debug",
    flags: FLAGS,
    tables: false,
};

/// What `supernode` was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupernodeConfig {
    /// Where peers connect, and where `/metrics` and `/healthz` answer.
    pub listen: SocketAddr,
    /// How long metadata without explicit freshness stays fresh; may be zero.
    pub fresh_for: Duration,
    /// How many stripes a swarm has; 0 lets the supernode choose.
    pub stripes: u32,
    /// How it is found out who is near whom.
    pub locality: Locality,
    /// How long a lease holder may be silent before its lease moves on.
    pub lease_timeout: Duration,
    /// The filter for `tracing`; it parses.
    pub log: String,
    /// The file that was read.
    pub config: Option<PathBuf>,
}

impl SupernodeConfig {
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
    /// As [`SupernodeConfig::from_env_args`].
    pub fn parse_from(
        args: impl IntoIterator<Item = OsString>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        read_file: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Self, Exit> {
        let values = Values::gather(&PROGRAM, PROGRAM.parse(args)?, env, read_file)?;
        Ok(Self {
            listen: values.one(&LISTEN)?,
            fresh_for: values.one(&FRESH_FOR)?,
            stripes: values.one(&STRIPES)?,
            locality: values.one(&LOCALITY)?,
            lease_timeout: values.one(&LEASE_TIMEOUT)?,
            log: values.one(&THE_LOG)?,
            config: values.maybe(&THE_CONFIG)?,
        })
    }
}
