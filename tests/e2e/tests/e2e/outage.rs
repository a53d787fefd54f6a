//! Origins that stop serving while a swarm reads: what one peer meets all peers know, so that
//! nobody waits for ever, and the origin is not asked by everybody.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use pantala_e2e::{Content, MIB, Origin, Peers, Script, Supernode};

/// How long so many peers, which read together, take to end after their origin has died in the middle.
fn end_after_the_origins_death(count: usize, seed: u64) -> Duration {
    let content = Content::new(seed, 16 * MIB);
    let script = Script {
        hold_at: Some(8 * MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(count, &origin.url(), &supernode);
    peers.wait_for_bytes(0..count, 7 * MIB as u64);
    drop(origin);
    let started = Instant::now();
    for number in 0..count {
        let finished = peers.finish(number);
        assert_eq!(finished.code, 3, "peer {number}: {}", finished.stderr);
        assert!(!peers.file(number).exists());
    }
    started.elapsed()
}

/// The mean of several that read alone at the same time, because the pauses between attempts are drawn by
/// lot.
fn end_alone() -> Duration {
    const LOTS: u32 = 6;
    let alone = (0..LOTS).map(|number| {
        thread::spawn(move || end_after_the_origins_death(1, 724 + u64::from(number)))
    });
    let alone: Vec<_> = alone.collect();
    let all: Duration = alone.into_iter().map(|one| one.join().unwrap()).sum();
    all / LOTS
}

#[test]
fn an_origins_death_ends_many_as_soon_as_one() {
    let alone = end_alone();
    for count in [2, 5] {
        let together = end_after_the_origins_death(count, 721);
        println!("{count} end after {together:?}, one after {alone:?}");
        assert!(
            together <= alone * 3 / 2,
            "{count}: {together:?}, {alone:?}"
        );
    }
}

/// An origin that refuses with a status and `Retry-After` for as long as it is told, and counts.
struct Busy {
    addr: SocketAddr,
    load: Arc<Load>,
}

/// What a busy origin was asked, and when.
struct Load {
    content: Content,
    pause: Duration,
    /// Of how many bytes of the content it is never too busy.
    before: usize,
    asked: Mutex<Vec<Instant>>,
    /// Since when it has been too busy.
    since: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Busy {
    /// It refuses the first request and all that come within `pause` of it.
    fn start(content: &Content, pause: Duration) -> Self {
        let busy = Self::start_after(content, pause, 0);
        busy.begin();
        busy
    }

    /// It serves so many bytes to the first request. When it is told to be too busy it breaks that answer off,
    /// and refuses all requests that come within `pause` of it.
    fn start_after(content: &Content, pause: Duration, before: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let load = Arc::new(Load {
            content: content.clone(),
            pause,
            before,
            asked: Mutex::default(),
            since: Mutex::default(),
            changed: Condvar::new(),
        });
        let seen = load.clone();
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let load = seen.clone();
                thread::spawn(move || answer(stream, &load));
            }
        });
        Self { addr, load }
    }

    /// Now it is too busy.
    fn begin(&self) {
        *self.load.since.lock().unwrap() = Some(Instant::now());
        self.load.changed.notify_all();
    }

    fn url(&self) -> String {
        format!("http://{}/file.bin", self.addr)
    }

    fn asked(&self) -> Vec<Duration> {
        let asked = self.load.asked.lock().unwrap();
        let first = asked.first().copied();
        asked.iter().map(|at| *at - first.unwrap()).collect()
    }
}

