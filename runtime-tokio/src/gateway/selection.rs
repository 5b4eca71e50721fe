//! What a request for the stream asks for (`PROTOCOL.md` section 8.1).

use super::refused::Refused;
use crate::hub::{Filter, HubConfig};
use longwire_core::http::query::{DecodeError, Encoded, pairs};
use longwire_core::http::view::Request;
use longwire_core::log::{Cursor, Pattern, Policy, Since, UnknownPolicy};
use longwire_core::session::Code;
use longwire_core::session::publisher::Incarnation;
use std::time::Duration;

/// Events that one poll may ask for.
pub(super) const MAX_LIMIT: usize = 1000;
/// How long one poll may ask to wait.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(60);

/// The query of a stream, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// May be empty.
    pub(super) filter: Filter,
    pub(super) since: Option<Since>,
    pub(super) wait: Duration,
    pub(super) limit: usize,
    policy: Option<Policy>,
    pub(super) publisher: Option<Incarnation>,
}

impl Selection {
    /// Reads a query.
    pub(super) fn parse(query: &str, max_topics: usize) -> Result<Self, Refused> {
        let mut filter = Filter::default();
        for topic in all(query, "topic") {
            let topic = decode(topic, Code::BadTopic)?;
            filter.insert(Pattern::parse(&topic)?);
            if filter.len() > max_topics {
                return Err(Refused::new(
                    Code::TooManyTopics,
                    format!("more than {max_topics} patterns on one connection (max_topics)"),
                ));
            }
        }
        let since = match once(query, "since")? {
            Some(since) => Some(Since::parse(&decode(since, Code::BadCursor)?)?),
            None => None,
        };
        let wait = number(query, "wait")?.map_or(Duration::ZERO, Duration::from_secs).min(MAX_WAIT);
        let limit = match number(query, "limit")?.map(usize::try_from) {
            None | Some(Err(_)) => MAX_LIMIT,
            Some(Ok(0)) => return Err(Refused::bad_request("limit is at least 1")),
            Some(Ok(limit)) => limit.min(MAX_LIMIT),
        };
        let policy = match once(query, "policy")? {
            None => None,
            Some(policy) => match decode(policy, Code::BadRequest)?.parse() {
                Ok(policy) if Policy::OF_READERS.contains(&policy) => Some(policy),
                _ => return Err(Refused::bad_request(UnknownPolicy.as_str())),
            },
        };
        let publisher = match once(query, "publisher")? {
            Some(publisher) => Some(incarnation(&decode(publisher, Code::BadRequest)?)?),
            None => None,
        };
        Ok(Self { filter, since, wait, limit, publisher, policy })
    }

    /// What happens when this reader is too far behind.
    pub(super) fn policy(&self, config: &HubConfig) -> Result<Policy, Refused> {
        match self.policy {
            None => Ok(config.policy()),
            Some(policy) if config.allows(policy) => Ok(policy),
            Some(policy) => {
                Err(Refused::new(Code::Forbidden, format!("this gateway does not allow the policy {policy}")))
            }
        }
    }

    /// Whoever cannot subscribe later has to say what it wants to read.
    pub(super) fn require_topic(self) -> Result<Self, Refused> {
        if self.filter.is_empty() {
            return Err(Refused::bad_request("the parameter topic is missing"));
        }
        Ok(self)
    }

    /// Lets an `EventSource` go on from where it was: it repeats the URL, with the old `since`.
    pub(super) fn resume(mut self, request: &Request<'_>) -> Result<Self, Refused> {
        let id = request.headers().get_only("last-event-id");
        match id.map_err(|_| Refused::bad_request("more than one Last-Event-ID"))? {
            None | Some(b"") => {}
            Some(id) => {
                let cursor = Cursor::parse(str::from_utf8(id).unwrap_or_default())?;
                self.since = Some(Since::Cursor(cursor));
            }
        }
        Ok(self)
    }
}

/// The values of a parameter.
pub(super) fn all<'q>(query: &'q str, name: &str) -> impl Iterator<Item = Encoded<'q>> {
    pairs(query).filter(move |(n, _)| n.is(name)).map(|(_, value)| value)
}

/// The value of a parameter that may be given once.
pub(super) fn once<'q>(query: &'q str, name: &str) -> Result<Option<Encoded<'q>>, Refused> {
    let mut values = all(query, name);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Refused::bad_request(format!("the parameter {name} is given twice"))),
        (value, None) => Ok(value),
    }
}

/// The text that is meant. What is not UTF-8 breaks the rules of what it is used for.
pub(super) fn decode(value: Encoded<'_>, otherwise: Code) -> Result<String, Refused> {
    value.chars().collect::<Result<_, _>>().map_err(|error| match error {
        DecodeError::Utf8 => Refused::new(otherwise, error.as_str()),
        _ => Refused::bad_request(error.as_str()),
    })
}

fn incarnation(text: &str) -> Result<Incarnation, Refused> {
    text.parse().map_err(|_| Refused::bad_request("publisher is 16 lowercase hexadecimal digits"))
}

