use std::{env, path::PathBuf};

use crate::process::may_mount;

/// What a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The rights of root.
    Root,
    /// The right to mount file systems: what runtimes unpack images with.
    Mounts,
    /// A program, by name.
    Program(&'static str),
}

/// Why a test with these needs must be left out, or `None` when everything is there.
///
/// # Panics
/// When something is missing though `CI=true` and this is root: nothing may be left out there.
pub fn missing(needs: &[Need]) -> Option<String> {
    let reason = needs.iter().find_map(|need| match need {
        Need::Root => (!is_root()).then(|| "it needs root".to_owned()),
        Need::Mounts => (!may_mount()).then(|| "it may not mount anything".to_owned()),
        Need::Program(name) => find(name)
            .is_none()
            .then(|| format!("{name} is not installed")),
    })?;
    let strict = env::var_os("CI").is_some_and(|ci| ci == "true") && is_root();
    assert!(!strict, "with CI=true nothing is left out, but {reason}");
    Some(reason)
}

fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Where a program is; system daemons are not in every user's PATH.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}
