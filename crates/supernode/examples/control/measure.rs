//! Times in a fixed amount of memory, and what a phase reports.

use std::{
    fs,
    io::{BufRead as _, Write as _, stdin, stdout},
    time::Duration,
};

use serde_json::{Value, json};

/// Steps between two powers of two: a quantile is right to 3 %.
const STEPS: u32 = 32;

/// How often which time was taken. Its size does not depend on how many were.
pub struct Times {
    counts: Vec<u64>,
    count: u64,
    sum: u64,
    worst: u64,
}

impl Times {
    /// No times yet.
    pub fn new() -> Self {
        Self {
            counts: vec![0; (65 * STEPS) as usize],
            count: 0,
            sum: 0,
            worst: 0,
        }
    }

    /// One more.
    pub fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let power = 64 - nanos.leading_zeros();
        let below = 1_u64 << power.saturating_sub(1);
        let step = u128::from(nanos.saturating_sub(below)) * u128::from(STEPS) / u128::from(below);
        self.counts[(power * STEPS) as usize + step as usize] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(nanos);
        self.worst = self.worst.max(nanos);
    }

    /// In microseconds; null where there are none.
    pub fn report(&self) -> Value {
        if self.count == 0 {
            return Value::Null;
        }
        let micros = |nanos: u64| nanos as f64 / 1e3;
        json!({
            "count": self.count,
            "mean_us": micros(self.sum) / self.count as f64,
            "p50_us": micros(self.quantile(0.5)),
            "p99_us": micros(self.quantile(0.99)),
            "worst_us": micros(self.worst),
        })
    }

    fn quantile(&self, share: f64) -> u64 {
        let rank = (share * self.count as f64) as u64;
        let mut seen = 0;
        for (at, &count) in self.counts.iter().enumerate() {
            seen += count;
            if seen > rank {
                let (power, step) = (at as u32 / STEPS, u64::from(at as u32 % STEPS));
                let below = 1_u64 << power.saturating_sub(1);
                return (below + below / u64::from(STEPS) * step).min(self.worst);
            }
        }
        self.worst
    }
}

/// Waits for a line of standard input: how long the next phase may take. `None` when there is to be no other.
pub fn allowed() -> Option<Duration> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).ok()?;
    line.trim().parse().ok().map(Duration::from_secs_f64)
}

/// Prints what a phase measured, in one line.
pub fn report(phase: &str, mut figures: Value) {
    figures["phase"] = phase.into();
    figures["rss"] = resident().into();
    let mut out = stdout().lock();
    let _ = writeln!(out, "{figures}").and_then(|()| out.flush());
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    // The only page size of the machines that this is run on.
    pages.unwrap_or_default() * 4096
}
