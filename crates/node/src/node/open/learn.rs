//! Learning: this peer asks the origin what stands behind a resource, for itself and for all who wait, and
//! tells the supernode what came of it. What an answer is fit for is not judged here.

use std::time::Instant;

use pantala_core::{
    ContentMeta, Error, Generation, Geometry, Kind, PieceIndex, Result, TaskId, Who,
    control::{FromPeer, Known, Learned},
    display_url,
};
use pantala_origin::{OriginResponse, Refused};
use tokio::task::JoinHandle;

use super::{Arrival, Asked, FOR_EVER, Stale, first_get::First};
use crate::{
    error,
    node::{Content, ContentRequest, Node, Opened, request::bounds},
    registration::Answer,
    task::Command,
};

impl Node {
    /// Asks the origin itself, and goes on with that very transfer as the first source lease.
    /// `stale`: what may stand there, unchanged.
    pub(super) async fn learn(
        &self,
        asked: Asked,
        stale: Option<Stale>,
        request: ContentRequest,
        opened: Arrival,
    ) -> Result<Opened, Refused> {
        // In a task of its own: others wait for what it learns, though this reader may go away.
        let (this, wanted) = (self.clone(), request.clone());
        let learning: JoinHandle<Result<Option<Opened>, Refused>> = self
            .inner
            .ports
            .tracker
            .spawn(async move { this.learn_now(asked, stale, wanted, opened).await });
        match learning.await {
            Ok(Ok(Some(opened))) => Ok(opened),
            // That concerns this reader alone.
            Ok(Ok(None)) => self.direct(request).await,
            Ok(Err(refused)) => Err(refused),
            Err(_) => Err(error::stopping().into()),
        }
    }

    /// Learns what stands behind a resource; `None` where the reader has to have it straight from the
    /// origin, for itself alone.
    async fn learn_now(
        &self,
        asked: Asked,
        stale: Option<Stale>,
        request: ContentRequest,
        opened: Arrival,
    ) -> Result<Option<Opened>, Refused> {
        let owed = Owed::new(self, asked);
        if self.is_crowded() && !self.inner.alone.is_full() {
            let what = "this peer has more readers than its memory has pieces for";
            let error = Error::new(Who::Us, Kind::NoMemory, what);
            owed.say(Learned::Failed { error });
            return Ok(None);
        }
        let response = match self.first_get(&request, stale.as_ref()).await {
            Ok(First::Sent(response)) => *response,
            Ok(First::Unchanged {
                shareable: false, ..
            }) => {
                owed.say(Learned::Unshareable);
                return Ok(None);
            }
            Ok(First::Unchanged { task, meta, .. }) => {
                return match self.unchanged(owed, task, *meta, &request, &opened).await? {
                    Unchanged::Content(content) => Ok(Some(Opened::Content(*content))),
                    // As if nothing had been known.
                    Unchanged::Gone(asked) => {
                        Box::pin(self.learn_now(asked, None, request, opened)).await
                    }
                };
            }
            Err(refused) => {
                self.forget_admission(&request, &refused.error);
                let error = refused.error.clone();
                owed.say(Learned::Failed { error });
                return Err(refused);
            }
        };
        let unfit = self.unfit(&response.meta);
        let joins = self.joins(&response, stale.as_ref(), &request);
        let named = self.named(&response, &request, joins == Some(true));
        let shareable = self.is_shareable(&response, &request, named.is_some(), asked.key.class());
        if unfit.is_some() || joins == Some(false) || !shareable {
            owed.say(match unfit {
                // Others may have the memory for it.
                Some(error) if error.kind() == Kind::NoMemory => {
                    tracing::warn!(%error, "content goes to its reader straight from the origin");
                    Learned::Failed { error }
                }
                Some(_) => Learned::Unshareable,
                None if named.is_none() && joins.is_none() && request.digest.is_some() => {
                    of_no_use("the answer to this peer is nothing that others could be told of")
                }
                None => unshareable(&request),
            });
            return Ok(self.for_one(response, &request));
        }
        self.begin(owed, named, response, request, opened).await
    }

