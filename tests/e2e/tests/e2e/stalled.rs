//! Clients that stop reading, and connections that say nothing: nobody else notices.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::SocketAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use pantala_e2e::{
    Content, Dfdaemon, Dfget, MIB, Need, Origin, Process, Script, Stalled, Supernode, ask,
    http_get, needs, program, silent, until,
};

/// Many times what the other content takes on a slow machine, and less than it takes until somebody
/// else gives memory back.
const SOON: Duration = Duration::from_secs(20);

/// The target of a content of its own.
fn target(origin: &Origin, name: &str) -> String {
    origin.url().replace("file.bin", name)
}

/// Reads a content of its own through the daemon; how long that took.
fn read_other(daemon: &Dfdaemon, origin: &Origin, name: &str, content: &Content) -> Duration {
    let started = Instant::now();
    let answer = ask(daemon.addr(), "GET", &target(origin, name), &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    content.assert_bytes(&answer.body);
    started.elapsed()
}

fn healthy(addr: SocketAddr) {
    let started = Instant::now();
    assert_eq!(
        http_get(addr, "/healthz").map(|(status, _)| status),
        Some(200)
    );
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "/healthz took {took:?}");
}

/// Contents of others come as before, and the daemon keeps within its memory.
fn nobody_notices(daemon: &Dfdaemon, other: &Origin, content: &Content) {
    let took: Vec<Duration> = (0..3)
        .map(|number| {
            healthy(daemon.addr());
            read_other(daemon, other, &format!("during-{number}"), content)
        })
        .collect();
    let least = took.iter().min().copied().unwrap_or_default();
    println!("beside those who stand still: {took:?}");
    assert!(
        least < SOON,
        "beside those who stand still it took {took:?}"
    );
    // A tenth of the memory and 32 MiB are for all that is no content.
    let most = (32 + 32) * MIB as u64 + 32 * MIB as u64 / 10;
    let peak = daemon.process().peak_memory();
    println!("{peak} bytes of memory, {most} at most");
    assert!(peak <= most, "{peak} bytes of memory, {most} at most");
}

#[test]
fn clients_that_stop_reading_slow_nobody() {
    let content = Content::new(870, 48 * MIB);
    let others = Content::new(876, 16 * MIB);
    let origin = Origin::start(&content, Script::default());
    let other = Origin::start(&others, Script::default());
    let daemon = Dfdaemon::start_alone(&["--memory", "32MiB"]);
    let alone = read_other(&daemon, &other, "before", &others);
    println!("alone: {alone:?}");
    // Known content is shared, however many come at once.
    let known = ask(daemon.addr(), "GET", &origin.url(), &[], b"");
    content.assert_bytes(&known.body);
    // Each at a place of its own: together they need more than there is.
    let mut stalled: Vec<Stalled> = (0..40)
        .map(|number| {
            let range = format!("Range: bytes={}-\r\n", number * MIB);
            Stalled::ask(daemon.addr(), &origin.url(), &range)
        })
        .collect();
    until("all to be readers", || {
        (daemon.metric("pantala_readers") >= 40).then_some(())
    });
    nobody_notices(&daemon, &other, &others);

    // They are served when they go on.
    for number in [0, 39] {
        let part = Content::of(content.bytes()[number * MIB..].to_vec());
        part.assert_bytes(stalled[number].read_body(part.bytes().len()));
    }
}

/// About as many clients as 32 MiB have room for what is read ahead of them.
const SERVED: usize = 50;

/// More clients than that, each with an answer that is for it alone.
fn ask_alone(daemon: &Dfdaemon, origin: &Origin) -> Vec<Stalled> {
    let stalled = (0..120)
        .map(|number| Stalled::ask(daemon.addr(), &target(origin, &number.to_string()), ""))
        .collect();
    until("the first of them to be served", || {
        (origin.sending() >= SERVED).then_some(())
    });
    stalled
}

fn unshared(content: &Content) -> Origin {
    let script = Script {
        no_store: true,
        ..Script::default()
    };
    Origin::start(content, script)
}

