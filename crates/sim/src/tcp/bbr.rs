//! BBR, version 1: what arrives a second and the least round trip say how much may be on its way. It must not know of loss.

use std::collections::VecDeque;

use super::{Ack, INITIAL, MSS};
use crate::queue::Nanos;

/// 2 / ln 2: enough to double what is sent in each round trip.
const HIGH: f64 = 2.885;
/// The rate is probed for more in one of eight round trips, and what that left in a queue drains in the next.
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
/// Round trips for which a rate counts.
const ROUNDS: u64 = 10;
/// How long a least round trip counts before it is looked for anew, and how long that takes.
const OLD: Nanos = 10_000_000_000;
const LOOK: Nanos = 200_000_000;

#[derive(Debug)]
pub(super) struct Bbr {
    window: f64,
    state: State,
    round: u64,
    round_ends: u64,
    /// The greatest rates of the last rounds: bytes a nanosecond, falling.
    rates: VecDeque<(u64, f64)>,
    least_rtt: Nanos,
    least_at: Nanos,
    /// The rate that was there when it last grew by a quarter, and for how many rounds it has not.
    full: f64,
    full_rounds: u32,
    /// What the window was before the round trip was looked for.
    prior: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Startup,
    Drain,
    /// Which phase of the cycle, since when.
    Probe(usize, Nanos),
    /// Until when; whether the pipe had been found full before.
    Look(Nanos, bool),
}

impl Bbr {
    pub fn new(rtt: Nanos, now: Nanos) -> Self {
        Self {
            window: INITIAL,
            state: State::Startup,
            round: 0,
            round_ends: 0,
            rates: VecDeque::new(),
            least_rtt: rtt.max(1),
            least_at: now,
            full: 0.0,
            full_rounds: 0,
            prior: 0.0,
        }
    }

    pub fn window(&self) -> f64 {
        match self.state {
            State::Look(..) => 4.0 * MSS,
            _ => self.window,
        }
    }

    pub fn pace(&self) -> f64 {
        1.0 / (self.gains().0 * self.rate()).max(1e-12)
    }

    fn rate(&self) -> f64 {
        match self.rates.front() {
            Some(&(_, rate)) => rate,
            None => INITIAL / self.least_rtt as f64,
        }
    }

    /// Of the pace, of the window.
    fn gains(&self) -> (f64, f64) {
        match self.state {
            State::Startup => (HIGH, HIGH),
            State::Drain => (1.0 / HIGH, HIGH),
            State::Probe(phase, _) => (CYCLE[phase], 2.0),
            State::Look(..) => (1.0, 1.0),
        }
    }

    /// What the way holds when its queues are empty.
    fn held(&self) -> f64 {
        self.rate() * self.least_rtt as f64
    }

    pub fn acknowledged(&mut self, ack: &Ack) {
        let round_begins = ack.before >= self.round_ends;
        if round_begins {
            self.round_ends = ack.delivered;
            self.round += 1;
        }
        let most = self.rates.front().map_or(0.0, |&(_, rate)| rate);
        if !ack.app_limited || ack.rate >= most {
            while self.rates.back().is_some_and(|&(_, rate)| rate <= ack.rate) {
                self.rates.pop_back();
            }
            self.rates.push_back((self.round, ack.rate));
        }
        while self.rates.len() > 1
            && self
                .rates
                .front()
                .is_some_and(|&(of, _)| of + ROUNDS <= self.round)
        {
            self.rates.pop_front();
        }
        self.look(ack);
        self.turn(ack, round_begins);
        // Three bursts of what is handed to the link at once, a millisecond's worth each, on top.
        let burst = (self.rate() * 1e6).clamp(2.0 * MSS, 65536.0);
        let target = self.gains().1 * self.held() + 3.0 * burst;
        self.window = match self.state {
            State::Startup if self.window >= target => self.window,
            State::Startup => self.window + ack.bytes,
            _ => (self.window + ack.bytes).min(target),
        };
        if ack.dropped > 0.0 {
            // For a round trip no more goes out than comes in.
            self.window = (self.window - ack.dropped).max(ack.flying + ack.bytes);
        }
        self.window = self.window.max(4.0 * MSS);
    }

    /// The least round trip, and whether it has to be looked for.
    fn look(&mut self, ack: &Ack) {
        let old = ack.now > self.least_at + OLD;
        if ack.rtt <= self.least_rtt || old {
            (self.least_rtt, self.least_at) = (ack.rtt, ack.now);
        }
        match self.state {
            State::Look(until, full) if ack.now >= until => {
                self.least_at = ack.now;
                self.window = self.window.max(self.prior);
                self.state = match full {
                    true => State::Probe(2, ack.now),
                    false => State::Startup,
                };
            }
            State::Look(..) => {}
            _ if old => {
                self.prior = self.window;
                let full = self.full_rounds >= 3;
                self.state = State::Look(ack.now + LOOK.max(ack.rtt), full);
            }
            _ => {}
        }
    }

    fn turn(&mut self, ack: &Ack, round_begins: bool) {
        if self.state == State::Startup && round_begins && !ack.app_limited {
            if self.rate() >= self.full * 1.25 {
                (self.full, self.full_rounds) = (self.rate(), 0);
            } else {
                self.full_rounds += 1;
            }
            if self.full_rounds >= 3 {
                self.state = State::Drain;
            }
        }
        match self.state {
            State::Drain if ack.flying <= self.held() => self.state = State::Probe(2, ack.now),
            State::Probe(phase, since) => {
                let over = ack.now - since > self.least_rtt;
                let full = || ack.lost || ack.flying >= CYCLE[0] * self.held();
                let next = match phase {
                    0 => over && full(),
                    1 => over || ack.flying <= self.held(),
                    _ => over,
                };
                if next {
                    self.state = State::Probe((phase + 1) % CYCLE.len(), ack.now);
                }
            }
            _ => {}
        }
    }
}
