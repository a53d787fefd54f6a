//! Opening content: from what is fresh here, by the word of the supernode, or from the origin itself.

mod attach;
mod direct;
mod first_get;
mod learn;
mod shareable;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pantala_core::{
    Class, ContentMeta, Generation, Kind, PieceIndex, ResourceKey, Result, TaskId,
    control::{FromPeer, Register, Serial},
    display_url,
};
use pantala_origin::{Harmless, Refused};
use url::Url;

use super::{Content, ContentRequest, Node, Opened, request::bounds};
use crate::{key, registration::Answer, shelf::Standing, stream::Counted, task::TaskHandle};

/// A reader that has come: when, and its place among those that share the memory. Counted before
/// anything else, so that a thousand that come at once know of each other.
pub(crate) struct Arrival {
    at: Instant,
    counted: Arc<Counted>,
}

impl Arrival {
    pub fn new(node: &Node, at: Instant) -> Self {
        let counted = Counted::new(&node.inner.readers).into();
        Self { at, counted }
    }
}

/// A question for a resource.
#[derive(Debug, Clone, Copy)]
struct Asked {
    key: ResourceKey,
    /// The request that the answer is for: what it says may be as old as that.
    serial: Serial,
}

/// How often a reader begins with a transfer that others began, until it has one of its own.
const BEGINNINGS: usize = 4;
/// Content named by its digest never changes.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Node {
    /// Opens content for a reader: one round trip to the supernode, or none when it is fresh here.
    ///
    /// # Errors
    /// When the origin refuses or fails and nobody else has it, when the range lies outside, or
    /// when the origin may not be asked and no peer has it.
    pub async fn open(&self, request: ContentRequest) -> Result<Opened> {
        self.open_or_refusal(request)
            .await
            .map_err(|refused| refused.error)
    }

    /// The same, with the origin's own words where it refused this very reader.
    ///
    /// # Errors
    /// As [`Node::open`].
    pub async fn open_or_refusal(&self, request: ContentRequest) -> Result<Opened, Refused> {
        let asked = request.clone();
        let opened = self.open_persistently(request).await?;
        if let Opened::Content(content) = &opened {
            self.read_ahead(&asked, content);
        }
        Ok(opened)
    }

    /// Opens content; where that comes from a single transfer, and the transfer is over before this
    /// reader has a byte of it, the reader begins anew with the next answer of the origin.
    async fn open_persistently(&self, request: ContentRequest) -> Result<Opened, Refused> {
        for _ in 0..BEGINNINGS {
            let mut opened = self.open_somehow(request.clone()).await?;
            let Opened::Content(content) = &mut opened else {
                return Ok(opened);
            };
            if content.meta.generation != Generation::Transfer {
                return Ok(opened);
            }
            match content.stream.begins().await {
                Err(error) if error.kind() == Kind::Changed => {
                    tracing::info!(task = ?content.task, %error, "beginning anew");
                }
                _ => return Ok(opened),
            }
        }
        self.direct(request).await
    }

    async fn open_somehow(&self, request: ContentRequest) -> Result<Opened, Refused> {
        let opened = Arrival::new(self, Instant::now());
        let key = self.key(&request);
        if let Some(content) = self.open_fresh(key, &request, &opened) {
            return Ok(self.admitted(content?, request).await?);
        }
        let serial = self.inner.ports.shelf.serial();
        let asked = Asked { key, serial };
        if self.inner.ports.control.control.is_none() {
            return self.learn(asked, self.kept(&key), request, opened).await;
        }
        match self.ask_supernode(asked, &request).await {
            Answer::Known(known) if !self.takes(&known) => self.direct(request).await,
            Answer::Known(known) => {
                let content = self.attach(known.task, known.meta, &request, &opened, false)?;
                Ok(self.admitted(content, request).await?)
            }
            Answer::Learn { serial, stale } => {
                let asked = Asked { key, serial };
                self.learn(asked, stale, request, opened).await
            }
            Answer::Direct => self.direct(request).await,
            Answer::Refused(error) => Err(error.into()),
            Answer::Lost => {
                self.inner.ports.control.fall_back().await;
                self.learn(asked, self.kept(&key), request, opened).await
            }
        }
    }

    /// Registers a reader, and waits for what the supernode says: as long as another peer may be
    /// waiting for the origin, because asking that again would not make it quicker.
    async fn ask_supernode(&self, asked: Asked, request: &ContentRequest) -> Answer {
        let Asked { key, serial } = asked;
        let told = self.inner.registrations.wait(key, serial);
        let control = &self.inner.ports.control;
        if self.inner.ports.shelf.owes(&key) {
            // It may have been told on a connection that broke, and would answer with what stood there before.
            control.send(FromPeer::Changed { key });
        }
        let register = FromPeer::Register(Register {
            key,
            serial,
            shown: display_url(request.url.as_str()),
            start: request.range.map_or(0, |range| range.start_hint()),
            content: key::content(request, &self.inner.config.filter_query),
        });
        control.ask(register, told, self.answer_timeout()).await
    }

    /// The longest a supernode that is there may take to answer: the peer that asks the origin may
    /// take as long as an origin may, and its successor once more.
    fn answer_timeout(&self) -> Duration {
        2 * self.inner.config.origin.answer_timeout
    }

    pub(super) fn key(&self, request: &ContentRequest) -> ResourceKey {
        key::of(
            request,
            &self.inner.config.filter_query,
            self.class(request),
        )
    }

    /// Whether the origin may answer this request otherwise than anybody's: it carries credentials,
    /// or is let in by those of this host.
    fn class(&self, request: &ContentRequest) -> Class {
        let origin = &self.inner.ports.origin;
        let proves_nothing = (self.harmless()).is_anonymous(&request.url, &request.headers);
        if proves_nothing && !origin.lets_us_in(&request.url) {
            Class::Anonymous
        } else {
            Class::Credentialed
        }
    }

    /// What stands behind a URL has been changed: what is known of it holds no more, here and at the
    /// other peers (RFC 9111, 4.4).
    pub fn changed(&self, url: &Url) {
        let key = key::of_url(url, &self.inner.config.filter_query);
        self.inner.ports.shelf.changed_here(&key, || {
            // Nobody else knows anything where there is no supernode.
            self.inner.ports.control.send(FromPeer::Changed { key });
        });
    }

    pub(super) fn harmless(&self) -> &Harmless {
        self.inner.ports.origin.harmless()
    }

    fn open_fresh(
        &self,
        key: ResourceKey,
        request: &ContentRequest,
        opened: &Arrival,
    ) -> Option<Result<Content>> {
        let now = Instant::now();
        let standing = self.inner.ports.shelf.fresh(&key, now)?;
        if self.is_otherwise_named(&standing, request) {
            return None;
        }
        let task = self.stands_for(&standing)?;
        let geometry = task.pieces.geometry();
        let (start, end) = match bounds(request.range, geometry.length()) {
            Ok(bounds) => bounds,
            Err(error) => return Some(Err(error)),
        };
        let end = end.map(|end| geometry.piece_after(end));
        if !task.can_begin(geometry.piece_at(start), end) {
            // The supernode may know of members that have the rest.
            return None;
        }
        Some(self.attach(standing.task, standing.meta(now), request, opened, false))
    }

    /// The task that an answer on the shelf is of, where it is whole. A name may have been forgotten and
    /// have come to stand for another content since, through another place: an answer of another
    /// length is not of that.
    pub(super) fn stands_for(&self, standing: &Standing) -> Option<Arc<TaskHandle>> {
        let task = self.inner.ports.tasks.get(&standing.task)?;
        let agrees = task.pieces.geometry().agrees(&standing.geometry());
        (agrees && !task.is_broken()).then_some(task)
    }

    /// What stood behind a resource when it was last heard of, where its content is still here. The
    /// origin has to say whether it still does.
    fn kept(&self, key: &ResourceKey) -> Option<Stale> {
        let standing = self.inner.ports.shelf.last(key)?;
        self.stands_for(&standing)
            .filter(|task| task.can_begin(PieceIndex::new(0), None))?;
        let meta = standing.meta(Instant::now());
        Some((standing.task, Box::new(meta)))
    }
}

/// A content that may stand behind a resource still, and the answer that said so.
pub(crate) type Stale = (TaskId, Box<ContentMeta>);