/// A whole number; one beyond 64 bits counts as the largest.
fn number(query: &str, name: &str) -> Result<Option<u64>, Refused> {
    let Some(value) = once(query, name)? else { return Ok(None) };
    let text = decode(value, Code::BadRequest)?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refused::bad_request(format!("{name} is a whole number without sign")));
    }
    Ok(Some(text.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Selection, Code> {
        Selection::parse(query, 2).map_err(|refused| refused.code)
    }

    #[test]
    fn the_defaults_are_those_of_the_specification() {
        let selection = parse("").unwrap();
        assert!(selection.filter.is_empty());
        assert_eq!((selection.since, selection.wait, selection.limit), (None, Duration::ZERO, 1000));
        assert_eq!(selection.require_topic().unwrap_err().code, Code::BadRequest);
    }

    #[test]
    fn the_query_is_form_encoded() {
        let publisher = parse("publisher=9f86d081884c7d6%35").unwrap().publisher;
        assert_eq!(publisher, Some(Incarnation(0x9f86_d081_884c_7d65)));
        let selection = parse("topic=a%2Fb+c&unknown=%zz&topic=**&since=latest&w%61it=7&limit=9").unwrap();
        assert_eq!(selection.filter.patterns().collect::<Vec<_>>(), ["**", "a/b c"]);
        assert_eq!(selection.since, Some(Since::Latest));
        assert_eq!((selection.wait, selection.limit), (Duration::from_secs(7), 9));
    }

    #[test]
    fn numbers_beyond_their_limit_count_as_the_limit() {
        for number in ["60", "61", "4294967296", "18446744073709551616", "99999999999999999999999"] {
            assert_eq!(parse(&format!("wait={number}")).unwrap().wait, MAX_WAIT);
        }
        for number in ["1000", "1001", "18446744073709551616"] {
            assert_eq!(parse(&format!("limit={number}")).unwrap().limit, MAX_LIMIT);
        }
        assert_eq!(parse("limit=1&wait=59").unwrap().limit, 1);
        assert_eq!(parse("limit=1&wait=59").unwrap().wait, Duration::from_secs(59));
    }

    #[test]
    fn a_policy_is_one_that_the_operator_allows_and_the_first_of_those_if_none_is_asked_for() {
        use Policy::{Conflate, Disconnect, DropNewest, DropOldest};
        let policy = |query, policies: &[Policy]| {
            let config = HubConfig { policies: policies.into(), ..HubConfig::default() };
            parse(query).unwrap().policy(&config).map_err(|refused| refused.code)
        };
        assert_eq!(policy("", &Policy::OF_READERS), Ok(DropOldest));
        assert_eq!(policy("policy=disconnect", &Policy::OF_READERS), Ok(Disconnect));
        assert_eq!(policy("policy=c%6fnflate", &[DropOldest, Conflate]), Ok(Conflate));
        assert_eq!(policy("policy=disconnect", &[DropOldest, Conflate]), Err(Code::Forbidden));
        assert_eq!(policy("", &[DropNewest, Disconnect]), Ok(Disconnect));
        assert_eq!(policy("", &[]), Ok(DropOldest));
    }

    #[test]
    fn what_is_wrong_has_its_code() {
        let cursor = "9f86d081884c7d65-1042";
        assert!(parse(&format!("topic=a&topic=b&topic=a&since={cursor}")).is_ok());
        for (query, code) in [
            ("topic=a&topic=b&topic=c", Code::TooManyTopics),
            ("topic=", Code::BadTopic),
            ("topic", Code::BadTopic),
            ("topic=a//b", Code::BadTopic),
            ("topic=a*", Code::BadTopic),
            ("topic=**/a", Code::BadTopic),
            ("topic=a%00", Code::BadTopic),
            ("topic=%ff", Code::BadTopic),
            ("topic=a%2", Code::BadRequest),
            ("since=", Code::BadCursor),
            ("since=Now", Code::BadCursor),
            ("since=9f86d081884c7d65-01", Code::BadCursor),
            ("since=now&since=now", Code::BadRequest),
            ("wait=1&wait=1", Code::BadRequest),
            ("limit=1&limit=1", Code::BadRequest),
            ("limit=0", Code::BadRequest),
            ("limit=00", Code::BadRequest),
            ("limit=", Code::BadRequest),
            ("limit=-1", Code::BadRequest),
            ("limit=%2B1", Code::BadRequest),
            ("limit=1.0", Code::BadRequest),
            ("wait=+1", Code::BadRequest),
            ("wait=1s", Code::BadRequest),
            ("policy=", Code::BadRequest),
            ("policy=drop_newest", Code::BadRequest),
            ("policy=Conflate", Code::BadRequest),
            ("policy=conflate&policy=conflate", Code::BadRequest),
            ("publisher=", Code::BadRequest),
            ("publisher=9f86d081884c7d6", Code::BadRequest),
            ("publisher=9f86d081884c7d650", Code::BadRequest),
            ("publisher=9F86D081884C7D65", Code::BadRequest),
            ("publisher=%ff86d081884c7d65", Code::BadRequest),
            ("publisher=9f86d081884c7d65&publisher=9f86d081884c7d65", Code::BadRequest),
        ] {
            assert_eq!(parse(query), Err(code), "{query}");
        }
    }
}
