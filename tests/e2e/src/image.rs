use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{
    Content,
    archive::{gzip, tar},
};

/// An OCI image as a directory that skopeo reads: layers of one file each.
pub struct Image {
    directory: TempDir,
    layers: Vec<Content>,
    diffs: Vec<String>,
    manifest: Content,
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
            let file = Content::new(seed + number, len);
            let plain = tar(&[(&name, file.bytes())]);
            let layer = Content::of(gzip(&plain));
            diffs.push(format!("sha256:{}", Content::of(plain).sha256()));
            put(&layer);
            compressed.push(layer);
        }
        let config = Content::of(
            format!(
                r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
                format_args!("\"{}\"", diffs.join("\",\""))
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
            diffs,
            manifest,
        }
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Content {
        &self.manifest
    }

    /// The digest of its configuration, by which local images are named.
    ///
    /// # Panics
    /// Never: an image has one.
    pub fn id(&self) -> String {
        let config = self.layers.last().expect("a configuration");
        format!("sha256:{}", config.sha256())
    }

    /// The digests of its layers before compression.
    pub fn diffs(&self) -> &[String] {
        &self.diffs
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