#[test]
fn clients_that_stop_reading_what_is_theirs_alone_slow_nobody() {
    let content = Content::new(874, 8 * MIB);
    let origin = unshared(&content);
    let other = Origin::start(&content, Script::default());
    let daemon = Dfdaemon::start_alone(&["--memory", "32MiB"]);
    let stalled = ask_alone(&daemon, &origin);
    // Those who wait and read come in the end, in place of some that stand still. They all read at once:
    // one that stood still meanwhile could be ended in its turn.
    let (stalled, mut waiting): (Vec<_>, Vec<_>) =
        stalled.into_iter().partition(Stalled::is_answered);
    let reading = waiting.split_off(waiting.len().saturating_sub(8));
    assert!(!reading.is_empty(), "nobody waits");
    thread::scope(|scope| {
        for mut client in reading {
            let content = &content;
            scope.spawn(move || client.assert_whole(content));
        }
        nobody_notices(&daemon, &other, &content);
    });
    drop((stalled, waiting));
}

#[test]
fn no_more_clients_are_ended_than_others_wait() {
    let content = Content::new(877, 8 * MIB);
    let origin = unshared(&content);
    // One that stands still for a thirtieth of that makes room for another one.
    let flags = ["--memory", "32MiB", "--client-timeout", "60s"];
    let daemon = Dfdaemon::start_alone(&flags);
    let stalled = ask_alone(&daemon, &origin);
    until("each of them to be answered", || {
        stalled.iter().all(Stalled::is_answered).then_some(())
    });
    let left = daemon.metric("pantala_proxy_connections");
    assert!(left >= SERVED as u64, "{left} of {SERVED} are left");
}

/// Bytes that the kernel has of this program for each of its clients, by their ports.
fn queued(daemon: &Dfdaemon) -> BTreeMap<String, u64> {
    let lines = fs::read_to_string(format!("/proc/{}/net/tcp", daemon.process().id()));
    let lines = lines.expect("its connections");
    let own = format!(":{:04X}", daemon.addr().port());
    let rows = lines
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let established = rows.filter(|row| row[1].ends_with(&own) && row[3] == "01");
    established
        .map(|row| {
            let (sent, _) = row[4].split_once(':').expect("two queues");
            let bytes = u64::from_str_radix(sent, 16).expect("bytes in hexadecimal");
            (row[2].to_owned(), bytes)
        })
        .collect()
}

#[test]
fn what_clients_do_not_take_does_not_fill_the_kernel() {
    const CLIENTS: usize = 200;
    let content = Content::new(878, 8 * MIB);
    let origin = Origin::start(&content, Script::default());
    let daemon = Dfdaemon::start_alone(&["--memory", "64MiB"]);
    let known = ask(daemon.addr(), "GET", &origin.url(), &[], b"");
    content.assert_bytes(&known.body);
    let mut stalled: Vec<Stalled> = (0..CLIENTS)
        .map(|_| Stalled::ask(daemon.addr(), &origin.url(), ""))
        .collect();
    let mut before = BTreeMap::new();
    let queued = until("the kernel to take no more for them", || {
        let answered = stalled.iter().all(Stalled::is_answered);
        let now = queued(&daemon);
        (answered && std::mem::replace(&mut before, now.clone()) == now).then_some(now)
    });
    assert!(queued.len() >= CLIENTS, "{} clients", queued.len());
    // What all programs of the host have for TCP is little. Left to itself the kernel takes 1 to 4 MiB for each.
    let sum: u64 = queued.values().sum();
    let most = queued.values().max();
    println!("{sum} bytes for {CLIENTS} clients, {most:?} for one");
    assert!(sum <= 32 * MIB as u64, "{sum} bytes, {most:?} for one");
    // A client that takes its bytes gets them all.
    stalled[CLIENTS - 1].assert_whole(&content);
}

#[test]
fn a_thousand_clients_that_stop_reading_are_within_the_memory() {
    const CLIENTS: usize = 1000;
    let content = Content::new(879, 8 * MIB);
    let other = Content::new(880, 16 * MIB);
    let origin = Origin::start(&content, Script::default());
    let others = Origin::start(&other, Script::default());
    // As many connections as it has by itself are a few more.
    let daemon = Dfdaemon::start_alone(&["--memory", "256MiB"]);
    let known = ask(daemon.addr(), "GET", &origin.url(), &[], b"");
    content.assert_bytes(&known.body);
    let stalled = silent(daemon.addr(), CLIENTS);
    for mut client in &stalled {
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url());
        client
            .write_all(request.as_bytes())
            .expect("the request is taken");
    }
    until("all to be readers", || {
        (daemon.metric("pantala_readers") >= CLIENTS as u64).then_some(())
    });
    // More than all of the memory, so that none of it is left unused.
    let size = other.bytes().len() as u64;
    for number in 0..2 * (256 * MIB as u64).div_ceil(size) {
        read_other(&daemon, &others, &number.to_string(), &other);
    }
    healthy(daemon.addr());
    // A tenth of the memory and 32 MiB are for all that is no content.
    let most = (256 + 32) * MIB as u64 + 256 * MIB as u64 / 10;
    let peak = daemon.process().peak_memory();
    println!("{peak} bytes of memory, {most} at most");
    assert!(peak <= most, "{peak} bytes of memory, {most} at most");
    until("the memory in use to be the sum of what is held", || {
        let held = daemon.metric("pantala_memory_held_bytes");
        (held == daemon.metric("pantala_memory_used_bytes")).then_some(())
    });
    drop(stalled);
}

