use std::{fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// An authority of the test's own, and a certificate of it for 127.0.0.1.
pub struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// Makes both.
    ///
    /// # Panics
    /// When they cannot be made or written.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = "Authority of the tests";
        authority.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = authority.self_signed(&key).expect("an authority");
        let write = |name: &str, text: String| {
            fs::write(directory.path().join(name), text).expect("a file for a certificate");
        };
        write("ca.pem", certificate.pem());
        let issuer = Issuer::new(authority, key);

        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut leaf = CertificateParams::new(names).expect("names for a certificate");
        leaf.distinguished_name
            .push(DnType::CommonName, "origin of the tests");
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf.signed_by(&key, &issuer).expect("a certificate");
        write("cert.pem", certificate.pem());
        write("key.pem", key.serialize_pem());
        Self { directory }
    }

    /// The authority's certificate, to be trusted.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The server's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// The server's key.
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}
