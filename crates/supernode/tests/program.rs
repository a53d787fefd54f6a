//! The program: what it says, and how it ends.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
};

/// Ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(listen: &str) -> (Running, BufReader<ChildStderr>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_supernode"))
        .args(["--listen", listen, "--log", "off"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    (Running(child), stderr)
}

fn listening(stderr: &mut BufReader<ChildStderr>) -> SocketAddr {
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let place = line.strip_prefix("supernode: listening on ");
    place.expect(&line).trim_end().parse().unwrap()
}

#[test]
fn it_says_where_it_listens_and_stops_when_told() {
    for signal in ["TERM", "INT"] {
        let (mut child, mut stderr) = start("127.0.0.1:0");
        let place = listening(&mut stderr);
        let mut stream = TcpStream::connect(place).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");

        let kill = format!("kill -{signal} {}", child.0.id());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        assert_eq!(child.0.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_taken_address_is_one_line_and_an_exit_code() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = taken.local_addr().unwrap();
    let (mut child, mut stderr) = start(&place.to_string());
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in [
        &place.to_string(),
        "the address is in use",
        "; stop the program",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(child.0.wait().unwrap().code(), Some(1));
}
