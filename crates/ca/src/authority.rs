//! The authority: its key, and the leaves it has issued.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use hashlink::LruCache;
use pantala_core::Result;
use parking_lot::Mutex;
use rcgen::{Issuer, KeyPair, PublicKeyData as _};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey, SingleCertAndKey},
};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    CERTIFICATE, KEY, files,
    leaf::{self, Host, Validity, internal},
};

/// How many hosts' leaves are kept; the least recently asked for leaves first.
pub const HOSTS: usize = 1024;

/// A certificate authority: see the crate's documentation. It is shared by reference between
/// tasks, and nothing it does waits for anything but the processor.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// When the authority itself ends.
    end: OffsetDateTime,
    fingerprint: String,
    /// What goes after the leaf, so that clients who trust the root alone find their way.
    intermediates: Vec<CertificateDer<'static>>,
    /// One key for all leaves, which never leaves this process: a key per host protects nobody,
    /// for who reads one here reads them all.
    leaf_key: KeyPair,
    signer: Arc<dyn SigningKey>,
    provider: Arc<CryptoProvider>,
    /// Shared, so that a thousand hosts do not keep a thousand tables of sessions.
    tickets: Arc<dyn ProducesTickets>,
    issued: Mutex<LruCache<Host, Leaf>>,
}

#[derive(Clone)]
struct Leaf {
    validity: Validity,
    config: Arc<ServerConfig>,
}

impl fmt::Debug for Authority {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("dir", &self.dir)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new one in `dir`, which is created when it is not there: an ECDSA P-256 key that
    /// only its owner can read, and a certificate in the name of `name` for ten years, that may
    /// certify hosts and no further authorities.
    ///
    /// # Errors
    /// When either file is there already (nothing is ever written over), when they cannot be
    /// written, and for a `name` that is empty or longer than 64 bytes.
    pub fn init(dir: impl AsRef<Path>, name: &str) -> Result<Self> {
        let dir = dir.as_ref();
        let params = leaf::authority(name, OffsetDateTime::now_utc(), &provider())?;
        let key = KeyPair::generate().map_err(internal)?;
        let certificate = params.self_signed(&key).map_err(internal)?;
        files::create(dir, &certificate.pem(), &key.serialize_pem())?;
        Self::load(dir)
    }

