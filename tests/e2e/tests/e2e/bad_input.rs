//! What cannot work ends with one line that says what and what to do, the documented exit code,
//! and nothing half-written.

use std::{
    fs::{self, Permissions},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use pantala_e2e::{Content, Dfget, MIB, Need, Nginx, Origin, Script, Supernode, free_port, needs};

/// Runs a dfget that must fail into a new directory, where nothing may stay.
#[track_caller]
fn fails(url: &str, flags: &[&str], code: i32, says: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let failed = Dfget::new(url)
        .args(flags)
        .to(directory.path().join("f"))
        .run();
    failed.assert_failed(code, says);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn urls_that_cannot_be_used() {
    fails("not a url", &[], 2, &["not a url", "; "]);
    fails("ftp://127.0.0.1/f", &[], 2, &["ftp", "http"]);
    fails("http://", &[], 2, &["http"]);
}

#[test]
fn flags_that_cannot_be_used() {
    let url = "http://127.0.0.1/f";
    fails(url, &["--range", "9-3"], 2, &["--range", "9-3"]);
    fails(url, &["--digest", "md5:00"], 2, &["--digest", "sha256"]);
    fails(url, &["--memory", "much"], 2, &["--memory", "much"]);
    fails(url, &["--config", "/no/such/file"], 2, &["/no/such/file"]);
    fails(url, &["--no-such-flag"], 2, &["--no-such-flag"]);
    fails(url, &["--memory", "1MiB"], 14, &["1MiB", "4 MiB"]);
}

#[test]
fn origins_that_cannot_be_reached() {
    fails(
        "http://name.invalid/f",
        &["--retries", "0"],
        3,
        &["name.invalid", "; "],
    );
    let refused = format!("{}:{}", Ipv4Addr::LOCALHOST, free_port());
    let url = format!("http://{refused}/f");
    fails(&url, &["--retries", "0"], 3, &[&refused, "refused", "; "]);
}

#[test]
fn origins_that_refuse() {
    needs!(Need::Program("nginx"));
    let nginx = Nginx::start();
    for (status, code) in [
        (401, 4),
        (403, 4),
        (404, 5),
        (410, 5),
        (416, 7),
        (500, 6),
        (503, 6),
    ] {
        let url = nginx.url(&format!("status/{status}"));
        fails(&url, &["--retries", "0"], code, &[&status.to_string()]);
    }
    // What will not change is not asked twice.
    let asked = |path: &str| {
        let served = nginx.served();
        served.iter().filter(|served| served.path == path).count()
    };
    for status in [401, 403, 404, 410] {
        assert_eq!(asked(&format!("/status/{status}")), 1, "{status}");
    }
}

#[test]
fn a_refusal_is_the_same_in_a_swarm() {
    needs!(Need::Program("nginx"));
    let nginx = Nginx::start();
    let supernode = Supernode::start();
    let addr = supernode.addr().to_string();
    for (status, code) in [(403, 4), (404, 5), (500, 6)] {
        let url = nginx.url(&format!("status/{status}"));
        let flags = ["--retries", "0", "--supernode", &addr];
        fails(&url, &flags, code, &[&status.to_string()]);
    }
}

#[test]
fn a_directory_is_no_file() {
    let content = Content::new(60, MIB);
    let origin = Origin::start(&content, Script::default());
    let directory = tempfile::tempdir().unwrap();
    let failed = Dfget::new(origin.url()).to(directory.path()).run();
    failed.assert_failed(9, &["is a directory", "; "]);
    let missing = Dfget::new(origin.url())
        .to(directory.path().join("missing/f"))
        .run();
    missing.assert_failed(9, &["missing/f", "; "]);
    assert_eq!(origin.asked(), [], "nothing is fetched for nobody");
}

#[test]
fn a_read_only_file_stays_as_it_is() {
    let content = Content::new(61, MIB);
    let origin = Origin::start(&content, Script::default());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f");
    fs::write(&file, "keep").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
    let failed = Dfget::new(origin.url()).to(&file).run();
    failed.assert_failed(9, &["read-only", "; "]);
    assert_eq!(fs::read(&file).unwrap(), b"keep");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_eq!(origin.asked(), []);
}

/// A small file system that is full soon.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path) -> Self {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
            .arg(at)
            .status();
        assert!(mounted.unwrap().success());
        Self(at)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_given_back() {
    needs!(Need::Root, Need::Program("mount"));
    let content = Content::new(62, 8 * MIB);
    let origin = Origin::start(&content, Script::default());
    let directory = tempfile::tempdir().unwrap();
    let small = Small::mount(directory.path());
    let failed = Dfget::new(origin.url())
        .to(directory.path().join("f"))
        .run();
    failed.assert_failed(10, &["no space left", "; "]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    drop(small);
}

#[test]
fn programs_that_cannot_start_say_why() {
    for (program, flags, says) in [
        ("supernode", ["--listen", "nowhere"], "nowhere"),
        ("supernode", ["--config", "/no/such/file"], "/no/such/file"),
    ] {
        let mut command = pantala_e2e::program(program);
        command.args(flags);
        let failed = pantala_e2e::Process::start(program, command).wait();
        failed.assert_failed(2, &[says]);
    }
}
