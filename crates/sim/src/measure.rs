//! Round trips that the supernode has hosts measure.

use std::time::Duration;

use pantala_core::control::{FromPeer, PeerAddr, RoundTrip};

use crate::{
    host::State,
    queue::{Happening, Index, Nanos},
    world::{World, index_of_peer},
};

/// How often the way is measured to who is not near, as the daemon does.
const TRIES: u32 = 3;
/// How long who does not answer is waited for.
const PATIENCE: Nanos = 1_000_000_000;

/// A measurement under way.
#[derive(Debug)]
pub(crate) struct Measuring {
    enough: Nanos,
    tries: u32,
    /// When the last answer comes that is waited for.
    ends: Nanos,
    /// Whom, and the least so far.
    least: Vec<(PeerAddr, Option<Nanos>)>,
}

impl World {
    pub(crate) fn measure(&mut self, host: Index, peers: Vec<PeerAddr>, enough: Duration) {
        let measuring = Measuring {
            enough: enough.as_nanos() as Nanos,
            tries: 0,
            ends: self.now,
            least: peers.into_iter().map(|peer| (peer, None)).collect(),
        };
        self.try_ways(host, Box::new(measuring));
    }

    /// Tries the ways to all, again when nobody has answered who is near enough.
    pub(crate) fn try_ways(&mut self, host: Index, mut measuring: Box<Measuring>) {
        if !self.hosts[host as usize].alive() {
            return;
        }
        let enough = measuring.enough;
        let near = |way: &(PeerAddr, Option<Nanos>)| way.1.is_some_and(|way| way <= enough);
        if measuring.tries == TRIES || measuring.least.iter().any(near) {
            let round_trip = |&(peer, least): &(PeerAddr, Option<Nanos>)| RoundTrip {
                peer: peer.id,
                took: least.map(Duration::from_nanos),
            };
            let round_trips = measuring.least.iter().map(round_trip).collect();
            self.report_to_swarm(host, FromPeer::RoundTrips { round_trips });
            return;
        }
        for (peer, least) in &mut measuring.least {
            let way = self.round_trip(host, index_of_peer(peer.id));
            let way = way.filter(|&way| way < PATIENCE);
            measuring.ends = measuring.ends.max(self.now + way.unwrap_or(PATIENCE));
            *least = way.into_iter().chain(*least).min();
        }
        measuring.tries += 1;
        let next = if measuring.least.iter().any(near) {
            // Others may be near as well; who is not is not waited for.
            let over = self.now + enough;
            for (_, least) in &mut measuring.least {
                *least = least.filter(|&way| self.now + way <= over);
            }
            measuring.ends.min(over)
        } else if measuring.tries < TRIES {
            self.now + enough
        } else {
            measuring.ends
        };
        self.queue.push(next, Happening::Tried { host, measuring });
    }

    /// How long a packet takes there and back now, with what queues hold; `None` where nobody is.
    fn round_trip(&self, from: Index, to: Index) -> Option<Nanos> {
        let (here, there) = (&self.hosts[from as usize], self.hosts.get(to as usize)?);
        // Who is frozen has a kernel that accepts connections.
        if matches!(there.state, State::Away | State::Dead) {
            return None;
        }
        let out = self.pipes.queued(here.zone, there.zone, self.now);
        let back = self.pipes.queued(there.zone, here.zone, self.now);
        // Of what an uplink sends one block at most is before it, half of one on average.
        let own = |busy: bool, pace: f64| match busy {
            true => (f64::from(self.scenario.block) * pace / 2.0) as Nanos,
            false => 0,
        };
        let up = own(here.up.busy, here.up.pace) + own(there.up.busy, there.up.pace);
        let down = |free: Nanos| free.saturating_sub(self.now);
        let queues = [here.up.lane, here.down, there.up.lane, there.down];
        let queued: Nanos = queues.iter().map(|lane| lane.backlog(self.now)).sum();
        Some(out + back + up + down(here.down_free) + down(there.down_free) + queued)
    }
}
