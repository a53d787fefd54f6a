use std::time::{Duration, Instant};

use pantala_config::{DfgetConfig, Range};
use pantala_core::{ByteRange, Error, Kind, Result, Who};

use crate::{output::Sink, progress::Progress, source::Source};

/// How long this process goes on serving children that are in the middle of a piece after its own
/// download is complete.
const FAREWELL: Duration = Duration::from_secs(1);

/// Does what the user asked for, from the first request to the renamed file. Then all is done but to
/// leave in peace: see [`leave`].
pub(crate) async fn download(config: &DfgetConfig) -> Result<Source> {
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

/// Lets children finish what they are receiving from this process. The download is complete before
/// that, and stays so whatever ends the wait.
pub(crate) async fn leave(source: Source) {
    source.close(FAREWELL).await;
}

async fn transfer(config: &DfgetConfig, mut sink: Sink, started: Instant) -> Result<Source> {
    let mut source = Source::open(config).await?;
    let mut progress = Progress::start(config, source.length());
    let copied = copy(config, &mut source, &mut sink, &mut progress).await;
    let completed = match copied {
        Ok(()) => sink.complete().await,
        Err(error) => Err(error),
    };
    match completed {
        Ok(()) => {
            progress.done(started.elapsed(), source.totals());
            Ok(source)
        }
        Err(error) => {
            progress.failed();
            leave(source).await;
            Err(error)
        }
    }
}

async fn copy(
    config: &DfgetConfig,
    source: &mut Source,
    sink: &mut Sink,
    progress: &mut Progress,
) -> Result<()> {
    let mut empty = true;
    while let Some(bytes) = source.next().await? {
        let len = bytes.len() as u64;
        empty &= len == 0;
        sink.write(bytes).await?;
        progress.moved(len, || source.totals());
    }
    // Content that does not say its length says so too late where it ends.
    let part = config
        .range
        .filter(|range| *range != Range::Bytes(ByteRange::ALL));
    if empty && part.is_some() {
        let what = "the range lies outside the content, which ended before it";
        return Err(Error::new(Who::User, Kind::RangeNotSatisfiable, what));
    }
    Ok(())
}
