//! Contents that are too large: for the least memory, and for everything.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use pantala_e2e::{Dfdaemon, Dfget, MIB, Process, Supernode, until};

/// An origin that says that its content has this many bytes, and sends zeros for as long as somebody
/// takes them.
fn vast(length: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    // Ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().ok()?);
                let mut line = String::new();
                let mut start = 0;
                while reader.read_line(&mut line).ok()? > 0 && !line.trim_end().is_empty() {
                    if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
                        start = range.split('-').next()?.parse().ok()?;
                    }
                    line.clear();
                }
                let mut stream = stream;
                let range = match start {
                    0 => "200 OK".to_owned(),
                    _ => format!(
                        "206 Partial Content\r\nContent-Range: bytes {start}-{}/{length}",
                        length - 1
                    ),
                };
                let head = format!(
                    "HTTP/1.1 {range}\r\nAccept-Ranges: bytes\r\nETag: \"vast\"\r\nContent-Length: {}\r\n\r\n",
                    length - start
                );
                stream.write_all(head.as_bytes()).ok()?;
                let zeros = vec![0; 64 << 10];
                while stream.write_all(&zeros).is_ok() {}
                Some(())
            });
        }
    });
    format!("http://{addr}/vast.bin")
}

/// Reads so many bytes of what a program writes to its standard output.
///
/// # Panics
/// When they do not come.
fn takes(mut process: Process, bytes: usize) {
    let mut pipe = process.take_stdout();
    let reading = thread::spawn(move || pipe.read_exact(&mut vec![0; bytes]).is_ok());
    until("bytes, or the end", || reading.is_finished().then_some(()));
    assert!(reading.join().unwrap(), "{}", process.stderr());
}

const LEAST: [&str; 2] = ["--memory", "4MiB"];

#[test]
fn the_least_memory_is_enough_for_content_in_large_pieces() {
    let url = vast(3 << 30);
    let alone = Dfget::new(&url).args(["-o", "-"]).args(LEAST);
    takes(alone.start_piped(), 24 * MIB);

    let supernode = Supernode::start();
    let member = || Dfget::new(&url).args(["-o", "-"]).with(&supernode);
    takes(member().args(LEAST).start_piped(), 24 * MIB);
    // Somebody else has it in pieces that do not fit here.
    let mut other = member().start_piped();
    let mut pipe = other.take_stdout();
    pipe.read_exact(&mut vec![0; 8 * MIB]).unwrap();
    takes(member().args(LEAST).start_piped(), 24 * MIB);
    assert!(other.is_running(), "{}", other.stderr());
}

#[test]
fn content_longer_than_can_be_counted_comes_from_its_origin() {
    let daemon = Dfdaemon::start_alone(&[]);
    for length in [(1 << 44) + 1, 1 << 54, (1 << 54) + (1 << 20), u64::MAX >> 1] {
        let url = vast(length);
        let started = Instant::now();
        takes(
            Dfget::through(&daemon, &url)
                .args(["-o", "-"])
                .start_piped(),
            2 * MIB,
        );
        assert!(started.elapsed() < Duration::from_secs(20), "{length}");
    }
}
