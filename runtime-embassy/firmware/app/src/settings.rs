//! What a device is told at boot.

use core::fmt;
use core::time::Duration;

/// Longest name of a gateway, in bytes.
pub const MAX_NAME: usize = 64;

/// How long a real board waits after a refusal for good: nobody is there to start it again.
const AGAIN: Duration = Duration::from_secs(15 * 60);

/// Settings of the firmware, as `name=value` words.
///
/// | word | default | |
/// |---|---|---|
/// | `host=HOST` | the board's own | the gateway's name, or its IPv4 address |
/// | `name=HOST` | the same; the board's own | the gateway's name, as the request says whom it is for |
/// | `port=PORT` | 8080 | port of the gateway |
/// | `id=NAME` | `device` | the device's name, the second level of its topics: letters, digits, `-`, `_` |
/// | `interval=MS` | 1000 | milliseconds between two reports |
/// | `heartbeat=MS` | the library's | milliseconds of silence before the gateway is asked whether it lives |
/// | `cap=MS` | the library's | longest wait between two attempts to connect |
/// | `again=MS` | 15 minutes; an emulated board ends | try again after so long when the gateway has refused for good |
/// | `rungs=websocket` | all | use no other transport, whatever happens to it |
/// | `tokens=A,B` | none | tokens: the next one is used when the gateway asks for another |
/// | `topics=N` | 1 | report the numbers on so many topics in turns, each with another policy |
/// | `readings=N` | for ever | report the numbers up to N instead, and end with success once all are settled |
/// | `waiting=N` | no limit | of the numbers, report none while as many readings wait |
/// | `idle=MS` | | say nothing for so long instead, then report what that took on `device/ID/idle`, and end |
/// | `from=N` | 1 | begin with this number |
/// | `keep=MS` | the library's | after so long a reading that is not acknowledged is written to the flash |
/// | `flash=PATH` | none | the file that is the flash of an emulated board; without one it keeps nothing over a reset |
/// | `dns=PORT` | none | the host's port of a resolver, on an emulated board |
/// | `loss=PERCENT` | 0 | frames that get lost, on an emulated board |
/// | `ca=FILE` | none | with the feature `tls`, on an emulated board: the host's file with the certificate of the CA, in DER |
/// | `time=SECONDS` | not known | with the feature `tls`: how late it is, since 1970; without it certificates of any time are good |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings<'a> {
    /// Where the gateway is: its name, which is looked up for each connection, or its IPv4 address. At most [`MAX_NAME`] bytes.
    pub host: &'a str,
    /// The gateway's name to itself, at most [`MAX_NAME`] bytes: it may listen to its own names only.
    pub name: &'a str,
    /// Port of the gateway.
    pub port: u16,
    /// The device's name.
    pub id: &'a str,
    /// Milliseconds between two reports.
    pub interval: u32,
    /// Silence before a heartbeat.
    pub heartbeat: Option<Duration>,
    /// Longest wait between two attempts.
    pub cap: Option<Duration>,
    /// How long to wait after a refusal for good: whoever runs the gateway may have mended it. `None`: the firmware ends.
    pub again: Option<Duration>,
    /// Up to which number to report before the firmware ends; `None` for a device, which never does.
    pub readings: Option<u32>,
    /// The first of those numbers.
    pub from: u32,
    /// After so long a reading that was not acknowledged is written to the flash.
    pub keep: Option<Duration>,
    /// The file that is an emulated board's flash; empty for none.
    pub flash: &'a str,
    /// Whether other transports than WebSocket may be used.
    pub ladder: bool,
    /// Over how many topics the numbers are spread, up to 3.
    pub topics: u8,
    /// Tokens with commas in between; empty for none.
    pub tokens: &'a str,
    /// Of the numbers, none is reported while as many wait.
    pub waiting: u32,
    /// How long to say nothing, to measure what that takes.
    pub idle: Option<Duration>,
    /// The host's port of a resolver, on an emulated board.
    pub dns: Option<u16>,
    /// Frames that get lost, in a hundred.
    pub loss: u8,
    /// Where the certificate of the CA is.
    #[cfg(feature = "tls")]
    pub ca: &'a str,
    /// Seconds since 1970.
    #[cfg(feature = "tls")]
    pub time: Option<u64>,
}

