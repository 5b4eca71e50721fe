//! The floor on bare epoll: no runtime, no task. The only floor with fan-out: a publication is encoded once for
//! WebSocket and once for SSE, and written to each reader in the publisher's turn.

use super::{Buffers, Connection, Step, echo};
use crate::serve::answer;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

/// The listener's place among the events.
const LISTENER: u64 = u64::MAX;

const SSE_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Bytes of a request are still to come.
    New,
    Echo,
    Subscriber,
    EventStream,
    Publisher,
}

struct Client {
    stream: TcpStream,
    role: Role,
    connection: Connection,
    /// Whether it is told when it can write again.
    writes: bool,
}

struct Server {
    epoll: OwnedFd,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    buffers: Buffers,
    /// A publication as an event of SSE.
    event: Vec<u8>,
}

pub(in crate::serve) fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // The standard library asks for room for 128 connections that nobody has accepted yet.
    rustix::net::listen(&listener, 4096)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut server =
        Server { epoll, clients: Vec::new(), free: Vec::new(), buffers: Buffers::new(), event: Vec::new() };
    let mut events = Vec::with_capacity(1024);
    loop {
        events.clear();
        epoll::wait(&server.epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            match event.data.u64() {
                LISTENER => server.accept(&listener)?,
                id => server.turn(id as usize)?,
            }
        }
    }
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let id = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() - 1
            });
            epoll::add(&self.epoll, &stream, EventData::new_u64(id as u64), EventFlags::IN)?;
            let client = Client { stream, role: Role::New, connection: Connection::default(), writes: false };
            self.clients[id] = Some(client);
        }
    }

    fn turn(&mut self, id: usize) -> io::Result<()> {
        let Some(client) = &mut self.clients[id] else { return Ok(()) };
        let went_on = match client.role {
            Role::New => client.open(),
            Role::Publisher => self.publish(id),
            _ => client.echo(&mut self.buffers),
        };
        if went_on.is_err() {
            // Closing it takes it out of the set.
            self.clients[id] = None;
            self.free.push(id);
            return Ok(());
        }
        self.watch(id)
    }

    /// Hands what a publisher sent to every reader.
    fn publish(&mut self, id: usize) -> io::Result<()> {
        loop {
            let Some(client) = &mut self.clients[id] else { return Ok(()) };
            self.event.clear();
            let step =
                client.connection.receive(&mut &client.stream, &mut self.buffers, |tx, first, payload| {
                    echo(tx, first, payload);
                    for part in [b"data: ", payload, b"\n\n"] {
                        self.event.extend_from_slice(part);
                    }
                })?;
            for reader in 0..self.clients.len() {
                let Some(client) = &mut self.clients[reader] else { continue };
                let image = match client.role {
                    Role::Subscriber => &self.buffers.tx,
                    Role::EventStream => &self.event,
                    _ => continue,
                };
                // Whoever is gone says so in its own turn.
                let _ = client.connection.send(&mut &client.stream, image);
                if !client.connection.unsent.is_empty() {
                    self.watch(reader)?;
                }
            }
            if !matches!(step, Step::Read { full: true }) {
                return Ok(());
            }
        }
    }

    /// Asks to be told when it can write, or no longer.
    fn watch(&mut self, id: usize) -> io::Result<()> {
        let Some(client) = &mut self.clients[id] else { return Ok(()) };
        let writes = !client.connection.unsent.is_empty();
        if writes != client.writes {
            client.writes = writes;
            let wanted = if writes { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.epoll, &client.stream, EventData::new_u64(id as u64), wanted)?;
        }
        Ok(())
    }
}

impl Client {
    fn open(&mut self) -> io::Result<()> {
        let head = &mut self.connection.tail;
        let mut bytes = [0; 1024];
        let n = (&self.stream).read(&mut bytes)?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&bytes[..n]);
        if !head.ends_with(b"\r\n\r\n") {
            return Ok(());
        }
        let head = std::mem::take(head);
        if head.starts_with(b"GET /sse ") {
            self.role = Role::EventStream;
            return (&self.stream).write_all(SSE_HEAD);
        }
        let (path, response) = answer(&head, None).ok_or(ErrorKind::InvalidData)?;
        self.role = match &*path {
            "/sub" => Role::Subscriber,
            "/pub" => Role::Publisher,
            _ => Role::Echo,
        };
        (&self.stream).write_all(response.as_bytes())
    }

    /// Until a read did not fill its buffer: epoll says if there is more.
    fn echo(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        loop {
            match self.connection.receive(&mut &self.stream, buffers, echo)? {
                Step::Blocked => return Ok(()),
                Step::Read { full } => {
                    self.connection.send(&mut &self.stream, &buffers.tx)?;
                    if !full {
                        return Ok(());
                    }
                }
            }
        }
    }
}
