use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up on it: a slow machine under load must not
/// fail a test.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Waits until `ready` gives something.
///
/// # Panics
/// When it has not done so by [`DEADLINE`]; `what` says what was waited for.
pub fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        sleep(Duration::from_millis(5));
    }
}
