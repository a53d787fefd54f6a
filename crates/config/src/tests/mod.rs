//! What a user gets for what a user wrote. No test touches the process's own environment.

mod jobs;
mod sources;
mod tables;
mod values;

use std::{ffi::OsString, io, path::Path, time::Duration};

use pantala_core::{Kind, Who};

use crate::{DfdaemonConfig, DfgetConfig, Exit, SupernodeConfig, exit_code};

const URL: &str = "https://origin.example/a/big.bin";

type Env<'a> = &'a [(&'a str, &'a str)];

fn words(program: &str, args: &[&str]) -> Vec<OsString> {
    let args = [program].into_iter().chain(args.iter().copied());
    args.map(OsString::from).collect()
}

fn vars(env: Env) -> Vec<(OsString, OsString)> {
    env.iter().map(|(k, v)| (k.into(), v.into())).collect()
}

/// Stands for the disk: any path has this content.
fn file(text: &str) -> impl FnOnce(&Path) -> io::Result<String> + '_ {
    move |_| Ok(text.to_owned())
}

fn dfget_with(args: &[&str], env: Env, text: &str) -> Result<DfgetConfig, Exit> {
    DfgetConfig::parse_from(words("dfget", args), vars(env), file(text))
}

fn dfget(args: &[&str]) -> Result<DfgetConfig, Exit> {
    dfget_with(&[&[URL], args].concat(), &[], "")
}

fn dfdaemon_with(args: &[&str], env: Env, text: &str) -> Result<DfdaemonConfig, Exit> {
    DfdaemonConfig::parse_from(words("dfdaemon", args), vars(env), file(text))
}

fn dfdaemon(args: &[&str]) -> Result<DfdaemonConfig, Exit> {
    dfdaemon_with(args, &[], "")
}

/// The message of a refusal, which is always the user's and code 2, or 14 for too little memory.
fn refusal<T>(result: Result<T, Exit>) -> String {
    match result {
        Err(Exit::Error(error)) => {
            assert_eq!(error.who(), Who::User);
            let code = match error.kind() {
                Kind::NoMemory => 14,
                _ => 2,
            };
            assert_eq!(exit_code(&error), code);
            assert!(!error.to_string().contains('\n'), "{error}");
            error.to_string()
        }
        Err(Exit::Text(text)) => panic!("not a refusal but a text: {text}"),
        Ok(_) => panic!("not a refusal but a configuration"),
    }
}
