use super::*;
use ::ring::rand::SystemRandom;
use ::ring::rsa::PublicKeyComponents;
use ::ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RsaKeyPair};
use jsonwebtoken::{EncodingKey, Header as Head, encode};
use longwire_core::log::{Pattern, Topic};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Made for this test, and of use for nothing else.
const RSA: &[u8] = include_bytes!("../../../../tests/keys/rsa-2048.der");
const SECRET: &[u8] = b"thirty-two bytes, and not a byte more than that";

struct Keys {
    set: Value,
    ec: Vec<u8>,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let random = SystemRandom::new();
    let ec =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap().as_ref().to_vec();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &ec, &random).unwrap();
    let point = pair.public_key().as_ref();
    let pair = RsaKeyPair::from_der(RSA).unwrap();
    let rsa: PublicKeyComponents<Vec<u8>> = pair.public().into();
    let set = json!({"keys": [
        {"kty": "oct", "kid": "hs", "alg": "HS256", "k": base64(SECRET)},
        {"kty": "RSA", "kid": "rs", "use": "sig", "n": base64(&rsa.n), "e": base64(&rsa.e)},
        {"kty": "EC", "kid": "es", "crv": "P-256", "key_ops": ["verify"], "x": base64(&point[1..33]), "y": base64(&point[33..])},
        // Not of use here, and no reason to refuse the others.
        {"kty": "EC", "kid": "p384", "crv": "P-384", "x": base64(&[1; 48]), "y": base64(&[1; 48])},
        {"kty": "RSA", "kid": "enc", "use": "enc", "n": base64(&[255; 256]), "e": "AQAB"},
        {"kty": "RSA", "kid": "ps", "alg": "PS256", "n": base64(&[255; 256]), "e": "AQAB"},
        {"kty": "quantum", "kid": "later"},
    ]});
    Keys { set, ec }
});

fn jwt(config: JwtConfig) -> Jwt {
    Jwt::parse(&KEYS.set.to_string(), config).unwrap()
}

fn plain() -> Jwt {
    jwt(JwtConfig::default())
}

fn now() -> i64 {
    i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap()
}

