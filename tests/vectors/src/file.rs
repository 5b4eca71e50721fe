//! The file: vectors, their lines, and their cases.

use crate::run::wrong;
use crate::{Bytes, FILE, Wrong};

/// A name, and the indented lines below it.
#[derive(Clone, Copy, Debug)]
pub struct Vector {
    /// Its first line: what it is about, and its name.
    pub head: Line,
    body: &'static str,
}

/// A line, with its number in the file.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Counted from 1.
    pub number: u32,
    /// The first word.
    pub word: &'static str,
    /// What stands behind it, without the comment.
    pub rest: &'static str,
}

/// One wire of a vector.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The vector.
    pub vector: Vector,
    /// Which of its wires, counted from 1.
    pub number: usize,
    wire: Line,
}

/// All vectors, in the order of the file.
pub fn vectors() -> impl Iterator<Item = Vector> + Clone {
    let mut lines = Lines { text: FILE, number: 0 };
    let mut begun = false;
    core::iter::from_fn(move || {
        let head = lines.by_ref().find(|line| begun || line.word != "let")?;
        begun = true;
        let body = lines.text;
        while lines.text.starts_with([' ', '#', '\n']) {
            lines.next_line();
        }
        let len = body.len().saturating_sub(lines.text.len());
        Some(Vector { head, body: body.get(..len).unwrap_or_default() })
    })
}

/// All cases of all vectors, in the order of the file.
pub fn cases() -> impl Iterator<Item = Case> + Clone {
    vectors().flat_map(Vector::cases)
}

/// What `let NAME` stands for. These lines come before the first vector, so that nobody has to look far.
pub(crate) fn named(name: &[u8]) -> Option<&'static str> {
    let lets = Lines { text: FILE, number: 0 }.take_while(|line| line.word == "let");
    lets.filter_map(|line| line.rest.split_once(' '))
        .find(|(n, _)| n.as_bytes() == name)
        .map(|(_, bytes)| bytes)
}

impl Vector {
    /// The lines below its name.
    pub fn lines(&self) -> impl Iterator<Item = Line> + Clone + use<> {
        Lines { text: self.body, number: self.head.number }
    }

    /// Its wires. One without any is one that fails.
    pub fn cases(self) -> impl Iterator<Item = Case> + Clone {
        let wires = self.lines().filter(|line| line.word == "wire");
        let none = wires.clone().next().is_none().then_some(self.head);
        wires.chain(none).enumerate().map(move |(n, wire)| Case { vector: self, number: n + 1, wire })
    }

    /// The one line that begins with this word, if there is one.
    pub fn line(&self, word: &str) -> Option<Line> {
        self.lines().find(|line| line.word == word)
    }

    /// The number behind this word.
    pub(crate) fn number(&self, word: &str) -> Result<Option<u64>, Wrong> {
        self.line(word).map(|line| line.parse()).transpose()
    }

    /// Fails at a word that a vector of this kind does not know, or that it has twice.
    pub(crate) fn knows(&self, once: &[&str], often: &[&str]) -> Result<(), Wrong> {
        for line in self.lines() {
            let twice = || self.lines().any(|other| other.word == line.word && other.number < line.number);
            match line.word {
                "wire" => {}
                word if often.contains(&word) => {}
                word if !once.contains(&word) => return wrong!(line, "no word of such a vector: {word}"),
                word if twice() => return wrong!(line, "a second {word}"),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Case {
    /// The bytes that arrive.
    ///
    /// # Errors
    /// They are malformed, or there are none.
    pub fn wire(&self) -> Result<Bytes<'static>, Wrong> {
        if self.wire.word != "wire" {
            return wrong!(self.wire, "a vector without a wire");
        }
        self.wire.bytes()
    }

    /// What it is about: `ws`, `request`, `response` or `sse`.
    pub fn kind(&self) -> &'static str {
        self.vector.head.word
    }

    /// The name of its vector, which says what is special about it.
    pub fn name(&self) -> &'static str {
        self.vector.head.rest
    }
}

impl Line {
    /// Bytes, and nothing else.
    pub(crate) fn bytes(&self) -> Result<Bytes<'static>, Wrong> {
        let [bytes] = self.list()?;
        Ok(bytes)
    }

    /// As many bytes as that, with commas between them.
    pub(crate) fn list<const N: usize>(&self) -> Result<[Bytes<'static>; N], Wrong> {
        let mut rest = self.rest;
        let mut malformed = false;
        let list = core::array::from_fn(|_| {
            let parsed = Bytes::parse(rest);
            malformed |= parsed.is_none();
            let (bytes, after) = parsed.unwrap_or_else(Bytes::nothing);
            rest = after;
            bytes
        });
        if malformed || !rest.is_empty() {
            return wrong!(self, "malformed bytes");
        }
        Ok(list)
    }

    /// A number, and nothing else.
    pub(crate) fn parse<T: core::str::FromStr>(&self) -> Result<T, Wrong> {
        self.rest.parse().or_else(|_| wrong!(self, "no such number: {}", self.rest))
    }
}

/// The lines that say something. A backslash at the end of a line goes on in the next.
#[derive(Clone)]
struct Lines {
    text: &'static str,
    number: u32,
}

impl Lines {
    fn next_line(&mut self) -> Option<&'static str> {
        if self.text.is_empty() {
            return None;
        }
        let mut end = 0;
        loop {
            let rest = self.text.get(end..)?;
            let len = rest.find('\n').unwrap_or(rest.len());
            end += len;
            self.number += 1;
            if end == self.text.len() || !rest.get(..len)?.ends_with('\\') {
                break;
            }
            end += 1;
        }
        let line = self.text.get(..end)?;
        self.text = self.text.get(end + 1..).unwrap_or_default();
        Some(line)
    }
}

impl Iterator for Lines {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        loop {
            let line = uncomment(self.next_line()?).trim();
            if !line.is_empty() {
                let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
                return Some(Line { number: self.number, word, rest: rest.trim() });
            }
        }
    }
}

/// Without what stands behind `#`, unless that is quoted.
fn uncomment(line: &str) -> &str {
    if !line.contains('#') {
        return line;
    }
    let (mut quoted, mut escaped) = (false, false);
    let end = line.bytes().position(|byte| {
        quoted ^= byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        byte == b'#' && !quoted
    });
    line.get(..end.unwrap_or(line.len())).unwrap_or(line)
}
