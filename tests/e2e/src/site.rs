//! An origin of many paths whose answers tests set, per reader and anew at any time. It serves what
//! it is told and judges nothing.

mod exchange;

use std::{
    collections::HashMap,
    io::{self, BufReader, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{Content, Page, origin::is_timeout};

use exchange::{Answer, Request};

/// An origin of many paths, each of which may answer each reader differently, and anew at any time.
/// It remembers every request.
///
/// A path answers those who show credentials that it knows with the page for these, everybody else
/// with the page for everybody, and with 404 where there is none.
pub struct Site {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// A header by which a reader shows who it is: its name and its value.
pub type Credentials<'a> = (&'a str, &'a str);

/// One request that a [`Site`] got.
#[derive(Debug, Clone)]
pub struct Hit {
    /// GET, HEAD, …
    pub method: String,
    /// The path and the query.
    pub target: String,
    /// The headers, names in lower case.
    pub headers: HashMap<String, String>,
    /// The status of the answer.
    pub status: u16,
    /// What the answer's body is, or a part of.
    pub content: Content,
    /// Bytes of the body that were handed to the connection so far.
    pub sent: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    paths: HashMap<String, Answers>,
    hits: Vec<Hit>,
    released: bool,
    stopped: bool,
}

/// What stands at a path.
#[derive(Default)]
struct Answers {
    /// The pages for those who show this header: its name in lower case, and its value.
    to: Vec<((String, String), Page)>,
    to_all: Option<Page>,
}

/// The most bytes handed to a connection at once.
const BLOCK: u64 = 64 << 10;

impl Site {
    /// Starts one without a path.
    ///
    /// # Panics
    /// When it cannot listen.
    #[expect(clippy::new_without_default, reason = "it listens")]
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the site");
        let addr = listener.local_addr().expect("the site's address");
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        let acceptor = thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming().flatten() {
                if serving.state().stopped {
                    break;
                }
                let serving = serving.clone();
                connections.push(thread::spawn(move || drop(serving.connection(stream))));
            }
            for connection in connections {
                let _ = connection.join();
            }
        });
        Self {
            addr,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The value of `--upstream` that lets a mirror reach it under its address: on this host itself no
    /// registry is meant that nobody set up.
    pub fn upstream(&self) -> String {
        format!("{}={}", self.addr, self.url(""))
    }

    /// A path at a mirror that has it as [`Self::upstream`], as containerd names a registry.
    pub fn mirrored(&self, path: &str) -> String {
        format!("{path}?ns={}", self.addr)
    }

    /// Answers everybody at this path so from now on, but those who have a page of their own.
    pub fn serve(&self, path: &str, page: Page) {
        self.change(path, |answers| answers.to_all = Some(page));
    }

    /// Answers those who show these credentials at this path so from now on.
    pub fn serve_to(&self, credentials: Credentials, path: &str, page: Page) {
        self.change(path, |answers| {
            let shown = shown(credentials);
            answers.to.retain(|(other, _)| *other != shown);
            answers.to.push((shown, page));
        });
    }

    /// Takes these credentials for none from now on, at this path.
    pub fn revoke(&self, credentials: Credentials, path: &str) {
        let shown = shown(credentials);
        self.change(path, |answers| {
            answers.to.retain(|(other, _)| *other != shown);
        });
    }

    /// Sends what was held back, and holds nothing back any more.
    pub fn release(&self) {
        self.shared.state().released = true;
        self.shared.changed.notify_all();
    }

    /// What it was asked so far, in the order in which the requests came.
    pub fn hits(&self) -> Vec<Hit> {
        self.shared.state().hits.clone()
    }

    /// What it was asked at one path so far.
    pub fn hits_at(&self, path: &str) -> Vec<Hit> {
        let mut hits = self.hits();
        hits.retain(|hit| path_of(&hit.target) == path);
        hits
    }

    /// Bytes of this content that it sent so far, but for single ones: by asking for one byte it is
    /// found out who may read a content.
    pub fn sent_of(&self, content: &Content) -> u64 {
        let hits = self.hits().into_iter();
        hits.filter(|hit| hit.content.sha256() == content.sha256() && hit.sent > 1)
            .map(|hit| hit.sent)
            .sum()
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut Answers)) {
        change(
            self.shared
                .state()
                .paths
                .entry(path.to_owned())
                .or_default(),
        );
    }
}

impl Hit {
    /// Whether it showed these credentials.
    pub fn shows(&self, (name, value): Credentials) -> bool {
        self.headers.get(&name.to_lowercase()).map(String::as_str) == Some(value)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.shared.state().stopped = true;
        self.shared.changed.notify_all();
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn shown((name, value): Credentials) -> (String, String) {
    (name.to_lowercase(), value.to_owned())
}

fn path_of(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection: requests, one after the other.
    fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        stream.set_write_timeout(Some(Duration::from_millis(200)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(head) = self.head(&mut reader)? {
            let request = Request::read(&head);
            let last = request.header("connection") == Some("close");
            self.skip(&mut reader, request.body_length())?;
            self.respond(&mut stream, request)?;
            if last {
                break;
            }
        }
        stream.shutdown(Shutdown::Write)
    }

    /// The lines of a request's head; none when there is no further request.
    fn head(&self, reader: &mut impl io::BufRead) -> io::Result<Option<Vec<String>>> {
        let mut head = Vec::new();
        let mut line = String::new();
        loop {
            match reader.read_line(&mut line) {
                Ok(0) => return Ok(None),
                Ok(_) if line.trim_end().is_empty() => return Ok(Some(head)),
                Ok(_) => head.push(std::mem::take(&mut line).trim_end().to_owned()),
                Err(error) if is_timeout(&error) => {
                    if self.state().stopped {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads over a request's body.
    fn skip(&self, reader: &mut impl io::BufRead, mut length: usize) -> io::Result<()> {
        while length > 0 {
            match reader.fill_buf() {
                Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => {
                    let len = bytes.len().min(length);
                    reader.consume(len);
                    length -= len;
                }
                Err(error) if is_timeout(&error) && !self.state().stopped => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn respond(&self, stream: &mut TcpStream, request: Request) -> io::Result<()> {
        let head_only = request.method == "HEAD";
        // What it is answered is decided, and written down, as it comes: a test that has seen a
        // request knows by what it was judged.
        let (number, page, answer) = {
            let mut state = self.state();
            let page = state.page(&request);
            let answer = Answer::new(&page, &request);
            state.hits.push(Hit {
                method: request.method,
                target: request.target,
                headers: request.headers,
                status: answer.status,
                content: page.body.clone(),
                sent: 0,
            });
            (state.hits.len() - 1, page, answer)
        };
        if page.hold_head {
            self.wait_for_release()?;
        }
        self.write(stream, answer.head(&page).as_bytes())?;
        if head_only || answer.status == 304 {
            return Ok(());
        }
        self.body(stream, number, &page, answer.part)?;
        if !page.length {
            self.write(stream, b"0\r\n\r\n")?;
        }
        Ok(())
    }

    fn body(
        &self,
        stream: &mut TcpStream,
        number: usize,
        page: &Page,
        (mut at, end): (u64, u64),
    ) -> io::Result<()> {
        while at < end {
            let mut stop = (at + BLOCK).min(end);
            match page.hold_at {
                Some(hold) if at >= hold => self.wait_for_release()?,
                Some(hold) => stop = stop.min(hold),
                None => {}
            }
            let block = &page.body.bytes()[at as usize..stop as usize];
            if page.length {
                self.write(stream, block)?;
            } else {
                self.write(stream, format!("{:x}\r\n", block.len()).as_bytes())?;
                self.write(stream, block)?;
                self.write(stream, b"\r\n")?;
            }
            self.state().hits[number].sent += stop - at;
            at = stop;
        }
        Ok(())
    }

    fn wait_for_release(&self) -> io::Result<()> {
        let mut state = self.state();
        while !state.released && !state.stopped {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// Writes everything, however slowly it is taken, unless the site is stopped.
    fn write(&self, stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if is_timeout(&error) && !self.state().stopped => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl State {
    /// What a request is answered.
    fn page(&self, request: &Request) -> Page {
        let Some(answers) = self.paths.get(path_of(&request.target)) else {
            return Page::status(404);
        };
        let known = answers
            .to
            .iter()
            .find(|((name, value), _)| request.header(name) == Some(value));
        let page = known.map(|(_, page)| page).or(answers.to_all.as_ref());
        page.cloned().unwrap_or_else(|| Page::status(404))
    }
}
