//! What content stands behind a resource: one peer asks the origin for all.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use pantala_core::{
    Class, ContentMeta, Error, Kind, PeerId, ResourceKey, TaskId, Who,
    control::{KnownResource, Learned, Register, ToPeer},
};

use crate::{
    outage::{Outage, Verdict},
    resource::{Learning, Resource, Standing, Waiting},
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
            start,
            content,
            ..
        } = register;
        let waiting = Waiting { peer, start };
        let member = match self.resources.get(&key) {
            Some(Resource::Known(standing)) => self.is_member(peer, standing.task),
            _ => false,
        };
        if self.is_full(peer) && !member {
            self.send(peer, ToPeer::Direct { key });
            return;
        }
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
            Some(Resource::Paused { error, until }) if self.now < *until => {
                let error = error.clone();
                self.send(peer, ToPeer::Refused { key, error });
            }
            Some(Resource::Known(standing)) if self.tasks.contains_key(&standing.task) => {
                let task = standing.task;
                let found = self.tasks.get(&task);
                let whole = found.is_some_and(|task| task.can_begin(task.piece_at(start)));
                if whole && standing.is_fresh(self.now) {
                    self.admit(&waiting, key, task);
                } else {
                    let stale = (task, standing.meta(self.now));
                    let stale = Some(stale).filter(|_| whole);
                    self.learn(key, waiting, stale, VecDeque::new());
                }
            }
            _ => {
                let stale = self.candidate(key, content);
                self.learn(key, waiting, stale, VecDeque::new());
            }
        }
    }

    /// A content that may be what stands behind a resource of which nothing is known: the one that
    /// has the name which the resource has too, or what stands there for the other class of
    /// requests. Only the origin knows.
    fn candidate(
        &self,
        key: ResourceKey,
        content: Option<TaskId>,
    ) -> Option<(TaskId, ContentMeta)> {
        if let Some(id) = content {
            return Some((id, self.tasks.get(&id)?.meta.clone()));
        }
        let other = key.of_class(match key.class() {
            Class::Anonymous => Class::Credentialed,
            Class::Credentialed => Class::Anonymous,
        });
        let Some(Resource::Known(standing)) = self.resources.get(&other) else {
            return None;
        };
        let meta = standing.meta(self.now);
        let can_be_asked = meta.validators.strong_etag().is_some();
        (can_be_asked && self.tasks.contains_key(&standing.task)).then_some((standing.task, meta))
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
        self.is_learning(holder.peer, key);
        let learning = Learning {
            stale: stale.as_ref().map(|(task, _)| *task),
            changed: false,
            waiting,
            holder: holder.clone(),
            outage: Outage::default(),
        };
        self.send(holder.peer, ToPeer::Learn { key, stale });
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
        let known = self.known_as(key, task, addr.id);
        if let Some(known) = known {
            self.send(addr.id, ToPeer::Known { key, known });
        }
        self.outputs.extend(out);
    }

    /// What a peer must know of a task that it found behind a resource: the content's own facts, and
    /// what that very resource answers.
    pub(crate) fn known_as(
        &self,
        key: ResourceKey,
        task: TaskId,
        peer: PeerId,
    ) -> Option<pantala_core::control::Known> {
        let found = self.tasks.get(&task)?;
        let mut known = found.known(peer);
        match self.resources.get(&key) {
            Some(Resource::Known(standing)) if standing.task == task => {
                // What stands here says the rest of it.
                known.meta = ContentMeta {
                    length: known.meta.length,
                    generation: known.meta.generation,
                    piece_size: known.meta.piece_size,
                    ..standing.meta(self.now)
                };
            }
            // It is only the content: nobody may take it for what stands there now.
            _ => known.meta.fresh_for = Some(Duration::ZERO),
        }
        Some(known)
    }

    pub(crate) fn learned(&mut self, peer: PeerId, key: ResourceKey, learned: Learned) {
        self.forget_learning(peer, key);
        let (holder, waiting, stale, changed, outage) = match self.resources.remove(&key) {
            Some(Resource::Learning(learning)) if learning.holder.peer == peer => {
                let Learning {
                    holder,
                    stale,
                    changed,
                    waiting,
                    outage,
                } = learning;
                (holder, waiting, stale, changed, outage)
            }
            // Another peer asks by now, because this one seemed to be gone: a good answer is as good
            // for all who wait, and the other goes on by itself.
            Some(Resource::Learning(learning)) if self.is_answer(peer, &learned) => {
                let holder = Waiting { peer, start: 0 };
                let Learning {
                    waiting,
                    changed,
                    outage,
                    ..
                } = learning;
                (holder, waiting, None, changed, outage)
            }
            other => {
                if let Some(other) = other {
                    self.resources.insert(key, other);
                }
                self.learned_late(peer, key, learned);
                return;
            }
        };
        match learned {
            Learned::Content { task, meta } => {
                self.know(key, task, meta);
                self.end_if(changed, key);
                self.admit_learner(&holder, key, task);
                self.admit_all(&waiting, key, task);
            }
            Learned::Unchanged { task, meta } if self.tasks.contains_key(&task) => {
                self.know(key, task, meta);
                self.end_if(changed, key);
                self.admit(&holder, key, task);
                self.admit_all(&waiting, key, task);
            }
            // What was unchanged is forgotten meanwhile: as if nothing had been known.
            Learned::Unchanged { .. } => self.learn(key, holder, None, waiting),
            Learned::Unshareable => {
                let until = self.now + UNSHAREABLE;
                self.resources.insert(key, Resource::Unshareable { until });
                for reader in waiting {
                    self.forget_learning(reader.peer, key);
                    self.send(reader.peer, ToPeer::Direct { key });
                }
            }
            Learned::Failed { error } => self.refuse(key, stale, waiting, outage, &error),
        }
    }

    /// Whether it says what stands behind a resource, so that others can be answered with it.
    fn is_answer(&self, peer: PeerId, learned: &Learned) -> bool {
        match learned {
            Learned::Content { .. } => !self.is_full(peer),
            Learned::Unchanged { task, .. } => self.tasks.contains_key(task),
            Learned::Unshareable | Learned::Failed { .. } => false,
        }
    }

    fn admit_all(&mut self, waiting: &VecDeque<Waiting>, key: ResourceKey, task: TaskId) {
        for reader in waiting {
            self.admit(reader, key, task);
        }
    }

    /// Nobody waits for this answer any more but the reader of the peer that gives it.
    fn learned_late(&mut self, peer: PeerId, key: ResourceKey, learned: Learned) {
        if self.is_full(peer) {
            return;
        }
        let reader = Waiting { peer, start: 0 };
        match learned {
            Learned::Content { task, meta } => {
                if !self.tasks.contains_key(&task) {
                    let known = Task::new(task, meta.clone(), &self.config);
                    self.tasks.insert(task, known);
                }
                self.offered(key, task, meta);
                self.admit_learner(&reader, key, task);
            }
            Learned::Unchanged { task, meta } if self.tasks.contains_key(&task) => {
                self.offered(key, task, meta);
                self.admit(&reader, key, task);
            }
            // Its reader waits for a word.
            Learned::Unchanged { .. } => self.register(
                peer,
                Register {
                    key,
                    shown: String::new(),
                    start: 0,
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

    /// The origin has just said that this content stands behind the resource.
    fn know(&mut self, key: ResourceKey, task: TaskId, mut meta: ContentMeta) {
        meta.private = key.class() == Class::Credentialed;
        self.tasks
            .entry(task)
            .or_insert_with(|| Task::new(task, meta.clone(), &self.config));
        let standing = Standing::new(task, meta, self.config.fresh_for, self.now);
        self.resources.insert(key, Resource::Known(standing));
    }

    /// A peer says what stood behind a resource a while ago. The youngest answer counts; who waits
    /// for one need not wait on.
    fn offered(&mut self, key: ResourceKey, task: TaskId, meta: ContentMeta) {
        match self.resources.get_mut(&key) {
            None => self.know(key, task, meta),
            Some(Resource::Known(standing)) => {
                if meta.age < standing.age(self.now) {
                    self.know(key, task, meta);
                }
            }
            Some(Resource::Learning(learning)) => {
                let old = meta.fresh_for.is_some_and(|fresh_for| fresh_for.is_zero());
                if old || learning.changed {
                    return;
                }
                // Who asks the origin goes on by itself.
                let waiting = std::mem::take(&mut learning.waiting);
                self.know(key, task, meta);
                self.admit_all(&waiting, key, task);
            }
            Some(Resource::Unshareable { .. } | Resource::Paused { .. }) => {}
        }
    }

    /// What stands at the URL of a resource was changed through a peer: what is known of it holds no
    /// more, whatever selects it and whoever asks. Peers are told that may know of a fresh answer,
    /// so that many changes of the same are no more messages than one.
    pub(crate) fn changed(&mut self, peer: PeerId, key: ResourceKey) {
        let mut told = BTreeSet::new();
        for (_, resource) in self.resources.range_mut(key.of_same_url()) {
            match resource {
                Resource::Known(standing) if standing.is_fresh(self.now) => {
                    standing.end();
                    if let Some(task) = self.tasks.get(&standing.task) {
                        told.extend(task.members());
                    }
                }
                Resource::Learning(learning) => learning.changed = true,
                Resource::Known(_) | Resource::Unshareable { .. } | Resource::Paused { .. } => {}
            }
        }
        told.remove(&peer);
        for member in told {
            self.send(member, ToPeer::Changed { key });
        }
    }

    fn end_if(&mut self, changed: bool, key: ResourceKey) {
        if let (true, Some(Resource::Known(standing))) = (changed, self.resources.get_mut(&key)) {
            standing.end();
        }
    }

    /// A peer that comes back says what a task stands behind, as far as it knows.
    pub(crate) fn resumed(&mut self, task: TaskId, resources: Vec<KnownResource>) {
        for KnownResource { key, meta } in resources {
            self.offered(key, task, meta);
        }
    }

    /// The origin refused or failed the peer that asked for all. What holds for the others is passed
    /// on to them; else the first of them asks for itself.
    fn refuse(
        &mut self,
        key: ResourceKey,
        stale: Option<TaskId>,
        waiting: VecDeque<Waiting>,
        mut outage: Outage,
        error: &Error,
    ) {
        let (now, rest) = (self.now, self.config.lease_timeout);
        let private = key.class() == Class::Credentialed;
        let verdict = outage.failed(error, private, now, rest, now);
        // Only what the origin itself said holds for others: not this peer's way to it, nor that
        // this peer's reader went away. Of credentials it says something only to their owner.
        let holds = match error.kind() {
            Kind::Denied | Kind::NotFound => key.class() == Class::Anonymous,
            Kind::Status(_) | Kind::Timeout => true,
            // One peer may have no way there; of several it says something of the origin.
            _ => verdict == Verdict::Certain,
        };
        if !holds || error.who() != Who::Origin {
            self.next_learner(key, stale, waiting);
            if let Some(Resource::Learning(learning)) = self.resources.get_mut(&key) {
                learning.outage = outage;
            }
            return;
        }
        if let Some(pause) = error.pause() {
            let (error, until) = (error.clone(), now + pause);
            self.resources
                .insert(key, Resource::Paused { error, until });
        }
        for reader in waiting {
            self.forget_learning(reader.peer, key);
            let error = error.clone();
            self.send(reader.peer, ToPeer::Refused { key, error });
        }
    }

    fn next_learner(
        &mut self,
        key: ResourceKey,
        stale: Option<TaskId>,
        mut waiting: VecDeque<Waiting>,
    ) {
        if let Some(next) = waiting.pop_front() {
            let stale = stale.and_then(|id| Some((id, self.tasks.get(&id)?.meta.clone())));
            self.learn(key, next, stale, waiting);
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
