//! Puts a container runtime of this host behind its `dfdaemon`, and takes it out again.
//!
//! Participants: [`plan`] reads the runtime's files through [`ReadFiles`] and says what would
//! change in them; [`Disk`] is those files on this machine, and [`Disk::apply`] makes the changes;
//! [`run`](fn@run) does both and tells the user.
//!
//! Goals: everything else in a file stays as it was, to the byte, comments included; what was done
//! once is not done twice; what setup put in, and nothing else, can be taken out again, also after
//! the user has edited the file; a file that cannot be edited safely is refused with what to write
//! by hand.
//!
//! How: files are cut and pasted as text at places that a parser found, never written anew from
//! what was parsed. In TOML what was put in stands between two comments (see `block`). JSON has no
//! comments: there the value itself is recognised, and the backup says what was there before.
//!
//! Non-goals: starting, stopping or reloading anything; installing certificates; the client
//! programs that are configured by environment variables.

mod block;
mod containerd;
mod disk;
mod docker;
mod hosts;
mod imports;
mod podman;
mod run;
mod toml;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use pantala_core::{Error, Kind, Result, Who};

pub use disk::{Disk, Written};
pub use run::{Job, run};

/// What is added to a file's name for its backup.
pub const BACKUP: &str = ".pantala-backup";

/// What pulls images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// containerd, also under Kubernetes.
    Containerd,
    /// dockerd.
    Docker,
    /// podman, buildah and skopeo.
    Podman,
    /// CRI-O.
    Crio,
}

impl Runtime {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Containerd => "containerd",
            Runtime::Docker => "docker",
            Runtime::Podman => "podman",
            Runtime::Crio => "crio",
        }
    }
}

/// What to put in, or to take out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where clients on this host reach `dfdaemon`; a wildcard stands for loopback.
    pub listen: SocketAddr,
    /// The registries by the names images have them under. None stands for all where the runtime
    /// knows such a thing, and, when undoing, for all that were set up.
    pub registries: Vec<String>,
    /// Take out instead of put in.
    pub undo: bool,
}

impl Options {
    /// `IP:PORT` as a client on this host dials it.
    fn address(&self) -> SocketAddr {
        let ip = match self.listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.listen.port())
    }

    fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// # Errors
    /// When a name cannot be a directory's and a registry's name, or the port is none.
    fn check(&self) -> Result<()> {
        if self.listen.port() == 0 {
            let what = format!("--listen {}: nobody listens at port 0", self.listen);
            return Err(Error::new(Who::User, Kind::BadInput, what)
                .hint("give the address that dfdaemon listens at"));
        }
        for name in &self.registries {
            let letters = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
            let edges = |c: char| c.is_ascii_alphanumeric() || c == '[' || c == ']';
            let good = name.chars().all(letters)
                && name.starts_with(edges)
                && name.ends_with(edges)
                && !name.contains("..");
            if !good {
                let what = format!("--registry {name:?}: not a registry's name");
                return Err(Error::new(Who::User, Kind::BadInput, what).hint(
                    "write it as images have it, like registry.example or hub.example:5000",
                ));
            }
        }
        Ok(())
    }
}

/// One file, as it is and as it is to be; `None` is a file that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Its path, without any `--root`.
    pub path: PathBuf,
    /// What it holds now.
    pub before: Option<String>,
    /// What it is to hold; not the same as `before`.
    pub after: Option<String>,
    /// How many directories above it go with it once they are empty, when it goes.
    pub directories: usize,
}

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In this order; empty when nothing is to change.
    pub changes: Vec<FileChange>,
    /// What else the user should know, a paragraph each.
    pub advice: Vec<String>,
    /// The commands that make the runtime see it; empty when it does so by itself.
    pub next: Vec<String>,
}

impl Plan {
    fn change(&mut self, path: PathBuf, before: Option<String>, after: Option<String>, up: usize) {
        if before != after {
            self.changes.push(FileChange {
                path,
                before,
                after,
                directories: up,
            });
        }
    }
}

/// The files of a host, without any `--root` in their paths.
pub trait ReadFiles {
    /// The file's text; `None` when it is not there.
    ///
    /// # Errors
    /// Also for one that is not UTF-8 text.
    fn read(&self, path: &Path) -> io::Result<Option<String>>;

    /// The names in a directory, in order; `None` when it is not there.
    ///
    /// # Errors
    /// When it cannot be read.
    fn list(&self, dir: &Path) -> io::Result<Option<Vec<String>>>;
}

/// What has to change for `runtime` to pull through `dfdaemon`, or no longer to. Nothing is
/// written.
///
/// # Errors
/// The user's, when a file cannot be read or edited safely, or the options make no sense for this
/// runtime.
pub fn plan(runtime: Runtime, options: &Options, files: &dyn ReadFiles) -> Result<Plan> {
    options.check()?;
    match runtime {
        Runtime::Containerd => containerd::plan(options, files),
        Runtime::Docker => docker::plan(options, files),
        Runtime::Podman | Runtime::Crio => podman::plan(runtime, options, files),
    }
}

/// Where the backup of `path` is.
pub fn backup_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(BACKUP);
    name.into()
}

/// The text of a file, the error with its name.
fn read(files: &dyn ReadFiles, path: &Path) -> Result<Option<String>> {
    files
        .read(path)
        .map_err(|error| disk::failed(path, "read", &error))
}

fn list(files: &dyn ReadFiles, dir: &Path) -> Result<Option<Vec<String>>> {
    files
        .list(dir)
        .map_err(|error| disk::failed(dir, "read", &error))
}

/// How many of the directories `dir` and above are not there, three at most: how many a new file
/// in it brings into being.
fn missing(files: &dyn ReadFiles, dir: &Path) -> Result<usize> {
    let mut count = 0;
    for dir in dir.ancestors().take(3) {
        if list(files, dir)?.is_some() {
            break;
        }
        count += 1;
    }
    Ok(count)
}

/// `path` holds something that cannot be edited.
fn refuse(
    path: &Path,
    line: Option<usize>,
    what: impl AsRef<str>,
    hint: impl Into<String>,
) -> Error {
    let place = match line {
        Some(line) => format!("{}:{line}", path.display()),
        None => path.display().to_string(),
    };
    let what = format!("{place}: {}", what.as_ref());
    Error::new(Who::User, Kind::BadInput, what).hint(hint)
}
