//! Origins that stop serving while a swarm reads: what one peer meets all peers know, so that
//! nobody waits for ever, and the origin is not asked by everybody.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use pantala_e2e::{Content, MIB, Origin, Peers, Script, Supernode};

/// How long so many peers take to end after their origin has died in the middle.
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

#[test]
fn an_origins_death_ends_many_as_soon_as_one() {
    let alone = end_after_the_origins_death(1, 720);
    for count in [2, 5] {
        let together = end_after_the_origins_death(count, 721);
        // Pauses between attempts are drawn by lot, and the machine may be busy.
        let most = alone * 3 / 2 + Duration::from_secs(2);
        assert!(together < most, "{count}: {together:?}, {alone:?}");
    }
}

/// An origin that refuses with a status and `Retry-After` for as long as it is told, and counts.
struct Busy {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Busy {
    /// It refuses the first request and all that come within `pause` of it.
    fn start(content: &Content, pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let (seen, content) = (asked.clone(), content.clone());
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, content) = (seen.clone(), content.clone());
                thread::spawn(move || answer(stream, &seen, &content, pause));
            }
        });
        Self { addr, asked }
    }

    fn url(&self) -> String {
        format!("http://{}/file.bin", self.addr)
    }

    fn asked(&self) -> Vec<Duration> {
        let asked = self.asked.lock().unwrap();
        let first = asked.first().copied();
        asked.iter().map(|at| *at - first.unwrap()).collect()
    }
}

fn answer(
    stream: TcpStream,
    asked: &Mutex<Vec<Instant>>,
    content: &Content,
    pause: Duration,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        let mut start = 0;
        let mut any = false;
        while reader.read_line(&mut line).ok()? > 0 && !line.trim_end().is_empty() {
            any = true;
            let range = line.to_lowercase();
            if let Some(range) = range.strip_prefix("range: bytes=") {
                start = range.split('-').next()?.parse().ok()?;
            }
            line.clear();
        }
        if !any {
            return None;
        }
        let refuse = {
            let mut asked = asked.lock().ok()?;
            let now = Instant::now();
            asked.push(now);
            now - *asked.first()? < pause
        };
        if refuse {
            let seconds = pause.as_secs();
            let head = format!(
                "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).ok()?;
            continue;
        }
        let (length, body) = (content.len(), &content.bytes()[start..]);
        let range = match start {
            0 => "200 OK".to_owned(),
            _ => format!(
                "206 Partial Content\r\nContent-Range: bytes {start}-{}/{length}",
                length - 1
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