    /// Reads the one in `dir`: of our making, or a pair of the user's own, an ECDSA, RSA or
    /// Ed25519 key that is not encrypted. Where the certificate's file holds several, the first
    /// is the authority's and the others lead from it to the root.
    ///
    /// A key that others than its owner can read is used, with a warning in the log.
    ///
    /// # Errors
    /// One that names the file, when it is missing, is not what it should be, has ended, or when
    /// the two do not belong together.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        Self::load_at(dir.as_ref(), OffsetDateTime::now_utc())
    }

    fn load_at(dir: &Path, now: OffsetDateTime) -> Result<Self> {
        let (certificate_path, key_path) = (dir.join(CERTIFICATE), dir.join(KEY));
        let chain = certificates(&certificate_path)?;
        let key = read_key(&key_path)?;
        if let Some(warning) = files::too_open(&key_path) {
            tracing::warn!("{warning}");
        }
        let (first, rest) = chain.split_first().ok_or_else(|| internal("no chain"))?;
        let end = check(first, &certificate_path, &key, &key_path, now)?;
        let fingerprint = fingerprint(first);
        let issuer = Issuer::from_ca_cert_der(first, key).map_err(|error| {
            let what = format!("a certificate that cannot issue others, {error}");
            files::unusable(&certificate_path, &what, MAKE_ONE)
        })?;
        let mut intermediates = Vec::new();
        for certificate in std::iter::once(first).chain(rest) {
            // Clients have the root themselves, or they would not trust it.
            if !is_root(certificate) {
                intermediates.push(certificate.clone());
            }
        }
        let provider = provider();
        let leaf_key = KeyPair::generate().map_err(internal)?;
        let signer = provider
            .key_provider
            .load_private_key(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into())
            .map_err(internal)?;
        Ok(Self {
            dir: dir.to_owned(),
            issuer,
            end,
            fingerprint,
            intermediates,
            leaf_key,
            signer,
            tickets: aws_lc_rs::Ticketer::new().map_err(internal)?,
            provider,
            issued: Mutex::new(LruCache::new(HOSTS)),
        })
    }

    /// What a TLS server needs to answer as `host`, a DNS name or an IP address (without its
    /// port): a leaf for this name alone, TLS 1.2 and 1.3, `http/1.1` by ALPN.
    ///
    /// The same configuration serves until its leaf nears its end, so it may be asked for with
    /// every connection; the last [`HOSTS`] are kept.
    ///
    /// # Errors
    /// The reader's, when `host` is no name that can be certified.
    pub fn server_config(&self, host: &str) -> Result<Arc<ServerConfig>> {
        self.server_config_at(host, OffsetDateTime::now_utc())
    }

    fn server_config_at(&self, host: &str, now: OffsetDateTime) -> Result<Arc<ServerConfig>> {
        let host = Host::parse(host)?;
        if let Some(leaf) = self.issued.lock().get(&host)
            && leaf.validity.good(now, self.end)
        {
            return Ok(leaf.config.clone());
        }
        // Not under the lock: an RSA authority takes milliseconds to sign. Two who ask at once
        // both get a good leaf, and one of the two is kept.
        let leaf = self.issue(&host, now)?;
        let config = leaf.config.clone();
        self.issued.lock().insert(host, leaf);
        Ok(config)
    }

    fn issue(&self, host: &Host, now: OffsetDateTime) -> Result<Leaf> {
        let validity = Validity::of_leaf(now, self.end);
        let certificate = leaf::leaf(host, validity, &self.provider)?
            .signed_by(&self.leaf_key, &self.issuer)
            .map_err(internal)?;
        let mut chain = vec![certificate.into()];
        chain.extend(self.intermediates.iter().cloned());
        let certified = CertifiedKey::new(chain, self.signer.clone());
        let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(certified));
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(internal)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = self.tickets.clone();
        Ok(Leaf {
            validity,
            config: Arc::new(config),
        })
    }

    /// The certificate's SHA-256 fingerprint as other programs show it: `AB:CD:…`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The file with the certificate, for clients to trust.
    pub fn certificate_path(&self) -> PathBuf {
        self.dir.join(CERTIFICATE)
    }

    /// The file with the key.
    pub fn key_path(&self) -> PathBuf {
        self.dir.join(KEY)
    }
}

const MAKE_ONE: &str = "make a certificate authority with dfdaemon ca init";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = files::read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| files::unusable(path, &format!("not PEM, {error}"), MAKE_ONE))?;
    match chain.is_empty() {
        true => Err(files::unusable(path, "no certificate in PEM", MAKE_ONE)),
        false => Ok(chain),
    }
}

fn read_key(path: &Path) -> Result<KeyPair> {
    let bytes = files::read(path)?;
    let der = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let encrypted = String::from_utf8_lossy(&bytes).contains("BEGIN ENCRYPTED PRIVATE KEY");
        match encrypted {
            true => files::unusable(
                path,
                "the key is encrypted",
                "store it without a passphrase, with mode 600",
            ),
            false => files::unusable(path, "no private key in PEM", MAKE_ONE),
        }
    })?;
    KeyPair::try_from(&der).map_err(|error| {
        files::unusable(
            path,
            &format!("not a key that can sign, {error}"),
            "use ECDSA P-256 or P-384, RSA or Ed25519",
        )
    })
}

/// Whether these two can certify hosts; when the certificate ends.
fn check(
    certificate: &CertificateDer<'_>,
    path: &Path,
    key: &KeyPair,
    key_path: &Path,
    now: OffsetDateTime,
) -> Result<OffsetDateTime> {
    let bad = |what: &str| files::unusable(path, what, MAKE_ONE);
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| bad("not a certificate that can be read"))?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
        return Err(files::unusable(
            key_path,
            &format!("not the key of {}", path.display()),
            "put the two files there that belong together",
        ));
    }
    if !parsed.is_ca() {
        return Err(bad("not a certificate authority's: it may certify nobody"));
    }
    let usage = parsed.key_usage().ok().flatten();
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(bad("its key usage does not let it certify others"));
    }
    let end = parsed.validity().not_after.to_datetime();
    if end <= now {
        return Err(bad(&format!("it has ended, on {}", end.date())));
    }
    Ok(end)
}

/// Whether it certifies itself.
fn is_root(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, parsed)| parsed.subject().as_raw() == parsed.issuer().as_raw())
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let pairs: Vec<String> = Sha256::digest(certificate)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests;
