use std::time::{Duration, Instant};

use pantala_config::DfgetConfig;
use pantala_core::{Error, Kind, Result, Who};

use crate::{output::Sink, progress::Progress, source::Source};

/// How long this process goes on serving children that are in the middle of a piece after its own
/// download is complete.
const FAREWELL: Duration = Duration::from_secs(1);

/// Does what the user asked for, from the first request to the renamed file.
pub(crate) async fn download(config: &DfgetConfig) -> Result<()> {
    // What cannot be written is found out before anything is asked for.
    let sink = Sink::open(&config.output)?;
    let started = Instant::now();
    let whole = transfer(config, sink, started);
    match config.timeout {
        Some(limit) => tokio::time::timeout(limit, whole)
            .await
            .unwrap_or_else(|_| {
                let what = format!("the download took longer than {limit:?}");
                Err(Error::new(Who::User, Kind::Timeout, what).hint("allow more with --timeout"))
            }),
        None => whole.await,
    }
}

async fn transfer(config: &DfgetConfig, mut sink: Sink, started: Instant) -> Result<()> {
    let mut source = Source::open(config).await?;
    let mut progress = Progress::start(config, source.length());
    let copied = copy(&mut source, &mut sink, &mut progress).await;
    let completed = match copied {
        Ok(()) => sink.complete().await,
        Err(error) => Err(error),
    };
    match &completed {
        Ok(()) => progress.done(started.elapsed(), source.totals()),
        Err(_) => progress.failed(),
    }
    source.close(FAREWELL).await;
    completed
}

async fn copy(source: &mut Source, sink: &mut Sink, progress: &mut Progress) -> Result<()> {
    while let Some(bytes) = source.next().await? {
        let len = bytes.len() as u64;
        sink.write(bytes).await?;
        progress.moved(len, || source.totals());
    }
    Ok(())
}
