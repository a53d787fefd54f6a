//! dfget on its own: no supernode, no peers.

use pantala_e2e::{Content, Dfget, Length, MIB, Need, Nginx, Origin, Script, needs};

#[test]
fn a_file_comes_from_nginx_with_one_request() {
    needs!(Need::Program("nginx"));
    let nginx = Nginx::start();
    let content = Content::new(1, 24 * MIB + 12_345);
    nginx.put("file.bin", &content);
    let directory = tempfile::tempdir().unwrap();

    // Without -o it is the URL's last segment in the current directory.
    let done = Dfget::new(nginx.url("file.bin"))
        .current_dir(directory.path())
        .run();
    done.assert_success();
    assert_eq!(done.stderr, "", "nothing to say without a terminal");
    content.assert_file(&directory.path().join("file.bin"));

    let served = nginx.served();
    assert_eq!(served.len(), 1, "{served:?}");
    assert_eq!(served[0].method, "GET");
    assert_eq!(served[0].bytes, content.len());
}

#[test]
fn each_byte_is_written_once_and_none_is_read_back() {
    needs!(Need::Program("nginx"));
    let nginx = Nginx::start();
    let content = Content::new(2, 48 * MIB);
    nginx.put("file.bin", &content);
    let directory = tempfile::tempdir().unwrap();
    let digest = format!("sha256:{}", content.sha256());
    let done = Dfget::new(nginx.url("file.bin"))
        .args(["--digest", &digest])
        .to(directory.path().join("f"))
        .run();
    done.assert_success();
    content.assert_file(&directory.path().join("f"));
    // What is not content: pages of the program itself that were not in memory yet.
    let small = 8 * MIB as u64;
    assert!(
        done.disk.written <= content.len() + small,
        "{:?}",
        done.disk
    );
    assert!(done.disk.read <= content.len() / 2, "{:?}", done.disk);
}

#[test]
fn standard_output_gets_every_byte_in_order() {
    let content = Content::new(3, 5 * MIB + 1);
    let origin = Origin::start(&content, Script::default());
    let done = Dfget::new(origin.url()).args(["-o", "-"]).run();
    done.assert_success();
    content.assert_bytes(&done.stdout);
    assert_eq!(origin.asked().len(), 1);
}

#[test]
fn ranges_in_all_their_forms() {
    needs!(Need::Program("nginx"));
    let nginx = Nginx::start();
    let content = Content::new(4, 9 * MIB + 77);
    nginx.put("file.bin", &content);
    let len = content.bytes().len();
    let (small, middle) = (3 * MIB + 5, 6 * MIB + 7);
    for (range, first, end) in [
        ("0-1023".to_owned(), 0, 1024),
        ("0-".to_owned(), 0, len),
        (format!("{small}-{}", middle - 1), small, middle),
        (format!("{middle}-"), middle, len),
        (format!("{}-", len - 1), len - 1, len),
        ("-1024".to_owned(), len - 1024, len),
        (format!("-{}", 2 * len), 0, len),
        // A last byte beyond the end means the end.
        (format!("{middle}-{}", 2 * len), middle, len),
    ] {
        let done = Dfget::new(nginx.url("file.bin"))
            .args(["-o", "-"])
            .arg(format!("--range={range}"))
            .run();
        done.assert_success();
        let part = Content::of(content.bytes()[first..end].to_vec());
        assert_eq!(done.stdout.len() as u64, part.len(), "range {range}");
        part.assert_bytes(&done.stdout);
    }
    let beyond = Dfget::new(nginx.url("file.bin"))
        .args(["-o", "-"])
        .arg(format!("--range={len}-"))
        .run();
    beyond.assert_failed(7, &["range"]);
    assert!(beyond.stdout.is_empty());
}

#[test]
fn a_range_does_not_fetch_the_rest() {
    needs!(Need::Program("nginx"));
    let nginx = Nginx::start();
    let content = Content::new(5, 64 * MIB);
    nginx.put("file.bin", &content);
    let range = format!("{}-{}", 40 * MIB, 41 * MIB - 1);
    let done = Dfget::new(nginx.url("file.bin"))
        .args(["-o", "-", "--range", &range])
        .run();
    done.assert_success();
    Content::of(content.bytes()[40 * MIB..41 * MIB].to_vec()).assert_bytes(&done.stdout);
    let served = nginx.served();
    // nginx counts what it has handed to a connection that was then closed.
    let bytes: u64 = served.iter().map(|served| served.bytes).sum();
    assert!(bytes <= 16 * MIB as u64, "{served:?}");
}