    /// The origin says that a content that is known stands there: lets the reader in.
    async fn unchanged(
        &self,
        owed: Owed<'_>,
        task: TaskId,
        meta: ContentMeta,
        request: &ContentRequest,
        opened: &Arrival,
    ) -> Result<Unchanged> {
        let asked = owed.asked;
        let Asked { key, serial } = asked;
        let told = self.inner.registrations.wait(key, serial);
        let (shelf, now) = (&self.inner.ports.shelf, Instant::now());
        shelf.put(key, task, meta.clone(), serial, now);
        if owed.say(Learned::Unchanged {
            task,
            meta: meta.clone(),
        }) {
            match tokio::time::timeout(self.answer_timeout(), told).await {
                Ok(Ok(Answer::Known(known))) => {
                    let content = self.attach(known.task, known.meta, request, opened, true)?;
                    return Ok(Unchanged::Content(content.into()));
                }
                // Nobody can read it to its end any more. The supernode waits for the answer to the
                // request that it names, which may be a later one whose reader has gone.
                Ok(Ok(Answer::Learn { serial, .. })) => {
                    return Ok(Unchanged::Gone(Asked { key, serial }));
                }
                _ => {}
            }
        }
        if self.inner.ports.tasks.get(&task).is_none() {
            return Ok(Unchanged::Gone(asked));
        }
        let content = self.attach(task, meta, request, opened, true)?;
        Ok(Unchanged::Content(content.into()))
    }

    /// Begins a content with the transfer that brought what is known of it; `None` as in [`Node::learn_now`].
    /// `named`: the task that the content's digest makes, where the answer is taken for that content.
    async fn begin(
        &self,
        owed: Owed<'_>,
        named: Option<TaskId>,
        mut response: OriginResponse,
        request: ContentRequest,
        opened: Arrival,
    ) -> Result<Option<Opened>, Refused> {
        let Asked { key, serial } = owed.asked;
        let mut meta = response.meta.clone();
        meta.piece_size = Some(Geometry::of(&meta).piece_size());
        let task = match named {
            Some(task) => {
                meta.fresh_for = Some(FOR_EVER);
                meta.generation = Generation::Digest;
                // It may be had by whoever the origin would serve, and by nobody unasked.
                meta.private |= !response.shareable;
                task
            }
            None => TaskId::of_content(&key, &meta.validators, meta.length, rand::random()),
        };
        let part = part_of_transfer(&response, &meta);
        if part.is_some_and(|until| !needs_only(&request, &meta, until)) {
            owed.say(of_no_use(PART_ONLY));
            return Ok(self.for_one(response, &request));
        }
        let known = Known {
            task,
            meta: meta.clone(),
            digests: Vec::new(),
            parents: Default::default(),
        };
        let handle = self.task(key, &known, display_url(request.url.as_str()));
        if !self.agrees(&task, &meta) {
            // Another reader, which asked elsewhere for the same name, has begun with something else.
            owed.say(unshareable(&request));
            return Ok(self.for_one(response, &request));
        }
        if named.is_some() {
            response.body.named_by_digest();
        }
        if meta.generation == Generation::Transfer {
            let first = handle.pieces.geometry().piece_at(response.start);
            handle.transfer_is_at(first);
            if let Some(until) = part {
                handle.transfer_ends_at(until);
            }
        }
        let (shelf, now) = (&self.inner.ports.shelf, Instant::now());
        shelf.put(key, task, meta.clone(), serial, now);
        let content = self.attach(task, meta.clone(), &request, &opened, true);
        owed.say(match part {
            Some(_) => of_no_use(PART_ONLY),
            None => Learned::Content { task, meta },
        });
        if let Ok(content) = &content {
            let start = response.start;
            // What no other transfer can bring is kept from this one's first byte on.
            let from = match content.meta.generation {
                Generation::Transfer => start,
                Generation::Validators | Generation::Digest => content.start,
            };
            let first = handle.pieces.geometry().piece_at(from);
            let learned = Command::Learned {
                first,
                end: part,
                start,
                body: response.body,
            };
            let _ = handle.commands.send(learned).await;
        }
        // Not before: the driver would ask the origin again for what is open already.
        if part.is_none() && self.inner.ports.control.control.is_none() {
            let _ = handle.commands.send(Command::Alone).await;
        }
        Ok(Some(Opened::Content(content?)))
    }

