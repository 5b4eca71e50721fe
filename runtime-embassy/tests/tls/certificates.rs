//! Which certificates are taken.

use std::sync::Arc;

use longwire_embassy::{BadCertificate, TlsConfig, TlsConnectError, Trust};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;

use crate::authority::{Authority, ca_params, named, named_ca, params, server};
use crate::{Failed, HELLO, config, meet, meet_with};

#[track_caller]
fn accepted(config: TlsConfig<'_>, server: Arc<ServerConfig>) {
    assert_eq!(meet(config, server, None).unwrap().0, HELLO);
}

#[track_caller]
fn refused(config: TlsConfig<'_>, server: Arc<ServerConfig>, why: BadCertificate) {
    let met = meet(config, server, None);
    let said = match &met {
        Err(Failed::Connect(TlsConnectError::Certificate(why))) => Some(*why),
        _ => None,
    };
    assert_eq!(said, Some(why), "{met:?}");
}

#[test]
fn a_certificate_of_the_ca_is_accepted_with_and_without_intermediates() {
    let root = Authority::root();
    accepted(config(&[&root.der]), root.server(params("gateway.example"), &[]));
    let between = root.signs(ca_params());
    accepted(config(&[&root.der]), between.server(params("gateway.example"), &[&between.der]));
    // Any of several CAs; a name with a star; an address.
    let other = Authority::root();
    accepted(config(&[&other.der, &root.der]), root.server(params("gateway.example"), &[]));
    let cas = [&root.der[..]];
    let named = |server_name| TlsConfig { server_name, ..config(&cas) };
    accepted(named("gw.fleet.example"), root.server(params("*.fleet.example"), &[]));
    accepted(named("192.0.2.1"), root.server(params("192.0.2.1"), &[]));
}

/// A DNS name has 253 bytes at most (RFC 1035 section 3.1, without the lengths at its ends): they go into the ClientHello, which has
/// room in the smallest buffer.
#[test]
fn a_name_may_be_as_long_as_dns_has_them() {
    let root = Authority::root();
    let name = [63, 63, 63, 61].map(|len| "n".repeat(len)).join(".");
    let cas = [&root.der[..]];
    accepted(TlsConfig { server_name: &name, ..config(&cas) }, root.server(params(&name), &[]));
    for none in [format!("{name}n"), format!("{}.example", "n".repeat(64)), String::new()] {
        let config = TlsConfig { server_name: &none, ..config(&cas) };
        assert!(meet(config, root.server(params("gateway.example"), &[]), None).is_err(), "{none}");
    }
}

#[test]
fn a_certificate_of_another_ca_is_refused() {
    let (root, other) = (Authority::root(), Authority::root());
    // Both have the same name.
    refused(
        config(&[&root.der]),
        other.server(params("gateway.example"), &[]),
        BadCertificate::WrongSignature,
    );
    refused(
        config(&[&root.der]),
        other.server(params("gateway.example"), &[&other.der]),
        BadCertificate::WrongSignature,
    );
    let named = other.signs(named_ca("another"));
    refused(
        config(&[&root.der]),
        named.server(params("gateway.example"), &[]),
        BadCertificate::UnknownIssuer,
    );
    refused(config(&[]), root.server(params("gateway.example"), &[&root.der]), BadCertificate::UnknownIssuer);
}

