//! Lists of patterns as they lie in a message.

use super::Text;
use core::fmt;

/// The field `topics`: texts, walked where they lie, one after the other.
///
/// Decoding has checked that they are texts, not that they are patterns: see [`Text::pattern`]. There may be as many
/// as fit in a message; it is up to the reader to stop at its own limit. Two lists are equal when their texts are.
///
/// ```
/// use longwire_core::session::Topics;
///
/// let topics = Topics::from(&["fleet/**", "alarms"][..]);
/// assert!(topics.iter().eq(["fleet/**", "alarms"]));
/// ```
#[derive(Clone, Copy)]
pub struct Topics<'b>(pub(super) Form<'b>);

/// The forms that a list arrives in.
#[derive(Clone, Copy)]
pub(super) enum Form<'b> {
    List(&'b [&'b str]),
    /// A checked JSON array of strings.
    #[cfg(feature = "json")]
    Json(&'b [u8]),
    /// Checked CBOR texts, one behind the other: the array without its head and "break".
    #[cfg(feature = "cbor")]
    Cbor(&'b [u8]),
}

impl<'b> Topics<'b> {
    /// The texts, in order.
    pub fn iter(self) -> TopicsIter<'b> {
        TopicsIter(match self.0 {
            Form::List(list) => Walk::List(list.iter()),
            #[cfg(feature = "json")]
            Form::Json(array) => Walk::Json(super::json::Scanner::new(array)),
            #[cfg(feature = "cbor")]
            Form::Cbor(texts) => Walk::Cbor(texts),
        })
    }

    /// How many there are: one pass over the list.
    pub fn len(self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }
}

impl<'b> From<&'b [&'b str]> for Topics<'b> {
    fn from(list: &'b [&'b str]) -> Self {
        Self(Form::List(list))
    }
}

impl<'b> IntoIterator for Topics<'b> {
    type Item = Text<'b>;
    type IntoIter = TopicsIter<'b>;

    fn into_iter(self) -> TopicsIter<'b> {
        self.iter()
    }
}

impl PartialEq for Topics<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Topics<'_> {}

impl fmt::Debug for Topics<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Walks [`Topics`].
#[derive(Clone)]
pub struct TopicsIter<'b>(Walk<'b>);

const _: () = assert!(size_of::<TopicsIter<'_>>() <= 72);

#[derive(Clone)]
enum Walk<'b> {
    List(core::slice::Iter<'b, &'b str>),
    #[cfg(feature = "json")]
    Json(super::json::Scanner<'b>),
    #[cfg(feature = "cbor")]
    Cbor(&'b [u8]),
}

impl<'b> Iterator for TopicsIter<'b> {
    type Item = Text<'b>;

    fn next(&mut self) -> Option<Text<'b>> {
        match &mut self.0 {
            Walk::List(list) => list.next().map(|text| Text::from(*text)),
            #[cfg(feature = "json")]
            Walk::Json(scanner) => loop {
                match scanner.next().ok()?? {
                    super::json::Token::BeginArray => {}
                    super::json::Token::String(text) => return Some(text),
                    _ => return None,
                }
            },
            #[cfg(feature = "cbor")]
            Walk::Cbor(rest) => super::cbor::next_text(rest),
        }
    }
}

impl fmt::Debug for TopicsIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicsIter").finish_non_exhaustive()
    }
}
