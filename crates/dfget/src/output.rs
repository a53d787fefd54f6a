use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt},
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
/// A file gets its name only when it is complete: until then it is `.NAME.RANDOM.part` beside it,
/// and dropping the sink removes that.
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

/// Blocks between the network and the disk, and as many in the writer's hand: enough that neither
/// waits for each single write.
const QUEUE: usize = 4;

impl Sink {
    /// Opens the output, so that what cannot be written is known before anything is fetched.
    pub fn open(output: &Output) -> Result<Self> {
        match output {
            Output::Stdout => Ok(Self::start(
                Box::new(standard_output()),
                "standard output".into(),
                None,
            )),
            Output::File(path) => Self::file(path),
        }
    }

    fn file(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let cannot = |error: &io::Error| cannot_write(&name, error);
        match std::fs::metadata(path) {
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
                return Ok(Self::start(Box::new(file), name, None));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot(&error)),
        }
        let (file, part) = create_beside(path).map_err(|error| cannot(&error))?;
        let target = path.to_owned();
        Ok(Self::start(
            Box::new(file),
            name,
            Some(Part { path: part, target }),
        ))
    }

    fn start(mut out: Box<dyn Write + Send>, name: String, part: Option<Part>) -> Self {
        let (blocks, mut queue) = mpsc::channel::<Bytes>(QUEUE);
        let writer = tokio::task::spawn_blocking(move || {
            // All that is there at once: one wake-up for many blocks, here and at the other end.
            let mut blocks = Vec::with_capacity(QUEUE);
            while queue.blocking_recv_many(&mut blocks, QUEUE) > 0 {
                for block in blocks.drain(..) {
                    out.write_all(&block)?;
                }
            }
            out.flush()
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
            std::fs::rename(&part.path, &part.target)
                .map_err(|error| cannot_write(&self.name, &error))?;
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

/// Makes a file of a new name beside the one that is wanted, with the permissions that one would
/// get.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a file's name",
        ));
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut attempt = std::process::id();
    loop {
        let mut part = std::ffi::OsString::from(".");
        part.push(name);
        part.push(format!(".{attempt:08x}.part"));
        let part = directory.join(part);
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
}
