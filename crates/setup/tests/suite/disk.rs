//! Real files: modes, links, backups, permissions, and what the user is told.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use pantala_core::Error;
use pantala_setup::{Disk, FileChange, Job, Options, ReadFiles as _, Runtime, run};

fn job(root: &Path, runtime: Runtime, undo: bool) -> Job {
    Job {
        runtime,
        options: Options {
            listen: "0.0.0.0:65001".parse().unwrap(),
            registries: vec!["hub.example".into()],
            undo,
        },
        root: Some(root.into()),
        dry_run: false,
    }
}

fn told(job: &Job) -> Result<String, Error> {
    let mut out = Vec::new();
    run(job, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// Every path below, for comparing.
fn tree(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        all.push(path.display().to_string());
        if path.is_dir() && !path.is_symlink() {
            all.extend(tree(&path));
        }
    }
    all.sort();
    all
}

#[test]
fn directories_come_and_go_with_the_files() {
    for runtime in [
        Runtime::Containerd,
        Runtime::Docker,
        Runtime::Podman,
        Runtime::Crio,
    ] {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let before = tree(root.path());
        let text = told(&job(root.path(), runtime, false)).unwrap();
        assert!(text.contains("--- /dev/null\n+++ b/etc/"), "{text}");
        assert!(
            text.contains("\nmade /etc/") && text.contains("\nnext: "),
            "{text}"
        );
        let again = told(&job(root.path(), runtime, false)).unwrap();
        assert!(again.starts_with("nothing to change\n"), "{again}");
        let undone = told(&job(root.path(), runtime, true)).unwrap();
        assert!(
            undone.contains("+++ /dev/null\n") && undone.contains("removed /etc/"),
            "{undone}"
        );
        assert_eq!(tree(root.path()), before, "{}", runtime.name());
        assert!(
            told(&job(root.path(), runtime, true))
                .unwrap()
                .starts_with("nothing to change")
        );
    }
}

#[test]
fn the_last_of_several_takes_the_directory_with_it() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str, undo| {
        let mut job = job(root.path(), Runtime::Containerd, undo);
        job.options.registries = vec![name.into()];
        told(&job).unwrap()
    };
    at("a.example", false);
    at("b.example", false);
    at("a.example", true);
    at("b.example", true);
    assert!(tree(root.path()).iter().all(|path| path.ends_with("/etc")));
}

#[test]
fn a_dry_run_writes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dry = Job {
        dry_run: true,
        ..job(root.path(), Runtime::Containerd, false)
    };
    let text = told(&dry).unwrap();
    assert!(
        text.contains("+[host.\"http://127.0.0.1:65001\"]\n"),
        "{text}"
    );
    assert!(text.contains("nothing was written"), "{text}");
    assert!(tree(root.path()).is_empty());
}

#[test]
fn mode_and_links_stay_and_the_first_original_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let etc = root.path().join("etc/docker");
    fs::create_dir_all(&etc).unwrap();
    fs::create_dir_all(root.path().join("srv")).unwrap();
    let real = root.path().join("srv/daemon.json");
    fs::write(&real, "{\"a\": 1}").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    // From the top of the host, not of this machine.
    symlink("/srv/daemon.json", etc.join("daemon.json")).unwrap();

    let text = told(&job(root.path(), Runtime::Docker, false)).unwrap();
    assert!(
        text.contains("the original is in /etc/docker/daemon.json.pantala-backup"),
        "{text}"
    );
    assert!(etc.join("daemon.json").is_symlink());
    assert!(fs::read_to_string(&real).unwrap().contains("65001"));
    assert_eq!(real.metadata().unwrap().mode() & 0o7777, 0o640);
    let backup = etc.join("daemon.json.pantala-backup");
    assert_eq!(fs::read_to_string(&backup).unwrap(), "{\"a\": 1}");
    assert_eq!(backup.metadata().unwrap().mode() & 0o7777, 0o640);

    // A later run does not write over it.
    let mut other = job(root.path(), Runtime::Docker, false);
    other.options.listen = "127.0.0.1:7000".parse().unwrap();
    told(&other).unwrap();
    assert_eq!(fs::read_to_string(&backup).unwrap(), "{\"a\": 1}");
    other.options.undo = true;
    told(&other).unwrap();
    let text = told(&job(root.path(), Runtime::Docker, true)).unwrap();
    assert!(text.contains("the original again"), "{text}");
    assert_eq!(fs::read_to_string(&real).unwrap(), "{\"a\": 1}");
    assert!(!backup.exists());
    assert_eq!(fs::read_dir(&etc).unwrap().count(), 1);
}

