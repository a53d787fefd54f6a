use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below where the kernel takes ports for outgoing connections, so that none of those takes one
/// between its choice and its use.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on 127.0.0.1 that nobody listens on, for programs that cannot choose one themselves.
/// Each call of this process gives another.
///
/// # Panics
/// When none is free.
pub fn free_port() -> u16 {
    // Test processes that run at the same time begin at different places.
    let start = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + offset) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}
