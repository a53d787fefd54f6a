use std::{fs, net::SocketAddr, path::Path, process::Command};

use tempfile::TempDir;

use crate::{Image, Process, free_port, http_get, needs::find, until};

/// docker-registry with storage of its own.
pub struct Registry {
    // Ends before its directory goes.
    process: Process,
    addr: SocketAddr,
    _directory: TempDir,
}

/// A blob that was read from the registry, from its access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRead {
    /// The blob's digest, without `sha256:`.
    pub sha256: String,
    /// The response's status.
    pub status: u16,
    /// Bytes of the body.
    pub bytes: u64,
}

impl Registry {
    /// Starts it on a free port and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn start() -> Self {
        // Somebody else may take the port first; then another one does.
        (0..5)
            .find_map(|_| Self::try_start())
            .expect("docker-registry on a free port")
    }

    fn try_start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let file = directory.path().join("config.yml");
        let storage = directory.path().join("storage");
        let configuration = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '{addr}'}}\n",
            storage.display()
        );
        fs::write(&file, configuration).expect("a configuration");
        let mut command = Command::new(find("docker-registry").expect("it is installed"));
        command.arg("serve").arg(&file);
        let process = Process::start("docker-registry", command);
        let up = until("docker-registry", || {
            if !process.is_running() {
                return Some(false);
            }
            (http_get(addr, "/v2/")?.0 == 200).then_some(true)
        });
        if !up {
            assert!(process.stderr().contains("in use"), "{}", process.stderr());
            return None;
        }
        Some(Self {
            process,
            addr,
            _directory: directory,
        })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Pushes an image under a name.
    ///
    /// # Panics
    /// When skopeo fails.
    pub fn push(&self, image: &Image, name: &str) {
        let mut command = skopeo();
        command
            .args(["copy", "--dest-tls-verify=false"])
            .arg(format!("oci:{}", image.path().display()))
            .arg(format!("docker://{}/{name}", self.addr));
        let done = Process::start("skopeo", command).wait();
        assert_eq!(done.code, 0, "skopeo: {}", done.stderr);
    }

    /// Blobs that were read so far.
    pub fn blobs_read(&self) -> Vec<BlobRead> {
        let log = self.process.output();
        String::from_utf8_lossy(&log)
            .lines()
            .filter_map(blob_read)
            .collect()
    }

    /// Pulls `name` from the registry, or from a mirror of it, at `from`.
    pub fn start_pull(from: SocketAddr, name: &str, to: &Path) -> Process {
        let mut command = skopeo();
        command
            .args(["copy", "--src-tls-verify=false"])
            .arg(format!("docker://{from}/{name}"))
            .arg(format!("dir:{}", to.display()));
        Process::start("skopeo", command)
    }
}

fn skopeo() -> Command {
    let mut command = Command::new(find("skopeo").expect("skopeo is installed"));
    command.arg("--insecure-policy");
    command
}

/// A line of the access log: `IP - - [TIME] "GET PATH HTTP/1.1" STATUS BYTES …`.
fn blob_read(line: &str) -> Option<BlobRead> {
    let (_, rest) = line.split_once("\"GET ")?;
    let (path, rest) = rest.split_once(' ')?;
    let (_, sha256) = path.split_once("/blobs/sha256:")?;
    let (_, rest) = rest.split_once("\" ")?;
    let mut words = rest.split(' ');
    Some(BlobRead {
        sha256: sha256.to_owned(),
        status: words.next()?.parse().ok()?,
        bytes: words.next()?.parse().ok()?,
    })
}
