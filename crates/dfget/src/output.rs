//! Where the bytes go. It must not give a file its name before the whole is on the disk.

use std::{
    ffi::OsStr,
    fs::{File, Metadata, OpenOptions, Permissions},
    io::{self, Write},
    os::{
        fd::{FromRawFd, IntoRawFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    },
    path::{Path, PathBuf},
};

use bytes::Bytes;
use pantala_config::Output;
use pantala_core::{Error, Kind, Result, Who};
use tokio::{sync::mpsc, task::JoinHandle};

/// Where the bytes go. Each is written once, in order, by a thread of its own, and none is read
/// back.
///
/// A file gets its name only when it is complete and on the disk: until then it is
/// `.NAME.RANDOM.part` beside it, and dropping the sink removes that.
pub(crate) struct Sink {
    blocks: Option<mpsc::Sender<Bytes>>,
    writer: Option<JoinHandle<io::Result<()>>>,
    name: String,
    part: Option<Part>,
}

/// A file that is not complete yet.
struct Part {
    path: PathBuf,
    target: PathBuf,
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The links in a row that are followed, as many as the kernel follows.
const LINKS: usize = 40;

/// The most bytes of the file's name that are part of its part file's name: with the rest of that
/// it must be no longer than names may be, which is 143 bytes on the strictest file systems.
const NAME: usize = 128;

/// Blocks between the network and the disk, and as many in the writer's hand: enough that neither
/// waits for each single write.
const QUEUE: usize = 4;

impl Sink {
    /// Opens the output, so that what cannot be written is known before anything is fetched.
    pub fn open(output: &Output) -> Result<Self> {
        match output {
            Output::Stdout => Ok(Self::start(
                standard_output(),
                "standard output".into(),
                None,
            )),
            Output::File(path) => Self::file(path),
        }
    }

    fn file(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let cannot = |error: &io::Error| cannot_write(&name, error);
        let there = match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                let what = format!("{name} is a directory");
                return Err(Error::new(Who::User, Kind::File, what).hint("name a file with -o"));
            }
            Ok(meta) if meta.permissions().mode() & 0o222 == 0 => {
                let what = format!("{name} is read-only");
                return Err(Error::new(Who::User, Kind::File, what)
                    .hint("remove it, make it writable or name another file with -o"));
            }
            // A device or a pipe cannot be renamed into place: it is written as it is.
            Ok(meta) if !meta.is_file() || meta.file_type().is_char_device() => {
                let file = OpenOptions::new()
                    .write(true)
                    .open(path)
                    .map_err(|error| cannot(&error))?;
                return Ok(Self::start(file, name, None));
            }
            Ok(meta) => Some(meta),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(cannot(&error)),
        };
        let target = behind_links(path).map_err(|error| cannot(&error))?;
        let (file, part) = create_beside(&target).map_err(|error| cannot(&error))?;
        let part = Part { path: part, target };
        if let Some(there) = there {
            take_after(&file, &there).map_err(|error| cannot(&error))?;
        }
        Ok(Self::start(file, name, Some(part)))
    }

    fn start(mut out: File, name: String, part: Option<Part>) -> Self {
        let durable = part.is_some();
        let (blocks, mut queue) = mpsc::channel::<Bytes>(QUEUE);
        let writer = tokio::task::spawn_blocking(move || {
            // All that is there at once: one wake-up for many blocks, here and at the other end.
            let mut blocks = Vec::with_capacity(QUEUE);
            while queue.blocking_recv_many(&mut blocks, QUEUE) > 0 {
                for block in blocks.drain(..) {
                    out.write_all(&block)?;
                }
            }
            if durable {
                // Some errors come only now, and a name that outlives a crash needs its bytes to.
                out.sync_all()?;
            }
            close(out)
        });
        Self {
            blocks: Some(blocks),
            writer: Some(writer),
            name,
            part,
        }
    }

    /// Hands over the next bytes; waits while the disk or the pipe is behind.
    pub async fn write(&mut self, block: Bytes) -> Result<()> {
        let taken = match &self.blocks {
            Some(blocks) => blocks.send(block).await.is_ok(),
            None => false,
        };
        if taken {
            Ok(())
        } else {
            Err(self.failure().await)
        }
    }

    /// All bytes are written: gives the file its name.
    pub async fn complete(mut self) -> Result<()> {
        self.blocks = None;
        let written = match self.writer.take() {
            Some(writer) => writer
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error))),
            None => Ok(()),
        };
        written.map_err(|error| cannot_write(&self.name, &error))?;
        if let Some(part) = &self.part {
            // No wait from here on: who stops this process finds either no file or the whole.
            std::fs::rename(&part.path, &part.target)
                .map_err(|error| cannot_write(&self.name, &error))?;
            // So that a crash does not take the name back. Not every directory can be read or synced.
            if let Ok(directory) = File::open(directory_of(&part.target)) {
                let _ = directory.sync_all();
            }
        }
        Ok(())
    }

    async fn failure(&mut self) -> Error {
        self.blocks = None;
        let result = match self.writer.take() {
            Some(writer) => writer
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error))),
            None => Ok(()),
        };
        let error = result
            .err()
            .unwrap_or_else(|| io::Error::other("the writer stopped"));
        cannot_write(&self.name, &error)
    }
}

/// Standard output, closed when it is dropped: who reads it need not wait for the end of the
/// process, which may go on serving children for a moment.
fn standard_output() -> File {
    // SAFETY: descriptor 1 is open since the start of the process, and nothing else in it writes
    // to standard output.
    File::from(unsafe { OwnedFd::from_raw_fd(1) })
}

