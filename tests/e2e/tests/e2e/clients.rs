//! curl and wget read through the proxy what they would read without it.

use std::{fs, path::Path, process::Command};

use pantala_ca::Authority;
use pantala_e2e::{
    Certificates, Content, Dfdaemon, Finished, MIB, Need, Nginx, Process, needs, tool,
};

/// A way from clients to nginx.
struct Way {
    nginx: Nginx,
    daemon: Dfdaemon,
    content: Content,
    base: String,
    /// What clients must trust on it.
    ca: Option<String>,
    directory: tempfile::TempDir,
}

impl Way {
    /// Over HTTP.
    fn plain(seed: u64) -> Self {
        let nginx = Nginx::start();
        let (daemon, base) = (Dfdaemon::start_alone(&[]), nginx.url(""));
        Self::new(seed, nginx, daemon, base, None)
    }

    /// Over HTTPS that is intercepted.
    fn intercepted(seed: u64) -> Self {
        let certificates = Certificates::new();
        let nginx = Nginx::start_secure(&certificates);
        let directory = tempfile::tempdir().unwrap();
        let authority = directory.path().join("ca");
        Authority::init(&authority, "the tests' interceptor").unwrap();
        let authority = authority.display().to_string();
        let trusted = certificates.authority().display().to_string();
        let port = nginx.secure_port().to_string();
        let daemon = Dfdaemon::start_alone(&[
            "--intercept",
            "localhost",
            "--intercept-ca",
            &authority,
            "--tunnel-ports",
            &port,
            "--ca",
            &trusted,
        ]);
        let base = nginx.secure_url("");
        let ca = fs::read_to_string(format!("{authority}/ca.pem")).unwrap();
        Self::new(seed, nginx, daemon, base, Some(ca))
    }

    fn new(seed: u64, nginx: Nginx, daemon: Dfdaemon, base: String, ca: Option<String>) -> Self {
        let content = Content::new(seed, 3 * MIB + 11);
        nginx.put("file.bin", &content);
        let directory = tempfile::tempdir().unwrap();
        let ca = ca.map(|ca| {
            let path = directory.path().join("trusted.pem");
            fs::write(&path, ca).unwrap();
            path.display().to_string()
        });
        Self {
            nginx,
            daemon,
            content,
            base,
            ca,
            directory,
        }
    }

