//! Carrying out what the brain decides.

use pantala_origin::Asker;

use super::*;

impl Driver {
    pub(super) fn act(&mut self, action: Action) {
        if !matches!(
            action,
            Action::Pin { .. } | Action::Unpin { .. } | Action::ExtendRun { .. }
        ) {
            tracing::debug!(task = ?self.handle.id, ?action, "decided");
        }
        match action {
            Action::Fetch {
                attempt,
                piece,
                parent,
                urgency,
                hedge,
            } => {
                if hedge {
                    self.ports.metrics.hedged(1);
                }
                self.fetch(attempt, piece, parent, urgency, hedge);
            }
            Action::Cancel { attempt, piece } => self.cancel(attempt, piece),
            Action::OpenRun {
                run,
                first,
                until,
                goal,
            } => self.open_run(run, first, until, goal),
            Action::ExtendRun { run, until } => {
                if let Some(run) = self.runs.get(&run) {
                    run.until.send_replace(until);
                }
            }
            Action::StopRun { run } => {
                if let Some(run) = self.runs.remove(&run) {
                    run.stop.cancel();
                    self.abandon_trusted(&run);
                    self.transfer_was_stopped(&run);
                }
            }
            Action::AskLease { piece, late } => {
                let allowed = self.source().is_some_and(|source| source.allowed);
                if !allowed && !late {
                    self.without_source(piece);
                }
                if allowed || late {
                    self.say(FromPeer::AskLease {
                        task: self.handle.id,
                        piece,
                        late,
                    });
                }
            }
            Action::OfferLease { first, end } => self.say(FromPeer::OfferLease {
                task: self.handle.id,
                first,
                end,
            }),
            Action::ReturnLease { first, end } => {
                self.say(FromPeer::ReturnLease {
                    task: self.handle.id,
                    first,
                    end,
                });
            }
            Action::BlameOrigin { first, end } => {
                let task = self.handle.id;
                self.say(match self.last_origin_error.clone() {
                    Some(error) => FromPeer::OriginFailed {
                        task,
                        first,
                        end,
                        error,
                    },
                    None => FromPeer::ReturnLease { task, first, end },
                });
            }
            Action::Pin { piece } => self.handle.pieces.set_pins(piece, 1),
            Action::Unpin { piece } => self.handle.pieces.set_pins(piece, 0),
            Action::ReportSlow { parent } => {
                if let Some(&peer) = self.parents.get(&parent) {
                    let trouble = Trouble::Slow;
                    self.say(FromPeer::Trouble {
                        task: self.handle.id,
                        peer,
                        trouble,
                    });
                }
            }
            Action::GiveUp => {
                let error = self
                    .last_origin_error
                    .clone()
                    .unwrap_or_else(error::nobody_has_it);
                self.handle.readers.fail(&error);
            }
        }
    }

    /// Nobody has the piece or will, and the origin may not be asked: readers wait for a peer that
    /// may come, but not for ever.
    pub(super) fn without_source(&mut self, piece: PieceIndex) {
        let now = Instant::now();
        match self.sourceless {
            Some((of, since)) if of == piece => {
                if now.duration_since(since) >= NOBODY {
                    self.handle.readers.fail(&error::nobody_has_it());
                }
            }
            _ => self.sourceless = Some((piece, now)),
        }
    }

    pub(super) fn fetch(
        &mut self,
        attempt: AttemptId,
        piece: PieceIndex,
        parent: ParentId,
        urgency: u32,
        hedge: bool,
    ) {
        let state = Attempt {
            piece,
            parent,
            urgency,
            hedge,
            buffer: None,
            waiting_for_room: None,
            reported: 0,
            fetched: false,
            goes_on: false,
        };
        self.attempts.insert(attempt, state);
        if !hedge && let Some(writer) = self.partial.remove(&piece) {
            self.request(attempt, writer);
            return;
        }
        let size = self.handle.pieces.geometry().size(piece);
        if let Some(charge) = self.ports.store.budget().try_charge(size) {
            self.request(attempt, PieceBuffer::charged(charge).1);
            return;
        }
        let (budget, commands) = (
            self.ports.store.budget().clone(),
            self.handle.commands.clone(),
        );
        let waiting = self.ports.tracker.spawn(async move {
            let charge = budget.charge(size).await;
            let _ = commands.send(Command::Room { attempt, charge }).await;
        });
        if let Some(state) = self.attempts.get_mut(&attempt) {
            state.waiting_for_room = Some(waiting.abort_handle());
        }
    }

