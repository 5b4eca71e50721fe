//! An input as a row of choices, for targets that do something instead of reading something.

/// Takes choices from the front of an input. Behind its end every choice is the first one, so any input is a whole
/// script, and a shorter one does less.
#[derive(Clone, Debug)]
pub(crate) struct Choices<'d>(&'d [u8]);

impl<'d> Choices<'d> {
    pub(crate) fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    /// Whether every further choice is the first one.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// From 0 to `max`. Two bytes of the input if it does not fit into one.
    pub(crate) fn upto(&mut self, max: usize) -> usize {
        let byte = usize::from(self.byte());
        let number = if max > 255 { byte << 8 | usize::from(self.byte()) } else { byte };
        number % (max + 1)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Any number, small or large, of a length that the first byte says.
    pub(crate) fn number(&mut self) -> u64 {
        (0..self.upto(8)).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// At most `max` bytes as they stand in the input, behind their length.
    pub(crate) fn bytes(&mut self, max: usize) -> &'d [u8] {
        let len = self.upto(max).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    /// Text: as [`bytes`](Self::bytes), up to the first that is not UTF-8.
    pub(crate) fn text(&mut self, max: usize) -> &'d str {
        let bytes = self.bytes(max);
        let valid = match std::str::from_utf8(bytes) {
            Ok(text) => return text,
            Err(error) => error.valid_up_to(),
        };
        std::str::from_utf8(&bytes[..valid]).unwrap()
    }

    /// Something, or nothing.
    pub(crate) fn option<T>(&mut self, take: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| take(self))
    }
}
