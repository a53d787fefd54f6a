//! The program itself: how it starts, what it says, how it stops.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
};

const ANYWHERE: [&str; 4] = ["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"];

struct Daemon {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// What it said until it served.
    said: String,
    addr: SocketAddr,
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dfdaemon"));
    command.args(args).stderr(Stdio::piped());
    command
}

impl Daemon {
    fn start(args: &[&str]) -> Self {
        let mut child = command(&[&ANYWHERE, args].concat()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let addr = loop {
            let from = said.len();
            assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
            if let Some((_, rest)) = said[from..].split_once("dfdaemon: listening on ") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
        };
        Self {
            child,
            stderr,
            said,
            addr,
        }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Ends it in order; its exit code and all it said.
    fn stop(mut self, signal: i32) -> (Option<i32>, String) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: it sends a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        self.stderr.read_to_string(&mut self.said).unwrap();
        (self.child.wait().unwrap().code(), self.said)
    }
}

/// How it refuses to start: its exit code and the last thing it says.
fn refusal(args: &[&str]) -> (Option<i32>, String) {
    let output = command(args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (
        output.status.code(),
        said.lines().last().unwrap_or_default().to_owned(),
    )
}

#[test]
fn one_command_serves_one_host_until_it_is_stopped() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let daemon = Daemon::start(&["--supernode-listen", "127.0.0.1:0", "--memory", "64MiB"]);
        for part in [
            " for clients and 127.0.0.1:",
            " for peers, supernode inside on 127.0.0.1:",
            ", memory 64 MiB\n",
        ] {
            assert!(daemon.said.contains(part), "{part:?}: {}", daemon.said);
        }
        assert!(daemon.get("/healthz").ends_with("ok\n"));
        let metrics = daemon.get("/metrics");
        assert!(metrics.contains("\npantala_memory_limit_bytes 67108864\n"));
        let (code, said) = daemon.stop(signal);
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn a_taken_port_that_nobody_chose_is_no_reason_not_to_start() {
    // Taken by this test, or by whoever has it already.
    let _taken = TcpListener::bind("127.0.0.1:8002");
    let daemon = Daemon::start(&["--log", "off"]);
    let said = &daemon.said;
    assert!(
        said.contains("the supernode inside listens on 127.0.0.1:"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 2, "{said}");
    assert_eq!(daemon.stop(libc::SIGTERM).0, Some(0));
}

#[test]
fn a_named_supernode_need_not_be_there() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let daemon = Daemon::start(&["--supernode", &free.to_string(), "--log", "off"]);
    let named = format!(", supernode {free}, ");
    assert!(daemon.said.contains(&named), "{}", daemon.said);
    assert!(daemon.get("/healthz").ends_with("ok\n"));
    assert_eq!(daemon.stop(libc::SIGTERM).0, Some(0));
}

#[test]
fn what_cannot_be_used_is_said_in_a_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let local = "127.0.0.1:0";
    let missing = tempfile::tempdir().unwrap().path().join("ca.pem");
    let missing = missing.to_str().unwrap();
    for (args, part) in [
        (
            &[
                "--listen",
                &taken,
                "--peer-listen",
                local,
                "--supernode-listen",
                local,
            ][..],
            "--listen",
        ),
        (
            &[
                "--listen",
                local,
                "--peer-listen",
                &taken,
                "--supernode-listen",
                local,
            ],
            "--peer-listen",
        ),
        (
            &[
                "--listen",
                local,
                "--peer-listen",
                local,
                "--supernode-listen",
                &taken,
            ],
            "--supernode-listen",
        ),
        (&["--supernode", "127.0.0.1:1", "--ca", missing], "ca.pem"),
        (&["--memory", "1KiB"], "--memory"),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let (code, said) = refusal(args);
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(
            said.starts_with("dfdaemon: ") && said.contains(part),
            "{said}"
        );
    }
}
