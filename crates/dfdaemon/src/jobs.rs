//! What `dfdaemon` does besides serving, each one action that tells the user what it did.

use std::io::{Write, stdout};

use pantala_ca::Authority;
use pantala_config::{CaInitConfig, ContainerRuntime, SetupConfig};
use pantala_core::{Error, Kind, Result, Who};
use pantala_setup::{Job, Options, Runtime};

/// `dfdaemon setup`.
///
/// # Errors
/// What cannot be read, edited safely or written; see [`pantala_setup::run`].
pub fn setup(config: SetupConfig) -> Result<()> {
    let job = Job {
        runtime: match config.runtime {
            ContainerRuntime::Containerd => Runtime::Containerd,
            ContainerRuntime::Docker => Runtime::Docker,
            ContainerRuntime::Podman => Runtime::Podman,
            ContainerRuntime::Crio => Runtime::Crio,
        },
        options: Options {
            listen: config.listen,
            registries: config.registry,
            undo: config.undo,
        },
        root: config.root,
        dry_run: config.dry_run,
    };
    pantala_setup::run(&job, &mut stdout().lock())
}

/// `dfdaemon ca init`.
///
/// # Errors
/// When there is one already, or it cannot be written; see [`Authority::init`].
pub fn ca_init(config: &CaInitConfig) -> Result<()> {
    let authority = Authority::init(&config.dir, &config.name)?;
    let text = trust(&authority, &config.dir.display().to_string());
    stdout().lock().write_all(text.as_bytes()).map_err(|error| {
        let what = format!("standard output: it cannot be written, {error}");
        Error::new(Who::Reader, Kind::File, what)
    })
}

/// How to make clients trust it, which is the larger part of the work.
fn trust(authority: &Authority, dir: &str) -> String {
    let certificate = authority.certificate_path();
    let (pem, key) = (certificate.display(), authority.key_path());
    let (key, fingerprint) = (key.display(), authority.fingerprint());
    format!(
        "\
made {pem}, for clients to trust
made {key}, for dfdaemon alone: whoever has it can answer for any host
SHA-256 fingerprint: {fingerprint}

To make clients trust it:
  Debian, Ubuntu     cp {pem} /usr/local/share/ca-certificates/pantala.crt && update-ca-certificates
  Fedora, RHEL       cp {pem} /etc/pki/ca-trust/source/anchors/pantala.pem && update-ca-trust
  dockerd            cp {pem} /etc/docker/certs.d/NAME/ca.crt     for each registry NAME
  Node.js, npm       NODE_EXTRA_CA_CERTS={pem}
  curl, Go           SSL_CERT_FILE=FILE
  Python requests    REQUESTS_CA_BUNDLE=FILE
  pip                pip --cert FILE
The FILE of the last three replaces the system's own, so give one with both: with the command of the
first line done that is /etc/ssl/certs/ca-certificates.crt, with the second's
/etc/pki/tls/certs/ca-bundle.crt.

To use it, for the hosts you name:
  dfdaemon --intercept HOST --intercept-ca {dir}
"
    )
}
