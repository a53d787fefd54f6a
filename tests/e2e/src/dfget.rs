use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Dfdaemon, Finished, Process, Supernode, program, tool};

/// A `dfget` to be started. It does not look for a dfdaemon and serves peers on loopback.
pub struct Dfget {
    command: Command,
}

impl Dfget {
    /// Downloads `url`.
    pub fn new(url: impl AsRef<OsStr>) -> Self {
        let mut command = program("dfget");
        command
            .arg(url)
            .args(["--daemon", "never", "--peer-listen", "127.0.0.1:0"]);
        Self { command }
    }

    /// Downloads `url` through a running dfdaemon.
    pub fn through(daemon: &Dfdaemon, url: impl AsRef<OsStr>) -> Self {
        let mut command = program("dfget");
        command.arg(url).args(["--daemon", "only"]);
        command.args(["--daemon-addr", &daemon.addr().to_string()]);
        Self { command }
    }

    /// One flag.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Several flags.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Into this file.
    #[must_use]
    pub fn to(self, path: impl AsRef<Path>) -> Self {
        let path: OsString = path.as_ref().into();
        self.arg("-o").arg(path)
    }

    /// With the peers that this supernode knows.
    #[must_use]
    pub fn with(self, supernode: &Supernode) -> Self {
        self.arg("--supernode").arg(supernode.addr().to_string())
    }

    /// Run by another program, which gets these arguments and then the whole of this command.
    ///
    /// # Panics
    /// When that is not installed.
    #[must_use]
    pub fn under<A: AsRef<OsStr>>(self, name: &str, args: impl IntoIterator<Item = A>) -> Self {
        let mut command = tool(name);
        command.args(args).arg(self.command.get_program());
        command.args(self.command.get_args());
        for (variable, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        Self { command }
    }

    /// In this directory.
    #[must_use]
    pub fn current_dir(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Starts it; its standard output is gathered.
    pub fn start(self) -> Process {
        Process::start("dfget", self.command)
    }

    /// Starts it with a pipe for standard output that only the test reads.
    pub fn start_piped(self) -> Process {
        Process::start_piped("dfget", self.command)
    }

    /// Runs it to its end.
    pub fn run(self) -> Finished {
        self.start().wait()
    }
}

impl Finished {
    /// It ended well and had nothing to say.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn assert_success(&self) {
        assert_eq!(self.code, 0, "dfget failed: {}", self.stderr);
    }

    /// It ended with this code and one line that says all of these.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn assert_failed(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, code, "another exit code: {}", self.stderr);
        assert_eq!(
            self.stderr.lines().count(),
            1,
            "not one line: {}",
            self.stderr
        );
        for part in says {
            let said = &self.stderr;
            assert!(said.contains(part), "does not say {part:?}: {said}");
        }
    }
}

/// The files of unfinished downloads in a directory.
pub fn part_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "part")
        })
        .collect()
}
