//! JSON Web Tokens (RFC 7519), checked with the keys of a file (JWK Set, RFC 7517).

use super::tokens::{logs, patterns};
use super::{FileError, ring};
use crate::hub::{Denied, Grant};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Bytes of a token that is looked at.
const MAX_TOKEN: usize = 8 << 10;
/// Keys of a set.
const MAX_KEYS: usize = 64;
/// Bytes of a subject.
const MAX_SUBJECT: usize = 255;
/// Patterns of a token, of each kind.
const MAX_PATTERNS: usize = 256;
/// By how much clocks may differ: a token is taken so much earlier, and holds so much longer.
const LEEWAY: Duration = Duration::from_secs(30);

/// Which tokens are taken, beside those that a key has signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwtConfig {
    /// Who has to have issued it (`iss`). `None`: whoever holds a key.
    pub issuer: Option<String>,
    /// For whom it has to be (`aud`). `None`: only tokens that name nobody.
    pub audience: Option<String>,
}

/// Checks JSON Web Tokens signed with HS256, RS256 or ES256.
///
/// A key decides on its algorithm, never the token: by its `alg`, or else by what it is (RSA: RS256, P-256: ES256,
/// secret: HS256). `kid` picks the key; a token without it is taken when there is one key only. `sub` and `exp` are
/// required, `nbf` is looked at, clocks may differ by 30 s, and what a token allows is in a claim of its own:
///
/// ```json
/// {"sub": "device-7", "exp": 1798761600, "jti": "b2f1",
///  "longwire": {"subscribe": ["fleet/7/**"], "publish": ["fleet/7/*"], "logs": ["default"]}}
/// ```
///
/// Without `logs` it is for the default log, without the rest it allows nothing. A grant ends with `exp` and the 30 s.
///
/// The signatures are checked by `jsonwebtoken` on ring. A process has one [provider] of its cryptography: this
/// one, unless another was installed before.
///
/// [provider]: jsonwebtoken::crypto::CryptoProvider
///
/// ```
/// use longwire::gateway::{Jwt, JwtConfig};
///
/// let keys = r#"{"keys": [{"kty": "oct", "kid": "1", "alg": "HS256",
///     "k": "c2l4dGVlbiBieXRlcywgYW5kIHNpeHRlZW4gbW9yZSE"}]}"#;
/// let jwt = Jwt::parse(keys, JwtConfig::default())?;
/// assert_eq!(jwt.len(), 1);
/// # Ok::<(), longwire::gateway::FileError>(())
/// ```
#[derive(Debug)]
pub struct Jwt {
    config: JwtConfig,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    key: DecodingKey,
    validation: Validation,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// What is looked at of a token's header. Serde refuses a field that comes twice, and `alg: none` is no text of ours.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    jti: Option<String>,
    longwire: Option<Allowed>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
    logs: Option<Vec<String>>,
}

impl Jwt {
    /// Reads the text of a key set. Keys for other purposes or of other kinds are left out (RFC 7517 section 5).
    ///
    /// # Errors
    /// It is no JWK Set, has no key that is of use or more than 64, the same `kid` twice, or a key that is too weak
    /// (a secret below 256 bits, RSA below 2048; RFC 7518 sections 3.2 and 3.3).
    pub fn parse(text: &str, config: JwtConfig) -> Result<Self, FileError> {
        ring::install();
        // An error of serde's may show what it found.
        let set: Set = serde_json::from_str(text)
            .map_err(|e| FileError(format!("not a JWK Set: line {}, column {}", e.line(), e.column())))?;
        if set.keys.len() > MAX_KEYS {
            return Err(FileError(format!("more than {MAX_KEYS} keys")));
        }
        let mut keys: Vec<Key> = Vec::new();
        for (n, value) in (1..).zip(set.keys) {
            let Ok(jwk) = Jwk::deserialize(value) else { continue };
            let Some(algorithm) = algorithm(&jwk) else { continue };
            let wrong = |what: &str| FileError(format!("key {n}: {what}"));
            if let Some(what) = weakness(&jwk) {
                return Err(wrong(what));
            }
            let id = jwk.common.key_id.clone();
            if keys.iter().any(|key| key.id == id) {
                return Err(wrong("its kid is another key's, too, or both have none"));
            }
            let key = DecodingKey::from_jwk(&jwk).map_err(|_| wrong("not what its kty says"))?;
            keys.push(Key { id, key, validation: validation(algorithm, &config) });
        }
        if keys.is_empty() {
            return Err(FileError("no key for HS256, RS256 or ES256: nobody could connect".into()));
        }
        Ok(Self { config, keys })
    }

    /// How many keys there are.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// What else is asked of a token.
    pub fn config(&self) -> &JwtConfig {
        &self.config
    }

    /// Whether a credential has the shape of a token.
    pub(super) fn is_like(credential: &str) -> bool {
        credential.bytes().filter(|b| *b == b'.').count() == 2
    }

