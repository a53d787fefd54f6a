use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use pantala_core::{
    PeerId, PieceIndex, ResourceKey, TaskId, Time,
    control::{FromPeer, Hello, Resume, Serial, ToPeer},
};

use crate::{
    Config, Event, Locality, Output, Stats, peer_map::PeerMap, place::Place, resource::Resource,
    sites::Sites, task::Task,
};

/// The supernode's brain. See the crate's documentation.
#[derive(Debug)]
pub struct Swarm {
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) peers: PeerMap<Peer>,
    pub(crate) resources: BTreeMap<ResourceKey, Resource>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) next_tick: Time,
    /// When digests are to be told.
    pub(crate) digests_at: Time,
    /// Where peers without labels are.
    sites: Sites,
    /// Whose place is new, in which tasks, until they can be brought to their own there.
    relocated: BTreeMap<TaskId, BTreeSet<PeerId>>,
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) hello: Hello,
    pub(crate) place: Place,
    pub(crate) tasks: BTreeSet<TaskId>,
    pub(crate) learning: BTreeSet<ResourceKey>,
}

/// How often stalled leases, slow members and forgotten tasks are looked for.
const TICK: Duration = Duration::from_millis(20);
/// How many places are corrected before other peers are heard again.
const MOVES: usize = 64;

