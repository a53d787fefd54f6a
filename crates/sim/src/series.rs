//! Figures over time, for plots.

use crate::{
    queue::{Happening, Nanos},
    world::World,
};

/// What was so at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Seconds since the start.
    pub at: f64,
    /// Bytes that the origin had sent.
    pub origin_bytes: u64,
    /// Readers that were done.
    pub done: u64,
    /// The window sizes' median, in pieces; 0 where nobody reads.
    pub window_p50: u32,
    /// What 95 % of the window sizes were at most.
    pub window_p95: u32,
}

/// Samples at growing distances: always a few hundred.
#[derive(Debug)]
pub(crate) struct Series {
    samples: Vec<Sample>,
    pause: Nanos,
}

/// More samples than this are thinned out.
const SAMPLES_MAX: usize = 512;
/// Windows that are looked at for one sample.
const WINDOWS_MAX: usize = 512;

impl Default for Series {
    fn default() -> Self {
        Self {
            samples: Vec::new(),
            pause: 5_000_000,
        }
    }
}

impl Series {
    /// Takes a sample in; says how long until the next.
    fn push(&mut self, sample: Sample) -> Nanos {
        self.samples.push(sample);
        if self.samples.len() >= SAMPLES_MAX {
            let mut number = 0;
            self.samples.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.pause *= 2;
        }
        self.pause
    }

    pub fn finish(self) -> Vec<Sample> {
        self.samples
    }
}

impl World {
    pub(crate) fn sample(&mut self) {
        let reading: Vec<_> = self
            .seats
            .iter()
            .filter(|seat| seat.alive && !seat.readers.is_empty())
            .collect();
        let step = reading.len().div_ceil(WINDOWS_MAX).max(1);
        let snapshots = reading.iter().step_by(step);
        let snapshots = snapshots.filter_map(|seat| Some(seat.picker.as_ref()?.snapshot()));
        let mut windows: Vec<u32> = snapshots
            .flat_map(|snapshot| snapshot.windows.into_iter().map(|window| window.2))
            .collect();
        windows.sort_unstable();
        let quantile = |part: f64| {
            let at = (part * windows.len() as f64).ceil() as usize;
            windows.get(at.saturating_sub(1)).copied().unwrap_or(0)
        };
        let done = |visit: &&crate::world::Visit| visit.report.last_byte.is_some();
        let sample = Sample {
            at: self.now as f64 / 1e9,
            origin_bytes: self.origin_bytes,
            done: self.visits.iter().filter(done).count() as u64,
            window_p50: quantile(0.5),
            window_p95: quantile(0.95),
        };
        let pause = self.series.push(sample);
        self.after(pause, Happening::Sample);
    }
}
