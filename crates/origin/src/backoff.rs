use std::time::Duration;

/// The longest pause between two attempts of our own choosing.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// The longest pause that an origin can impose with `Retry-After` before an answer has begun. A
/// longer one is the client's to keep: it is told so at once, and can do something else meanwhile.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The longest pause that an origin can impose within an answer, of which the client has a part
/// already. After a longer one the answer breaks off: to ask earlier would be against its word.
pub(crate) const PAUSE_WITHIN_MAX: Duration = Duration::from_secs(10);

/// How long to pause after the `failures`-th failure in a row (from 1). Never shorter than what
/// `Retry-After` asks for.
///
/// Half of the rest is random, so that peers that lost the same origin at once do not come back at
/// once.
pub(crate) fn pause(first: Duration, failures: u32, retry_after: Option<Duration>) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = first.saturating_mul(1 << doublings).min(MAX_BACKOFF);
    let jittered = full.mul_f64(rand::random_range(0.5..=1.0));
    match retry_after {
        Some(asked) => asked.max(jittered),
        None => jittered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_bounds() {
        let first = Duration::from_millis(100);
        for (failures, full) in [(1, 100), (2, 200), (4, 800), (7, 5000), (u32::MAX, 5000)] {
            let full = Duration::from_millis(full);
            let pause = pause(first, failures, None);
            assert!(full / 2 <= pause && pause <= full, "{failures}: {pause:?}");
        }
    }

    #[test]
    fn an_origin_is_not_asked_earlier_than_it_said() {
        let ask = |seconds| pause(Duration::ZERO, 1, Some(Duration::from_secs(seconds)));
        assert_eq!(ask(1), Duration::from_secs(1));
        assert_eq!(ask(9), Duration::from_secs(9));
    }
}
