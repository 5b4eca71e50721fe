//! A relay of TCP between a device and a gateway: it cuts, refuses, and remembers every byte.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

/// A listener of its own, which passes on to one address at a time.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    to: SocketAddr,
    cut: bool,
    open: Vec<TcpStream>,
    taps: Vec<Tap>,
}

/// What went over one connection, so far.
#[derive(Clone, Debug)]
pub struct Tap {
    /// When it was accepted.
    pub began: Instant,
    /// Where it was passed on to.
    pub to: SocketAddr,
    /// From the client.
    pub up: Vec<u8>,
    /// From the server.
    pub down: Vec<u8>,
}

impl Relay {
    /// A relay to this address, on a free port of loopback.
    pub fn start(to: SocketAddr) -> Self {
        Self::listening((Ipv4Addr::LOCALHOST, 0).into(), to)
    }

    /// A relay to this address, which listens there.
    pub fn listening(address: SocketAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("nobody else listens there");
        let address = listener.local_addr().expect("bound");
        let state = State { to, cut: false, open: Vec::new(), taps: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        // It ends with the test's process: a listener cannot be woken up.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accept(client, &shared);
            }
        });
        Self { address, state }
    }

    /// From now on connections go there.
    pub fn set_target(&self, to: SocketAddr) {
        self.lock().to = to;
    }

    /// Resets every connection, and each that is opened from now on.
    pub fn cut(&self) {
        let mut state = self.lock();
        state.cut = true;
        state.open.drain(..).for_each(|stream| reset(&stream));
    }

    /// Passes connections on again.
    pub fn mend(&self) {
        self.lock().cut = false;
    }

    /// The connections so far that were passed on.
    pub fn taps(&self) -> Vec<Tap> {
        self.lock().taps.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while locked")
    }
}

/// Passes a connection on, both ways; if there is nobody, it is reset.
fn accept(client: TcpStream, shared: &Arc<Mutex<State>>) {
    let mut state = shared.lock().expect("no panic while locked");
    let server = (!state.cut).then(|| TcpStream::connect_timeout(&state.to, Duration::from_secs(5)));
    let Some(Ok(server)) = server else { return reset(&client) };
    let tap = state.taps.len();
    let to = state.to;
    state.taps.push(Tap { began: Instant::now(), to, up: Vec::new(), down: Vec::new() });
    let twin = |stream: &TcpStream| stream.try_clone().expect("a handle");
    state.open.extend([twin(&client), twin(&server)]);
    for (from, to, upwards) in [(twin(&client), twin(&server), true), (server, client, false)] {
        // A small message is not to wait for its acknowledgement.
        to.set_nodelay(true).expect("a socket");
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            pump(from, to, |bytes| {
                let mut state = shared.lock().expect("no panic while locked");
                let tap = &mut state.taps[tap];
                if upwards { &mut tap.up } else { &mut tap.down }.extend_from_slice(bytes);
            })
        });
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, mut tap: impl FnMut(&[u8])) {
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        tap(&bytes[..n]);
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Ends a connection without a word of farewell: what is on its way is lost.
fn reset(stream: &TcpStream) {
    // It may be closed already.
    let _ = set_socket_linger(stream, Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Both);
}
