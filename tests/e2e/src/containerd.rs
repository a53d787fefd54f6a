use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{Image, Process, needs::find, process::with_own_mounts, until};

/// containerd with directories of its own, and the CRI plugin as the kubelet uses it.
pub struct Containerd {
    // Ends before its directory goes.
    process: Process,
    directory: TempDir,
}

impl Containerd {
    /// Starts one without mirrors and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        fs::create_dir(at("hosts")).expect("a directory for mirrors");
        // The plain snapshotter copies: it works on every file system.
        let configuration = format!(
            "version = 2
root = '{}'
state = '{}'
[grpc]
  address = '{}'
[plugins.'io.containerd.internal.v1.opt']
  path = '{}'
[plugins.'io.containerd.grpc.v1.cri'.containerd]
  snapshotter = 'native'
[plugins.'io.containerd.grpc.v1.cri'.cni]
  conf_dir = '{}'
  bin_dir = '{}'
[plugins.'io.containerd.grpc.v1.cri'.registry]
  config_path = '{}'
",
            at("root"),
            at("state"),
            at("socket"),
            at("opt"),
            at("cni"),
            at("cni"),
            at("hosts")
        );
        fs::write(at("config.toml"), configuration).expect("a configuration");
        let mut command = Command::new(find("containerd").expect("containerd is installed"));
        command.args(["--config", &at("config.toml")]);
        with_own_mounts(&mut command);
        let process = Process::start("containerd", command);
        let containerd = Self { process, directory };
        until("containerd", || {
            let process = &containerd.process;
            assert!(process.is_running(), "it ended: {}", process.stderr());
            if !containerd.socket().exists() {
                return None;
            }
            let done = Process::start("ctr", containerd.ctr(&["version"])).wait();
            (done.code == 0).then_some(())
        });
        containerd
    }

    /// Pulls images of the registry `name` from the mirror at `mirror` alone.
    ///
    /// # Panics
    /// When its file cannot be written.
    pub fn set_mirror(&self, name: &str, mirror: SocketAddr) {
        let directory = self.hosts().join(name);
        fs::create_dir_all(&directory).expect("a directory for a registry");
        // Nobody listens at the registry itself: what the mirror does not give, nobody gives.
        let hosts = format!(
            "server = 'http://127.0.0.1:1'\n[host.'http://{mirror}']\n  \
             capabilities = ['pull', 'resolve']\n"
        );
        fs::write(directory.join("hosts.toml"), hosts).expect("a mirror's configuration");
    }

    /// Starts `ctr images pull`.
    pub fn start_pull(&self, reference: &str, flags: &[&str]) -> Process {
        let mut command = self.ctr(&["images", "pull", "--snapshotter", "native"]);
        command.arg("--hosts-dir").arg(self.hosts());
        command.args(flags).arg(reference);
        Process::start("ctr", command)
    }

    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(find("ctr").expect("ctr is installed"));
        command.arg("--address").arg(self.socket()).args(arguments);
        command
    }

    fn hosts(&self) -> PathBuf {
        self.directory.path().join("hosts")
    }

    /// Where it takes requests.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Where it keeps a blob.
    pub fn blob(&self, sha256: &str) -> PathBuf {
        let blobs = "root/io.containerd.content.v1.content/blobs/sha256";
        self.directory.path().join(blobs).join(sha256)
    }

    /// Holds what it keeps against the image.
    ///
    /// # Panics
    /// When something is missing or another.
    pub fn assert_pulled(&self, image: &Image) {
        let blobs = image.blobs().iter();
        for blob in blobs.chain([image.manifest()]) {
            blob.assert_file(Path::new(&self.blob(blob.sha256())));
        }
    }
}
