//! The driver of one task: it carries out with real sockets what the task's brain decides.
//!
//! A driver wires parts that each own a subject and what must hold for it: requests to parents, links to
//! them, transfers from the origin, readers, reports to the supernode, the task's class. A part does not
//! know of the others: what has to do with two of them is done here, or in a method of the driver's in the
//! file of that subject.

mod actions;
mod class;
mod origin;
mod parents;
mod pieces;
mod readers;
mod report;
mod request;
mod requests;
mod steward;
mod supernode;

use std::{sync::Arc, time::Duration};

use pantala_core::{Error, PieceIndex, control::FromPeer};
use pantala_origin::OriginClient;
use pantala_store::{Change, PieceBuffer, Store};
use pantala_window::{Event, Picker};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    class::Standing, origin::Origin, parents::ParentLinks, pieces::Digests, readers::Told,
    report::Report, requests::Requests, steward::Steward,
};
use crate::{
    clock::Clock,
    download::Links,
    error,
    line::Line,
    metrics::Metrics,
    node::ControlPort,
    shelf::Shelf,
    task::{Command, Planned, TaskHandle, Tasks},
};

/// Carries out with real sockets what one task's brain decides.
///
/// One tokio task owns it; everybody else talks to it by [`Command`]s, and it never waits for
/// anybody: orders go out by `try_send`, whatever takes time runs in a task of its own.
pub(crate) struct Driver {
    handle: Arc<TaskHandle>,
    /// Dropped with the driver, whatever ends it.
    _leftovers: Leftovers,
    commands: mpsc::Receiver<Command>,
    picker: Picker,
    ports: Ports,
    news: broadcast::Receiver<Change>,
    requests: Requests,
    parents: ParentLinks,
    origin: Origin,
    digests: Digests,
    readers: Told,
    /// Reads on for others where no reader is left here.
    steward: Option<Steward>,
    report: Report,
    class: Standing,
    idle_since: Option<Instant>,
    /// Why nobody may have the task here any more.
    over: Option<Error>,
}

/// What a driver uses of its node.
#[derive(Clone)]
pub(crate) struct Ports {
    pub tasks: Arc<Tasks>,
    pub store: Store,
    pub origin: OriginClient,
    pub links: Arc<Links>,
    pub control: ControlPort,
    pub metrics: Metrics,
    pub clock: Clock,
    /// How many readers share the memory budget.
    pub readers: watch::Receiver<usize>,
    /// What comes to this node.
    pub line: Arc<Line>,
    /// What this node knows URLs to answer.
    pub shelf: Arc<Shelf>,
    pub tracker: TaskTracker,
    pub cancel: CancellationToken,
}

/// The state of a task that must be cleared when its driver ends, also by a panic: nothing else would bring
/// the task's readers another byte, or tell them so.
struct Leftovers {
    handle: Arc<TaskHandle>,
    tasks: Arc<Tasks>,
    store: Store,
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        // A task of the same name may be there again.
        let own = |task: &TaskHandle| std::ptr::eq(task, &*self.handle);
        if self.tasks.remove_if(&self.handle.id, own) {
            self.store.remove(&self.handle.id);
        }
        // Where the driver has told its readers a reason, that one holds.
        self.handle.readers.fail(&error::abandoned());
    }
}

/// How long a task without readers and pieces is kept, in case somebody comes back.
const LINGER: Duration = Duration::from_secs(1);
/// What a peer may claim of content whose length is unknown: 16 TiB of the smallest pieces.
const PIECES_MAX: u32 = 1 << 24;

impl Driver {
    pub fn new(
        handle: Arc<TaskHandle>,
        commands: mpsc::Receiver<Command>,
        picker: Picker,
        ports: Ports,
        solo: bool,
    ) -> Self {
        let (_, _, news) = handle.pieces.follow();
        let leftovers = Leftovers {
            handle: handle.clone(),
            tasks: ports.tasks.clone(),
            store: ports.store.clone(),
        };
        let now = Instant::now();
        let mut driver = Self {
            requests: Requests::new(handle.pieces.clone()),
            parents: ParentLinks::default(),
            origin: Origin::default(),
            digests: Digests::new(),
            readers: Told::new(now),
            steward: None,
            report: Report::new(handle.id, now),
            class: Standing::new(),
            idle_since: None,
            over: None,
            handle,
            _leftovers: leftovers,
            commands,
            picker,
            ports,
            news,
        };
        if let Some(pieces) = driver.handle.pieces.geometry().pieces() {
            driver.feed(Event::Ended { pieces });
        }
        if !solo && !driver.ports.control.is_up() {
            driver.feed(Event::SupernodeDown);
        }
        driver
    }

