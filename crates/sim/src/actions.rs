//! Does what a picker decides.

use pantala_core::{
    PieceIndex,
    control::{FromPeer, Trouble},
};
use pantala_window::{Action, AttemptId, Event, ParentId, RunId};

use crate::{
    queue::{Happening, Index, Nanos, time},
    seat::{Request, Run},
    world::World,
};

/// How often the picker hears how its requests get on.
const PROGRESS: Nanos = 50_000_000;
/// Actions that one event may cause: more is a loop.
const ACTIONS_MAX: usize = 20_000;

impl World {
    /// Tells a picker what happened and does what it decides.
    pub(crate) fn tell(&mut self, s: Index, event: Event) {
        self.hint(s, event);
        self.drain(s);
    }

    /// Tells a picker what happened; what it decides is done once it has heard what else happened
    /// at the same time.
    pub(crate) fn hint(&mut self, s: Index, event: Event) {
        let now = time(self.now);
        let seat = &mut self.seats[s as usize];
        if let Some(picker) = &mut seat.picker {
            picker.handle(now, event);
            seat.asked = true;
        }
    }

    /// Does what a picker has decided.
    pub(crate) fn drain(&mut self, s: Index) {
        let seat = &mut self.seats[s as usize];
        if !std::mem::take(&mut seat.asked) {
            return;
        }
        let Some(mut picker) = seat.picker.take() else {
            return;
        };
        let mut actions = 0;
        while let Some(action) = picker.poll_action() {
            actions += 1;
            assert!(actions < ACTIONS_MAX, "a picker goes round in circles");
            self.act(s, action);
        }
        let wakeup = picker.next_wakeup();
        let seat = &mut self.seats[s as usize];
        seat.picker = Some(picker);
        if let Some(at) = wakeup {
            let at = (at.as_micros() * 1000).max(self.now + 1000);
            if at < seat.wake {
                seat.wake = at;
                self.queue.push(at, Happening::PickerTick { seat: s });
            }
        }
    }

    pub(crate) fn picker_tick(&mut self, s: Index) {
        let now = self.now;
        let seat = &mut self.seats[s as usize];
        if seat.wake != now || !seat.alive {
            return;
        }
        seat.wake = Nanos::MAX;
        let due = seat.picker.as_ref().and_then(|picker| picker.next_wakeup());
        let Some(due) = due.map(|at| at.as_micros() * 1000) else {
            return;
        };
        if due > now {
            seat.wake = due;
            self.queue.push(due, Happening::PickerTick { seat: s });
        } else {
            self.tell(s, Event::Tick);
        }
    }

    fn act(&mut self, s: Index, action: Action) {
        match action {
            Action::Fetch {
                attempt,
                piece,
                parent,
                urgency,
                ..
            } => self.fetch(s, attempt, piece, parent, urgency),
            Action::Cancel { attempt, piece } => self.cancel(s, attempt, piece),
            Action::OpenRun {
                run,
                first,
                until,
                goal,
            } => self.open_run(s, run, first, until, goal),
            Action::ExtendRun { run, until } => {
                if let Some(&at) = self.seats[s as usize].runs.get(run) {
                    self.runs[at as usize].until = until;
                    self.kick(self.runs[at as usize].conn);
                }
            }
            Action::StopRun { run } => {
                if let Some(at) = self.seats[s as usize].runs.remove(run) {
                    self.runs[at as usize].open = false;
                }
            }
            Action::AskLease { piece, late } => {
                let (host, task) = (self.seats[s as usize].host, self.task_id(s));
                self.report_to_swarm(host, FromPeer::AskLease { task, piece, late });
            }
            Action::OfferLease { first, end } => {
                let (host, task) = (self.seats[s as usize].host, self.task_id(s));
                self.report_to_swarm(host, FromPeer::OfferLease { task, first, end });
            }
            Action::ReturnLease { first, end } => {
                self.seats[s as usize].leases.remove(first, end);
                let (host, task) = (self.seats[s as usize].host, self.task_id(s));
                self.report_to_swarm(host, FromPeer::ReturnLease { task, first, end });
            }
            Action::Pin { piece } => self.pin(s, piece, true),
            Action::Unpin { piece } => {
                self.pin(s, piece, false);
                // The beginning of a piece that nobody wants here is of no use.
                let seat = &self.seats[s as usize];
                if !seat.held.contains(piece) && !seat.asks_for(piece) {
                    self.drop_flight(s, piece);
                }
            }
            Action::ReportSlow { parent } => {
                let sender = self.links[parent.0 as usize].sender;
                let message = FromPeer::Trouble {
                    task: self.task_id(s),
                    peer: self.hosts[sender as usize].id,
                    trouble: Trouble::Slow,
                };
                let host = self.seats[s as usize].host;
                self.report_to_swarm(host, message);
            }
            Action::GiveUp | Action::BlameOrigin { .. } => {
                panic!("a picker gave up, though the origin never fails here")
            }
        }
    }

