use std::{
    io::{Read as _, Write as _},
    mem::size_of,
    net::{SocketAddr, TcpStream},
    os::fd::FromRawFd as _,
    time::Instant,
};

use crate::{Content, DEADLINE, origin::is_timeout};

/// A client that asks for something and reads only when it is told. What the kernel keeps for it is
/// little, so that it stands still soon.
pub struct Stalled {
    stream: TcpStream,
    /// What it has read so far.
    read: Vec<u8>,
    /// How its connection ended, in words.
    ended: Option<String>,
}

impl Stalled {
    /// Sends a GET with these header lines, and reads the first bytes of the answer's body.
    ///
    /// # Panics
    /// When no answer comes.
    pub fn get(addr: SocketAddr, target: &str, headers: &str) -> Self {
        let mut stalled = Self::ask(addr, target, headers);
        while stalled.body().is_none_or(<[u8]>::is_empty) {
            assert!(stalled.read_some(), "{:?}", stalled.text());
        }
        stalled
    }

    /// Sends a GET with these header lines, and reads nothing.
    ///
    /// # Panics
    /// When the request is not taken.
    pub fn ask(addr: SocketAddr, target: &str, headers: &str) -> Self {
        let stream = connect_narrow(addr);
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a time limit for reads");
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        (&stream)
            .write_all(request.as_bytes())
            .expect("the request is taken");
        Self {
            stream,
            read: Vec::new(),
            ended: None,
        }
    }

    /// Whether anything of an answer has come, or the connection has ended. Reads nothing.
    ///
    /// # Panics
    /// When the connection cannot be looked at without waiting.
    pub fn is_answered(&self) -> bool {
        let wait = |waits: bool| {
            let set = self.stream.set_nonblocking(!waits);
            set.expect("a connection that can be looked at");
        };
        wait(false);
        let peeked = self.stream.peek(&mut [0]);
        wait(true);
        !matches!(peeked, Err(error) if is_timeout(&error))
    }

    /// The status of the answer.
    ///
    /// # Panics
    /// When there is none.
    pub fn status(&self) -> u16 {
        let text = self.text();
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
        status.unwrap_or_else(|| panic!("no status: {text}"))
    }

    /// Reads on until the body has so many bytes; gives what came, which is less when the connection
    /// ended before.
    pub fn read_body(&mut self, len: usize) -> &[u8] {
        while self.body().is_none_or(|body| body.len() < len) && self.read_some() {}
        self.body().unwrap_or_default()
    }

    /// Reads on until all of this content has come.
    ///
    /// # Panics
    /// When anything else comes, or too little; says what did.
    pub fn assert_whole(&mut self, content: &Content) {
        let started = Instant::now();
        let len = content.bytes().len();
        let got = self.read_body(len).len();
        let whole = self.body() == Some(content.bytes());
        assert!(
            whole,
            "{got} of {len} bytes in {:?}, and then {:?}: {:?}",
            started.elapsed(),
            self.ended,
            self.text(),
        );
    }

    fn read_some(&mut self) -> bool {
        let mut block = vec![0; 64 << 10];
        match self.stream.read(&mut block) {
            Ok(len) => {
                self.read.extend_from_slice(&block[..len]);
                if len == 0 {
                    self.ended = Some("the end".to_owned());
                }
                len > 0
            }
            Err(error) => {
                self.ended = Some(error.to_string());
                false
            }
        }
    }

    fn body(&self) -> Option<&[u8]> {
        let end = self.read.windows(4).position(|four| four == b"\r\n\r\n")?;
        Some(&self.read[end + 4..])
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read[..self.read.len().min(400)]).into_owned()
    }
}

/// A connection whose receive buffer is as small as may be. That must be said before it is made.
fn connect_narrow(addr: SocketAddr) -> TcpStream {
    let SocketAddr::V4(addr) = addr else {
        panic!("{addr} is no IPv4 address");
    };
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: addr.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(addr.ip().octets()),
        },
        sin_zero: [0; 8],
    };
    let narrow: libc::c_int = 4096;
    // SAFETY: all three calls get pointers to values of ours with their sizes, and the descriptor is
    // handed on to exactly one owner.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "a socket");
        let stream = TcpStream::from_raw_fd(fd);
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        let value = (&raw const narrow).cast();
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, value, size);
        let size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        let connected = libc::connect(fd, (&raw const to).cast(), size);
        assert_eq!(connected, 0, "a connection to {addr}");
        stream
    }
}

/// So many connections that say nothing.
///
/// # Panics
/// When one cannot be made.
pub fn silent(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    raise_open_files();
    (0..count)
        .map(|_| TcpStream::connect(addr).expect("a connection"))
        .collect()
}

/// Lets this test open as many files as its hard limit allows.
fn raise_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls get a pointer to a structure of ours that outlives them.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