impl<'a> Settings<'a> {
    /// Reads the words; `host` and `name` are the gateway's unless they say otherwise. The first word that is wrong
    /// ends it: a device that was told half of what was meant would report to the wrong place.
    pub fn parse(
        words: impl Iterator<Item = &'a str>,
        host: &'a str,
        name: &'a str,
    ) -> Result<Self, BadSetting<'a>> {
        let mut settings = Self {
            host,
            name,
            port: 8080,
            id: "device",
            interval: 1000,
            heartbeat: None,
            cap: None,
            again: None,
            readings: None,
            from: 1,
            keep: None,
            flash: "",
            ladder: true,
            topics: 1,
            tokens: "",
            waiting: u32::MAX,
            idle: None,
            dns: None,
            loss: 0,
            #[cfg(feature = "tls")]
            ca: "",
            #[cfg(feature = "tls")]
            time: None,
        };
        for word in words {
            settings.set(word).ok_or(BadSetting(word))?;
        }
        Ok(settings)
    }

    /// The settings that a real board was built with, as one line. It has to say `host`; `name` the same, unless it
    /// is set.
    pub fn from_line(line: &'a str) -> Result<Self, BadSetting<'a>> {
        let mut words = line.split_ascii_whitespace();
        let host = words.clone().find_map(|word| word.strip_prefix("host=")).ok_or(BadSetting("host="))?;
        let settings = Self::parse(&mut words, host, host)?;
        Ok(Self { again: settings.again.or(Some(AGAIN)), ..settings })
    }

    fn set(&mut self, word: &'a str) -> Option<()> {
        let (name, value) = word.split_once('=')?;
        match name {
            "host" if (1..=MAX_NAME).contains(&value.len()) => self.host = value,
            "name" if (1..=MAX_NAME).contains(&value.len()) => self.name = value,
            "port" => self.port = value.parse().ok()?,
            "id" if is_id(value) => self.id = value,
            "interval" => self.interval = value.parse().ok().filter(|ms| *ms > 0)?,
            "heartbeat" => self.heartbeat = Some(milliseconds(value)?),
            "cap" => self.cap = Some(milliseconds(value)?),
            "again" => self.again = Some(milliseconds(value)?),
            "readings" => self.readings = Some(value.parse().ok()?),
            "from" => self.from = value.parse().ok()?,
            "keep" => self.keep = Some(milliseconds(value)?),
            "flash" => self.flash = value,
            "rungs" if value == "websocket" => self.ladder = false,
            "topics" => self.topics = value.parse().ok().filter(|n| (1..=3).contains(n))?,
            "tokens" => self.tokens = value,
            "waiting" => self.waiting = value.parse().ok().filter(|n| *n > 0)?,
            "idle" => self.idle = Some(milliseconds(value)?),
            "dns" => self.dns = Some(value.parse().ok()?),
            "loss" => self.loss = value.parse().ok().filter(|percent| *percent < 100)?,
            #[cfg(feature = "tls")]
            "ca" => self.ca = value,
            #[cfg(feature = "tls")]
            "time" => self.time = Some(value.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

fn milliseconds(value: &str) -> Option<Duration> {
    value.parse().ok().filter(|ms| *ms > 0).map(Duration::from_millis)
}

/// Letters, digits, `-` and `_`, at most 32: so it is one level of a topic.
fn is_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=32).contains(&id.len()) && id.bytes().all(plain)
}

/// A word that is no setting, or has no value that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSetting<'a>(pub &'a str);

impl fmt::Display for BadSetting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad setting `{}`: see longwire_firmware::Settings", self.0)
    }
}
