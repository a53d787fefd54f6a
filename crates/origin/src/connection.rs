//! One HTTP/1.1 connection. Whoever waits for its answer, or reads its body, moves it on: no task
//! of its own stands between the socket and the reader. So a block costs no switch between tasks,
//! small blocks are as fast as large ones, and what nobody reads stays in the kernel.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{Builder, Connection as Driver, SendRequest},
    },
    upgrade::Upgraded,
};

use crate::{
    Body,
    connect::Stream,
    pool::{Key, Pool},
    reads::{LITTLE, Measured, Reads},
};

/// The most that one read takes from a connection. Measured in `docs/design.md`.
pub(crate) const READ: usize = 128 << 10;

/// The most header lines of an answer. All of them fit into what one read takes.
const HEADERS: usize = 1024;

/// Reads of a transfer that nobody wants any more, to keep its connection.
const LAST_READS: usize = 2;

/// A connection that carries one request after the other.
pub(crate) struct Connection {
    sender: SendRequest<Body>,
    /// `None` when it has ended.
    driver: Option<Pin<Box<Driver<Measured, Body>>>>,
    reads: Reads,
    /// Whether it has carried an answer before: the other side may close such a one at the moment
    /// the next request is on its way.
    pub(crate) used: bool,
}

impl Connection {
    pub(crate) async fn over(stream: Stream) -> Result<Self, hyper::Error> {
        let reads = Reads::of(usize::MAX);
        let stream = Measured::new(stream, reads.clone());
        let (sender, driver) = Builder::new()
            // A buffer that adapts itself can double beyond the most it is said to hold.
            .read_buf_exact_size(Some(READ))
            // What has more than travels with a content's metadata can still be passed on.
            .max_headers(HEADERS)
            .handshake(stream)
            .await?;
        Ok(Self {
            sender,
            driver: Some(Box::pin(driver)),
            reads,
            used: false,
        })
    }

    /// Has each read take so many bytes at most from now on, where that is not above [`LIMIT_MAX`](crate::LIMIT_MAX).
    pub(crate) fn limit_reads(&self, most: usize) {
        self.reads.limit(most);
    }

    /// Reads and writes what can be read and written now.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(context).is_ready()
        {
            // Whether it ended well is told to who sent the request, or reads the body.
            self.driver = None;
        }
    }

    /// Whether the next request may go out, as far as can be seen without waiting.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// With the request where the other side cannot have seen it.
    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        let answer = poll_fn(|context| {
            if let Some(running) = driver
                && running.as_mut().poll(context).is_ready()
            {
                *driver = None;
            }
            answer.as_mut().poll(context)
        });
        let answer = answer.await?;
        self.used = true;
        Ok(answer)
    }
}

/// Sends a request that asks to go on in another protocol and waits for the head of its answer,
/// and for the connection itself where the other side agrees. Else the connection ends with the
/// answer.
pub(crate) async fn upgrade(
    stream: Stream,
    request: Request<Body>,
) -> Result<(Response<Body>, Option<Upgraded>), hyper::Error> {
    let reads = Reads::of(LITTLE);
    let stream = Measured::new(stream, reads.clone());
    let (mut sender, driver) = Builder::new()
        .read_buf_exact_size(Some(READ))
        .max_headers(HEADERS)
        .handshake(stream)
        .await?;
    let mut driver: Running = Box::pin(driver.with_upgrades());
    let mut running = true;
    let mut answer = pin!(sender.send_request(request));
    let mut answer = poll_fn(|context| {
        // How it ended is told to who sent the request.
        running = running && driver.as_mut().poll(context).is_pending();
        answer.as_mut().poll(context)
    })
    .await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let body = |body| {
            let driver = running.then_some(driver);
            Driven {
                body,
                driver,
                reads,
            }
        };
        return Ok((answer.map(body).map(Body::from), None));
    }
    reads.limit(usize::MAX);
    let upgraded = hyper::upgrade::on(&mut answer);
    if running {
        driver.await?;
    }
    Ok((answer.map(|_| Body::empty()), Some(upgraded.await?)))
}