fn claims() -> Value {
    json!({"sub": "ada", "exp": now() + 600, "longwire": {"subscribe": ["a/**"], "publish": ["a/in"]}})
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn head(algorithm: Algorithm, kid: &str) -> Head {
    Head { kid: Some(kid.to_owned()), ..Head::new(algorithm) }
}

/// Signed by the key that the header names.
fn signed(head: &Head, claims: &Value) -> String {
    ring::install();
    let key = match head.alg {
        Algorithm::RS256 => EncodingKey::from_rsa_der(RSA),
        Algorithm::ES256 => EncodingKey::from_ec_der(&KEYS.ec),
        _ => EncodingKey::from_secret(SECRET),
    };
    encode(head, claims, &key).unwrap()
}

/// A token whose parts are these texts, signed with HS256 and the right secret.
fn by_hand(header: &str, claims: &str) -> String {
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    signed_by_hand(&message, SECRET)
}

fn signed_by_hand(message: &str, secret: &[u8]) -> String {
    let key = ::ring::hmac::Key::new(::ring::hmac::HMAC_SHA256, secret);
    let signature = ::ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn hs() -> Head {
    head(Algorithm::HS256, "hs")
}

#[test]
fn each_algorithm_with_its_key_is_taken() {
    let jwt = plain();
    assert_eq!(jwt.len(), 3);
    for (algorithm, kid) in [(Algorithm::HS256, "hs"), (Algorithm::RS256, "rs"), (Algorithm::ES256, "es")] {
        let grant = jwt.verify(&signed(&head(algorithm, kid), &with(json!({"jti": "42"})))).unwrap();
        assert_eq!((&*grant.subject, grant.id.as_deref()), ("ada", Some("42")), "{kid}");
        assert!(grant.may_subscribe(Pattern::parse("a/*").unwrap()));
        assert!(!grant.may_subscribe(Pattern::parse("**").unwrap()));
        assert!(grant.may_publish(Topic::parse("a/in").unwrap()));
        assert!(!grant.may_publish(Topic::parse("a/out").unwrap()));
        assert!(grant.logs.contains("default") && !grant.logs.contains("other"));
        let left = grant.expires.unwrap().duration_since(Instant::now());
        assert!(left > Duration::from_secs(620) && left <= Duration::from_secs(630), "{left:?}");
    }
}

#[test]
fn what_the_claims_allow_and_nothing_more() {
    let jwt = plain();
    let grant = |changes| jwt.verify(&signed(&hs(), &with(changes)));
    let nothing = grant(json!({"longwire": null})).unwrap();
    assert!(nothing.subscribe.is_empty() && nothing.publish.is_empty() && nothing.logs.contains("default"));
    let logs = grant(json!({"longwire": {"logs": ["telemetry"]}})).unwrap().logs;
    assert!(logs.contains("telemetry") && !logs.contains("default"));
    // As far in the future as it says: that is for ever.
    assert_eq!(grant(json!({"exp": 1e300})).unwrap_err().0, "the token lacks a claim that is required");
    assert_eq!(grant(json!({"exp": 1e19})).unwrap().expires, None);
    let many: Vec<_> = (0..=MAX_PATTERNS).map(|n| format!("a/{n}")).collect();
    for longwire in [
        json!({"subscribe": ["a//b"]}),
        json!({"publish": ["a*"]}),
        json!({"logs": ["A"]}),
        json!({"subscribe": many}),
    ] {
        let refused = grant(json!({"longwire": longwire})).unwrap_err().0;
        assert!(refused.starts_with("the token's claim longwire"), "{refused}");
    }
    for longwire in [json!({"subscrib": []}), json!({"subscribe": "**"}), json!("**")] {
        assert_eq!(grant(json!({"longwire": longwire})).unwrap_err().0, "the token is malformed");
    }
}

#[test]
fn times_and_names_are_checked() {
    let config = JwtConfig { issuer: Some("https://id.example".into()), audience: Some("longwire".into()) };
    let (strict, plain) = (jwt(config), plain());
    let good = json!({"iss": "https://id.example", "aud": "longwire"});
    for (jwt, changes, want) in [
        (&plain, json!({"exp": now() - 20}), Ok(())),
        (&plain, json!({"exp": now() - 40}), Err("the token has expired")),
        (&plain, json!({"exp": null}), Err("the token is malformed")),
        (&plain, json!({"exp": "later"}), Err("the token is malformed")),
        (&plain, json!({"exp": -1}), Err("the token lacks a claim that is required")),
        (&plain, json!({"nbf": now() + 20}), Ok(())),
        (&plain, json!({"nbf": now() + 40}), Err("the token does not hold yet")),
        (&plain, json!({"nbf": "now"}), Err("the token is malformed")),
        (&plain, json!({"sub": null}), Err("the token is malformed")),
        (&plain, json!({"sub": ""}), Err("the token has no subject")),
        (&plain, json!({"sub": "s".repeat(255)}), Ok(())),
        (
            &plain,
            json!({"sub": "s".repeat(256)}),
            Err("the token's subject is above 255 bytes, or has control characters"),
        ),
        (
            &plain,
            json!({"sub": "a\nb"}),
            Err("the token's subject is above 255 bytes, or has control characters"),
        ),
        (&plain, json!({"sub": 7}), Err("the token is malformed")),
        // Without an audience of our own, a token that is for somebody is not for us.
        (&plain, json!({"aud": "longwire"}), Err("the token is for another audience")),
        (&strict, good.clone(), Ok(())),
        (&strict, json!({"iss": "https://id.example", "aud": ["x", "longwire"]}), Ok(())),
        (&strict, json!({"iss": "https://id.example"}), Err("the token lacks a claim that is required")),
        (&strict, json!({"aud": "longwire"}), Err("the token lacks a claim that is required")),
        (
            &strict,
            json!({"iss": "https://evil.example", "aud": "longwire"}),
            Err("the token's issuer is not accepted"),
        ),
        (
            &strict,
            json!({"iss": "https://id.example", "aud": "other"}),
            Err("the token is for another audience"),
        ),
        (&strict, json!({"iss": "https://id.example", "aud": []}), Err("the token is for another audience")),
    ] {
        let got = jwt.verify(&signed(&hs(), &with(changes.clone()))).map(drop).map_err(|denied| denied.0);
        assert_eq!(got, want, "{changes}");
    }
}

/// The advisories of this field, each as a token.
#[test]
fn rfc_8725_forged_tokens_are_refused() {
    let jwt = plain();
    let claims = claims().to_string();
    let header = |text: &str| by_hand(text, &claims);
    let good = header(r#"{"alg":"HS256","kid":"hs"}"#);
    assert!(jwt.verify(&good).is_ok());
    let rsa = RsaKeyPair::from_der(RSA).unwrap();
    let public = rsa.public().as_ref().to_vec();
    let confused = |header: &str, secret: &[u8]| {
        let message = [header, &claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        signed_by_hand(&message, secret)
    };
    let (head, body, signature) = {
        let mut parts = good.split('.').map(str::to_owned);
        (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
    };
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"hs"}"#);
    const ALGORITHM: &str = "the token's algorithm is not its key's";
    const UNKNOWN: &str = "the token's key is not known";
    const NO_JWT: &str = "the token is no JWT";
    const SIGNATURE: &str = "the token's signature is wrong";
    let other = URL_SAFE_NO_PAD.encode(claims.replace("ada", "eve"));
    for (what, token, want) in [
        ("none", format!("{none}.{body}."), ALGORITHM),
        ("none, with the signature", format!("{none}.{body}.{signature}"), ALGORITHM),
        ("NoNe", header(r#"{"alg":"NoNe","kid":"hs"}"#), ALGORITHM),
        ("an algorithm that nobody knows", header(r#"{"alg":"XX","kid":"hs"}"#), ALGORITHM),
        ("no algorithm", header(r#"{"kid":"hs"}"#), NO_JWT),
        ("HS384 with the key of HS256", header(r#"{"alg":"HS384","kid":"hs"}"#), ALGORITHM),
        (
            "the public key of RS256 as a secret",
            confused(r#"{"alg":"HS256","kid":"rs"}"#, &public),
            ALGORITHM,
        ),
        ("the same, under its own name", confused(r#"{"alg":"RS256","kid":"rs"}"#, &public), SIGNATURE),
        ("the secret for the key of ES256", confused(r#"{"alg":"ES256","kid":"es"}"#, SECRET), SIGNATURE),
        ("another secret", confused(r#"{"alg":"HS256","kid":"hs"}"#, b"guessed"), SIGNATURE),
        ("no secret", confused(r#"{"alg":"HS256","kid":"hs"}"#, b""), SIGNATURE),
        ("no kid", header(r#"{"alg":"HS256"}"#), "the token does not say which key it is signed with"),
        ("another kid", header(r#"{"alg":"HS256","kid":"rs"}"#), ALGORITHM),
        ("a kid that is none", header(r#"{"alg":"HS256","kid":"hs "}"#), UNKNOWN),
        ("a kid that is a path", header(r#"{"alg":"HS256","kid":"../../../dev/null"}"#), UNKNOWN),
        ("a kid that is a query", header(r#"{"alg":"HS256","kid":"' OR 1=1 --"}"#), UNKNOWN),
        ("a kid that is no text", header(r#"{"alg":"HS256","kid":["hs"]}"#), NO_JWT),
        ("a key that is not for signatures", header(r#"{"alg":"RS256","kid":"enc"}"#), UNKNOWN),
        ("a key of its own", header(r#"{"alg":"HS256","kid":"eve","jwk":{"kty":"oct","k":"eA"}}"#), UNKNOWN),
        (
            "a key elsewhere",
            header(r#"{"alg":"HS256","kid":"eve","jku":"http://169.254.169.254/"}"#),
            UNKNOWN,
        ),
        (
            "a critical extension",
            header(r#"{"alg":"HS256","kid":"hs","crit":["b64"],"b64":false}"#),
            "the token has a critical extension",
        ),
        (
            "crit that is empty",
            header(r#"{"alg":"HS256","kid":"hs","crit":[]}"#),
            "the token has a critical extension",
        ),
        ("alg twice", header(r#"{"alg":"HS256","alg":"none","kid":"hs"}"#), NO_JWT),
        ("kid twice", header(r#"{"alg":"HS256","kid":"eve","kid":"hs"}"#), NO_JWT),
        ("no signature", format!("{head}.{body}."), SIGNATURE),
        ("half a signature", format!("{head}.{body}.{}", &signature[..24]), SIGNATURE),
        ("another body", format!("{head}.{other}.{signature}"), SIGNATURE),
        ("cut off", good[..good.len() / 2].to_owned(), NO_JWT),
        ("two parts", format!("{head}.{body}"), NO_JWT),
        ("four parts", format!("{good}.x"), NO_JWT),
        ("five parts, encrypted", "a.b.c.d.e".to_owned(), NO_JWT),
        ("padding", format!("{head}=.{body}.{signature}"), NO_JWT),
        ("nothing", String::new(), NO_JWT),
        ("dots", "..".to_owned(), NO_JWT),
        ("too long", format!("{good}{}", "A".repeat(MAX_TOKEN)), "the token is too long"),
    ] {
        assert_eq!(jwt.verify(&token).map(drop), Err(Denied(want)), "{what}: {token}");
    }
}

#[test]
fn claims_that_come_twice_and_claims_that_are_none_are_refused() {
    let jwt = plain();
    let later = now() + 600;
    for body in [
        format!(r#"{{"sub":"ada","exp":{later},"exp":99999999999}}"#),
        format!(r#"{{"sub":"ada","sub":"eve","exp":{later}}}"#),
        format!(r#"{{"sub":"ada","exp":{later},"longwire":{{}},"longwire":{{"subscribe":["**"]}}}}"#),
        format!(r#"{{"sub":"ada","exp":{later},"nbf":99999999999,"nbf":0}}"#),
        format!(r#"{{"sub":"ada","exp":{later}}}x"#),
        format!(r#"["ada",{later}]"#),
        "null".into(),
        "{".into(),
        String::new(),
        // Deep enough to ask what the parser does about it.
        "[".repeat(4000),
        format!(r#"{{"sub":"ada","exp":{later},"x":{}}}"#, "[".repeat(4000)),
    ] {
        let denied = jwt.verify(&by_hand(r#"{"alg":"HS256","kid":"hs"}"#, &body));
        assert_eq!(denied.unwrap_err().0, "the token is malformed", "{body:.80}");
    }
}

#[test]
fn a_set_with_one_key_needs_no_kid() {
    for (n, algorithm) in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256].into_iter().enumerate() {
        let mut key = KEYS.set["keys"][n].clone();
        key.as_object_mut().unwrap().remove("kid");
        let jwt = Jwt::parse(&json!({"keys": [key]}).to_string(), JwtConfig::default()).unwrap();
        assert!(jwt.verify(&signed(&Head::new(algorithm), &claims())).is_ok());
        let named = signed(&head(algorithm, "any"), &claims());
        assert_eq!(jwt.verify(&named).unwrap_err().0, "the token's key is not known");
    }
}

#[test]
fn what_is_wrong_with_a_set_is_said_without_the_keys() {
    let weak = "c2hvcnQtaGlkZGVu";
    let short = URL_SAFE_NO_PAD.encode([255; 128]);
    let oct = |kid: &str| json!({"kty": "oct", "kid": kid, "k": URL_SAFE_NO_PAD.encode(SECRET)});
    for (text, says) in [
        (String::new(), "not a JWK Set: line 1"),
        ("[]".into(), "not a JWK Set"),
        (r#"{"keys":"c2hvcnQtaGlkZGVu"}"#.into(), "not a JWK Set: line 1, column"),
        (r#"{"keys":[]}"#.into(), "no key for HS256"),
        (json!({"keys": [{"kty": "oct", "k": weak}]}).to_string(), "key 1: a secret has at least 256 bits"),
        (
            json!({"keys": [{"kty": "RSA", "n": short, "e": "AQAB"}]}).to_string(),
            "key 1: an RSA key has at least 2048",
        ),
        (json!({"keys": [oct("a"), oct("a")]}).to_string(), "key 2: its kid is another key's"),
        (
            json!({"keys": [{"kty": "oct", "k": "c2hvcnQtaGlkZGVu="}]}).to_string(),
            "key 1: not what its kty says",
        ),
        (json!({"keys": vec![oct("x"); 65]}).to_string(), "more than 64 keys"),
        (json!({"keys": [{"kty": "oct", "alg": "HS512", "k": weak}]}).to_string(), "no key for HS256"),
    ] {
        let error = Jwt::parse(&text, JwtConfig::default()).unwrap_err().to_string();
        assert!(error.contains(says), "{text} said {error:?}");
        assert!(!error.contains(weak) && !error.contains('\n'), "{error:?}");
    }
}
