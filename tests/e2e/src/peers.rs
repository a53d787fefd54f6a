use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{Content, Dfget, Finished, Process, Supernode, part_files, until};

/// dfgets that download the same, each into a file of its own.
pub struct Peers {
    peers: Vec<Peer>,
    directory: TempDir,
}

struct Peer {
    process: Process,
    directory: PathBuf,
}

impl Peers {
    /// None yet.
    ///
    /// # Panics
    /// When there is no directory for their files.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        Self {
            peers: Vec::new(),
            directory: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// Starts `count` together; gives the first one's number.
    pub fn start(&mut self, count: usize, url: &str, supernode: &Supernode) -> usize {
        self.start_with(count, url, &["--supernode", &supernode.addr().to_string()])
    }

    /// Starts `count` together with these flags; gives the first one's number.
    ///
    /// # Panics
    /// When there is no directory for a file.
    pub fn start_with(&mut self, count: usize, url: &str, flags: &[&str]) -> usize {
        let first = self.peers.len();
        for number in first..first + count {
            let directory = self.directory.path().join(number.to_string());
            fs::create_dir(&directory).expect("a directory for one peer");
            let process = Dfget::new(url).args(flags).to(directory.join("f")).start();
            self.peers.push(Peer { process, directory });
        }
        first
    }

    /// One peer's process.
    pub fn process(&self, number: usize) -> &Process {
        &self.peers[number].process
    }

    /// Waits until each of these has written so many bytes, but is not complete.
    ///
    /// # Panics
    /// When one completes or ends before; then the content is too small for the test.
    pub fn wait_for_bytes(&self, numbers: impl IntoIterator<Item = usize>, bytes: u64) {
        for number in numbers {
            let peer = &self.peers[number];
            until(&format!("{bytes} bytes at peer {number}"), || {
                let running = peer.process.is_running();
                assert!(running, "peer {number} ended: {}", peer.process.stderr());
                (peer.written()? >= bytes).then_some(())
            });
        }
    }

    /// Waits for the end of one.
    pub fn finish(&mut self, number: usize) -> Finished {
        // Its place stays, so that the others keep their numbers.
        let directory = self.peers[number].directory.clone();
        let nobody = Process::start("nobody", std::process::Command::new("true"));
        let peer = std::mem::replace(
            &mut self.peers[number],
            Peer {
                process: nobody,
                directory,
            },
        );
        peer.process.wait()
    }

    /// Waits for these, each of which must have the whole content.
    ///
    /// # Panics
    /// When one has not.
    pub fn assert_complete(
        &mut self,
        numbers: impl IntoIterator<Item = usize>,
        content: &Content,
    ) -> Vec<Finished> {
        let mut all = Vec::new();
        for number in numbers {
            let finished = self.finish(number);
            assert_eq!(finished.code, 0, "peer {number}: {}", finished.stderr);
            content.assert_file(&self.file(number));
            all.push(finished);
        }
        all
    }

    /// Where a peer's file will be.
    pub fn file(&self, number: usize) -> PathBuf {
        self.peers[number].file()
    }
}

impl Peer {
    fn file(&self) -> PathBuf {
        self.directory.join("f")
    }

    fn written(&self) -> Option<u64> {
        let len = |path: &Path| fs::metadata(path).ok().map(|meta| meta.len());
        let part = part_files(&self.directory).pop()?;
        len(&part)
    }
}
