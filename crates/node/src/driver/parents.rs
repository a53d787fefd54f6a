//! Links to parents: making them, losing them, and what they say.

use super::*;

impl Driver {
    pub(super) fn set_parents(&mut self, parents: Parents) {
        if let LinksKept::GivenUp = self.links_kept {
            self.wanted_parents = parents;
            return;
        }
        let mut wanted: Vec<PeerAddr> = parents.preferred.iter().copied().flatten().collect();
        wanted.extend(parents.others.iter().copied());
        let gone: Vec<PeerId> = self
            .links
            .keys()
            .copied()
            .filter(|&peer| !wanted.iter().any(|addr| addr.id == peer))
            .collect();
        self.wanted_parents = parents;
        for peer in gone {
            // One that something is being fetched from stays until that is done with.
            let id = self.links[&peer].id;
            let busy = self.attempts.values().any(|attempt| attempt.parent == id);
            if !busy && let Some(linked) = self.links.remove(&peer) {
                self.parents.remove(&id);
                if let Some(link) = linked.link {
                    link.unfollow(self.handle.id);
                    self.feed(Event::ParentDown { parent: id });
                }
            }
        }
        for addr in wanted {
            if !self.links.contains_key(&addr.id) {
                self.counter += 1;
                let id = ParentId(self.counter);
                self.links.insert(
                    addr.id,
                    Linked {
                        id,
                        link: None,
                        retry_at: None,
                        failures: 0,
                    },
                );
                self.ports.links.follow(addr, &self.handle);
            }
        }
        self.prefer();
    }

    /// Gives up links that no reader uses.
    pub(super) fn give_up_links(&mut self, now: Instant) {
        if !self.readers.is_empty() || !self.attempts.is_empty() {
            self.want_links();
            return;
        }
        match self.links_kept {
            LinksKept::Used => self.links_kept = LinksKept::Unused(now),
            LinksKept::Unused(since) if now.duration_since(since) >= UNREAD => {
                self.links_kept = LinksKept::GivenUp;
                for linked in std::mem::take(&mut self.links).into_values() {
                    self.parents.remove(&linked.id);
                    if let Some(link) = linked.link {
                        link.unfollow(self.handle.id);
                        self.feed(Event::ParentDown { parent: linked.id });
                    }
                }
                self.prefer();
            }
            LinksKept::Unused(_) | LinksKept::GivenUp => {}
        }
    }

    /// Somebody reads: links that were given up are made again.
    pub(super) fn want_links(&mut self) {
        let before = std::mem::replace(&mut self.links_kept, LinksKept::Used);
        if let LinksKept::GivenUp = before {
            self.set_parents(self.wanted_parents.clone());
        }
    }

    /// Tells the brain which of the preferred parents can be reached.
    pub(super) fn prefer(&mut self) {
        let reached = |addr: &PeerAddr| {
            self.links
                .get(&addr.id)
                .filter(|linked| linked.link.is_some())
                .map(|linked| linked.id)
        };
        let stripes = self
            .wanted_parents
            .preferred
            .iter()
            .map(|addr| addr.as_ref().and_then(reached))
            .collect();
        self.feed(Event::Preferred { stripes });
    }

    pub(super) fn link_up(&mut self, link: LinkHandle) {
        let Some(linked) = self.links.get_mut(&link.peer) else {
            link.unfollow(self.handle.id);
            return;
        };
        if linked.link.is_some() {
            return;
        }
        let (id, peer) = (linked.id, link.peer);
        linked.failures = 0;
        linked.link = Some(link);
        self.parents.insert(id, peer);
        self.feed(Event::ParentUp { parent: id });
        self.prefer();
    }

    pub(super) fn link_down(&mut self, peer: PeerId, error: &Error) {
        let Some(linked) = self.links.get_mut(&peer) else {
            return;
        };
        tracing::debug!(task = ?self.handle.id, parent = ?peer, %error, "lost a parent");
        let was_up = linked.link.take().is_some();
        if !was_up && linked.retry_at.is_some() {
            return;
        }
        let old = linked.id;
        linked.failures += 1;
        let pause = (REDIAL * (1 << linked.failures.min(6))).min(REDIAL_MAX);
        linked.retry_at = Some(Instant::now() + pause);
        self.counter += 1;
        linked.id = ParentId(self.counter);
        if was_up {
            self.parents.remove(&old);
            self.feed(Event::ParentDown { parent: old });
        }
        // That this peer ended the link itself is no fault of the parent's.
        let ours = error.kind() == Kind::Cancelled;
        let Parents { preferred, others } = &self.wanted_parents;
        let preferred = preferred.iter().flatten().any(|addr| addr.id == peer);
        let told = preferred || others.iter().any(|addr| addr.id == peer);
        let trouble = match was_up {
            true => Some(Trouble::Gone).filter(|_| preferred),
            false => Some(Trouble::Unreachable).filter(|_| told),
        };
        if let Some(trouble) = trouble.filter(|_| !ours) {
            self.say(FromPeer::Trouble {
                task: self.handle.id,
                peer,
                trouble,
            });
        }
    }

    pub(super) fn redial(&mut self, now: Instant) {
        let due: Vec<PeerId> = self
            .links
            .iter()
            .filter(|(_, linked)| linked.retry_at.is_some_and(|at| now >= at))
            .map(|(&peer, _)| peer)
            .collect();
        for peer in due {
            let Parents { preferred, others } = &self.wanted_parents;
            let wanted = preferred
                .iter()
                .flatten()
                .chain(others)
                .find(|addr| addr.id == peer);
            let (Some(&addr), Some(linked)) = (wanted, self.links.get_mut(&peer)) else {
                // It was kept only for what it was sending.
                self.links.remove(&peer);
                continue;
            };
            linked.retry_at = None;
            self.ports.links.follow(addr, &self.handle);
        }
    }

    pub(super) fn parent_news(
        &mut self,
        peer: PeerId,
        runs: Vec<PieceRun>,
        event: impl Fn(ParentId, PieceIndex, u32) -> Event,
    ) {
        let Some(linked) = self.links.get(&peer).filter(|linked| linked.link.is_some()) else {
            return;
        };
        let parent = linked.id;
        let end = self.pieces_max();
        for (first, count) in runs {
            let count = count.min(end.saturating_sub(first.get()));
            if count > 0 {
                self.feed(event(parent, first, count));
            }
        }
    }
}
