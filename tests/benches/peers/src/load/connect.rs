//! Connections: opened one after the other, with a timeout.

use super::wire::{Kind, Message, header};
use super::{Result, Target};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// As a browser offers it.
const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n";

/// What a server answers to that key.
const ACCEPT: &str = "sec-websocket-accept: bz3qjytgdoe8gusplosedilkdrk=";

/// So many WebSockets at `path`, each of which has echoed `message`.
pub(super) fn echoing(target: &Target, path: &str, message: &Message) -> Result<Vec<TcpStream>> {
    (0..target.connections)
        .map(|n| {
            let mut stream = websocket(target.addr, path, message.kind == Kind::Deflate)?;
            try_echo(&mut stream, message).map_err(|error| format!("connection {n}: {error}"))?;
            Ok(stream)
        })
        .collect()
}

pub(super) fn websocket(address: SocketAddr, path: &str, deflate: bool) -> Result<TcpStream> {
    let extension = if deflate { OFFER } else { "" };
    let (stream, head) = request(address, path, &format!("{UPGRADE}{extension}"))?;
    if !head.starts_with("http/1.1 101 ") || !head.contains(ACCEPT) {
        return Err(format!("no WebSocket at {path}: {head}").into());
    }
    if head.contains("permessage-deflate") != deflate {
        return Err(format!("permessage-deflate: asked for {deflate}, answered {head}").into());
    }
    Ok(stream)
}

pub(super) fn event_stream(address: SocketAddr, path: &str) -> Result<TcpStream> {
    let (stream, head) = request(address, path, "Accept: text/event-stream\r\n")?;
    if !head.starts_with("http/1.1 200 ") || !head.contains("text/event-stream") {
        return Err(format!("no event stream at {path}: {head}").into());
    }
    Ok(stream)
}

/// Asks, and returns the head of the answer in lower case. Nothing after it is read.
fn request(address: SocketAddr, path: &str, fields: &str) -> Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    // In one write: not every server takes a request line that comes in pieces.
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n").as_bytes())?;
    let mut head = Vec::with_capacity(512);
    let mut bytes = [0; 2048];
    while !head.ends_with(b"\r\n\r\n") {
        // Only as far as the head's end, which a server may send along with the first event.
        let there = stream.peek(&mut bytes)?;
        if there == 0 {
            return Err("the connection ended in the handshake".into());
        }
        let before = head.len();
        head.extend_from_slice(&bytes[..there]);
        let end = head.windows(4).position(|end| end == b"\r\n\r\n").map_or(head.len(), |at| at + 4);
        head.truncate(end);
        stream.read_exact(&mut bytes[..end - before])?;
    }
    Ok((stream, String::from_utf8_lossy(&head).to_ascii_lowercase()))
}

/// Sends the message and compares what comes back, byte by byte. A server may cut it into frames.
pub(super) fn try_echo(stream: &mut TcpStream, message: &Message) -> Result<()> {
    stream.write_all(&message.frame)?;
    let mut payload = Vec::new();
    let mut compressed = false;
    loop {
        let mut head = vec![0; 2];
        stream.read_exact(&mut head)?;
        let frame = loop {
            match header(&head)? {
                Some(frame) => break frame,
                None => {
                    head.push(0);
                    let last = head.len() - 1;
                    stream.read_exact(&mut head[last..])?;
                }
            }
        };
        let mut piece = vec![0; frame.payload];
        stream.read_exact(&mut piece)?;
        if frame.opcode == 8 {
            return Err("the server closed".into());
        }
        if frame.opcode > 8 {
            continue;
        }
        compressed |= frame.compressed;
        payload.append(&mut piece);
        if frame.fin {
            break;
        }
    }
    if message.is_echo(compressed, &payload)? { Ok(()) } else { Err("the echo differs".into()) }
}
