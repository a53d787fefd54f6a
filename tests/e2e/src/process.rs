use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use tempfile::TempDir;

use crate::until;

/// A child process. It is killed, by its id, when this is dropped; on the output of a failed test
/// it says what it wrote to standard error.
pub struct Process {
    name: String,
    child: Child,
    directory: TempDir,
    stdout: Stdout,
}

enum Stdout {
    Ours(Option<ChildStdout>),
    Gathered {
        bytes: Arc<Mutex<Vec<u8>>>,
        thread: Option<JoinHandle<io::Result<()>>>,
    },
}

/// How a process ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit code; 128 + N when signal N ended it.
    pub code: i32,
    /// What it wrote to standard output, unless the test took that itself.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
    /// What it did to disks.
    pub disk: DiskIo,
}

/// What a process did to disks so far, from `/proc/PID/io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskIo {
    /// Bytes fetched from disks; what was in the page cache does not count.
    pub read: u64,
    /// Bytes to be written to disks.
    pub written: u64,
}

/// A signal that tests send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// As Ctrl-C does.
    Interrupt,
    /// Asks to stop.
    Terminate,
    /// Ends it without a word.
    Kill,
    /// Freezes it.
    Stop,
    /// Lets a frozen one go on.
    Continue,
}

impl Process {
    /// Starts a program; its standard output is gathered.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: Command) -> Self {
        let mut process = Self::start_piped(name, command);
        let mut pipe = process.take_stdout();
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let gathered = bytes.clone();
        let thread = std::thread::spawn(move || {
            let mut block = vec![0; 64 << 10];
            loop {
                match pipe.read(&mut block)? {
                    0 => return Ok(()),
                    len => lock(&gathered).extend_from_slice(&block[..len]),
                }
            }
        });
        process.stdout = Stdout::Gathered {
            bytes,
            thread: Some(thread),
        };
        process
    }

    /// Starts a program whose standard output the test reads itself, or does not.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_piped(name: &str, mut command: Command) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let stderr = File::create(directory.path().join("stderr")).expect("a file for stderr");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        // SAFETY: prctl is a plain system call: nothing is allocated and no lock is taken between
        // fork and exec.
        unsafe {
            // Should the test be killed, this ends as well.
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stdout = Stdout::Ours(child.stdout.take());
        Self {
            name: name.to_owned(),
            child,
            directory,
            stdout,
        }
    }

    /// Standard output of a process started with [`Process::start_piped`], once.
    ///
    /// # Panics
    /// When it was taken before or is gathered.
    pub fn take_stdout(&mut self) -> ChildStdout {
        match &mut self.stdout {
            Stdout::Ours(pipe) => pipe.take().expect("standard output was taken before"),
            Stdout::Gathered { .. } => panic!("standard output is gathered"),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far, where that is gathered.
    pub fn output(&self) -> Vec<u8> {
        match &self.stdout {
            Stdout::Gathered { bytes, .. } => lock(bytes).clone(),
            Stdout::Ours(_) => Vec::new(),
        }
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        let bytes = fs::read(self.stderr_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn stderr_path(&self) -> PathBuf {
        self.directory.path().join("stderr")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When there is no such process any more.
    pub fn signal(&self, signal: Signal) {
        let number = match signal {
            Signal::Interrupt => libc::SIGINT,
            Signal::Terminate => libc::SIGTERM,
            Signal::Kill => libc::SIGKILL,
            Signal::Stop => libc::SIGSTOP,
            Signal::Continue => libc::SIGCONT,
        };
        // SAFETY: kill takes plain numbers; the child has not been waited for, so that its id is
        // still its own.
        let result = unsafe { libc::kill(self.id() as libc::pid_t, number) };
        assert_eq!(result, 0, "{}: {signal:?} was not delivered", self.name);
    }

    /// Whether it still runs (or is frozen).
    pub fn is_running(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        let state = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.trim().chars().next());
        !matches!(state, None | Some('Z' | 'X'))
    }

    /// What it did to disks so far; also after its end.
    pub fn disk(&self) -> DiskIo {
        let io = fs::read_to_string(format!("/proc/{}/io", self.id())).unwrap_or_default();
        let field = |name: &str| number(&io, name).unwrap_or(0);
        DiskIo {
            read: field("read_bytes:"),
            written: field("write_bytes:").saturating_sub(field("cancelled_write_bytes:")),
        }
    }

    /// The most memory it ever held, in bytes.
    ///
    /// # Panics
    /// When it does not run any more.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        1024 * number(&status, "VmHWM:").expect("the peak memory of a running process")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended by the deadline.
    pub fn wait(mut self) -> Finished {
        until(&format!("the end of {}", self.name), || {
            (!self.is_running()).then_some(())
        });
        let disk = self.disk();
        let status = self.child.wait().expect("the status of an own child");
        if let Stdout::Gathered { thread, .. } = &mut self.stdout
            && let Some(thread) = thread.take()
        {
            let gathered = thread.join().expect("the thread that gathers output");
            gathered.expect("the whole output");
        }
        let stdout = self.output();
        let signalled = status.signal().map(|signal| 128 + signal);
        Finished {
            code: status.code().or(signalled).unwrap_or(-1),
            stdout,
            stderr: self.stderr(),
            disk,
        }
    }
}

/// Whether programs may be given mounts of their own here.
pub(crate) fn may_mount() -> bool {
    let mut command = Command::new("true");
    with_own_mounts(&mut command);
    command.status().is_ok_and(|status| status.success())
}

/// Lets a program see and make mounts that nobody else sees, and that go when it goes, however it
/// ends.
pub(crate) fn with_own_mounts(command: &mut Command) {
    // SAFETY: both are plain system calls with constant arguments: nothing is allocated and no
    // lock is taken between fork and exec.
    unsafe {
        command.pre_exec(|| {
            if libc::unshare(libc::CLONE_NEWNS) != 0 {
                return Err(io::Error::last_os_error());
            }
            // Where / is no mount of its own, in a plain chroot, this fails, and what is mounted
            // above was private before or is not.
            let none = std::ptr::null();
            let private = libc::MS_REC | libc::MS_PRIVATE;
            libc::mount(none, c"/".as_ptr(), none, private, none.cast());
            Ok(())
        });
    }
}

fn lock(bytes: &Mutex<Vec<u8>>) -> std::sync::MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number after a name in a file of `/proc`.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Who is asked to log has said something of interest, though it may have ended well.
        if std::thread::panicking() || std::env::var_os("E2E_LOG").is_some() {
            let said = self.stderr();
            eprintln!("---- stderr of {} ({})", self.name, self.id());
            eprint!("{said}");
        }
    }
}
