//! The readers of a task, the clock, and what is told of them.

use super::*;

impl Driver {
    /// Takes what news of pieces there is.
    pub(super) fn hear_news(&mut self) {
        loop {
            match self.news.try_recv() {
                Ok(change) => self.change(Ok(change)),
                Err(broadcast::error::TryRecvError::Lagged(missed)) => {
                    self.change(Err(broadcast::error::RecvError::Lagged(missed)));
                }
                Err(_) => return,
            }
        }
    }

    pub(super) fn change(&mut self, change: Result<Change, broadcast::error::RecvError>) {
        match change {
            Ok(Change::Receiving(_)) => self.announcer.begins(),
            Ok(Change::Held(piece)) => self.announcer.held(piece),
            Ok(Change::Lost(piece)) => {
                self.feed(Event::Evicted { piece });
                self.announcer.lost(piece);
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => {
                // Missed some: what is held now is what counts.
                let (held, _, news) = self.handle.pieces.follow();
                self.news = news;
                let end = self.handle.pieces.geometry().pieces().unwrap_or(PIECES_MAX);
                let known = self
                    .digests
                    .keys()
                    .copied()
                    .filter(|piece| piece.get() < end);
                let gone: Vec<PieceIndex> = known.filter(|&piece| !held.contains(piece)).collect();
                for piece in gone {
                    self.feed(Event::Evicted { piece });
                    self.announcer.lost(piece);
                }
                for piece in held.iter() {
                    self.announcer.held(piece);
                }
            }
            Err(broadcast::error::RecvError::Closed) => {}
        }
    }

    pub(super) fn sync_readers(&mut self) {
        let now: BTreeMap<u64, Arc<Reader>> = self
            .handle
            .readers
            .all()
            .into_iter()
            .map(|reader| (reader.id, reader))
            .collect();
        let gone: Vec<u64> = self
            .readers
            .keys()
            .copied()
            .filter(|id| !now.contains_key(id))
            .collect();
        self.read_on_for_others(&now);
        for id in gone {
            self.readers.remove(&id);
            self.feed(Event::ReaderClosed {
                reader: ReaderId(id),
            });
        }
        // What a reader needs next and no other transfer could bring again stays, whether it rests or not.
        let may_rest = !self.is_single();
        for (id, reader) in now {
            let (next, rests) = (reader.next(), may_rest && reader.rests());
            let Some(told) = self.readers.get_mut(&id) else {
                self.opened(id, reader);
                continue;
            };
            let moved = std::mem::replace(&mut told.next, next) != next;
            let turned = std::mem::replace(&mut told.rests, rests) != rests;
            let reader = ReaderId(id);
            if moved {
                self.feed(Event::ReaderTook { reader, next });
            }
            if turned {
                self.feed(Event::ReaderRests { reader, rests });
            }
        }
        self.follow_others();
    }

    fn opened(&mut self, id: u64, reader: Arc<Reader>) {
        self.want_links();
        self.sync_share();
        self.last_source = Some(reader.source.clone());
        let (first, end) = (reader.next().max(reader.first), reader.end);
        let told = Told {
            reader,
            next: first,
            rests: false,
        };
        self.readers.insert(id, told);
        self.feed(Event::ReaderOpened {
            reader: ReaderId(id),
            first,
            end,
        });
    }

    pub(super) fn readers_changed(&mut self) {
        self.sync_readers();
        if self.is_pressed() {
            self.let_rest(Instant::now());
        }
    }

    /// Whether anybody waits for memory.
    fn is_pressed(&self) -> bool {
        self.ports.store.budget().waiting() > 0
    }

    /// Lets readers rest that have taken nothing for a while of what is there for them, or, while others
    /// wait for memory, whose clients are known to stand still.
    fn let_rest(&mut self, now: Instant) {
        let pressed = self.is_pressed();
        let pieces = &self.handle.pieces;
        let mut rested = false;
        for told in self.readers.values().filter(|told| !told.rests) {
            let next = told.reader.next();
            let has_bytes = || matches!(pieces.slot(next), Slot::Held(_));
            let since = match pressed && told.reader.stands_still() {
                true => now,
                false => now - REST,
            };
            rested |= told.reader.rest_unless_asked_since(since, has_bytes);
        }
        if rested {
            self.sync_readers();
        }
    }

    pub(super) fn sync_share(&mut self) {
        let readers = *self.ports.readers.borrow_and_update();
        // A quarter is left for what children want and what is on its way to sockets.
        let bytes = self.ports.store.budget().limit() / 4 * 3 / readers.max(1) as u64;
        let pieces = bytes / self.handle.pieces.geometry().piece_size();
        let pieces = pieces.clamp(1, u64::from(u32::MAX)) as u32;
        if pieces != self.share {
            self.share = pieces;
            self.feed(Event::Share { pieces });
        }
    }

    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        self.progress();
        if now >= self.progress_at {
            self.progress_at = now + PROGRESS;
            let bytes = in_flight(&self.attempts, &self.runs, &self.handle.pieces);
            self.announcer.in_flight(bytes);
        }
        for (attempt, writer) in std::mem::take(&mut self.busy) {
            self.fetch_failed(attempt, Failure::Busy, writer);
        }
        self.redial(now);
        self.give_up_links(now);
        self.follow_others();
        if now >= self.rest_at || self.is_pressed() {
            self.rest_at = now + REST / 2;
            self.let_rest(now);
        }
        // What an upload held when somebody asked for room may be free by now.
        self.ports.store.budget().nudge();
        if self
            .assumed
            .as_ref()
            .is_some_and(|assumed| now >= assumed.until)
            && let Some(assumed) = self.assumed.take()
            && self.ports.control.is_up()
        {
            self.feed(Event::LeaseEnded {
                first: assumed.first,
                end: None,
            });
        }
        if now >= self.pulse_at {
            self.pulse_at = now + PULSE;
            if !self.runs.is_empty() {
                self.pulse();
            }
            self.report_reader(now);
        }
        self.feed(Event::Tick);
    }

