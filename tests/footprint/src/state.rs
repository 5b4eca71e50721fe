//! The sizes of what lives as long as a connection.

use core::mem::size_of;

use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use longwire_core::{buf, http, log, session, sse, ws};
use longwire_embassy as embassy;

use crate::NoState;

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