#[test]
fn the_right_digest_passes_and_a_wrong_one_leaves_nothing() {
    let content = Content::new(6, 3 * MIB);
    let origin = Origin::start(&content, Script::default());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f");
    let right = format!("sha256:{}", content.sha256());
    let done = Dfget::new(origin.url())
        .args(["--digest", &right])
        .to(&file)
        .run();
    done.assert_success();
    content.assert_file(&file);
    std::fs::remove_file(&file).unwrap();

    let wrong = format!("sha256:{}", Content::new(7, 10).sha256());
    let failed = Dfget::new(origin.url())
        .args(["--digest", &wrong])
        .to(&file)
        .run();
    failed.assert_failed(8, &["digest", "; "]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn content_of_unknown_length() {
    for length in [Length::Chunked, Length::UntilClose] {
        for len in [0, 1, MIB, 7 * MIB + 3] {
            let content = Content::new(8, len);
            let script = Script {
                length,
                ..Script::default()
            };
            let origin = Origin::start(&content, script);
            let done = Dfget::new(origin.url()).args(["-o", "-"]).run();
            assert_eq!(done.code, 0, "{length:?} {len}: {}", done.stderr);
            content.assert_bytes(&done.stdout);
            assert_eq!(origin.asked().len(), 1, "{length:?} {len}");
        }
    }
}

#[test]
fn sizes_around_pieces() {
    for len in [0, 1, MIB - 1, MIB, MIB + 1, 4 * MIB, 4 * MIB + 1] {
        let content = Content::new(9, len);
        let origin = Origin::start(&content, Script::default());
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        let done = Dfget::new(origin.url()).to(&file).run();
        assert_eq!(done.code, 0, "{len} bytes: {}", done.stderr);
        content.assert_file(&file);
        assert_eq!(origin.asked().len(), 1, "{len} bytes: {:?}", origin.asked());
    }
}

#[test]
fn an_origin_without_ranges() {
    let content = Content::new(10, 6 * MIB + 9);
    let script = Script {
        ignore_ranges: true,
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let done = Dfget::new(origin.url()).args(["-o", "-"]).run();
    done.assert_success();
    content.assert_bytes(&done.stdout);
    assert_eq!(origin.asked().len(), 1);

    // It sends everything when it is asked for a part.
    let (first, last) = (5 * MIB, 5 * MIB + 99);
    let part = Dfget::new(origin.url())
        .args(["-o", "-"])
        .arg(format!("--range={first}-{last}"))
        .run();
    part.assert_success();
    Content::of(content.bytes()[first..=last].to_vec()).assert_bytes(&part.stdout);
}

#[test]
fn a_transfer_that_breaks_goes_on_at_the_same_byte() {
    let content = Content::new(11, 8 * MIB);
    let cut = 1_500_000;
    let script = Script {
        cut_after: Some(cut),
        cuts: 3,
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let done = Dfget::new(origin.url()).args(["-o", "-"]).run();
    done.assert_success();
    content.assert_bytes(&done.stdout);
    let firsts: Vec<u64> = origin.asked().iter().map(|asked| asked.first).collect();
    assert_eq!(firsts, [0, cut, 2 * cut, 3 * cut]);
    assert_eq!(origin.sent(), content.len());
    for resumed in &origin.asked()[1..] {
        // The rest of another content must not come.
        let condition = resumed.headers.get("if-range");
        assert!(condition.is_some(), "{resumed:?}");
    }
}

#[test]
fn an_origin_that_never_gets_through_is_given_up() {
    let content = Content::new(12, 2 * MIB);
    let script = Script {
        cut_after: Some(0),
        cuts: usize::MAX,
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let directory = tempfile::tempdir().unwrap();
    let failed = Dfget::new(origin.url())
        .args(["--retries", "2"])
        .to(directory.path().join("f"))
        .run();
    failed.assert_failed(3, &["127.0.0.1"]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    // Each transfer is tried three times, and given up after three transfers.
    let asked = origin.asked().len();
    assert!((3..=9).contains(&asked), "asked {asked} times");
}

#[test]
fn redirects_are_followed() {
    needs!(Need::Program("nginx"));
    let nginx = Nginx::start();
    let content = Content::new(13, 3 * MIB + 1);
    nginx.put("file.bin", &content);
    let done = Dfget::new(nginx.url("moved/file.bin"))
        .args(["-o", "-"])
        .run();
    done.assert_success();
    content.assert_bytes(&done.stdout);
    let statuses: Vec<u16> = nginx.served().iter().map(|served| served.status).collect();
    assert_eq!(statuses, [302, 200]);
}

#[test]
fn headers_of_the_user_reach_the_origin() {
    let content = Content::new(14, 1000);
    let origin = Origin::start(&content, Script::default());
    let done = Dfget::new(origin.url())
        .args([
            "-o",
            "-",
            "-H",
            "X-Team: blue",
            "-H",
            "Authorization: Bearer t",
        ])
        .run();
    done.assert_success();
    content.assert_bytes(&done.stdout);
    let asked = &origin.asked()[0];
    assert_eq!(asked.headers["x-team"], "blue");
    assert_eq!(asked.headers["authorization"], "Bearer t");
}
