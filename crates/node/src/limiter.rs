//! Bounds on bytes a second.
//!
//! One number is the whole state of a limiter: when its bucket would be full again. Nothing refills
//! it, so nothing is rounded away and no timer runs while there is enough; who waits has a place in
//! line from the moment it asks, and gives back what it does not use.

use std::{sync::Arc, time::Duration};

use pantala_core::BLOCK_MAX;
use parking_lot::Mutex;
use tokio::time::Instant;

/// A token bucket: in any `t` seconds no more than `burst + rate × t` bytes are let through.
#[derive(Debug)]
pub(crate) struct Limiter {
    /// Bytes a second, never 0.
    rate: u64,
    /// What may be let through at once after a rest, in bytes.
    burst: u64,
    start: Instant,
    /// When the bucket will be full, in nanoseconds since the start.
    full_at: Mutex<u64>,
}

/// The steps bytes are let through in, at least so many a second: who waits for them sees that
/// they come, also where a dozen share a limit.
const STEPS: u64 = 100;
/// No smaller steps: each costs a frame and a system call or two.
const STEP_MIN: u64 = 512;
/// What of a second's bytes may come at once: so late may a timer be and nothing is lost.
const BURST: u64 = 20;

impl Limiter {
    pub fn new(rate: u64, now: Instant) -> Self {
        let rate = rate.max(1);
        Self {
            rate,
            burst: step(rate).max(rate / BURST),
            start: now,
            full_at: Mutex::new(0),
        }
    }

    /// How many bytes to ask for at once, at most [`BLOCK_MAX`].
    pub fn step(&self) -> usize {
        step(self.rate) as usize
    }

    /// A place in line for so many bytes.
    pub fn reserve(self: &Arc<Self>, now: Instant, bytes: usize) -> Reservation {
        let cost = self.cost(bytes);
        let mut full_at = self.full_at.lock();
        *full_at = self.since_start(now).max(*full_at) + cost;
        Reservation {
            at: self.leave_at(*full_at),
            limiter: self.clone(),
            cost,
        }
    }

    /// When so many bytes may go, if nobody comes before.
    pub fn when(&self, now: Instant, bytes: usize) -> Instant {
        let full_at = *self.full_at.lock();
        self.leave_at(self.since_start(now).max(full_at) + self.cost(bytes))
    }

    /// The time that so many bytes take, rounded up.
    fn cost(&self, bytes: usize) -> u64 {
        let nanos = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(self.rate));
        u64::try_from(nanos).unwrap_or(u64::MAX / 2)
    }

    /// When the last byte of what fills the bucket at `full_at` may go.
    fn leave_at(&self, full_at: u64) -> Instant {
        let ahead = self.cost(self.burst as usize);
        self.start + Duration::from_nanos(full_at.saturating_sub(ahead))
    }

    fn since_start(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_nanos() as u64
    }
}

fn step(rate: u64) -> u64 {
    let least = STEP_MIN.min(rate);
    (rate / STEPS).clamp(least, BLOCK_MAX as u64)
}

/// A place in line. Dropped before it was used, its bytes are others'.
#[derive(Debug)]
pub(crate) struct Reservation {
    limiter: Arc<Limiter>,
    cost: u64,
    /// When the bytes may go.
    pub at: Instant,
}

impl Reservation {
    /// The bytes go.
    pub fn use_up(mut self) {
        self.cost = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.cost > 0 {
            let mut full_at = self.limiter.full_at.lock();
            *full_at = full_at.saturating_sub(self.cost);
        }
    }
}

/// The limits that some bytes are under, one after the other. Without any it costs nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits([Option<Arc<Limiter>>; 2]);

impl Limits {
    /// Under the narrower first, so that nobody has a place in line at the wider one who cannot
    /// use it.
    pub fn new(narrow: Option<Arc<Limiter>>, wide: Option<Arc<Limiter>>) -> Self {
        Self([narrow, wide])
    }

    pub fn is_none(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// How many bytes to ask for at once.
    pub fn step(&self) -> usize {
        let steps = self.0.iter().flatten().map(|limiter| limiter.step());
        steps.min().unwrap_or(BLOCK_MAX)
    }

    /// Waits until so many bytes may go. Cancel-safe: whoever stops waiting has taken nothing.
    pub async fn pass(&self, bytes: usize) {
        for limiter in self.0.iter().flatten() {
            let place = limiter.reserve(Instant::now(), bytes);
            if place.at > Instant::now() {
                tokio::time::sleep_until(place.at).await;
            }
            place.use_up();
        }
    }
}

/// Bytes on their way through [`Limits`], for who has other things to do meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Passage {
    bytes: usize,
    /// Limits that are behind them.
    passed: usize,
    place: Option<Reservation>,
}

impl Passage {
    /// Bytes that it is for; 0 when it has not begun.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Goes on with the passage of `bytes`, which must stay the same until it is over, and says
    /// when to come again if they may not go yet.
    pub fn go_on(&mut self, limits: &Limits, now: Instant, bytes: usize) -> Result<(), Instant> {
        self.bytes = bytes;
        for (at, limiter) in limits.0.iter().enumerate().skip(self.passed) {
            if let Some(limiter) = limiter {
                let place = self.place.take();
                let place = place.unwrap_or_else(|| limiter.reserve(now, bytes));
                if place.at > now {
                    let again = place.at;
                    self.place = Some(place);
                    return Err(again);
                }
                place.use_up();
            }
            self.passed = at + 1;
        }
        Ok(())
    }

