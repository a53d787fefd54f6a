//! What is, and is not, under the file's name.

use std::{fs, path::Path};

use pantala_e2e::{Content, Dfget, MIB, Origin, Process, Script, Signal, part_files, until};

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
