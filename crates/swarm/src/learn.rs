//! Learning what content stands behind a resource: one peer asks the origin for all, while others wait.

use std::{collections::VecDeque, time::Duration};

use pantala_core::{
    Class, ContentMeta, Error, Kind, PeerId, ResourceKey, TaskId, Who,
    control::{Learned, Register, Serial, ToPeer},
};

use crate::{
    outage::{Outage, Verdict},
    resource::{Learning, Resource, Waiting},
    swarm::Swarm,
    task::Task,
};

/// How long a resource whose response was for one reader alone is taken to stay so.
const UNSHAREABLE: Duration = Duration::from_secs(30);
/// Readers of one peer that wait to learn what stands behind the same resource.
const WAITING_MAX: usize = 16;

impl Swarm {
    pub(crate) fn is_full(&self, peer: PeerId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|peer| peer.tasks.len() >= self.config.tasks_per_peer)
    }

    pub(crate) fn register(&mut self, peer: PeerId, register: Register) {
        let Register {
            key,
            serial,
            start,
            content,
            ..
        } = register;
        let waiting = Waiting {
            peer,
            serial,
            start,
        };
        let member = match self.resources.get(&key) {
            Some(Resource::Known(standing)) => self.is_member(peer, standing.task),
            _ => false,
        };
        if self.is_full(peer) && !member {
            self.send(peer, ToPeer::Direct { key, serial });
            return;
        }
        match self.resources.get_mut(&key) {
            // What is being learned may be what stood there before the change. This reader asked after it,
            // so it asks the origin itself; those who wait already may have the newer answer too.
            Some(Resource::Learning(learning)) if learning.changed => {
                let others = std::mem::take(&mut learning.waiting);
                self.learn_after_change(key, waiting, None, others);
            }
            Some(Resource::Learning(learning)) => {
                let waits = self.peers.get(&peer).map(|peer| &peer.learning);
                let waits = waits.is_some_and(|learning| learning.contains(&key));
                let last = |other: &&mut Waiting| other.peer == peer;
                let of_peer = || learning.waiting.iter().filter(|other| other.peer == peer);
                if !waits || of_peer().count() < WAITING_MAX {
                    learning.waiting.push_back(waiting);
                } else if let Some(last) = learning.waiting.iter_mut().rev().find(last) {
                    // An answer holds for all requests of a peer up to the one that it names.
                    last.serial = serial;
                }
                self.is_learning(peer, key);
            }
            Some(Resource::Unshareable { until }) if self.now < *until => {
                self.send(peer, ToPeer::Direct { key, serial });
            }
            Some(Resource::Paused { error, until }) if self.now < *until => {
                let error = error.clone();
                self.send(peer, ToPeer::Refused { key, serial, error });
            }
            // Somebody whom the origin does not let in was given something else under this name.
            Some(Resource::Known(standing))
                if content.is_some_and(|named| {
                    named != standing.task && self.tasks.contains_key(&named)
                }) =>
            {
                let stale = self.candidate(key, content);
                self.learn(key, waiting, stale, VecDeque::new());
            }
            Some(Resource::Known(standing)) if self.tasks.contains_key(&standing.task) => {
                let task = standing.task;
                let found = self.tasks.get(&task);
                let whole = found.is_some_and(|task| task.can_begin(task.piece_at(start)));
                let stale = (task, standing.meta(self.now));
                let stale = Some(stale).filter(|_| whole);
                if whole && standing.is_fresh(self.now) {
                    self.admit(&waiting, key, task);
                } else if standing.was_changed() {
                    self.learn_after_change(key, waiting, stale, VecDeque::new());
                } else {
                    self.learn(key, waiting, stale, VecDeque::new());
                }
            }
            Some(Resource::Changed { .. }) => {
                self.learn_after_change(key, waiting, None, VecDeque::new());
            }
            // Its content is forgotten.
            Some(Resource::Known(standing)) if standing.was_changed() => {
                self.learn_after_change(key, waiting, None, VecDeque::new());
            }
            _ => {
                let stale = self.candidate(key, content);
                self.learn(key, waiting, stale, VecDeque::new());
            }
        }
    }

    pub(crate) fn is_learning(&mut self, peer: PeerId, key: ResourceKey) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.learning.insert(key);
        }
    }

    /// Has one peer ask the origin, while the others wait. It goes on until that peer answers or is
    /// gone: an origin that is only slow is not asked again.
    fn learn(
        &mut self,
        key: ResourceKey,
        holder: Waiting,
        stale: Option<(TaskId, ContentMeta)>,
        waiting: VecDeque<Waiting>,
    ) {
        debug_assert!(
            self.peers.contains_key(&holder.peer),
            "a peer that has gone cannot learn"
        );
        self.is_learning(holder.peer, key);
        let learning = Learning {
            stale: stale.as_ref().map(|(task, _)| *task),
            changed: false,
            after_change: false,
            waiting,
            holder: holder.clone(),
            outage: Outage::default(),
        };
        let serial = holder.serial;
        self.send(holder.peer, ToPeer::Learn { key, serial, stale });
        self.resources.insert(key, Resource::Learning(learning));
    }

    /// Has a peer ask the origin that asked for the resource after what stands there was changed.
    fn learn_after_change(
        &mut self,
        key: ResourceKey,
        holder: Waiting,
        stale: Option<(TaskId, ContentMeta)>,
        waiting: VecDeque<Waiting>,
    ) {
        self.learn(key, holder, stale, waiting);
        if let Some(Resource::Learning(learning)) = self.resources.get_mut(&key) {
            learning.after_change = true;
        }
    }

    /// Lets a reader into a task and tells it what it must know.
    pub(crate) fn admit(&mut self, reader: &Waiting, key: ResourceKey, task: TaskId) {
        let Some(peer) = self.peers.get_mut(&reader.peer) else {
            return;
        };
        peer.learning.remove(&key);
        peer.tasks.insert(task);
        let addr = peer.hello.peer;
        let place = peer.place.clone();
        let Some(found) = self.tasks.get_mut(&task) else {
            return;
        };
        let mut out = Vec::new();
        let position = found.piece_at(reader.start);
        found.join(addr, &place, position, &self.config, self.now, &mut out);
        let known = self.known_as(key, task, addr.id);
        if let Some(known) = known {
            let serial = reader.serial;
            self.send(addr.id, ToPeer::Known { key, serial, known });
        }
        self.outputs.extend(out);
    }

    /// A peer says what it learned for this request of its own.
    pub(crate) fn learned(
        &mut self,
        peer: PeerId,
        key: ResourceKey,
        serial: Serial,
        learned: Learned,
    ) {
        let said = Waiting {
            peer,
            serial,
            start: 0,
        };
        if self.contradicts(&learned) {
            self.contradicted(said, key, &learned);
        } else {
            self.learned_well(said, key, learned);
        }
        self.settle(peer, key);
    }

    fn learned_well(&mut self, said: Waiting, key: ResourceKey, learned: Learned) {
        let learning = match self.resources.remove(&key) {
            Some(Resource::Learning(learning)) if learning.holder.is_same_request(&said) => {
                learning
            }
            // Another peer asks by now, because this one seemed to be gone: a good answer is as good
            // for all who wait, and the other goes on by itself.
            Some(Resource::Learning(learning))
                if self.is_answer(said.peer, &learned) && !learning.needs_holder() =>
            {
                Learning {
                    holder: said,
                    stale: None,
                    ..learning
                }
            }
            other => {
                if let Some(other) = other {
                    self.resources.insert(key, other);
                }
                self.learned_late(said, key, learned);
                return;
            }
        };
        match learned {
            Learned::Content { task, meta } => {
                self.know(key, task, meta);
                self.end_if(learning.changed, key);
                self.admit_learner(&learning.holder, key, task);
                self.admit_all(&learning.waiting, key, task);
            }
            Learned::Unchanged { task, meta } if self.can_be_read(task, &learning.holder) => {
                self.know(key, task, meta);
                self.end_if(learning.changed, key);
                self.admit(&learning.holder, key, task);
                self.admit_all(&learning.waiting, key, task);
            }
            // What was unchanged is forgotten meanwhile, or partly gone: as if nothing had been known.
            Learned::Unchanged { .. } if learning.needs_holder() => {
                self.learn_after_change(key, learning.holder, None, learning.waiting);
            }
            Learned::Unchanged { .. } => self.learn(key, learning.holder, None, learning.waiting),
            Learned::Unshareable => {
                let until = self.now + UNSHAREABLE;
                self.resources.insert(key, Resource::Unshareable { until });
                for Waiting { peer, serial, .. } in learning.waiting {
                    self.forget_learning(peer, key);
                    self.send(peer, ToPeer::Direct { key, serial });
                }
            }
            Learned::Failed { error } => self.refuse(key, learning, &error),
        }
    }

    /// Two peers learned different contents under one name, and the other was first. This one goes on with
    /// its own by itself; others who wait do not get it.
    fn contradicted(&mut self, said: Waiting, key: ResourceKey, learned: &Learned) {
        let Waiting { peer, serial, .. } = said;
        match learned {
            Learned::Content { task, .. } => self.send(peer, ToPeer::Unlisted { task: *task }),
            // Its reader waits for a word.
            _ => self.send(peer, ToPeer::Direct { key, serial }),
        }
        match self.resources.remove(&key) {
            Some(Resource::Learning(learning)) if learning.holder.is_same_request(&said) => {
                self.next_learner(key, learning);
            }
            Some(other) => {
                self.resources.insert(key, other);
            }
            None => {}
        }
    }

    /// Whether it says what stands behind a resource, so that others can be answered with it.
    fn is_answer(&self, peer: PeerId, learned: &Learned) -> bool {
        match learned {
            Learned::Content { .. } => !self.is_full(peer),
            Learned::Unchanged { task, .. } => {
                let from_its_start = Waiting {
                    peer,
                    serial: Serial::NONE,
                    start: 0,
                };
                self.can_be_read(*task, &from_its_start)
            }
            Learned::Unshareable | Learned::Failed { .. } => false,
        }
    }

    /// Whether a task is known that this reader can begin to read.
    pub(crate) fn can_be_read(&self, task: TaskId, reader: &Waiting) -> bool {
        let found = self.tasks.get(&task);
        found.is_some_and(|task| task.can_begin(task.piece_at(reader.start)))
    }

    pub(crate) fn admit_all(
        &mut self,
        waiting: &VecDeque<Waiting>,
        key: ResourceKey,
        task: TaskId,
    ) {
        for reader in waiting {
            self.admit(reader, key, task);
        }
    }

    /// Nobody waits for this answer any more but the reader of the peer that gives it.
    fn learned_late(&mut self, said: Waiting, key: ResourceKey, learned: Learned) {
        if self.is_full(said.peer) {
            return;
        }
        match learned {
            Learned::Content { task, meta } => {
                if !self.tasks.contains_key(&task) {
                    let known = Task::new(task, meta.clone(), &self.config);
                    self.tasks.insert(task, known);
                }
                self.offered(key, task, meta);
                self.admit_learner(&said, key, task);
            }
            Learned::Unchanged { task, meta } if self.tasks.contains_key(&task) => {
                self.offered(key, task, meta);
                self.admit(&said, key, task);
            }
            // Its reader waits for a word.
            Learned::Unchanged { .. } => self.register(
                said.peer,
                Register {
                    key,
                    serial: said.serial,
                    shown: String::new(),
                    start: said.start,
                    content: None,
                },
            ),
            Learned::Unshareable | Learned::Failed { .. } => {}
        }
    }

    pub(crate) fn admit_learner(&mut self, holder: &Waiting, key: ResourceKey, task: TaskId) {
        self.admit(holder, key, task);
        let (peer, start) = (holder.peer, holder.start);
        self.in_task(task, |task, config, now, out| {
            let from = task.piece_at(start);
            task.grant_first(peer, from, config, now, out);
        });
    }

    /// The origin refused or failed the peer that asked for all. What holds for the others is passed
    /// on to them; else the first of them asks for itself.
    fn refuse(&mut self, key: ResourceKey, mut learning: Learning, error: &Error) {
        let (now, rest) = (self.now, self.config.lease_timeout);
        let private = key.class() == Class::Credentialed;
        let verdict = learning.outage.failed(error, private, now, rest, now);
        // Only what the origin itself said holds for others: not this peer's way to it, nor that
        // this peer's reader went away. Of credentials it says something only to their owner.
        let holds = match error.kind() {
            Kind::Denied | Kind::NotFound => key.class() == Class::Anonymous,
            Kind::Status(_) | Kind::Timeout => true,
            // One peer may have no way there; of several it says something of the origin.
            _ => verdict == Verdict::Certain,
        };
        if !holds || error.who() != Who::Origin {
            self.next_learner(key, learning);
            return;
        }
        if let Some(pause) = error.pause() {
            let (error, until) = (error.clone(), now + pause);
            self.resources
                .insert(key, Resource::Paused { error, until });
        } else if learning.needs_holder() {
            self.stay_changed(key);
        }
        for Waiting { peer, serial, .. } in learning.waiting {
            self.forget_learning(peer, key);
            let error = error.clone();
            self.send(peer, ToPeer::Refused { key, serial, error });
        }
    }

    /// The first of those who wait asks the origin in place of the one that has done so in vain.
    fn next_learner(&mut self, key: ResourceKey, learning: Learning) {
        let after_change = learning.needs_holder();
        let Learning {
            stale,
            mut waiting,
            outage,
            ..
        } = learning;
        let Some(next) = waiting.pop_front() else {
            if after_change {
                self.stay_changed(key);
            }
            return;
        };
        let stale = stale.and_then(|id| Some((id, self.tasks.get(&id)?.meta.clone())));
        self.learn(key, next, stale, waiting);
        if let Some(Resource::Learning(learning)) = self.resources.get_mut(&key) {
            learning.after_change = after_change;
            learning.outage = outage;
        }
    }

    /// Notes whether a peer learns or waits still: when it goes, others must not wait for it.
    fn settle(&mut self, peer: PeerId, key: ResourceKey) {
        let waits = match self.resources.get(&key) {
            Some(Resource::Learning(learning)) => learning.concerns(peer),
            _ => false,
        };
        if waits {
            self.is_learning(peer, key);
        } else {
            self.forget_learning(peer, key);
        }
    }

    fn forget_learning(&mut self, peer: PeerId, key: ResourceKey) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.learning.remove(&key);
        }
    }

    /// A peer that learned or waited has gone.
    pub(crate) fn stop_waiting(&mut self, peer: PeerId, key: ResourceKey) {
        match self.resources.remove(&key) {
            Some(Resource::Learning(mut learning)) => {
                learning.waiting.retain(|waiting| waiting.peer != peer);
                if learning.holder.peer == peer {
                    self.next_learner(key, learning);
                } else {
                    self.resources.insert(key, Resource::Learning(learning));
                }
            }
            Some(other) => {
                self.resources.insert(key, other);
            }
            None => {}
        }
    }
}