impl Load {
    /// Serves what it is never too busy for, and breaks off when it is.
    fn serve_some(&self, stream: &mut TcpStream) -> Option<()> {
        let head = format!(
            "HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\nETag: \"busy\"\r\nContent-Length: {}\r\n\r\n",
            self.content.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        let bytes = &self.content.bytes()[..self.before];
        stream.write_all(bytes).ok()?;
        let since = self.since.lock().ok()?;
        let busy = self.changed.wait_while(since, |since| since.is_none());
        busy.ok().map(drop)
    }
}

fn answer(stream: TcpStream, load: &Load) -> Option<()> {
    let (content, pause) = (&load.content, load.pause);
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        let (mut start, mut end) = (0, content.len() as usize);
        let mut any = false;
        while reader.read_line(&mut line).ok()? > 0 && !line.trim_end().is_empty() {
            any = true;
            let range = line.to_lowercase();
            if let Some(range) = range.strip_prefix("range: bytes=") {
                let (first, last) = range.trim_end().split_once('-')?;
                start = first.parse().ok()?;
                end = last.parse().map_or(end, |last: usize| end.min(last + 1));
            }
            line.clear();
        }
        if !any {
            return None;
        }
        let now = Instant::now();
        let first = {
            let mut asked = load.asked.lock().ok()?;
            asked.push(now);
            asked.len() == 1
        };
        if first && load.before > 0 {
            return load.serve_some(&mut stream);
        }
        // From the first request on, where it has been too busy from the start.
        let since = *load.since.lock().ok()?.get_or_insert(now);
        let since = match load.before {
            0 => *load.asked.lock().ok()?.first()?,
            _ => since,
        };
        if now < since + pause {
            let seconds = pause.as_secs();
            let head = format!(
                "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).ok()?;
            continue;
        }
        let (length, body) = (content.len() as usize, &content.bytes()[start..end]);
        let range = match body.len() {
            all if all == length => "200 OK".to_owned(),
            _ => format!(
                "206 Partial Content\r\nContent-Range: bytes {start}-{}/{length}",
                end - 1
            ),
        };
        let head = format!(
            "HTTP/1.1 {range}\r\nAccept-Ranges: bytes\r\nETag: \"busy\"\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
    }
}

#[test]
fn a_short_pause_that_the_origin_asks_for_binds_all_peers() {
    let content = Content::new(722, 4 * MIB);
    let origin = Busy::start(&content, Duration::from_secs(2));
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(12, &origin.url(), &supernode);
    peers.assert_complete(0..12, &content);
    let asked = origin.asked();
    // One that is refused and one that is not; a peer that comes when another goes asks once more.
    assert!(asked.len() <= 4, "{asked:?}");
}

/// The requests that so many peers make of an origin that is too busy for a while when all are in the
/// middle of a content, before they have all of it.
fn requests_of_a_busy_origin(count: usize, seed: u64) -> usize {
    let content = Content::new(seed, 8 * MIB);
    let origin = Busy::start_after(&content, Duration::from_secs(3), 3 * MIB);
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    peers.start(count, &origin.url(), &supernode);
    peers.wait_for_bytes(0..count, 2 * MIB as u64);
    origin.begin();
    peers.assert_complete(0..count, &content);
    let asked = origin.asked();
    println!("{count} peers: {asked:?}");
    asked.len()
}

#[test]
fn a_pause_in_the_middle_of_a_content_binds_all_peers() {
    let alone = requests_of_a_busy_origin(1, 731);
    assert!(alone <= 3, "{alone}");
    let together = requests_of_a_busy_origin(12, 732);
    // The lease may move once meanwhile, and once more when the origin serves again.
    assert!(together <= alone + 3, "{together}, one alone {alone}");
}

#[test]
fn a_long_pause_that_the_origin_asks_for_is_told_all_peers_at_once() {
    let content = Content::new(723, 4 * MIB);
    let origin = Busy::start(&content, Duration::from_secs(600));
    let supernode = Supernode::start();
    let mut peers = Peers::new();
    let started = Instant::now();
    peers.start(8, &origin.url(), &supernode);
    for number in 0..8 {
        let finished = peers.finish(number);
        assert_ne!(finished.code, 0);
        assert!(finished.stderr.contains("429"), "{}", finished.stderr);
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    let asked = origin.asked();
    assert!(asked.len() <= 2, "{asked:?}");
}
