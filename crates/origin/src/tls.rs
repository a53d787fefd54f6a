//! Whom TLS trusts, and who it says we are. Certificates are verified always.

use std::{fmt, path::Path, sync::Arc};

use http::Uri;
use pantala_core::{Error, Kind, Result, Who};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::sync::OnceCell;

use crate::{ClientCert, HostConfig, OriginConfig, hosts::Hosts};

/// Whether an origin may learn who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Identity {
    /// Our credentials and our certificate for that host may be shown to it.
    Ours,
    /// Nothing of ours is shown.
    #[default]
    Anonymous,
}

/// The configurations of TLS, each built when it is first needed: reading the system's
/// certificate authorities takes milliseconds.
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    system: OnceCell<RootCertStore>,
    /// For hosts without a word of their own.
    everywhere: Settings,
    hosts: Arc<Hosts>,
    /// In the order of `hosts`.
    of_hosts: Vec<Option<Settings>>,
}

/// Whom we trust and who we are.
struct Settings {
    authorities: Vec<CertificateDer<'static>>,
    /// Whether they are trusted besides the system's, not instead.
    system: bool,
    certificate: Option<Arc<CertifiedKey>>,
    ours: OnceCell<Arc<ClientConfig>>,
    anonymous: OnceCell<Arc<ClientConfig>>,
}

impl Tls {
    /// # Errors
    /// `BadInput` when a file cannot be used.
    pub(crate) fn new(config: &OriginConfig, hosts: Arc<Hosts>) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut authorities = Vec::new();
        for path in &config.ca {
            authorities.extend(read_authorities(path)?);
        }
        let mut of_hosts = Vec::new();
        for host in hosts.configs() {
            of_hosts.push(Settings::of(host, &authorities, &provider)?);
        }
        Ok(Self {
            provider,
            system: OnceCell::new(),
            everywhere: Settings {
                authorities,
                system: true,
                certificate: None,
                ours: OnceCell::new(),
                anonymous: OnceCell::new(),
            },
            hosts,
            of_hosts,
        })
    }

    /// How the host of `uri` is spoken to, with our certificate or without.
    ///
    /// # Errors
    /// `Tls` when there is no authority to trust.
    pub(crate) async fn config_for(
        &self,
        uri: &Uri,
        identity: Identity,
    ) -> Result<Arc<ClientConfig>> {
        let port = uri.port_u16().unwrap_or(443);
        let host = self.hosts.find(uri.host().unwrap_or_default(), port);
        let own = host.and_then(|(index, _)| self.of_hosts.get(index)?.as_ref());
        let settings = own.unwrap_or(&self.everywhere);
        let built = match identity {
            Identity::Ours => &settings.ours,
            Identity::Anonymous => &settings.anonymous,
        };
        let config = built
            .get_or_try_init(|| self.build(settings, identity))
            .await?;
        Ok(config.clone())
    }

    async fn build(&self, settings: &Settings, identity: Identity) -> Result<Arc<ClientConfig>> {
        let mut roots = if settings.system {
            self.system().await?.clone()
        } else {
            RootCertStore::empty()
        };
        for authority in &settings.authorities {
            roots
                .add(authority.clone())
                .map_err(|error| unprepared(&error))?;
        }
        if roots.is_empty() {
            return Err(unprepared(&"this system trusts no certificate authority")
                .hint("install the system's certificate authorities, or name one with --ca"));
        }
        let config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unprepared(&error))?
            .with_root_certificates(roots);
        let mut config = match (&settings.certificate, identity) {
            (Some(certificate), Identity::Ours) => {
                let shown = SingleCertAndKey::from(certificate.clone());
                config.with_client_cert_resolver(Arc::new(shown))
            }
            _ => config.with_no_client_auth(),
        };
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

impl Settings {
    /// How that host is spoken to, where it is unlike the others.
    fn of(
        host: &HostConfig,
        everywhere: &[CertificateDer<'static>],
        provider: &CryptoProvider,
    ) -> Result<Option<Self>> {
        if host.ca.is_empty() && host.client_cert.is_none() {
            return Ok(None);
        }
        let mut authorities = Vec::new();
        for path in &host.ca {
            authorities.extend(read_authorities(path)?);
        }
        if !host.ca_only {
            authorities.extend_from_slice(everywhere);
        }
        let shown = host.client_cert.as_ref();
        Ok(Some(Self {
            authorities,
            system: !host.ca_only,
            certificate: shown
                .map(|files| read_client_cert(files, provider))
                .transpose()?,
            ours: OnceCell::new(),
            anonymous: OnceCell::new(),
        }))
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

fn unprepared(why: &dyn fmt::Display) -> Error {
    Error::new(Who::Us, Kind::Tls, format!("cannot prepare TLS: {why}"))
}

fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bad = |why: String| {
        let what = format!(
            "cannot use {} as a certificate authority: {why}",
            path.display()
        );
        Error::new(Who::User, Kind::BadInput, what)
            .hint("name a file with certificates in PEM form")
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

fn read_client_cert(files: &ClientCert, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    let bad = |path: &Path, why: &dyn fmt::Display| {
        let what = format!(
            "cannot use {} as a client certificate: {why}",
            path.display()
        );
        Error::new(Who::User, Kind::BadInput, what)
            .hint("name a certificate and its private key in PEM form")
    };
    let read = |path: &Path| std::fs::read(path).map_err(|error| bad(path, &error));
    let chain = CertificateDer::pem_slice_iter(&read(&files.cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(&files.cert, &error))?;
    if chain.is_empty() {
        return Err(bad(&files.cert, &"it holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|error| bad(&files.key, &error))?;
    let shown = CertifiedKey::from_der(chain, key, provider);
    Ok(Arc::new(shown.map_err(|error| bad(&files.key, &error))?))
}