impl Swarm {
    /// A supernode that knows nobody.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            now: Time::ZERO,
            peers: PeerMap::new(),
            resources: BTreeMap::new(),
            tasks: BTreeMap::new(),
            outputs: VecDeque::new(),
            next_tick: Time::ZERO,
            digests_at: Time::NEVER,
            sites: Sites::default(),
            relocated: BTreeMap::new(),
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
        if self.now >= self.digests_at {
            self.flush_digests();
        }
        self.look_around();
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
        let tick = if busy { self.next_tick } else { Time::NEVER };
        let sites = if self.sites.has_moved() {
            self.now
        } else {
            self.sites.due()
        };
        Some(tick.min(self.digests_at).min(sites)).filter(|&at| at < Time::NEVER)
    }

    fn flush_digests(&mut self) {
        self.digests_at = Time::NEVER;
        let mut out = Vec::new();
        for task in self.tasks.values_mut() {
            task.flush_digests(self.now, &mut out);
            self.digests_at = self.digests_at.min(task.digests_due());
        }
        self.outputs.extend(out);
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
            pieces_heard: self.tasks.values().map(|task| task.pieces_heard).sum(),
            members_looked_at: self.tasks.values().map(Task::looked_at).sum(),
            sites: self.sites.named(),
        }
    }

    pub(crate) fn connected(&mut self, hello: Hello) {
        let peer = hello.peer.id;
        // The same peer on a new connection: the old one's state is stale.
        self.disconnected(peer);
        let (addr, place) = (hello.peer, Place::of(&hello.labels));
        let unknown = place.is_nowhere() && self.config.locality == Locality::Measured;
        self.peers.insert(
            peer,
            Peer {
                place,
                hello,
                tasks: BTreeSet::new(),
                learning: BTreeSet::new(),
            },
        );
        if unknown {
            self.in_sites(|sites, now, out| sites.came(addr, now, out));
        }
    }

    fn in_sites(&mut self, act: impl FnOnce(&mut Sites, Time, &mut Vec<Output>)) {
        let mut out = Vec::new();
        act(&mut self.sites, self.now, &mut out);
        self.outputs.extend(out);
    }

    /// Whose place was found comes to its own in the tasks that it is a member of.
    fn look_around(&mut self) {
        if self.now >= self.sites.due() {
            self.in_sites(|sites, now, out| sites.tick(now, out));
        }
        if !self.sites.has_moved() && self.relocated.is_empty() {
            return;
        }
        for _ in 0..MOVES {
            let Some((peer, place)) = self.sites.next_moved() else {
                break;
            };
            let Some(found) = self.peers.get_mut(&peer) else {
                continue;
            };
            if found.place == place {
                continue;
            }
            for id in &found.tasks {
                if let Some(task) = self.tasks.get_mut(id) {
                    task.relocate(peer, &place);
                    // Who is nowhere in particular has nobody to come to.
                    if !place.is_nowhere() {
                        self.relocated.entry(*id).or_default().insert(peer);
                    }
                }
            }
            found.place = place;
        }
        // Else who is not named yet would be taken for a stranger.
        if !self.sites.has_moved() {
            for (task, peers) in std::mem::take(&mut self.relocated) {
                self.in_task(task, |task, config, now, out| {
                    task.regroup(&peers, config, now, out)
                });
            }
        }
    }

    pub(crate) fn disconnected(&mut self, peer: PeerId) {
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
        self.in_sites(|sites, now, out| sites.gone(peer, now, out));
    }

    pub(crate) fn in_task(
        &mut self,
        task: TaskId,
        act: impl FnOnce(&mut Task, &Config, Time, &mut Vec<Output>),
    ) {
        let mut out = Vec::new();
        if let Some(task) = self.tasks.get_mut(&task) {
            task.heard = self.now;
            act(task, &self.config, self.now, &mut out);
            task.end_if_unneeded(&mut out);
            task.tell_copies(self.now, &mut out);
            self.digests_at = self.digests_at.min(task.digests_due());
        }
        self.outputs.extend(out);
    }

    pub(crate) fn send(&mut self, to: PeerId, message: ToPeer) {
        self.outputs.push_back(Output { to, message });
    }

    /// Something was heard of a peer about a task.
    fn heard(&mut self, peer: PeerId, message: &FromPeer) {
        let (FromPeer::Have { task, .. }
        | FromPeer::Sealed { task, .. }
        | FromPeer::AskLease { task, .. }
        | FromPeer::Pulse { task, .. }) = message
        else {
            return;
        };
        let task = self.tasks.get_mut(task);
        if let Some(member) = task.and_then(|task| task.members.get_mut(&peer)) {
            member.mute = false;
        }
    }

    pub(crate) fn message(&mut self, peer: PeerId, message: FromPeer) {
        self.heard(peer, &message);
        match message {
            FromPeer::Register(register) => self.register(peer, register),
            FromPeer::Resume(resume) => self.resume(peer, resume),
            FromPeer::Learned {
                key,
                serial,
                learned,
            } => self.learned(peer, key, serial, learned),
            FromPeer::Have {
                task,
                gained,
                lost,
                position,
                in_flight,
                reader_bound,
            } => {
                if !self.is_member(peer, task) {
                    self.send(peer, ToPeer::Unknown { task });
                    return;
                }
                self.in_task(task, |task, config, now, out| {
                    let slow = task.have(peer, &gained, &lost, position, reader_bound, now);
                    task.says(peer, in_flight, now);
                    if slow {
                        task.bar(peer, true, now);
                        task.clear_way(peer, config, now, out);
                    }
                    task.watch_beginning(peer, config, now, out);
                });
            }
            FromPeer::Sealed {
                task,
                piece,
                digest,
            } => {
                self.in_task(task, |task, config, now, out| {
                    task.sealed(peer, piece, digest, config, now, out)
                });
            }
            FromPeer::Ended { task, length } => {
                self.in_task(task, |task, config, now, out| {
                    task.ended(peer, length, config, now, out);
                });
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
            FromPeer::OriginFailed {
                task,
                first,
                end,
                error,
            } => {
                self.in_task(task, |task, config, now, out| {
                    task.origin_failed(peer, (first, end), &error, config, now, out);
                });
            }
            FromPeer::OfferLease { task, first, end } => {
                self.in_task(task, |task, config, now, out| {
                    task.offered(peer, first, end, config, now, out);
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
            FromPeer::RoundTrips { round_trips } => {
                self.in_sites(|sites, now, out| sites.answered(peer, &round_trips, now, out));
            }
            FromPeer::Changed { key } => self.changed(peer, key),
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

    pub(crate) fn is_member(&self, peer: PeerId, task: TaskId) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|peer| peer.tasks.contains(&task))
    }

    pub(crate) fn resume(&mut self, peer: PeerId, resume: Resume) {
        let Resume {
            key,
            task,
            meta,
            resources,
            held,
            digests,
            position,
            leases,
            ..
        } = resume;
        if self.is_full(peer) && !self.is_member(peer, task) {
            // Silence would make it ask again and again.
            self.send(peer, ToPeer::Unlisted { task });
            return;
        }
        if !self.agrees(task, &meta) {
            // It has something else under that name. Nobody else is to get that, nor this peer the other.
            self.send(peer, ToPeer::Unlisted { task });
            return;
        }
        self.tasks
            .entry(task)
            .or_insert_with(|| Task::new(task, meta, &self.config));
        let Some(found) = self.peers.get_mut(&peer) else {
            return;
        };
        found.tasks.insert(task);
        let addr = found.hello.peer;
        let place = found.place.clone();
        let Some(found) = self.tasks.get_mut(&task) else {
            return;
        };
        let mut out = Vec::new();
        found.join(addr, &place, position, &self.config, self.now, &mut out);
        found.have(peer, &held, &[], position, false, self.now);
        found.came_back(peer, self.now);
        found.resume_digests(peer, digests, self.now, &mut out);
        found.adopt(peer, &leases, &self.config, self.now, &mut out);
        self.digests_at = self.digests_at.min(found.digests_due());
        found.reconsider_root(peer, &self.config, self.now, &mut out);
        // Only now is it known whether others can have it.
        let whole = found.can_begin(PieceIndex::new(0));
        self.resumed(peer, task, resources);
        if let Some(mut known) = self.known_as(key, task, peer) {
            if !whole {
                known.meta.fresh_for = Some(Duration::ZERO);
            }
            let serial = Serial::NONE;
            self.send(peer, ToPeer::Known { key, serial, known });
        }
        self.outputs.extend(out);
    }

    /// The whole content is not what its name says: nobody may have it.
    pub(crate) fn poison(&mut self, peer: PeerId, task: TaskId) {
        let found = self.tasks.get(&task);
        if !found.is_some_and(|task| task.may_have_read_all(peer)) {
            return;
        }
        let Some(gone) = self.tasks.remove(&task) else {
            return;
        };
        self.resources.retain(
            |_, resource| !matches!(resource, Resource::Known(standing) if standing.task == task),
        );
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

    pub(crate) fn tick(&mut self) {
        let mut out = Vec::new();
        for task in self.tasks.values_mut() {
            if task.is_idle(self.now) {
                continue;
            }
            task.tick(&self.config, self.now, &mut out);
            task.tell_copies(self.now, &mut out);
            debug_assert!(task.check(), "an invariant of {:?} is broken", task.id);
        }
        self.outputs.extend(out);
        let (now, forget) = (self.now, self.config.forget_after);
        let old = |task: &Task| {
            task.empty_since
                .is_some_and(|since| now.since(since) > forget)
        };
        self.tasks.retain(|_, task| !old(task));
        let tasks = &self.tasks;
        self.resources.retain(|_, resource| match resource {
            Resource::Known(standing) => tasks.contains_key(&standing.task),
            Resource::Changed { until }
            | Resource::Unshareable { until }
            | Resource::Paused { until, .. } => now < *until,
            Resource::Learning(_) => true,
        });
    }
}
