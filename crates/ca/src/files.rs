//! The two files: made once, never written over, read with care.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use pantala_core::{Error, Kind, Result, Who};

use crate::{CERTIFICATE, KEY};

/// The longest file that is read; no honest one comes near.
const LONGEST: u64 = 1 << 20;

/// Creates both files, or none.
pub(crate) fn create(dir: &Path, certificate: &str, key: &str) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .map_err(|error| cannot_write(dir, &error))?;
    let files = [(KEY, key, 0o600), (CERTIFICATE, certificate, 0o644)];
    for (name, _, _) in files {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(already(&path));
        }
    }
    for (at, (name, text, mode)) in files.into_iter().enumerate() {
        let path = dir.join(name);
        if let Err(error) = write_new(&path, text, mode) {
            // What this call made must not be in the way of the next one.
            for (name, _, _) in &files[..at] {
                let _ = std::fs::remove_file(dir.join(name));
            }
            return Err(match error.kind() {
                ErrorKind::AlreadyExists => already(&path),
                _ => cannot_write(&path, &error),
            });
        }
    }
    // The names are as durable as the contents.
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| cannot_write(dir, &error))
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written
}

/// The whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| cannot_read(path, &error))?;
    if bytes.len() as u64 > LONGEST {
        return Err(unusable(path, "longer than 1 MiB", "check the path"));
    }
    Ok(bytes)
}

/// What to say about a key that others than its owner can read.
pub(crate) fn too_open(path: &Path) -> Option<String> {
    let mode = path.metadata().ok()?.mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        format!(
            "{}: others than its owner can use this key (mode {mode:03o}); run chmod 600 {}",
            path.display(),
            path.display()
        )
    })
}

/// `path` holds something that cannot be used.
pub(crate) fn unusable(path: &Path, what: &str, hint: &str) -> Error {
    let what = format!("{}: {what}", path.display());
    Error::new(Who::User, Kind::BadInput, what).hint(hint)
}

fn already(path: &Path) -> Error {
    let what = format!("{}: already there", path.display());
    Error::new(Who::User, Kind::File, what).hint(
        "use it, or choose another --dir; clients would have to trust a new one all over again",
    )
}

fn cannot_read(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => unusable(
            path,
            "it is not there",
            "make a certificate authority with dfdaemon ca init",
        ),
        ErrorKind::PermissionDenied => unusable(
            path,
            "no permission to read it",
            "run dfdaemon as the user who owns it",
        ),
        _ => unusable(
            path,
            &format!("it cannot be read, {error}"),
            "check the path",
        ),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Kind::NoSpace,
        _ => Kind::File,
    };
    let what = format!("{}: it cannot be written, {error}", path.display());
    let hint = match error.kind() {
        ErrorKind::PermissionDenied => "run it with sudo, or choose another --dir",
        _ => "choose another --dir",
    };
    Error::new(Who::User, kind, what).hint(hint)
}
