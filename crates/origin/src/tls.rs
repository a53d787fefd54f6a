//! Whom TLS trusts, and who it says we are. Certificates are verified always.

use std::{path::Path, sync::Arc};

use http::Uri;
use pantala_core::{Error, Kind, Result, Who};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::sync::OnceCell;

use crate::OriginConfig;

/// The configurations of TLS, each built when it is first needed: reading the system's
/// certificate authorities takes milliseconds.
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    system: OnceCell<RootCertStore>,
    everywhere: Identity,
}

/// How one host, or all without a word of their own, are spoken to.
struct Identity {
    /// Trusted besides the system's.
    authorities: Vec<CertificateDer<'static>>,
    built: OnceCell<Arc<ClientConfig>>,
}

impl Tls {
    /// # Errors
    /// `BadInput` when a file cannot be used.
    pub(crate) fn new(config: &OriginConfig) -> Result<Self> {
        let mut authorities = Vec::new();
        for path in &config.ca {
            authorities.extend(read_authorities(path)?);
        }
        Ok(Self {
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            system: OnceCell::new(),
            everywhere: Identity {
                authorities,
                built: OnceCell::new(),
            },
        })
    }

    /// How the host of `uri` is spoken to.
    ///
    /// # Errors
    /// `Tls` when there is no authority to trust.
    pub(crate) async fn config_for(&self, _uri: &Uri) -> Result<Arc<ClientConfig>> {
        let identity = &self.everywhere;
        let config = identity
            .built
            .get_or_try_init(|| self.build(identity))
            .await?;
        Ok(config.clone())
    }

    async fn build(&self, identity: &Identity) -> Result<Arc<ClientConfig>> {
        let mut roots = self.system().await?.clone();
        for authority in &identity.authorities {
            roots
                .add(authority.clone())
                .map_err(|error| unprepared(&error))?;
        }
        if roots.is_empty() {
            return Err(unprepared(&"this system trusts no certificate authority")
                .hint("install the system's certificate authorities, or name one with --ca"));
        }
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unprepared(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// What this system trusts; maybe nothing.
    async fn system(&self) -> Result<&RootCertStore> {
        self.system
            .get_or_try_init(|| async {
                tokio::task::spawn_blocking(system_roots)
                    .await
                    .map_err(|error| Error::new(Who::Us, Kind::Internal, error.to_string()))
            })
            .await
    }
}

fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the system's certificate authorities cannot be read");
    }
    let mut roots = RootCertStore::empty();
    // Systems hold the odd one that is malformed: nothing is signed by it that we would trust.
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    if unusable > 0 {
        tracing::debug!(
            unusable,
            "some of the system's certificate authorities are malformed"
        );
    }
    roots
}

fn unprepared(why: &dyn std::fmt::Display) -> Error {
    Error::new(Who::Us, Kind::Tls, format!("cannot prepare TLS: {why}"))
}

fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bad = |why: String| {
        let what = format!(
            "cannot use {} as a certificate authority: {why}",
            path.display()
        );
        Error::new(Who::User, Kind::BadInput, what)
            .hint("--ca takes a file with certificates in PEM form")
    };
    let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let authorities = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if authorities.is_empty() {
        return Err(bad("it holds no certificate".to_owned()));
    }
    let mut store = RootCertStore::empty();
    for authority in &authorities {
        store
            .add(authority.clone())
            .map_err(|error| bad(error.to_string()))?;
    }
    Ok(authorities)
}
