//! Registrations that wait for the supernode's answer. An answer names a request, and answers that request and
//! earlier ones for the same resource; a request that was made later waits on. Nothing is sent from here.

use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::{AtomicUsize, Ordering},
};

use pantala_core::{
    Error, ResourceKey,
    control::{Known, Serial, ToPeer},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::node::Stale;

/// What a supernode answers to a registration.
pub(crate) enum Answer {
    Known(Box<Known>),
    /// This peer asks the origin; `stale` is what may stand there.
    Learn {
        /// The request that is named by what this peer learns: its reader may have gone, and another one
        /// learns in its place.
        serial: Serial,
        stale: Option<Stale>,
    },
    Direct,
    Refused(Error),
    /// The supernode was lost meanwhile.
    Lost,
}

/// A request, and where its answer goes.
type Waiting = (Serial, oneshot::Sender<Answer>);

/// Registrations that wait for their answer, by what was asked for.
#[derive(Default)]
pub(crate) struct Registrations {
    waiting: Mutex<HashMap<ResourceKey, VecDeque<Waiting>>>,
    /// Resources at which those are taken out that nobody waits for any more.
    sweep_at: AtomicUsize,
}

/// Resources below which nothing is swept.
const SWEEP_MIN: usize = 64;

impl Registrations {
    /// Waits for the answer to this request. A wait that is given up is forgotten with the answer, or when the
    /// number of resources has doubled since the last sweep.
    pub fn wait(&self, key: ResourceKey, serial: Serial) -> oneshot::Receiver<Answer> {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= self.sweep_at.load(Ordering::Relaxed).max(SWEEP_MIN) {
            waiting.retain(|_, line| line.iter().any(|(_, tell)| !tell.is_closed()));
            self.sweep_at.store(2 * waiting.len(), Ordering::Relaxed);
        }
        waiting.entry(key).or_default().push_back((serial, tell));
        told
    }

    /// Gives an answer to whom it is for. [`ToPeer::Known`], [`ToPeer::Direct`] and
    /// [`ToPeer::Refused`] hold for all that wait with the request that is named or an earlier one,
    /// [`ToPeer::Learn`] for one. `false` when nobody waited.
    pub fn answer(&self, message: &ToPeer) -> bool {
        match message {
            ToPeer::Known { key, serial, known } => {
                self.all(key, *serial, || Answer::Known(Box::new(known.clone())))
            }
            ToPeer::Direct { key, serial } => self.all(key, *serial, || Answer::Direct),
            ToPeer::Refused { key, serial, error } => {
                self.all(key, *serial, || Answer::Refused(error.clone()))
            }
            ToPeer::Learn { key, serial, stale } => {
                let stale = stale.as_ref();
                let stale = stale.map(|(task, meta)| (*task, Box::new(meta.clone())));
                let serial = *serial;
                self.one(key, serial, Answer::Learn { serial, stale })
            }
            _ => false,
        }
    }

    fn all(&self, key: &ResourceKey, serial: Serial, answer: impl Fn() -> Answer) -> bool {
        let answered = {
            let mut waiting = self.waiting.lock();
            let Some(line) = waiting.remove(key) else {
                return false;
            };
            let (answered, later): (VecDeque<_>, VecDeque<_>) =
                line.into_iter().partition(|(asked, _)| *asked <= serial);
            if !later.is_empty() {
                waiting.insert(*key, later);
            }
            answered
        };
        let mut any = false;
        for (_, tell) in answered {
            any |= tell.send(answer()).is_ok();
        }
        any
    }

    /// The reader that made the request learns; where it has gone, the first of the others. The origin is
    /// asked after this, so what it says is no older than any of their requests.
    fn one(&self, key: &ResourceKey, serial: Serial, mut answer: Answer) -> bool {
        let mut waiting = self.waiting.lock();
        let Some(line) = waiting.get_mut(key) else {
            return false;
        };
        if let Some(at) = line.iter().position(|(asked, _)| *asked == serial) {
            line.swap(0, at);
        }
        while let Some((_, tell)) = line.pop_front() {
            match tell.send(answer) {
                Ok(()) => {
                    if line.is_empty() {
                        waiting.remove(key);
                    }
                    return true;
                }
                Err(back) => answer = back,
            }
        }
        waiting.remove(key);
        false
    }

    /// The supernode is lost: nobody gets an answer.
    pub fn lost(&self) {
        for (_, line) in self.waiting.lock().drain() {
            for (_, tell) in line {
                let _ = tell.send(Answer::Lost);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pantala_core::Class;

    use super::*;

    fn key() -> ResourceKey {
        ResourceKey::of_url("http://origin.example/f", b"", Class::Anonymous)
    }

    fn direct(serial: u64) -> ToPeer {
        ToPeer::Direct {
            key: key(),
            serial: Serial::new(serial),
        }
    }

    fn learn(serial: u64) -> ToPeer {
        ToPeer::Learn {
            key: key(),
            serial: Serial::new(serial),
            stale: None,
        }
    }

    #[test]
    fn an_answer_is_for_the_request_that_it_names_and_those_before() {
        let waiting = Registrations::default();
        let [mut first, mut second, mut third] =
            [1, 2, 3].map(|serial| waiting.wait(key(), Serial::new(serial)));
        assert!(waiting.answer(&direct(2)));
        assert!(matches!(first.try_recv(), Ok(Answer::Direct)));
        assert!(matches!(second.try_recv(), Ok(Answer::Direct)));
        assert!(third.try_recv().is_err(), "it asked afterwards");
        assert!(!waiting.answer(&direct(2)), "nobody waits for that");
        assert!(waiting.answer(&direct(3)));
        assert!(matches!(third.try_recv(), Ok(Answer::Direct)));
    }

    #[test]
    fn waits_that_were_given_up_do_not_pile_up() {
        let waiting = Registrations::default();
        let url = |number: u64| format!("http://origin.example/{number}");
        let key = |number| ResourceKey::of_url(&url(number), b"", Class::Anonymous);
        let mut kept = waiting.wait(key(0), Serial::new(1));
        for number in 1..10_000 {
            drop(waiting.wait(key(number), Serial::new(1)));
        }
        assert!(waiting.waiting.lock().len() <= 2 * SWEEP_MIN);
        assert!(waiting.answer(&ToPeer::Direct {
            key: key(0),
            serial: Serial::new(1)
        }));
        assert!(matches!(kept.try_recv(), Ok(Answer::Direct)));
    }

    #[test]
    fn what_names_no_request_answers_nobody() {
        let waiting = Registrations::default();
        let mut told = waiting.wait(key(), Serial::NONE.next());
        assert!(!waiting.answer(&direct(Serial::NONE.get())));
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn who_asked_learns_and_where_it_has_gone_another() {
        let waiting = Registrations::default();
        let mut first = waiting.wait(key(), Serial::new(1));
        let mut second = waiting.wait(key(), Serial::new(2));
        assert!(waiting.answer(&learn(2)));
        assert!(matches!(second.try_recv(), Ok(Answer::Learn { .. })));
        assert!(first.try_recv().is_err());
        // Whose reader asked under another number says what it learns under the one that it was told.
        assert!(waiting.answer(&learn(7)));
        let Ok(Answer::Learn { serial, .. }) = first.try_recv() else {
            panic!("it learns in the other's place");
        };
        assert_eq!(serial, Serial::new(7));
        drop(waiting.wait(key(), Serial::new(8)));
        assert!(!waiting.answer(&learn(8)), "its reader has gone");
    }
}