/// A request that is passed on as it is.
const PASSED_ON: &str = "Cache-Control: no-store\r\n";

#[test]
fn clients_that_stop_reading_what_is_passed_on_slow_nobody() {
    // Many times as many as have room for what is read ahead, and each has more than the kernel takes of it.
    const CLIENTS: usize = 300;
    let content = Content::new(881, MIB);
    let others = Content::new(882, 16 * MIB);
    let origin = Origin::start(&content, Script::default());
    let other = Origin::start(&others, Script::default());
    let events = Origin::start(
        &content,
        Script {
            hold_at: Some(1000),
            ..Script::default()
        },
    );
    // More connections than it has by itself.
    let flags = [
        "--memory",
        "32MiB",
        "--connections",
        "400",
        "--client-timeout",
        "60s",
    ];
    let daemon = Dfdaemon::start_alone(&flags);
    let mut waiting = Stalled::get(daemon.addr(), &events.url(), PASSED_ON);
    let stalled: Vec<Stalled> = (0..CLIENTS)
        .map(|_| Stalled::ask(daemon.addr(), &origin.url(), PASSED_ON))
        .collect();
    until("each of them to be answered", || {
        stalled.iter().all(Stalled::is_answered).then_some(())
    });
    nobody_notices(&daemon, &other, &others);
    // An answer that goes on, one that comes, and one that is for its reader alone.
    events.release();
    waiting.assert_whole(&content);
    Stalled::ask(daemon.addr(), &origin.url(), PASSED_ON).assert_whole(&content);
    let unshared = unshared(&content);
    Stalled::ask(daemon.addr(), &unshared.url(), "").assert_whole(&content);
    nobody_notices(&daemon, &other, &others);
    until("the memory in use to be the sum of what is held", || {
        let held = daemon.metric("pantala_memory_held_bytes");
        (held == daemon.metric("pantala_memory_used_bytes")).then_some(())
    });
    drop(stalled);
}

#[test]
fn answers_that_wait_for_their_origin_take_no_room() {
    let content = Content::new(883, MIB);
    let held = Script {
        hold_at: Some(1000),
        ..Script::default()
    };
    let events = Origin::start(&content, held);
    let unshared = unshared(&content);
    let daemon = Dfdaemon::start_alone(&["--memory", "32MiB"]);
    let used = daemon.metric("pantala_memory_used_bytes");
    // Each has had what there was of its answer.
    let mut waiting: Vec<Stalled> = (0..2 * SERVED)
        .map(|_| Stalled::get(daemon.addr(), &events.url(), PASSED_ON))
        .collect();
    until("the memory of what they have had", || {
        (daemon.metric("pantala_memory_used_bytes") == used).then_some(())
    });
    // Answers that need a place have one.
    for number in 0..3 {
        let own = target(&unshared, &number.to_string());
        Stalled::ask(daemon.addr(), &own, "").assert_whole(&content);
    }
    events.release();
    thread::scope(|scope| {
        for client in &mut waiting {
            let content = &content;
            scope.spawn(move || client.assert_whole(content));
        }
    });
}

#[test]
fn a_client_that_takes_nothing_for_too_long_is_ended() {
    let content = Content::new(871, 24 * MIB);
    let origin = Origin::start(&content, Script::default());
    let daemon = Dfdaemon::start_alone(&["--client-timeout", "1s"]);
    let mut stalled: Vec<Stalled> = (0..8)
        .map(|_| Stalled::get(daemon.addr(), &origin.url(), ""))
        .collect();
    until("the end of those who take nothing", || {
        (daemon.metric("pantala_proxy_connections") <= 1).then_some(())
    });
    let got = stalled[0].read_body(content.bytes().len());
    assert!(got.len() < content.bytes().len(), "it cannot look complete");
    assert_eq!(got, &content.bytes()[..got.len()]);
}

