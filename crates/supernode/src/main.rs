//! The `supernode` program: flags, start, stop.

use std::{
    io::{Write as _, stderr},
    process::ExitCode,
};

use pantala_config::{Exit, Locality, SupernodeConfig};
use pantala_core::{Error, Kind, Result, Who};
use pantala_supernode::Supernode;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

/// glibc's keeps its high-water mark: a supernode that once had many peers would stay as large.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const NAME: &str = "supernode";

fn main() -> ExitCode {
    let config = match SupernodeConfig::from_env_args() {
        Ok(config) => config,
        Err(exit) => return exit.report(NAME),
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log))
        .with_writer(stderr)
        .init();
    let done = Runtime::new()
        .map_err(|error| ours(format!("no runtime: {error}")))
        .and_then(|runtime| runtime.block_on(serve(&config)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Exit::Error(error).report(NAME),
    }
}

async fn serve(config: &SupernodeConfig) -> Result<()> {
    let wanted = |kind| signal(kind).map_err(|error| ours(format!("no signals: {error}")));
    let mut interrupt = wanted(SignalKind::interrupt())?;
    let mut terminate = wanted(SignalKind::terminate())?;
    let cancel = CancellationToken::new();
    let supernode = Supernode::start(settings(config), cancel.clone()).await?;
    // Also when the log is off. Whoever closed standard error does not want to know.
    let _ = writeln!(stderr(), "{NAME}: listening on {}", supernode.local_addr());

    let stopped = supernode.stopped();
    tokio::pin!(stopped);
    tokio::select! {
        failed = &mut stopped => return failed,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    info!("stopping");
    cancel.cancel();
    stopped.await
}

fn settings(config: &SupernodeConfig) -> pantala_supernode::SupernodeConfig {
    pantala_supernode::SupernodeConfig {
        listen: config.listen,
        swarm: pantala_swarm::Config {
            stripes: config.stripes,
            lease_timeout: config.lease_timeout,
            fresh_for: config.fresh_for,
            locality: match config.locality {
                Locality::Labels => pantala_swarm::Locality::Labels,
                Locality::Measured => pantala_swarm::Locality::Measured,
            },
            ..Default::default()
        },
    }
}

fn ours(what: String) -> Error {
    Error::new(Who::Us, Kind::Internal, what)
}
