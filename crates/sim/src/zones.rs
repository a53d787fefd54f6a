//! Data centres: between two of them all traffic shares one link.

use crate::{
    Scenario,
    queue::{Index, Nanos},
    world::World,
};

/// The way from one zone to another.
#[derive(Debug, Clone)]
struct Pipe {
    /// Nanoseconds a byte; 0 where nothing limits it.
    pace: f64,
    latency: Nanos,
    /// Until when it is taken.
    free: Nanos,
    carried: u64,
}

/// The ways between all zones.
#[derive(Debug)]
pub(crate) struct Pipes {
    zones: usize,
    pipes: Vec<Pipe>,
}

impl Pipes {
    pub fn new(scenario: &Scenario) -> Self {
        let zones = scenario.zones();
        let open = Pipe {
            pace: 0.0,
            latency: scenario.latency.as_nanos() as Nanos,
            free: 0,
            carried: 0,
        };
        let mut pipes = Self {
            zones,
            pipes: vec![open; zones * zones],
        };
        for between in &scenario.between {
            let (a, b) = between.zones;
            for (from, to) in [(a, b), (b, a)] {
                let pipe = &mut pipes.pipes[from * zones + to];
                pipe.pace = 8e9 / between.rate;
                pipe.latency = between.latency.as_nanos() as Nanos;
            }
        }
        pipes
    }

    /// Bytes that went from one zone to another.
    pub fn carried(&self) -> u64 {
        self.pipes.iter().map(|pipe| pipe.carried).sum()
    }

    fn pipe(&self, from: u32, to: u32) -> &Pipe {
        &self.pipes[from as usize * self.zones + to as usize]
    }

    pub fn latency(&self, from: u32, to: u32) -> Nanos {
        self.pipe(from, to).latency
    }

    /// How long a packet takes that finds what waits at `now` before it.
    pub fn queued(&self, from: u32, to: u32, now: Nanos) -> Nanos {
        let pipe = self.pipe(from, to);
        pipe.latency + pipe.free.saturating_sub(now)
    }

    /// When a block that starts at `now` and leaves its sender at `sent` is through.
    pub fn through(&mut self, from: u32, to: u32, now: Nanos, sent: Nanos, bytes: u32) -> Nanos {
        if from == to {
            return sent;
        }
        let pipe = &mut self.pipes[from as usize * self.zones + to as usize];
        pipe.carried += u64::from(bytes);
        if pipe.pace == 0.0 {
            return sent;
        }
        let took = (f64::from(bytes) * pipe.pace).ceil() as Nanos;
        pipe.free = pipe.free.max(now) + took;
        sent.max(pipe.free)
    }
}

impl World {
    /// How much a flow may have on its way: two blocks and what the latency holds.
    pub(crate) fn window(&self, from: u32, up_pace: f64, receiver: Index) -> u32 {
        let receiver = &self.hosts[receiver as usize];
        let pipe = self.pipes.pipe(from, receiver.zone);
        let pace = up_pace.max(receiver.down_pace).max(pipe.pace);
        let held = 2.0 * pipe.latency as f64 / pace;
        2 * self.scenario.block + held as u32
    }

    /// When a block that leaves its sender at `sent` has come in: the way between zones and the
    /// receiver's downlink take it after what already waits there, and as it comes.
    pub(crate) fn through(
        &mut self,
        from: u32,
        receiver: Index,
        latency: Nanos,
        sent: Nanos,
        bytes: u32,
    ) -> Nanos {
        let receiver = &mut self.hosts[receiver as usize];
        let taken = (f64::from(bytes) * receiver.down_pace).ceil() as Nanos;
        receiver.down_free = receiver.down_free.max(self.now) + taken;
        let down = receiver.down_free;
        let through = self
            .pipes
            .through(from, receiver.zone, self.now, sent, bytes);
        through.max(down) + latency
    }
}
