//! What strangers must not reach: what a daemon's own credentials open, and services on its host.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use pantala_e2e::{
    Answer, Content, Dfdaemon, Htpasswd, Image, Need, Origin, READER, Registry, Request, Script,
    Setup, ask, exchange, login, needs,
};
use tempfile::TempDir;

fn get(daemon: &Dfdaemon, url: &str, headers: &[(&str, &str)]) -> Answer {
    ask(daemon.addr(), "GET", url, headers, b"")
}

/// A registry for those who log in, and a host in front of it that does so by itself.
struct Guarded {
    registry: Registry,
    image: Image,
    daemon: Dfdaemon,
    _users: Htpasswd,
    _files: TempDir,
}

impl Guarded {
    fn start(seed: u64) -> Self {
        let users = Htpasswd::new();
        let registry = Registry::start_with(&Setup {
            tls: None,
            auth: Some(users.settings()),
        });
        let image = Image::new(seed, &[300_000]);
        let name = "team/private:v1";
        Registry::push_to(
            registry.addr(),
            &image,
            name,
            &["--dest-creds", &login(READER)],
        );
        let files = tempfile::tempdir().unwrap();
        let file = files.path().join("dfdaemon.toml");
        let table = format!(
            "[upstream.\"own.example\"]\nurl = \"{}\"\nusername = \"{}\"\npassword = \"{}\"\n",
            registry.url(),
            READER.0,
            READER.1
        );
        fs::write(&file, table).unwrap();
        let config = file.display().to_string();
        let daemon = Dfdaemon::start_alone(&["--config", &config]);
        Self {
            registry,
            image,
            daemon,
            _users: users,
            _files: files,
        }
    }

    fn blob(&self) -> &Content {
        &self.image.blobs()[0]
    }

    /// The blob's path at the mirror.
    fn target(&self) -> String {
        let digest = self.blob().sha256();
        format!("/v2/team/private/blobs/sha256:{digest}?ns=own.example")
    }

    /// Requests that the registry let through since it was started, besides the push.
    fn reads(&self) -> usize {
        let log = self.registry.requests();
        let read = |request: &&Request| request.method == "GET" && request.status == 200;
        log.iter().filter(read).count()
    }
}

#[test]
fn a_strangers_redirect_opens_nothing_of_ours() {
    needs!(Need::Program("docker-registry"), Need::Program("skopeo"));
    let guarded = Guarded::start(930);
    let digest = guarded.blob().sha256();
    let to = format!(
        "{}/v2/team/private/blobs/sha256:{digest}",
        guarded.registry.url()
    );
    let script = Script {
        redirect: Some(to),
        ..Script::default()
    };
    let stranger = Origin::start(guarded.blob(), script);
    for headers in [&[][..], &[("Range", "bytes=0-99")]] {
        let answer = get(&guarded.daemon, &stranger.blob_url(), headers);
        // The redirect itself is the stranger's to give.
        assert!(answer.status >= 300, "{}", answer.status);
        assert!(answer.body.len() < 300, "{}", answer.text());
    }
    assert_eq!(guarded.reads(), 0);
    let answer = get(&guarded.daemon, &guarded.target(), &[]);
    assert_eq!(answer.status, 200);
    guarded.blob().assert_bytes(&answer.body);
}

