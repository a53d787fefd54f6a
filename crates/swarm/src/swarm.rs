use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use pantala_core::{
    Error, PeerId, ResourceKey, TaskId, Time,
    control::{FromPeer, Hello, Learned, Register, Resume, ToPeer},
};

use crate::{
    Config, Event, Output, Stats,
    resource::{Learning, Resource, Waiting},
    task::Task,
};

/// The supernode's brain. See the crate's documentation.
#[derive(Debug)]
pub struct Swarm {
    config: Config,
    now: Time,
    peers: BTreeMap<PeerId, Peer>,
    resources: BTreeMap<ResourceKey, Resource>,
    tasks: BTreeMap<TaskId, Task>,
    outputs: VecDeque<Output>,
    next_tick: Time,
}

#[derive(Debug)]
struct Peer {
    hello: Hello,
    tasks: BTreeSet<TaskId>,
    learning: BTreeSet<ResourceKey>,
}

/// How often stalled leases and forgotten tasks are looked for.
const TICK: Duration = Duration::from_millis(100);
/// How long a resource whose response was for one reader alone is taken to stay so.
const UNSHAREABLE: Duration = Duration::from_secs(30);
/// Readers of one peer that wait to learn what stands behind the same resource.
const WAITING_MAX: usize = 16;
/// Tasks that one peer may be a member of: a hostile one must not fill our memory.
const TASKS_MAX: usize = 10_000;
/// How many times the lease timeout the first answer of an origin may take.
const LEARN_PATIENCE: u32 = 10;

