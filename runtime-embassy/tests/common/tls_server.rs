//! A TLS 1.3 server that lies: it makes each message of its side by RFC 8446, and then lets somebody change it. So what is
//! wrong comes encrypted and authenticated, as only the device's peer can send it.
#![allow(dead_code, reason = "each user uses its part of this")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "it is for tests")]

use std::sync::LazyLock;

use aes_gcm::aead::{AeadInPlace as _, KeyInit};
use aes_gcm::{Aes128Gcm, Nonce};
use hkdf::{Hkdf, hmac::Mac as _, hmac::SimpleHmac};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyIdMethod, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use sha2::{Digest as _, Sha256};

type Secret = [u8; 32];

/// What can be changed, in the order in which it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A message of the handshake, with its header.
    ServerHello,
    /// The same.
    EncryptedExtensions,
    /// The same.
    Certificate,
    /// The same.
    CertificateVerify,
    /// The same.
    Finished,
    /// What is encrypted of a handshake's record: messages, and the type of the record behind them.
    Inside,
    /// A whole record, with its header, as it will be sent.
    Record,
}

impl Part {
    pub(crate) const ALL: [Self; 7] = [
        Self::ServerHello,
        Self::EncryptedExtensions,
        Self::Certificate,
        Self::CertificateVerify,
        Self::Finished,
        Self::Inside,
        Self::Record,
    ];
}

/// The type of a record (RFC 8446 section 5.1).
pub(crate) const HANDSHAKE: u8 = 22;
/// The same.
pub(crate) const APPLICATION_DATA: u8 = 23;

/// How the server behaves, beside what is changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    /// It shows the gateway's certificate, and does not have its key.
    pub(crate) impostor: bool,
    /// One record for each message of the handshake; else one for all.
    pub(crate) apart: bool,
    /// Records behind the handshake: what is encrypted, with the type at the end.
    pub(crate) after: Vec<Vec<u8>>,
}

/// The certificates: those of the CA, and of the gateway.
pub(crate) struct Certificates {
    pub(crate) ca: Vec<u8>,
    gateway: Vec<u8>,
}

/// They are always the same, as are the keys and the signatures: so a run can be repeated.
pub(crate) static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(|| {
    let params = |name: &str, serial| {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
        params.serial_number = Some(SerialNumber::from(vec![serial]));
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![serial]);
        params
    };
    let mut root = params("ca.example", 1);
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = root.self_signed(&Key::new(CA)).unwrap().der().to_vec();
    let issuer = Issuer::new(root, Key::new(CA));
    let gateway = params("gateway.example", 2).signed_by(&Key::new(GATEWAY), &issuer).unwrap().der().to_vec();
    Certificates { ca, gateway }
});

const CA: u8 = 1;
const GATEWAY: u8 = 2;
const IMPOSTOR: u8 = 3;

/// A key that everybody knows.
struct Key(SigningKey, Vec<u8>);

impl Key {
    fn new(number: u8) -> Self {
        let key = SigningKey::from_slice(&[number; 32]).unwrap();
        let public = key.verifying_key().to_encoded_point(false).as_bytes().to_vec();
        Self(key, public)
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.1
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: DerSignature = self.0.sign(message);
        Ok(signature.as_bytes().to_vec())
    }
}

/// All that the server sends upon this ClientHello, which comes as a whole record.
pub(crate) fn answer(hello: &[u8], manner: &Manner, change: &mut dyn FnMut(Part, &mut Vec<u8>)) -> Vec<u8> {
    let mut wire = Wire { sent: Vec::new(), change };
    let mut transcript = Sha256::new_with_prefix(&hello[5..]);
    let own = p256::SecretKey::from_slice(&[9; 32]).unwrap();
    let theirs = key_share(hello);
    let shared = p256::ecdh::diffie_hellman(own.to_nonzero_scalar(), theirs.as_affine());

    let mut server_hello = message(2, &server_hello(&own));
    (wire.change)(Part::ServerHello, &mut server_hello);
    transcript.update(&server_hello);
    wire.record(HANDSHAKE, &server_hello);

    // RFC 8446 section 7.1.
    let early = extract(&[0; 32], &[0; 32]);
    let handshake = extract(&derive(&early, "derived", &Sha256::new()), shared.raw_secret_bytes());
    let traffic = derive(&handshake, "s hs traffic", &transcript);
    let mut seal = Seal::new(&traffic);

    let key = Key::new(if manner.impostor { IMPOSTOR } else { GATEWAY });
    let mut messages = Vec::new();
    for part in [Part::EncryptedExtensions, Part::Certificate, Part::CertificateVerify, Part::Finished] {
        let mut message = match part {
            Part::EncryptedExtensions => message(8, &[0, 0]),
            Part::Certificate => message(11, &certificate(&CERTIFICATES.gateway)),
            Part::CertificateVerify => message(15, &certificate_verify(&key, &transcript)),
            _ => message(20, &finished(&traffic, &transcript)),
        };
        (wire.change)(part, &mut message);
        transcript.update(&message);
        messages.extend(message);
        if manner.apart || part == Part::Finished {
            let mut inside = [&std::mem::take(&mut messages)[..], &[HANDSHAKE]].concat();
            (wire.change)(Part::Inside, &mut inside);
            wire.encrypted(&mut seal, inside);
        }
    }
    let master = extract(&derive(&handshake, "derived", &Sha256::new()), &[0; 32]);
    let mut seal = Seal::new(&derive(&master, "s ap traffic", &transcript));
    for inside in &manner.after {
        wire.encrypted(&mut seal, inside.clone());
    }
    wire.sent
}

