//! What clients and users see: handshakes, and files that cannot be used.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use pantala_ca::{Authority, CERTIFICATE, KEY};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

/// A client that trusts `ca` alone.
fn client(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Lets `client` ask for `name` where the authority answers as `host`; both ends in memory.
fn shake(
    client: &Arc<ClientConfig>,
    name: &str,
    authority: &Authority,
    host: &str,
) -> Result<HandshakeKind, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(authority.server_config(host).unwrap()).unwrap();
    client.writer().write_all(b"hello").unwrap();
    server.writer().write_all(b"there").unwrap();
    while client.wants_write() || server.wants_write() || client.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        if !wire.is_empty() {
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut got = [0; 5];
    server.reader().read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    client.reader().read_exact(&mut got).unwrap();
    assert_eq!(&got, b"there");
    Ok(client.handshake_kind().unwrap())
}

#[test]
fn a_client_that_trusts_it_accepts_names_and_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::init(dir.path().join("a/b"), "Test CA").unwrap();
    let client = client(&authority.certificate_path());
    for host in [
        "hub.example",
        "a-b.c.hub.example",
        "192.0.2.7",
        "2001:db8::7",
    ] {
        assert_eq!(
            shake(&client, host, &authority, host),
            Ok(HandshakeKind::Full)
        );
        assert_eq!(
            shake(&client, host, &authority, host),
            Ok(HandshakeKind::Resumed)
        );
    }
    let label = "x".repeat(60);
    let long = format!("{label}.{label}.{label}.example");
    shake(&client, &long, &authority, &long).unwrap();
}

#[test]
fn a_leaf_is_good_for_its_host_alone() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::init(dir.path(), "Test CA").unwrap();
    let client = client(&authority.certificate_path());
    for (asked, answers) in [
        ("hub.example", "registry.example"),
        ("a.hub.example", "hub.example"),
        ("192.0.2.7", "192.0.2.8"),
    ] {
        let error = shake(&client, asked, &authority, answers).unwrap_err();
        assert!(
            matches!(error, rustls::Error::InvalidCertificate(_)),
            "{error}"
        );
    }
}

#[test]
fn a_stranger_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Authority::init(dir.path().join("ours"), "Test CA").unwrap();
    let theirs = Authority::init(dir.path().join("theirs"), "Test CA").unwrap();
    assert_ne!(ours.fingerprint(), theirs.fingerprint());
    let client = client(&theirs.certificate_path());
    assert!(shake(&client, "hub.example", &ours, "hub.example").is_err());
}

#[test]
fn what_is_made_is_as_promised_and_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::init(dir.path(), "Example CA").unwrap();
    let mode = |name| dir.path().join(name).metadata().unwrap().mode() & 0o777;
    assert_eq!(mode(KEY), 0o600);
    assert_eq!(mode(CERTIFICATE) & 0o600, 0o600);
    assert!(authority.fingerprint().len() == 95 && authority.fingerprint().contains(':'));

    let pem = fs::read(authority.certificate_path()).unwrap();
    let der = CertificateDer::from_pem_slice(&pem).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    let constraints = parsed.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = parsed.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    assert_eq!(parsed.subject().to_string(), "CN=Example CA");
    let validity = parsed.validity();
    let days = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400;
    assert_eq!(days, 3651);

    for gone in [None, Some(CERTIFICATE), Some(KEY)] {
        let kept = gone.map(|name| (name, fs::read(dir.path().join(name)).unwrap()));
        if let Some(name) = gone {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        let error = Authority::init(dir.path(), "Example CA").unwrap_err();
        assert!(error.what().ends_with("already there"), "{error}");
        if let Some((name, bytes)) = kept {
            assert!(!dir.path().join(name).exists());
            fs::write(dir.path().join(name), bytes).unwrap();
        }
    }
    assert_eq!(fs::read(authority.certificate_path()).unwrap(), pem);
    assert!(Authority::init(dir.path().join("x"), "").is_err());
}

fn own(dir: &Path, key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "Company Root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    let certificate = params.self_signed(key).unwrap();
    fs::write(dir.join(CERTIFICATE), certificate.pem()).unwrap();
    fs::write(dir.join(KEY), key.serialize_pem()).unwrap();
}