    pub(super) fn pulse(&mut self) {
        let in_flight: u64 = self.attempts.len() as u64;
        let bytes = self.origin_bytes.swap(0, Ordering::Relaxed);
        tracing::trace!(task = ?self.handle.id, bytes, in_flight, "pulse");
        self.say(FromPeer::Pulse {
            task: self.handle.id,
            bytes,
        });
    }

    /// How far the readers are, and whether they are what is slow.
    pub(super) fn report_reader(&mut self, now: Instant) {
        let windows = self.picker.snapshot().windows;
        let Some(position) = windows.iter().map(|window| window.1).min() else {
            // Nobody reads any more: this peer gets no more pieces.
            if self.last_source.is_some()
                && let Some(end) = self.handle.pieces.geometry().pieces()
            {
                self.announcer.reader(PieceIndex::new(end), false);
            }
            return;
        };
        // Who reads on for others waits for them alone.
        let own = || !self.readers.is_empty();
        let slow = own()
            && windows
                .iter()
                .all(|&(_, _, size, held)| held >= 2 && 2 * held > size);
        let resting = own() && self.readers.values().all(|told| told.rests);
        // That nothing comes is no parent's fault.
        let slow = slow || resting || self.class == Class::Paused;
        self.bound_since = slow.then(|| self.bound_since.unwrap_or(now));
        let bound = self.bound_since.is_some_and(|since| now - since >= BOUND);
        self.announcer.reader(position, bound);
    }

    pub(super) fn progress(&mut self) {
        let mut news = Vec::new();
        for (&attempt, state) in &mut self.attempts {
            let bytes = state
                .buffer
                .as_ref()
                .map_or(0, |buffer| buffer.len() as u64);
            if bytes > state.reported {
                state.reported = bytes;
                news.push((attempt, bytes));
            }
        }
        for (attempt, bytes) in news {
            self.feed(Event::Progress { attempt, bytes });
        }
    }
}

/// Bytes there of pieces that are not complete. What is there of a piece that two are asked for counts
/// once.
pub(super) fn in_flight(
    attempts: &HashMap<AttemptId, Attempt>,
    runs: &HashMap<RunId, RunHandle>,
    pieces: &TaskPieces,
) -> u64 {
    let asked = attempts.values().filter(|attempt| attempt.buffer.is_some());
    let asked = asked.map(|attempt| attempt.piece);
    let coming: BTreeSet<PieceIndex> = asked
        .chain(runs.values().filter_map(|run| run.at))
        .collect();
    let bytes = |piece| match pieces.slot(piece) {
        Slot::Filling { buffer, .. } => buffer.len() as u64,
        Slot::Missing | Slot::Held(_) => 0,
    };
    coming.into_iter().map(bytes).sum()
}