    /// Runs until nobody wants the task and nothing of it is left, or the node stops.
    pub async fn run(mut self) {
        let cancel = self.ports.cancel.clone();
        let line = self.ports.line.clone();
        loop {
            let others = line.changed();
            self.classify();
            self.settle();
            if self.is_over() {
                break;
            }
            let wakeup = self.next_wakeup();
            let judge = self.next_to_judge();
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(command) = self.commands.recv() => self.command(command),
                () = self.handle.readers.changed.notified() => self.readers_changed(),
                () = others => {}
                change = self.news.recv() => self.change(change),
                Ok(()) = self.ports.readers.changed() => self.sync_share(),
                () = tokio::time::sleep_until(wakeup) => self.tick(),
                // Hashing is the one thing here that takes time: after all else that can be done,
                // and after whoever was woken by it on this thread. A reader would wait for many
                // pieces otherwise, and its window for the reader.
                () = tokio::task::yield_now(), if judge.is_some() => self.judge(judge),
            }
            // Take what else is there before deciding anew.
            while let Ok(command) = self.commands.try_recv() {
                self.command(command);
            }
        }
        self.end();
    }

    fn feed(&mut self, event: Event) {
        tracing::trace!(task = ?self.handle.id, ?event, "happened");
        self.picker.handle(self.ports.clock.now(), event);
    }

    /// Carries out all decisions, and says what there is to say.
    fn settle(&mut self) {
        while let Some(action) = self.picker.poll_action() {
            self.act(action);
        }
        self.requests.keep_left(|piece| self.picker.wants(piece));
        debug_assert!(!cfg!(test) || self.agrees());
        self.tell_what_is_planned();
        self.announce();
    }

    /// Says what children may wait for here.
    fn tell_what_is_planned(&self) {
        let planned = match self.picker.planned() {
            Some((first, end)) => Planned::Pieces(first, end),
            // Its first reader is about to come: children that were quicker must not be turned away.
            None if !self.readers.were_there() => Planned::Unknown,
            None => Planned::Nothing,
        };
        let mut shared = self.handle.planned.lock();
        if *shared != planned {
            *shared = planned;
            // Children that wait for what will not come must be told.
            self.handle.pieces.wake();
        }
    }

    fn next_wakeup(&self) -> Instant {
        let brain = self.picker.next_wakeup();
        let (has_runs, has_requests) = (!self.origin.has_no_runs(), !self.requests.is_empty());
        let times = [
            brain.map(|time| self.ports.clock.instant(time)),
            self.report.due(),
            self.class.pause_until(),
            (has_requests || has_runs).then(|| self.report.next_progress()),
            has_runs.then(|| self.report.next_pulse()),
            self.parents.next_redial(),
            self.origin.confirmed_by(),
            self.readers.next_rest(),
        ];
        let soonest = times.into_iter().flatten().min();
        let latest = Instant::now() + Duration::from_secs(1);
        soonest.map_or(latest, |at| at.min(latest))
    }

    /// Whether brain, requests and pieces agree, once all decisions have been carried out. That costs all
    /// pieces: programs look by the clock, and only as debug builds.
    fn agrees(&self) -> bool {
        let is_up = |parent| self.parents.is_up(parent);
        self.requests.check(&self.picker, is_up)
    }

    /// Does what is done by the clock. Nothing has happened since decisions were carried out.
    fn tick(&mut self) {
        debug_assert!(self.agrees());
        let now = Instant::now();
        self.progress(now);
        self.end_turned_away();
        self.redial(now);
        self.give_up_links(now);
        self.follow_others();
        self.look_for_rest(now);
        // What an upload held when somebody asked for room may be free by now.
        self.ports.store.budget().nudge();
        self.end_unconfirmed(now);
        self.pulse(now);
        self.feed(Event::Tick);
    }

    fn is_over(&mut self) -> bool {
        if self.over.is_some() {
            return true;
        }
        if !self.readers.is_empty()
            || self.steward.is_some()
            || self.handle.pieces.held() > 0
            || !self.handle.readers.is_empty()
        {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        // While the table is locked nobody can find the task, so nobody can open a reader on it.
        since.elapsed() >= LINGER
            && self.ports.tasks.remove_if(&self.handle.id, |task| {
                task.readers.is_empty() && task.pieces.held() == 0
            })
    }

    fn end(mut self) {
        self.ports.tasks.remove_if(&self.handle.id, |_| true);
        let why = self.over.take().unwrap_or_else(error::stopping);
        self.handle.readers.fail(&why);
        self.say(FromPeer::Leave {
            task: self.handle.id,
        });
        self.origin.stop_all();
        for link in self.parents.links() {
            link.unfollow(self.handle.id);
        }
        self.ports.store.remove(&self.handle.id);
    }

    // ---- what happens -------------------------------------------------------------------------

    fn command(&mut self, command: Command) {
        match command {
            Command::Known(known) => self.known(known),
            Command::Learned {
                first,
                end,
                start,
                body,
            } => {
                // Its reader comes first: a lease that nobody needs is given back at once.
                self.sync_readers();
                self.origin.learned(first, end, start, body);
                if end.is_some() {
                    // The supernode is not told of a part that nothing can be joined to.
                    self.feed(Event::SupernodeDown);
                }
                self.feed(Event::LeaseGranted { first, end });
            }
            Command::Alone => {
                self.sync_readers();
                self.feed(Event::LeaseGranted {
                    first: PieceIndex::new(0),
                    end: None,
                });
            }
            Command::Control(message) => self.control(message),
            // Nobody else is told of it.
            Command::SupernodeUp if self.handle.part_until().is_some() => {}
            Command::SupernodeUp => {
                self.feed(Event::SupernodeUp);
                self.resume();
            }
            Command::SupernodeDown => {
                self.origin.take_assumed();
                self.feed(Event::SupernodeDown);
            }
            Command::LinkUp { link } => self.link_up(link),
            Command::LinkDown { peer, error } => self.link_down(peer, &error),
            Command::Holds { peer, runs } => {
                self.parent_news(peer, runs, |parent, first, count| Event::ParentHolds {
                    parent,
                    first,
                    count,
                })
            }
            Command::Lost { peer, runs } => {
                self.parent_news(peer, runs, |parent, first, count| Event::ParentLost {
                    parent,
                    first,
                    count,
                })
            }
            Command::Receiving { peer, piece } => {
                self.parent_news(peer, vec![(piece, 1)], |parent, piece, _| {
                    Event::ParentReceiving { parent, piece }
                });
            }
            Command::Room { attempt, charge } => {
                self.request(attempt, PieceBuffer::charged(charge).1)
            }
            Command::Fetched { attempt, buffer } => self.fetched(attempt, &buffer),
            Command::FetchFailed {
                attempt,
                failure,
                writer,
            } => self.fetch_failed(attempt, failure, writer),
            Command::RunAt { run, piece } => self.run_at(run, piece),
            Command::RunSealed {
                piece,
                buffer,
                digest,
            } => self.came_from_origin(piece, buffer, digest),
            Command::RunEnded { length } => {
                self.ended(length);
                // After all that was sealed, so that whoever sends the end has sent what is before it.
                self.say(FromPeer::Ended {
                    task: self.handle.id,
                    length,
                });
            }
            Command::RunFailed { run, error } => {
                tracing::info!(task = ?self.handle.id, %error, "a transfer from the origin failed");
                self.run_failed(run, error);
            }
            Command::Poison => {
                // Only who has read to the end can know; the last word on that is older.
                let end = self.handle.pieces.geometry().pieces().unwrap_or_default();
                self.say(FromPeer::Have {
                    task: self.handle.id,
                    gained: Vec::new(),
                    lost: Vec::new(),
                    position: PieceIndex::new(end),
                    in_flight: 0,
                    reader_bound: false,
                });
                self.say(FromPeer::Poison {
                    task: self.handle.id,
                });
                self.over = Some(error::poisoned());
            }
            Command::Snapshot { reply } => drop(reply.send(self.picker.snapshot())),
        }
    }
}

#[cfg(test)]
mod tests;
