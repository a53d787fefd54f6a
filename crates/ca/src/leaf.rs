//! What is certified: the names of hosts, and for how long.

use std::net::IpAddr;

use pantala_core::{Error, Kind, Result, Who};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::{crypto::CryptoProvider, pki_types::ServerName};
use time::{Duration, OffsetDateTime};

/// How long a leaf lives. Clients refuse leaves of years; a month survives any outage of ours.
const LEAF_LIFE: Duration = Duration::days(30);

/// A leaf this close to its end is replaced: connections made today may be long.
const RENEW_BEFORE: Duration = Duration::days(10);

/// How long an authority lives. Clients have to be told to trust the next one by hand.
const AUTHORITY_LIFE: Duration = Duration::days(3650);

/// Begins before it is issued, for clients whose clock is behind.
const BACKDATED: Duration = Duration::days(1);

/// The longest common name (RFC 5280, ub-common-name).
const LONGEST_NAME: usize = 64;

/// The longest DNS name there is; longer ones are nobody's.
const LONGEST_HOST: usize = 253;

/// A host that can be certified, in the one form under which it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Name(String),
    Address(IpAddr),
}

impl Host {
    /// From what a client wrote: a DNS name in any case, with or without the root's dot; an
    /// address, an IPv6 one with or without brackets.
    pub(crate) fn parse(host: &str) -> Result<Self> {
        let bad = || {
            let shown: String = host.chars().take(80).filter(|c| !c.is_control()).collect();
            let what = format!("{shown}: not a host name that can be certified");
            Error::new(Who::Reader, Kind::BadInput, what)
                .hint("ask for a DNS name or an IP address")
        };
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(bad)?,
            None => host.strip_suffix('.').unwrap_or(host),
        };
        match ServerName::try_from(bare) {
            Ok(ServerName::DnsName(_)) if host.starts_with('[') || bare.len() > LONGEST_HOST => {
                Err(bad())
            }
            Ok(ServerName::DnsName(name)) => Ok(Self::Name(name.as_ref().to_ascii_lowercase())),
            Ok(ServerName::IpAddress(address)) => Ok(Self::Address(IpAddr::from(address))),
            _ => Err(bad()),
        }
    }
}

/// A span of time in which a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: OffsetDateTime,
    pub(crate) until: OffsetDateTime,
}

impl Validity {
    /// Of a leaf that is issued at `now` by an authority that ends at `end`: no client takes a
    /// leaf that outlives its issuer.
    pub(crate) fn of_leaf(now: OffsetDateTime, end: OffsetDateTime) -> Self {
        Self {
            from: now - BACKDATED,
            until: (now + LEAF_LIFE).min(end),
        }
    }

    /// Whether a leaf may be handed out at `now`: it has begun, for the clock may have been set
    /// back, and does not end soon, unless its issuer ends with it.
    pub(crate) fn good(&self, now: OffsetDateTime, end: OffsetDateTime) -> bool {
        let last = match self.until == end {
            true => end,
            false => self.until - RENEW_BEFORE,
        };
        self.from <= now && now < last
    }
}

/// What a leaf for `host` says.
pub(crate) fn leaf(
    host: &Host,
    validity: Validity,
    provider: &CryptoProvider,
) -> Result<CertificateParams> {
    let (name, alternative) = match host {
        Host::Name(name) => {
            let name = name.clone();
            let ascii = name.as_str().try_into().map_err(internal)?;
            (name, SanType::DnsName(ascii))
        }
        Host::Address(address) => (address.to_string(), SanType::IpAddress(*address)),
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(match name.len() {
        0..=LONGEST_NAME => &name,
        // What counts is the alternative name, which has no such bound.
        _ => "pantala",
    });
    params.subject_alt_names = vec![alternative];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = validity.from;
    params.not_after = validity.until;
    params.serial_number = Some(serial(provider)?);
    Ok(params)
}

/// What a new authority says of itself.
pub(crate) fn authority(
    name: &str,
    now: OffsetDateTime,
    provider: &CryptoProvider,
) -> Result<CertificateParams> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        let what = format!("--name {name:?}: not a name for a certificate");
        return Err(Error::new(Who::User, Kind::BadInput, what).hint("give 1 to 64 bytes of text"));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    // No other authority below it: a leaf's key is no use for making more.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - BACKDATED;
    params.not_after = now + AUTHORITY_LIFE;
    params.serial_number = Some(serial(provider)?);
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// A serial number nobody else has. Made from the key, as is usual, all leaves would share one,
/// and some clients refuse two certificates of one issuer with the same.
fn serial(provider: &CryptoProvider) -> Result<SerialNumber> {
    let mut bytes = [0; 16];
    provider
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| internal("no randomness"))?;
    // Positive, and of full length.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Something that only a defect can cause.
pub(crate) fn internal(error: impl std::fmt::Display) -> Error {
    Error::new(
        Who::Us,
        Kind::Internal,
        format!("no certificate can be made: {error}"),
    )
}
