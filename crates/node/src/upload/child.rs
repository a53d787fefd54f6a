//! One connected child: what it says is heard, and what can be done for it is done, until it leaves or is cut off.
//!
//! This file must not know what the connection is made of: anything that can be read and written will do.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use pantala_core::{Error, Kind, Result, TaskId, Who};
use pantala_wire::link::{FrameReader, Refusal, ToChild, ToParent};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{futures::Notified, mpsc},
    time::Instant,
};

use super::{
    PeerServer,
    news::News,
    next::Next,
    outgoing::Outgoing,
    requests::{REQUESTS, Request, Requests},
    slots::{Place, Queue, Slot},
};
use crate::{
    limiter::Passage,
    seats::{InUse, Seat},
};

/// How long a child may take to say something for the first time.
pub(super) const GREETING: Duration = Duration::from_secs(5);
/// How long a child may be connected that follows nothing and wants nothing.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// A child as its parent sees it.
pub(super) struct Child<'a, W> {
    server: &'a PeerServer,
    seat: &'a Arc<Seat>,
    /// Made while it wants something.
    in_use: Option<InUse>,
    outgoing: Outgoing<W>,
    pub news: News,
    pub requests: Requests,
    /// Where it stands in the line for the uplink.
    pub place: Place,
    queue: Queue,
    /// When a limit lets something through, if nothing but limits is in the way.
    pub again: Option<Instant>,
}

impl PeerServer {
    /// Serves a child over a connection of two halves until it leaves, or has to.
    pub(super) async fn attend<R, W>(&self, read: R, write: W, seat: &Arc<Seat>) -> Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let _level = self.metrics.child();
        let (messages, said) = mpsc::channel(REQUESTS);
        let mut child = Child {
            server: self,
            seat,
            in_use: None,
            outgoing: Outgoing::new(write),
            news: News::default(),
            requests: Requests::default(),
            place: Place::new(&self.line),
            queue: Queue::default(),
            again: None,
        };
        tokio::select! {
            result = listen(read, messages) => result,
            result = child.serve(said) => result,
            () = room_is_needed(seat) => Err(makes_room()),
        }
    }
}

/// Ends when the seat is needed for somebody else and its child wants nothing.
async fn room_is_needed(seat: &Seat) {
    seat.closing().await;
    if !seat.is_idle() {
        std::future::pending::<()>().await;
    }
}

/// Passes on what a child says, until it closes the connection.
async fn listen(read: impl AsyncRead + Unpin, messages: mpsc::Sender<ToParent>) -> Result<()> {
    let mut reader = FrameReader::new(read);
    let first = tokio::time::timeout(GREETING, reader.from_child()).await;
    let mut next = first.map_err(|_| idle("said nothing"))??;
    while let Some(message) = next {
        if messages.send(message).await.is_err() {
            break;
        }
        next = reader.from_child().await?;
    }
    Ok(())
}

impl<'a, W: AsyncWrite + Unpin> Child<'a, W> {
    async fn serve(&mut self, mut said: mpsc::Receiver<ToParent>) -> Result<()> {
        let hello = ToChild::hello(self.server.me);
        self.outgoing.messages.say(&hello);
        // From before it is looked for any: none comes unnoticed, whatever is done meanwhile.
        let mut come = pin!(self.server.tasks.changed.notified());
        loop {
            while let Ok(message) = said.try_recv() {
                self.hear(message);
            }
            if self.wonders() && come.as_mut().now_or_never().is_some() {
                come.set(self.server.tasks.changed.notified());
                self.look_for_unknown();
            }
            self.tell_news();
            self.note_use();
            match self.next() {
                Next::Send { at, block } if self.has_slot(at) => self.send(at, block).await?,
                Next::Send { block, .. } => {
                    // Nothing keeps the piece here that cannot be sent yet.
                    drop(block);
                    self.wait(&mut said, come.as_mut()).await?;
                }
                Next::Finish { at, size } => self.finish(at, size),
                Next::Refuse { at } => {
                    let request = self.requests.refuse(at);
                    self.refuse(request, Refusal::NotHere);
                }
                Next::Nothing => {
                    // Who waits, for bytes or for a limit, keeps nobody from the uplink.
                    self.requests.rest();
                    self.queue.leave();
                    self.wait(&mut said, come.as_mut()).await?;
                }
            }
        }
    }

    /// Says what there is to say, and waits until something happens. `come` ends when a task has come.
    async fn wait(
        &mut self,
        said: &mut mpsc::Receiver<ToParent>,
        come: Pin<&mut Notified<'a>>,
    ) -> Result<()> {
        self.outgoing.flush().await?;
        self.requests.written();
        self.note_use();
        if self.in_use.is_none() && self.seat.has_to_close() {
            // It has asked for something just when it had to make room, and has had that.
            return Err(makes_room());
        }
        let others = self.server.line.changed();
        let yields = self.place.yields();
        if yields && self.server.line.is_free() {
            return Ok(());
        }
        let unused = self.news.is_empty() && self.requests.is_empty();
        let patience = self.requests.patience();
        let wonders = self.wonders();
        let message = tokio::select! {
            message = said.recv() => message,
            () = self.news.waker.notified() => return Ok(()),
            () = others, if yields => return Ok(()),
            () = self.queue.turn() => return Ok(()),
            () = sleep_until(self.again), if self.again.is_some() => return Ok(()),
            // It is refused then.
            () = sleep_until(patience), if patience.is_some() => return Ok(()),
            () = tokio::time::sleep(IDLE), if unused => return Err(idle("wants nothing")),
            () = come, if wonders => return Ok(()),
        };
        if let Some(message) = message {
            self.hear(message);
        }
        Ok(())
    }

