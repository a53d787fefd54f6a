use std::{net::SocketAddr, process::Command};

use crate::{
    Answer, Process, Supernode, ask, http_get, needs::find, program, programs::listening, until,
};

/// A running dfdaemon: one host of a swarm.
pub struct Dfdaemon {
    process: Process,
    addr: SocketAddr,
}

impl Dfdaemon {
    /// Starts one on ports of its own choice, and waits until it serves.
    pub fn start(supernode: &Supernode, flags: &[&str]) -> Self {
        Self::start_towards(supernode.addr(), flags)
    }

    /// Starts one that looks for its supernode there, whether one is there or not.
    pub fn start_towards(supernode: SocketAddr, flags: &[&str]) -> Self {
        let supernode = supernode.to_string();
        Self::start_with(&[&["--supernode", &supernode], flags].concat())
    }

    /// Starts one whose supernode is said to be at this address.
    pub fn start_for(supernode: SocketAddr, flags: &[&str]) -> Self {
        Self::start_with(&[&["--supernode", &supernode.to_string()], flags].concat())
    }

    /// Starts one with its supernode inside.
    pub fn start_alone(flags: &[&str]) -> Self {
        Self::start_with(&[&["--supernode-listen", "127.0.0.1:0"], flags].concat())
    }

    /// Starts one with its supernode inside where it is told to listen.
    pub fn start_on(listen: SocketAddr, flags: &[&str]) -> Self {
        let inside = ["--supernode-listen", "127.0.0.1:0"];
        Self::start_at(&listen.to_string(), &[&inside, flags].concat())
    }

    fn start_with(flags: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", flags)
    }

    fn start_at(listen: &str, flags: &[&str]) -> Self {
        let mut command = program("dfdaemon");
        command
            .args(["--listen", listen, "--peer-listen", "127.0.0.1:0"])
            .args(flags);
        let process = Process::start("dfdaemon", command);
        let addr = listening(&process, "dfdaemon: listening on ");
        until("dfdaemon", || {
            (http_get(addr, "/healthz")?.0 == 200).then_some(())
        });
        Self { process, addr }
    }

    /// Where clients find it: proxy, mirror, `/metrics`.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process, to wait for its end.
    pub fn into_process(self) -> Process {
        self.process
    }

    /// The sum of a metric over its labels.
    ///
    /// # Panics
    /// When there is no such metric.
    pub fn metric(&self, name: &str) -> u64 {
        let (_, figures) = until("the metrics", || http_get(self.addr, "/metrics"));
        let values: Vec<u64> = figures
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        assert!(!values.is_empty(), "no {name} in {figures}");
        values.iter().sum()
    }

    /// The answer to a GET through it as a proxy, or of it as a mirror where the target is a path.
    pub fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        ask(self.addr, "GET", target, headers, b"")
    }

    /// A curl that uses it as its proxy; it writes to standard output.
    ///
    /// # Panics
    /// When curl is not installed.
    pub fn curl(&self, url: &str) -> Command {
        let mut curl = Command::new(find("curl").expect("curl is installed"));
        curl.args(["-sS", "--fail", "--noproxy", "", "-x"])
            .arg(format!("http://{}", self.addr))
            .arg(url);
        curl
    }
}
