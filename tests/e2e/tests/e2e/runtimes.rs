//! An image goes from a registry to three hosts, by every runtime that people pull with.

use std::{collections::HashSet, fs, path::Path};

use pantala_e2e::{
    Containerd, Dfdaemon, Dockerd, Image, MIB, Need, Podman, Process, Registry, Supernode, needs,
    pull_image, skopeo,
};

const REGISTRY: Need = Need::Program("docker-registry");
const SKOPEO: Need = Need::Program("skopeo");
const NAME: &str = "team/app:v1";
/// How clients name it that name the registry.
const REFERENCE: &str = "registry.example/team/app:v1";

/// Three hosts in front of a registry that has an image.
struct Hosts {
    daemons: Vec<Dfdaemon>,
    written: Vec<u64>,
    image: Image,
    registry: Registry,
    _supernode: Supernode,
}

impl Hosts {
    /// `flags` makes a dfdaemon's flags of the registry's URL.
    fn start(seed: u64, flags: impl Fn(&str) -> [String; 2]) -> Self {
        let image = Image::new(seed, &[6 * MIB, 3 * MIB + 1, 20_000]);
        let registry = Registry::start();
        registry.push(&image, NAME);
        let supernode = Supernode::start();
        let flags = flags(&registry.url());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let daemons: Vec<Dfdaemon> = (0..3)
            .map(|_| Dfdaemon::start(&supernode, &flags))
            .collect();
        let written = daemons.iter().map(|one| one.process().disk().written);
        Self {
            written: written.collect(),
            daemons,
            image,
            registry,
            _supernode: supernode,
        }
    }

    /// With one mirror for everything.
    fn with_mirror(seed: u64) -> Self {
        Self::start(seed, |url| ["--mirror".to_owned(), url.to_owned()])
    }

    /// The image left the registry once, and no dfdaemon wrote it down.
    #[track_caller]
    fn assert_once(&self) {
        self.registry.assert_read_once(&self.image, 3);
        for (daemon, before) in self.daemons.iter().zip(&self.written) {
            let written = daemon.process().disk().written - before;
            assert!(written < MIB as u64, "{written} bytes written to disk");
        }
    }
}

/// Waits for pulls, of which none may fail.
#[track_caller]
fn all_succeed(pulls: Vec<Process>) {
    for (host, pull) in pulls.into_iter().enumerate() {
        let done = pull.wait();
        let said = String::from_utf8_lossy(&done.stdout);
        assert_eq!(done.code, 0, "host {host}: {}{said}", done.stderr);
    }
}

#[test]
fn containerd_pulls_from_a_mirror() {
    needs!(REGISTRY, SKOPEO, Need::Root, Need::Mounts);
    needs!(Need::Program("containerd"), Need::Program("ctr"));
    let hosts = Hosts::with_mirror(200);
    let runtimes: Vec<Containerd> = hosts.daemons.iter().map(containerd).collect();
    let pulls = runtimes
        .iter()
        .map(|runtime| runtime.start_pull(REFERENCE, &[]));
    all_succeed(pulls.collect());
    for runtime in &runtimes {
        runtime.assert_pulled(&hosts.image);
    }
    hosts.assert_once();
}

/// One that takes the dfdaemon for its mirror.
fn containerd(daemon: &Dfdaemon) -> Containerd {
    let containerd = Containerd::start();
    containerd.set_mirror("registry.example", daemon.addr());
    containerd
}

#[test]
fn a_kubelet_pulls_by_the_runtime_interface() {
    needs!(REGISTRY, SKOPEO, Need::Root, Need::Mounts);
    needs!(Need::Program("containerd"), Need::Program("ctr"));
    let hosts = Hosts::start(210, |url| {
        ["--upstream".to_owned(), format!("registry.example={url}")]
    });
    let runtimes: Vec<Containerd> = hosts.daemons.iter().map(containerd).collect();
    let sockets: Vec<_> = runtimes.iter().map(Containerd::socket).collect();
    let pulled = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            tokio::join!(
                pull_image(&sockets[0], REFERENCE, None),
                pull_image(&sockets[1], REFERENCE, None),
                pull_image(&sockets[2], REFERENCE, None),
            )
        });
    for pulled in [pulled.0, pulled.1, pulled.2] {
        assert_eq!(pulled, Ok(hosts.image.id()));
    }
    for runtime in &runtimes {
        runtime.assert_pulled(&hosts.image);
    }
    hosts.assert_once();
}

