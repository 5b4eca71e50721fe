//! WebSockets that send the same frame over and over.

use super::wire::{Message, Walk};
use super::{Result, wire};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

const SCRATCH: usize = 256 << 10;

/// From so many bytes of a payload on that are still to come, the kernel is told to forget them.
const FORGET: usize = 4 << 10;

pub(super) struct Clients {
    epoll: OwnedFd,
    clients: Vec<Client>,
    /// The frame, as often as is sent in one write.
    image: Vec<u8>,
    frame: usize,
    scratch: Vec<u8>,
    ready: Vec<epoll::Event>,
    /// Writes so far.
    pub(super) writes: u64,
}

struct Client {
    stream: TcpStream,
    /// Bytes that are still to be sent, and where in the frame they begin.
    unsent: usize,
    at: usize,
    waits: bool,
    walk: Walk,
}

/// A connection of which the kernel said something.
pub(super) struct Ready {
    pub(super) client: usize,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

impl Clients {
    pub(super) fn new(streams: Vec<TcpStream>, message: &Message, depth: usize) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut clients = Vec::with_capacity(streams.len());
        for (n, stream) in streams.into_iter().enumerate() {
            stream.set_nonblocking(true)?;
            epoll::add(&epoll, &stream, EventData::new_u64(n as u64), EventFlags::IN)?;
            clients.push(Client { stream, unsent: 0, at: 0, waits: false, walk: Walk::default() });
        }
        let frame = message.frame.len();
        Ok(Self {
            epoll,
            clients,
            image: message.frame.repeat(depth.min((1 << 20) / frame).max(1)),
            frame,
            scratch: vec![0; SCRATCH],
            ready: Vec::with_capacity(1024),
            writes: 0,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Waits until there is something to do, at most for so many milliseconds.
    pub(super) fn wait(&mut self, milliseconds: i64) -> Result<Vec<Ready>> {
        self.ready.clear();
        let timeout = Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
        epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&timeout))?;
        Ok(self
            .ready
            .iter()
            .map(|event| {
                // Copied: the struct is packed.
                let flags = event.flags;
                Ready {
                    client: event.data.u64() as usize,
                    readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
                    writable: flags.contains(EventFlags::OUT),
                }
            })
            .collect())
    }

    /// Sends so many messages, as far as the kernel takes them now.
    pub(super) fn send(&mut self, client: usize, messages: usize) -> Result<()> {
        self.clients[client].unsent += messages * self.frame;
        self.flush(client)
    }

    pub(super) fn flush(&mut self, n: usize) -> Result<()> {
        let client = &mut self.clients[n];
        while client.unsent > 0 {
            let end = self.image.len().min(client.at + client.unsent);
            match (&client.stream).write(&self.image[client.at..end]) {
                Ok(sent) => {
                    self.writes += 1;
                    client.unsent -= sent;
                    client.at = (client.at + sent) % self.frame;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let waits = client.unsent > 0;
        if waits != client.waits {
            client.waits = waits;
            let wanted = if waits { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.epoll, &client.stream, EventData::new_u64(n as u64), wanted)?;
        }
        Ok(())
    }

    /// Reads what is there; messages that ended in it.
    pub(super) fn receive(&mut self, n: usize) -> Result<usize> {
        let Client { stream, walk, .. } = &mut self.clients[n];
        let mut messages = 0;
        loop {
            let forget = walk.skip > FORGET;
            // TCP forgets as many bytes as the buffer is long, without writing to it.
            let (room, flags) = if forget {
                (walk.skip.min(SCRATCH), RecvFlags::DONTWAIT | RecvFlags::TRUNC)
            } else {
                (SCRATCH, RecvFlags::DONTWAIT)
            };
            let read = match recv(&*stream, &mut self.scratch[..room], flags) {
                Ok((_, 0)) => return Err("the server ended the connection".into()),
                Ok((_, read)) => read,
                Err(Errno::AGAIN) => return Ok(messages),
                Err(error) => return Err(error.into()),
            };
            messages += if forget { walk.skipped(read) } else { walk.over(&self.scratch[..read], |_| ())? };
            if read < room && walk.skip <= FORGET {
                return Ok(messages);
            }
        }
    }

    /// Bytes of payload that came so far.
    pub(super) fn payload(&self) -> u64 {
        self.clients.iter().map(|client| client.walk.payload).sum()
    }
}

/// Bytes of payload for each message must be those that were sent, unless they are compressed.
pub(super) fn check_length(message: &wire::Message, payload: u64, messages: u64) -> Result<()> {
    let wanted = message.payload.len() as u64 * messages;
    // A message that is on its way was counted with its header.
    if message.kind != wire::Kind::Deflate && payload < wanted {
        return Err(format!("{messages} echoes have {payload} bytes instead of {wanted}").into());
    }
    Ok(())
}
