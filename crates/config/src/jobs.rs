//! What `dfdaemon` does besides serving: `dfdaemon setup` and `dfdaemon ca init`.
//!
//! Their flags are given on the command line only: each is one action, not a way to run.

use std::{
    ffi::{OsStr, OsString},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use pantala_core::Error;

use crate::{
    DfdaemonConfig,
    command::Program,
    exit::Exit,
    file::read_config,
    flag::{AnyFlag, Arity, Bad, Flag, Group, Reach},
    sources::{Values, bad_input},
    value,
};

static RUNTIME: Flag<ContainerRuntime> = Flag::text("RUNTIME", "RUNTIME", Group::What, runtime)
    .arity(Arity::Positional)
    .reach(Reach::CommandLine)
    .help("containerd, docker, podman (also buildah, skopeo) or crio");

static REGISTRY: Flag<String> = Flag::text("registry", "NAME,…", Group::What, text)
    .arity(Arity::Commas)
    .reach(Reach::CommandLine)
    .help("Only this registry; podman and crio must be told; repeatable");

static UNDO: Flag<bool> = Flag::text("undo", "", Group::What, value::switch)
    .arity(Arity::Switch)
    .reach(Reach::CommandLine)
    .help("Take out what setup put in, and nothing else");

static DRY_RUN: Flag<bool> = Flag::text("dry-run", "", Group::What, value::switch)
    .arity(Arity::Switch)
    .reach(Reach::CommandLine)
    .help("Only show what would change");

static LISTEN: Flag<SocketAddr> = Flag::text("listen", "IP:PORT", Group::Other, value::listen)
    .reach(Reach::CommandLine)
    .default_words("127.0.0.1:65001")
    .help("Where dfdaemon listens");

static CONFIG: Flag<PathBuf> = Flag::path("config", "FILE", Group::Other, path)
    .reach(Reach::CommandLine)
    .help("dfdaemon's own file, to take its listen from");

static ROOT: Flag<PathBuf> = Flag::path("root", "DIR", Group::Other, path)
    .reach(Reach::CommandLine)
    .default_words("/")
    .help("Where the runtime's files are, for an image");

static SETUP_FLAGS: &[&dyn AnyFlag] = &[
    &RUNTIME, &REGISTRY, &UNDO, &DRY_RUN, &LISTEN, &CONFIG, &ROOT,
];

pub(crate) static SETUP: Program = Program {
    name: "dfdaemon setup",
    about: "Makes a container runtime of this host pull through its dfdaemon.",
    usage: "dfdaemon setup [FLAGS] RUNTIME",
    after: "\
Shows what it changes as a diff, keeps the original as FILE.pantala-backup, leaves everything else
in its files as it was, and says what to run next. Done twice, it changes nothing the second time.

Examples:
  dfdaemon setup containerd --dry-run
  sudo dfdaemon setup containerd
  sudo dfdaemon setup podman --registry registry.example --registry hub.example
  sudo dfdaemon setup docker --undo",
    flags: SETUP_FLAGS,
    tables: false,
};

static DIR: Flag<PathBuf> = Flag::path("dir", "DIR", Group::What, path)
    .reach(Reach::CommandLine)
    .default("/etc/pantala/ca")
    .help("Where to put ca.pem and ca-key.pem");

static NAME: Flag<String> = Flag::text("name", "NAME", Group::What, text)
    .reach(Reach::CommandLine)
    .default("Pantala CA")
    .help("What clients show it as");

static CA_FLAGS: &[&dyn AnyFlag] = &[&DIR, &NAME];

pub(crate) static CA_INIT: Program = Program {
    name: "dfdaemon ca init",
    about: "Makes a certificate authority with which dfdaemon answers for hosts it intercepts.",
    usage: "dfdaemon ca init [FLAGS]",
    after: "\
Says afterwards how to make clients trust it. It never writes over one that is there: clients would
have to trust the new one all over again.

Examples:
  sudo dfdaemon ca init
  dfdaemon ca init --dir ./ca --name 'Example Corp. builds'",
    flags: CA_FLAGS,
    tables: false,
};

/// What pulls images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerRuntime {
    /// containerd, also under Kubernetes.
    Containerd,
    /// dockerd.
    Docker,
    /// podman, buildah and skopeo.
    Podman,
    /// CRI-O.
    Crio,
}

/// What `dfdaemon setup` was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupConfig {
    /// Whose files.
    pub runtime: ContainerRuntime,
    /// The registries by name, unchecked; none means all.
    pub registry: Vec<String>,
    /// Where dfdaemon listens; may be a wildcard.
    pub listen: SocketAddr,
    /// Take out instead of put in.
    pub undo: bool,
    /// Only show it.
    pub dry_run: bool,
    /// What the files' paths are below, when not `/`.
    pub root: Option<PathBuf>,
}

