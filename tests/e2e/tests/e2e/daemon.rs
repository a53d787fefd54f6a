//! dfdaemon as an HTTP proxy, and dfget through it.

use std::{io::Read as _, process::Command};

use pantala_e2e::{
    Content, Dfdaemon, Dfget, MIB, Need, Nginx, Origin, Process, Script, Signal, Supernode,
    http_get, needs, program, until,
};

fn hosts(count: usize, supernode: &Supernode, flags: &[&str]) -> Vec<Dfdaemon> {
    (0..count)
        .map(|_| Dfdaemon::start(supernode, flags))
        .collect()
}

fn curls(daemons: &[Dfdaemon], url: &str) -> Vec<Process> {
    daemons
        .iter()
        .map(|daemon| Process::start("curl", daemon.curl(url)))
        .collect()
}

#[test]
fn three_hosts_proxy_a_file_that_leaves_nginx_once() {
    needs!(Need::Program("nginx"), Need::Program("curl"));
    let nginx = Nginx::start();
    let content = Content::new(70, 40 * MIB + 5);
    nginx.put("file.bin", &content);
    let supernode = Supernode::start();
    let daemons = hosts(3, &supernode, &[]);
    let written: u64 = daemons
        .iter()
        .map(|daemon| daemon.process().disk().written)
        .sum();
    for curl in curls(&daemons, &nginx.url("file.bin")) {
        let done = curl.wait();
        assert_eq!(done.code, 0, "{}", done.stderr);
        content.assert_bytes(&done.stdout);
    }
    let bytes = nginx.bytes_served();
    assert!(bytes * 100 <= content.len() * 102, "{:?}", nginx.served());
    let after: u64 = daemons
        .iter()
        .map(|daemon| daemon.process().disk().written)
        .sum();
    assert!(after - written < MIB as u64, "content went to disk");
    let sent = |name: &str| {
        daemons
            .iter()
            .map(|daemon| daemon.metric(name))
            .sum::<u64>()
    };
    assert_eq!(sent("pantala_reader_sent_bytes_total"), 3 * content.len());
    let received = sent("pantala_peer_received_bytes_total");
    assert!(received >= 2 * content.len(), "{received}");
}

/// What a debug build holds besides content: its tables and stacks are larger.
const DEBUG_BUILD: u64 = 16 * MIB as u64;

#[test]
fn the_memory_budget_is_kept() {
    needs!(Need::Program("nginx"), Need::Program("curl"));
    let nginx = Nginx::start();
    let content = Content::new(71, 96 * MIB);
    nginx.put("file.bin", &content);
    let supernode = Supernode::start();
    let cap = 24 * MIB as u64;
    let daemons = hosts(3, &supernode, &["--memory", "24MiB"]);
    for curl in curls(&daemons, &nginx.url("file.bin")) {
        let done = curl.wait();
        assert_eq!(done.code, 0, "{}", done.stderr);
        content.assert_bytes(&done.stdout);
    }
    for daemon in &daemons {
        let peak = daemon.process().peak_memory();
        let most = cap + cap / 10 + 32 * MIB as u64 + DEBUG_BUILD;
        assert!(peak <= most, "{peak} bytes of memory, {most} allowed");
        assert_eq!(daemon.metric("pantala_memory_limit_bytes"), cap);
        assert!(daemon.metric("pantala_memory_used_bytes") <= cap);
    }
}

#[test]
fn ranges_and_statuses_pass_through_the_proxy() {
    needs!(Need::Program("nginx"), Need::Program("curl"));
    let nginx = Nginx::start();
    let content = Content::new(72, 5 * MIB);
    nginx.put("file.bin", &content);
    let daemon = Dfdaemon::start_alone(&[]);
    let run = |flags: &[&str], path: &str| {
        let mut curl = daemon.curl(&nginx.url(path));
        curl.args(flags);
        Process::start("curl", curl).wait()
    };
    let part = run(&["-r", "2000000-3999999"], "file.bin");
    assert_eq!(part.code, 0, "{}", part.stderr);
    Content::of(content.bytes()[2_000_000..4_000_000].to_vec()).assert_bytes(&part.stdout);
    for status in [401, 403, 404, 500] {
        let flags = ["-o", "/dev/null", "-w", "%{http_code}"];
        let done = run(&flags, &format!("status/{status}"));
        assert_eq!(String::from_utf8_lossy(&done.stdout), status.to_string());
    }
    let head = run(&["-I"], "file.bin");
    let head = String::from_utf8_lossy(&head.stdout).to_lowercase();
    assert!(
        head.contains(&format!("content-length: {}", content.len())),
        "{head}"
    );
}

