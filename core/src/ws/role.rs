//! The two ends of a connection differ in one thing: a client masks what it sends (RFC 6455 section 5.1).

use rand_core::Rng;

/// Which end of a connection this is. Implemented by [`Client`] and [`Server`] only.
pub trait Role: sealed::Sealed {
    /// Whether this end masks what it sends, and expects unmasked frames.
    const IS_CLIENT: bool;

    /// A new masking key for each frame that is sent; asked once a frame, and only of a client.
    #[doc(hidden)]
    fn next_mask(&mut self) -> Option<[u8; 4]>;
}

/// The accepting end. Holds nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Server;

/// The connecting end. Holds the generator of its masks, which must be unpredictable to whoever supplies the
/// payload (RFC 6455 section 10.3): a cryptographic generator, or one seeded from the board's noise source.
#[derive(Clone, Debug)]
pub struct Client<G>(pub G);

impl Role for Server {
    const IS_CLIENT: bool = false;

    fn next_mask(&mut self) -> Option<[u8; 4]> {
        None
    }
}

impl<G: Rng> Role for Client<G> {
    const IS_CLIENT: bool = true;

    fn next_mask(&mut self) -> Option<[u8; 4]> {
        Some(self.0.next_u32().to_ne_bytes())
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Server {}
    impl<G> Sealed for super::Client<G> {}
}
