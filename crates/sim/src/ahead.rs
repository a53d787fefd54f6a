//! What the next happenings will read is brought into the processor's cache while those before them
//! happen: a large swarm is gigabytes read at random, and most of its time would be waiting.
//!
//! It takes several steps, each of which reads what the one before has brought. None of them
//! changes anything.

use crate::{
    queue::{Happening, Index},
    seat::Seat,
    world::World,
};

/// How many happenings lie between one step and the next.
const STEP: usize = 8;

/// Asks for the line of memory that `at` lies in.
fn bring(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it reads nothing that can be seen and faults at no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The same for all that a value takes.
fn bring_all<T>(value: &T) {
    let at = std::ptr::from_ref(value).cast::<u8>();
    for line in 0..size_of::<T>().div_ceil(64) {
        bring(at.wrapping_add(line * 64));
    }
}

/// What a happening is about.
#[derive(Clone, Copy)]
enum About {
    Host(Index),
    /// What its receiver does.
    Child(Index),
    /// What its sender does.
    Parent(Index),
    Seat(Index),
    Nothing,
}

fn about(what: &Happening) -> About {
    match what {
        Happening::Sent { host: Some(host) }
        | Happening::ToPeer { host, .. }
        | Happening::ToSwarm { host, .. } => About::Host(*host),
        Happening::Block { link, .. }
        | Happening::Whole { link, .. }
        | Happening::News { link }
        | Happening::Refused { link, .. } => About::Child(*link),
        Happening::Want { link, .. } | Happening::Unwant { link, .. } => About::Parent(*link),
        Happening::PickerTick { seat }
        | Happening::Announce { seat }
        | Happening::Taken { seat, .. }
        | Happening::Have { seat }
        | Happening::Progress { seat } => About::Seat(*seat),
        _ => About::Nothing,
    }
}

impl World {
    /// To be called before each happening.
    pub(crate) fn look_ahead(&self) {
        if let Some(what) = self.queue.ahead(5 * STEP) {
            self.bring_sender(what);
        }
        if let Some(what) = self.queue.ahead(4 * STEP) {
            self.bring_first(what);
        }
        if let Some(what) = self.queue.ahead(3 * STEP) {
            self.bring_second(what);
        }
        if let Some(what) = self.queue.ahead(2 * STEP) {
            self.bring_third(what);
        }
        if let Some(what) = self.queue.ahead(STEP) {
            self.bring_fourth(what);
        }
    }

    /// Whoever sends next, which is one step further off than all else: its connection leads to what it sends.
    fn bring_sender(&self, what: &Happening) {
        if let Happening::Sent { host: Some(host) } = what {
            bring_all(&self.hosts[*host as usize]);
        }
    }

    /// What an uplink will send on next.
    fn next_conn_of(&self, host: Index) -> Option<Index> {
        self.hosts[host as usize].up.ring.front().copied()
    }

    /// The thing that it is about.
    fn bring_first(&self, what: &Happening) {
        match about(what) {
            About::Host(host) => match what {
                Happening::Sent { .. } => {
                    let ring = &self.hosts[host as usize].up.ring;
                    ring.iter()
                        .take(1)
                        .for_each(|next| bring(std::ptr::from_ref(next).cast()));
                }
                _ => bring_all(&self.hosts[host as usize]),
            },
            About::Child(link) | About::Parent(link) => bring_all(&self.links[link as usize]),
            About::Seat(seat) => bring_all(&self.seats[seat as usize]),
            About::Nothing => {}
        }
        match what {
            Happening::ToPeer { message, .. } => bring(std::ptr::from_ref(&**message).cast()),
            Happening::ToSwarm { message, .. } => bring(std::ptr::from_ref(&**message).cast()),
            _ => {}
        }
    }

    /// What that is part of.
    fn bring_second(&self, what: &Happening) {
        match about(what) {
            About::Host(host) => {
                let host = &self.hosts[host as usize];
                bring(host.seats.as_ptr().cast());
                if let (Happening::Sent { .. }, Some(&next)) = (what, host.up.ring.front()) {
                    bring_all(&self.conns[next as usize]);
                }
            }
            About::Child(link) => {
                let link = &self.links[link as usize];
                bring_all(&self.seats[link.child as usize]);
                bring_all(&self.hosts[link.sender as usize]);
                bring_all(&self.hosts[link.receiver as usize]);
                bring_all(&self.seats[link.parent as usize]);
                bring_all(&self.conns[link.conn as usize]);
            }
            About::Parent(link) => {
                let link = &self.links[link as usize];
                bring_all(&self.seats[link.parent as usize]);
                bring_all(&self.hosts[link.sender as usize]);
            }
            About::Seat(seat) => self.bring_seat(&self.seats[seat as usize]),
            About::Nothing => {}
        }
    }

    fn bring_third(&self, what: &Happening) {
        match about(what) {
            About::Host(host) => {
                if let (Happening::Sent { .. }, Some(conn)) = (what, self.next_conn_of(host)) {
                    let line = &self.conns[conn as usize].line;
                    bring(line.as_ptr().cast());
                }
                let host = &self.hosts[host as usize];
                if let Some((_, seat)) = host.seats.first() {
                    bring_all(&self.seats[*seat as usize]);
                }
            }
            About::Child(link) => {
                let link = &self.links[link as usize];
                self.bring_seat(&self.seats[link.child as usize]);
                if let Some(next) = self.hosts[link.sender as usize].up.ring.front() {
                    bring(std::ptr::from_ref(next).cast());
                }
            }
            About::Parent(link) => {
                let link = &self.links[link as usize];
                self.bring_seat(&self.seats[link.parent as usize]);
            }
            About::Seat(seat) => {
                let seat = &self.seats[seat as usize];
                if let Some(picker) = &seat.picker {
                    picker.places(bring);
                }
                bring_all(&self.hosts[seat.host as usize]);
            }
            About::Nothing => {}
        }
    }

    fn bring_fourth(&self, what: &Happening) {
        match about(what) {
            About::Host(host) => {
                if let (Happening::Sent { .. }, Some(conn)) = (what, self.next_conn_of(host)) {
                    let conn = &self.conns[conn as usize];
                    bring_all(&self.hosts[conn.receiver as usize]);
                    if let Some(turn) = conn.line.first() {
                        bring_all(&self.links[turn.link as usize]);
                    }
                }
                let host = &self.hosts[host as usize];
                if let (Happening::ToPeer { .. }, Some((_, seat))) = (what, host.seats.first()) {
                    self.bring_seat(&self.seats[*seat as usize]);
                }
            }
            About::Child(link) => {
                let link = &self.links[link as usize];
                if let Some(picker) = &self.seats[link.child as usize].picker {
                    picker.places(bring);
                }
            }
            About::Parent(_) | About::Seat(_) | About::Nothing => {}
        }
    }

    fn bring_held(&self, seat: &Seat) {
        let held = seat.held.place();
        bring(held);
        bring(held.wrapping_add(64));
    }

    /// What the children on these links will read when they hear of news.
    pub(crate) fn bring_children(&self, links: &[Index]) {
        let children = || {
            let links = links.iter().map(|&link| &self.links[link as usize]);
            links.map(|link| &self.seats[link.child as usize])
        };
        let pickers = || children().filter_map(|seat| seat.picker.as_ref());
        for &link in links {
            bring_all(&self.links[link as usize]);
        }
        children().for_each(bring_all);
        pickers().for_each(|picker| bring_all(&**picker));
        pickers().for_each(|picker| picker.places_for_news(bring));
    }

    /// What a seat has apart from itself.
    fn bring_seat(&self, seat: &Seat) {
        if let Some(picker) = &seat.picker {
            bring_all(&**picker);
        }
        seat.attempts.place().into_iter().for_each(bring);
        seat.flights.place().into_iter().for_each(bring);
        self.bring_held(seat);
        bring(seat.waiting.as_ptr().cast());
        bring(seat.readers.as_ptr().cast());
    }
}