    /// A seat is in use until the last word of the last request has been written.
    fn note_use(&mut self) {
        let wants = self.requests.are_open();
        if wants != self.in_use.is_some() {
            self.in_use = wants.then(|| self.seat.begin());
        }
    }

    fn hear(&mut self, message: ToParent) {
        match message {
            ToParent::Hello { .. } => {}
            ToParent::Follow { task } => {
                self.discover(task);
                self.news.follow(task, &mut self.outgoing.messages);
            }
            ToParent::Unfollow { task } => {
                self.requests.unfollow(&task);
                self.news.unfollow(&task);
            }
            ToParent::Want {
                request,
                task,
                piece,
                offset,
                urgency,
            } => {
                if self.requests.is_full() {
                    self.refuse(request, Refusal::Busy);
                    return;
                }
                self.discover(task);
                let followed = self.news.get(&task);
                let sent = offset as usize;
                // Said at once, whatever is more urgent: the child can ask somebody else.
                if followed.is_some_and(|followed| followed.is_hopeless(piece, sent)) {
                    self.refuse(request, Refusal::NotHere);
                    return;
                }
                let level = self.server.metrics.request();
                let request = Request::new((request, task, piece), sent, urgency, level);
                self.requests.ask(request, followed);
            }
            ToParent::Urge { request, urgency } => self.requests.urge(request, urgency, &self.news),
            ToParent::AreYouThere => self.outgoing.messages.say(&ToChild::Here),
            ToParent::Cancel { request } => self.requests.cancel(request),
        }
    }

    fn refuse(&mut self, request: u32, refusal: Refusal) {
        let refused = ToChild::Refused { request, refusal };
        self.outgoing.messages.say(&refused);
    }

    /// Has a task known to this child, if there is one of that name.
    fn discover(&mut self, task: TaskId) {
        if let Some(followed) = self.news.discover(task, &self.server.tasks) {
            self.requests.discover(followed);
        }
    }

    /// Whether it waits for a task to come.
    fn wonders(&self) -> bool {
        self.news.has_unknown() || self.requests.await_task()
    }

    /// Some of the tasks that it waits for may have come.
    fn look_for_unknown(&mut self) {
        let mut tasks = self.news.unknown();
        tasks.extend(self.requests.awaited_tasks());
        tasks.into_iter().for_each(|task| self.look_for(task));
    }

    fn look_for(&mut self, task: TaskId) {
        self.discover(task);
        if self.news.wonders(&task) {
            self.news.follow(task, &mut self.outgoing.messages);
        }
    }

    /// Writes down what happened in the followed tasks.
    fn tell_news(&mut self) {
        for closed in self.news.tell(&mut self.outgoing.messages) {
            self.requests.lose(&closed);
            // It may be back already.
            self.look_for(closed);
        }
    }

    /// Whether a request may use the uplink. If not, the child waits for a slot from now on.
    fn has_slot(&mut self, at: usize) -> bool {
        if self.requests.at(at).slot().is_some() {
            return true;
        }
        let background = self.requests.at(at).is_background();
        // The slot of another request goes to those that have waited longer.
        self.requests.rest();
        let slot = self.queue.take(self.server, background);
        slot.map(|slot| self.requests.begin(at, slot)).is_some()
    }

    async fn send(&mut self, at: usize, block: Bytes) -> Result<()> {
        let request = self.requests.at(at);
        request.advance(block.len());
        let (number, task, piece) = (request.number, request.task, request.piece);
        if let Some(followed) = self.news.get_mut(&task) {
            followed.passage = Passage::default();
        }
        let (slot, place, len) = (request.slot(), &mut self.place, block.len());
        // Others have its slot before it has taken anything: it may have stopped for good.
        let too_slow = || {
            slot.into_iter().for_each(Slot::lend);
            place.leave();
        };
        self.outgoing.block(number, block, too_slow).await?;
        self.requests.written();
        self.server.metrics.peer_sent(len as u64);
        if let Some(followed) = self.news.get(&task) {
            followed.handle.pieces.touch(piece);
        }
        Ok(())
    }

    /// All of a request has been sent.
    fn finish(&mut self, at: usize, size: usize) {
        let request = self.requests.at(at);
        let (number, piece) = (request.number, request.piece);
        if let Some(followed) = self.news.get(&request.task) {
            followed.handle.was_served(piece);
        }
        let done = ToChild::Done {
            request: number,
            size: size as u32,
        };
        self.outgoing.messages.say(&done);
        self.requests.say(at);
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

fn makes_room() -> Error {
    idle("makes room for others")
}

fn idle(why: &str) -> Error {
    Error::new(Who::Peer, Kind::Timeout, why)
}