#[test]
fn dockerd_pulls_from_a_mirror() {
    needs!(REGISTRY, SKOPEO, Need::Root, Need::Mounts);
    needs!(Need::Program("containerd"), Need::Program("ctr"));
    needs!(Need::Program("dockerd"), Need::Program("docker"));
    let hosts = Hosts::with_mirror(220);
    let runtimes: Vec<Dockerd> = hosts
        .daemons
        .iter()
        .map(|daemon| Dockerd::start(daemon.addr()))
        .collect();
    let pulls = runtimes
        .iter()
        .map(|runtime| runtime.docker(&["pull", NAME]));
    all_succeed(pulls.collect());
    for runtime in &runtimes {
        runtime.assert_pulled(&hosts.image, NAME);
    }
    hosts.assert_once();
}

/// `registries.conf` with a mirror at `location`.
fn registries(location: &str) -> String {
    format!(
        "[[registry]]\nlocation = \"registry.example\"\n\
         [[registry.mirror]]\nlocation = \"{location}\"\ninsecure = true\n"
    )
}

fn podmans_pull(hosts: &Hosts, location: impl Fn(&Dfdaemon) -> String) {
    let runtimes: Vec<Podman> = hosts
        .daemons
        .iter()
        .map(|daemon| Podman::new(&registries(&location(daemon))))
        .collect();
    let pulls = runtimes
        .iter()
        .map(|runtime| runtime.start_pull(REFERENCE, &[]));
    all_succeed(pulls.collect());
    for runtime in &runtimes {
        runtime.assert_pulled(&hosts.image, REFERENCE);
    }
    hosts.assert_once();
}

#[test]
fn podman_pulls_from_a_mirror() {
    needs!(REGISTRY, SKOPEO, Need::Root, Need::Mounts);
    needs!(Need::Program("podman"));
    let hosts = Hosts::with_mirror(230);
    podmans_pull(&hosts, |daemon| daemon.addr().to_string());
}

#[test]
fn podman_names_the_registry_in_the_path() {
    needs!(REGISTRY, SKOPEO, Need::Root, Need::Mounts);
    needs!(Need::Program("podman"));
    let hosts = Hosts::start(240, |url| {
        ["--upstream".to_owned(), format!("registry.example={url}")]
    });
    podmans_pull(&hosts, |daemon| {
        format!("{}/registry.example", daemon.addr())
    });
    // The registry knows nothing of the name that stood in front.
    let names: HashSet<String> = hosts
        .registry
        .requests()
        .into_iter()
        .filter_map(|request| Some(request.target.strip_prefix("/v2/")?.to_owned()))
        .filter(|name| !name.is_empty() && !name.starts_with("team/app/"))
        .collect();
    assert_eq!(names, HashSet::new());
}

#[test]
fn skopeo_copies_from_a_mirror_in_registries_conf() {
    needs!(REGISTRY, SKOPEO);
    let hosts = Hosts::with_mirror(250);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str, host: usize| directory.path().join(format!("{name}{host}"));
    let copy = |(host, daemon): (usize, &Dfdaemon)| {
        let file = at("registries", host);
        fs::write(&file, registries(&daemon.addr().to_string())).unwrap();
        let mut command = skopeo();
        command
            .arg("--registries-conf")
            .arg(file)
            .args(["copy", &format!("docker://{REFERENCE}")])
            .arg(format!("dir:{}", at("image", host).display()));
        Process::start("skopeo", command)
    };
    all_succeed(hosts.daemons.iter().enumerate().map(copy).collect());
    for host in 0..3 {
        let image = at("image", host);
        hosts.image.assert_pulled(&image);
        let manifest: &Path = &image.join("manifest.json");
        hosts.image.manifest().assert_file(manifest);
    }
    hosts.assert_once();
}
