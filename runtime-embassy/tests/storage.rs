//! A storage that runs beside its outbox, and an uplink, under virtual time.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helper fails the test"
)]

mod common;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/zlib.rs"]
mod zlib;

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;

use common::{Numbers, clock, poll_times};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_time::Duration;
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};
use gateway::{CONFIG, Network, Seen, exchange, opened};
use longwire_core::session::ladder::{LadderConfig, Rung, Rungs};
use longwire_core::ws::CloseCode;
use longwire_embassy::{Gateway, Lost, Outbox, Policy, Status, Storage, StorageConfig, Uplink, UplinkConfig};

const PAGE: usize = 4096;
const PAGES: usize = 6;

type Readings = Outbox<NoopRawMutex, 1024>;
type Kept<'o> = Storage<'o, Flash, NoopRawMutex, 1024, 512>;

/// A flash that counts how often it is written to.
#[derive(Clone)]
struct Flash(Rc<RefCell<Chip>>);

struct Chip {
    bytes: Vec<u8>,
    writes: usize,
    /// It can be read only.
    protected: bool,
}

impl Flash {
    fn new() -> Self {
        Self(Rc::new(RefCell::new(Chip { bytes: vec![0xff; PAGE * PAGES], writes: 0, protected: false })))
    }

    fn writes(&self) -> usize {
        self.0.borrow().writes
    }
}

impl ErrorType for Flash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        bytes.copy_from_slice(&self.0.borrow().bytes[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        PAGE * PAGES
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = 8;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        let chip = &mut *self.0.borrow_mut();
        if chip.protected {
            return Err(NorFlashErrorKind::Other);
        }
        chip.bytes[from as usize..to as usize].fill(0xff);
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        let chip = &mut *self.0.borrow_mut();
        chip.writes += 1;
        if chip.protected {
            return Err(NorFlashErrorKind::Other);
        }
        for (byte, new) in chip.bytes[offset as usize..].iter_mut().zip(bytes) {
            // As flash with error correction wants it.
            assert!(*byte == 0xff, "a byte is written twice");
            *byte = *new;
        }
        Ok(())
    }
}

fn open<'o>(flash: &Flash, outbox: &'o Readings) -> Kept<'o> {
    let range = 0..u32::try_from(PAGE * PAGES).unwrap();
    let mut numbers = Numbers(1);
    let opening = Kept::open(flash.clone(), range, outbox, &mut numbers, StorageConfig::new());
    poll_times(opening, 1).unwrap().unwrap()
}

#[test]
fn what_waits_for_the_delay_is_written_at_once_and_together() {
    let (_guard, clock) = clock();
    let flash = Flash::new();
    let outbox = Readings::new(Policy::DropOldest);
    let mut storage = open(&flash, &outbox);
    let opened = flash.writes();
    let mut observed = Vec::new();
    {
        let mut run = pin!(storage.run(|counts| observed.push((counts.writes, counts.kept))));
        let mut turn =
            || assert!(poll_times(run.as_mut() as Pin<&mut dyn Future<Output = ()>>, 10).is_none());
        turn();
        for value in 0..10 {
            outbox.reporter().try_report("a", Some("k"), &value).unwrap();
            clock.advance(Duration::from_millis(100));
            turn();
        }
        clock.advance(Duration::from_millis(3999));
        turn();
        assert_eq!(flash.writes(), opened, "nothing is written before the delay is over");
        clock.advance(Duration::from_millis(101));
        turn();
        let written = flash.writes();
        assert!(written > opened);
        // Nothing new, nothing to do.
        clock.advance(Duration::from_secs(3600));
        turn();
        assert_eq!(flash.writes(), written);
    }
    assert_eq!(observed, [(2, 10)], "as many writes, as many readings kept");
    let after = Readings::new(Policy::DropOldest);
    assert_eq!(open(&flash, &after).counts().restored, 10);
    assert_eq!(after.counts().waiting, 10);
}

#[test]
fn a_planned_reset_loses_nothing() {
    let (_guard, _clock) = clock();
    let flash = Flash::new();
    let mut waiting = 0;
    // Each life adds some, until the outbox drops the oldest: then as many as it holds.
    for life in 0..20 {
        let outbox = Readings::new(Policy::DropOldest);
        let mut storage = open(&flash, &outbox);
        assert_eq!(storage.counts().restored, waiting);
        (0..10).for_each(|value| outbox.reporter().try_report("a/b/c", None, &(life * 10 + value)).unwrap());
        assert!(poll_times(storage.keep(), 1).is_some());
        waiting = outbox.counts().waiting;
    }
    assert!(waiting > 50);
}

/// A flash with five readings that takes no more, and an outbox for them.
fn outbox_over_a_protected_flash() -> (Flash, Readings) {
    let flash = Flash::new();
    let before = Readings::new(Policy::DropOldest);
    let mut storage = open(&flash, &before);
    (0..5).for_each(|value| before.reporter().try_report("a", None, &value).unwrap());
    assert!(poll_times(storage.keep(), 1).is_some());
    flash.0.borrow_mut().protected = true;
    (flash, Readings::new(Policy::DropOldest))
}