#[test]
fn a_ca_that_is_none_and_one_too_many_are_mistakes_of_the_device() {
    let root = Authority::root();
    let fail = |cas: &[&[u8]]| match meet(config(cas), root.server(params("gateway.example"), &[]), None) {
        Err(Failed::Connect(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(fail(&[&root.der, b"no certificate"]), TlsConnectError::BadCa(1)));
    assert!(matches!(fail(&[&root.der[..]; 5]), TlsConnectError::TooManyCas));
    accepted(config(&[&root.der[..]; 4]), root.server(params("gateway.example"), &[]));
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let root = Authority::root();
    for name in [
        "other.example",
        "gateway.example.com",
        "example",
        "a.gateway.example",
        "*.gateway.example",
        "192.0.2.1",
    ] {
        refused(config(&[&root.der]), root.server(params(name), &[]), BadCertificate::OtherName);
    }
    // A common name is no subject alternative name.
    let mut named = CertificateParams::default();
    named.distinguished_name.push(rcgen::DnType::CommonName, "gateway.example");
    (named.not_before, named.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
    refused(config(&[&root.der]), root.server(named, &[]), BadCertificate::OtherName);
}

#[test]
fn a_certificate_out_of_its_time_is_refused_by_whoever_knows_the_time() {
    let root = Authority::root();
    for (from, to, why) in [
        ((2025, 1, 1), (2026, 5, 31), BadCertificate::Expired),
        ((2026, 6, 2), (2027, 1, 1), BadCertificate::NotYetValid),
    ] {
        let mut params = params("gateway.example");
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        let server = root.server(params, &[]);
        refused(config(&[&root.der]), server.clone(), why);
        let cas = [&root.der[..]];
        accepted(TlsConfig::new("gateway.example", Trust::Cas(&cas)), server);
    }
    // An intermediate's time counts as well.
    let mut old = ca_params();
    old.not_after = date_time_ymd(2026, 5, 31);
    let between = root.signs(old);
    refused(
        config(&[&root.der]),
        between.server(params("gateway.example"), &[&between.der]),
        BadCertificate::Expired,
    );
    let root_der = [&root.der[..]];
    let timeless = TlsConfig::new("gateway.example", Trust::Cas(&root_der));
    accepted(timeless, between.server(params("gateway.example"), &[&between.der]));
}

#[test]
fn whoever_has_some_certificate_of_the_ca_cannot_make_the_gateways() {
    let root = Authority::root();
    let somebody = root.signs(named(params("somebody.example"), "somebody"));
    refused(
        config(&[&root.der]),
        somebody.server(params("gateway.example"), &[&somebody.der]),
        BadCertificate::IssuerMayNot,
    );
    let mut client = params("gateway.example");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    refused(config(&[&root.der]), root.server(client, &[]), BadCertificate::NotForServers);
    let mut narrow = named_ca("narrow");
    narrow.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let narrow = root.signs(narrow);
    accepted(config(&[&root.der]), narrow.server(params("gateway.example"), &[&narrow.der]));
    let below = narrow.signs(named_ca("below"));
    refused(
        config(&[&root.der]),
        below.server(params("gateway.example"), &[&below.der, &narrow.der]),
        BadCertificate::IssuerMayNot,
    );
}

#[test]
fn a_certificate_of_a_ca_is_no_servers() {
    let root = Authority::root();
    let mut params = ca_params();
    params.subject_alt_names = vec![rcgen::SanType::DnsName("gateway.example".try_into().unwrap())];
    refused(config(&[&root.der]), root.server(params, &[]), BadCertificate::IsCa);
}

#[test]
fn other_keys_than_those_of_p256_are_refused() {
    let root = Authority::root();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let leaf = params("gateway.example").signed_by(&key, &root.issuer).unwrap();
    refused(config(&[&root.der]), server(vec![leaf.der().to_vec()], &key), BadCertificate::Algorithm);
}

#[test]
fn a_chain_has_a_gateway_six_intermediates_and_no_more() {
    let root = Authority::root();
    let mut chain = Vec::<Authority>::new();
    for n in 0..6 {
        let below = chain.last().unwrap_or(&root).signs(named_ca(&n.to_string()));
        chain.push(below);
    }
    let ders: Vec<&[u8]> = chain.iter().rev().map(|ca| &ca.der[..]).collect();
    let last = chain.last().unwrap();
    let wide = |config| meet_with::<8192>(config, last.server(params("gateway.example"), &ders), None);
    assert_eq!(wide(config(&[&root.der])).unwrap().0, HELLO);
    let long = [&ders[..], &[&root.der]].concat();
    let met = meet_with::<8192>(config(&[&root.der]), last.server(params("gateway.example"), &long), None);
    let why = matches!(met, Err(Failed::Connect(TlsConnectError::Certificate(BadCertificate::TooLong))));
    assert!(why, "{met:?}");
}

/// Intermediates with the name of the CA, each with a key of its own: any of them may have issued any other, in two thousand ways.
#[test]
fn a_chain_that_asks_for_many_signatures_is_given_up_soon() {
    let (root, other) = (Authority::root(), Authority::root());
    let many: Vec<Authority> = (0..6).map(|_| other.signs(ca_params())).collect();
    let ders: Vec<&[u8]> = many.iter().map(|ca| &ca.der[..]).collect();
    let server = many[0].server(params("gateway.example"), &ders);
    let cas = [&root.der[..]];
    let timeless = TlsConfig::new("gateway.example", Trust::Cas(&cas));
    for config in [config(&cas), timeless] {
        let met = meet_with::<8192>(config, server.clone(), None);
        let why = matches!(met, Err(Failed::Connect(TlsConnectError::Certificate(BadCertificate::TooLong))));
        assert!(why, "{met:?}");
    }
}