    fn pin(&mut self, s: Index, piece: PieceIndex, pinned: bool) {
        let (host, task) = (self.seats[s as usize].host, self.task_id(s));
        self.hosts[host as usize].cache.pin(task, piece, pinned);
    }

    fn fetch(
        &mut self,
        s: Index,
        attempt: AttemptId,
        piece: PieceIndex,
        parent: ParentId,
        urgency: u32,
    ) {
        let at = parent.0 as Index;
        let size = self.geometry(s).size(piece) as u32;
        let link = &self.links[at as usize];
        let seat = &mut self.seats[s as usize];
        assert!(link.up, "a request to nobody");
        assert!(!seat.held.contains(piece), "a request for a held piece");
        let from = match seat.flights.get(piece) {
            // All is there and waits for its verdict, or for a better one.
            Some(flight) if flight.complete.is_some() => 0,
            // Of a block whose transfer broke what was taken for there may not have come.
            Some(flight) => flight.bytes.min(size.saturating_sub(self.scenario.relay)),
            None => 0,
        };
        let request = Request {
            link: at,
            piece,
            bytes: from,
            goes_on: from > 0,
            told: from,
        };
        seat.attempts.insert(attempt, request);
        let progress = !std::mem::replace(&mut seat.progress_due, true);
        let (asked, host, conn) = (seat.attempts.len(), seat.host, link.conn);
        let report = &mut self.visits[self.hosts[host as usize].visit as usize].report;
        if asked > report.asked_most {
            // A piece may be asked for twice.
            let requests = self.seats[s as usize].attempts.values();
            let mut pieces: Vec<PieceIndex> = requests.map(|request| request.piece).collect();
            pieces.sort_unstable();
            pieces.dedup();
            report.asked_most = report.asked_most.max(pieces.len());
        }
        if progress {
            self.after(PROGRESS, Happening::Progress { seat: s });
        }
        let arrives = self.back(conn);
        self.queue.push(
            arrives,
            Happening::Want {
                link: at,
                piece,
                attempt,
                from,
                urgency,
            },
        );
    }

    fn cancel(&mut self, s: Index, attempt: AttemptId, piece: PieceIndex) {
        // Complete, and not waited for any more: nobody vouched for it.
        let flight = self.seats[s as usize].flights.get(piece);
        if flight.is_some_and(|flight| flight.complete.is_some_and(|(of, _)| of == attempt)) {
            self.drop_flight(s, piece);
        }
        if let Some(request) = self.seats[s as usize].attempts.remove(attempt) {
            let link = request.link;
            let arrives = self.back(self.links[link as usize].conn);
            self.queue.push(
                arrives,
                Happening::Unwant {
                    link,
                    piece,
                    attempt,
                },
            );
        }
    }

    fn open_run(
        &mut self,
        s: Index,
        id: RunId,
        first: PieceIndex,
        until: PieceIndex,
        goal: Option<PieceIndex>,
    ) {
        let host = self.seats[s as usize].host;
        let conn = self.connect(None, host);
        let at = self.runs.len() as Index;
        self.conns[conn as usize].run = Some(at);
        self.runs.push(Run {
            seat: s,
            id,
            conn,
            open: false,
            piece: first,
            sent: 0,
            until,
            goal,
            burst: (0, 0),
        });
        self.seats[s as usize].runs.insert(id, at);
        let wait = self.request(s, conn);
        self.after(wait, Happening::RunOpen { run: at });
    }

    /// How long a request to the origin takes to get there. The transfer that brought what is known of the content goes on
    /// as the first; every other has a connection of its own.
    fn request(&mut self, s: Index, conn: Index) -> Nanos {
        let (latency, host) = {
            let conn = &self.conns[conn as usize];
            (conn.latency, conn.receiver)
        };
        let learned = std::mem::take(&mut self.seats[s as usize].learned);
        if self.scenario.network.congestion.is_none() {
            return latency;
        }
        if learned {
            return 0;
        }
        let there = self.message(Some(host), None, latency);
        there + self.message(None, Some(host), latency) + self.message(Some(host), None, latency)
    }

    pub(crate) fn run_open(&mut self, at: Index) {
        let run = &mut self.runs[at as usize];
        let seat = &self.seats[run.seat as usize];
        run.open = seat.runs.get(run.id) == Some(&at);
        let conn = run.conn;
        self.kick(conn);
    }

    /// The picker hears how far its requests are.
    pub(crate) fn progress(&mut self, s: Index) {
        let now = time(self.now);
        let seat = &mut self.seats[s as usize];
        seat.progress_due = false;
        if !seat.alive || seat.attempts.is_empty() {
            return;
        }
        seat.progress_due = true;
        let Some(picker) = &mut seat.picker else {
            return;
        };
        for (attempt, request) in seat.attempts.iter_mut() {
            if request.bytes > request.told {
                request.told = request.bytes;
                let bytes = u64::from(request.bytes);
                picker.handle(now, Event::Progress { attempt, bytes });
                seat.asked = true;
            }
        }
        self.drain(s);
        self.after(PROGRESS, Happening::Progress { seat: s });
    }
}
