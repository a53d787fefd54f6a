//! Does what a picker decides.

use pantala_core::{
    PieceIndex,
    control::{FromPeer, Trouble},
};
use pantala_window::{Action, AttemptId, Event, ParentId, RunId};

use crate::{
    peer::{Request, Run},
    queue::{Flow, Happening, Index, Nanos, time},
    world::World,
};

/// How often the picker hears how its requests get on.
const PROGRESS: Nanos = 50_000_000;
/// Actions that one event may cause: more is a loop.
const ACTIONS_MAX: usize = 20_000;

impl World {
    /// Tells a picker what happened and does what it decides.
    pub(crate) fn tell(&mut self, p: Index, event: Event) {
        let now = time(self.now);
        let peer = &mut self.peers[p as usize];
        let Some(mut picker) = peer.picker.take() else {
            return;
        };
        picker.handle(now, event);
        let mut actions = 0;
        while let Some(action) = picker.poll_action() {
            actions += 1;
            assert!(actions < ACTIONS_MAX, "a picker goes round in circles");
            self.act(p, action);
        }
        let wakeup = picker.next_wakeup();
        let peer = &mut self.peers[p as usize];
        peer.picker = Some(picker);
        if let Some(at) = wakeup {
            let at = (at.as_micros() * 1000).max(self.now + 1000);
            if at < peer.wake {
                peer.wake = at;
                self.queue.push(at, Happening::PickerTick { peer: p });
            }
        }
    }

    pub(crate) fn picker_tick(&mut self, p: Index) {
        let now = self.now;
        let peer = &mut self.peers[p as usize];
        if peer.wake != now || !peer.alive() {
            return;
        }
        peer.wake = Nanos::MAX;
        let due = peer.picker.as_ref().and_then(|picker| picker.next_wakeup());
        let Some(due) = due.map(|at| at.as_micros() * 1000) else {
            return;
        };
        if due > now {
            peer.wake = due;
            self.queue.push(due, Happening::PickerTick { peer: p });
        } else {
            self.tell(p, Event::Tick);
        }
    }

    fn act(&mut self, p: Index, action: Action) {
        let task = self.task;
        match action {
            Action::Fetch {
                attempt,
                piece,
                parent,
                ..
            } => self.fetch(p, attempt, piece, parent),
            Action::Cancel { attempt, piece } => {
                let peer = &mut self.peers[p as usize];
                // Complete, and not waited for any more: nobody vouched for it.
                let given_up = peer
                    .flights
                    .get(&piece)
                    .is_some_and(|f| f.complete.is_some_and(|(of, _)| of == attempt));
                if given_up {
                    peer.flights.remove(&piece);
                }
                if let Some(request) = peer.attempts.remove(&attempt) {
                    let link = request.link;
                    self.after_latency(Happening::Unwant {
                        link,
                        piece,
                        attempt,
                    });
                }
            }
            Action::OpenRun {
                run,
                first,
                until,
                goal,
            } => self.open_run(p, run, first, until, goal),
            Action::ExtendRun { run, until } => {
                if let Some(&at) = self.peers[p as usize].runs.get(&run) {
                    self.runs[at as usize].until = until;
                    self.kick(Flow::Run(at));
                }
            }
            Action::StopRun { run } => {
                if let Some(at) = self.peers[p as usize].runs.remove(&run) {
                    self.runs[at as usize].open = false;
                }
            }
            Action::AskLease { piece, late } => {
                self.report_to_swarm(p, FromPeer::AskLease { task, piece, late });
            }
            Action::ReturnLease { first, end } => {
                self.peers[p as usize].leases.remove(first, end);
                self.report_to_swarm(p, FromPeer::ReturnLease { task, first, end });
            }
            Action::Pin { piece } => self.peers[p as usize].lru.set_pins(task, piece, 1),
            Action::Unpin { piece } => self.unpin(p, piece),
            Action::ReportSlow { parent } => {
                let parent = self.links[parent.0 as usize].parent;
                let message = FromPeer::Trouble {
                    task,
                    peer: self.peers[parent as usize].id,
                    trouble: Trouble::Slow,
                };
                self.report_to_swarm(p, message);
            }
            Action::GiveUp => panic!("a picker gave up, though the origin never fails here"),
        }
    }

    fn fetch(&mut self, p: Index, attempt: AttemptId, piece: PieceIndex, parent: ParentId) {
        let link = parent.0 as Index;
        let peer = &mut self.peers[p as usize];
        assert!(self.links[link as usize].up, "a request to nobody");
        assert!(!peer.held.contains(piece), "a request for a held piece");
        let from = match peer.flights.get(&piece) {
            // All is there and waits for its verdict, or for a better one.
            Some(flight) if flight.complete.is_some() => 0,
            Some(flight) => flight.bytes,
            None => 0,
        };
        let request = Request {
            link,
            piece,
            bytes: from,
            goes_on: from > 0,
            told: from,
        };
        peer.attempts.insert(attempt, request);
        let asked: std::collections::BTreeSet<PieceIndex> = peer
            .attempts
            .values()
            .map(|request| request.piece)
            .collect();
        peer.report.asked_most = peer.report.asked_most.max(asked.len());
        if !std::mem::replace(&mut peer.progress_due, true) {
            self.queue
                .push(self.now + PROGRESS, Happening::Progress { peer: p });
        }
        self.after_latency(Happening::Want {
            link,
            piece,
            attempt,
            from,
        });
    }

    fn open_run(
        &mut self,
        p: Index,
        id: RunId,
        first: PieceIndex,
        until: PieceIndex,
        goal: Option<PieceIndex>,
    ) {
        let at = self.runs.len() as Index;
        self.runs.push(Run {
            peer: p,
            id,
            open: false,
            piece: first,
            sent: 0,
            until,
            goal,
            burst: (0, 0),
            flying: 0,
            queued: false,
        });
        let peer = &mut self.peers[p as usize];
        peer.runs.insert(id, at);
        self.after_latency(Happening::RunOpen { run: at });
    }

    pub(crate) fn run_open(&mut self, at: Index) {
        let run = &mut self.runs[at as usize];
        let peer = &self.peers[run.peer as usize];
        run.open = peer.runs.get(&run.id) == Some(&at);
        self.kick(Flow::Run(at));
    }

    fn unpin(&mut self, p: Index, piece: PieceIndex) {
        let task = self.task;
        let peer = &mut self.peers[p as usize];
        peer.lru.set_pins(task, piece, 0);
        // The beginning of a piece that nobody wants here is of no use.
        let wanted = peer.attempts.values().any(|request| request.piece == piece);
        if !wanted && !peer.held.contains(piece) {
            peer.flights.remove(&piece);
        }
    }

    pub(crate) fn progress(&mut self, p: Index) {
        let peer = &mut self.peers[p as usize];
        peer.progress_due = false;
        if !peer.alive() || peer.attempts.is_empty() {
            return;
        }
        let mut news = Vec::new();
        for (&attempt, request) in &mut peer.attempts {
            if request.bytes > request.told {
                request.told = request.bytes;
                news.push((attempt, u64::from(request.bytes)));
            }
        }
        peer.progress_due = true;
        self.queue
            .push(self.now + PROGRESS, Happening::Progress { peer: p });
        for (attempt, bytes) in news {
            self.tell(p, Event::Progress { attempt, bytes });
        }
    }
}
