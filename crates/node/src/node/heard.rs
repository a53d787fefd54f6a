//! What the supernode says, and the tasks that come of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pantala_core::{
    Error, Generation, Geometry, Kind, ResourceKey, Who,
    control::{FromPeer, Known, Learned, PeerAddr, ToPeer},
};
use pantala_window::{Config as WindowConfig, Picker, WindowSize};
use pantala_wire::control::{Control, ControlEvent};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep_until, timeout},
};

use super::Node;
use crate::{
    driver::Driver,
    measure::measure,
    registration::Answer,
    task::{Command, TaskHandle},
};

/// The standing connection to the supernode, where there is one.
#[derive(Clone)]
pub(crate) struct ControlPort {
    pub(super) control: Option<Control>,
    pub(super) contact: watch::Receiver<Contact>,
}

/// How it stands with the supernode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contact {
    /// Nobody knows yet.
    Pending,
    /// Its address accepts connections, but it has not said a word.
    Dialled,
    /// It could not be reached so far.
    Never,
    /// It is there.
    Made,
    /// It was there. A thousand peers may have lost it at the same moment: content that nobody here
    /// knows is not asked of its origin before `fallback`.
    Lost {
        /// Drawn once for each loss, so that only what is opened then waits.
        fallback: Instant,
    },
}

impl Contact {
    /// After the loss of a supernode, or of the hope for one.
    fn lost(self) -> Self {
        match self {
            Contact::Pending | Contact::Dialled | Contact::Never => Contact::Never,
            Contact::Lost { fallback } => Contact::Lost { fallback },
            Contact::Made => {
                let pause = WindowConfig::default().fallback;
                let pause = pause.mul_f64(rand::random_range(0.1..1.0));
                let fallback = Instant::now() + pause;
                Contact::Lost { fallback }
            }
        }
    }
}

/// How long a reader waits for the supernode's address to accept a connection before it goes on
/// without. Once it has, the control client bounds how long the supernode may be silent.
const FIRST_CONTACT: Duration = Duration::from_millis(500);

impl ControlPort {
    /// No supernode.
    #[cfg(test)]
    pub fn none() -> Self {
        let contact = watch::channel(Contact::Pending).1;
        let control = None;
        Self { control, contact }
    }

    /// Sends a registration and waits for its answer.
    pub async fn ask(
        &self,
        register: FromPeer,
        told: oneshot::Receiver<Answer>,
        limit: Duration,
    ) -> Answer {
        if !self.send(register) {
            return Answer::Lost;
        }
        let mut contact = self.contact.clone();
        // A refused connection is known at once; only silence takes this long.
        let dialled = contact.wait_for(|contact| *contact != Contact::Pending);
        if timeout(FIRST_CONTACT, dialled).await.is_err() {
            return Answer::Lost;
        }
        let settled = contact.wait_for(|contact| *contact != Contact::Dialled);
        if settled.await.is_err() {
            return Answer::Lost;
        }
        match timeout(limit, told).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Answer::Lost,
        }
    }

    /// Waits until the origin may be asked without the word of a supernode that was lost.
    pub async fn fall_back(&self) {
        let contact = *self.contact.borrow();
        if let Contact::Lost { fallback } = contact {
            sleep_until(fallback.into()).await;
        }
    }

    pub fn is_up(&self) -> bool {
        self.control.as_ref().is_some_and(Control::is_up)
    }

    pub fn send(&self, message: FromPeer) -> bool {
        self.control
            .as_ref()
            .is_some_and(|control| control.send(message))
    }
}

/// Commands that may wait for a driver; senders wait when there are more.
const COMMANDS: usize = 1024;

impl Node {
    /// The task's handle, made with its driver when it is new.
    pub(super) fn task(&self, key: ResourceKey, known: &Known, shown: String) -> Arc<TaskHandle> {
        let ports = &self.inner.ports;
        let solo = ports.control.control.is_none();
        let mut taken = None;
        let (handle, new) = ports.tasks.get_or_insert(known.task, || {
            let geometry = Geometry::of(&known.meta);
            let (commands, receiver) = mpsc::channel(COMMANDS);
            taken = Some(receiver);
            Arc::new(TaskHandle::new(
                (known.task, key),
                shown,
                known.meta.clone(),
                ports.store.open(known.task, geometry),
                self.inner.rates.task(),
                commands,
            ))
        });
        handle.found_behind(key);
        if new && let Some(commands) = taken {
            let single_transfer = known.meta.generation == Generation::Transfer;
            let movable = known.meta.ranges && !single_transfer;
            let piece_size = handle.pieces.geometry().piece_size();
            let config = WindowConfig {
                window: match self.inner.config.window {
                    Some(pieces) => WindowSize::Static(pieces),
                    None => WindowConfig::default().window,
                },
                return_after: if solo || !movable {
                    // Nobody else would use the lease, or could without starting at byte 0, or has
                    // the transfer that all must come from.
                    None
                } else {
                    WindowConfig::default().return_after
                },
                patience: self
                    .inner
                    .rates
                    .patience(WindowConfig::default().patience, piece_size),
                single_transfer,
                seed: rand::random(),
                ..WindowConfig::default()
            };
            let picker = Picker::new(config, piece_size, ports.clock.now());
            let driver = Driver::new(handle.clone(), commands, picker, ports.clone(), solo);
            ports.tracker.spawn(driver.run());
        }
        handle
    }

