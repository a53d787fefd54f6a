//! Links to parents: which ones the supernode names, which there are, and when a lost one is made again.

use std::{collections::HashMap, time::Duration};

use pantala_core::{
    Error, Kind, PeerId, PieceIndex,
    control::{FromPeer, Parents, PeerAddr, PieceRun, REDIAL_MAX, Trouble},
};
use pantala_window::{Event, ParentId};
use tokio::time::Instant;

use super::Driver;
use crate::download::LinkHandle;

/// The parents of one task.
///
/// A parent has a name of its own in the brain for each connection: what was known of one that is over says
/// nothing of the next. Invariant: a name leads to a peer exactly while that connection is up.
#[derive(Default)]
pub(super) struct ParentLinks {
    links: HashMap<PeerId, Linked>,
    up: HashMap<ParentId, PeerId>,
    /// Whom the supernode named last. It bounds all else here, but for parents that something is fetched
    /// from still.
    named: Parents,
    names: u64,
    kept: Kept,
}

struct Linked {
    id: ParentId,
    link: Option<LinkHandle>,
    retry_at: Option<Instant>,
    failures: u32,
}

/// Whether there are links to parents.
#[derive(Clone, Copy, Default)]
enum Kept {
    /// A reader uses them.
    #[default]
    Used,
    /// Nobody has since then.
    Unused(Instant),
    /// They were given up: parents have room for a bounded number of children. The next reader has them made
    /// again.
    GivenUp,
}

/// A connection that is not used any more.
pub(super) struct Left {
    id: ParentId,
    link: Option<LinkHandle>,
}

/// A connection that was lost.
pub(super) struct Lost {
    /// Its name, if it was up.
    id: Option<ParentId>,
    /// What the supernode is to be told of the parent.
    trouble: Option<Trouble>,
}

const REDIAL: Duration = Duration::from_millis(500);
/// How long links to parents are kept while nobody reads.
pub(super) const UNREAD: Duration = Duration::from_secs(10);

impl ParentLinks {
    /// The connection by this name, if it is up.
    pub fn link(&self, parent: ParentId) -> Option<&LinkHandle> {
        self.links.get(self.up.get(&parent)?)?.link.as_ref()
    }

    /// The peer at the other end of a connection that is up.
    pub fn peer(&self, parent: ParentId) -> Option<PeerId> {
        self.up.get(&parent).copied()
    }

    pub fn is_up(&self, parent: ParentId) -> bool {
        self.up.contains_key(&parent)
    }

    /// The name of a parent whose connection is up.
    pub fn id(&self, peer: PeerId) -> Option<ParentId> {
        let linked = self.links.get(&peer)?;
        linked.link.is_some().then_some(linked.id)
    }

    /// The connections that are up.
    pub fn links(&self) -> impl Iterator<Item = &LinkHandle> {
        self.links
            .values()
            .filter_map(|linked| linked.link.as_ref())
    }

    /// When a lost connection is to be made again.
    pub fn next_redial(&self) -> Option<Instant> {
        let retries = self.links.values().filter_map(|linked| linked.retry_at);
        retries.min()
    }

    /// The preferred parents of the stripes, as far as they can be reached.
    pub fn stripes(&self) -> Vec<Option<ParentId>> {
        let reached = |addr: &PeerAddr| self.id(addr.id);
        let stripes = self.named.preferred.iter();
        stripes
            .map(|addr| addr.as_ref().and_then(reached))
            .collect()
    }

    /// The supernode names these parents. Gives the connections that are used no more, and the parents to
    /// be followed; nothing where nobody uses links. One that `is_asked` says yes to stays until that is
    /// done with.
    fn name(
        &mut self,
        named: Parents,
        is_asked: impl Fn(ParentId) -> bool,
    ) -> Option<(Vec<Left>, Vec<PeerAddr>)> {
        self.named = named;
        if let Kept::GivenUp = self.kept {
            return None;
        }
        let wanted: Vec<PeerAddr> = self.named().collect();
        let stays = |peer: PeerId| wanted.iter().any(|addr| addr.id == peer);
        let gone = self
            .links
            .extract_if(|&peer, linked| !stays(peer) && !is_asked(linked.id));
        let gone: Vec<Left> = gone.map(|(_, linked)| linked.leave()).collect();
        for left in &gone {
            self.up.remove(&left.id);
        }
        let mut new = Vec::new();
        for addr in wanted {
            if !self.links.contains_key(&addr.id) {
                let linked = Linked {
                    id: self.new_id(),
                    link: None,
                    retry_at: None,
                    failures: 0,
                };
                self.links.insert(addr.id, linked);
                new.push(addr);
            }
        }
        self.check();
        Some((gone, new))
    }

    /// All parents that the supernode named, preferred ones first.
    fn named(&self) -> impl Iterator<Item = PeerAddr> {
        let Parents { preferred, others } = &self.named;
        preferred.iter().flatten().chain(others).copied()
    }

    /// Nobody here uses the links now. Gives those that are given up for that.
    fn unused(&mut self, now: Instant) -> Option<Vec<Left>> {
        match self.kept {
            Kept::Used => self.kept = Kept::Unused(now),
            Kept::Unused(since) if now.duration_since(since) >= UNREAD => {
                self.kept = Kept::GivenUp;
                self.up.clear();
                let links = std::mem::take(&mut self.links);
                return Some(links.into_values().map(Linked::leave).collect());
            }
            Kept::Unused(_) | Kept::GivenUp => {}
        }
        None
    }

    /// Somebody here uses the links. Gives the parents to be named again if they were given up.
    fn used(&mut self) -> Option<Parents> {
        let before = std::mem::replace(&mut self.kept, Kept::Used);
        matches!(before, Kept::GivenUp).then(|| self.named.clone())
    }

