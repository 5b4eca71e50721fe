//! A resolver that listens to another port than 53, as a test's does: names are asked for at port 53 only.

use crate::ethernet::{Controller, Frame};

/// The port of resolvers (RFC 1035 section 4.2.1).
const DOMAIN: u16 = 53;

/// A controller over which port 53 is another one.
pub struct Redirected<C> {
    controller: C,
    /// The other one; `None` leaves everything as it is.
    port: Option<u16>,
}

impl<C> Redirected<C> {
    /// `controller`, with the resolver at this port.
    pub fn new(controller: C, port: Option<u16>) -> Self {
        Self { controller, port }
    }
}

/// Where the ports lie in a UDP header (RFC 768).
enum Field {
    Source = 0,
    Destination = 2,
}

/// Changes a port from one to the other, in a frame that is UDP over IPv4 without options. What is changed has no checksum
/// then, which is allowed.
fn change(frame: &mut [u8], field: Field, from: u16, to: u16) -> Option<()> {
    /// Type IPv4; version 4 with five words of header; protocol 17.
    const MARKS: [(usize, u8); 4] = [(12, 0x08), (13, 0x00), (14, 0x45), (23, 17)];
    let marked = MARKS.iter().all(|(at, mark)| frame.get(*at) == Some(mark));
    let header = frame.get_mut(34..42).filter(|_| marked)?;
    let port = header.get_mut(field as usize..)?.first_chunk_mut()?;
    if *port == from.to_be_bytes() {
        *port = to.to_be_bytes();
        header.get_mut(6..)?.fill(0);
    }
    Some(())
}

impl<C: Controller> Controller for Redirected<C> {
    fn address(&self) -> [u8; 6] {
        self.controller.address()
    }

    fn receive(&mut self, frame: &mut Frame) -> Option<usize> {
        let len = self.controller.receive(frame)?;
        if let Some(port) = self.port {
            change(&mut frame[..len], Field::Source, port, DOMAIN);
        }
        Some(len)
    }

    fn listen(&mut self) -> bool {
        self.controller.listen()
    }

    fn has_room(&mut self) -> bool {
        self.controller.has_room()
    }

    fn send(&mut self, frame: &mut [u8]) {
        if let Some(port) = self.port {
            change(frame, Field::Destination, DOMAIN, port);
        }
        self.controller.send(frame);
    }
}
