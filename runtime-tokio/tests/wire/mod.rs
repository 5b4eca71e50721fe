//! Frames as they are on the wire (RFC 6455 section 5.2), written without the code that is tested.
#![expect(clippy::cast_possible_truncation, reason = "each length is within its range")]

/// The header of a frame without a masking key. `first` is its first byte: FIN, the reserved bits, the opcode.
pub(crate) fn header(first: u8, len: usize) -> Vec<u8> {
    let (len, extended) = match len {
        0..126 => (len as u8, Vec::new()),
        126..0x1_0000 => (126, (len as u16).to_be_bytes().to_vec()),
        _ => (127, (len as u64).to_be_bytes().to_vec()),
    };
    [&[first, len][..], &extended].concat()
}

/// A client's frame: masked.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = header(first, payload.len());
    frame[1] |= 0x80;
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
