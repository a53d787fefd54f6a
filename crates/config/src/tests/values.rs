//! What the values mean, alone and together.

use std::num::NonZeroU32;

use pantala_core::ByteRange;

use super::*;
use crate::{DaemonUse, Locality, Output, Range, Window};

#[test]
fn defaults_are_as_documented() {
    let get = dfget(&[]).unwrap();
    assert_eq!(get.output, Output::File("big.bin".into()));
    assert_eq!((get.memory, get.window), (256 << 20, Window::Auto));
    assert_eq!(get.daemon, DaemonUse::Auto);
    assert_eq!(get.daemon_addr.to_string(), "127.0.0.1:65001");
    assert_eq!(get.peer_listen.to_string(), "127.0.0.1:0");
    assert_eq!(
        (get.advertise, get.limit_rate, get.timeout),
        (None, None, None)
    );
    assert_eq!(get.log, "warn");

    let daemon = dfdaemon(&[]).unwrap();
    assert_eq!(daemon.listen.to_string(), "127.0.0.1:65001");
    assert_eq!(daemon.peer_listen.to_string(), "127.0.0.1:65002");
    assert_eq!(daemon.client_timeout, Duration::from_secs(300));
    assert_eq!(daemon.connections, 2048);
    let small = dfdaemon(&["--memory", "4MiB"]).unwrap();
    assert_eq!(small.connections, 64);
    let large = dfdaemon(&["--memory", "64GiB"]).unwrap();
    assert_eq!(large.connections, 4096);
    assert_eq!(daemon.supernode_listen.to_string(), "127.0.0.1:8002");
    assert!(daemon.supernode.is_empty());
    assert_eq!(
        (daemon.memory, daemon.uploads, daemon.retries),
        (512 << 20, 8, 4)
    );
    assert_eq!(daemon.connect_timeout, Duration::from_secs(5));
    assert_eq!(daemon.timeout, Duration::from_secs(60));
    assert_eq!(daemon.read_timeout, Duration::from_secs(15));
    assert_eq!(daemon.drain, Duration::from_secs(10));

    let args = words("supernode", &[]);
    let supernode = SupernodeConfig::parse_from(args, vars(&[]), file("")).unwrap();
    assert_eq!(supernode.listen.to_string(), "0.0.0.0:8002");
    assert_eq!(supernode.fresh_for, Duration::from_secs(10));
    assert_eq!(supernode.lease_timeout, Duration::from_secs(1));
    assert_eq!(supernode.locality, Locality::Labels);
    assert_eq!(supernode.stripes, 0);
}

#[test]
fn every_flag_refuses_nonsense_and_says_what_is_allowed() {
    let cases: &[(&str, &[&str])] = &[
        (
            "--supernode",
            &["", "a", "a:0", "a:99999", "http://a:1", "a:1,,b:2", "a b:1"],
        ),
        (
            "--daemon-addr",
            &["localhost:1", ":1", "0.0.0.0:1", "127.0.0.1:0"],
        ),
        ("--peer-listen", &["65002", "10.0.0.1", "::1:1:x"]),
        ("--advertise", &["0.0.0.0:1", "[::]:1"]),
        ("--memory", &["", "much", "-1", "4095KiB", "0"]),
        ("--window", &["0", "-1", "all", "9999999999"]),
        ("--limit-rate", &["0", "fast"]),
        ("--upload-rate", &["0", "-1"]),
        ("--timeout", &["0", "0s", "soon", "10"]),
        ("--connect-timeout", &["0ms"]),
        ("--retries", &["-1", "101", "x"]),
        ("--uploads", &["0", "1025"]),
        ("--digest", &["sha256:12", "md5:00", ""]),
        (
            "--range",
            &[
                "",
                "-",
                "5-1",
                "-0",
                "a-b",
                "1-2,4-5",
                "bytes=0-1",
                "0-99999999999999999999",
            ],
        ),
        (
            "--header",
            &[
                "novalue",
                "bad name: x",
                ": x",
                "Range: bytes=0-1",
                "Content-Length: 1",
                "A: \u{1}",
            ],
        ),
        ("--ca", &[""]),
        ("--output", &[""]),
        ("--log", &["", "inof", "pantala=loud"]),
    ];
    for (flag, values) in cases {
        for value in *values {
            let message = refusal(dfget(&[flag, value]));
            assert!(
                message.starts_with(&format!("usage: {flag}")),
                "{flag} {value:?}: {message}"
            );
            assert!(message.contains("; "), "{flag} {value:?}: {message}");
        }
    }
    let cases: &[(&str, &[&str])] = &[
        ("--upload-rate", &["0"]),
        ("--download-rate", &["", "1MiB/s"]),
        ("--task-upload-rate", &["no"]),
        ("--task-download-rate", &["0"]),
        (
            "--mirror",
            &[
                "registry.example",
                "ftp://registry.example",
                "https://registry.example?a=1",
            ],
        ),
        ("--label", &["rack", "=r1", "rack=", "a b=c"]),
        ("--filter-query", &["", "a=b"]),
        ("--harmless-header", &["", "a b", "X-Build: 7", "Cookie"]),
        ("--drain", &["x"]),
    ];
    for (flag, values) in cases {
        for value in *values {
            let message = refusal(dfdaemon(&[flag, value]));
            assert!(
                message.starts_with(&format!("usage: {flag}")),
                "{flag} {value:?}: {message}"
            );
        }
    }
}