    pub(super) async fn dispatch(
        self,
        mut events: mpsc::Receiver<ControlEvent>,
        contact: watch::Sender<Contact>,
    ) {
        let cancel = self.inner.ports.cancel.clone();
        while let Some(Some(event)) = cancel.run_until_cancelled(events.recv()).await {
            match event {
                ControlEvent::Dialled => {
                    contact.send_replace(Contact::Dialled);
                }
                ControlEvent::Up { advertised } => {
                    tracing::info!(%advertised, "connected to the supernode");
                    contact.send_replace(Contact::Made);
                    // Before anything is asked that they have to do with.
                    for key in self.inner.ports.shelf.owed() {
                        self.inner.ports.control.send(FromPeer::Changed { key });
                    }
                    self.tell_all(|| Command::SupernodeUp).await;
                }
                ControlEvent::Down { reason } => {
                    tracing::warn!(%reason, "no supernode; going on with the peers known and the origin");
                    contact.send_modify(|contact| *contact = contact.lost());
                    self.inner.registrations.lost();
                    self.tell_all(|| Command::SupernodeDown).await;
                }
                ControlEvent::Message(message) => self.heard(message).await,
            }
        }
    }

    async fn tell_all(&self, command: impl Fn() -> Command) {
        for task in self.inner.ports.tasks.all() {
            let _ = task.commands.send(command()).await;
        }
    }

    /// Measures round trips beside everything else, for one question at a time: a supernode asks the
    /// next when this one is answered.
    fn measure(&self, peers: &[PeerAddr], enough: Duration) {
        let Ok(turn) = self.inner.measuring.clone().try_acquire_owned() else {
            return;
        };
        let (peers, control) = (peers.to_vec(), self.inner.ports.control.clone());
        self.spawn(async move {
            let round_trips = measure(&peers, enough).await;
            drop(turn);
            control.send(FromPeer::RoundTrips { round_trips });
        });
    }

    async fn heard(&self, message: ToPeer) {
        if let ToPeer::Known { serial, .. }
        | ToPeer::Learn { serial, .. }
        | ToPeer::Direct { serial, .. }
        | ToPeer::Refused { serial, .. } = &message
        {
            self.inner.ports.shelf.heard(*serial);
        }
        let task = match &message {
            ToPeer::Known { known, .. } if !self.takes(known) => {
                let leave = FromPeer::Leave { task: known.task };
                self.inner.ports.control.send(leave);
                self.inner.registrations.answer(&message);
                return;
            }
            ToPeer::Known { key, serial, known } => {
                // The driver must be there before what follows: leases, digests.
                let handle = self.task(*key, known, String::new());
                // To who has just learned it, too: the next reader here need not ask.
                let (shelf, now) = (&self.inner.ports.shelf, Instant::now());
                shelf.put(*key, known.task, known.meta.clone(), *serial, now);
                let _ = handle.commands.send(Command::Known(known.clone())).await;
                self.inner.registrations.answer(&message);
                return;
            }
            ToPeer::Learn { key, serial, .. } => {
                if !self.inner.registrations.answer(&message) {
                    // The reader has gone: the next one who waits anywhere learns.
                    let error = Error::new(Who::Reader, Kind::Cancelled, "the reader has gone");
                    let learned = Learned::Failed {
                        error: error.retryable(true),
                    };
                    self.inner.ports.control.send(FromPeer::Learned {
                        key: *key,
                        serial: *serial,
                        learned,
                    });
                }
                return;
            }
            ToPeer::Direct { .. } | ToPeer::Refused { .. } => {
                self.inner.registrations.answer(&message);
                return;
            }
            ToPeer::Changed { key } => {
                self.inner.ports.shelf.changed(key);
                return;
            }
            ToPeer::Measure { peers, enough } => {
                self.measure(peers, *enough);
                return;
            }
            ToPeer::Parents { task, .. }
            | ToPeer::Digests { task, .. }
            | ToPeer::Lease { task, .. }
            | ToPeer::LeaseEnded { task, .. }
            | ToPeer::Ended { task, .. }
            | ToPeer::OriginFailed { task, .. }
            | ToPeer::Turn { task, .. }
            | ToPeer::Copies { task, .. }
            | ToPeer::Unobtainable { task, .. }
            | ToPeer::Unlisted { task }
            | ToPeer::Poisoned { task }
            | ToPeer::Unknown { task } => *task,
        };
        match self.inner.ports.tasks.get(&task) {
            Some(handle) => drop(handle.commands.send(Command::Control(message)).await),
            None => drop(self.inner.ports.control.send(FromPeer::Leave { task })),
        }
    }
}
