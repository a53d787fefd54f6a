//! What is, and is not, under the file's name.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use pantala_e2e::{
    Content, Dfdaemon, Dfget, Length, MIB, Need, Origin, Process, Script, Signal, Supernode, needs,
    part_files, until,
};

/// A download that has written half of its content and gets no more before the origin's release.
fn half_way(content: &Content, file: &Path) -> (Origin, Process) {
    let half = content.len() / 2;
    let script = Script {
        hold_at: Some(half),
        ..Script::default()
    };
    let origin = Origin::start(content, script);
    let process = Dfget::new(origin.url()).to(file).start();
    let directory = file.parent().unwrap();
    until("half of the content in the file", || {
        let part = part_files(directory).pop()?;
        // A block may wait for company.
        (fs::metadata(part).ok()?.len() + 256 * 1024 >= half).then_some(())
    });
    (origin, process)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn the_name_appears_with_the_last_byte() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f");
    let content = Content::new(20, 8 * MIB);
    let (origin, process) = half_way(&content, &file);
    assert!(!file.exists());
    origin.release();
    process.wait().assert_success();
    content.assert_file(&file);
    assert_eq!(names(directory.path()), ["f"]);
}

#[test]
fn an_interrupted_download_leaves_nothing() {
    for signal in [Signal::Interrupt, Signal::Terminate] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        let (_origin, process) = half_way(&Content::new(21, 8 * MIB), &file);
        process.signal(signal);
        process.wait().assert_failed(130, &["interrupted"]);
        assert_eq!(names(directory.path()), [""; 0]);
    }
}

#[test]
fn a_killed_download_leaves_nothing_that_looks_complete() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f");
    let (_origin, process) = half_way(&Content::new(22, 8 * MIB), &file);
    process.signal(Signal::Kill);
    assert_eq!(process.wait().code, 128 + 9);
    assert!(!file.exists());
}

#[test]
fn a_file_that_was_there_is_replaced_by_success_only() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f");
    fs::write(&file, "before").unwrap();
    let content = Content::new(23, 8 * MIB);
    let (_origin, process) = half_way(&content, &file);
    assert_eq!(fs::read(&file).unwrap(), b"before");
    process.signal(Signal::Interrupt);
    process.wait().assert_failed(130, &["interrupted"]);
    assert_eq!(fs::read(&file).unwrap(), b"before");
    assert_eq!(names(directory.path()), ["f"]);

    let (origin, process) = half_way(&content, &file);
    origin.release();
    process.wait().assert_success();
    content.assert_file(&file);
    assert_eq!(names(directory.path()), ["f"]);
}

