use std::{
    collections::HashMap,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::Content;

/// An origin that misbehaves as told, and remembers what it was asked.
pub struct Origin {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// How an origin behaves; the default is an honest one with everything.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// How the end of a body is told.
    pub length: Length,
    /// Forbids to keep what it sends: it is for who asked alone.
    pub no_store: bool,
    /// Answers every range with the whole, and does not offer any.
    pub ignore_ranges: bool,
    /// Closes the connection after so many bytes of a body, as long as there are cuts left.
    pub cut_after: Option<u64>,
    /// How often it cuts.
    pub cuts: usize,
    /// From this byte of the content on nothing is sent before [`Origin::release`].
    pub hold_at: Option<u64>,
    /// Bytes a second on each connection.
    pub rate: Option<u64>,
    /// A header, by its name in lower case, and the value without which a request is refused (403).
    pub wants: Option<(String, String)>,
    /// Sends every request on to this URL (307).
    pub redirect: Option<String>,
    /// How its answers say which version of the content they are of.
    pub validator: Validator,
    /// A value of `Authorization` with which GETs are refused, and HEADs are not: credentials that have
    /// expired since somebody looked.
    pub expired: Option<String>,
}

/// How an answer says which version of the content it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validator {
    /// A strong entity tag, another one for each version.
    #[default]
    Strong,
    /// A weak entity tag, the same one for all versions.
    Weak,
    /// Not at all.
    None,
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Length {
    /// `Content-Length`.
    #[default]
    Declared,
    /// Chunks, without a length.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// GET, HEAD, …
    pub method: String,
    /// The first byte it asked for.
    pub first: u64,
    /// The byte after the last it asked for; the content's length without one.
    pub end: u64,
    /// Bytes of the body that were handed to the connection so far.
    pub sent: u64,
    /// The headers, names in lower case.
    pub headers: HashMap<String, String>,
}

struct Shared {
    /// The n-th GET is answered with the n-th version, each later one with the last.
    versions: Vec<Content>,
    script: Script,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    cuts: usize,
    released: bool,
    stopped: bool,
    /// Responses whose body is being sent.
    sending: usize,
}

/// Bytes handed to a connection at once.
const BLOCK: usize = 16 << 10;

impl Origin {
    /// Serves `content` under every path.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(content: &Content, script: Script) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), content, script)
    }

    /// The same, on an address of this host's.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start_at(ip: IpAddr, content: &Content, script: Script) -> Self {
        Self::serve(ip, std::slice::from_ref(content), script)
    }

    /// Serves these under every path, one after the other: the first GET is answered with the first,
    /// the next one with the second, all later ones with the last.
    ///
    /// # Panics
    /// When it cannot listen, or there is no version.
    pub fn start_versions(versions: &[Content], script: Script) -> Self {
        Self::serve(Ipv4Addr::LOCALHOST.into(), versions, script)
    }

    fn serve(ip: IpAddr, versions: &[Content], script: Script) -> Self {
        assert!(!versions.is_empty(), "an origin needs a content");
        let listener = TcpListener::bind((ip, 0)).expect("a port for the origin");
        let addr = listener.local_addr().expect("the origin's address");
        let shared = Arc::new(Shared {
            versions: versions.to_vec(),
            script,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
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

    /// The URL of its content.
    pub fn url(&self) -> String {
        format!("http://{}/file.bin", self.addr)
    }

    /// The URL of its content as a registry's blob.
    pub fn blob_url(&self) -> String {
        let digest = self.shared.versions[0].sha256();
        format!("http://{}/v2/x/blobs/sha256:{digest}", self.addr)
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.state().asked.clone()
    }

    /// Bytes of bodies handed to connections so far.
    pub fn sent(&self) -> u64 {
        self.shared
            .state()
            .asked
            .iter()
            .map(|asked| asked.sent)
            .sum()
    }

    /// Bodies being sent now.
    pub fn sending(&self) -> usize {
        self.shared.state().sending
    }

    /// Sends what was held back.
    pub fn release(&self) {
        self.shared.state().released = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Origin {
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

/// Which bytes a request is about.
struct Asking {
    number: usize,
    head: bool,
    range: Option<(u64, u64)>,
    /// Whether it lacks the header that is wanted.
    stranger: bool,
    content: Content,
    refused: bool,
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
        while let Some(asking) = self.request(&mut reader)? {
            self.state().sending += 1;
            let more = self.respond(&mut stream, &asking);
            self.state().sending -= 1;
            if !more? {
                break;
            }
        }
        stream.shutdown(Shutdown::Write)
    }

    fn request(&self, reader: &mut BufReader<TcpStream>) -> io::Result<Option<Asking>> {
        let mut head = Vec::new();
        let mut line = String::new();
        loop {
            match reader.read_line(&mut line) {
                Ok(0) => return Ok(None),
                Ok(_) if line.trim_end().is_empty() => break,
                Ok(_) => head.push(std::mem::take(&mut line).trim_end().to_owned()),
                Err(error) if is_timeout(&error) => {
                    if self.state().stopped {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let method = head.first().and_then(|line| line.split(' ').next());
        let method = method.unwrap_or_default().to_owned();
        let headers: HashMap<String, String> = head
            .iter()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let head = method == "HEAD";
        let stranger = (self.script.wants.iter())
            .any(|(name, value)| headers.get(name.as_str()) != Some(value));
        let mut state = self.state();
        let before = state.asked.iter().filter(|asked| asked.method == "GET");
        let before = before.count();
        let content = self.versions[before.min(self.versions.len() - 1)].clone();
        let length = content.len();
        let range = headers.get("range").and_then(|text| range(text, length));
        let (first, end) = range.unwrap_or((0, length));
        let authorization = headers.get("authorization").cloned();
        state.asked.push(Asked {
            method,
            first,
            end,
            sent: 0,
            headers,
        });
        Ok(Some(Asking {
            number: state.asked.len() - 1,
            head,
            range: range.filter(|_| !self.script.ignore_ranges),
            stranger,
            content,
            refused: !head && authorization.is_some() && authorization == self.script.expired,
        }))
    }

    /// Gives whether the connection can take another request.
    fn respond(&self, stream: &mut TcpStream, asking: &Asking) -> io::Result<bool> {
        if asking.stranger {
            self.write(
                stream,
                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
            )?;
            return Ok(true);
        }
        if let Some(to) = &self.script.redirect {
            let status = "HTTP/1.1 307 Temporary Redirect";
            let head = format!("{status}\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
            self.write(stream, head.as_bytes())?;
            return Ok(true);
        }
        if asking.refused {
            let refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
            self.write(stream, refusal)?;
            return Ok(true);
        }
        let length = asking.content.len();
        let (first, end) = asking.range.unwrap_or((0, length));
        let mut head = String::new();
        if asking.range.is_none() {
            head += "HTTP/1.1 200 OK\r\n";
        } else if first < end {
            head += "HTTP/1.1 206 Partial Content\r\n";
            head += &format!("Content-Range: bytes {first}-{}/{length}\r\n", end - 1);
        } else {
            let refusal = format!(
                "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{length}\r\n\
                 Content-Length: 0\r\n\r\n"
            );
            self.write(stream, refusal.as_bytes())?;
            return Ok(true);
        }
        if !self.script.ignore_ranges {
            head += "Accept-Ranges: bytes\r\n";
        }
        if self.script.no_store {
            head += "Cache-Control: no-store\r\n";
        }
        match self.script.validator {
            Validator::Strong => {
                head += &format!("ETag: \"{}\"\r\n", &asking.content.sha256()[..16]);
            }
            Validator::Weak => head += "ETag: W/\"1\"\r\n",
            Validator::None => {}
        }
        match self.script.length {
            Length::Declared => head += &format!("Content-Length: {}\r\n", end - first),
            Length::Chunked => head += "Transfer-Encoding: chunked\r\n",
            Length::UntilClose => head += "Connection: close\r\n",
        }
        head += "\r\n";
        self.write(stream, head.as_bytes())?;
        if asking.head {
            return Ok(true);
        }
        let complete = self.body(stream, asking, first, end)?;
        if complete && self.script.length == Length::Chunked {
            self.write(stream, b"0\r\n\r\n")?;
        }
        Ok(complete && self.script.length != Length::UntilClose)
    }

    /// Sends the body; `false` when it was cut.
    fn body(
        &self,
        stream: &mut TcpStream,
        asking: &Asking,
        first: u64,
        end: u64,
    ) -> io::Result<bool> {
        let mut at = first;
        while at < end {
            let mut stop = (at + BLOCK as u64).min(end);
            if let Some(hold) = self.script.hold_at {
                if at >= hold && !self.wait_for_release() {
                    return Ok(false);
                }
                if at < hold {
                    stop = stop.min(hold);
                }
            }
            if let Some(cut) = self.script.cut_after.map(|cut| first + cut) {
                if at == cut && self.take_cut() {
                    return Ok(false);
                }
                if at < cut {
                    stop = stop.min(cut);
                }
            }
            self.block(stream, &asking.content.bytes()[at as usize..stop as usize])?;
            self.state().asked[asking.number].sent += stop - at;
            if let Some(rate) = self.script.rate {
                thread::sleep(Duration::from_secs_f64((stop - at) as f64 / rate as f64));
            }
            at = stop;
        }
        Ok(true)
    }

    fn block(&self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        if self.script.length != Length::Chunked {
            return self.write(stream, bytes);
        }
        self.write(stream, format!("{:x}\r\n", bytes.len()).as_bytes())?;
        self.write(stream, bytes)?;
        self.write(stream, b"\r\n")
    }

    fn take_cut(&self) -> bool {
        let mut state = self.state();
        let cut = state.cuts < self.script.cuts;
        state.cuts += usize::from(cut);
        cut
    }

    fn wait_for_release(&self) -> bool {
        let mut state = self.state();
        while !state.released && !state.stopped {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        !state.stopped
    }

    /// Writes everything, however slowly it is taken, unless the origin is stopped.
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

pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-LAST` as offsets; empty when it lies outside.
pub(crate) fn range(text: &str, length: u64) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let last: u64 = last.parse().ok()?;
        return Some((length.saturating_sub(last), length));
    }
    let first: u64 = first.parse().ok()?;
    let end = match last {
        "" => length,
        last => last.parse::<u64>().ok()?.saturating_add(1).min(length),
    };
    Some(if first < end { (first, end) } else { (0, 0) })
}