impl Swarm {
    /// A supernode that knows nobody.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            now: Time::ZERO,
            peers: BTreeMap::new(),
            resources: BTreeMap::new(),
            tasks: BTreeMap::new(),
            outputs: VecDeque::new(),
            next_tick: Time::ZERO,
        }
    }

    /// Something happened at `now`, which must not lie before any earlier call's. Take the
    /// messages with [`Swarm::poll_output`] until there are none.
    pub fn handle(&mut self, now: Time, event: Event) {
        debug_assert!(now >= self.now, "time runs backwards");
        self.now = now.max(self.now);
        match event {
            Event::Connected { hello } => self.connected(hello),
            Event::Message { peer, message } => {
                if self.peers.contains_key(&peer) {
                    self.message(peer, message);
                }
            }
            Event::Disconnected { peer } => self.disconnected(peer),
            Event::Tick => {}
        }
        if self.now >= self.next_tick {
            self.next_tick = self.now + TICK;
            self.tick();
        }
    }

    /// The next message to send.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to send [`Event::Tick`] if nothing else happens before.
    pub fn next_wakeup(&self) -> Option<Time> {
        let busy = self
            .tasks
            .values()
            .any(|task| task.has_leases() || task.is_empty())
            || self
                .resources
                .values()
                .any(|resource| matches!(resource, Resource::Learning(_)));
        busy.then_some(self.next_tick)
    }

    /// Figures for the metrics.
    pub fn stats(&self) -> Stats {
        let sum = |figure: fn(&Task) -> usize| self.tasks.values().map(figure).sum();
        Stats {
            peers: self.peers.len(),
            tasks: self.tasks.len(),
            members: sum(Task::member_count),
            leases: sum(Task::lease_count),
            leases_moved: self.tasks.values().map(|task| task.moved).sum(),
            parents_chosen: self.tasks.values().map(|task| task.chosen).sum(),
        }
    }

    fn connected(&mut self, hello: Hello) {
        let peer = hello.peer.id;
        // The same peer on a new connection: the old one's state is stale.
        self.disconnected(peer);
        self.peers.insert(
            peer,
            Peer {
                hello,
                tasks: BTreeSet::new(),
                learning: BTreeSet::new(),
            },
        );
    }

    fn disconnected(&mut self, peer: PeerId) {
        let Some(gone) = self.peers.remove(&peer) else {
            return;
        };
        for task in gone.tasks {
            self.in_task(task, |task, config, now, out| {
                task.leave(peer, config, now, out)
            });
        }
        for key in gone.learning {
            self.stop_waiting(peer, key);
        }
    }

    fn in_task(
        &mut self,
        task: TaskId,
        act: impl FnOnce(&mut Task, &Config, Time, &mut Vec<Output>),
    ) {
        let mut out = Vec::new();
        if let Some(task) = self.tasks.get_mut(&task) {
            act(task, &self.config, self.now, &mut out);
        }
        self.outputs.extend(out);
    }

    fn send(&mut self, to: PeerId, message: ToPeer) {
        self.outputs.push_back(Output { to, message });
    }

    fn message(&mut self, peer: PeerId, message: FromPeer) {
        match message {
            FromPeer::Register(register) => self.register(peer, register),
            FromPeer::Resume(resume) => self.resume(peer, resume),
            FromPeer::Learned { key, learned } => self.learned(peer, key, learned),
            FromPeer::Have {
                task,
                gained,
                lost,
                position,
                reader_bound,
            } => {
                if !self.is_member(peer, task) {
                    self.send(peer, ToPeer::Unknown { task });
                    return;
                }
                self.in_task(task, |task, _, now, _| {
                    task.have(peer, &gained, &lost, position, reader_bound, now);
                });
            }
            FromPeer::Sealed {
                task,
                piece,
                digest,
            } => {
                self.in_task(task, |task, _, now, out| {
                    task.sealed(peer, piece, digest, now, out)
                });
            }
            FromPeer::Ended { task, length } => {
                self.in_task(task, |task, _, _, out| task.ended(peer, length, out));
            }
            FromPeer::AskLease { task, piece, late } => {
                self.in_task(task, |task, config, now, out| {
                    task.ask(peer, piece, late, config, now, out);
                });
            }
            FromPeer::ReturnLease { task, first, end } => {
                self.in_task(task, |task, config, now, out| {
                    task.give_back(peer, first, end, config, now, out);
                });
            }
            FromPeer::Pulse { task, bytes } => {
                self.in_task(task, |task, _, now, _| task.pulse(peer, bytes, now));
            }
            FromPeer::Trouble {
                task,
                peer: parent,
                trouble,
            } => {
                self.in_task(task, |task, config, now, out| {
                    task.trouble(peer, parent, trouble, config, now, out);
                });
            }
            FromPeer::Poison { task } => self.poison(peer, task),
            FromPeer::Leave { task } => {
                if let Some(found) = self.peers.get_mut(&peer) {
                    found.tasks.remove(&task);
                }
                self.in_task(task, |task, config, now, out| {
                    task.leave(peer, config, now, out)
                });
            }
        }
    }

    fn is_member(&self, peer: PeerId, task: TaskId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|peer| peer.tasks.contains(&task))
    }

    fn is_full(&self, peer: PeerId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|peer| peer.tasks.len() >= TASKS_MAX)
    }

    fn register(&mut self, peer: PeerId, register: Register) {
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
                let of_peer = learning.waiting.iter().filter(|other| other.peer == peer);
                // Each answer names the resource, not the reader: so many answers are enough.
                if of_peer.count() < WAITING_MAX {
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

    fn is_learning(&mut self, peer: PeerId, key: ResourceKey) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.learning.insert(key);
        }
    }

    fn learn(
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
    fn admit(&mut self, reader: &Waiting, key: ResourceKey, task: TaskId) {
        let Some(peer) = self.peers.get_mut(&reader.peer) else {
            return;
        };
        peer.learning.remove(&key);
        peer.tasks.insert(task);
        let addr = peer.hello.peer;
        let Some(found) = self.tasks.get_mut(&task) else {
            return;
        };
        let mut out = Vec::new();
        let position = found.piece_at(reader.start);
        found.join(addr, position, &self.config, self.now, &mut out);
        let known = found.known(addr.id);
        self.send(addr.id, ToPeer::Known { key, known });
        self.outputs.extend(out);
    }

    fn learned(&mut self, peer: PeerId, key: ResourceKey, learned: Learned) {
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

    fn learned_late(&mut self, peer: PeerId, key: ResourceKey, learned: Learned) {
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

    fn admit_learner(&mut self, holder: &Waiting, key: ResourceKey, task: TaskId) {
        self.admit(holder, key, task);
        let (peer, start) = (holder.peer, holder.start);
        self.in_task(task, |task, config, now, out| {
            let from = task.piece_at(start);
            task.grant_first(peer, from, config, now, out);
        });
    }

    fn know(&mut self, key: ResourceKey, task: TaskId, meta: pantala_core::ContentMeta) {
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
    fn refuse(
        &mut self,
        key: ResourceKey,
        holder: &Waiting,
        stale: Option<TaskId>,
        waiting: VecDeque<Waiting>,
        error: &Error,
    ) {
        let (refused, others): (VecDeque<_>, VecDeque<_>) = waiting
            .into_iter()
            .partition(|reader| !reader.private && !holder.private);
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

    fn next_learner(
        &mut self,
        key: ResourceKey,
        stale: Option<TaskId>,
        mut waiting: VecDeque<Waiting>,
    ) {
        if let Some(next) = waiting.pop_front() {
            self.learn(key, next, stale, waiting);
        }
    }

    fn forget_learning(&mut self, peer: PeerId, key: ResourceKey) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.learning.remove(&key);
        }
    }

    /// A peer that learned or waited has gone.
    fn stop_waiting(&mut self, peer: PeerId, key: ResourceKey) {
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

    fn resume(&mut self, peer: PeerId, resume: Resume) {
        let Resume {
            key,
            task,
            meta,
            held,
            digests,
            position,
            ..
        } = resume;
        if self.is_full(peer) {
            return;
        }
        if !self.tasks.contains_key(&task) {
            self.know(key, task, meta);
        }
        let Some(found) = self.peers.get_mut(&peer) else {
            return;
        };
        found.tasks.insert(task);
        let addr = found.hello.peer;
        let Some(found) = self.tasks.get_mut(&task) else {
            return;
        };
        let mut out = Vec::new();
        found.join(addr, position, &self.config, self.now, &mut out);
        found.have(peer, &held, &[], position, false, self.now);
        found.resume_digests(peer, digests, &mut out);
        let known = found.known(peer);
        self.send(peer, ToPeer::Known { key, known });
        self.outputs.extend(out);
    }

    /// The whole content is not what its name says: nobody may have it.
    fn poison(&mut self, peer: PeerId, task: TaskId) {
        if !self.is_member(peer, task) {
            return;
        }
        let Some(gone) = self.tasks.remove(&task) else {
            return;
        };
        self.resources.retain(|_, resource| !matches!(resource, Resource::Known { task: known, .. } if *known == task));
        for member in gone.members() {
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.tasks.remove(&task);
            }
            self.outputs.push_back(Output {
                to: member,
                message: ToPeer::Poisoned { task },
            });
        }
    }

    fn tick(&mut self) {
        let mut out = Vec::new();
        for task in self.tasks.values_mut() {
            task.tick(&self.config, self.now, &mut out);
        }
        self.outputs.extend(out);
        let patience = self.config.lease_timeout * LEARN_PATIENCE;
        let stalled: Vec<(ResourceKey, PeerId)> = self
            .resources
            .iter()
            .filter_map(|(&key, resource)| match resource {
                Resource::Learning(learning)
                    if !learning.waiting.is_empty()
                        && self.now.since(learning.since) > patience =>
                {
                    Some((key, learning.holder.peer))
                }
                _ => None,
            })
            .collect();
        for (key, holder) in stalled {
            self.stop_waiting(holder, key);
        }
        let (now, forget) = (self.now, self.config.forget_after);
        let old = |task: &Task| {
            task.empty_since
                .is_some_and(|since| now.since(since) > forget)
        };
        self.tasks.retain(|_, task| !old(task));
        let tasks = &self.tasks;
        self.resources.retain(|_, resource| match resource {
            Resource::Known { task, .. } => tasks.contains_key(task),
            Resource::Unshareable { until } => now < *until,
            Resource::Learning(_) => true,
        });
    }
}
