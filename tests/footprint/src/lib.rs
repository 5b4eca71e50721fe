//! What longwire takes of a device: the sizes of its state ([`STATE`]), and, in `bin/`, programs that use one part of
//! it each and are linked to see how much code that is. `tests/sizes` builds them and prints the tables.
#![no_std]

use core::mem::size_of;

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use longwire_core::{buf, http, log, session, sse, ws};
use longwire_embassy as embassy;

/// A generator that holds nothing: the user's own comes on top.
pub struct NoState;

impl longwire_core::rand_core::TryRng for NoState {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(any())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(any())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        read(bytes);
        Ok(())
    }
}

impl longwire_core::rand_core::TryCryptoRng for NoState {}

type Socket = embassy_net::tcp::TcpSocket<'static>;

macro_rules! state {
    ($($name:literal = $bytes:expr;)*) => {
        /// What it is, and how many bytes.
        pub const STATE: &[(&str, usize)] = &[$(($name, $bytes),)*];
    };
}

state! {
    "buf::RxCursor" = size_of::<buf::RxCursor>();
    "buf::TxCursor" = size_of::<buf::TxCursor>();
    "http::head::HeadReader" = size_of::<http::head::HeadReader>();
    "http::body::BodyReader" = size_of::<http::body::BodyReader>();
    "http::upgrade::ClientUpgrade" = size_of::<http::upgrade::ClientUpgrade>();
    "ws::Config" = size_of::<ws::Config>();
    "ws::Connection<Server>" = size_of::<ws::Connection<ws::Server>>();
    "ws::Connection<Client>" = size_of::<ws::Connection<ws::Client<NoState>>>();
    "sse::Decoder" = size_of::<sse::Decoder>();
    "log::Cursor" = size_of::<log::Cursor>();
    "session::backoff::Backoff" = size_of::<session::backoff::Backoff>();
    "session::ServerMessage" = size_of::<session::ServerMessage<'static>>();
    "embassy::WebSocket<TcpSocket>" = size_of::<embassy::WebSocket<'static, Socket, NoState>>();
    "embassy::Uplink<Tcp>" = size_of::<embassy::Uplink<'static, embassy::Tcp<'static>, NoState>>();
    "embassy::Inflater<512>" = size_of::<embassy::Inflater<512>>();
    "embassy::Inflater<4096>" = size_of::<embassy::Inflater<4096>>();
    "embassy::Inflater<32768>" = size_of::<embassy::Inflater<32768>>();
    "embassy::Outbox, beside its bytes" = size_of::<embassy::Outbox<NoopRawMutex, 1024>>() - 1024;
}

/// A number from outside.
pub fn any<T: Copy + Default>() -> T {
    core::hint::black_box(T::default())
}

/// Bytes from outside; says how many.
pub fn read(bytes: &mut [u8]) -> usize {
    core::hint::black_box(bytes);
    any()
}

/// Bytes to the outside; says how many were taken.
pub fn write(bytes: &[u8]) -> usize {
    core::hint::black_box(bytes);
    any()
}

/// The devices' handler: there is nobody to tell.
#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