/// What `dfdaemon ca init` was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaInitConfig {
    /// Where the two files go.
    pub dir: PathBuf,
    /// The certificate's common name, unchecked.
    pub name: String,
}

/// What `dfdaemon` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DfdaemonJob {
    /// Serve.
    Serve(Box<DfdaemonConfig>),
    /// `dfdaemon setup`.
    Setup(SetupConfig),
    /// `dfdaemon ca init`.
    CaInit(CaInitConfig),
}

impl DfdaemonJob {
    /// From this process's command line, environment and the file they name.
    ///
    /// # Errors
    /// [`Exit::Text`] when help or the version was asked for, else what cannot be used.
    pub fn from_env_args() -> Result<Self, Exit> {
        Self::parse_from(std::env::args_os(), std::env::vars_os(), read_config)
    }

    /// From these; `args` begins with the program's name. The environment is for serving only.
    ///
    /// # Errors
    /// As [`DfdaemonJob::from_env_args`].
    pub fn parse_from(
        args: impl IntoIterator<Item = OsString>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        read_file: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Self, Exit> {
        let args: Vec<OsString> = args.into_iter().collect();
        let word = |at: usize| args.get(at).and_then(|arg| arg.to_str());
        match (word(1), word(2)) {
            (Some("setup"), _) => setup(&args[1..], read_file).map(Self::Setup),
            (Some("ca"), Some("init")) => ca_init(&args[2..]).map(Self::CaInit),
            (Some("ca"), Some("-h" | "--help")) => ca_init(&args[1..]).map(Self::CaInit),
            (Some("ca"), _) => Err(bad_input(
                "ca: what to do with it is missing",
                "write dfdaemon ca init, or see dfdaemon ca init --help",
            )
            .into()),
            _ => DfdaemonConfig::parse_from(args, env, read_file)
                .map(Box::new)
                .map(Self::Serve),
        }
    }
}

fn setup(
    args: &[OsString],
    read_file: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<SetupConfig, Exit> {
    let mut layer = SETUP.parse(args.iter().cloned())?;
    // Of dfdaemon's flags, not of these: it is read as dfdaemon reads it.
    let file = layer.remove(CONFIG.spec.name);
    let values = Values::gather(&SETUP, layer, [], nothing)?;
    let listen = match (
        values.maybe(&LISTEN)?,
        file.and_then(|file| file.raw.last().cloned()),
    ) {
        (Some(listen), _) => listen,
        (None, Some(file)) => {
            let args = ["dfdaemon".into(), "--config".into(), file];
            DfdaemonConfig::parse_from(args, [], read_file)?.listen
        }
        (None, None) => DfdaemonConfig::parse_from(["dfdaemon".into()], [], nothing)?.listen,
    };
    Ok(SetupConfig {
        runtime: values.one(&RUNTIME)?,
        registry: values.list(&REGISTRY)?,
        listen,
        undo: values.on(&UNDO)?,
        dry_run: values.on(&DRY_RUN)?,
        root: values.maybe(&ROOT)?,
    })
}

fn ca_init(args: &[OsString]) -> Result<CaInitConfig, Exit> {
    let layer = CA_INIT.parse(args.iter().cloned())?;
    let values = Values::gather(&CA_INIT, layer, [], nothing)?;
    let read = || -> Result<_, Error> {
        Ok(CaInitConfig {
            dir: values.one(&DIR)?,
            name: values.one(&NAME)?,
        })
    };
    Ok(read()?)
}

/// No file is named, so none is read.
fn nothing(_: &Path) -> io::Result<String> {
    Ok(String::new())
}

fn runtime(text: &str) -> Result<ContainerRuntime, Bad> {
    match text {
        "containerd" => Ok(ContainerRuntime::Containerd),
        "docker" => Ok(ContainerRuntime::Docker),
        "podman" | "buildah" | "skopeo" => Ok(ContainerRuntime::Podman),
        "crio" | "cri-o" => Ok(ContainerRuntime::Crio),
        _ => Err(Bad::new(
            "not a runtime that setup knows",
            "give containerd, docker, podman or crio",
        )),
    }
}

fn text(text: &str) -> Result<String, Bad> {
    match text.trim() {
        "" => Err(Bad::new("empty", "give a name")),
        _ => Ok(text.to_owned()),
    }
}

fn path(raw: &OsStr) -> Result<PathBuf, Bad> {
    match raw.is_empty() {
        true => Err(Bad::new("empty", "give a path")),
        false => Ok(raw.into()),
    }
}
