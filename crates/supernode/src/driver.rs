//! Hands for the brain: one task that owns it, the clock and the ways to the peers.

use std::{collections::HashMap, time::Duration};

use pantala_core::{PeerId, Time, control::Hello};
use pantala_swarm::{Config, Event, Output, Stats, Swarm};
use pantala_wire::control::{Outbox, SessionEvent};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, trace, warn};

use crate::metrics::Messages;

/// Events taken at once, so that a busy supernode goes to sleep and wakes less often.
const BATCH: usize = 512;
/// The brain is not woken more often than this for the passing of time alone.
const LEAST_SLEEP: Duration = Duration::from_millis(1);

/// Somebody wants to know how the brain is.
pub(crate) type Ask = oneshot::Sender<Stats>;

pub(crate) struct Driver {
    swarm: Swarm,
    /// The brain's time zero.
    started: Instant,
    /// The session that stands for each peer the brain thinks is connected.
    peers: HashMap<PeerId, Session>,
    messages: Messages,
}

struct Session {
    id: u64,
    outbox: Outbox,
}

impl Driver {
    pub(crate) fn new(config: Config, messages: Messages) -> Self {
        Self {
            swarm: Swarm::new(config),
            started: Instant::now(),
            peers: HashMap::new(),
            messages,
        }
    }

    /// Works until `stop`, or until nobody can connect any more; then ends all sessions.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<SessionEvent>,
        mut asks: mpsc::Receiver<Ask>,
        stop: CancellationToken,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let wakeup = self.wakeup();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                taken = events.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        break;
                    }
                    let now = self.now();
                    for event in batch.drain(..) {
                        self.happened(now, event);
                    }
                }
                Some(ask) = asks.recv() => {
                    // Who asked may have gone.
                    let _ = ask.send(self.swarm.stats());
                }
                () = sleep_until(wakeup.unwrap_or_else(Instant::now)), if wakeup.is_some() => {
                    self.tell(self.now(), Event::Tick);
                }
            }
        }
        for session in self.peers.values() {
            session.outbox.close();
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }

    fn wakeup(&self) -> Option<Instant> {
        let at = self.swarm.next_wakeup()?;
        let at = self.started.checked_add(at.since(Time::ZERO))?;
        Some(at.max(Instant::now() + LEAST_SLEEP))
    }

    fn happened(&mut self, now: Time, event: SessionEvent) {
        match event {
            SessionEvent::Connected {
                session,
                hello,
                outbox,
            } => self.connected(
                now,
                hello,
                Session {
                    id: session,
                    outbox,
                },
            ),
            SessionEvent::Message {
                session,
                peer,
                message,
            } => {
                self.messages.received.inc();
                if self.stands(session, peer) {
                    trace!(?peer, ?message, "said");
                    self.tell(now, Event::Message { peer, message });
                }
            }
            SessionEvent::Gone { session, peer } => {
                // The end of an older session is not the peer's: it is back already.
                if self.stands(session, peer) {
                    info!(?peer, session, "peer gone");
                    self.peers.remove(&peer);
                    self.tell(now, Event::Disconnected { peer });
                }
            }
        }
    }

    fn connected(&mut self, now: Time, hello: Hello, session: Session) {
        let peer = hello.peer.id;
        info!(?peer, addr = %hello.peer.addr, session = session.id, "peer connected");
        if let Some(old) = self.peers.insert(peer, session) {
            debug!(?peer, session = old.id, "older session replaced");
            old.outbox.close();
        }
        self.tell(now, Event::Connected { hello });
    }

    fn stands(&self, session: u64, peer: PeerId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|standing| standing.id == session)
    }

    /// Tells the brain, and the peers what it decides. Who cannot take a message is disconnected,
    /// which may make the brain decide more.
    fn tell(&mut self, now: Time, event: Event) {
        let mut slow = Vec::new();
        self.swarm.handle(now, event);
        loop {
            while let Some(Output { to, message }) = self.swarm.poll_output() {
                let Some(session) = self.peers.get(&to) else {
                    continue;
                };
                if session.outbox.send(message) {
                    self.messages.sent.inc();
                } else {
                    warn!(peer = ?to, session = session.id, "peer takes no messages: dropped");
                    session.outbox.close();
                    self.peers.remove(&to);
                    slow.push(to);
                }
            }
            let Some(peer) = slow.pop() else { return };
            self.swarm.handle(now, Event::Disconnected { peer });
        }
    }
}
