//! Who may have a content: the origin says so, for each reader with its own credentials.

use std::time::Instant;

use pantala_core::{ContentMeta, Error, Kind, Result, TaskId, Who};
use pantala_origin::Harmless;
use tokio::task::JoinHandle;

use super::{Content, ContentRequest, Node, Opened, REMEMBERED};
use crate::task::TaskHandle;

impl Node {
    /// What is known here of a content that is fresh, for a reader that may have it: that is asked
    /// of the origin where it must be, and nothing else is asked of anybody.
    pub async fn known(&self, request: &ContentRequest) -> Option<ContentMeta> {
        let key = self.key(request);
        let task = self.fresh(key)?;
        let meta = task.meta.read().clone();
        if meta.private
            && let Some(admission) = self.admission(&task, &meta, request)
        {
            admission.await.ok()?.ok()?;
        }
        Some(meta)
    }

    /// Waits for the origin's word that this reader may have the content, while its window is
    /// being filled already. Where the origin has something else for this reader it gets that.
    pub(super) async fn admitted(
        &self,
        mut content: Content,
        request: ContentRequest,
    ) -> Result<Opened> {
        match content.stream.admitted().await {
            Ok(()) => Ok(Opened::Content(content)),
            Err(error) if error.kind() == Kind::Changed => {
                drop(content);
                self.direct(request).await.map_err(|refused| refused.error)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks the origin whether it would serve this very content to this reader, unless it said so
    /// a moment ago.
    pub(super) fn admission(
        &self,
        task: &TaskHandle,
        meta: &ContentMeta,
        request: &ContentRequest,
    ) -> Option<JoinHandle<Result<()>>> {
        let name = admission_name(self.harmless(), task.id, request);
        let remembered = self.inner.admitted.lock().get(&name).copied();
        if remembered.is_some_and(|since| since.elapsed() < self.inner.config.remember_admission) {
            return None;
        }
        let (this, url, headers) = (self.clone(), request.url.clone(), request.headers.clone());
        // A digest says what it is; behind a URL there may be a content for each user.
        let same = request.digest.is_none().then(|| meta.validators.clone());
        Some(self.inner.ports.tracker.spawn(async move {
            let served = this.inner.ports.origin.check(&url, &headers).await?;
            if same.is_some_and(|same| !same.vouch_for(&served)) {
                let what = "the origin has something else for these credentials";
                return Err(Error::new(Who::Origin, Kind::Changed, what));
            }
            this.admit(name);
            Ok(())
        }))
    }

    /// The origin has served this reader.
    pub(super) fn admit_to(&self, task: TaskId, request: &ContentRequest) {
        self.admit(admission_name(self.harmless(), task, request));
    }

    fn admit(&self, name: [u8; 32]) {
        let mut admitted = self.inner.admitted.lock();
        if admitted.len() >= REMEMBERED {
            admitted.retain(|_, since| since.elapsed() < self.inner.config.remember_admission);
        }
        if admitted.len() < REMEMBERED {
            admitted.insert(name, Instant::now());
        }
    }
}

/// Names a reader's credentials for a content without keeping them.
fn admission_name(harmless: &Harmless, task: TaskId, request: &ContentRequest) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(task.as_bytes());
    let mut put = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    put(request.url.as_str().as_bytes());
    // What else a request carries does not change who sends it.
    for (name, value) in harmless.credentials_in(&request.headers) {
        put(name.as_str().as_bytes());
        put(value.as_bytes());
    }
    *hash.finalize().as_bytes()
}
