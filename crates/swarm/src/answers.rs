//! What is known of resources: which of two answers counts, what is said of them, and what ends them.
//! Who asks the origin is not decided here.

use std::{collections::BTreeSet, time::Duration};

use pantala_core::{
    Class, ContentMeta, Geometry, PeerId, ResourceKey, TaskId,
    control::{KnownResource, Learned, ToPeer},
};

use crate::{
    resource::{Resource, Standing, Waiting},
    swarm::Swarm,
    task::Task,
};

impl Swarm {
    /// A content that may be what stands behind a resource of which nothing is known: the one that
    /// has the name which the resource has too, or what stands there for the other class of
    /// requests. Only the origin knows.
    pub(crate) fn candidate(
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

    /// Whether what was learned cannot be of the content that its name stands for already: that one has
    /// another length, or is cut otherwise.
    pub(crate) fn contradicts(&self, learned: &Learned) -> bool {
        match learned {
            Learned::Content { task, meta } | Learned::Unchanged { task, meta } => {
                !self.agrees(*task, meta)
            }
            Learned::Unshareable | Learned::Failed { .. } => false,
        }
    }

    /// Whether an answer can be of the content that is known by this name, if one is.
    pub(crate) fn agrees(&self, task: TaskId, meta: &ContentMeta) -> bool {
        let task = self.tasks.get(&task);
        task.is_none_or(|task| task.geometry.agrees(&Geometry::of(meta)))
    }

    /// The origin has just said that this content stands behind the resource.
    pub(crate) fn know(&mut self, key: ResourceKey, task: TaskId, mut meta: ContentMeta) {
        debug_assert!(self.agrees(task, &meta), "two contents under one name");
        meta.private = key.class() == Class::Credentialed;
        self.tasks
            .entry(task)
            .or_insert_with(|| Task::new(task, meta.clone(), &self.config));
        let standing = Standing::new(task, meta, self.config.fresh_for, self.now);
        self.resources.insert(key, Resource::Known(standing));
    }

    /// A peer says what stood behind a resource a while ago. The youngest answer counts; who waits
    /// for one need not wait on. Gives `false` where something is known that speaks against it.
    pub(crate) fn offered(&mut self, key: ResourceKey, task: TaskId, meta: ContentMeta) -> bool {
        match self.resources.get_mut(&key) {
            None => self.know(key, task, meta),
            // Nobody knows whether it was said before the change.
            Some(Resource::Known(standing)) if standing.was_changed() => return false,
            Some(Resource::Known(standing)) if meta.age < standing.age(self.now) => {
                self.know(key, task, meta);
            }
            Some(Resource::Known(standing)) => return standing.task == task,
            Some(Resource::Learning(learning)) if learning.needs_holder() => return false,
            Some(Resource::Changed { .. }) => return false,
            Some(Resource::Learning(learning)) => {
                let found = self.tasks.get(&task);
                let can_begin = |reader: &Waiting| {
                    found.is_some_and(|task| task.can_begin(task.piece_at(reader.start)))
                };
                // The origin's answer is waited for unless all who want it can have this instead.
                let all_can = can_begin(&learning.holder) && learning.waiting.iter().all(can_begin);
                if all_can && !meta.fresh_for.is_some_and(|fresh_for| fresh_for.is_zero()) {
                    // Who asks the origin goes on by itself.
                    let waiting = std::mem::take(&mut learning.waiting);
                    self.know(key, task, meta);
                    self.admit_all(&waiting, key, task);
                }
            }
            Some(Resource::Unshareable { .. } | Resource::Paused { .. }) => {}
        }
        true
    }

    /// A peer that comes back says what a task stands behind, as far as it knows. Where that holds no
    /// more it is told so: it may have been away when all others were.
    pub(crate) fn resumed(&mut self, peer: PeerId, task: TaskId, resources: Vec<KnownResource>) {
        for KnownResource { key, meta } in resources {
            if !self.agrees(task, &meta) || !self.offered(key, task, meta) {
                self.send(peer, ToPeer::Changed { key });
            }
        }
    }

    /// What stands at the URL of a resource was changed through a peer: what is known of it holds no
    /// more, whatever selects it and whoever asks. Peers are told that may know of a fresh answer,
    /// so that many changes of the same are no more messages than one.
    pub(crate) fn changed(&mut self, peer: PeerId, key: ResourceKey) {
        let mut told = BTreeSet::new();
        for (_, resource) in self.resources.range_mut(key.of_same_url()) {
            match resource {
                Resource::Known(standing) => {
                    let task = self.tasks.get(&standing.task);
                    if let Some(task) = task.filter(|_| standing.is_fresh(self.now)) {
                        told.extend(task.members());
                    }
                    standing.end();
                }
                // It will take what it is told for fresh.
                Resource::Learning(learning) if !learning.changed => {
                    learning.changed = true;
                    told.insert(learning.holder.peer);
                }
                Resource::Learning(_)
                | Resource::Changed { .. }
                | Resource::Unshareable { .. }
                | Resource::Paused { .. } => {}
            }
        }
        told.remove(&peer);
        for member in told {
            self.send(member, ToPeer::Changed { key });
        }
    }

    pub(crate) fn end_if(&mut self, changed: bool, key: ResourceKey) {
        if let (true, Some(Resource::Known(standing))) = (changed, self.resources.get_mut(&key)) {
            standing.end();
        }
    }

    /// Whoever asked the origin after a change did so in vain.
    pub(crate) fn stay_changed(&mut self, key: ResourceKey) {
        let until = self.now + self.config.forget_after;
        self.resources.insert(key, Resource::Changed { until });
    }
}
