//! What an address may have under way before it has said who it is.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the connections whose first request has not come yet, by address. An address that has none is not in the
/// table, so it is bounded by the connections that there may be.
#[derive(Debug)]
pub(super) struct Handshakes {
    most: u32,
    counts: Mutex<HashMap<IpAddr, u32>>,
}

/// The place of one such connection. Dropped when its request is there, or it is gone.
#[derive(Debug)]
pub(super) struct Handshake {
    of: Arc<Handshakes>,
    address: IpAddr,
}

impl Handshakes {
    /// At most so many for each address.
    pub(super) fn new(most: u32) -> Arc<Self> {
        // With none at all, nobody could come in.
        Arc::new(Self { most: most.max(1), counts: Mutex::default() })
    }

    /// A place for a connection of this address; `None` when it has as many as it may.
    pub(super) fn begin(self: &Arc<Self>, ip: IpAddr) -> Option<Handshake> {
        let address = network(ip);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Handshake { of: Arc::clone(self), address })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut counts = self.of.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Whoever has one address of IPv6 has its whole /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_places_and_gets_them_back() {
        let handshakes = Handshakes::new(2);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let begin = |text: &str| handshakes.begin(ip(text));
        let first = begin("192.0.2.1");
        let second = begin("::ffff:192.0.2.1");
        assert!(first.is_some() && second.is_some());
        assert!(begin("192.0.2.1").is_none());
        assert!(begin("192.0.2.2").is_some());
        drop(first);
        let third = begin("192.0.2.1");
        assert!(third.is_some() && begin("192.0.2.1").is_none());
        // A /64 is one address.
        let held = [begin("2001:db8:0:1::1"), begin("2001:db8:0:1:ffff::2")];
        assert!(held.iter().all(Option::is_some) && begin("2001:db8:0:1::3").is_none());
        assert!(begin("2001:db8:0:2::1").is_some());
        drop((second, third, held));
        assert!(handshakes.counts.lock().unwrap().is_empty());
    }
}
