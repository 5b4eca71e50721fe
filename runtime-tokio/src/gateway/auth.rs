//! Static credentials from a file.

use crate::hub::{Authorize, Authorizing, Denied, Filter, Grant, Logs};
use jiff::Timestamp;
use longwire_core::log::{LogName, Pattern};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Largest token file that is read.
const MAX_FILE: usize = 16 << 20;

/// Credentials from a file in TOML: who holds which secret, until when, and what it allows.
///
/// ```
/// use longwire::gateway::TokenFile;
///
/// let tokens = TokenFile::parse(r#"
///     [[token]]
///     secret = "5f1d7e84a6c34e0b"          # as in `Authorization: Bearer 5f1d7e84a6c34e0b`
///     subject = "dashboard"
///     subscribe = ["fleet/**"]             # patterns; none if absent
///     publish = []
///     logs = ["default", "telemetry"]      # names, or "*" for all; the default log if absent
///     expires = 2099-12-31T23:59:59Z       # RFC 3339; never if absent
/// "#)?;
/// assert_eq!(tokens.len(), 1);
/// # Ok::<(), longwire::gateway::TokenFileError>(())
/// ```
///
/// Secrets are kept and looked up by their SHA-256 only: how long a look-up takes says nothing about them.
#[derive(Debug)]
pub struct TokenFile {
    tokens: HashMap<[u8; 32], Token>,
}

#[derive(Debug)]
struct Token {
    grant: Grant,
    expires: Option<SystemTime>,
}

/// Why a token file cannot be used, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFileError(String);

impl fmt::Display for TokenFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TokenFileError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    secret: String,
    subject: String,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
    logs: Option<Vec<String>>,
    expires: Option<Expires>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expires {
    Date(toml::value::Datetime),
    Text(String),
}