/// Sends a request with these header lines alone; gives the status and the rest of the answer.
fn raw(daemon: &Dfdaemon, line: &str, headers: &str) -> (u16, String) {
    let request = format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    let answer = exchange(daemon.addr(), request.as_bytes());
    let text = String::from_utf8_lossy(&answer).into_owned();
    (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
}

#[test]
fn no_page_in_a_browser_reaches_what_programs_may() {
    needs!(Need::Program("docker-registry"), Need::Program("skopeo"));
    let guarded = Guarded::start(940);
    let daemon = &guarded.daemon;
    let here = format!("Host: {}\r\n", daemon.addr());
    let blob = format!("GET {}", guarded.target());
    let upload = "POST /v2/team/private/blobs/uploads/?ns=own.example";
    let asked = guarded.registry.requests().len();
    for (line, name) in [
        (blob.as_str(), "evil.example:65001"),
        ("GET /v2/_catalog?ns=own.example", "evil.example"),
        (upload, "127.0.0.1.evil.example"),
        ("GET /v2/", "localhost.evil.example"),
        ("GET /v1/streams", "evil.example"),
        ("GET /", "evil.example"),
    ] {
        let (status, text) = raw(
            daemon,
            line,
            &format!("Host: {name}\r\nContent-Length: 0\r\n"),
        );
        assert_eq!(status, 403, "{line}: {text}");
        let says = text.contains("--allow-host") || line == "GET /";
        assert!(says, "{line}: {text}");
    }
    for page in [
        "Origin: http://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors",
        "Sec-Fetch-Site: same-site",
        "Sec-Fetch-Site: same-origin",
    ] {
        for line in [blob.as_str(), "GET /v2/_catalog?ns=own.example", upload] {
            let headers = format!("{here}{page}\r\nContent-Length: 0\r\n");
            assert_eq!(raw(daemon, line, &headers).0, 403, "{line} {page}");
        }
    }
    assert_eq!(
        guarded.registry.requests().len(),
        asked,
        "what reached the registry"
    );
    // Programs, and users who type an address.
    for headers in [
        here.as_str(),
        "Host: localhost:65001\r\n",
        "Host: [::1]\r\nUser-Agent: containerd/2.0\r\n",
        "Host: 10.1.2.3\r\nSec-Fetch-Site: none\r\n",
    ] {
        assert_eq!(raw(daemon, &blob, headers).0, 200, "{headers}");
    }
    let named = Dfdaemon::start_alone(&["--allow-host", "*.nodes.example"]);
    for (host, status) in [("a.nodes.example", 200), ("nodes.example", 403)] {
        let headers = format!("Host: {host}:65001\r\n");
        assert_eq!(raw(&named, "GET /v2/", &headers).0, status, "{host}");
    }
}

#[test]
fn services_on_loopback_are_mirrored_only_where_that_was_said() {
    let content = Content::new(950, 300_000);
    let origin = Origin::start(&content, Script::default());
    let url = origin.url();
    let name = url
        .strip_prefix("http://")
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    let (_, port) = name.rsplit_once(':').unwrap();
    let path = format!("/v2/x/blobs/sha256:{}", content.sha256());
    let stranger = Dfdaemon::start_alone(&[]);
    for host in [
        "127.0.0.1",
        "localhost",
        "0.0.0.0",
        "127.1",
        "[::ffff:127.0.0.1]",
    ] {
        let answer = get(&stranger, &format!("{path}?ns={host}:{port}"), &[]);
        assert_eq!(answer.status, 404, "{host}: {}", answer.text());
        assert!(answer.text().contains("--upstream"), "{}", answer.text());
        let posted = format!("/v2/x/blobs/uploads/?ns={host}:{port}");
        let answer = ask(stranger.addr(), "POST", &posted, &[], b"");
        assert_eq!(answer.status, 404, "{host}");
    }
    assert_eq!(origin.asked().len(), 0);
    let upstream = format!("{name}=http://{name}");
    let daemon = Dfdaemon::start_alone(&["--upstream", &upstream]);
    let answer = get(&daemon, &format!("{path}?ns={name}"), &[]);
    assert_eq!(answer.status, 200);
    content.assert_bytes(&answer.body);
}

/// An address of this host that is not loopback's, where it has one.
fn outside() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only looks up which address it would send from.
    socket.connect("198.51.100.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

/// A name, other than localhost, that leads to an address of this host's loopback, where it has one: mostly
/// its own.
fn other_name_of_loopback() -> Option<(IpAddr, String)> {
    let hosts = fs::read_to_string("/etc/hosts").ok()?;
    let lines = hosts.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let ip: IpAddr = words.next()?.parse().ok()?;
        Some((ip, words.map(str::to_owned).collect::<Vec<_>>()))
    });
    let loopback = lines.filter(|(ip, _)| ip.is_ipv4() && ip.is_loopback());
    let mut names = loopback.flat_map(|(ip, names)| names.into_iter().map(move |name| (ip, name)));
    names.find(|(_, name)| name != "localhost" && !name.starts_with("localhost."))
}

#[test]
fn other_hosts_do_not_reach_loopback_under_another_name() {
    let (Some(ip), Some((inside, name))) = (outside(), other_name_of_loopback()) else {
        println!("left out: this host has only its loopback address, or no name of its own for it");
        return;
    };
    let content = Content::new(970, 300_000);
    let origin = Origin::start_at(inside, &content, Script::default());
    let daemon = Dfdaemon::start_on(SocketAddr::new(ip, 0), &[]);
    let named = |url: String| url.replace(&inside.to_string(), &name);
    for url in [origin.url(), origin.blob_url()] {
        let url = named(url);
        for method in ["GET", "HEAD", "POST"] {
            let answer = ask(daemon.addr(), method, &url, &[], b"");
            assert_eq!(answer.status, 403, "{method} {url}: {}", answer.text());
        }
    }
    assert_eq!(origin.asked().len(), 0);
    // For programs of this host it is what its name says.
    let here = Dfdaemon::start_alone(&[]);
    let answer = get(&here, &named(origin.url()), &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    content.assert_bytes(&answer.body);
}

#[test]
fn other_hosts_do_not_reach_loopback_through_the_proxy() {
    let Some(ip) = outside() else {
        println!("left out: this host has only its loopback address");
        return;
    };
    let daemon = Dfdaemon::start_on(SocketAddr::new(ip, 0), &[]);
    let content = Content::new(960, 300_000);
    let origin = Origin::start(&content, Script::default());
    let script = Script {
        redirect: Some(origin.url()),
        ..Script::default()
    };
    let outer = Origin::start_at(ip, &content, script);
    for url in [origin.url(), origin.blob_url(), outer.blob_url()] {
        let answer = get(&daemon, &url, &[]);
        assert!(answer.status >= 400, "{url}: {}", answer.status);
    }
    assert_eq!(origin.asked().len(), 0);
}
