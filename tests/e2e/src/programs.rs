use std::{
    env,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
};

use crate::{Process, Signal, needs::find, until};

/// A program of the workspace, ready to get its flags. It lies beside the directory of the test
/// executable; no variable of the environment reaches it that would change what it does.
///
/// # Panics
/// When it has not been built.
pub fn program(name: &str) -> Command {
    let test = env::current_exe().expect("the path of the test executable");
    let path: PathBuf = test
        .parent()
        .and_then(|deps| deps.parent())
        .map(|profile| profile.join(name))
        .unwrap_or_default();
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --bins` before",
        path.display()
    );
    let mut command = Command::new(path);
    for (variable, _) in env::vars_os() {
        let text = variable.to_string_lossy().to_lowercase();
        if text.starts_with("pantala_") || text.ends_with("_proxy") {
            command.env_remove(&variable);
        }
    }
    // To look into a failure: a failed test shows what its programs logged.
    if let Some(filter) = env::var_os("E2E_LOG") {
        command.env("PANTALA_LOG", filter);
    }
    command
}

/// A program that is installed here. Nothing in its environment names a proxy, or whom to trust, or
/// an index of packages, but what the test says.
///
/// # Panics
/// When it is not installed.
pub fn tool(name: &str) -> Command {
    let path = find(name).unwrap_or_else(|| panic!("{name} is not installed"));
    let mut command = Command::new(path);
    for (variable, _) in env::vars_os() {
        if variable
            .to_string_lossy()
            .to_lowercase()
            .ends_with("_proxy")
        {
            command.env_remove(&variable);
        }
    }
    command
}

/// A running supernode.
pub struct Supernode {
    process: Process,
    addr: SocketAddr,
}

impl Supernode {
    /// Starts one on a port of its own choice and waits until it serves.
    pub fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    /// Starts one where it is told to listen.
    ///
    /// # Panics
    /// When it does not serve by the deadline.
    pub fn start_on(listen: &str) -> Self {
        Self::start_command(&["--listen", listen])
    }

    /// Starts one with flags on a port of its own choice.
    ///
    /// # Panics
    /// When it does not serve by the deadline.
    pub fn start_with(flags: &[&str]) -> Self {
        Self::start_command(&[&["--listen", "127.0.0.1:0"], flags].concat())
    }

    fn start_command(flags: &[&str]) -> Self {
        let mut command = program("supernode");
        command.args(flags);
        let process = Process::start("supernode", command);
        let addr = listening(&process, "supernode: listening on ");
        Self { process, addr }
    }

    /// Kills it and starts another one in its place, which knows nothing.
    ///
    /// # Panics
    /// When that does not serve by the deadline.
    pub fn restart(&mut self) {
        self.process.signal(Signal::Kill);
        until("the supernode's end", || {
            (!self.process.is_running()).then_some(())
        });
        *self = Self::start_on(&self.addr.to_string());
    }

    /// Where peers find it.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits until so many peers are members of tasks.
    pub fn wait_for_members(&self, count: usize) {
        self.wait_for("members", count);
    }

    /// Waits until so many peers are connected.
    ///
    /// # Panics
    /// When it takes too long.
    pub fn wait_for_peers(&self, count: usize) {
        self.wait_for("peers", count);
    }

    fn wait_for(&self, what: &str, count: usize) {
        until(&format!("{count} {what}"), || {
            let (_, figures) = http_get(self.addr, "/metrics")?;
            let name = format!("pantala_supernode_{what} ");
            let line = figures.lines().find_map(|line| line.strip_prefix(&name))?;
            (line.parse() == Ok(count)).then_some(())
        });
    }

    /// The process, to send it signals.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// Waits for the line that says where a program listens.
pub(crate) fn listening(process: &Process, prefix: &str) -> SocketAddr {
    until(prefix, || {
        let said = process.stderr();
        assert!(process.is_running(), "it ended: {said}");
        let line = said.lines().find_map(|line| line.strip_prefix(prefix))?;
        line.split_whitespace().next()?.parse().ok()
    })
}

/// A plain GET; gives the status and the body. `None` while nobody answers.
pub fn http_get(addr: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