impl TokenFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or [parsed](Self::parse).
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TokenFileError> {
        let path = path.as_ref();
        let named =
            |error: &dyn fmt::Display| TokenFileError(format!("token file {}: {error}", path.display()));
        let len = std::fs::metadata(path).map_err(|error| named(&error))?.len();
        if len > MAX_FILE as u64 {
            return Err(named(&"larger than 16 MiB"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        Self::parse(&text).map_err(|error| named(&error))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// It is not TOML of the right shape, has no token, or a secret twice; a secret is not 1 to 1,024 visible ASCII
    /// characters, a pattern is none, or a date is not RFC 3339.
    pub fn parse(text: &str) -> Result<Self, TokenFileError> {
        let file: File = toml::from_str(text).map_err(|error| TokenFileError(place(text, &error)))?;
        let mut tokens = HashMap::new();
        for (n, entry) in (1..).zip(file.token) {
            let wrong = |what: &dyn fmt::Display| {
                // Never the secret.
                TokenFileError(format!("token {n} ({}): {what}", entry.subject.escape_debug()))
            };
            let visible = entry.secret.bytes().all(|b| b.is_ascii_graphic());
            if !visible || !(1..=1024).contains(&entry.secret.len()) {
                return Err(wrong(&"a secret is 1 to 1024 visible ASCII characters"));
            }
            let grant = Grant {
                subject: entry.subject.as_str().into(),
                expires: None,
                logs: logs(entry.logs.as_deref()).map_err(|error| wrong(&error))?,
                subscribe: patterns(&entry.subscribe).map_err(|error| wrong(&error))?,
                publish: patterns(&entry.publish).map_err(|error| wrong(&error))?,
            };
            let expires =
                entry.expires.as_ref().map(Expires::time).transpose().map_err(|error| wrong(&error))?;
            if tokens.insert(digest(&entry.secret), Token { grant, expires }).is_some() {
                return Err(wrong(&"its secret is another token's, too"));
            }
        }
        if tokens.is_empty() {
            return Err(TokenFileError("no [[token]]: nobody could connect".into()));
        }
        Ok(Self { tokens })
    }

    /// How many tokens there are.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    fn look_up(&self, credential: Option<&str>) -> Result<Grant, Denied> {
        let secret = credential.ok_or(Denied("a token is needed"))?;
        let token = self.tokens.get(&digest(secret)).ok_or(Denied("the token is not known"))?;
        let mut grant = token.grant.clone();
        if let Some(expires) = token.expires {
            let left = expires.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
            if left.is_zero() {
                return Err(Denied("the token has expired"));
            }
            // Beyond what the clock can say it never ends.
            grant.expires = Instant::now().checked_add(left);
        }
        Ok(grant)
    }
}

impl Authorize for TokenFile {
    fn authorize<'a>(&'a self, credential: Option<&'a str>) -> Authorizing<'a> {
        Box::pin(std::future::ready(self.look_up(credential)))
    }
}

impl Expires {
    fn time(&self) -> Result<SystemTime, String> {
        let text = match self {
            Self::Date(date) => date.to_string(),
            Self::Text(text) => text.clone(),
        };
        let time: Result<Timestamp, _> = text.parse();
        time.map(SystemTime::from).map_err(|_| {
            format!("expires is not a date with time and offset (RFC 3339): {}", text.escape_debug())
        })
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

fn patterns(texts: &[String]) -> Result<Filter, String> {
    let parse = |text: &String| match Pattern::parse(text) {
        Ok(pattern) => Ok(pattern.as_str().to_owned()),
        Err(error) => Err(format!("pattern {}: {error}", text.escape_debug())),
    };
    let texts = texts.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    Ok(texts.iter().filter_map(|text| Pattern::parse(text).ok()).collect())
}

/// The logs of a token: those named, all of them with `*`, and the default log when nothing is said.
fn logs(names: Option<&[String]>) -> Result<Logs, String> {
    let Some(names) = names else { return Ok(Logs::default()) };
    if names.iter().any(|name| name == "*") {
        return Ok(Logs::All);
    }
    let check = |name: &String| match LogName::parse(name) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(error) => Err(format!("log {}: {error}", name.escape_debug())),
    };
    names.iter().map(check).collect()
}

/// What is wrong with a file, in one line that shows nothing of it but where.
fn place(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire_core::log::Topic;

    const FILE: &str = r#"
[[token]]
secret = "s3cret-dashboard"
subject = "dashboard"
subscribe = ["fleet/**", "site/*/power"]
logs = ["default", "telemetry"]

[[token]]
secret = "s3cret-device"
subject = "device 7"
publish = ["fleet/7/*"]
expires = 2099-12-31T23:59:59+01:00

[[token]]
secret = "s3cret-old"
subject = "old"
expires = "2001-01-01T00:00:00Z"

[[token]]
secret = "s3cret-operator"
subject = "operator"
logs = ["*"]

[[token]]
secret = "s3cret-nowhere"
subject = "nowhere"
logs = []
"#;

    #[test]
    fn a_secret_gets_its_grant() {
        let tokens = TokenFile::parse(FILE).unwrap();
        assert_eq!(tokens.len(), 5);
        let may_read = |grant: &Grant, pattern| grant.may_subscribe(Pattern::parse(pattern).unwrap());
        let may_write = |grant: &Grant, topic| grant.may_publish(Topic::parse(topic).unwrap());

        let dashboard = tokens.look_up(Some("s3cret-dashboard")).unwrap();
        assert_eq!((&*dashboard.subject, dashboard.expires), ("dashboard", None));
        assert!(may_read(&dashboard, "fleet/*/cpu") && may_read(&dashboard, "site/*/power"));
        assert!(!may_read(&dashboard, "**") && !may_write(&dashboard, "fleet/7/cpu"));

        let device = tokens.look_up(Some("s3cret-device")).unwrap();
        assert!(may_write(&device, "fleet/7/cpu") && !may_write(&device, "fleet/8/cpu"));
        assert!(!may_read(&device, "fleet/7/cpu"));
        assert!(device.expires.unwrap() > Instant::now() + Duration::from_secs(86_400 * 365));
    }

    #[test]
    fn a_grant_is_for_the_default_log_unless_the_file_names_others() {
        let tokens = TokenFile::parse(FILE).unwrap();
        for (secret, allowed) in [
            ("s3cret-device", [true, false, false]),
            ("s3cret-dashboard", [true, true, false]),
            ("s3cret-operator", [true, true, true]),
            ("s3cret-nowhere", [false, false, false]),
        ] {
            let logs = tokens.look_up(Some(secret)).unwrap().logs;
            assert_eq!(["default", "telemetry", "other"].map(|log| logs.contains(log)), allowed, "{secret}");
        }
    }

    #[test]
    fn no_wrong_and_expired_secrets_are_denied() {
        let tokens = TokenFile::parse(FILE).unwrap();
        for (secret, why) in [
            (None, "a token is needed"),
            (Some(""), "the token is not known"),
            (Some("s3cret-dashboar"), "the token is not known"),
            (Some("s3cret-dashboard "), "the token is not known"),
            (Some("dashboard"), "the token is not known"),
            (Some("s3cret-old"), "the token has expired"),
        ] {
            assert_eq!(tokens.look_up(secret).unwrap_err().0, why, "{secret:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_in_one_line_without_the_secret() {
        let token = |rest: &str| format!("[[token]]\nsecret = \"hidden\"\nsubject = \"x\"\n{rest}\n");
        for (text, says) in [
            (String::new(), "no [[token]]"),
            ("[[token]".into(), "line 1"),
            ("[[token]]\nsecret = \"hidden\"\n".into(), "subject"),
            (token("subscribe = [\"a//b\"]"), "token 1 (x): pattern a//b"),
            (token("publish = \"**\""), "line 4"),
            (token("subscrib = []"), "subscrib"),
            (token("logs = [\"A\"]"), "token 1 (x): log A: the name of a log is"),
            (token("logs = \"*\""), "line 4"),
            (token("expires = \"tomorrow\""), "RFC 3339"),
            (token("expires = 2099-12-31"), "RFC 3339"),
            (token("expires = 2099-12-31T00:00:00"), "RFC 3339"),
            (token(&token("")), "token 2 (x): its secret is another token's"),
            ("[[token]]\nsecret = \"\"\nsubject = \"x\"".into(), "visible ASCII"),
            ("[[token]]\nsecret = \"a b\"\nsubject = \"x\"".into(), "visible ASCII"),
        ] {
            let error = TokenFile::parse(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{text:?} said {error:?}");
            assert!(!error.contains('\n') && !error.contains("hidden"), "{error:?}");
        }
        let error = TokenFile::read("/nowhere/tokens.toml").unwrap_err().to_string();
        assert!(error.starts_with("token file /nowhere/tokens.toml: "), "{error}");
    }
}