/// A connection that may be upgraded, while it runs.
type Running = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// The body of an answer on a connection that carries no other.
pub(crate) struct Driven {
    body: Incoming,
    /// `None` when it has ended.
    driver: Option<Running>,
    reads: Reads,
}

impl Driven {
    /// As [`Connection::limit_reads`].
    pub(crate) fn limit_reads(&self, most: usize) {
        self.reads.limit(most);
    }
}

impl http_body::Body for Driven {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        if let Some(driver) = &mut this.driver
            && driver.as_mut().poll(context).is_ready()
        {
            this.driver = None;
        }
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, and the connection it arrives on. That goes back to the pool when all
/// of the body has been read.
pub(crate) struct Transfer {
    body: Incoming,
    connection: Option<Connection>,
    pool: Arc<Pool>,
    key: Key,
    /// Where its bytes are added up.
    received: Option<Arc<AtomicU64>>,
}

impl Transfer {
    pub(crate) fn new(body: Incoming, connection: Connection, pool: Arc<Pool>, key: Key) -> Self {
        Self {
            body,
            connection: Some(connection),
            pool,
            key,
            received: None,
        }
    }

    /// Adds the bytes of the body to `received` as they are read.
    pub(crate) fn count(mut self, received: Arc<AtomicU64>) -> Self {
        self.received = Some(received);
        self
    }

    /// As [`Connection::limit_reads`].
    pub(crate) fn limit_reads(&self, most: usize) {
        if let Some(connection) = &self.connection {
            connection.limit_reads(most);
        }
    }

    /// Gives the connection back once the body has ended, if it can be used again.
    fn give_back(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && connection.is_ready()
        {
            self.pool.put(self.key.clone(), connection);
        }
    }
}

impl http_body::Body for Transfer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut frame = Pin::new(&mut this.body).poll_frame(context);
        if frame.is_pending()
            && let Some(connection) = &mut this.connection
        {
            connection.drive(context);
            frame = Pin::new(&mut this.body).poll_frame(context);
        }
        let frame = ready!(frame);
        match &frame {
            None => this.give_back(),
            Some(Ok(frame)) => {
                if let (Some(received), Some(data)) = (&this.received, frame.data_ref()) {
                    received.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
            }
            Some(Err(_)) => this.connection = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Transfer {
    /// A body whose small rest is there already does not cost its connection.
    fn drop(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..LAST_READS {
            if self.connection.is_none() {
                return;
            }
            if self.body.is_end_stream() {
                self.give_back();
                return;
            }
            if !matches!(
                Pin::new(&mut *self).poll_frame(&mut context),
                Poll::Ready(Some(Ok(_)))
            ) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};

    use super::*;
    use crate::{Asker, tls::Identity};

    /// What the pipe holds: far more than is read at once.
    const PIPE: usize = 4 << 20;
    const LENGTH: usize = 64 << 20;

    #[tokio::test]
    async fn no_more_is_read_than_is_taken() {
        let (near, mut far) = tokio::io::duplex(PIPE);
        let near = Stream::Pipe(TokioIo::new(near));
        let mut connection = Connection::over(near).await.unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        let request = Request::get("/f").body(Body::empty()).unwrap();
        let serve = async {
            assert!(far.read(&mut [0; 4096]).await.unwrap() > 0);
            far.write_all(head.as_bytes()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(connection.send(request), serve);
        let (scheme, authority) = ("http".parse().unwrap(), "origin.example".parse().unwrap());
        let key = (scheme, authority, Identity::Anonymous, Asker::Host);
        let mut body = Transfer::new(answer.unwrap().into_body(), connection, Arc::default(), key);

        let block = vec![7; 1 << 20];
        let (mut written, mut taken) = (0, 0);
        // Long enough for buffers that grow to have grown.
        while taken < 16 << 20 {
            let mut context = Context::from_waker(Waker::noop());
            while let Poll::Ready(bytes) = Pin::new(&mut far).poll_write(&mut context, &block) {
                written += bytes.unwrap();
            }
            let frame = body.frame().await.unwrap().unwrap();
            let bytes = frame.into_data().unwrap();
            assert!(bytes.len() <= READ, "{} bytes at once", bytes.len());
            taken += bytes.len();
            assert!(written - taken <= PIPE + READ, "{written} of {taken}");
        }
    }
}
