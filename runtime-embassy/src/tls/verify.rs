//! Is it the gateway? rustls-webpki looks at the certificates; p256 at the signatures.
//!
//! embedded-tls has verifiers of its own, but they take any certificate that a CA has signed for the CA of the next one,
//! whatever it was made for: who has a key and a certificate for any name could sign one for the gateway's.

use core::cell::Cell;

use digest::Digest;
use embassy_sync::blocking_mutex::CriticalSectionMutex;
use embedded_tls::{
    CertificateEntryRef, CertificateRef, CertificateVerifyRef, CryptoProvider, Sha256, SignatureScheme,
    TlsError, TlsVerifier,
};
use heapless::Vec;
use longwire_core::rand_core::CryptoRng;
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{DerSignature, Signature, VerifyingKey};
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, ServerName, SignatureVerificationAlgorithm,
    TrustAnchor, UnixTime, alg_id,
};
use webpki::{EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};

use super::below::Numbers;
use super::suite::Suite;
use super::{BadCertificate, MAX_CAS, TlsConfig, TlsConnectError, Trust};

/// Most certificates that a gateway may show: its own, and as many intermediates as a chain may have (webpki's limit). Who
/// may show more can make a device look for a way through them for very long.
const MAX_CHAIN: usize = 7;

/// Signatures that are looked at before a certificate is refused: those of the longest chain, and some that lead nowhere. A
/// signature takes a small processor a good part of a second, and whoever is at the other end can make it check some: so many
/// in a handshake, which has one Certificate, and one more for CertificateVerify.
const MAX_SIGNATURES: u8 = 16;

/// Bytes of a P-256 key: an uncompressed point (RFC 5480 section 2.2).
const KEY: usize = 65;

/// Bytes that CertificateVerify signs: 64 spaces, a context and a zero, the hash (RFC 8446 section 4.4.3).
const SIGNED: usize = 64 + CONTEXT.len() + 32;
const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";

/// Whether all the CAs can be used: one that cannot is a mistake of whoever built the device, and no fault of the gateway's.
pub(super) fn check_cas<E>(trust: &Trust<'_>) -> Result<(), TlsConnectError<E>> {
    let Trust::Cas(cas) = *trust else { return Ok(()) };
    if cas.len() > MAX_CAS {
        return Err(TlsConnectError::TooManyCas);
    }
    let bad = |ca: &&[u8]| anchor_from_trusted_cert(&CertificateDer::from(*ca)).is_err();
    cas.iter().position(bad).map_or(Ok(()), |nth| Err(TlsConnectError::BadCa(nth)))
}

/// What embedded-tls asks for: numbers, and a judgement.
pub(super) struct Provider<'a, R> {
    pub(super) rng: Numbers<'a, R>,
    pub(super) verifier: Verifier<'a>,
}

impl<R: CryptoRng> CryptoProvider for Provider<'_, R> {
    type CipherSuite = Suite;
    type Signature = DerSignature;

    fn rng(&mut self) -> impl embedded_tls::CryptoRngCore {
        &mut self.rng
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<Suite>, TlsError> {
        Ok(&mut self.verifier)
    }
}

/// Looks at the gateway's certificate and its signature.
pub(super) struct Verifier<'a> {
    config: &'a TlsConfig<'a>,
    /// The key of a good certificate, and what has to be signed with it.
    shown: Option<([u8; KEY], [u8; SIGNED])>,
    /// It was.
    proven: bool,
    refused: Option<BadCertificate>,
}

impl<'a> Verifier<'a> {
    pub(super) const fn new(config: &'a TlsConfig<'a>) -> Self {
        Self { config, shown: None, proven: false, refused: None }
    }

    /// Whether this is the gateway, once the handshake is done. With a shared secret the handshake's end has shown it:
    /// only who knows the secret can compute it (RFC 8446 section 4.4.4).
    pub(super) const fn is_content(&self) -> bool {
        match self.config.trust {
            Trust::Cas(_) => self.proven,
            Trust::Psk { .. } => true,
        }
    }

    /// Why the certificate was refused, if it was.
    pub(super) const fn refused(&self) -> Option<BadCertificate> {
        self.refused
    }

    /// The key of the first certificate, if all is well with them.
    fn check(&self, shown: &CertificateRef<'_>) -> Result<[u8; KEY], BadCertificate> {
        let Trust::Cas(cas) = self.config.trust else { return Err(BadCertificate::Unwanted) };
        let mut certificates = Vec::<CertificateDer<'_>, MAX_CHAIN>::new();
        for entry in &shown.entries {
            let CertificateEntryRef::X509(certificate) = entry else { return Err(BadCertificate::Malformed) };
            certificates.push(CertificateDer::from(*certificate)).map_err(|_| BadCertificate::TooLong)?;
        }
        let (leaf, intermediates) = certificates.split_first().ok_or(BadCertificate::Malformed)?;
        let cas: Vec<CertificateDer<'_>, MAX_CAS> =
            cas.iter().map(|ca| CertificateDer::from(*ca)).take(MAX_CAS).collect();
        let anchors: Vec<TrustAnchor<'_>, MAX_CAS> =
            cas.iter().filter_map(|ca| anchor_from_trusted_cert(ca).ok()).collect();
        let leaf = EndEntityCert::try_from(leaf)?;
        let name = ServerName::try_from(self.config.server_name).map_err(|_| BadCertificate::OtherName)?;
        leaf.verify_is_valid_for_subject_name(&name)?;
        self.check_chain(&leaf, &anchors, intermediates)?;
        // The key is handed to nobody but an algorithm, so this one keeps it.
        let copy = Copy(CriticalSectionMutex::new(Cell::new(None)));
        leaf.verify_signature(&copy, &[], &[])?;
        copy.0.lock(Cell::get).ok_or(BadCertificate::Algorithm)
    }

