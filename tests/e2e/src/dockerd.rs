use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Containerd, Image, Process, needs::find, process::with_own_mounts, until};

/// dockerd with directories of its own, on a containerd of its own, with one registry mirror.
pub struct Dockerd {
    // Each ends before what it stands on goes.
    process: Process,
    _containerd: Containerd,
    directory: TempDir,
}

impl Dockerd {
    /// Starts one and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(mirror: SocketAddr) -> Self {
        let containerd = Containerd::start();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| directory.path().join(name);
        let mut command = dockerd();
        command
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("--containerd")
            .arg(containerd.socket())
            .arg("--host")
            .arg(format!("unix://{}", at("socket").display()))
            .arg("--registry-mirror")
            .arg(format!("http://{mirror}"))
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .args(["--storage-driver", "vfs"])
            // Where the mirror fails it turns to the registry of its own choice: not from here.
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .env("NO_PROXY", "");
        // Old ones make a key of their own in /etc unless told otherwise, and new ones know of no
        // such key.
        if is_old() {
            let settings = format!(
                r#"{{"deprecated-key-path":"{}"}}"#,
                at("key.json").display()
            );
            fs::write(at("daemon.json"), settings).expect("a configuration");
            command.arg("--config-file").arg(at("daemon.json"));
        }
        with_own_mounts(&mut command);
        let process = Process::start("dockerd", command);
        let dockerd = Self {
            process,
            _containerd: containerd,
            directory,
        };
        until("dockerd", || {
            let process = &dockerd.process;
            assert!(process.is_running(), "it ended: {}", process.stderr());
            if !dockerd.socket().exists() {
                return None;
            }
            let done = dockerd.docker(&["info"]).wait();
            (done.code == 0).then_some(())
        });
        dockerd
    }

    /// Starts a `docker` that talks to it.
    ///
    /// # Panics
    /// When it is not installed.
    pub fn docker(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(find("docker").expect("docker is installed"));
        command
            .arg("--config")
            .arg(self.directory.path().join("client"))
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(arguments);
        Process::start("docker", command)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Holds what it keeps under a name against the image: its configuration and its layers, both
    /// of which dockerd has checked by their digests.
    ///
    /// # Panics
    /// When it keeps another.
    #[track_caller]
    pub fn assert_pulled(&self, image: &Image, name: &str) {
        let done = self.docker(&["image", "inspect", name]).wait();
        assert_eq!(done.code, 0, "{}", done.stderr);
        let told: Value = serde_json::from_slice(&done.stdout).expect("JSON about an image");
        assert_eq!(told[0]["Id"], image.id(), "{told}");
        let layers: Vec<&str> = told[0]["RootFS"]["Layers"]
            .as_array()
            .expect("layers")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(layers, image.diffs());
    }
}

/// Whether it is of the time before 23.0: `Docker version 20.10.24+dfsg1, build …`.
fn is_old() -> bool {
    let told = dockerd().arg("--version").output().map(|told| told.stdout);
    let told = String::from_utf8(told.unwrap_or_default()).unwrap_or_default();
    let version = told
        .split(' ')
        .nth(2)
        .and_then(|text| text.split('.').next());
    version
        .and_then(|major| major.parse().ok())
        .is_some_and(|major: u32| major < 23)
}

fn dockerd() -> Command {
    Command::new(find("dockerd").expect("dockerd is installed"))
}
