//! CUBIC (RFC 9438): the window grows until something is lost, then falls to 0.7 of it. It must not know of rates.

use super::{Ack, INITIAL, MSS};
use crate::queue::Nanos;

/// What is left of the window after a loss.
const BETA: f64 = 0.7;
/// Segments a second cubed.
const C: f64 = 0.4;
/// How much longer than the least a round trip must take to say that a queue has begun to fill.
const DELAY: (f64, f64) = (4e6, 16e6);

#[derive(Debug)]
pub(super) struct Cubic {
    window: f64,
    threshold: f64,
    /// Of the round that is under way: when it began, and its least round trip.
    round: (Nanos, Nanos),
    least_rtt: Nanos,
    /// Before the last loss.
    most: f64,
    /// When it began to grow after that, and from where.
    epoch: Option<(Nanos, f64)>,
    /// What the window of an older congestion control would be.
    reno: f64,
    /// What was sent before is not lost once more.
    recovers: Nanos,
}

impl Cubic {
    pub fn new(rtt: Nanos) -> Self {
        Self {
            window: INITIAL,
            threshold: f64::INFINITY,
            round: (0, Nanos::MAX),
            least_rtt: rtt.max(1),
            most: 0.0,
            epoch: None,
            reno: 0.0,
            recovers: 0,
        }
    }

    pub fn window(&self) -> f64 {
        self.window
    }

    /// Nothing was sent for so many times what is waited for an answer.
    pub fn rests(&mut self, timeouts: u64) {
        if timeouts > 0 {
            self.threshold = self.threshold.max(0.75 * self.window);
            let halved = self.window / 2f64.powi(timeouts.min(30) as i32);
            self.window = halved.max(INITIAL.min(self.window));
            self.epoch = None;
        }
    }

    pub fn acknowledged(&mut self, ack: &Ack) {
        self.least_rtt = self.least_rtt.min(ack.rtt);
        if ack.lost && ack.sent_at >= self.recovers {
            self.lost(ack.now);
            return;
        }
        // While it recovers, and while there is nothing to fill it with, the window stays.
        let begins = self.window < self.threshold;
        let used = ack.limited || (begins && ack.half_limited);
        if ack.sent_at < self.recovers || !used {
            return;
        }
        if begins {
            self.window += ack.bytes;
            self.find_queue(ack);
        } else {
            self.grow(ack);
        }
    }

    fn lost(&mut self, now: Nanos) {
        // Who has less than before the last loss makes room for others.
        self.most = match self.window < self.most {
            true => self.window * (1.0 + BETA) / 2.0,
            false => self.window,
        };
        self.window = (self.window * BETA).max(2.0 * MSS);
        self.threshold = self.window;
        self.epoch = None;
        self.recovers = now;
    }

    /// Ends the slow start when the round trips get longer (HyStart).
    fn find_queue(&mut self, ack: &Ack) {
        if ack.sent_at >= self.round.0 {
            self.round = (ack.now, Nanos::MAX);
        }
        self.round.1 = self.round.1.min(ack.rtt);
        let least = self.least_rtt as f64;
        let late = least + (least / 8.0).clamp(DELAY.0, DELAY.1);
        if self.window >= 16.0 * MSS && self.round.1 as f64 > late {
            self.threshold = self.window;
        }
    }

    fn grow(&mut self, ack: &Ack) {
        let (since, from) = match self.epoch {
            Some(epoch) => epoch,
            None => {
                self.reno = self.window;
                *self.epoch.insert((ack.now, self.window))
            }
        };
        let most = self.most.max(from);
        let back = ((most - from) / MSS / C).cbrt();
        // Where it would be a round trip from now.
        let ahead = (ack.now - since + self.least_rtt) as f64 / 1e9 - back;
        let target = most + C * ahead.powi(3) * MSS;
        let target = target.clamp(self.window, 1.5 * self.window);
        let alpha = 3.0 * (1.0 - BETA) / (1.0 + BETA);
        self.reno += alpha * MSS * ack.bytes / self.window;
        self.window += (target - self.window) * ack.bytes / self.window;
        self.window = self.window.max(self.reno);
    }
}
