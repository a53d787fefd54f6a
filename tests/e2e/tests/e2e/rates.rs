//! Limits on bytes a second: at no moment has anybody more than a burst and what the time allows.

use std::time::Instant;

use pantala_e2e::{Content, Dfdaemon, Dfget, MIB, Origin, Process, Script, Supernode, until};

/// Watches bytes that may come no faster than a limit.
struct Watch {
    started: Instant,
    rate: u64,
    /// What may come at once.
    burst: u64,
}

impl Watch {
    /// To be made before whatever sends the bytes is started.
    fn new(rate: u64) -> Self {
        Self {
            started: Instant::now(),
            rate,
            // A twentieth of a second's.
            burst: rate / 20,
        }
    }

    /// So many bytes were there at some time before this is called.
    #[track_caller]
    fn saw(&self, bytes: u64) {
        let nanos = self.started.elapsed().as_nanos();
        let most = u128::from(self.burst) + u128::from(self.rate) * nanos / 1_000_000_000 + 1;
        assert!(u128::from(bytes) <= most, "{bytes} bytes, {most} at most");
    }

    /// Until all of these have ended.
    #[track_caller]
    fn over(&self, readers: &[Process]) {
        let mut checks = 0;
        until("the end of all readers", || {
            checks += 1;
            let running = readers.iter().any(Process::is_running);
            self.saw(
                readers
                    .iter()
                    .map(|reader| reader.output().len() as u64)
                    .sum(),
            );
            (!running).then_some(())
        });
        assert!(checks > 3, "too short to see anything");
    }
}

fn complete(reader: Process, content: &Content) {
    let done = reader.wait();
    done.assert_success();
    content.assert_bytes(&done.stdout);
}

#[test]
fn a_daemon_takes_all_contents_together_no_faster_than_its_limit() {
    let contents = [Content::new(300, 2 * MIB), Content::new(301, 2 * MIB + 3)];
    let origins = contents
        .each_ref()
        .map(|content| Origin::start(content, Script::default()));
    let daemon = Dfdaemon::start_alone(&["--download-rate", "4MiB"]);
    let watch = Watch::new(4 * MIB as u64);
    let readers = origins.each_ref().map(|origin| {
        Dfget::through(&daemon, origin.url())
            .args(["-o", "-"])
            .start()
    });
    watch.over(&readers);
    for (reader, content) in readers.into_iter().zip(&contents) {
        complete(reader, content);
    }
    for origin in &origins {
        assert_eq!(origin.asked().len(), 1, "{:?}", origin.asked());
    }
}

#[test]
fn a_limit_for_each_content_holds_for_each_from_peers_too() {
    let contents = [Content::new(302, 5 * MIB), Content::new(303, 5 * MIB)];
    let origins = contents
        .each_ref()
        .map(|content| Origin::start(content, Script::default()));
    let supernode = Supernode::start();
    let full = Dfdaemon::start(&supernode, &[]);
    for (origin, content) in origins.iter().zip(&contents) {
        complete(
            Dfget::through(&full, origin.url())
                .args(["-o", "-"])
                .start(),
            content,
        );
    }
    let daemon = Dfdaemon::start(&supernode, &["--task-download-rate", "3MiB"]);
    let watches = [Watch::new(3 * MIB as u64), Watch::new(3 * MIB as u64)];
    let readers = origins.each_ref().map(|origin| {
        Dfget::through(&daemon, origin.url())
            .args(["-o", "-"])
            .start()
    });
    until("the end of both", || {
        let running = readers.iter().any(Process::is_running);
        for (watch, reader) in watches.iter().zip(&readers) {
            watch.saw(reader.output().len() as u64);
        }
        (!running).then_some(())
    });
    for (reader, content) in readers.into_iter().zip(&contents) {
        complete(reader, content);
    }
    // That it comes slowly is nobody's fault: nobody else was asked.
    assert_eq!(daemon.metric("pantala_pieces_hedged_total"), 0);
    for origin in &origins {
        assert_eq!(origin.asked().len(), 1, "{:?}", origin.asked());
    }
}

