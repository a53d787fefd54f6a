use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use crate::{Certificates, Content, Image, Process, free_port, http_get, needs::find, until};

/// docker-registry with storage of its own.
pub struct Registry {
    // Ends before its directory goes.
    process: Process,
    addr: SocketAddr,
    scheme: &'static str,
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

/// How a registry is set up; the default is one that is open to everybody.
#[derive(Default)]
pub struct Setup<'a> {
    /// Serves HTTPS with the certificate of these.
    pub tls: Option<&'a Certificates>,
    /// The value of `auth` in its configuration.
    pub auth: Option<String>,
}

/// A request that a registry answered, from its access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// GET, HEAD, …
    pub method: String,
    /// The path and the query.
    pub target: String,
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
        Self::start_with(&Setup::default())
    }

    /// Starts one that is set up so.
    ///
    /// # Panics
    /// When it does not serve.
    pub fn start_with(setup: &Setup) -> Self {
        // Somebody else may take the port first; then another one does.
        (0..5)
            .find_map(|_| Self::try_start(setup))
            .expect("docker-registry on a free port")
    }

    fn try_start(setup: &Setup) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let file = directory.path().join("config.yml");
        let storage = directory.path().join("storage");
        let tls = setup.tls.map(|tls| {
            let (certificate, key) = (tls.certificate(), tls.key());
            let (certificate, key) = (certificate.display(), key.display());
            format!(", tls: {{certificate: '{certificate}', key: '{key}'}}")
        });
        let auth = setup.auth.as_ref().map(|auth| format!("auth: {auth}\n"));
        let configuration = format!(
            "version: 0.1\nlog: {{level: warn}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '{addr}'{}}}\n{}",
            storage.display(),
            tls.unwrap_or_default(),
            auth.unwrap_or_default()
        );
        fs::write(&file, configuration).expect("a configuration");
        let mut command = Command::new(find("docker-registry").expect("it is installed"));
        command.arg("serve").arg(&file);
        let process = Process::start("docker-registry", command);
        let up = until("docker-registry", || {
            if !process.is_running() {
                return Some(false);
            }
            if setup.tls.is_some() {
                return TcpStream::connect(addr).is_ok().then_some(true);
            }
            matches!(http_get(addr, "/v2/")?.0, 200 | 401).then_some(true)
        });
        if !up {
            assert!(process.stderr().contains("in use"), "{}", process.stderr());
            return None;
        }
        Some(Self {
            process,
            addr,
            scheme: if setup.tls.is_some() { "https" } else { "http" },
            _directory: directory,
        })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.addr)
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
        Self::push_to(self.addr, image, name, &[]);
    }

    /// Pushes an image to a registry, or through a mirror of it, at `to`.
    ///
    /// # Panics
    /// When skopeo fails.
    pub fn push_to(to: SocketAddr, image: &Image, name: &str, flags: &[&str]) {
        let mut command = skopeo();
        command
            .args(["copy", "--dest-tls-verify=false"])
            .args(flags)
            .arg(format!("oci:{}", image.path().display()))
            .arg(format!("docker://{to}/{name}"));
        let done = Process::start("skopeo", command).wait();
        assert_eq!(done.code, 0, "skopeo: {}", done.stderr);
    }

    /// What was asked of it so far.
    pub fn requests(&self) -> Vec<Request> {
        let log = self.process.output();
        let text = String::from_utf8_lossy(&log);
        text.lines().filter_map(request).collect()
    }

    /// Blobs that were read so far.
    pub fn blobs_read(&self) -> Vec<BlobRead> {
        let gets = self.requests().into_iter();
        gets.filter(|request| request.method == "GET")
            .filter_map(|request| {
                let (_, sha256) = request.target.split_once("/blobs/sha256:")?;
                Some(BlobRead {
                    sha256: sha256.to_owned(),
                    status: request.status,
                    bytes: request.bytes,
                })
            })
            .collect()
    }

    /// Bytes of this blob that left it so far.
    pub fn bytes_read(&self, blob: &Content) -> u64 {
        let reads = self.blobs_read().into_iter();
        reads
            .filter(|read| read.sha256 == blob.sha256() && read.status < 300)
            .map(|read| read.bytes)
            .sum()
    }

    /// Holds what it was asked against the rule that an image leaves it once: each blob and no
    /// more, and its manifest, by its digest, no oftener than there are hosts.
    ///
    /// # Panics
    /// When more was asked, or less.
    #[track_caller]
    pub fn assert_read_once(&self, image: &Image, hosts: usize) {
        for blob in image.blobs() {
            let bytes = self.bytes_read(blob);
            assert_eq!(
                bytes,
                blob.len(),
                "{}: {:?}",
                blob.sha256(),
                self.requests()
            );
        }
        let manifest = format!("/manifests/sha256:{}", image.manifest().sha256());
        let requests = self.requests();
        let given = requests
            .iter()
            .filter(|request| request.method == "GET" && request.status < 300)
            .filter(|request| request.target.contains(&manifest))
            .count();
        assert!(given <= hosts, "{requests:?}");
    }

    /// Pulls `name` from the registry, or from a mirror of it, at `from`.
    pub fn start_pull(from: SocketAddr, name: &str, to: &Path) -> Process {
        Self::start_pull_with(from, name, to, &[])
    }

    /// The same, with flags for `skopeo copy`.
    pub fn start_pull_with(from: SocketAddr, name: &str, to: &Path, flags: &[&str]) -> Process {
        let mut command = skopeo();
        command
            .args(["copy", "--src-tls-verify=false"])
            .args(flags)
            .arg(format!("docker://{from}/{name}"))
            .arg(format!("dir:{}", to.display()));
        Process::start("skopeo", command)
    }
}

/// A skopeo that takes images without signatures.
///
/// # Panics
/// When it is not installed.
pub fn skopeo() -> Command {
    let mut command = Command::new(find("skopeo").expect("skopeo is installed"));
    command.arg("--insecure-policy");
    command
}

/// A line of the access log: `IP - - [TIME] "GET PATH HTTP/1.1" STATUS BYTES …`.
fn request(line: &str) -> Option<Request> {
    let (_, rest) = line.split_once("] \"")?;
    let (method, rest) = rest.split_once(' ')?;
    let (target, rest) = rest.split_once(' ')?;
    let (_, rest) = rest.split_once("\" ")?;
    let mut words = rest.split(' ');
    Some(Request {
        method: method.to_owned(),
        target: target.to_owned(),
        status: words.next()?.parse().ok()?,
        bytes: words.next()?.parse().ok()?,
    })
}