/// What is sent.
struct Wire<'c> {
    sent: Vec<u8>,
    change: &'c mut dyn FnMut(Part, &mut Vec<u8>),
}

impl Wire<'_> {
    fn record(&mut self, kind: u8, content: &[u8]) {
        let mut record = vec![kind, 3, 3];
        record.extend(length(content.len(), 2));
        record.extend(content);
        (self.change)(Part::Record, &mut record);
        self.sent.extend(record);
    }

    fn encrypted(&mut self, seal: &mut Seal, mut inside: Vec<u8>) {
        seal.seal(&mut inside);
        self.record(APPLICATION_DATA, &inside);
    }
}

/// Encrypts records, one after the other (RFC 8446 section 5.2).
struct Seal {
    cipher: Aes128Gcm,
    iv: [u8; 12],
    number: u64,
}

impl Seal {
    fn new(traffic: &Secret) -> Self {
        let (mut key, mut iv) = ([0; 16], [0; 12]);
        expand(traffic, "key", &[], &mut key);
        expand(traffic, "iv", &[], &mut iv);
        Self { cipher: Aes128Gcm::new(&key.into()), iv, number: 0 }
    }

    fn seal(&mut self, inside: &mut Vec<u8>) {
        let mut nonce = self.iv;
        nonce.iter_mut().skip(4).zip(self.number.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        self.number += 1;
        let mut header = vec![APPLICATION_DATA, 3, 3];
        header.extend(length(inside.len() + 16, 2));
        let tag = self.cipher.encrypt_in_place_detached(Nonce::from_slice(&nonce), &header, inside).unwrap();
        inside.extend(tag);
    }
}

/// The client's point: an uncompressed one of its only group, P-256.
fn key_share(hello: &[u8]) -> p256::PublicKey {
    let at = hello.windows(5).position(|five| five == [0, 23, 0, 65, 4]).unwrap() + 4;
    p256::PublicKey::from_sec1_bytes(&hello[at..at + 65]).unwrap()
}

fn server_hello(own: &p256::SecretKey) -> Vec<u8> {
    let point = own.public_key().to_encoded_point(false);
    let mut hello = vec![3, 3];
    hello.extend([5; 32]);
    // No session, TLS_AES_128_GCM_SHA256, no compression; 79 bytes of extensions: a key share, and the version.
    hello.extend([0, 0x13, 0x01, 0, 0, 79, 0, 51, 0, 69, 0, 23, 0, 65]);
    hello.extend(point.as_bytes());
    hello.extend([0, 43, 0, 2, 3, 4]);
    hello
}

fn certificate(der: &[u8]) -> Vec<u8> {
    let mut entry = length(der.len(), 3);
    entry.extend(der);
    entry.extend([0, 0]);
    [&[0][..], &length(entry.len(), 3), &entry].concat()
}

fn certificate_verify(key: &Key, transcript: &Sha256) -> Vec<u8> {
    let signed =
        [&[b' '; 64][..], b"TLS 1.3, server CertificateVerify\0", &transcript.clone().finalize()].concat();
    let signature: DerSignature = key.0.sign(&signed);
    [&[4, 3][..], &length(signature.as_bytes().len(), 2), signature.as_bytes()].concat()
}

fn finished(traffic: &Secret, transcript: &Sha256) -> Vec<u8> {
    let mut key = [0; 32];
    expand(traffic, "finished", &[], &mut key);
    let mac = <SimpleHmac<Sha256> as KeyInit>::new_from_slice(&key).unwrap();
    mac.chain_update(transcript.clone().finalize()).finalize().into_bytes().to_vec()
}

/// A message of a handshake (RFC 8446 section 4).
pub(crate) fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind][..], &length(content.len(), 3), content].concat()
}

/// In so many bytes.
fn length(len: usize, bytes: usize) -> Vec<u8> {
    len.to_be_bytes()[size_of::<usize>() - bytes..].to_vec()
}

fn extract(salt: &Secret, material: &[u8]) -> Secret {
    Hkdf::<Sha256, SimpleHmac<Sha256>>::extract(Some(salt), material).0.into()
}

fn derive(secret: &Secret, label: &str, transcript: &Sha256) -> Secret {
    let mut derived = [0; 32];
    expand(secret, label, &transcript.clone().finalize(), &mut derived);
    derived
}

/// HKDF-Expand-Label.
fn expand(secret: &Secret, label: &str, context: &[u8], out: &mut [u8]) {
    let label = format!("tls13 {label}");
    let info = [
        &length(out.len(), 2)[..],
        &length(label.len(), 1),
        label.as_bytes(),
        &length(context.len(), 1),
        context,
    ];
    Hkdf::<Sha256, SimpleHmac<Sha256>>::from_prk(secret).unwrap().expand(&info.concat(), out).unwrap();
}
