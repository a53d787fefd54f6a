//! A TCP port between two programs, for tests that cut connections which the programs keep. It
//! looks at no byte.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

/// A TCP port that leads to another one, and can lose its connections.
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
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self, from: TcpStream) -> io::Result<()> {
        let to = TcpStream::connect(self.to)?;
        for stream in [&from, &to] {
            stream.set_nodelay(true)?;
        }
        pump(from.try_clone()?, to.try_clone()?);
        pump(to.try_clone()?, from.try_clone()?);
        self.lock().connections.push((from, to));
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
