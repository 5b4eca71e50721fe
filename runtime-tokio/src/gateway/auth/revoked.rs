//! Who is shut out, whatever credential they hold: a list in a file.

use super::FileError;
use std::collections::HashSet;

/// Bytes of a line.
const MAX_LINE: usize = 1024;

/// Subjects, and ids of tokens, that are not accepted any more: one on each line. Empty lines, and those that begin
/// with `#`, are for people.
///
/// ```
/// use longwire::gateway::Revoked;
///
/// let revoked = Revoked::parse("# left in May\ndevice-7\n\ne3b0c442\n")?;
/// assert!(revoked.contains("device-7") && revoked.contains("e3b0c442") && !revoked.contains("device-8"));
/// # Ok::<(), longwire::gateway::FileError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked(HashSet<Box<str>>);

impl Revoked {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// A line has more than 1,024 bytes.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let mut names = HashSet::new();
        for (n, line) in (1..).zip(text.lines()) {
            if line.len() > MAX_LINE {
                return Err(FileError(format!("line {n}: longer than {MAX_LINE} bytes")));
            }
            let name = line.trim();
            if !name.is_empty() && !name.starts_with('#') {
                names.insert(name.into());
            }
        }
        Ok(Self(names))
    }

    /// Whether a subject, or the id of a token, is among them.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Those that are not among others.
    pub(super) fn beyond<'s>(&'s self, others: &'s Self) -> impl Iterator<Item = Box<str>> + use<'s> {
        self.0.difference(&others.0).cloned()
    }
}
