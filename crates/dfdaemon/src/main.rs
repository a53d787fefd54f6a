//! The `dfdaemon` program: flags, logging, allocator, exit code.

use std::{
    ffi::c_char,
    io::{IsTerminal as _, stderr},
    process::ExitCode,
};

use dfdaemon::jobs;
use pantala_config::{DfdaemonConfig, DfdaemonJob, Exit};
use pantala_core::{Error, Kind, Result, Who};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

/// glibc's keeps its high-water mark, and this process promises how much memory it takes.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How the allocator keeps the promise: few arenas, because each keeps memory of its own; freed
/// memory goes back to the system after a second, by a thread that also runs when nothing else
/// does.
// SAFETY: jemalloc looks for a pointer to a C string under this name, and never writes to it.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: Option<&'static c_char> = Some(
    // SAFETY: the bytes are static, and end with a zero.
    unsafe { &*c"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:true".as_ptr() },
);

const NAME: &str = "dfdaemon";

fn main() -> ExitCode {
    let job = match DfdaemonJob::from_env_args() {
        Ok(job) => job,
        Err(exit @ Exit::Text(_)) => return exit.report(NAME),
        Err(exit @ Exit::Error(_)) => {
            exit.report(NAME);
            return ExitCode::from(2);
        }
    };
    let done = match job {
        DfdaemonJob::Serve(config) => serve(*config),
        DfdaemonJob::Setup(config) => jobs::setup(config),
        DfdaemonJob::CaInit(config) => jobs::ca_init(&config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let bad = error.kind() == Kind::BadInput;
            Exit::Error(error).report(NAME);
            // A daemon's restart policy wants to know no more than whether another try may help.
            ExitCode::from(if bad { 2 } else { 1 })
        }
    }
}

fn serve(config: DfdaemonConfig) -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log))
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
    let runtime = Runtime::new()
        .map_err(|error| Error::new(Who::Us, Kind::Internal, format!("no runtime: {error}")))?;
    let done = runtime.block_on(dfdaemon::run(config));
    // Whatever hangs in a name lookup must not keep the process.
    runtime.shutdown_background();
    done
}