#[test]
fn headers_keep_order_and_secrets() {
    let config = dfget(&[
        "-H",
        "Accept: a, b",
        "-H",
        "accept: c",
        "-H",
        "X-Token: s3cret",
    ])
    .unwrap();
    let accept: Vec<_> = config.headers.get_all("accept").iter().collect();
    assert_eq!(accept, ["a, b", "c"]);
    let lines = [("PANTALA_HEADER", "Accept: a, b\nX-Token: s3cret\n")];
    assert_eq!(dfget_with(&[URL], &lines, "").unwrap().headers.len(), 2);
    assert!(!format!("{config:?} {:?}", config.headers).contains("s3cret"));
    assert!(!refusal(dfget(&["-H", "X Token: s3cret"])).contains("s3cret"));
    assert!(!refusal(dfget(&["-H", "s3cret"])).contains("s3cret"));
    let url = dfget_with(&["https://me:s3cret@origin.example/f?sig=s3cret"], &[], "").unwrap();
    assert!(!format!("{url:?}").contains("s3cret"));
}

#[test]
fn ranges_are_read_as_http_means_them() {
    let range = |text| dfget(&["--range", text]).unwrap().range.unwrap();
    assert_eq!(
        range("0-1023"),
        Range::Bytes(ByteRange::new(0, Some(1024)).unwrap())
    );
    assert_eq!(range("7-"), Range::Bytes(ByteRange::from(7)));
    assert_eq!(range("-500"), Range::Suffix(500));
    for text in ["0-1023", "7-", "-500", "0-0"] {
        assert_eq!(range(text).to_string(), format!("bytes={text}"));
    }
    let bytes = |start, end| ByteRange::new(start, Some(end));
    assert_eq!(range("0-1023").resolve(100), bytes(0, 100));
    assert_eq!(range("-500").resolve(100), bytes(0, 100));
    assert_eq!(range("-5").resolve(100), bytes(95, 100));
    assert_eq!(range("100-").resolve(100), None);
    assert_eq!(range("-5").resolve(0), None);
}

#[test]
fn the_output_comes_from_the_url_or_is_asked_for() {
    let named = |url| dfget_with(&[url], &[], "").map(|config| config.output);
    let file = |name: &str| Output::File(name.into());
    assert_eq!(
        named("http://origin.example/a/b%20c.bin?x=1").unwrap(),
        file("b c.bin")
    );
    for url in [
        "http://origin.example",
        "http://origin.example/a/",
        "http://origin.example/a%2Fb",
        "http://origin.example/%2e%2e",
        "http://origin.example/a%00b",
    ] {
        assert!(refusal(named(url)).contains("give -o FILE"), "{url}");
    }
    assert_eq!(dfget(&["-o", "-"]).unwrap().output, Output::Stdout);
    let slash = dfget_with(&["http://origin.example/", "-o", "x"], &[], "").unwrap();
    assert_eq!(slash.output, file("x"));
}

#[cfg(unix)]
#[test]
fn a_path_need_not_be_unicode() {
    use std::os::unix::ffi::OsStringExt as _;
    let path = OsString::from_vec(vec![b'f', 0xff]);
    let mut args = words("dfget", &[URL, "-o"]);
    args.push(path.clone());
    let config = DfgetConfig::parse_from(args, vars(&[]), file("")).unwrap();
    assert_eq!(config.output, Output::File(path.clone().into()));
    let mut args = words("dfget", &[URL, "--memory"]);
    args.push(path);
    assert!(refusal(DfgetConfig::parse_from(args, vars(&[]), file(""))).contains("not UTF-8"));
}