    fn check_chain(
        &self,
        leaf: &EndEntityCert<'_>,
        anchors: &[TrustAnchor<'_>],
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), BadCertificate> {
        let now = (self.config.clock)();
        let mut at = UnixTime::since_unix_epoch(core::time::Duration::from_secs(now.unwrap_or_default()));
        let bounded = P256::new();
        // Who does not know the time asks for one at which all of them are good: each turn meets the time of one more.
        for _ in 0..2 * MAX_CHAIN {
            let usage = KeyUsage::server_auth();
            let error =
                match leaf.verify_for_usage(&[&bounded], anchors, intermediates, at, usage, None, None) {
                    Ok(_) => return Ok(()),
                    Err(error) => error,
                };
            at = match error {
                Error::CertNotValidYet { not_before, .. } if now.is_none() && not_before > at => not_before,
                error => return Err(error.into()),
            };
        }
        Err(BadCertificate::TooLong)
    }
}

impl TlsVerifier<Suite> for Verifier<'_> {
    fn set_hostname_verification(&mut self, _: &str) -> Result<(), TlsError> {
        // It is the one of the configuration.
        Ok(())
    }

    fn verify_certificate(&mut self, transcript: &Sha256, shown: CertificateRef<'_>) -> Result<(), TlsError> {
        // embedded-tls takes any number of them. A server sends one (RFC 8446 section 4.4.2): who replayed the gateway's
        // chain again and again would have the device check signatures for as long as a handshake may take.
        if self.shown.is_some() || self.proven {
            return Err(TlsError::InvalidHandshake);
        }
        let key = self.check(&shown).map_err(|why| {
            self.refused = Some(why);
            TlsError::InvalidCertificate
        })?;
        let mut signed = [b' '; SIGNED];
        let hash = transcript.clone().finalize();
        let rest = signed.iter_mut().skip(64);
        rest.zip(CONTEXT.iter().chain(&hash)).for_each(|(to, from)| *to = *from);
        self.shown = Some((key, signed));
        Ok(())
    }

    fn verify_signature(&mut self, verify: CertificateVerifyRef<'_>) -> Result<(), TlsError> {
        let (key, signed) = self.shown.take().ok_or(TlsError::InvalidSignature)?;
        if verify.signature_scheme != SignatureScheme::EcdsaSecp256r1Sha256 {
            return Err(TlsError::InvalidSignatureScheme);
        }
        P256::new()
            .verify_signature(&key, &signed, verify.signature)
            .map_err(|_| TlsError::InvalidSignature)?;
        self.proven = true;
        Ok(())
    }
}

/// ECDSA with P-256 and SHA-256 (RFC 5758 section 3.2), [`MAX_SIGNATURES`] times.
struct P256(CriticalSectionMutex<Cell<u8>>);

impl P256 {
    const fn new() -> Self {
        Self(CriticalSectionMutex::new(Cell::new(MAX_SIGNATURES)))
    }
}

impl core::fmt::Debug for P256 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("P256")
    }
}

impl SignatureVerificationAlgorithm for P256 {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let left = self.0.lock(Cell::get).checked_sub(1).ok_or(InvalidSignature)?;
        self.0.lock(|counter| counter.set(left));
        let key = VerifyingKey::from_sec1_bytes(key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

/// Verifies nothing; it copies the key of a certificate.
struct Copy(CriticalSectionMutex<Cell<Option<[u8; KEY]>>>);

impl core::fmt::Debug for Copy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Copy")
    }
}

impl SignatureVerificationAlgorithm for Copy {
    fn verify_signature(&self, key: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        let key = <[u8; KEY]>::try_from(key).map_err(|_| InvalidSignature)?;
        self.0.lock(|copy| copy.set(Some(key)));
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shows_no_certificate_or_does_not_sign_is_nobody() {
        let ca: [&[u8]; 1] = [b"not looked at"];
        let config = TlsConfig::new("gateway.example", Trust::Cas(&ca));
        let mut verifier = Verifier::new(&config);
        // embedded-tls asks about what comes, and not about what does not.
        assert!(!verifier.is_content());
        let verify = || CertificateVerifyRef {
            signature_scheme: SignatureScheme::EcdsaSecp256r1Sha256,
            signature: &[],
        };
        assert!(verifier.verify_signature(verify()).is_err());
        assert!(verifier.verify_certificate(&Sha256::new(), CertificateRef::with_context(&[])).is_err());
        assert!(!verifier.is_content());
        // One that was shown, and not signed with.
        verifier.shown = Some(([4; KEY], [0; SIGNED]));
        assert!(!verifier.is_content());
        let again = verifier.verify_certificate(&Sha256::new(), CertificateRef::with_context(&[]));
        assert!(matches!(again, Err(TlsError::InvalidHandshake)));
        assert!(verifier.verify_signature(verify()).is_err());
        assert!(!verifier.is_content());
    }

    #[test]
    fn only_so_many_signatures_are_looked_at() {
        use p256::ecdsa::signature::Signer;
        let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let signature: DerSignature = key.sign(b"signed");
        let public = key.verifying_key().to_encoded_point(false);
        let p256 = P256::new();
        for nth in 0..2 * MAX_SIGNATURES {
            let good = p256.verify_signature(public.as_bytes(), b"signed", signature.as_bytes()).is_ok();
            assert_eq!(good, nth < MAX_SIGNATURES, "{nth}");
        }
    }
}
