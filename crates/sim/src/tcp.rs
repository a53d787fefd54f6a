//! What congestion control lets a connection have on its way: models of BBR (version 1) and CUBIC as Linux has them.
//! Plain machines: what was sent and acknowledged goes in, a window and a pace come out. They know neither hosts nor queues.

mod bbr;
mod cubic;

use crate::queue::Nanos;
use bbr::Bbr;
use cubic::Cubic;

/// Content in a full segment.
pub(crate) const MSS: f64 = 1448.0;
/// What a new connection may send before it has heard anything.
const INITIAL: f64 = 10.0 * MSS;

/// Which congestion control the hosts' kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// Sends at the rate that it has seen arrive, and minds no loss.
    Bbr,
    /// Grows its window until something is lost.
    Cubic,
}

/// What was known when something was sent, needed when it is acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub bytes: u32,
    pub at: Nanos,
    /// Some of it was lost on the way.
    pub lost: bool,
    /// Bytes that found a queue full: they will be sent again.
    pub dropped: u32,
    /// Bytes delivered before it, and when the last of them were.
    delivered: u64,
    delivered_at: Nanos,
    /// When what began this stretch without a pause was sent.
    first_at: Nanos,
    /// There was nothing more to send.
    app_limited: bool,
}

/// One connection's sending side.
#[derive(Debug)]
pub(crate) struct Tcp {
    delivered: u64,
    delivered_at: Nanos,
    first_at: Nanos,
    /// Samples say little of the way until so many bytes are delivered.
    app_limited: u64,
    /// Smoothed, in nanoseconds; 0 before the first.
    srtt: f64,
    last_sent: Nanos,
    /// The window was full, and half full, when so many bytes were to be delivered: only until then it may grow.
    filled: u64,
    half: u64,
    control: Control,
}

#[derive(Debug)]
enum Control {
    Bbr(Bbr),
    Cubic(Cubic),
}

impl Tcp {
    /// A connection whose handshake took `rtt`.
    pub fn new(cc: Congestion, rtt: Nanos, now: Nanos) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            first_at: now,
            app_limited: 0,
            srtt: rtt as f64,
            last_sent: now,
            filled: 0,
            half: 0,
            control: match cc {
                Congestion::Bbr => Control::Bbr(Bbr::new(rtt, now)),
                Congestion::Cubic => Control::Cubic(Cubic::new(rtt)),
            },
        }
    }

    /// Bytes that may be on their way.
    pub fn window(&self) -> f64 {
        match &self.control {
            Control::Bbr(bbr) => bbr.window(),
            Control::Cubic(cubic) => cubic.window(),
        }
    }

    /// Nanoseconds that have to lie between two bytes; 0 where nothing paces them.
    pub fn pace(&self) -> f64 {
        match &self.control {
            Control::Bbr(bbr) => bbr.pace(),
            Control::Cubic(_) => 0.0,
        }
    }

    pub fn srtt(&self) -> Nanos {
        self.srtt as Nanos
    }

    /// After a pause CUBIC does not know any more what the way carries.
    pub fn wakes(&mut self, now: Nanos) {
        // What Linux waits for an answer at least before it sends again.
        let timeout = self.srtt as Nanos + 200_000_000;
        let idle = now.saturating_sub(self.last_sent);
        if let Control::Cubic(cubic) = &mut self.control {
            cubic.rests(idle / timeout.max(1));
        }
    }

    /// Bytes go out; so many were on their way before, and `more` wait behind them.
    pub fn sends(&mut self, now: Nanos, bytes: u32, flying: u32, more: bool) -> Sent {
        if flying == 0 {
            (self.first_at, self.delivered_at) = (now, now);
        }
        self.last_sent = now;
        let out = self.delivered + u64::from(flying) + u64::from(bytes);
        if 2.0 * f64::from(flying + bytes) >= self.window() {
            self.half = out;
        }
        if !more {
            self.app_limited = out;
        }
        Sent {
            bytes,
            at: now,
            lost: false,
            dropped: 0,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_at: self.first_at,
            app_limited: self.app_limited >= self.delivered,
        }
    }

    /// There is more to send than the window lets go.
    pub fn fills(&mut self, flying: u32) {
        self.filled = self.delivered + u64::from(flying);
    }

    /// Something is acknowledged; so many bytes are still on their way.
    pub fn acknowledged(&mut self, now: Nanos, sent: &Sent, flying: u32) {
        let came = sent.bytes - sent.dropped;
        self.delivered += u64::from(came);
        self.delivered_at = now;
        self.first_at = sent.at;
        let rtt = now.saturating_sub(sent.at).max(1);
        self.srtt += (rtt as f64 - self.srtt) / if self.srtt == 0.0 { 1.0 } else { 8.0 };
        let interval = (now - sent.delivered_at).max(sent.at - sent.first_at);
        let ack = Ack {
            now,
            bytes: f64::from(came),
            dropped: f64::from(sent.dropped),
            sent_at: sent.at,
            rtt,
            rate: (self.delivered - sent.delivered) as f64 / interval.max(1) as f64,
            app_limited: sent.app_limited,
            before: sent.delivered,
            delivered: self.delivered,
            flying: f64::from(flying),
            lost: sent.lost,
            limited: sent.delivered <= self.filled,
            half_limited: sent.delivered <= self.half,
        };
        match &mut self.control {
            Control::Bbr(bbr) => bbr.acknowledged(&ack),
            Control::Cubic(cubic) => cubic.acknowledged(&ack),
        }
    }
}

/// What an acknowledgement says.
#[derive(Debug)]
struct Ack {
    now: Nanos,
    bytes: f64,
    dropped: f64,
    sent_at: Nanos,
    rtt: Nanos,
    /// Bytes a nanosecond that were delivered since before it was sent.
    rate: f64,
    app_limited: bool,
    /// Bytes delivered before it was sent, and now.
    before: u64,
    delivered: u64,
    /// Bytes on their way now.
    flying: f64,
    lost: bool,
    /// The window was what limited.
    limited: bool,
    /// At least half of it was used.
    half_limited: bool,
}
