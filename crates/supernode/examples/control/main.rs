//! The load of `bench/control`, which starts it, says when each phase begins and how long it may take, and measures the
//! supernode meanwhile:
//!
//! ```text
//! control process TASKS MEMBERS MESSAGES BURST
//! control sockets TASKS MEMBERS MESSAGES BURST SUPERNODE SESSIONS SPEAKERS
//! ```
//!
//! `process` drives the brain in this process, `sockets` the supernode at SUPERNODE with SESSIONS peers on each
//! connection, SPEAKERS of which speak at a time. Both say the same. Each line of standard input is the seconds that
//! the next phase may take; what it measured is a line of JSON on standard output. The phases:
//!
//! 1. `open`: all peers connect.
//! 2. `come`: one member of each content says that it has all of it; all others ask for all of them.
//! 3. `announce`: the members say by turns that they got a piece, BURST times, each of the next content, and then ask
//!    something whose answer costs next to nothing; MESSAGES in all. In process that is done twice: `still`, while the
//!    brain's clock stands still, and `announce`, while it runs.
//! 4. `resume`: the supernode is another one, which knows nothing; all say what they have.
//!
//! A phase that is not done in its time is broken off and says how far it came. Where the brain does not come back from a
//! message for seconds after that, the program ends there.

mod measure;
mod process;
mod script;
mod sockets;

use std::{process::ExitCode, str::FromStr};

use crate::script::Script;

/// The supernode's own, so that memory means the same here.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("control: {what}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut args = std::env::args().skip(1);
    let mode: String = next(&mut args, "process or sockets")?;
    let script = Script::new(next(&mut args, "TASKS")?, next(&mut args, "MEMBERS")?);
    let (messages, burst) = (next(&mut args, "MESSAGES")?, next(&mut args, "BURST")?);
    if script.tasks() == 0 || script.members() < 2 || burst == 0 {
        return Err(
            "a task with two members, and a burst of one message, are the least".to_owned(),
        );
    }
    match &*mode {
        "process" => process::run(&script, messages, burst),
        "sockets" => sockets::run(sockets::Load {
            script,
            messages,
            burst,
            supernode: next(&mut args, "SUPERNODE")?,
            sessions: next(&mut args, "SESSIONS")?,
            speakers: next(&mut args, "SPEAKERS")?,
        }),
        _ => return Err(format!("{mode} is neither process nor sockets")),
    }
    Ok(())
}

fn next<T: FromStr>(args: &mut impl Iterator<Item = String>, name: &str) -> Result<T, String> {
    let word = args.next().ok_or_else(|| format!("{name} is missing"))?;
    word.parse().map_err(|_| format!("{word} is no {name}"))
}