fn cannot_write(name: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let what = format!("no space left for {name}");
            Error::new(Who::Reader, Kind::NoSpace, what)
                .hint("free some, or write elsewhere with -o")
        }
        io::ErrorKind::BrokenPipe => {
            let what = format!("{name} was closed by who reads it");
            Error::new(Who::Reader, Kind::File, what)
        }
        _ => {
            let what = format!("cannot write {name}: {error}");
            Error::new(Who::User, Kind::File, what).hint("check the path and its permissions")
        }
    }
}

/// Closes a file and says what goes wrong: network file systems tell of lost bytes only then.
fn close(file: File) -> io::Result<()> {
    let descriptor = OwnedFd::from(file).into_raw_fd();
    // SAFETY: the descriptor was owned by the file, and nobody else has it.
    match unsafe { libc::close(descriptor) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // It is closed all the same.
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
    }
}

/// Where a path leads, which need not exist: renaming onto a link would replace the link.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match std::fs::read_link(&path) {
            Ok(link) => path = directory_of(&path).join(link),
            // Not a link, or not there.
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many links"))
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Gives a new file the mode of the one that it replaces, and its owner where that is allowed.
fn take_after(file: &File, old: &Metadata) -> io::Result<()> {
    let now = file.metadata()?;
    if (now.uid(), now.gid()) != (old.uid(), old.gid()) {
        // Only root may give files away.
        let _ = fchown(file, Some(old.uid()), Some(old.gid()));
    }
    // Who writes to a file takes its set-id bits away.
    let mode = old.mode() & 0o777;
    match file.metadata()?.mode() & 0o7777 {
        now if now == mode => Ok(()),
        _ => file.set_permissions(Permissions::from_mode(mode)),
    }
}

/// Makes a file of a new name beside the one that is wanted, with the permissions that one would
/// get.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a file's name",
        ));
    };
    let mut attempt = std::process::id();
    loop {
        let mut part = std::ffi::OsString::from(".");
        part.push(beginning(name));
        part.push(format!(".{attempt:08x}.part"));
        let part = directory_of(path).join(part);
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o666)
            .open(&part)
        {
            Ok(file) => return Ok((file, part)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                attempt = attempt.wrapping_mul(0x9e37_79b1).wrapping_add(1);
            }
            Err(error) => return Err(error),
        }
    }
}

/// A name, or what of a long one is short enough to add something.
fn beginning(name: &OsStr) -> &OsStr {
    if name.len() <= NAME {
        return name;
    }
    let text = name.to_str().unwrap_or("file");
    let fits = |&end: &usize| text.is_char_boundary(end);
    let end = (0..=NAME.min(text.len())).rev().find(fits);
    OsStr::new(&text[..end.unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(path: &Path) -> Result<Sink> {
        Sink::open(&Output::File(path.to_owned()))
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn the_name_appears_with_the_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let mut sink = sink(&path).unwrap();
        sink.write(Bytes::from_static(b"stream")).await.unwrap();
        assert!(!path.exists());
        sink.write(Bytes::from_static(b"ing")).await.unwrap();
        sink.complete().await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"streaming");
        assert_eq!(names(directory.path()), ["f"]);
    }

    #[tokio::test]
    async fn what_is_given_up_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = sink(&directory.path().join("f")).unwrap();
        sink.write(Bytes::from_static(b"half")).await.unwrap();
        drop(sink);
        assert_eq!(names(directory.path()), [""; 0]);
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_known_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let kind = |path: &Path| sink(path).map(drop).unwrap_err().kind();
        assert_eq!(kind(directory.path()), Kind::File);
        assert_eq!(kind(&directory.path().join("missing/f")), Kind::File);
        let read_only = directory.path().join("r");
        std::fs::write(&read_only, b"keep").unwrap();
        std::fs::set_permissions(&read_only, std::fs::Permissions::from_mode(0o444)).unwrap();
        assert_eq!(kind(&read_only), Kind::File);
        assert_eq!(std::fs::read(&read_only).unwrap(), b"keep");
    }

    #[tokio::test]
    async fn names_may_be_as_long_as_names_are() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["n".repeat(255), "é".repeat(127), "n".repeat(129)] {
            let path = directory.path().join(name);
            let mut sink = sink(&path).unwrap();
            sink.write(Bytes::from_static(b"x")).await.unwrap();
            sink.complete().await.unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"x");
        }
        let kind = |path: &Path| sink(path).map(drop).unwrap_err().kind();
        assert_eq!(kind(&directory.path().join("n".repeat(256))), Kind::File);
    }

    #[tokio::test]
    async fn links_stay_and_lead_to_the_new_content() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("sub")).unwrap();
        std::fs::write(at("sub/real"), b"old").unwrap();
        symlink("sub/link", at("first")).unwrap();
        symlink("real", at("sub/link")).unwrap();
        symlink("sub/new", at("dangling")).unwrap();
        for (link, real) in [("first", "sub/real"), ("dangling", "sub/new")] {
            let mut sink = sink(&at(link)).unwrap();
            sink.write(Bytes::from_static(b"new")).await.unwrap();
            sink.complete().await.unwrap();
            assert!(at(link).is_symlink());
            assert!(!at(real).is_symlink());
            assert_eq!(std::fs::read(at(real)).unwrap(), b"new");
        }
        symlink("round", at("round")).unwrap();
        assert_eq!(sink(&at("round")).map(drop).unwrap_err().kind(), Kind::File);
    }

    #[tokio::test]
    async fn the_mode_of_what_was_there_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        for mode in [0o600, 0o755, 0o666] {
            std::fs::write(&path, b"old").unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            sink(&path).unwrap().complete().await.unwrap();
            let meta = path.metadata().unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.len()), (mode, 0));
        }
    }
}
