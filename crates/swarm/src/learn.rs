//! What content stands behind a resource: one peer asks the origin for all.

use std::{collections::VecDeque, time::Duration};

use pantala_core::{
    ContentMeta, Error, Kind, PeerId, ResourceKey, TaskId, Who,
    control::{Learned, Register, ToPeer},
};

use crate::{
    resource::{Learning, Resource, Waiting},
    swarm::Swarm,
    task::Task,
};

/// How long a resource whose response was for one reader alone is taken to stay so.
const UNSHAREABLE: Duration = Duration::from_secs(30);
/// Readers of one peer that wait to learn what stands behind the same resource.
const WAITING_MAX: usize = 16;
/// Tasks that one peer may be a member of: a hostile one must not fill our memory.
const TASKS_MAX: usize = 10_000;

impl Swarm {
    pub(crate) fn is_full(&self, peer: PeerId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|peer| peer.tasks.len() >= TASKS_MAX)
    }

    pub(crate) fn register(&mut self, peer: PeerId, register: Register) {
        let Register {
            key,
            start,
            private,
            ..
        } = register;
        let waiting = Waiting {
            peer,
            start,
            private,
        };
        match self.resources.get_mut(&key) {
            Some(Resource::Learning(learning)) => {
                let waits = self.peers.get(&peer).map(|peer| &peer.learning);
                let waits = waits.is_some_and(|learning| learning.contains(&key));
                let of_peer = || learning.waiting.iter().filter(|other| other.peer == peer);
                // Each answer names the resource, not the reader: so many answers are enough.
                if !waits || of_peer().count() < WAITING_MAX {
                    learning.waiting.push_back(waiting);
                }
                self.is_learning(peer, key);
            }
            Some(Resource::Unshareable { until }) if self.now < *until => {
                self.send(peer, ToPeer::Direct { key });
            }
            Some(&mut Resource::Known { task, fresh_until }) if self.tasks.contains_key(&task) => {
                if self.now < fresh_until {
                    self.admit(&waiting, key, task);
                } else {
                    self.learn(key, waiting, Some(task), VecDeque::new());
                }
            }
            _ => self.learn(key, waiting, None, VecDeque::new()),
        }
    }

    pub(crate) fn is_learning(&mut self, peer: PeerId, key: ResourceKey) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.learning.insert(key);
        }
    }

    pub(crate) fn learn(
        &mut self,
        key: ResourceKey,
        holder: Waiting,
        stale: Option<TaskId>,
        waiting: VecDeque<Waiting>,
    ) {
        let known = stale.and_then(|id| Some((id, self.tasks.get(&id)?.meta.clone())));
        self.is_learning(holder.peer, key);
        self.send(holder.peer, ToPeer::Learn { key, stale: known });
        let learning = Learning {
            holder,
            since: self.now,
            stale,
            waiting,
        };
        self.resources.insert(key, Resource::Learning(learning));
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
        let mut known = found.known(addr.id);
        // Counted from now: what one peer learned is no fresher at another.
        if let Some(Resource::Known { fresh_until, .. }) = self.resources.get(&key) {
            known.meta.fresh_for = Some(fresh_until.since(self.now));
        }
        self.send(addr.id, ToPeer::Known { key, known });
        self.outputs.extend(out);
    }

    pub(crate) fn learned(&mut self, peer: PeerId, key: ResourceKey, learned: Learned) {
        let learning = match self.resources.remove(&key) {
            Some(Resource::Learning(learning)) if learning.holder.peer == peer => learning,
            // Somebody else has learned it meanwhile: what this peer found is a task of its own.
            other => {
                if let Some(other) = other {
                    self.resources.insert(key, other);
                }
                self.learned_late(peer, key, learned);
                return;
            }
        };
        let Learning {
            holder,
            stale,
            waiting,
            ..
        } = learning;
        if let Some(found) = self.peers.get_mut(&peer) {
            found.learning.remove(&key);
        }
        match (learned, stale) {
            (Learned::Content { task, meta }, _) => {
                self.know(key, task, meta);
                self.admit_learner(&holder, key, task);
                waiting
                    .iter()
                    .for_each(|reader| self.admit(reader, key, task));
            }
            (Learned::Unchanged { meta }, Some(task)) => {
                self.know(key, task, meta);
                self.admit(&holder, key, task);
                waiting
                    .iter()
                    .for_each(|reader| self.admit(reader, key, task));
            }
            (Learned::Unshareable, _) => {
                let until = self.now + UNSHAREABLE;
                self.resources.insert(key, Resource::Unshareable { until });
                for reader in waiting {
                    self.forget_learning(reader.peer, key);
                    self.send(reader.peer, ToPeer::Direct { key });
                }
            }
            (Learned::Failed { error }, stale) => self.refuse(key, &holder, stale, waiting, &error),
            (Learned::Unchanged { .. }, None) => {
                // Nothing was there to be unchanged: a peer's defect; the next one learns.
                self.next_learner(key, None, waiting);
            }
        }
    }

    pub(crate) fn learned_late(&mut self, peer: PeerId, key: ResourceKey, learned: Learned) {
        let Learned::Content { task, meta } = learned else {
            return;
        };
        if self.is_full(peer) {
            return;
        }
        if !self.tasks.contains_key(&task) {
            self.know(key, task, meta);
        }
        let reader = Waiting {
            peer,
            start: 0,
            private: false,
        };
        self.admit_learner(&reader, key, task);
    }

    pub(crate) fn admit_learner(&mut self, holder: &Waiting, key: ResourceKey, task: TaskId) {
        self.admit(holder, key, task);
        let (peer, start) = (holder.peer, holder.start);
        self.in_task(task, |task, config, now, out| {
            let from = task.piece_at(start);
            task.grant_first(peer, from, config, now, out);
        });
    }

    pub(crate) fn know(&mut self, key: ResourceKey, task: TaskId, meta: ContentMeta) {
        let fresh_for = meta.fresh_for.unwrap_or(self.config.fresh_for);
        let fresh_until = self.now + fresh_for;
        let known = self
            .tasks
            .entry(task)
            .or_insert_with(|| Task::new(task, meta.clone(), &self.config));
        known.meta.fresh_for = meta.fresh_for;
        known.meta.private |= meta.private;
        self.resources
            .insert(key, Resource::Known { task, fresh_until });
    }

    /// The origin refused who asked for all. Who waits without credentials of its own is told the
    /// same; the first that has some asks for itself.
    pub(crate) fn refuse(
        &mut self,
        key: ResourceKey,
        holder: &Waiting,
        stale: Option<TaskId>,
        waiting: VecDeque<Waiting>,
        error: &Error,
    ) {
        // Only what the origin itself said holds for others: not this peer's way to it, nor that
        // this peer's reader went away.
        let said = matches!(
            error.kind(),
            Kind::Denied | Kind::NotFound | Kind::Status(_)
        );
        let holds = said && error.who() == Who::Origin && !holder.private;
        let (refused, others): (VecDeque<_>, VecDeque<_>) = waiting
            .into_iter()
            .partition(|reader| holds && !reader.private);
        for reader in refused {
            self.forget_learning(reader.peer, key);
            self.send(
                reader.peer,
                ToPeer::Refused {
                    key,
                    error: error.clone(),
                },
            );
        }
        self.next_learner(key, stale, others);
    }

    pub(crate) fn next_learner(
        &mut self,
        key: ResourceKey,
        stale: Option<TaskId>,
        mut waiting: VecDeque<Waiting>,
    ) {
        if let Some(next) = waiting.pop_front() {
            self.learn(key, next, stale, waiting);
        }
    }

    pub(crate) fn forget_learning(&mut self, peer: PeerId, key: ResourceKey) {
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
                    self.next_learner(key, learning.stale, learning.waiting);
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
