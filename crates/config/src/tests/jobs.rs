//! The jobs of `dfdaemon` besides serving.

use std::path::PathBuf;

use super::*;
use crate::{CaInitConfig, ContainerRuntime, DfdaemonJob};

fn job(args: &[&str], text: &str) -> Result<DfdaemonJob, Exit> {
    // The environment of a serving dfdaemon is nothing to a job.
    let env = vars(&[("PANTALA_LISTEN", "10.0.0.1:1"), ("PANTALA_NONSENSE", "x")]);
    let env = if args.is_empty() { Vec::new() } else { env };
    DfdaemonJob::parse_from(words("dfdaemon", args), env, file(text))
}

fn setup(args: &[&str], text: &str) -> crate::SetupConfig {
    match job(&[&["setup"], args].concat(), text) {
        Ok(DfdaemonJob::Setup(config)) => config,
        other => panic!("{other:?}"),
    }
}

fn refused(args: &[&str]) -> String {
    match job(args, "") {
        Err(Exit::Error(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn help(args: &[&str]) -> String {
    match job(args, "") {
        Err(Exit::Text(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_word_it_serves() {
    assert!(matches!(job(&[], ""), Ok(DfdaemonJob::Serve(_))));
}

#[test]
fn setup_takes_its_address_from_the_flag_then_the_file() {
    let config = setup(&["containerd"], "");
    assert_eq!(config.runtime, ContainerRuntime::Containerd);
    assert_eq!(config.listen.to_string(), "127.0.0.1:65001");
    assert!(config.registry.is_empty() && !config.undo && !config.dry_run);
    let file = "listen = \"0.0.0.0:7000\"\nmemory = \"1GiB\"\n";
    let config = setup(&["docker", "--config", "f.toml"], file);
    assert_eq!(config.listen.to_string(), "0.0.0.0:7000");
    let args = [
        "crio",
        "--config",
        "f",
        "--listen",
        "[::1]:1",
        "--undo",
        "--dry-run",
    ];
    let config = setup(&args, file);
    assert_eq!(config.listen.to_string(), "[::1]:1");
    assert!(config.undo && config.dry_run);
    let args = [
        "skopeo",
        "--registry",
        "a.example,b.example",
        "--registry",
        "c.example:5000",
    ];
    let config = setup(&[&args[..], &["--root", "/mnt"]].concat(), "");
    assert_eq!(config.runtime, ContainerRuntime::Podman);
    assert_eq!(
        config.registry,
        ["a.example", "b.example", "c.example:5000"]
    );
    assert_eq!(config.root, Some(PathBuf::from("/mnt")));
}

#[test]
fn ca_init_has_defaults() {
    let init = |args: &[&str]| match job(&[&["ca", "init"], args].concat(), "") {
        Ok(DfdaemonJob::CaInit(config)) => config,
        other => panic!("{other:?}"),
    };
    let (dir, name) = ("/etc/pantala/ca".into(), "Pantala CA".into());
    assert_eq!(init(&[]), CaInitConfig { dir, name });
    assert_eq!(init(&["--dir", "x", "--name", "y z"]).name, "y z");
}

#[test]
fn what_is_wrong_is_said_in_the_words_of_the_job() {
    for (args, words) in [
        (
            &["setup"][..],
            "RUNTIME: it is missing; see dfdaemon setup --help",
        ),
        (&["setup", "rkt"], "not a runtime that setup knows"),
        (
            &["setup", "docker", "crio"],
            "one argument too many; dfdaemon setup takes one RUNTIME",
        ),
        (&["setup", "docker", "--undu"], "did you mean --undo?"),
        (&["setup", "docker", "--listen", "x"], "--listen"),
        (&["setup", "podman", "--registry", ""], "--registry"),
        (&["ca"], "dfdaemon ca init"),
        (&["ca", "remove"], "dfdaemon ca init"),
        (
            &["ca", "init", "here"],
            "one argument too many; see dfdaemon ca init --help",
        ),
    ] {
        let text = refused(args);
        assert!(text.contains(words), "{text}");
    }
    let text = job(&["setup", "docker", "--config", "f"], "lisen = \"x\"\n").unwrap_err();
    assert!(matches!(text, Exit::Error(error) if error.to_string().contains("f:1: lisen")));
}

#[test]
fn each_has_its_help() {
    assert!(help(&["--help"]).contains("dfdaemon setup "));
    assert!(help(&["--help"]).contains("dfdaemon ca init "));
    assert!(help(&["setup", "--help"]).contains("Usage: dfdaemon setup [FLAGS] RUNTIME"));
    for args in [
        &["ca", "init", "--help"][..],
        &["ca", "--help"],
        &["ca", "init", "-h"],
    ] {
        assert!(help(args).contains("Usage: dfdaemon ca init [FLAGS]"));
    }
}