    /// A connection is up. Gives its name, if that is news; an error when nobody wants it.
    fn up(&mut self, link: LinkHandle) -> Result<Option<ParentId>, LinkHandle> {
        let Some(linked) = self.links.get_mut(&link.peer) else {
            return Err(link);
        };
        if linked.link.is_some() {
            return Ok(None);
        }
        linked.failures = 0;
        self.up.insert(linked.id, link.peer);
        let id = linked.id;
        linked.link = Some(link);
        self.check();
        Ok(Some(id))
    }

    /// A connection is down, or could not be made. `None` where that is no news.
    fn down(&mut self, peer: PeerId, now: Instant) -> Option<Lost> {
        let fresh = self.new_id();
        let linked = self.links.get_mut(&peer)?;
        let was_up = linked.link.take().is_some();
        if !was_up && linked.retry_at.is_some() {
            return None;
        }
        linked.failures += 1;
        let pause = (REDIAL * (1 << linked.failures.min(6))).min(REDIAL_MAX);
        linked.retry_at = Some(now + pause);
        let old = std::mem::replace(&mut linked.id, fresh);
        self.up.remove(&old);
        let preferred = self.named.preferred.iter().flatten();
        let preferred = preferred.into_iter().any(|addr| addr.id == peer);
        let trouble = match was_up {
            true => Some(Trouble::Gone).filter(|_| preferred),
            false => {
                let told = self.named().any(|addr| addr.id == peer);
                Some(Trouble::Unreachable).filter(|_| told)
            }
        };
        self.check();
        let id = was_up.then_some(old);
        Some(Lost { id, trouble })
    }

    /// The parents whose connections are to be made again now.
    fn redial(&mut self, now: Instant) -> Vec<PeerAddr> {
        let named: HashMap<PeerId, PeerAddr> = self.named().map(|addr| (addr.id, addr)).collect();
        let is_due = |linked: &Linked| linked.retry_at.is_some_and(|at| now >= at);
        let mut due = Vec::new();
        self.links.retain(|peer, linked| {
            if !is_due(linked) {
                return true;
            }
            linked.retry_at = None;
            due.extend(named.get(peer));
            // Another one was kept only for what it was sending.
            named.contains_key(peer)
        });
        due
    }

    fn new_id(&mut self) -> ParentId {
        self.names += 1;
        ParentId(self.names)
    }

    fn check(&self) {
        debug_assert!(self.up.len() == self.links().count());
        debug_assert!(self.up.keys().all(|&id| self.link(id).is_some()));
    }
}

impl Linked {
    fn leave(self) -> Left {
        let Self { id, link, .. } = self;
        Left { id, link }
    }
}

impl Driver {
    pub(super) fn set_parents(&mut self, named: Parents) {
        let requests = &self.requests;
        let is_asked = |parent| requests.of_parent(parent);
        let Some((gone, new)) = self.parents.name(named, is_asked) else {
            return;
        };
        self.leave(gone);
        for addr in new {
            self.ports.links.follow(addr, &self.handle);
        }
        self.prefer();
    }

    fn leave(&mut self, gone: Vec<Left>) {
        for Left { id, link } in gone {
            if let Some(link) = link {
                link.unfollow(self.handle.id);
                self.feed(Event::ParentDown { parent: id });
            }
        }
    }

    /// Gives up links that no reader uses.
    pub(super) fn give_up_links(&mut self, now: Instant) {
        if !self.readers.is_empty() || !self.requests.is_empty() {
            self.want_links();
        } else if let Some(gone) = self.parents.unused(now) {
            self.leave(gone);
            self.prefer();
        }
    }

    /// Somebody reads: links that were given up are made again.
    pub(super) fn want_links(&mut self) {
        if let Some(named) = self.parents.used() {
            self.set_parents(named);
        }
    }

    /// Tells the brain which of the preferred parents can be reached.
    fn prefer(&mut self) {
        let stripes = self.parents.stripes();
        self.feed(Event::Preferred { stripes });
    }

    pub(super) fn link_up(&mut self, link: LinkHandle) {
        match self.parents.up(link) {
            Ok(Some(parent)) => {
                self.feed(Event::ParentUp { parent });
                self.prefer();
            }
            Ok(None) => {}
            Err(unwanted) => unwanted.unfollow(self.handle.id),
        }
    }

    pub(super) fn link_down(&mut self, peer: PeerId, error: &Error) {
        let Some(lost) = self.parents.down(peer, Instant::now()) else {
            return;
        };
        tracing::debug!(task = ?self.handle.id, parent = ?peer, %error, "lost a parent");
        if let Some(parent) = lost.id {
            self.requests.parent_gone(parent);
            self.feed(Event::ParentDown { parent });
        }
        // That this peer ended the link itself is no fault of the parent's.
        let ours = error.kind() == Kind::Cancelled;
        if let Some(trouble) = lost.trouble.filter(|_| !ours) {
            self.say(FromPeer::Trouble {
                task: self.handle.id,
                peer,
                trouble,
            });
        }
    }

    pub(super) fn redial(&mut self, now: Instant) {
        for addr in self.parents.redial(now) {
            self.ports.links.follow(addr, &self.handle);
        }
    }

    pub(super) fn parent_news(
        &mut self,
        peer: PeerId,
        runs: Vec<PieceRun>,
        event: impl Fn(ParentId, PieceIndex, u32) -> Event,
    ) {
        let Some(parent) = self.parents.id(peer) else {
            return;
        };
        let end = self.pieces_max();
        for (first, count) in runs {
            let count = count.min(end.saturating_sub(first.get()));
            if count > 0 {
                self.feed(event(parent, first, count));
            }
        }
    }
}
