//! The files of this machine, read with a bound and written whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, Metadata, Permissions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown},
    path::{Component, Path, PathBuf},
};

use pantala_core::{Error, Kind, Result, Who};

use crate::{FileChange, ReadFiles, backup_path};

/// The longest file that is read; no honest one comes near.
const LONGEST: u64 = 4 << 20;

/// How many links are followed on the way to a file.
const LINKS: usize = 40;

/// The files below a root, which is `/` or an image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    root: PathBuf,
}

/// What happened to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It was not there before.
    Made(PathBuf),
    /// It has changed; where the backup of the original is, when there is one.
    Changed(PathBuf, Option<PathBuf>),
    /// It is as it was before setup, and the backup, which is the same, is gone.
    Restored(PathBuf),
    /// It is gone.
    Removed(PathBuf),
}

impl ReadFiles for Disk {
    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        let mut text = String::new();
        let read = File::open(self.place(path)?)
            .and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
        match read {
            Ok(read) if read as u64 > LONGEST => Err(io::Error::other("longer than 4 MiB")),
            Ok(_) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Option<Vec<String>>> {
        let entries = match fs::read_dir(self.place(dir)?) {
            Ok(entries) => entries,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            // Nobody reads a file whose name is not text.
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(Some(names))
    }
}

impl Disk {
    /// The files below `root`; `None` is this host's own.
    pub fn new(root: Option<PathBuf>) -> Self {
        let root = root.unwrap_or_else(|| "/".into());
        Self { root }
    }

    /// Makes one change. When `keep` is set the original is backed up first, unless a backup is
    /// there from before; else a backup that is the same as the new text goes.
    ///
    /// # Errors
    /// When the file is no longer what the plan was made from, or cannot be written. The file is
    /// then as it was.
    pub fn apply(&self, change: &FileChange, keep: bool) -> Result<Written> {
        let path = &change.path;
        let failed = |error: &io::Error| failed(path, "written", error);
        if self.read(path).map_err(|error| failed(&error))? != change.before {
            let what = format!("{}: changed meanwhile", path.display());
            return Err(Error::new(Who::User, Kind::File, what).hint("run it again"));
        }
        let place = self.place(path).map_err(|error| failed(&error))?;
        let backup = backup_path(path);
        let backup_place = self.entry(&backup).map_err(|error| failed(&error))?;
        let there = || backup_place.symlink_metadata().is_ok();
        let Some(after) = &change.after else {
            self.remove(change).map_err(|error| failed(&error))?;
            return Ok(Written::Removed(path.clone()));
        };
        let Some(before) = &change.before else {
            make_parent(&place).map_err(|error| failed(&error))?;
            replace(&place, after, None).map_err(|error| failed(&error))?;
            return Ok(Written::Made(path.clone()));
        };
        let metadata = place.metadata().map_err(|error| failed(&error))?;
        if keep && !there() {
            replace(&backup_place, before, Some(&metadata))
                .map_err(|error| self::failed(&backup, "written", &error))?;
        }
        replace(&place, after, Some(&metadata)).map_err(|error| failed(&error))?;
        let kept = |backup| self.read(backup).ok().flatten();
        if !keep && kept(&backup).is_some_and(|text| text == *after) {
            fs::remove_file(&backup_place)
                .map_err(|error| self::failed(&backup, "removed", &error))?;
            return Ok(Written::Restored(path.clone()));
        }
        Ok(Written::Changed(path.clone(), there().then_some(backup)))
    }

    /// Removes a file, and the directories that were made for it and are empty.
    fn remove(&self, change: &FileChange) -> io::Result<()> {
        fs::remove_file(self.entry(&change.path)?)?;
        for dir in change.path.ancestors().skip(1).take(change.directories) {
            match self.entry(dir).and_then(fs::remove_dir) {
                Ok(()) => {}
                // Others have put something there, or it is a link: it stays.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Where the entry `path` of a directory is. The entry itself may be a link.
    fn entry(&self, path: &Path) -> io::Result<PathBuf> {
        let dir = self.place(path.parent().unwrap_or(path))?;
        Ok(match path.file_name() {
            Some(name) => dir.join(name),
            None => dir,
        })
    }

    /// Where `path` really is, links of its directories followed as the system below the root would:
    /// no link, and no `..`, leads out of the root. What is not there yet has no links.
    fn place(&self, path: &Path) -> io::Result<PathBuf> {
        let mut place = self.root.clone();
        let mut depth = 0_usize;
        let mut followed = 0;
        // The parts to come, the next one last.
        let mut parts: Vec<OsString> = reversed(path);
        while let Some(part) = parts.pop() {
            if part == ".." {
                if depth > 0 {
                    place.pop();
                    depth -= 1;
                }
                continue;
            }
            place.push(&part);
            depth += 1;
            // Not a link, or not there.
            let Ok(link) = fs::read_link(&place) else {
                continue;
            };
            followed += 1;
            if followed > LINKS {
                return Err(io::Error::other("too many links"));
            }
            place.pop();
            depth -= 1;
            if link.is_absolute() {
                place.clone_from(&self.root);
                depth = 0;
            }
            parts.extend(reversed(&link));
        }
        Ok(place)
    }
}

/// The names in a path and its `..`, the last one first.
fn reversed(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    parts.collect()
}

fn make_parent(place: &Path) -> io::Result<()> {
    match place.parent() {
        Some(parent) => DirBuilder::new().recursive(true).mode(0o755).create(parent),
        None => Ok(()),
    }
}

/// Writes `text` to `place` in one step: whoever reads it sees the old one or the new one, also
/// after a crash. Mode and owner are those of the old one.
fn replace(place: &Path, text: &str, old: Option<&Metadata>) -> io::Result<()> {
    let dir = place.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".pantala-")
        .tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    if let Some(old) = old {
        let now = file.as_file().metadata()?;
        if (now.uid(), now.gid()) != (old.uid(), old.gid()) {
            fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
    }
    // After the owner, for a new owner takes the special bits away.
    let mode = old.map_or(0o644, |old| old.mode() & 0o7777);
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(place).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

/// An error that names the file and what to do.
pub(crate) fn failed(path: &Path, done: &str, error: &io::Error) -> Error {
    let (kind, hint) = match error.kind() {
        ErrorKind::PermissionDenied => (Kind::File, "run it with sudo"),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (Kind::NoSpace, "make room"),
        ErrorKind::InvalidData => (Kind::File, "write it in UTF-8"),
        ErrorKind::ReadOnlyFilesystem => (
            Kind::File,
            "run it where the file is made: here it is read-only",
        ),
        _ => (Kind::File, "check the path"),
    };
    let why = match error.kind() {
        ErrorKind::PermissionDenied => "no permission".to_owned(),
        ErrorKind::InvalidData => "not UTF-8 text".to_owned(),
        _ => error.to_string(),
    };
    let what = format!("{}: it cannot be {done}, {why}", path.display());
    Error::new(Who::User, kind, what).hint(hint)
}