#[test]
fn a_download_that_takes_too_long_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    let content = Content::new(24, 4 * MIB);
    let script = Script {
        hold_at: Some(MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let ended = Dfget::new(origin.url())
        .args(["--timeout", "700ms"])
        .to(directory.path().join("f"))
        .run();
    ended.assert_failed(11, &["700ms", "--timeout"]);
    assert_eq!(names(directory.path()), [""; 0]);
}

#[test]
fn a_pipe_that_is_closed_is_an_error_and_ends_the_transfer() {
    let content = Content::new(25, 32 * MIB);
    let script = Script {
        rate: Some(64 * MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let mut process = Dfget::new(origin.url()).args(["-o", "-"]).start_piped();
    let mut pipe = process.take_stdout();
    std::io::Read::read_exact(&mut pipe, &mut [0; 1000]).unwrap();
    drop(pipe);
    process.wait().assert_failed(9, &["standard output"]);
    until("the end of the origin's transfer", || {
        (origin.sending() == 0).then_some(())
    });
    assert!(origin.sent() < content.len());
}

#[test]
fn what_the_disk_refuses_at_the_end_is_an_error() {
    needs!(Need::Program("strace"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f");
    fs::write(&file, "before").unwrap();
    let content = Content::new(26, MIB);
    let origin = Origin::start(&content, Script::default());
    let inject = [
        "-f",
        "-qq",
        "-e",
        "trace=fsync",
        "-e",
        "inject=fsync:error=EIO",
        "-o",
        "/dev/null",
    ];
    let ended = Dfget::new(origin.url())
        .to(&file)
        .under("strace", inject)
        .run();
    ended.assert_failed(9, &["cannot write", "Input/output error"]);
    assert_eq!(fs::read(&file).unwrap(), b"before");
    assert_eq!(names(directory.path()), ["f"]);
}

#[test]
fn a_file_that_was_there_keeps_its_mode_and_a_link_stays_one() {
    let directory = tempfile::tempdir().unwrap();
    let (link, file) = (directory.path().join("l"), directory.path().join("f"));
    fs::write(&file, "before").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("f", &link).unwrap();
    let content = Content::new(27, MIB);
    let origin = Origin::start(&content, Script::default());
    Dfget::new(origin.url()).to(&link).run().assert_success();
    assert!(link.is_symlink());
    content.assert_file(&file);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
        0o640
    );
}

#[test]
fn a_file_may_have_the_longest_name_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let content = Content::new(28, MIB);
    let origin = Origin::start(&content, Script::default());
    for len in [241, 245, 255] {
        let file = directory.path().join("n".repeat(len));
        Dfget::new(origin.url()).to(&file).run().assert_success();
        content.assert_file(&file);
    }
    assert_eq!(names(directory.path()).len(), 3);
}

#[test]
fn a_stop_after_the_last_byte_is_no_failure() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let content = Content::new(29, 8 * MIB);
    let script = Script {
        hold_at: Some(6 * MIB as u64),
        ..Script::default()
    };
    let origin = Origin::start(&content, script);
    let supernode = Supernode::start();
    let start = |name: &str| {
        Dfget::new(origin.url())
            .with(&supernode)
            .to(file(name))
            .start()
    };
    let first = start("a");
    supernode.wait_for_members(1);
    let child = start("b");
    supernode.wait_for_members(2);
    until("half of the content at the child", || {
        let mut parts = part_files(directory.path()).into_iter();
        let part = parts.find(|part| part.to_string_lossy().contains(".b."))?;
        (fs::metadata(part).ok()?.len() >= 3 * MIB as u64).then_some(())
    });
    // It takes no more, so that the other one has somebody to wait for.
    child.signal(Signal::Stop);
    origin.release();
    until("the file", || file("a").exists().then_some(()));
    first.signal(Signal::Interrupt);
    let ended = first.wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    content.assert_file(&file("a"));
    child.signal(Signal::Continue);
    child.wait().assert_success();
}

#[test]
fn a_part_of_content_without_a_length_is_that_part() {
    let directory = tempfile::tempdir().unwrap();
    let content = Content::new(30, 3 * MIB);
    let daemon = Dfdaemon::start_alone(&[]);
    for (number, ignore_ranges) in [(1, true), (2, false)] {
        let script = Script {
            length: Length::Chunked,
            ignore_ranges,
            ..Script::default()
        };
        for (number, (range, expected)) in (10 * number..).zip([
            ("1000-1999", Some(1000..2000)),
            ("2000000-", Some(2_000_000..3 * MIB)),
            ("3000000-9000000", Some(3_000_000..3 * MIB)),
            ("9000000-", None),
            ("9000000-9000001", None),
        ]) {
            for through in [false, true] {
                let origin = Origin::start(&content, script.clone());
                let file = directory.path().join(format!("{number}{through}"));
                let get = match through {
                    true => Dfget::through(&daemon, origin.url()),
                    false => Dfget::new(origin.url()),
                };
                let ended = get.args(["--range", range]).to(&file).run();
                let case = format!("{range} {ignore_ranges} {through}");
                match &expected {
                    Some(part) => {
                        assert_eq!(ended.code, 0, "{case}: {}", ended.stderr);
                        let bytes = fs::read(&file).unwrap();
                        assert_eq!(bytes.len(), part.len(), "{case}");
                        assert!(bytes == content.bytes()[part.clone()], "{case}");
                    }
                    None => {
                        assert_ne!(ended.code, 0, "{case}");
                        assert_eq!(ended.stderr.lines().count(), 1, "{case}: {}", ended.stderr);
                        assert!(!file.exists(), "{case}");
                    }
                }
            }
        }
    }
}
