use std::collections::{HashMap, VecDeque};

use pantala_core::{
    Error, ResourceKey,
    control::{Known, ToPeer},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::node::Stale;

/// What a supernode answers to a registration.
pub(crate) enum Answer {
    Known(Box<Known>),
    /// This peer asks the origin; `stale` is what may stand there.
    Learn {
        stale: Option<Stale>,
    },
    Direct,
    Refused(Error),
    /// The supernode was lost meanwhile.
    Lost,
}

/// Registrations that wait for their answer, by what was asked for.
#[derive(Default)]
pub(crate) struct Registrations {
    waiting: Mutex<HashMap<ResourceKey, VecDeque<oneshot::Sender<Answer>>>>,
}

impl Registrations {
    pub fn wait(&self, key: ResourceKey) -> oneshot::Receiver<Answer> {
        let (tell, told) = oneshot::channel();
        self.waiting.lock().entry(key).or_default().push_back(tell);
        told
    }

    /// Gives an answer to whom it is for. [`ToPeer::Known`], [`ToPeer::Direct`] and
    /// [`ToPeer::Refused`] hold for all that wait, [`ToPeer::Learn`] for one. `false` when nobody
    /// waited.
    pub fn answer(&self, message: &ToPeer) -> bool {
        match message {
            ToPeer::Known { key, known } => {
                self.all(key, || Answer::Known(Box::new(known.clone())))
            }
            ToPeer::Direct { key } => self.all(key, || Answer::Direct),
            ToPeer::Refused { key, error } => self.all(key, || Answer::Refused(error.clone())),
            ToPeer::Learn { key, stale } => {
                let stale = stale.as_ref();
                let stale = stale.map(|(task, meta)| (*task, Box::new(meta.clone())));
                self.one(key, Answer::Learn { stale })
            }
            _ => false,
        }
    }

    fn all(&self, key: &ResourceKey, answer: impl Fn() -> Answer) -> bool {
        let waiting = self.waiting.lock().remove(key).unwrap_or_default();
        let mut any = false;
        for tell in waiting {
            any |= tell.send(answer()).is_ok();
        }
        any
    }

    fn one(&self, key: &ResourceKey, mut answer: Answer) -> bool {
        let mut waiting = self.waiting.lock();
        let Some(line) = waiting.get_mut(key) else {
            return false;
        };
        while let Some(tell) = line.pop_front() {
            match tell.send(answer) {
                Ok(()) => return true,
                // That reader has gone; the next one learns.
                Err(back) => answer = back,
            }
        }
        waiting.remove(key);
        false
    }

    /// The supernode is lost: nobody gets an answer.
    pub fn lost(&self) {
        for (_, line) in self.waiting.lock().drain() {
            for tell in line {
                let _ = tell.send(Answer::Lost);
            }
        }
    }
}