    fn at(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn proxied(&self, mut command: Command) -> Command {
        let proxy = format!("http://{}", self.daemon.addr());
        command.env("http_proxy", &proxy).env("https_proxy", &proxy);
        command.env("no_proxy", "").current_dir(&self.directory);
        command
    }

    fn curl(&self, flags: &[&str], path: &str) -> Finished {
        let mut curl = self.proxied(tool("curl"));
        curl.args(["-q", "-sS"]).args(flags);
        if let Some(ca) = &self.ca {
            curl.args(["--cacert", ca]);
        }
        curl.arg(format!("{}{path}", self.base));
        Process::start("curl", curl).wait()
    }

    fn wget(&self, flags: &[&str], path: &str) -> Finished {
        let mut wget = self.proxied(tool("wget"));
        wget.args(["--no-config", "--tries=1", "--no-verbose"])
            .args(flags);
        wget.env("LC_ALL", "C");
        if let Some(ca) = &self.ca {
            wget.args(["--ca-certificate", ca]);
        }
        wget.arg(format!("{}{path}", self.base));
        Process::start("wget", wget).wait()
    }

    /// The head as nginx itself sends it, without what may differ each time.
    fn heads(&self, flags: &[&str], path: &str) -> [Vec<String>; 2] {
        let mut direct = tool("curl");
        direct
            .args(["-q", "-sS", "-I"])
            .args(flags)
            .arg(self.nginx.url(path));
        let direct = Process::start("curl", direct).wait();
        let through = self.curl(&[&["-I"], flags].concat(), path);
        [direct, through].map(|done| {
            assert_eq!(done.code, 0, "{}", done.stderr);
            let text = String::from_utf8_lossy(&done.stdout).to_lowercase();
            // A tunnel has a head of its own.
            let text = text.rsplit("\r\n\r\n").find(|head| !head.is_empty());
            // What a proxy says of the connection, and how old a cache says that its answer is.
            let own = [
                "age:",
                "date:",
                "server:",
                "connection:",
                "via:",
                "keep-alive:",
            ];
            let mut lines: Vec<String> = text
                .unwrap_or_default()
                .lines()
                .filter(|line| !own.iter().any(|name| line.starts_with(name)))
                .map(str::to_owned)
                .collect();
            lines.sort();
            lines
        })
    }

    fn curl_reads(&self) {
        let content = &self.content;
        let code = ["-w", "%{http_code}", "-o"];
        let file = self.at("curl.bin");
        for _ in 0..2 {
            let done = self.curl(&["-o", &file], "file.bin");
            assert_eq!(done.code, 0, "{}", done.stderr);
            content.assert_file(Path::new(&file));
        }
        // What is there already is not fetched again.
        let half = self.at("half.bin");
        fs::write(&half, &content.bytes()[..MIB + 5]).unwrap();
        let done = self.curl(&["-C", "-", "-o", &half], "file.bin");
        assert_eq!(done.code, 0, "{}", done.stderr);
        content.assert_file(Path::new(&half));

        for (range, bytes) in [
            ("0-0", &content.bytes()[..1]),
            ("1000-2000000", &content.bytes()[1000..=2_000_000]),
            ("3000000-", &content.bytes()[3_000_000..]),
            ("-77", &content.bytes()[content.bytes().len() - 77..]),
        ] {
            let done = self.curl(&["-r", range], "file.bin");
            assert_eq!(done.code, 0, "{}", done.stderr);
            Content::of(bytes.to_vec()).assert_bytes(&done.stdout);
        }
        let done = self.curl(
            &["-r", "4000000-", "-o", "/dev/null", "-w", "%{http_code}"],
            "file.bin",
        );
        assert_eq!(done.stdout, b"416");

        let [direct, through] = self.heads(&[], "file.bin");
        assert_eq!(through, direct);
        let unchanged = |flags: &[&str]| {
            let out = self.at("unchanged.bin");
            let done = self.curl(&[flags, &code, &[&out]].concat(), "file.bin");
            assert_eq!(done.code, 0, "{}", done.stderr);
            let len = fs::metadata(&out).map_or(0, |meta| meta.len());
            let _ = fs::remove_file(&out);
            (String::from_utf8_lossy(&done.stdout).into_owned(), len)
        };
        // The file was written after the one at the origin.
        assert_eq!(unchanged(&["-z", &file]), ("304".to_owned(), 0));
        let old = ["-z", "Mon, 01 Jan 2001 00:00:00 GMT"];
        assert_eq!(unchanged(&old), ("200".to_owned(), content.len()));
        let etag = self.at("etag");
        assert_eq!(unchanged(&["--etag-save", &etag]).0, "200");
        assert_eq!(unchanged(&["--etag-compare", &etag]), ("304".to_owned(), 0));

        let mut direct = tool("curl");
        direct.args(["-q", "-sS"]).arg(self.nginx.url("none.bin"));
        let direct = Process::start("curl", direct).wait();
        let through = self.curl(&[], "none.bin");
        assert_eq!(through.stdout, direct.stdout, "the origin's own page");
        let [direct, through] = self.heads(&[], "none.bin");
        assert_eq!(through, direct);
        self.assert_read_once();
    }

    fn wget_reads(&self) {
        let content = &self.content;
        let file = self.at("wget.bin");
        let done = self.wget(&["-O", &file], "file.bin");
        assert_eq!(done.code, 0, "{}", done.stderr);
        content.assert_file(Path::new(&file));

        let half = self.at("file.bin");
        fs::write(&half, &content.bytes()[..2 * MIB + 1]).unwrap();
        let done = self.wget(&["-c"], "file.bin");
        assert_eq!(done.code, 0, "{}", done.stderr);
        content.assert_file(Path::new(&half));
        // There is nothing left of it.
        let done = self.wget(&["-c"], "file.bin");
        assert_eq!(done.code, 0, "{}", done.stderr);
        content.assert_file(Path::new(&half));
        let done = self.wget(&["-N", "-S"], "file.bin");
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(done.stderr.contains("304 Not Modified"), "{}", done.stderr);

        let done = self.wget(&["--spider"], "file.bin");
        assert_eq!(done.code, 0, "{}", done.stderr);
        let done = self.wget(&["-O", "/dev/null"], "none.bin");
        assert_eq!(done.code, 8, "{}", done.stderr);
        assert!(done.stderr.contains("404"), "{}", done.stderr);
        self.assert_read_once();
    }

    /// However often it was asked for, it left nginx once.
    #[track_caller]
    fn assert_read_once(&self) {
        let bytes = self.nginx.bytes_of("/file.bin");
        assert_eq!(bytes, self.content.len(), "{:?}", self.nginx.served());
    }
}

#[test]
fn curl_reads_through_the_proxy() {
    needs!(Need::Program("nginx"), Need::Program("curl"));
    Way::plain(500).curl_reads();
}

#[test]
fn curl_reads_through_interception() {
    needs!(Need::Program("nginx"), Need::Program("curl"));
    Way::intercepted(510).curl_reads();
}

#[test]
fn wget_reads_through_the_proxy() {
    needs!(Need::Program("nginx"), Need::Program("wget"));
    Way::plain(520).wget_reads();
}

#[test]
fn wget_reads_through_interception() {
    needs!(Need::Program("nginx"), Need::Program("wget"));
    Way::intercepted(530).wget_reads();
}
