//! An image goes from a registry to three hosts.

use pantala_e2e::{Dfdaemon, Image, MIB, Need, Process, Registry, Supernode, needs};

const NEEDS: [Need; 2] = [Need::Program("docker-registry"), Need::Program("skopeo")];
const NAME: &str = "test/big:v1";

/// A registry that has the image.
fn registry(image: &Image) -> Registry {
    let registry = Registry::start();
    registry.push(image, NAME);
    let before = registry.blobs_read();
    assert_eq!(before, [], "a push reads nothing");
    registry
}

/// Each blob left the registry once, whole.
fn assert_read_once(registry: &Registry, image: &Image) {
    let reads = registry.blobs_read();
    for blob in image.blobs() {
        let bytes: u64 = reads
            .iter()
            .filter(|read| read.sha256 == blob.sha256())
            .map(|read| read.bytes)
            .sum();
        assert_eq!(bytes, blob.len(), "{}: {reads:?}", blob.sha256());
    }
}

#[test]
fn three_hosts_pull_an_image_that_leaves_the_registry_once() {
    needs!(NEEDS[0], NEEDS[1]);
    let image = Image::new(100, &[12 * MIB, 8 * MIB + 1, 300_000]);
    let registry = registry(&image);
    let supernode = Supernode::start();
    let mirror = registry.url();
    let flags = ["--mirror", &mirror, "--memory", "128MiB"];
    let daemons: Vec<Dfdaemon> = (0..3)
        .map(|_| Dfdaemon::start(&supernode, &flags))
        .collect();
    let before: Vec<u64> = daemons
        .iter()
        .map(|daemon| daemon.process().disk().written)
        .collect();

    let directory = tempfile::tempdir().unwrap();
    let to = |number: usize| directory.path().join(number.to_string());
    let pulls: Vec<Process> = daemons
        .iter()
        .enumerate()
        .map(|(number, daemon)| Registry::start_pull(daemon.addr(), NAME, &to(number)))
        .collect();
    for (number, pull) in pulls.into_iter().enumerate() {
        let done = pull.wait();
        assert_eq!(done.code, 0, "host {number}: {}", done.stderr);
        image.assert_pulled(&to(number));
    }
    assert_read_once(&registry, &image);
    for (daemon, before) in daemons.iter().zip(before) {
        let written = daemon.process().disk().written - before;
        assert!(written < MIB as u64, "{written} bytes written to disk");
    }

    // Once more, from memory.
    let again = directory.path().join("again");
    let done = Registry::start_pull(daemons[1].addr(), NAME, &again).wait();
    assert_eq!(done.code, 0, "{}", done.stderr);
    image.assert_pulled(&again);
    assert_read_once(&registry, &image);
}

#[test]
fn a_host_that_comes_later_pulls_from_its_neighbours() {
    needs!(NEEDS[0], NEEDS[1]);
    let image = Image::new(110, &[6 * MIB, 2 * MIB]);
    let registry = registry(&image);
    let supernode = Supernode::start();
    let mirror = registry.url();
    let flags = ["--mirror", &mirror];
    let directory = tempfile::tempdir().unwrap();
    let mut daemons = Vec::new();
    for number in 0..3 {
        let daemon = Dfdaemon::start(&supernode, &flags);
        let to = directory.path().join(number.to_string());
        let done = Registry::start_pull(daemon.addr(), NAME, &to).wait();
        assert_eq!(done.code, 0, "host {number}: {}", done.stderr);
        image.assert_pulled(&to);
        daemons.push(daemon);
    }
    assert_read_once(&registry, &image);
    let from_peers = daemons[2].metric("pantala_peer_received_bytes_total");
    assert!(from_peers >= 8 * MIB as u64, "{from_peers}");
}

#[test]
fn what_the_registry_does_not_have_is_told() {
    needs!(NEEDS[0], NEEDS[1]);
    let registry = Registry::start();
    let mirror = registry.url();
    let daemon = Dfdaemon::start_alone(&["--mirror", &mirror]);
    let directory = tempfile::tempdir().unwrap();
    let done = Registry::start_pull(daemon.addr(), "test/none:v1", directory.path()).wait();
    assert_ne!(done.code, 0);
    assert!(done.stderr.contains("manifest unknown"), "{}", done.stderr);
}