#[test]
fn urls_that_cannot_be_downloaded_are_refused() {
    for url in [
        "origin.example/f",
        "ftp://origin.example/f",
        "http://",
        "http://[::1",
        "file:///etc/f",
    ] {
        let message = refusal(dfget_with(&[url], &[], ""));
        assert!(message.contains("http"), "{message}");
    }
    let message = refusal(dfget_with(
        &["gopher://me:pw@origin.example/f?sig=1"],
        &[],
        "",
    ));
    assert!(
        message.contains("URL gopher://origin.example/f: "),
        "{message}"
    );
}

#[test]
fn peers_are_served_beyond_loopback_only_where_some_can_come_from() {
    let daemon = |flags: &[&str]| dfdaemon(flags).unwrap().peer_listen.to_string();
    let get = |flags: &[&str]| dfget(flags).unwrap().peer_listen.to_string();
    for here in [
        "127.0.0.1:8002",
        "localhost:8002",
        "LOCALHOST.:8002",
        "[::1]:8002",
        "127.9.9.9:1",
    ] {
        assert_eq!(daemon(&["--supernode", here]), "127.0.0.1:65002", "{here}");
        assert_eq!(get(&["--supernode", here]), "127.0.0.1:0", "{here}");
    }
    for there in [
        "10.0.0.1:8002",
        "super.example:8002",
        "localhost:1,[fd00::1]:1",
    ] {
        assert_eq!(daemon(&["--supernode", there]), "0.0.0.0:65002", "{there}");
        assert_eq!(get(&["--supernode", there]), "0.0.0.0:0", "{there}");
        let told = ["--supernode", there, "--peer-listen", "127.0.0.1:7"];
        assert_eq!(daemon(&told), "127.0.0.1:7");
        assert_eq!(get(&told), "127.0.0.1:7");
    }
    // Others can find the supernode inside, or are told where this peer is.
    assert_eq!(
        daemon(&["--supernode-listen", "0.0.0.0:8002"]),
        "0.0.0.0:65002"
    );
    assert_eq!(daemon(&["--advertise", "10.0.0.1:9"]), "0.0.0.0:65002");
    assert_eq!(daemon(&["--peer-listen", "0.0.0.0:7"]), "0.0.0.0:7");
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    let message = refusal(dfget(&["--no-origin", "--daemon", "never"]));
    assert!(message.contains("nobody to ask"), "{message}");
    assert!(dfget(&["--no-origin", "--daemon", "never", "--supernode", "a:1"]).is_ok());
    assert!(dfget(&["--no-origin", "--daemon", "only"]).is_ok());

    let message = refusal(dfget(&["--advertise", "10.0.0.1:0"]));
    assert!(
        message.contains("the port is not known beforehand"),
        "{message}"
    );
    let config = dfget(&["--advertise", "10.0.0.1:0", "--peer-listen", "0.0.0.0:7000"]).unwrap();
    assert_eq!(config.advertise.unwrap().to_string(), "10.0.0.1:7000");
    let config = dfdaemon(&["--advertise", "10.0.0.1:9"]).unwrap();
    assert_eq!(config.advertise.unwrap().to_string(), "10.0.0.1:9");

    let message = refusal(dfget(&["--window", "9", "--memory", "8MiB"]));
    assert!(
        message.contains("give at most 8 pieces or more memory"),
        "{message}"
    );
    let config = dfget(&["--window", "8", "--memory", "8MiB"]).unwrap();
    assert_eq!(config.window, Window::Pieces(NonZeroU32::new(8).unwrap()));

    let digest = format!("sha256:{}", "0".repeat(64));
    let message = refusal(dfget(&["--digest", &digest, "--range", "0-9"]));
    assert!(message.contains("whole content"), "{message}");
    assert!(dfget(&["--digest", &digest, "--range", "0-"]).is_ok());

    let message = refusal(dfdaemon(&["--listen", "127.0.0.1:65002"]));
    assert!(message.contains("takes that port"), "{message}");
    let message = refusal(dfdaemon(&["--listen", "0.0.0.0:8002"]));
    assert!(
        message.contains("--supernode-listen 127.0.0.1:8002"),
        "{message}"
    );
    assert!(dfdaemon(&["--listen", "0.0.0.0:8002", "--supernode", "a:1"]).is_ok());
    assert!(dfdaemon(&["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"]).is_ok());
}
