//! `dfget`: streams a URL into a file or to standard output, through the memory of peers.
//!
//! Through the dfdaemon of this host when one runs, else with the same library in this process,
//! which then serves its pieces to others while it runs.

mod download;
mod output;
mod progress;
mod source;

use std::process::ExitCode;

use pantala_config::{DfgetConfig, Exit};
use pantala_core::{Error, Kind, Who};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let config = match DfgetConfig::from_env_args() {
        Ok(config) => config,
        Err(exit) => return exit.report("dfget"),
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::new(&config.log))
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let what = format!("cannot start: {error}");
            return Exit::from(Error::new(Who::Us, Kind::Internal, what)).report("dfget");
        }
    };
    // On a worker, beside the peer that brings the bytes: the main thread would have to be woken
    // for each piece.
    let mut download = runtime.spawn(async move { download::download(&config).await });
    let result = runtime.block_on(async {
        tokio::select! {
            result = &mut download => match result {
                // A stop in this time is no failure any more: all is there.
                Ok(Ok(source)) => {
                    tokio::select! {
                        () = download::leave(source) => {}
                        () = interrupted() => {}
                    }
                    Ok(())
                }
                Ok(Err(error)) => Err(error),
                Err(error) => {
                    let what = format!("stopped: {error}");
                    Err(Error::new(Who::Us, Kind::Internal, what))
                }
            },
            () = interrupted() => {
                // What it has written is taken away when it has ended, unless that is just now.
                download.abort();
                match download.await {
                    Ok(Ok(_complete)) => Ok(()),
                    _ => {
                        let what = "interrupted; nothing was left under the file's name";
                        Err(Error::new(Who::User, Kind::Cancelled, what))
                    }
                }
            }
        }
    });
    // A thread that is stuck in a write to a dead disk or pipe must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Exit::from(error).report("dfget"),
    }
}

async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
