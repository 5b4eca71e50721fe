//! Origins (RFC 6454), and the names by which this machine is asked (`PROTOCOL.md` section 8.5).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The origin of a page: scheme, host and port. A port that is the scheme's own need not be written.
///
/// ```
/// use longwire::gateway::Origin;
///
/// let origin: Origin = "https://Example.org".parse()?;
/// assert_eq!(origin, "https://example.org:443".parse()?);
/// assert_ne!(origin, "http://example.org".parse()?);
/// assert!("example.org".parse::<Origin>().is_err());
/// # Ok::<(), longwire::gateway::OriginError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// The text is no origin: `scheme://host` or `scheme://host:port`, and nothing behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginError;

impl fmt::Display for OriginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an origin is scheme://host or scheme://host:port, without a path")
    }
}

impl std::error::Error for OriginError {}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let (scheme, authority) = text.split_once("://").ok_or(OriginError)?;
        let known = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(known) {
            return Err(OriginError);
        }
        let scheme = scheme.to_ascii_lowercase();
        Self::new(scheme, authority).ok_or(OriginError)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match self.port {
            Some(port) if Some(port) != default_port(&self.scheme) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

impl Origin {
    /// The origin of what is served with this scheme under this authority (`Host`).
    pub(super) fn own(scheme: &str, authority: &str) -> Option<Self> {
        Self::new(scheme.to_owned(), authority)
    }

    fn new(scheme: String, authority: &str) -> Option<Self> {
        let (host, port) = host_and_port(authority)?;
        let port = port.or_else(|| default_port(&scheme));
        Some(Self { host: host.to_ascii_lowercase(), scheme, port })
    }

    /// Whether the host is a name of this machine that no foreign name server can give to others.
    pub(super) fn is_local(&self) -> bool {
        let host = self.host.strip_suffix('.').unwrap_or(&self.host);
        let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
            || v6.and_then(|ip| ip.parse::<Ipv6Addr>().ok()).is_some_and(|ip| ip.to_canonical().is_loopback())
    }

    /// Whether both name the same host, by whatever scheme and port.
    pub(super) fn same_host(&self, other: &Self) -> bool {
        self.host == other.host
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// RFC 3986 section 3.2, without user information.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        // The colons within brackets belong to an IPv6 address.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port {
        // An empty port is the scheme's own.
        None | Some("") => None,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse().ok()?),
        Some(_) => return None,
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let well_formed = match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@:[]\\\"<>^`{|}%".contains(&b))
        }
    };
    well_formed.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Origin {
        text.parse().unwrap()
    }

    #[test]
    fn rfc_6454_section_5_scheme_host_and_port_decide() {
        for (one, other, same) in [
            ("http://a", "http://a", true),
            ("http://a", "http://a:80", true),
            ("http://a:", "http://a:80", true),
            ("https://a", "https://a:443", true),
            ("HTTP://A", "http://a", true),
            ("http://a", "https://a", false),
            ("http://a:443", "https://a:443", false),
            ("http://a", "http://b", false),
            ("http://a", "http://a.b", false),
            ("http://a:8080", "http://a:8081", false),
            ("http://[::1]:8080", "http://[::1]:8080", true),
            ("http://[::1]", "http://[::1]:80", true),
            ("http://[::1]", "http://[::2]", false),
            ("tauri://localhost", "tauri://localhost", true),
            ("tauri://localhost", "http://localhost", false),
        ] {
            assert_eq!(parse(one) == parse(other), same, "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "null",
            "a",
            "a:80",
            "://a",
            "http://",
            "http://a/",
            "http://a/b",
            "http://a?b",
            "http://a#b",
            "http://u@a",
            "http://a:b",
            "http://a:65536",
            "http://a:+80",
            "http://a b",
            "http://::1",
            "http://[::1",
            "http://[::1]x",
            "http://[x]",
            "http://a,b:c",
            "1http://a",
            "http://a\u{e9}",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(OriginError), "{text:?}");
        }
    }

    #[test]
    fn local_names_are_those_that_no_name_server_gives_away() {
        for (authority, local) in [
            ("localhost", true),
            ("localhost:8080", true),
            ("LOCALHOST.", true),
            ("app.localhost:1", true),
            ("127.0.0.1:8080", true),
            ("127.9.9.9", true),
            ("[::1]:8080", true),
            ("[::ffff:127.0.0.1]", true),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("notlocalhost", false),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("[::2]", false),
        ] {
            assert_eq!(Origin::own("http", authority).unwrap().is_local(), local, "{authority}");
        }
    }

    #[test]
    fn an_origin_is_written_without_the_port_of_its_scheme() {
        for text in ["https://example.org", "http://a:8080", "tauri://localhost", "http://[::1]:1"] {
            assert_eq!(parse(text).to_string(), text);
        }
        assert_eq!(parse("https://A:443").to_string(), "https://a");
    }
}