#[test]
fn a_pair_of_the_users_own_serves() {
    for algorithm in [
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        let dir = tempfile::tempdir().unwrap();
        own(
            dir.path(),
            &KeyPair::generate_for(algorithm).unwrap(),
            |_| {},
        );
        let authority = Authority::load(dir.path()).unwrap();
        let client = client(&authority.certificate_path());
        shake(&client, "hub.example", &authority, "hub.example").unwrap();
    }
}

#[test]
fn keys_as_other_programs_write_them_serve() {
    // As openssl ecparam and openssl genrsa -traditional write them.
    let parameters =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let dir = tempfile::tempdir().unwrap();
    let ec = KeyPair::generate().unwrap();
    own(dir.path(), &ec, |_| {});
    fs::write(
        dir.path().join(KEY),
        parameters.to_owned() + &ec.serialize_pem(),
    )
    .unwrap();
    Authority::load(dir.path()).unwrap();
}

#[test]
fn an_intermediate_goes_with_the_leaf() {
    let dir = tempfile::tempdir().unwrap();
    let root = Authority::init(dir.path().join("root"), "Root").unwrap();
    // Ours may have nothing below it, so this root is made by hand.
    let root_key = KeyPair::generate().unwrap();
    own(&dir.path().join("root"), &root_key, |_| {});
    let issuer = rcgen::Issuer::from_ca_cert_pem(
        &fs::read_to_string(root.certificate_path()).unwrap(),
        root_key,
    )
    .unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Below");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let below = params.signed_by(&key, &issuer).unwrap();
    let root_pem = fs::read_to_string(root.certificate_path()).unwrap();
    fs::create_dir(dir.path().join("below")).unwrap();
    fs::write(
        dir.path().join("below").join(CERTIFICATE),
        below.pem() + &root_pem,
    )
    .unwrap();
    fs::write(dir.path().join("below").join(KEY), key.serialize_pem()).unwrap();

    let authority = Authority::load(dir.path().join("below")).unwrap();
    let client = client(&root.certificate_path());
    shake(&client, "hub.example", &authority, "hub.example").unwrap();
}

#[test]
fn what_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, key) = (dir.path().join(CERTIFICATE), dir.path().join(KEY));
    let fails = |file: &str, words: &str| {
        let error = Authority::load(dir.path()).unwrap_err();
        assert_eq!(error.kind(), pantala_core::Kind::BadInput);
        assert!(error.what().contains(file), "{error}");
        assert!(error.what().contains(words), "{error}");
        assert!(error.advice().is_some());
    };
    fails(CERTIFICATE, "it is not there");
    Authority::init(dir.path(), "Test CA").unwrap();
    let good = (fs::read(&ca).unwrap(), fs::read(&key).unwrap());

    fs::remove_file(&key).unwrap();
    fails(KEY, "it is not there");
    fs::write(&key, "nonsense").unwrap();
    fails(KEY, "no private key");
    fs::write(
        &key,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    fails(KEY, "not a key");
    fs::write(
        &key,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    fails(KEY, "encrypted");
    fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    fails(KEY, "not the key of");
    fs::write(&key, &good.1).unwrap();

    fs::write(&ca, "nonsense").unwrap();
    fails(CERTIFICATE, "no certificate");
    fs::write(
        &ca,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    fails(CERTIFICATE, "not a certificate");
    fs::write(&ca, "-----BEGIN CERTIFICATE-----\n!!\n").unwrap();
    fails(CERTIFICATE, "not PEM");
    fs::write(&ca, vec![b'x'; 2 << 20]).unwrap();
    fails(CERTIFICATE, "longer than");

    let pair = KeyPair::generate().unwrap();
    own(dir.path(), &pair, |params| params.is_ca = IsCa::NoCa);
    fails(CERTIFICATE, "not a certificate authority's");
    own(dir.path(), &pair, |params| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    fails(CERTIFICATE, "key usage");
    own(dir.path(), &pair, |params| {
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    fails(CERTIFICATE, "it has ended");
}