#[test]
fn a_body_that_breaks_does_not_look_complete() {
    needs!(Need::Program("curl"));
    let content = Content::new(73, 4 * MIB);
    let script = Script {
        cut_after: Some(MIB as u64),
        cuts: 1,
        hold_at: Some(MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let daemon = Dfdaemon::start_alone(&["--retries", "0", "--read-timeout", "1s"]);
    let done = Process::start("curl", daemon.curl(&origin.url())).wait();
    assert_ne!(done.code, 0, "a truncated body was taken for whole");
    assert!(done.stdout.len() < content.bytes().len());
}

#[test]
fn a_client_that_goes_away_ends_the_transfer() {
    needs!(Need::Program("curl"));
    let content = Content::new(74, 64 * MIB);
    let script = Script {
        rate: Some(32 * MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let daemon = Dfdaemon::start_alone(&[]);
    let mut curl = Process::start_piped("curl", daemon.curl(&origin.url()));
    let mut pipe = curl.take_stdout();
    pipe.read_exact(&mut vec![0; 2 * MIB]).unwrap();
    curl.signal(Signal::Kill);
    until("the end of the origin's transfer", || {
        (origin.sending() == 0).then_some(())
    });
    assert!(origin.sent() < content.len());
}

#[test]
fn a_daemon_freezes_and_the_others_go_on() {
    needs!(Need::Program("curl"));
    let content = Content::new(75, 32 * MIB);
    let script = Script {
        rate: Some(12 * MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let supernode = Supernode::start();
    let daemons = hosts(3, &supernode, &[]);
    let mut running = curls(&daemons, &origin.url());
    until("bytes everywhere", || {
        let begun = |curl: &Process| curl.output().len() >= 4 * MIB;
        running.iter().all(begun).then_some(())
    });
    daemons[0].process().signal(Signal::Stop);
    let first = running.remove(0);
    for curl in running {
        let done = curl.wait();
        assert_eq!(done.code, 0, "{}", done.stderr);
        content.assert_bytes(&done.stdout);
    }
    daemons[0].process().signal(Signal::Continue);
    let done = first.wait();
    assert_eq!(done.code, 0, "{}", done.stderr);
    content.assert_bytes(&done.stdout);
}

#[test]
fn dfget_goes_through_the_daemon_of_its_host() {
    let content = Content::new(76, 9 * MIB + 3);
    let origin = Origin::start(&content, Script::default());
    let daemon = Dfdaemon::start_alone(&[]);
    let directory = tempfile::tempdir().unwrap();
    let digest = format!("sha256:{}", content.sha256());
    for number in 0..2 {
        let file = directory.path().join(number.to_string());
        let done = Dfget::through(&daemon, origin.url()).to(&file).run();
        done.assert_success();
        content.assert_file(&file);
        let range = Dfget::through(&daemon, origin.url())
            .args(["-o", "-", "--range", "1048577-5000000"])
            .run();
        range.assert_success();
        Content::of(content.bytes()[1_048_577..=5_000_000].to_vec()).assert_bytes(&range.stdout);
    }
    let asked = origin.asked();
    let bytes: u64 = asked.iter().map(|asked| asked.sent).sum();
    assert_eq!(
        bytes,
        content.len(),
        "from memory the second time: {asked:?}"
    );
    let checked = Dfget::through(&daemon, origin.url())
        .args(["-o", "-", "--digest", &digest])
        .run();
    checked.assert_success();
    content.assert_bytes(&checked.stdout);
}

#[test]
fn the_daemon_refuses_as_the_origin_does() {
    needs!(Need::Program("nginx"));
    let nginx = Nginx::start();
    let daemon = Dfdaemon::start_alone(&["--retries", "0"]);
    let directory = tempfile::tempdir().unwrap();
    for (status, code) in [(401, 4), (403, 4), (404, 5), (500, 6)] {
        let url = nginx.url(&format!("status/{status}"));
        let failed = Dfget::through(&daemon, &url)
            .to(directory.path().join("f"))
            .run();
        failed.assert_failed(code, &[&status.to_string()]);
    }
    let digest = format!("sha256:{}", Content::new(77, 1).sha256());
    nginx.put("file.bin", &Content::new(78, 3 * MIB));
    let failed = Dfget::through(&daemon, nginx.url("file.bin"))
        .args(["--digest", &digest])
        .to(directory.path().join("f"))
        .run();
    failed.assert_failed(8, &["digest"]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn without_a_daemon_only_fails_and_auto_goes_on() {
    let content = Content::new(79, MIB);
    let origin = Origin::start(&content, Script::default());
    let nobody = format!("127.0.0.1:{}", pantala_e2e::free_port());
    let run = |daemon: &str| {
        let mut command: Command = program("dfget");
        command
            .arg(origin.url())
            .args(["-o", "-", "--daemon", daemon, "--daemon-addr", &nobody])
            .args(["--peer-listen", "127.0.0.1:0"]);
        Process::start("dfget", command).wait()
    };
    run("only").assert_failed(12, &[&nobody, "; "]);
    let done = run("auto");
    done.assert_success();
    content.assert_bytes(&done.stdout);
}

#[test]
fn a_daemon_that_is_stopped_lets_streams_finish() {
    needs!(Need::Program("curl"));
    let content = Content::new(80, 8 * MIB);
    let script = Script {
        hold_at: Some(4 * MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let daemon = Dfdaemon::start_alone(&["--drain", "1m"]);
    let addr = daemon.addr();
    let curl = Process::start("curl", daemon.curl(&origin.url()));
    until("half of it", || {
        (curl.output().len() >= 3 * MIB).then_some(())
    });
    daemon.process().signal(Signal::Terminate);
    until("no new clients", || {
        let answer = http_get(addr, "/healthz");
        (answer.is_none_or(|(status, _)| status != 200)).then_some(())
    });
    origin.release();
    let done = curl.wait();
    assert_eq!(done.code, 0, "{}", done.stderr);
    content.assert_bytes(&done.stdout);
    assert_eq!(daemon.into_process().wait().code, 0);
}
