//! A wire, cut.

/// Calls `check` with `wire` cut in two at every byte, in three if it is short, and byte by byte. The whole
/// wire, in one piece, comes first.
pub fn every_split(wire: &[u8], mut check: impl FnMut(&[&[u8]])) {
    check(&[wire]);
    for a in 1..wire.len() {
        let (one, rest) = wire.split_at(a);
        check(&[one, rest]);
        if wire.len() <= 40 {
            for b in 1..rest.len() {
                let (two, three) = rest.split_at(b);
                check(&[one, two, three]);
            }
        }
    }
    check(&wire.chunks(1).collect::<Vec<_>>());
}
