//! Plans, makes the changes and tells the user.

use std::{io::Write, path::PathBuf};

use pantala_core::{Error, Kind, Result, Who};
use similar::TextDiff;

use crate::{Disk, FileChange, Options, Runtime, Written, plan};

/// Everything `dfdaemon setup` was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Which runtime.
    pub runtime: Runtime,
    /// What to do.
    pub options: Options,
    /// Where its files are; `None` is `/`.
    pub root: Option<PathBuf>,
    /// Only show what would be done.
    pub dry_run: bool,
}

/// Does it, and writes to `out` what changes, what was written, what to run next and what else
/// to know.
///
/// # Errors
/// Those of [`plan`] and of [`Disk::apply`]; what was done before is then on `out`.
pub fn run(job: &Job, out: &mut dyn Write) -> Result<()> {
    let disk = Disk::new(job.root.clone());
    let plan = plan(job.runtime, &job.options, &disk)?;
    let mut say = |line: String| {
        writeln!(out, "{line}").map_err(|error| {
            let what = format!("standard output: it cannot be written, {error}");
            Error::new(Who::Reader, Kind::File, what)
        })
    };
    for change in &plan.changes {
        say(diff(change).trim_end().to_owned())?;
        say(String::new())?;
    }
    if plan.changes.is_empty() {
        say("nothing to change".to_owned())?;
    } else if job.dry_run {
        say("nothing was written (--dry-run)".to_owned())?;
    } else {
        for change in &plan.changes {
            say(told(&disk.apply(change, !job.options.undo)?))?;
        }
        match plan.next.is_empty() {
            true => say("next: nothing, it works from the next pull on".to_owned())?,
            false => say(format!("next: {}", plan.next.join(" && ")))?,
        }
    }
    for advice in &plan.advice {
        say(format!("note: {advice}"))?;
    }
    Ok(())
}

fn told(written: &Written) -> String {
    match written {
        Written::Made(path) => format!("made {}", path.display()),
        Written::Changed(path, None) => format!("changed {}", path.display()),
        Written::Changed(path, Some(backup)) => format!(
            "changed {}; the original is in {}",
            path.display(),
            backup.display()
        ),
        Written::Restored(path) => format!(
            "changed {}; it is the original again, and the backup is gone",
            path.display()
        ),
        Written::Removed(path) => format!("removed {}", path.display()),
    }
}

/// The change as `diff -u` shows it.
fn diff(change: &FileChange) -> String {
    let path = change.path.display().to_string();
    let name = |text: &Option<String>, side: &str| match text {
        Some(_) => format!("{side}{path}"),
        None => "/dev/null".to_owned(),
    };
    let before = change.before.as_deref().unwrap_or_default();
    let after = change.after.as_deref().unwrap_or_default();
    TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(3)
        .header(&name(&change.before, "a"), &name(&change.after, "b"))
        .to_string()
}
