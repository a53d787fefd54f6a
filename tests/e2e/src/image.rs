use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::Content;

/// An OCI image as a directory that skopeo reads: layers of one file each.
pub struct Image {
    directory: TempDir,
    layers: Vec<Content>,
}

impl Image {
    /// An image whose layers hold so many bytes each.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn new(seed: u64, layers: &[usize]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let blobs = directory.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a directory for blobs");
        let put = |content: &Content| {
            fs::write(blobs.join(content.sha256()), content.bytes()).expect("a blob");
        };
        let mut diffs = Vec::new();
        let mut compressed = Vec::new();
        for (number, &len) in (0..).zip(layers) {
            let name = format!("layer{number}.bin");
            let plain = tar(&name, Content::new(seed + number, len).bytes());
            let layer = Content::of(gzip(&plain));
            diffs.push(format!("\"sha256:{}\"", Content::of(plain).sha256()));
            put(&layer);
            compressed.push(layer);
        }
        let config = Content::of(
            format!(
                r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
                diffs.join(",")
            )
            .into_bytes(),
        );
        put(&config);
        let layer_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        let described: Vec<String> = compressed
            .iter()
            .map(|layer| descriptor(layer_type, layer))
            .collect();
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = Content::of(
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{manifest_type}","config":{},"layers":[{}]}}"#,
                descriptor("application/vnd.oci.image.config.v1+json", &config),
                described.join(",")
            )
            .into_bytes(),
        );
        put(&manifest);
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            descriptor(manifest_type, &manifest)
        );
        let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
        fs::write(directory.path().join("index.json"), index).expect("an index");
        fs::write(directory.path().join("oci-layout"), layout).expect("a layout");
        compressed.push(config);
        Self {
            directory,
            layers: compressed,
        }
    }

    /// Where it lies.
    pub fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// The blobs that a pull fetches: layers and configuration.
    pub fn blobs(&self) -> &[Content] {
        &self.layers
    }

    /// Holds what skopeo wrote as `dir:` against the image.
    ///
    /// # Panics
    /// When a blob is missing or another.
    pub fn assert_pulled(&self, directory: &Path) {
        for blob in &self.layers {
            blob.assert_file(&directory.join(blob.sha256()));
        }
    }
}

fn descriptor(media_type: &str, content: &Content) -> String {
    format!(
        r#"{{"mediaType":"{media_type}","digest":"sha256:{}","size":{}}}"#,
        content.sha256(),
        content.len()
    )
}

/// A tar archive (POSIX ustar) of one file.
fn tar(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut field =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, name);
    field(100, "0000644\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", bytes.len()));
    field(136, "00000000000\0");
    // The checksum is taken with blanks in its own place.
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());

    let mut archive = header.to_vec();
    archive.extend_from_slice(bytes);
    // The last block is filled up, and two empty ones end the archive.
    let end = archive.len().next_multiple_of(512) + 1024;
    archive.resize(end, 0);
    archive
}

/// A gzip file (RFC 1952) of stored blocks (RFC 1951, 3.2.4): its bytes do not shrink.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 0xffff;
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let count = bytes.chunks(BLOCK).len();
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        let len = block.len() as u16;
        file.push(u8::from(number + 1 == count));
        file.extend_from_slice(&len.to_le_bytes());
        file.extend_from_slice(&(!len).to_le_bytes());
        file.extend_from_slice(block);
    }
    file.extend_from_slice(&crc32(bytes).to_le_bytes());
    file.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (byte, entry) in (0..).zip(&mut table) {
        *entry = (0..8).fold(byte, |crc: u32, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        });
    }
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (crc >> 8) ^ table[usize::from(crc as u8 ^ byte)]
    })
}