#[test]
fn no_link_leads_out_of_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let beside = root.path().file_name().unwrap().to_str().unwrap();
    fs::create_dir_all(at("etc")).unwrap();
    fs::create_dir_all(outside.path().join("docker")).unwrap();
    fs::write(outside.path().join("docker/daemon.json"), "{\"out\": 1}").unwrap();
    let climb = format!("../../../../../../../..{}", outside.path().display());
    for link in [
        // Of a directory on the way, from the top and by climbing.
        format!("{}/docker", outside.path().display()),
        format!("{climb}/docker"),
        format!(
            "../../{beside}/../{}/docker",
            outside.path().file_name().unwrap().display()
        ),
    ] {
        let there = tree(outside.path());
        symlink(&link, at("etc/docker")).unwrap();
        for undo in [false, true] {
            told(&job(root.path(), Runtime::Docker, undo)).unwrap();
            assert_eq!(tree(outside.path()), there, "{link}");
            let text = fs::read_to_string(outside.path().join("docker/daemon.json")).unwrap();
            assert_eq!(text, "{\"out\": 1}", "{link}");
        }
        fs::remove_file(at("etc/docker")).unwrap();
    }
    // Of the file itself, by climbing.
    fs::create_dir(at("etc/docker")).unwrap();
    symlink(
        format!("{climb}/docker/daemon.json"),
        at("etc/docker/daemon.json"),
    )
    .unwrap();
    told(&job(root.path(), Runtime::Docker, false)).unwrap();
    let text = fs::read_to_string(outside.path().join("docker/daemon.json")).unwrap();
    assert_eq!(text, "{\"out\": 1}");
    // And of the backup.
    let backup = outside.path().join("backup");
    fs::write(&backup, "mine").unwrap();
    fs::remove_file(at("etc/docker/daemon.json")).unwrap();
    fs::write(at("etc/docker/daemon.json"), "{}").unwrap();
    symlink(&backup, at("etc/docker/daemon.json.pantala-backup")).unwrap();
    told(&job(root.path(), Runtime::Docker, false)).unwrap();
    assert_eq!(fs::read_to_string(&backup).unwrap(), "mine");
}

#[test]
fn a_file_that_changed_meanwhile_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("f"), "two").unwrap();
    let disk = Disk::new(Some(root.path().into()));
    let change = FileChange {
        path: "/f".into(),
        before: Some("one".into()),
        after: Some("three".into()),
        directories: 0,
    };
    let error = disk.apply(&change, true).unwrap_err();
    assert!(error.what().contains("changed meanwhile"), "{error}");
    assert_eq!(fs::read_to_string(root.path().join("f")).unwrap(), "two");
    assert_eq!(disk.read("/../../../../etc/passwd".as_ref()).unwrap(), None);
}

#[test]
fn what_cannot_be_read_is_named() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("etc/docker")).unwrap();
    let path = root.path().join("etc/docker/daemon.json");
    fs::write(&path, [0xff, 0xfe]).unwrap();
    let error = told(&job(root.path(), Runtime::Docker, false)).unwrap_err();
    assert!(
        error
            .what()
            .contains("/etc/docker/daemon.json: it cannot be read, not UTF-8"),
        "{error}"
    );
    fs::remove_file(&path).unwrap();
    symlink("daemon.json", &path).unwrap();
    let error = told(&job(root.path(), Runtime::Docker, false)).unwrap_err();
    assert!(error.what().contains("too many links"), "{error}");
}

#[test]
fn without_permission_sudo_is_the_advice() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o555)).unwrap();
    // Root may do everything: there is nothing to see then.
    if fs::write(root.path().join("probe"), "").is_ok() {
        return;
    }
    let error = told(&job(root.path(), Runtime::Docker, false)).unwrap_err();
    assert_eq!(error.advice(), Some("run it with sudo"), "{error}");
}
