use std::{
    collections::HashSet,
    fmt::{self, Write as _},
    fs::File,
    io,
    path::Path,
    sync::Arc,
};

use sha2::{Digest, Sha256};

/// Bytes that look random, the same for the same seed and length.
#[derive(Clone)]
pub struct Content {
    bytes: Arc<[u8]>,
    sha256: String,
}

/// Shown by length and digest: nobody wants to read megabytes.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, sha256:{}", self.len(), self.sha256)
    }
}

impl Content {
    /// `len` bytes made from `seed` (xorshift64*).
    pub fn new(seed: u64, len: usize) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let word = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.truncate(len);
        Self::of(bytes)
    }

    /// These bytes.
    pub fn of(bytes: Vec<u8>) -> Self {
        let sha256 = hex(&Sha256::digest(&bytes));
        Self {
            bytes: bytes.into(),
            sha256,
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// SHA-256 in hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Whether any 64 bytes of it that begin at a multiple of 64 are among these bytes.
    pub fn leaks_into(&self, bytes: &[u8]) -> bool {
        if bytes.len() < 64 {
            return false;
        }
        // Where a block may begin is told by three bytes: to look each window up would take seconds.
        let index = |bytes: &[u8]| {
            let [a, b, c] = [bytes[0], bytes[1], bytes[2]].map(usize::from);
            (a << 16) + (b << 8) + c
        };
        let blocks: HashSet<&[u8]> = self.bytes.chunks_exact(64).collect();
        let mut begins = vec![false; 1 << 24];
        for block in &blocks {
            begins[index(block)] = true;
        }
        let mut windows = bytes.windows(64);
        windows.any(|window| begins[index(window)] && blocks.contains(window))
    }

    /// Holds a file against the content.
    ///
    /// # Panics
    /// When it is not the same or cannot be read.
    #[track_caller]
    pub fn assert_file(&self, path: &Path) {
        let digest = sha256_of_file(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let len = std::fs::metadata(path).map_or(0, |meta| meta.len());
        let path = path.display();
        assert_eq!(len, self.len(), "{path} is not as long as what was served");
        assert_eq!(digest, self.sha256, "{path} is not what was served");
    }

    /// Holds bytes against the content without printing megabytes when they differ.
    ///
    /// # Panics
    /// When they differ.
    #[track_caller]
    pub fn assert_bytes(&self, bytes: &[u8]) {
        assert_eq!(bytes.len() as u64, self.len(), "another length than served");
        let differs = bytes.iter().zip(self.bytes()).position(|(a, b)| a != b);
        assert_eq!(differs, None, "the first byte that differs");
    }
}

/// SHA-256 of a file in hexadecimal digits.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_of_file(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