    /// As [`Passage::go_on`] for bytes that everybody else's go before: they have no place in
    /// line, and take what nobody else wants now.
    pub fn give_way(&mut self, limits: &Limits, now: Instant, bytes: usize) -> Result<(), Instant> {
        self.place = None;
        let unpassed = limits.0.iter().skip(self.passed).flatten();
        let at = unpassed.map(|limiter| limiter.when(now, bytes)).max();
        match at.filter(|&at| at > now) {
            Some(again) => {
                self.bytes = bytes;
                Err(again)
            }
            None => self.go_on(limits, now, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn limiter(rate: u64) -> (Arc<Limiter>, Instant) {
        let now = Instant::now();
        (Arc::new(Limiter::new(rate, now)), now)
    }

    #[test]
    fn after_a_burst_bytes_come_at_the_rate_exactly() {
        let (limiter, now) = limiter(MIB);
        let burst = (MIB / BURST) as usize;
        let first = limiter.reserve(now, burst);
        assert!(first.at <= now, "a burst passes at once");
        first.use_up();
        for second in 1..=10 {
            let place = limiter.reserve(now, MIB as usize);
            let waited = place.at - now;
            let late = waited.abs_diff(Duration::from_secs(second));
            assert!(late < Duration::from_nanos(100), "{waited:?}");
            place.use_up();
        }
    }

    #[test]
    fn no_window_of_time_sees_more_than_burst_and_rate() {
        for rate in [1, 100, 5_000, MIB, 300 * MIB, 10_000 * MIB] {
            let (limiter, start) = limiter(rate);
            let (mut now, mut sent) = (start, Vec::new());
            for round in 0..400u64 {
                // Who asks rests now and then: the bucket fills up, and no further.
                if round % 40 == 39 {
                    now += Duration::from_secs(3);
                }
                let place = limiter.reserve(now, limiter.step());
                now = now.max(place.at);
                place.use_up();
                sent.push((now, limiter.step() as u64));
            }
            for from in (0..sent.len()).step_by(7) {
                let mut bytes = 0;
                for &(at, len) in &sent[from..] {
                    bytes += len;
                    let nanos = (at - sent[from].0).as_nanos();
                    let most = u128::from(limiter.burst)
                        + (u128::from(rate) * nanos).div_ceil(1_000_000_000);
                    // Two nanoseconds' bytes: instants are no finer.
                    let most = most + u128::from(rate / 500_000_000) + 2;
                    assert!(
                        u128::from(bytes) <= most,
                        "{bytes} of {most} at rate {rate}"
                    );
                }
            }
        }
    }

    #[test]
    fn who_leaves_the_line_has_taken_nothing() {
        let (limiter, now) = limiter(MIB);
        limiter.reserve(now, limiter.burst as usize).use_up();
        let before = limiter.when(now, 1000);
        let left = limiter.reserve(now, MIB as usize);
        assert!(limiter.when(now, 1000) > before + Duration::from_millis(900));
        drop(left);
        assert_eq!(limiter.when(now, 1000), before);
    }

    #[test]
    fn steps_are_even_and_fit_a_block() {
        for (rate, expected) in [
            (1, 1),
            (1000, 512),
            (MIB, MIB / 100),
            (100 * MIB, BLOCK_MAX as u64),
        ] {
            let (limiter, _) = limiter(rate);
            assert_eq!(limiter.step() as u64, expected, "{rate}");
            assert!(limiter.burst >= expected);
        }
    }

    #[test]
    fn bytes_pass_both_limits_in_turn() {
        let ((narrow, now), (wide, _)) = (limiter(MIB), limiter(2 * MIB));
        let limits = Limits::new(Some(narrow.clone()), Some(wide.clone()));
        assert!(!limits.is_none() && Limits::default().is_none());
        narrow.reserve(now, narrow.burst as usize).use_up();
        let (full, bytes) = (wide.when(now, 1), limits.step());
        let mut passage = Passage::default();
        let again = passage.go_on(&limits, now, bytes).unwrap_err();
        assert_eq!(wide.when(now, 1), full, "no place where it is of no use");
        assert_eq!(passage.go_on(&limits, now, bytes), Err(again));
        assert_eq!(passage.go_on(&limits, again, bytes), Ok(()));
        assert!(wide.when(again, wide.burst as usize) > again);
    }

    #[test]
    fn who_gives_way_has_no_place_in_line() {
        let (limiter, now) = limiter(MIB);
        let limits = Limits::new(None, Some(limiter.clone()));
        limiter.reserve(now, limiter.burst as usize).use_up();
        let (mut first, mut last) = (Passage::default(), Passage::default());
        let free = last.give_way(&limits, now, 1000).unwrap_err();
        let at = first.go_on(&limits, now, 1000).unwrap_err();
        assert_eq!(at, free, "as if the other had not asked");
        assert!(
            last.give_way(&limits, at, 1000).is_err(),
            "its turn is not yet"
        );
        assert_eq!(first.go_on(&limits, at, 1000), Ok(()));
        let later = last.give_way(&limits, at, 1000).unwrap_err();
        assert_eq!(last.give_way(&limits, later, 1000), Ok(()));
    }
}
