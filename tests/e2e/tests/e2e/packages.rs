//! pip and npm install through the proxy; a package leaves its index once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pantala_ca::Authority;
use pantala_e2e::{
    Certificates, Content, Dfdaemon, MIB, Need, Nginx, Process, Supernode, gzip, needs, tar, tool,
};
use sha2::{Digest as _, Sha512};
use tempfile::TempDir;

const WHEEL: &str = "packages/demo-1.0.0-py3-none-any.whl";
const TARBALL: &str = "files/demo-1.0.0.tgz";

/// An index over HTTP and HTTPS, and three hosts that reach it by their dfdaemons.
struct Scene {
    nginx: Nginx,
    daemons: Vec<Dfdaemon>,
    /// What is in the packages.
    data: Content,
    directory: TempDir,
    _certificates: Certificates,
    _supernode: Supernode,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let certificates = Certificates::new();
        let nginx = Nginx::start_secure(&certificates);
        let directory = tempfile::tempdir().unwrap();
        let authority = directory.path().join("ca").display().to_string();
        Authority::init(&authority, "the tests' interceptor").unwrap();
        let supernode = Supernode::start();
        let port = nginx.secure_port().to_string();
        let trusted = certificates.authority().display().to_string();
        let flags = [
            "--intercept",
            "localhost",
            "--intercept-ca",
            &authority,
            "--tunnel-ports",
            &port,
            "--ca",
            &trusted,
        ];
        Self {
            daemons: (0..3)
                .map(|_| Dfdaemon::start(&supernode, &flags))
                .collect(),
            data: Content::new(seed, 2 * MIB + 9),
            nginx,
            directory,
            _certificates: certificates,
            _supernode: supernode,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn proxy(&self, host: usize) -> String {
        format!("http://{}", self.daemons[host].addr())
    }

    fn url(&self, secure: bool, path: &str) -> String {
        match secure {
            true => self.nginx.secure_url(path),
            false => self.nginx.url(path),
        }
    }

    /// A wheel is a zip archive with a table of what is in it.
    fn publish_wheel(&self) -> Content {
        let about = "demo-1.0.0.dist-info";
        let write = |name: &str, bytes: &[u8]| {
            let path = self.at("wheel").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        write("demo/__init__.py", b"");
        write("demo/data.bin", self.data.bytes());
        write(
            &format!("{about}/METADATA"),
            b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0.0\n",
        );
        write(
            &format!("{about}/WHEEL"),
            b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        );
        let record = format!(
            "demo/__init__.py,,\ndemo/data.bin,,\n{about}/METADATA,,\n{about}/WHEEL,,\n\
             {about}/RECORD,,\n"
        );
        write(&format!("{about}/RECORD"), record.as_bytes());
        let mut zip = tool("python3");
        zip.args(["-m", "zipfile", "-c", "../demo.whl", "demo", about]);
        zip.current_dir(self.at("wheel"));
        let done = Process::start("python3", zip).wait();
        assert_eq!(done.code, 0, "{}", done.stderr);
        let wheel = Content::of(fs::read(self.at("demo.whl")).unwrap());
        self.nginx.put(WHEEL, &wheel);
        let page = format!(
            "<!DOCTYPE html><html><body><a href=\"../../{WHEEL}#sha256={}\">{}</a></body></html>",
            wheel.sha256(),
            "demo-1.0.0-py3-none-any.whl"
        );
        self.nginx
            .put("simple/demo/index.html", &Content::of(page.into_bytes()));
        wheel
    }

    fn publish_tarball(&self, secure: bool) -> Content {
        let about = br#"{"name":"demo","version":"1.0.0"}"#;
        let tarball = Content::of(gzip(&tar(&[
            ("package/package.json", about),
            ("package/data.bin", self.data.bytes()),
        ])));
        self.nginx.put(TARBALL, &tarball);
        let document = serde_json::json!({
            "name": "demo",
            "dist-tags": {"latest": "1.0.0"},
            "versions": {"1.0.0": {
                "name": "demo",
                "version": "1.0.0",
                "dist": {
                    "tarball": self.url(secure, TARBALL),
                    "integrity": format!("sha512-{}", STANDARD.encode(Sha512::digest(tarball.bytes()))),
                },
            }},
        });
        let document = Content::of(document.to_string().into_bytes());
        self.nginx.put("npm/demo", &document);
        tarball
    }

    fn start_pip(&self, host: usize, secure: bool, target: &Path) -> Process {
        let mut pip = tool("pip3");
        pip.args([
            "--isolated",
            "--disable-pip-version-check",
            "install",
            "--quiet",
        ])
        .args([
            "--no-deps",
            "--no-cache-dir",
            "--retries",
            "0",
            "--timeout",
            "120",
        ])
        .args(["--index-url", &self.url(secure, "simple/")])
        .args(["--proxy", &self.proxy(host)])
        .arg("--cert")
        .arg(self.at("ca/ca.pem"))
        .arg("--target")
        .arg(target)
        .arg("demo")
        // Where a Python is set up to trust a bundle of its own, this goes before --cert.
        .env("REQUESTS_CA_BUNDLE", self.at("ca/ca.pem"));
        Process::start("pip3", pip)
    }

    fn start_npm(&self, host: usize, secure: bool, target: &Path) -> Process {
        fs::create_dir_all(target).unwrap();
        fs::write(
            target.join("package.json"),
            r#"{"name":"user","version":"1.0.0"}"#,
        )
        .unwrap();
        let mut npm = tool("npm");
        npm.arg("install")
            .args([
                "--no-audit",
                "--no-fund",
                "--no-update-notifier",
                "--fetch-retries=0",
            ])
            .arg(format!("--registry={}", self.url(secure, "npm/")))
            .arg(format!("--proxy={}", self.proxy(host)))
            .arg(format!("--https-proxy={}", self.proxy(host)))
            .arg("--noproxy=")
            .arg(format!("--cafile={}", self.at("ca/ca.pem").display()))
            .arg(format!("--cache={}", target.join("cache").display()))
            .arg(format!("--userconfig={}", target.join("npmrc").display()))
            .arg("demo@1.0.0")
            .env("HOME", target)
            .current_dir(target);
        Process::start("npm", npm)
    }

    /// Three hosts install, and the package leaves the index once.
    fn install(
        &self,
        package: &Content,
        path: &str,
        installed: &str,
        start: impl Fn(usize, &Path) -> Process,
    ) {
        let target = |host: usize| self.at(&format!("installed{host}"));
        let running: Vec<Process> = (0..3).map(|host| start(host, &target(host))).collect();
        for (host, running) in running.into_iter().enumerate() {
            let done = running.wait();
            assert_eq!(
                done.code,
                0,
                "host {host}: {}{}",
                done.stderr,
                String::from_utf8_lossy(&done.stdout)
            );
            self.data.assert_file(&target(host).join(installed));
        }
        let bytes = self.nginx.bytes_of(&format!("/{path}"));
        assert_eq!(bytes, package.len(), "{:?}", self.nginx.served());
        // By the dfdaemons, and not past them.
        let sent: u64 = self
            .daemons
            .iter()
            .map(|daemon| daemon.metric("pantala_reader_sent_bytes_total"))
            .sum();
        assert!(sent >= 3 * package.len(), "{sent}");
    }

    fn pip_installs(&self, secure: bool) {
        let wheel = self.publish_wheel();
        let start = |host: usize, target: &Path| self.start_pip(host, secure, target);
        self.install(&wheel, WHEEL, "demo/data.bin", start);
    }

    fn npm_installs(&self, secure: bool) {
        let tarball = self.publish_tarball(secure);
        let start = |host: usize, target: &Path| self.start_npm(host, secure, target);
        self.install(&tarball, TARBALL, "node_modules/demo/data.bin", start);
    }
}

#[test]
fn pip_installs_through_the_proxy() {
    needs!(
        Need::Program("nginx"),
        Need::Program("pip3"),
        Need::Program("python3")
    );
    Scene::new(700).pip_installs(false);
}

#[test]
fn pip_installs_through_interception() {
    needs!(
        Need::Program("nginx"),
        Need::Program("pip3"),
        Need::Program("python3")
    );
    Scene::new(710).pip_installs(true);
}

#[test]
fn npm_installs_through_the_proxy() {
    needs!(Need::Program("nginx"), Need::Program("npm"));
    Scene::new(720).npm_installs(false);
}

#[test]
fn npm_installs_through_interception() {
    needs!(Need::Program("nginx"), Need::Program("npm"));
    Scene::new(730).npm_installs(true);
}
