//! A resolver that knows one name (RFC 1035), and remembers how often it was asked.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};

/// The name that it knows.
pub const NAME: &str = "gateway.test";

/// It listens on a port of loopback, until the test's process ends.
pub struct Resolver {
    /// The port.
    pub port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    addresses: Vec<Ipv4Addr>,
    turns: bool,
    asked: usize,
}

impl Resolver {
    /// One that does not know any address yet.
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("bound").port();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut query) {
                let mut state = shared.lock().expect("no panic while locked");
                state.asked += 1;
                let answer = answer(&query[..len], &state.addresses);
                if state.turns && !state.addresses.is_empty() {
                    state.addresses.rotate_left(1);
                }
                // Whoever asked may have gone.
                let _ = socket.send_to(&answer, from);
            }
        });
        Self { port, state }
    }

    /// From now on it puts the first of its addresses behind the others after each query, as many resolvers do (RFC 1794).
    pub fn turn(&self) {
        self.state.lock().expect("no panic while locked").turns = true;
    }

    /// What it answers from now on, in this order.
    pub fn set(&self, addresses: &[Ipv4Addr]) {
        self.state.lock().expect("no panic while locked").addresses = addresses.to_vec();
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.state.lock().expect("no panic while locked").asked
    }
}

/// The answer to a query of one question: these addresses, or that there is no such name.
fn answer(query: &[u8], addresses: &[Ipv4Addr]) -> Vec<u8> {
    const HEADER: usize = 12;
    let labels = NAME.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    // Type A, class IN.
    let question: Vec<u8> = labels.chain([0, 0, 1, 0, 1]).collect();
    assert_eq!(query[HEADER..], question, "a question of that name's addresses, and nothing more");
    const RESPONSE: u8 = 1 << 7;
    const NAME_ERROR: u8 = 3;
    let mut answer = query.to_vec();
    answer[2] |= RESPONSE;
    answer[3] = if addresses.is_empty() { NAME_ERROR } else { 0 };
    answer[7] = addresses.len() as u8;
    for address in addresses {
        // The name is that of the question; a minute to live; four bytes.
        answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}