    /// What a token allows.
    pub(super) fn verify(&self, token: &str) -> Result<Grant, Denied> {
        if token.len() > MAX_TOKEN {
            return Err(Denied("the token is too long"));
        }
        if !Self::is_like(token) {
            return Err(Denied("the token is no JWT"));
        }
        let key = self.key(header(token)?)?;
        let data = jsonwebtoken::decode::<Claims>(token, &key.key, &key.validation);
        let claims = data.map_err(|error| denied(error.kind()))?.claims;
        grant(claims)
    }

    /// The key that a header names, if the key is for the algorithm that the header says.
    fn key(&self, header: Header) -> Result<&Key, Denied> {
        // RFC 7515 section 4.1.11: what is critical and not understood makes a token invalid, and nothing is understood.
        if header.crit.is_some() {
            return Err(Denied("the token has a critical extension"));
        }
        let key = match (&header.kid, &*self.keys) {
            (None, [only]) => Some(only),
            (None, _) => return Err(Denied("the token does not say which key it is signed with")),
            (kid, keys) => keys.iter().find(|key| key.id == *kid),
        };
        let key = key.ok_or(Denied("the token's key is not known"))?;
        // RFC 8725 section 3.1: the key says the algorithm.
        let own = key.validation.algorithms.first().map(|algorithm| format!("{algorithm:?}"));
        if own.as_ref() != Some(&header.alg) {
            return Err(Denied("the token's algorithm is not its key's"));
        }
        Ok(key)
    }
}

fn header(token: &str) -> Result<Header, Denied> {
    const WRONG: Denied = Denied("the token is no JWT");
    let encoded = token.split('.').next().ok_or(WRONG)?;
    let text = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| WRONG)?;
    serde_json::from_slice(&text).map_err(|_| WRONG)
}

fn grant(claims: Claims) -> Result<Grant, Denied> {
    const PATTERNS: Denied =
        Denied("the token's claim longwire has something that is no pattern, or too much");
    let Claims { sub, exp, jti, longwire } = claims;
    let Allowed { subscribe, publish, logs: names } = longwire.unwrap_or_default();
    if subscribe.len().max(publish.len()).max(names.as_ref().map_or(0, Vec::len)) > MAX_PATTERNS {
        return Err(PATTERNS);
    }
    if sub.is_empty() {
        return Err(Denied("the token has no subject"));
    }
    // It stands in logs, and as the name of a publisher in tables.
    if sub.len() > MAX_SUBJECT || sub.chars().any(char::is_control) {
        return Err(Denied("the token's subject is above 255 bytes, or has control characters"));
    }
    Ok(Grant {
        subject: sub.into(),
        id: jti.map(Into::into),
        issued: Instant::now(),
        expires: expires(exp),
        logs: logs(names.as_deref()).map_err(|_| PATTERNS)?,
        subscribe: patterns(&subscribe).map_err(|_| PATTERNS)?,
        publish: patterns(&publish).map_err(|_| PATTERNS)?,
    })
}

/// When a token ends that was found to hold. Beyond what the clocks can say it never does.
fn expires(exp: f64) -> Option<Instant> {
    let end = Duration::try_from_secs_f64(exp).ok()?.checked_add(LEEWAY)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Instant::now().checked_add(end.saturating_sub(now))
}

/// The one algorithm of a key; `None` when it is not for signatures that are known here.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    let common = &jwk.common;
    if common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    if common.key_operations.as_ref().is_some_and(|list| !list.contains(&KeyOperations::Verify)) {
        return None;
    }
    let (own, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKey(_) => (Algorithm::HS256, KeyAlgorithm::HS256),
        _ => return None,
    };
    common.key_algorithm.is_none_or(|said| said == name).then_some(own)
}

/// Why a key is not strong enough. What is no base64 shows when the key is made.
fn weakness(jwk: &Jwk) -> Option<&'static str> {
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    match &jwk.algorithm {
        AlgorithmParameters::OctetKey(key) if bytes(&key.value).is_some_and(|key| key.len() < 32) => {
            Some("a secret has at least 256 bits")
        }
        AlgorithmParameters::RSA(key) => {
            let modulus = bytes(&key.n)?;
            let zeros = modulus.iter().take_while(|b| **b == 0).count();
            (modulus.len() - zeros < 256).then_some("an RSA key has at least 2048 bits")
        }
        _ => None,
    }
}

fn validation(algorithm: Algorithm, config: &JwtConfig) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY.as_secs();
    validation.validate_nbf = true;
    let mut required = vec!["exp", "sub"];
    if let Some(issuer) = &config.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    // Without an audience of our own, a token that is for somebody is for somebody else.
    if let Some(audience) = &config.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn denied(error: &ErrorKind) -> Denied {
    Denied(match error {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token does not hold yet",
        ErrorKind::InvalidIssuer => "the token's issuer is not accepted",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks a claim that is required",
        _ => "the token is malformed",
    })
}

#[cfg(test)]
mod tests;
