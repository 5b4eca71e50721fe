//! Connections with permessage-deflate, and what both ends hear of a wire.

use super::{AnyClient, End, Endpoint, Heard, Wire, every_split, transcript};
use longwire_core::ws::deflate::{Agreed, Window};
use longwire_core::ws::{Config, Delivery, MIN_RX, Server};

pub const PLAIN: Window = Window { bits: 15, takeover: false };
pub const KEPT: Window = Window { bits: 15, takeover: true };
pub const AGREED: Agreed = Agreed { server: PLAIN, client: PLAIN };
pub const TAKEOVER: Agreed = Agreed { server: KEPT, client: KEPT };

/// A text that was heard.
pub fn text(text: &str) -> Heard {
    Heard::Text(text.into())
}

/// What an end makes of a wire, at every split, in pieces and whole, with large and small buffers.
pub fn hears<R: End>(agreed: Agreed, wire: &Wire, want: &[Heard]) {
    for delivery in [Delivery::Whole, Delivery::Chunks] {
        for rx in [MIN_RX, MIN_RX + 1, MIN_RX + 5, 400, 4096] {
            every_split(wire.bytes(), |pieces| {
                let config = Config { delivery, ..Config::new() };
                let endpoint = Endpoint::<R>::with(config, rx, 4096).deflate(agreed);
                let got = transcript(endpoint, pieces);
                assert_eq!(got.heard, want, "{delivery:?}, {rx}, {pieces:x?}");
            });
        }
    }
}

/// The same of both ends.
pub fn both_hear(agreed: Agreed, wire: impl Fn(Wire) -> Wire, want: &[Heard]) {
    hears::<Server>(agreed, &wire(Wire::to::<Server>()), want);
    hears::<AnyClient>(agreed, &wire(Wire::to::<AnyClient>()), want);
}