#[test]
fn what_a_flash_cannot_number_goes_over_another_connection_as_another_incarnation() {
    let _clock = clock();
    let (flash, outbox) = outbox_over_a_protected_flash();
    let _storage = open(&flash, &outbox);
    (5..8).for_each(|value| outbox.reporter().try_report("a", None, &value).unwrap());
    let (network, seen) = (Network::default(), Seen::default());
    let (mut rx, mut tx) = ([0; 512], [0; 512]);
    let gateway = Gateway::new("gateway:80");
    let mut uplink = Uplink::new(network.clone(), gateway, &CONFIG, Numbers(1), &mut rx, &mut tx);
    let observed = seen.clone();
    let mut run = pin!(uplink.run(&outbox, move |status| observed.borrow_mut().push(status)));
    let turn = &mut || poll_times(run.as_mut() as Pin<&mut dyn Future<Output = Lost>>, 500);
    let mut first = opened(&network, turn, 9);
    let values = |published: &[(u64, String, u32)]| published.iter().map(|(.., v)| *v).collect::<Vec<_>>();
    assert_eq!(values(&first.published), [0, 1, 2, 3, 4]);
    first.ack(4);
    exchange(turn, &mut first);
    assert_eq!((first.published.len(), first.closed), (5, None), "the last one is not answered yet");
    first.ack(5);
    exchange(turn, &mut first);
    assert_eq!(first.closed, Some(CloseCode::NORMAL));
    first.wire.borrow_mut().ended = true;
    // At once.
    let mut second = opened(&network, turn, 9);
    assert_eq!(values(&second.published), [5, 6, 7]);
    assert_ne!(first.publisher, second.publisher);
    second.ack(second.published[2].0);
    // From now on there is nothing to be said against any number.
    outbox.reporter().try_report("a", None, &8).unwrap();
    exchange(turn, &mut second);
    assert_eq!((values(&second.published), second.closed), (vec![5, 6, 7, 8], None));
    assert_eq!(outbox.counts().acknowledged, 8);
    let web_socket = [Status::Connecting(Rung::WebSocket), Status::Open(Rung::WebSocket)];
    let [connecting, open] = web_socket;
    let lost = Status::Lost(Lost::Incarnation);
    assert_eq!(*seen.borrow(), [connecting, open, lost, connecting, open]);
}

#[test]
fn a_post_names_its_incarnation_so_another_one_goes_on_without_a_new_connection() {
    let _clock = clock();
    for (connection, links) in [("keep-alive", 1), ("close", 8)] {
        post_over_a_protected_flash(connection, links);
    }
}

/// With answers that say this of the connection, so that so many are opened.
fn post_over_a_protected_flash(connection: &str, links: usize) {
    let (flash, outbox) = outbox_over_a_protected_flash();
    let _storage = open(&flash, &outbox);
    (5..8).for_each(|value| outbox.reporter().try_report("a", None, &value).unwrap());
    let config = UplinkConfig {
        ladder: LadderConfig { rungs: Rungs::only(Rung::Poll), ..LadderConfig::new() },
        ..UplinkConfig::new()
    };
    let network = Network::default();
    let (mut rx, mut tx) = ([0; 512], [0; 512]);
    let gateway = Gateway::new("gateway:80");
    let mut uplink = Uplink::new(network.clone(), gateway, &config, Numbers(1), &mut rx, &mut tx);
    let mut run = pin!(uplink.run(&outbox, |_| {}));
    let mut posted = Vec::new();
    while posted.len() < 8 {
        assert_eq!(poll_times(run.as_mut() as Pin<&mut dyn Future<Output = Lost>>, 500), None);
        let newest = network.newest();
        let wire = &mut *newest.borrow_mut();
        // The data is one byte.
        let (data, head) = wire.from_client.split_last().unwrap();
        let head = String::from_utf8(head.to_vec()).unwrap();
        let (_, key) = head.split_once("Idempotency-Key: ").unwrap();
        posted.push((key[..16].to_owned(), *data));
        wire.from_client.clear();
        let body = r#"{"at":"0000000000000007-9"}"#;
        let len = body.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\nConnection: {connection}\r\nContent-Length: {len}\r\n\r\n{body}");
        wire.to_client.extend(answer.as_bytes());
    }
    assert_eq!(network.wires.borrow().len(), links);
    assert_eq!(posted.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
    let (old, new) = posted.split_at(5);
    assert!(old.iter().all(|(incarnation, _)| *incarnation == old[0].0), "{posted:?}");
    assert!(
        new.iter().all(|(incarnation, _)| *incarnation == new[0].0 && new[0].0 != old[0].0),
        "{posted:?}"
    );
}
