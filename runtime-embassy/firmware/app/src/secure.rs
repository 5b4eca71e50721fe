//! The application over TLS.

use core::cell::{Cell, RefCell};
use core::convert::Infallible;
use core::fmt;

use embassy_sync::blocking_mutex::CriticalSectionMutex;
use embassy_time::Instant;
use longwire_embassy::core::rand_core::{CryptoRng, TryCryptoRng, TryRng};
use longwire_embassy::{Connect, OnError, Tls, TlsBuffers, TlsConfig, Trust};
use static_cell::ConstStaticCell;

use crate::Settings;

/// Bytes of the longest record that any gateway may send (RFC 8446 section 5.2); with longwire's own 2048 are enough for what
/// this application is told.
const RX: usize = 16_645;
/// A record that goes out has a reading, or the head of a request.
const TX: usize = 1024;

/// For the connection, and for posts beside it.
static BUFFERS: ConstStaticCell<[TlsBuffers<RX, TX>; 2]> =
    ConstStaticCell::new([const { TlsBuffers::new() }; 2]);

/// Seconds from 1970 to the start of the device, if somebody said what time it is.
static STARTED: CriticalSectionMutex<Cell<Option<u64>>> = CriticalSectionMutex::new(Cell::new(None));

/// It is so late now, in seconds since 1970. A device that has a clock with a battery asks that; another may ask its gateway,
/// or a time server that it trusts, once it has a connection.
fn set_clock(now: u64) {
    STARTED.lock(|started| started.set(Some(now.saturating_sub(Instant::now().as_secs()))));
}

/// Seconds since 1970. A function, for that is what a verifier of certificates is given.
fn clock() -> Option<u64> {
    STARTED.lock(Cell::get).map(|started| started.saturating_add(Instant::now().as_secs()))
}

/// One generator for several who want numbers: two of the same seed would give the same keys.
pub(crate) struct Shared<'a, R>(pub(crate) &'a RefCell<R>);

impl<R: CryptoRng> TryRng for Shared<'_, R> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.borrow_mut().next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.borrow_mut().next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.borrow_mut().fill_bytes(bytes);
        Ok(())
    }
}

impl<R: CryptoRng> TryCryptoRng for Shared<'_, R> {}

/// The two lines over TLS, to a gateway that one of these CAs vouches for. To be called once.
pub(crate) fn over<'a, C: Connect, R: CryptoRng>(
    [line, side]: [C; 2],
    settings: &Settings<'a>,
    cas: &'a [&'a [u8]],
    rng: &'a RefCell<R>,
    log: &'a RefCell<impl FnMut(fmt::Arguments<'_>)>,
) -> [impl Connect; 2] {
    if let Some(now) = settings.time {
        set_clock(now);
    }
    let config = TlsConfig { clock, ..TlsConfig::new(settings.name, Trust::Cas(cas)) };
    let secure = |tcp, buffers| {
        OnError::new(Tls::new(tcp, config, Shared(rng), buffers), |error: &_| {
            log.borrow_mut()(format_args!("{error}"))
        })
    };
    let [first, second] = BUFFERS.take();
    [secure(line, first), secure(side, second)]
}
