//! HTTPS that is opened for clients that trust the authority, and HTTPS that stays closed.

use std::path::PathBuf;

use pantala_ca::Authority;
use pantala_e2e::{
    Certificates, Content, Dfdaemon, Finished, MIB, Need, Nginx, Process, Supernode, needs, tool,
};
use tempfile::TempDir;

/// An origin with HTTPS, and an authority that may answer for it.
struct Scene {
    certificates: Certificates,
    nginx: Nginx,
    content: Content,
    directory: TempDir,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let certificates = Certificates::new();
        let nginx = Nginx::start_secure(&certificates);
        let content = Content::new(seed, 5 * MIB + 1);
        nginx.put("file.bin", &content);
        let scene = Self {
            certificates,
            nginx,
            content,
            directory: tempfile::tempdir().unwrap(),
        };
        Authority::init(scene.authority(), "the tests' interceptor").unwrap();
        scene
    }

    /// The authority's directory.
    fn authority(&self) -> PathBuf {
        self.directory.path().join("ca")
    }

    /// Flags of a dfdaemon that opens what leads to `hosts`.
    fn flags(&self, hosts: &str) -> Vec<String> {
        let port = self.nginx.secure_port().to_string();
        let authority = self.authority().display().to_string();
        [
            "--intercept",
            hosts,
            "--intercept-ca",
            &authority,
            "--tunnel-ports",
            &port,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn start_curl(&self, daemon: &Dfdaemon, trusted: PathBuf, flags: &[&str]) -> Process {
        let mut curl = tool("curl");
        curl.args(["-q", "-sS", "--noproxy", "", "--proxy"])
            .arg(format!("http://{}", daemon.addr()))
            .arg("--cacert")
            .arg(trusted)
            .args(flags)
            .arg(self.nginx.secure_url("file.bin"));
        Process::start("curl", curl)
    }

    fn curl(&self, daemon: &Dfdaemon, trusted: PathBuf, flags: &[&str]) -> Finished {
        self.start_curl(daemon, trusted, flags).wait()
    }

    fn of_origin(&self) -> PathBuf {
        self.certificates.authority()
    }

    fn of_interceptor(&self) -> PathBuf {
        self.authority().join("ca.pem")
    }
}

fn refs(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

#[test]
fn three_hosts_read_https_that_leaves_the_origin_once() {
    needs!(Need::Program("nginx"), Need::Program("curl"));
    let scene = Scene::new(600);
    let supernode = Supernode::start();
    let trusted = scene.of_origin().display().to_string();
    let flags = [scene.flags("localhost"), vec!["--ca".to_owned(), trusted]].concat();
    let daemons: Vec<Dfdaemon> = (0..3)
        .map(|_| Dfdaemon::start(&supernode, &refs(&flags)))
        .collect();
    let curls: Vec<Process> = daemons
        .iter()
        .map(|daemon| scene.start_curl(daemon, scene.of_interceptor(), &[]))
        .collect();
    for curl in curls {
        let done = curl.wait();
        assert_eq!(done.code, 0, "{}", done.stderr);
        scene.content.assert_bytes(&done.stdout);
    }
    let bytes = scene.nginx.bytes_of("/file.bin");
    assert_eq!(bytes, scene.content.len(), "{:?}", scene.nginx.served());
    // The origin's own certificate is not what clients see.
    let refused = scene.curl(&daemons[0], scene.of_origin(), &[]);
    assert_eq!(
        (refused.code, refused.stdout.len()),
        (60, 0),
        "{}",
        refused.stderr
    );
}

#[test]
fn an_origin_that_is_not_trusted_is_not_passed() {
    needs!(Need::Program("nginx"), Need::Program("curl"));
    let scene = Scene::new(610);
    // It does not trust the origin's authority.
    let daemon = Dfdaemon::start_alone(&refs(&scene.flags("localhost")));
    for flags in [
        &[] as &[&str],
        &["-I"],
        &["-r", "0-9"],
        &["-X", "POST", "-d", "x"],
    ] {
        let done = scene.curl(
            &daemon,
            scene.of_interceptor(),
            &[&["-w", "\n%{http_code}"], flags].concat(),
        );
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(said.ends_with("\n502"), "{flags:?}: {said}");
        if flags != ["-I"] {
            assert!(said.contains("TLS with localhost"), "{said}");
        }
    }
    assert_eq!(scene.nginx.served(), [], "nothing was asked there");
}

#[test]
fn what_is_not_intercepted_stays_closed() {
    needs!(Need::Program("nginx"), Need::Program("curl"));
    let scene = Scene::new(620);
    let daemon = Dfdaemon::start_alone(&refs(&scene.flags("*.example")));
    let done = scene.curl(&daemon, scene.of_origin(), &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    scene.content.assert_bytes(&done.stdout);
    let refused = scene.curl(&daemon, scene.of_interceptor(), &[]);
    assert_eq!(
        (refused.code, refused.stdout.len()),
        (60, 0),
        "{}",
        refused.stderr
    );
    assert_eq!(
        daemon.metric("pantala_reader_sent_bytes_total"),
        0,
        "it saw none of it"
    );
}

#[test]
fn tunnels_lead_to_allowed_ports_only() {
    needs!(Need::Program("nginx"), Need::Program("curl"));
    let scene = Scene::new(630);
    let daemon = Dfdaemon::start_alone(&[]);
    let flags = ["-w", "%{http_connect}", "-o", "/dev/null"];
    let refused = scene.curl(&daemon, scene.of_origin(), &flags);
    assert_eq!(
        String::from_utf8_lossy(&refused.stdout),
        "403",
        "{}",
        refused.stderr
    );
    assert_ne!(refused.code, 0);
}
