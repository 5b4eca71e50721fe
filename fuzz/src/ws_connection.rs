//! WebSocket connections of both roles.

use crate::common::{AnyClient, End, Endpoint, Flush, limits, transcript};
use crate::cuts::pieces;
use longwire_core::ws::{Config, Delivery, MIN_RX, MIN_TX, Server};

/// `flags | receive buffer | send buffer | longest piece | seed | max_message / 64 | wire`, a byte each before the
/// wire. The flags: 1 client, 2 chunks, 4 flush only when asked, 8 no limits.
///
/// What the endpoint itself checks on the way is in `core/tests/common/endpoint.rs`: that no event follows an error,
/// that space asked for is more than there is, that a turn ends, that pieces are whole characters.
///
/// # Panics
/// When an endpoint makes something else of the pieces than of the whole, or breaks its calling contract.
pub fn ws_connection(data: &[u8]) {
    let Some((setup, wire)) = data.split_first_chunk() else { return };
    if setup[0] & 1 == 0 { agrees::<Server>(setup, wire) } else { agrees::<AnyClient>(setup, wire) }
}

fn agrees<R: End>(&[flags, rx, tx, longest, seed, limit]: &[u8; 6], wire: &[u8]) {
    let base = match flags & 8 {
        0 => limits(64 * u64::from(limit), 20),
        // What fits a buffer: more is refused under `Whole` alone.
        _ => limits(u64::from(u32::MAX) - MIN_RX as u64, u32::MAX),
    };
    let whole = {
        let config = Config { delivery: Delivery::Chunks, ..base.clone() };
        transcript(Endpoint::<R>::with(config, wire.len() + MIN_RX, 2 * wire.len() + MIN_TX), &[wire])
    };
    let delivery = if flags & 2 == 0 { Delivery::Whole } else { Delivery::Chunks };
    // Under `Whole` the buffer grows from any size. Under `Chunks` it never has to.
    let least = if delivery == Delivery::Whole { 0 } else { MIN_RX };
    let config = Config { delivery, ..base };
    let mut endpoint = Endpoint::<R>::with(config, least + usize::from(rx), MIN_TX + usize::from(tx));
    endpoint.flush = if flags & 4 == 0 { Flush::Always } else { Flush::WhenAsked };
    let cut = transcript(endpoint, &pieces(wire, longest, seed));
    assert_eq!(cut, whole);
}
