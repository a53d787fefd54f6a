use std::{fmt, str::FromStr};

use sha2::Digest as _;
use thiserror::Error;

use crate::id::decode_hex;

/// BLAKE3 of one piece's bytes. What a peer sends is checked against it before a reader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PieceDigest([u8; 32]);

impl PieceDigest {
    /// The digest of a whole piece.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest with exactly these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes as they travel on the wire.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PieceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .take(4)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digest a content is named by: an OCI blob's, or the one a user gave with `--digest`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentDigest {
    /// SHA-256, `sha256:…`.
    Sha256([u8; 32]),
    /// SHA-512, `sha512:…`.
    Sha512([u8; 64]),
    /// BLAKE3, `blake3:…`.
    Blake3([u8; 32]),
}

/// Why a content digest could not be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a digest: write sha256:, sha512: or blake3: and its hexadecimal digits")]
pub struct DigestParseError(String);

impl ContentDigest {
    /// A hasher that computes this kind of digest.
    pub fn hasher(&self) -> ContentHasher {
        match self {
            ContentDigest::Sha256(_) => ContentHasher::Sha256(sha2::Sha256::new()),
            ContentDigest::Sha512(_) => ContentHasher::Sha512(sha2::Sha512::new()),
            ContentDigest::Blake3(_) => ContentHasher::Blake3(Box::new(blake3::Hasher::new())),
        }
    }
}

impl FromStr for ContentDigest {
    type Err = DigestParseError;
    fn from_str(text: &str) -> Result<Self, DigestParseError> {
        let parsed = match text.split_once(':') {
            Some(("sha256", hex)) => decode_hex(hex).map(Self::Sha256),
            Some(("sha512", hex)) => decode_hex(hex).map(Self::Sha512),
            Some(("blake3", hex)) => decode_hex(hex).map(Self::Blake3),
            _ => None,
        };
        parsed.ok_or_else(|| DigestParseError(text.to_owned()))
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bytes): (&str, &[u8]) = match self {
            ContentDigest::Sha256(bytes) => ("sha256", bytes),
            ContentDigest::Sha512(bytes) => ("sha512", bytes),
            ContentDigest::Blake3(bytes) => ("blake3", bytes),
        };
        write!(f, "{name}:")?;
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Computes a [`ContentDigest`] over bytes as they pass by.
#[derive(Clone)]
pub enum ContentHasher {
    /// SHA-256.
    Sha256(sha2::Sha256),
    /// SHA-512.
    Sha512(sha2::Sha512),
    /// BLAKE3; boxed because its state is 2 KiB.
    Blake3(Box<blake3::Hasher>),
}

impl ContentHasher {
    /// Takes the next bytes, in order.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            ContentHasher::Sha256(hasher) => hasher.update(bytes),
            ContentHasher::Sha512(hasher) => hasher.update(bytes),
            ContentHasher::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    /// The digest of everything taken.
    pub fn finish(self) -> ContentDigest {
        match self {
            ContentHasher::Sha256(hasher) => ContentDigest::Sha256(hasher.finalize().into()),
            ContentHasher::Sha512(hasher) => ContentDigest::Sha512(hasher.finalize().into()),
            ContentHasher::Blake3(hasher) => ContentDigest::Blake3(*hasher.finalize().as_bytes()),
        }
    }
}

impl fmt::Debug for ContentHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentHasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_survive_their_text() {
        let digest: ContentDigest = EMPTY.parse().unwrap();
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(digest.hasher().finish(), digest);
    }

    #[test]
    fn every_kind_hashes_in_parts_as_in_one() {
        for name in ["sha256", "sha512", "blake3"] {
            let zeros = "0".repeat(if name == "sha512" { 128 } else { 64 });
            let kind: ContentDigest = format!("{name}:{zeros}").parse().unwrap();
            let (mut parts, mut whole) = (kind.hasher(), kind.hasher());
            parts.update(b"streaming ");
            parts.update(b"peers");
            whole.update(b"streaming peers");
            assert_eq!(parts.finish(), whole.finish());
        }
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        for bad in ["", "sha256:", "sha256:12", "md5:00", &EMPTY[..70], "sha256"] {
            assert!(bad.parse::<ContentDigest>().is_err(), "{bad}");
        }
    }
}
