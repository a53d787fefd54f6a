//! An HTTP server for the sessions and whatever else answers on the same port.

use std::{convert::Infallible, io, pin::pin, time::Duration};

use bytes::Bytes;
use hyper::{Request, Response, body::Incoming};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::transport::{PING_INTERVAL, SERVER_PING_TIMEOUT, Tracked, WINDOW, one_line};

/// How long a connection may be silent before its first byte, and an HTTP/1.1 one between
/// requests.
const SILENCE: Duration = Duration::from_secs(30);
/// How long answers under way may take after the server was stopped.
const GRACE: Duration = Duration::from_secs(2);
/// Streams on one connection: a peer needs one.
pub(super) const STREAMS: u32 = 16;

/// Serves HTTP/1.1 and HTTP/2 on `listener` until `cancel`, then lets what is under way end, 2 s
/// at most. Returns when no connection is left.
///
/// HTTP/2 connections are pinged every second: one whose other end does not answer for two more
/// is dropped, and with it its session. How many connections there are at once is bounded by the
/// process's file descriptors; past that, new ones wait in the kernel's queue.
pub async fn serve<S, B>(listener: TcpListener, app: S, cancel: CancellationToken)
where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let tasks = TaskTracker::new();
    let kill = CancellationToken::new();
    let server = builder(&tasks);
    while let Some(accepted) = cancel.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                hold_off(&error, &cancel).await;
                continue;
            }
        };
        // Without it a message could wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let (server, app, stop) = (server.clone(), app.clone(), cancel.clone());
        let connection = async move { connection(&server, stream, app, stop).await };
        let kill = kill.clone();
        tasks.spawn(async move { kill.run_until_cancelled(connection).await });
    }
    drop(listener);
    tasks.close();
    if timeout(GRACE, tasks.wait()).await.is_err() {
        kill.cancel();
        tasks.wait().await;
    }
}

fn builder(tasks: &TaskTracker) -> auto::Builder<Tracked> {
    let mut builder = auto::Builder::new(Tracked(tasks.clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(SERVER_PING_TIMEOUT)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    builder
}

/// One connection until it ends, or until `stop` and then the end of what is under way.
async fn connection<S, B>(
    server: &auto::Builder<Tracked>,
    stream: TcpStream,
    app: S,
    stop: CancellationToken,
) where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Which HTTP it is shows in the first bytes; until they come nothing else has a clock.
    let first = stop.run_until_cancelled(timeout(SILENCE, stream.readable()));
    if !matches!(first.await, Some(Ok(Ok(())))) {
        return;
    }
    let service = TowerToHyperService::new(app);
    let mut serving = pin!(server.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(error = one_line(&*error), "connection broke");
    }
}

/// A connection that could not be accepted: the next try may come too soon when the process is
/// out of file descriptors.
async fn hold_off(error: &io::Error, cancel: &CancellationToken) {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
        _ => {
            warn!(%error, "cannot accept connections");
            let pause = sleep(Duration::from_millis(100));
            cancel.run_until_cancelled(pause).await;
        }
    }
}
