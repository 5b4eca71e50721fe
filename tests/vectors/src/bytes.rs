//! Bytes as they are written in the file: hex, text, repetitions, groups, masks, and names.

use crate::file;

/// How deep groups, repetitions and names may lie in each other.
const DEPTH: usize = 8;

/// Bytes, spelled out one by one as they are asked for: a million of them take no memory.
#[derive(Clone, Debug)]
pub struct Bytes<'a> {
    text: &'a [u8],
    at: usize,
    /// Between quotes.
    quoted: bool,
    stack: heapless::Vec<Frame<'a>, DEPTH>,
    mask: Option<Mask>,
    /// Repetitions count once: enough to see whether all is well formed.
    once: bool,
    malformed: bool,
}

/// What ends when an atom or a group does.
#[derive(Clone, Debug)]
enum Frame<'a> {
    /// `N*` before an atom, which begins at `start`.
    Atom { start: usize, left: u32 },
    /// `(` or `N*(` or `mask(`.
    Group { start: usize, left: u32, masks: bool },
    /// `$name`: where it goes on behind.
    Name { text: &'a [u8], at: usize },
}

/// Four bytes of key, and then what they are laid over (RFC 6455 section 5.3).
#[derive(Clone, Debug, Default)]
struct Mask {
    key: [u8; 4],
    count: u32,
}

impl<'a> Bytes<'a> {
    /// The bytes that `text` stands for, up to a comma; and what follows the comma. `None` when it is malformed.
    pub(crate) fn parse(text: &'a str) -> Option<(Self, &'a str)> {
        let new = Self::of(text);
        let mut dry = Self { once: true, ..new.clone() };
        dry.by_ref().for_each(drop);
        let whole = !dry.malformed && !dry.quoted && dry.stack.is_empty();
        // Behind the comma, or behind the end.
        whole.then_some((new, text.get(dry.at + 1..).unwrap_or_default()))
    }

    /// None at all.
    pub(crate) fn nothing() -> (Self, &'a str) {
        (Self::of(""), "")
    }

    fn of(text: &'a str) -> Self {
        Self {
            text: text.as_bytes(),
            at: 0,
            quoted: false,
            stack: heapless::Vec::new(),
            mask: None,
            once: false,
            malformed: false,
        }
    }

    /// The next byte, if it is of the text between quotes: an escape, or a byte as it is.
    fn in_quotes(&mut self) -> Option<u8> {
        let byte = self.take()?;
        if byte != b'\\' {
            return Some(byte);
        }
        Some(match self.take()? {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'x' => self.hex()?,
            escaped @ (b'"' | b'\\') => escaped,
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u8> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (high, low) = (digit(self.take()?)?, digit(self.take()?)?);
        u8::try_from(16 * high + low).ok()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = *self.text.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Takes `word`, if it comes next.
    fn skip(&mut self, word: &[u8]) -> bool {
        let here = self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word));
        self.at += if here { word.len() } else { 0 };
        here
    }

    /// `N*`, of which N is at least 1.
    fn count(&mut self) -> Option<u32> {
        let rest = self.text.get(self.at..)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if rest.get(digits) != Some(&b'*') {
            return None;
        }
        let count =
            core::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok().filter(|count| *count > 0)?;
        self.at += digits + 1;
        Some(if self.once { 1 } else { count })
    }

    /// Begins whatever begins here, and says a byte if that is one. `None` ends it all.
    fn begin(&mut self, first: u8) -> Option<Option<u8>> {
        if first.is_ascii_whitespace() || first == b'\\' {
            self.at += 1;
        } else if self.skip(b"\"") {
            self.quoted = true;
        } else if self.skip(b"mask(") {
            if self.mask.replace(Mask::default()).is_some() {
                return None;
            }
            self.push(Frame::Group { start: self.at, left: 1, masks: true })?;
        } else if self.skip(b"(") {
            self.push(Frame::Group { start: self.at, left: 1, masks: false })?;
        } else if self.skip(b")") {
            self.end_group()?;
        } else if self.skip(b"$") {
            let rest = self.text.get(self.at..)?;
            let len = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
            let text = file::named(rest.get(..len)?)?;
            self.push(Frame::Name { text: self.text, at: self.at + len })?;
            (self.text, self.at) = (text.as_bytes(), 0);
        } else if let Some(left) = self.count() {
            let group = self.skip(b"(");
            let start = self.at;
            self.push(if group {
                Frame::Group { start, left, masks: false }
            } else {
                Frame::Atom { start, left }
            })?;
        } else {
            let byte = self.hex()?;
            if !self.text.get(self.at).is_some_and(u8::is_ascii_hexdigit) {
                self.end_atom();
            }
            return Some(Some(byte));
        }
        Some(None)
    }

    fn push(&mut self, frame: Frame<'a>) -> Option<()> {
        self.stack.push(frame).ok()
    }

    /// Goes back to where a repeated atom begins, as often as it wants.
    fn end_atom(&mut self) {
        if let Some(Frame::Atom { start, left }) = self.stack.last_mut() {
            *left = left.saturating_sub(1);
            if *left > 0 {
                self.at = *start;
            } else {
                self.stack.pop();
            }
        }
    }

    fn end_group(&mut self) -> Option<()> {
        let Some(Frame::Group { start, left, masks }) = self.stack.last_mut() else { return None };
        *left = left.saturating_sub(1);
        if *left > 0 {
            self.at = *start;
            return Some(());
        }
        if *masks {
            // A mask without its four bytes of key masks nothing.
            self.mask.take().filter(|mask| mask.count >= 4)?;
        }
        self.stack.pop();
        self.end_atom();
        Some(())
    }

    /// At the end of the text: behind the name that stands for it, or at the end of all.
    fn end_text(&mut self) -> bool {
        let Some(Frame::Name { text, at }) = self.stack.last() else { return false };
        (self.text, self.at) = (*text, *at);
        self.stack.pop();
        self.end_atom();
        true
    }

    fn masked(&mut self, byte: u8) -> u8 {
        let Some(mask) = &mut self.mask else { return byte };
        let at = (mask.count % 4) as usize;
        let masks = mask.count >= 4;
        mask.count = mask.count.wrapping_add(1).max(u32::from(masks) * 4);
        match mask.key.get_mut(at) {
            Some(key) if masks => byte ^ *key,
            Some(key) => {
                *key = byte;
                byte
            }
            None => byte,
        }
    }
}

impl Iterator for Bytes<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        while !self.malformed {
            let found = match self.text.get(self.at) {
                Some(b'"') if self.quoted => {
                    (self.quoted, self.at) = (false, self.at + 1);
                    self.end_atom();
                    continue;
                }
                Some(_) if self.quoted => self.in_quotes().map(Some),
                Some(b',') if self.stack.is_empty() => return None,
                Some(first) => self.begin(*first),
                None if self.end_text() => continue,
                None => return None,
            };
            match found {
                Some(Some(byte)) => return Some(self.masked(byte)),
                Some(None) => {}
                None => self.malformed = true,
            }
        }
        None
    }
}
