//! Attaching: a reader gets its stream on a task that is here. Nobody is asked anything.

use std::sync::Arc;

use pantala_core::{ContentMeta, Generation, Geometry, Result, TaskId};

use super::Arrival;
use crate::{
    error, key,
    node::{Content, ContentRequest, Node, request::bounds},
    readers::{OriginSource, Reader},
    stream::{StreamIo, StreamSetup},
    task::TaskHandle,
};

impl Node {
    /// Whether an answer can be of the content that is here under its name, if one is: it is of the same
    /// length and cut alike.
    pub(in crate::node) fn agrees(&self, task: &TaskId, meta: &ContentMeta) -> bool {
        let task = self.inner.ports.tasks.get(task);
        task.is_none_or(|task| task.pieces.geometry().agrees(&Geometry::of(meta)))
    }

    /// Opens a reader on a task that is here. `meta` is what the resource that it asked for answers;
    /// `learned`: the origin has just served this reader.
    pub(crate) fn attach(
        &self,
        task: TaskId,
        mut meta: ContentMeta,
        request: &ContentRequest,
        opened: &Arrival,
        learned: bool,
    ) -> Result<Content> {
        let source = OriginSource {
            url: request.url.clone(),
            headers: request.headers.clone(),
            allowed: request.origin_allowed,
            asker: request.asker,
        };
        let ports = &self.inner.ports;
        let found = ports.tasks.with(&task, |task| {
            let length = task.meta.read().length;
            let (start, end) = bounds(request.range, length)?;
            let geometry = task.pieces.geometry();
            // Here an answer's headers meet a content's bytes.
            if !geometry.agrees(&Geometry::of(&meta)) {
                return Err(error::other_content());
            }
            // A transfer that no other can follow, and that brings the whole whatever was asked for, goes
            // on for whoever comes next as long as this reader is there.
            let goes_on = task.meta.read().generation == Generation::Transfer && !meta.ranges;
            let last = end
                .filter(|_| !goes_on)
                .map(|end| geometry.piece_after(end));
            let reader = task.readers.open(
                geometry.piece_at(start),
                last,
                source,
                request.background,
                opened.counted.clone(),
            );
            Ok((task.clone(), reader, length, start, end))
        });
        let Some(found) = found else {
            return Err(error::stopping().retryable(true));
        };
        let (task, reader, length, start, end): (Arc<TaskHandle>, Arc<Reader>, _, u64, _) = found?;
        meta.length = length;
        let admission = (meta.private && !learned)
            .then(|| self.admission(&task, &meta, request))
            .flatten();
        if learned {
            self.admit(task.id, &meta, request);
        }
        let whole = request.range.is_none() || (start == 0 && end == meta.length);
        let proven = task.proven.load(std::sync::atomic::Ordering::Relaxed);
        let digest = request
            .digest
            .filter(|_| whole && !proven)
            // Others are told that a content is wrong only if its own name says so, not this reader alone.
            .map(|digest| {
                let named = meta.generation == Generation::Digest;
                (digest, named || key::names(&request.url, &digest))
            });
        let id = task.id;
        let stream = StreamIo::new(StreamSetup {
            task,
            reader,
            metrics: ports.metrics.clone(),
            start,
            end,
            digest,
            limit_rate: request.limit_rate,
            admission,
            memory: self.inner.config.memory,
            learned,
            opened: opened.at,
            counted: opened.counted.clone(),
            tracker: ports.tracker.clone(),
        });
        Ok(Content {
            meta,
            start,
            end,
            task: id,
            learned,
            stream,
        })
    }
}
