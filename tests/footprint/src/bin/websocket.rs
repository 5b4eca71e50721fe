//! A WebSocket client that answers each message with itself: the opening handshake and the connection, nothing else.
#![no_std]
#![no_main]

use longwire_core::buf::{Io, RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::head::{HeadReader, Limits, Step as HeadStep};
use longwire_core::http::upgrade::{ClientUpgrade, Offer};
use longwire_core::time::Instant;
use longwire_core::ws::{Client, Config, Connection, Event, Step};
use longwire_footprint::{NoState, any, read, write};

static CONFIG: Config = Config::new();

#[unsafe(no_mangle)]
extern "C" fn main() {
    let (mut rx, mut rx_at) = ([0; 512], RxCursor::new());
    let (mut tx, mut tx_at) = ([0; 512], TxCursor::new());
    let mut io = Io::new(RxBuf::new(&mut rx, &mut rx_at), TxBuf::new(&mut tx, &mut tx_at));
    if shake_hands(&mut io).is_some() {
        echo(&mut io);
    }
}

fn now() -> Instant {
    Instant::from_millis(any())
}

fn flush(tx: &mut TxBuf<'_>) {
    while !tx.pending().is_empty() {
        let n = write(tx.pending());
        tx.consume(n);
    }
}

fn shake_hands(io: &mut Io<'_>) -> Option<()> {
    let upgrade = ClientUpgrade::new(&mut NoState);
    let offer = Offer::new("example.org", "/");
    upgrade.write_request(&mut io.tx, &offer).ok()?;
    flush(&mut io.tx);
    let mut reader = HeadReader::default();
    loop {
        match reader.poll_response(&mut io.rx, &Limits::DEFAULT).ok()? {
            HeadStep::Head(head) => {
                upgrade.check(&offer, &head.view(io.rx.reborrow())).ok()?;
                head.release(&mut io.rx);
                return Some(());
            }
            _ => {
                let n = read(io.rx.spare_mut());
                io.rx.commit(n);
            }
        }
    }
}

fn echo(io: &mut Io<'_>) {
    let mut connection = Connection::new(Client(NoState), &CONFIG, now());
    let mut message = [0; 128];
    loop {
        match connection.poll(now(), io) {
            Ok(Step::Event(found)) => {
                let (Event::Binary(data) | Event::Ping(data)) = found.event(io.rx.reborrow()) else {
                    continue;
                };
                let Some(copy) = message.get_mut(..data.len()) else { continue };
                copy.copy_from_slice(data);
                let _ = connection.send_binary(&mut io.tx, copy);
            }
            Ok(Step::NeedInput | Step::NeedFlush) => {
                flush(&mut io.tx);
                let n = read(io.rx.spare_mut());
                io.rx.commit(n);
                let _: Step = connection.handle_timeout(now(), io);
            }
            Ok(_) | Err(_) => return flush(&mut io.tx),
        }
    }
}