#[test]
fn a_daemon_sends_no_faster_than_its_limits() {
    let content = Content::new(304, 4 * MIB);
    let origin = Origin::start(&content, Script::default());
    for flag in ["--upload-rate", "--task-upload-rate"] {
        let supernode = Supernode::start();
        let full = Dfdaemon::start(&supernode, &[flag, "4MiB"]);
        complete(
            Dfget::through(&full, origin.url())
                .args(["-o", "-"])
                .start(),
            &content,
        );
        let watch = Watch::new(4 * MIB as u64);
        let child = Dfget::new(origin.url())
            .with(&supernode)
            .args(["-o", "-", "--no-origin"])
            .start();
        until("the end of the child", || {
            let running = child.is_running();
            watch.saw(full.metric("pantala_peer_sent_bytes_total"));
            (!running).then_some(())
        });
        complete(child, &content);
    }
}

#[test]
fn a_readers_limit_holds_for_what_is_not_shared() {
    let content = Content::new(305, 2 * MIB + 7);
    let script = Script {
        no_store: true,
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let daemon = Dfdaemon::start_alone(&[]);
    let limit = ["-o", "-", "--limit-rate", "2MiB"];
    for way in [
        Dfget::new(origin.url()),
        Dfget::through(&daemon, origin.url()),
    ] {
        let watch = Watch::new(2 * MIB as u64);
        let reader = [way.args(limit).start()];
        watch.over(&reader);
        for reader in reader {
            complete(reader, &content);
        }
    }
    let range = ["--range", "1048570-1048585"];
    let part = Dfget::new(origin.url()).args(limit).args(range).run();
    part.assert_success();
    Content::of(content.bytes()[1_048_570..=1_048_585].to_vec()).assert_bytes(&part.stdout);
    let digest = format!("sha256:{}", Content::new(306, 1).sha256());
    let wrong = Dfget::new(origin.url())
        .args(limit)
        .args(["--digest", &digest])
        .run();
    assert_eq!(wrong.code, 8, "{}", wrong.stderr);
}

#[test]
fn the_background_stands_still_while_a_reader_of_its_host_waits() {
    let (awaited, stock) = (Content::new(307, 4 * MIB), Content::new(308, 96 * MIB));
    let script = Script {
        hold_at: Some(2 * MIB as u64),
        ..Script::default()
    };
    let (slow, fast) = (
        Origin::start(&awaited, script),
        Origin::start(&stock, Script::default()),
    );
    let daemon = Dfdaemon::start_alone(&[]);
    let reader = Dfget::through(&daemon, slow.url())
        .args(["-o", "-"])
        .start();
    until("a reader that waits", || {
        (reader.output().len() >= MIB).then_some(())
    });
    let background = Dfget::through(&daemon, fast.url())
        .args(["-o", "-", "--background"])
        .start();
    until("the background's first request", || {
        (!fast.asked().is_empty()).then_some(())
    });
    // However long one looks: it cannot end.
    for _ in 0..60 {
        assert!(background.is_running(), "{}", background.stderr());
        assert!(background.output().len() < stock.bytes().len());
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    slow.release();
    complete(reader, &awaited);
    complete(background, &stock);
}

#[test]
fn the_background_gets_all_of_it_from_a_peer() {
    let content = Content::new(309, 8 * MIB + 1);
    let origin = Origin::start(&content, Script::default());
    let supernode = Supernode::start();
    let full = Dfdaemon::start(&supernode, &[]);
    complete(
        Dfget::through(&full, origin.url())
            .args(["-o", "-"])
            .start(),
        &content,
    );
    let child = Dfget::new(origin.url())
        .with(&supernode)
        .args(["-o", "-", "--background", "--no-origin"])
        .start();
    complete(child, &content);
    assert_eq!(origin.asked().len(), 1, "{:?}", origin.asked());
}