    /// Whether there are more readers than a third of the memory has pieces for (the rest is for what
    /// their transfers from the origin read ahead). Then whoever comes with
    /// content that nobody has yet gets it straight from the origin, as without us, rather than
    /// wait for the others' pieces.
    fn is_crowded(&self) -> bool {
        let readers = *self.inner.readers.borrow() as u64;
        readers > 1
            && readers * pantala_core::MIN_PIECE > self.inner.ports.store.budget().limit() / 3
    }
}

/// The outcome of an origin's answer that a content has not changed.
enum Unchanged {
    /// The reader is let in.
    Content(Box<Content>),
    /// No peer has the content any more: the origin is to be asked for it, in answer to this request.
    Gone(Asked),
}

/// The word on a resource that is owed to the supernode, because others wait for it. When nothing
/// was said by the time it is dropped, learning failed here, and another peer tries.
struct Owed<'a> {
    node: &'a Node,
    asked: Asked,
    said: bool,
}

impl<'a> Owed<'a> {
    fn new(node: &'a Node, asked: Asked) -> Self {
        let said = false;
        Self { node, asked, said }
    }

    /// Says it; `false` when there is nobody to say it to.
    fn say(mut self, learned: Learned) -> bool {
        self.said = true;
        self.tell(learned)
    }

    fn tell(&self, learned: Learned) -> bool {
        let Asked { key, serial } = self.asked;
        self.node.inner.ports.control.send(FromPeer::Learned {
            key,
            serial,
            learned,
        })
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        if !self.said {
            let error = Error::new(Who::Us, Kind::Internal, "learning ended without a word");
            self.tell(Learned::Failed {
                error: error.retryable(true),
            });
        }
    }
}

/// The piece after the last that an answer brings whole, where it brings a part of content that no other
/// answer can complete: there is nothing by which another could be told to be of the same.
fn part_of_transfer(response: &OriginResponse, meta: &ContentMeta) -> Option<PieceIndex> {
    let end = response.end.filter(|end| Some(*end) != meta.length)?;
    let single = meta.generation == Generation::Transfer;
    single.then(|| Geometry::of(meta).piece_at(end))
}

/// Whether a reader needs nothing from this piece on.
fn needs_only(request: &ContentRequest, meta: &ContentMeta, until: PieceIndex) -> bool {
    let end = bounds(request.range, meta.length)
        .ok()
        .and_then(|(_, end)| end);
    end.is_some_and(|end| Geometry::of(meta).piece_after(end) <= until)
}

/// Why a part of a transfer is of no use to others.
const PART_ONLY: &str = "the answer to this peer is a part, and nothing tells whether another answer is of the same content";

/// The word to other readers where what this one was given is of no use to them: each asks for what it
/// needs.
fn of_no_use(what: &str) -> Learned {
    Learned::Failed {
        error: Error::new(Who::Us, Kind::Unavailable, what).retryable(true),
    }
}

/// The word to other readers about an answer that is for one reader alone. Where the origin answers a name
/// with something else than the content, it says only that this reader does not get the content.
fn unshareable(request: &ContentRequest) -> Learned {
    if request.digest.is_none() {
        return Learned::Unshareable;
    }
    let what = "the origin answers with something else than the content that is named";
    Learned::Failed {
        error: Error::new(Who::Origin, Kind::Denied, what),
    }
}
