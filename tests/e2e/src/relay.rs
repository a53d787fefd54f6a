//! A TCP port between two programs, for tests that cut connections which the programs keep, or hold back
//! what one of them answers. It looks at no byte.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

/// A TCP port that leads to another one, and can lose its connections or delay what comes back on them.
pub struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    to: SocketAddr,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Both ends of each connection.
    connections: Vec<(TcpStream, TcpStream)>,
    /// What was answered and is held back, and to whom it goes.
    held: Vec<(TcpStream, Vec<u8>)>,
    holds: bool,
    refuses: bool,
    stopped: bool,
}

impl Relay {
    /// A port of its own choice that leads there.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for a relay");
        let addr = listener.local_addr().expect("the relay's address");
        let shared = Arc::new(Shared {
            to,
            state: Mutex::default(),
        });
        let accepting = shared.clone();
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.lock().stopped {
                    return;
                }
                // Where nobody answers the connection ends at once, as it would there.
                let _ = accepting.connect(stream);
            }
        });
        Self {
            addr,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends all connections that there are; new ones are taken as before.
    pub fn cut(&self) {
        for (from, to) in self.shared.lock().connections.drain(..) {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        }
    }

    /// Whether new connections end at once, from now on.
    pub fn refuse(&self, refuses: bool) {
        self.shared.lock().refuses = refuses;
    }

    /// Holds back whatever comes from where it leads to. What goes there goes on.
    pub fn hold_answers(&self) {
        self.shared.lock().holds = true;
    }

    /// Bytes that are held back.
    pub fn held(&self) -> usize {
        let state = self.shared.lock();
        state.held.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Passes on what was held back, and holds nothing back any more.
    pub fn release_answers(&self) {
        let mut state = self.shared.lock();
        state.holds = false;
        for (mut from, bytes) in state.held.drain(..) {
            let _ = from.write_all(&bytes);
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(self: &Arc<Self>, from: TcpStream) -> io::Result<()> {
        if self.lock().refuses {
            return from.shutdown(Shutdown::Both);
        }
        let to = TcpStream::connect(self.to)?;
        for stream in [&from, &to] {
            stream.set_nodelay(true)?;
        }
        pump(from.try_clone()?, to.try_clone()?);
        self.answer(to.try_clone()?, from.try_clone()?);
        self.lock().connections.push((from, to));
        Ok(())
    }
}

impl Shared {
    /// Copies what is answered until either side ends, in a thread that ends then.
    fn answer(self: &Arc<Self>, mut to: TcpStream, mut from: TcpStream) {
        let shared = self.clone();
        thread::spawn(move || {
            let mut block = vec![0; 64 << 10];
            while let Ok(len @ 1..) = to.read(&mut block) {
                let mut state = shared.lock();
                let passed = if state.holds {
                    state.hold(&from, &block[..len])
                } else {
                    from.write_all(&block[..len])
                };
                if passed.is_err() {
                    break;
                }
            }
            let _ = from.shutdown(Shutdown::Write);
        });
    }
}

impl State {
    fn hold(&mut self, from: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        self.held.push((from.try_clone()?, bytes.to_vec()));
        Ok(())
    }
}

/// Copies until either side ends, in a thread that ends then.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.cut();
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
