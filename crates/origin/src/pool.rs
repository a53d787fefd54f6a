use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use http::uri::{Authority, Scheme};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use crate::{Asker, connection::Connection, tls::Identity};

/// Connections kept to one origin while nobody needs them.
const PER_ORIGIN: usize = 32;
/// Connections kept over all. Each may pin a read's buffer.
const OVER_ALL: usize = 256;
/// How long one is kept: less than the minute after which balancers usually close theirs.
const IDLE: Duration = Duration::from_secs(50);

/// What a connection is: where it leads, whether it has shown who we are, and for whom it was made,
/// because a name may lead to services that are not for everybody.
pub(crate) type Key = (Scheme, Authority, Identity, Asker);

/// Connections that nobody needs now.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// By whom they lead to, the last used one last.
    connections: HashMap<Key, Vec<Kept>>,
    count: usize,
    /// Closes what was kept for too long. There is one while there are connections.
    sweeper: Option<AbortHandle>,
}

struct Kept {
    connection: Connection,
    until: Instant,
}

impl Pool {
    /// The connection that was used last, if it is still good: what was idle for longer is closed
    /// sooner by the other side.
    pub(crate) fn take(&self, key: &Key) -> Option<Connection> {
        loop {
            let kept = self.idle.lock().pop_last(key)?;
            let mut connection = kept.connection;
            if Instant::now() < kept.until && connection.is_ready() {
                return Some(connection);
            }
        }
    }

    pub(crate) fn put(self: &Arc<Self>, key: Key, connection: Connection) {
        // Without a runtime nobody would close it in time, and nobody is left to use it.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let until = Instant::now() + IDLE;
        let mut idle = self.idle.lock();
        let surplus = idle.push(key, Kept { connection, until });
        if idle.sweeper.is_none() {
            let sweeper = runtime.spawn(sweep(Arc::downgrade(self), until));
            idle.sweeper = Some(sweeper.abort_handle());
        }
        drop(idle);
        drop(surplus);
    }
}

impl Idle {
    /// Gives what there is no room for: the one that was idle for longest.
    fn push(&mut self, key: Key, kept: Kept) -> Option<Kept> {
        let same = self.connections.entry(key).or_default();
        same.push(kept);
        self.count += 1;
        if same.len() > PER_ORIGIN {
            self.count -= 1;
            return Some(same.remove(0));
        }
        if self.count <= OVER_ALL {
            return None;
        }
        let oldest = self
            .connections
            .iter()
            .filter_map(|(key, kept)| Some((kept.first()?.until, key.clone())))
            .min_by_key(|(until, _)| *until);
        let (_, key) = oldest?;
        self.remove(&key, |kept| Some(kept.remove(0)))
    }

    fn pop_last(&mut self, key: &Key) -> Option<Kept> {
        self.remove(key, Vec::pop)
    }

    fn remove(&mut self, key: &Key, take: fn(&mut Vec<Kept>) -> Option<Kept>) -> Option<Kept> {
        let same = self.connections.get_mut(key)?;
        let taken = take(same);
        if same.is_empty() {
            self.connections.remove(key);
        }
        self.count -= usize::from(taken.is_some());
        taken
    }

    /// Takes out what was kept until now. Gives when the next one's time is up.
    fn expire(&mut self, now: Instant) -> (Vec<Kept>, Option<Instant>) {
        let mut expired = Vec::new();
        self.connections.retain(|_, kept| {
            expired.extend(kept.extract_if(.., |kept| kept.until <= now));
            !kept.is_empty()
        });
        self.count -= expired.len();
        let next = self
            .connections
            .values()
            .flatten()
            .map(|kept| kept.until)
            .min();
        if next.is_none() {
            self.sweeper = None;
        }
        (expired, next)
    }
}

async fn sweep(pool: Weak<Pool>, mut at: Instant) {
    loop {
        sleep_until(at).await;
        let Some(pool) = pool.upgrade() else {
            return;
        };
        let (expired, next) = pool.idle.lock().expire(Instant::now());
        drop(expired);
        match next {
            Some(next) => at = next,
            None => return,
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(sweeper) = self.idle.get_mut().sweeper.take() {
            sweeper.abort();
        }
    }
}
