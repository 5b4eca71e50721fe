use crate::choices::Choices;
use crate::tls_server::{CERTIFICATES, Manner, Part, answer};
use longwire_embassy::core::rand_core::{TryCryptoRng, TryRng};
use longwire_embassy::{Connect, Link, Tls, TlsBuffers, TlsConfig, Trust};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Most bytes that a change puts in, and most that one record behind the handshake holds.
const MOST: usize = 300;

/// The device's TLS at a server that makes every message by RFC 8446, and then changes some.
///
/// | choices | |
/// |---|---|
/// | flag | the server is an impostor: it has the gateway's certificate, and not its key |
/// | flag | each message comes in a record of its own |
/// | 0 to 3, and so often: bytes | what records behind the handshake hold, with their type |
/// | until the end: 0 to 6, 0 to 5, two bytes, bytes, flag | a `Part`, what becomes of it, where, with what; whether its length is put right |
///
/// Nothing panics, nobody waits when the stream has ended, and an impostor opens no connection.
pub fn tls(data: &[u8]) {
    let mut choices = Choices::new(data);
    let (impostor, apart) = (choices.flag(), choices.flag());
    let after = (0..choices.upto(3)).map(|_| choices.bytes(MOST).to_vec()).collect();
    let manner = Manner { impostor, apart, after };
    let mut changes = Vec::new();
    while !choices.is_empty() && changes.len() < 16 {
        changes.push(Change::take(&mut choices));
    }
    let wire = Rc::new(RefCell::new(Wire::default()));
    let mut buffers = TlsBuffers::<2048, 512>::new();
    let cas = [&CERTIFICATES.ca[..]];
    let config = TlsConfig::new("gateway.example", Trust::Cas(&cas));
    let mut tls = Tls::new(Once(wire.clone()), config, Same, &mut buffers);
    let mut device = pin!(async {
        let mut link = tls.connect().await.map_err(drop)?;
        let mut some = [0; 100];
        while let Ok(1..) = link.read(&mut some).await {}
        Ok::<(), ()>(())
    });
    let mut cx = Context::from_waker(Waker::noop());
    assert!(device.as_mut().poll(&mut cx).is_pending(), "there is no answer yet");
    let hello = std::mem::take(&mut wire.borrow_mut().up);
    let sent = answer(&hello, &manner, &mut |part, bytes| {
        changes.iter().filter(|change| change.part == part).for_each(|change| change.make(bytes));
    });
    *wire.borrow_mut() = Wire { up: Vec::new(), down: sent.into(), ended: true };
    match device.as_mut().poll(&mut cx) {
        Poll::Pending => panic!("it waits, and the stream has ended"),
        Poll::Ready(Ok(())) => assert!(!impostor, "an impostor was taken for the gateway"),
        Poll::Ready(Err(())) => {}
    }
}

/// What becomes of a part.
struct Change<'d> {
    part: Part,
    how: usize,
    at: usize,
    with: &'d [u8],
    /// The length that it begins with is put right again.
    mend: bool,
}

impl<'d> Change<'d> {
    fn take(choices: &mut Choices<'d>) -> Self {
        let part = Part::ALL[choices.upto(Part::ALL.len() - 1)];
        let (how, at) = (choices.upto(5), choices.upto(0xffff));
        Self { part, how, at, with: choices.bytes(MOST), mend: choices.flag() }
    }

    fn make(&self, bytes: &mut Vec<u8>) {
        let at = self.at % (bytes.len() + 1);
        match self.how {
            0 => bytes.iter_mut().skip(at).zip(self.with).for_each(|(byte, with)| *byte = *with),
            1 => bytes.iter_mut().skip(at).zip(self.with).for_each(|(byte, with)| *byte ^= with),
            2 => bytes.truncate(at),
            3 => drop(bytes.splice(at..at, self.with.iter().copied())),
            4 => drop(bytes.drain(at..(at + self.with.len()).min(bytes.len()))),
            _ => *bytes = self.with.to_vec(),
        }
        let (high, header) = match self.part {
            Part::Inside => return,
            Part::Record => (3, 5),
            _ => (2, 4),
        };
        if self.mend && bytes.len() >= header {
            let len = u16::try_from(bytes.len() - header).unwrap_or(u16::MAX);
            bytes[high..high + 2].copy_from_slice(&len.to_be_bytes());
        }
    }
}

#[derive(Default)]
struct Wire {
    up: Vec<u8>,
    down: VecDeque<u8>,
    ended: bool,
}

/// Opens its only link.
struct Once(Rc<RefCell<Wire>>);

struct Memory(Rc<RefCell<Wire>>);

impl Connect for Once {
    type Link<'a> = Memory;
    type Error = Infallible;

    async fn connect(&mut self) -> Result<Memory, Infallible> {
        Ok(Memory(self.0.clone()))
    }
}

impl Link for Memory {
    type Error = Infallible;

    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        std::future::poll_fn(|_| {
            let mut wire = self.0.borrow_mut();
            let n = bytes.len().min(wire.down.len());
            bytes.iter_mut().zip(wire.down.drain(..n)).for_each(|(to, from)| *to = from);
            if n == 0 && !wire.ended { Poll::Pending } else { Poll::Ready(Ok(n)) }
        })
        .await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.0.borrow_mut().up.extend(bytes);
        Ok(bytes.len())
    }
}

/// Always the same, so that a run can be repeated: the device needs no secrets here.
struct Same;

impl TryRng for Same {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0x0404_0404)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0x0404_0404_0404_0404)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(4);
        Ok(())
    }
}

impl TryCryptoRng for Same {}