#[test]
fn operators_are_answered_whatever_clients_do() {
    let content = Content::new(872, 24 * MIB);
    let origin = Origin::start(&content, Script::default());
    let daemon = Dfdaemon::start_alone(&["--connections", "16"]);
    // Silent ones make room for those that ask for something.
    let silent = silent(daemon.addr(), 300);
    healthy(daemon.addr());
    let quick = target(&origin, "quick");
    until("a place among the silent", || {
        let answer = ask(daemon.addr(), "GET", &quick, &[], b"");
        (answer.status == 200).then(|| content.assert_bytes(&answer.body))
    });

    let stalled: Vec<Stalled> = (0..16)
        .map(|number| Stalled::get(daemon.addr(), &target(&origin, &number.to_string()), ""))
        .collect();
    assert!(stalled.iter().all(|client| client.status() == 200));
    healthy(daemon.addr());
    let refused = ask(daemon.addr(), "GET", &target(&origin, "late"), &[], b"");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.header("retry-after"), Some("1"));
    // One that stands still makes room in the end.
    until("a place", || {
        let answer = ask(daemon.addr(), "GET", &target(&origin, "late"), &[], b"");
        (answer.status == 200).then_some(())
    });
    drop((silent, stalled));
}

#[test]
fn silent_connections_keep_no_peer_out() {
    let content = Content::new(873, 8 * MIB);
    let origin = Origin::start(&content, Script::default());
    let supernode = Supernode::start();
    let daemon = Dfdaemon::start(&supernode, &[]);
    let url = origin.url();
    let read = ask(daemon.addr(), "GET", &url, &[], b"");
    content.assert_bytes(&read.body);
    let said = daemon.process().stderr();
    let peers = said.split(" for clients and ").nth(1);
    let peers = peers.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let silent = silent(peers.expect("where peers are served"), 1100);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f");
    Dfget::new(&url)
        .args(["--no-origin", "--timeout", "60s"])
        .with(&supernode)
        .to(&file)
        .run()
        .assert_success();
    content.assert_file(&file);
    drop(silent);
}

/// Where a process listens, by what the kernel says of its network.
fn listeners(process: &Process) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{}/fd", process.id())).expect("its descriptors");
    let own: Vec<String> = links
        .flatten()
        .filter_map(|link| fs::read_link(link.path()).ok())
        .filter_map(|to| {
            let inode = to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let lines = fs::read_to_string(format!("/proc/{}/net/{table}", process.id()));
        for line in lines.unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields[3] == "0A";
            if listens && own.iter().any(|inode| inode == fields[9]) {
                found.push(fields[1].to_owned());
            }
        }
    }
    found
}

/// 127.0.0.1, as the kernel writes it.
const LOOPBACK: &str = "0100007F:";

#[test]
fn without_a_supernode_elsewhere_only_this_host_is_listened_to() {
    needs!(Need::Root, Need::Program("unshare"), Need::Program("ip"));
    // In a network of its own, where the default ports are free.
    let start = |name: &'static str, flags: &[&str]| {
        let program = program(name);
        let mut command = Command::new("unshare");
        command
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up && exec \"$@\"",
                "sh",
            ])
            .arg(program.get_program())
            .args(flags);
        Process::start(name, command)
    };
    let wait = |process: &Process, count: usize| {
        until("the listeners", || {
            assert!(process.is_running(), "it ended: {}", process.stderr());
            let found = listeners(process);
            (found.len() >= count).then_some(found)
        })
    };
    let all_here = |found: &[String]| found.iter().all(|addr| addr.starts_with(LOOPBACK));
    // Clients, peers, the supernode inside.
    let daemon = start("dfdaemon", &[]);
    let found = wait(&daemon, 3);
    assert!(all_here(&found), "{found:?}");
    let daemon = start("dfdaemon", &["--supernode", "localhost:8002"]);
    let found = wait(&daemon, 2);
    assert!(all_here(&found), "{found:?}");
    let daemon = start("dfdaemon", &["--supernode", "192.0.2.1:8002"]);
    let found = wait(&daemon, 2);
    assert!(!all_here(&found), "{found:?}");
    // It waits for an origin that nobody can reach.
    let url = "http://192.0.2.1/file.bin";
    let get = start("dfget", &[url, "-o", "-", "--daemon", "never"]);
    let found = wait(&get, 1);
    assert!(all_here(&found), "{found:?}");
}