    /// Sends a request for which there is room.
    pub(super) fn request(&mut self, attempt: AttemptId, mut writer: PieceWriter) {
        let Some(state) = self.attempts.get(&attempt) else {
            return;
        };
        let (piece, urgency) = (state.piece, self.urgency(state));
        let link = self
            .parents
            .get(&state.parent)
            .and_then(|peer| self.links.get(peer))
            .and_then(|linked| linked.link.clone());
        let Some(link) = link else {
            self.fetch_failed(attempt, Failure::Gone, Some(writer));
            return;
        };
        if state.hedge && writer.position() == 0 {
            // Go on from what the late one has brought so far.
            if let pantala_store::Slot::Filling { buffer, .. } = self.handle.pieces.slot(piece) {
                writer.append(buffer.filled());
            }
        }
        let buffer = writer.buffer().clone();
        let goes_on = writer.position() > 0;
        let want = Want {
            attempt,
            task: self.handle.id,
            piece,
            urgency,
            writer,
            pieces: self.handle.pieces.clone(),
            limits: self.handle.rates.download.clone(),
            commands: self.handle.commands.clone(),
        };
        if let Some(state) = self.attempts.get_mut(&attempt) {
            state.buffer = Some(buffer);
            state.goes_on = goes_on;
            state.waiting_for_room = None;
        }
        match link.want(want) {
            Ok(()) => {}
            Err(NotTaken { want, ended: true }) => {
                self.fetch_failed(attempt, Failure::Gone, Some(want.writer));
                // Its last words are still on their way here; until they come nobody is to be
                // asked there again.
                self.link_down(link.peer, &error::link_ended());
            }
            Err(NotTaken { want, ended: false }) => self.busy.push((attempt, Some(want.writer))),
        }
    }

    pub(super) fn cancel(&mut self, attempt: AttemptId, piece: PieceIndex) {
        let Some(state) = self.attempts.remove(&attempt) else {
            return;
        };
        self.unjudged.retain(|(of, _, _)| *of != attempt);
        if let Some(waiting) = state.waiting_for_room {
            waiting.abort();
        }
        if let Some(link) = self
            .parents
            .get(&state.parent)
            .and_then(|peer| self.links.get(peer))
            .and_then(|linked| linked.link.as_ref())
        {
            link.cancel(self.handle.id, attempt);
        }
        if state.buffer.is_some_and(|buffer| !buffer.is_empty()) {
            self.abandon_unless_fetched(piece);
        }
    }

    /// Where a transfer asks the origin, and for whom: for a reader of this host if there is one, since a
    /// transfer for a stranger may be refused where that one's is not.
    pub(super) fn source(&self) -> Option<&OriginSource> {
        let sources = self.readers.values().map(|told| &told.reader.source);
        let of_this_host_first = |source: &&OriginSource| source.asker != Asker::Host;
        sources
            .min_by_key(of_this_host_first)
            .or(self.last_source.as_ref())
    }

    pub(super) fn open_run(
        &mut self,
        run: RunId,
        first: PieceIndex,
        until: PieceIndex,
        goal: Option<PieceIndex>,
    ) {
        let source = self.source().cloned();
        let start = self.handle.pieces.geometry().start(first);
        let source = match (self.learned.take(), source) {
            (Some(learned), _)
                if learned.start <= start && learned.body.position() == learned.start =>
            {
                RunSource::Open(learned.body)
            }
            _ if self.is_single() => {
                self.has_no_transfer(run, first);
                return;
            }
            (_, Some(source)) if source.allowed => RunSource::Request {
                origin: self.ports.origin.clone(),
                source,
                meta: Box::new(self.meta()),
                goal,
            },
            _ => {
                self.last_origin_error = Some(error::nobody_has_it());
                self.feed(Event::RunFailed {
                    run,
                    fatal: false,
                    rest: Duration::ZERO,
                });
                return;
            }
        };
        let (until_tx, until) = watch::channel(until);
        let stop = self.ports.cancel.child_token();
        let transfer = OriginRun {
            run,
            pieces: self.handle.pieces.clone(),
            budget: self.ports.store.budget().clone(),
            limits: self.handle.rates.download.clone(),
            commands: self.handle.commands.clone(),
            received: self.origin_bytes.clone(),
            until,
            stop: stop.clone(),
        };
        self.runs.insert(
            run,
            RunHandle {
                until: until_tx,
                stop,
                at: None,
            },
        );
        self.ports.tracker.spawn(transfer.drive(first, source));
    }
}
