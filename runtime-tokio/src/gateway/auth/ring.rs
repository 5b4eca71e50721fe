//! The cryptography of `jsonwebtoken` by way of ring, which TLS has brought in already: no second library, no C build
//! tools beyond a compiler, and no RSA in software whose timing tells of the key.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::signature::{Error, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents, UnparsedPublicKey,
};
use ring::{error, hmac};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| {
        Ok(Box::new(Keyed { algorithm: supported(*algorithm, key.family())?, key: key.clone() }))
    },
    verifier_factory: |algorithm, key| {
        Ok(Box::new(Keyed { algorithm: supported(*algorithm, key.family())?, key: key.clone() }))
    },
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes it the one of this process, unless there is another already.
pub(super) fn install() {
    // Whoever was first has a reason for it.
    let _ = PROVIDER.install_default();
}

/// HS256, RS256 and ES256, each with a key of its own family and no other.
fn supported(algorithm: Algorithm, family: jsonwebtoken::AlgorithmFamily) -> Result<Algorithm> {
    match algorithm {
        Algorithm::HS256 | Algorithm::RS256 | Algorithm::ES256 if algorithm.family() == family => {
            Ok(algorithm)
        }
        Algorithm::HS256 | Algorithm::RS256 | Algorithm::ES256 => Err(new_error(ErrorKind::InvalidKeyFormat)),
        _ => Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    }
}

struct Keyed<K> {
    algorithm: Algorithm,
    key: K,
}

impl Keyed<DecodingKey> {
    fn check(&self, message: &[u8], signature: &[u8]) -> std::result::Result<(), error::Unspecified> {
        match (self.algorithm, self.key.kind()) {
            (Algorithm::HS256, DecodingKeyKind::SecretOrDer(secret)) => {
                hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), message, signature)
            }
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            (Algorithm::RS256, DecodingKeyKind::SecretOrDer(der)) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).verify(message, signature)
            }
            (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            _ => Err(error::Unspecified),
        }
    }
}

impl Verifier<Vec<u8>> for Keyed<DecodingKey> {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        self.check(message, signature).map_err(|_| Error::new())
    }
}

impl JwtVerifier for Keyed<DecodingKey> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Signer<Vec<u8>> for Keyed<EncodingKey> {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        let (key, random) = (self.key.as_bytes(), SystemRandom::new());
        match self.algorithm {
            Algorithm::HS256 => {
                Ok(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec())
            }
            Algorithm::RS256 => {
                let pair = RsaKeyPair::from_der(key).map_err(|_| Error::new())?;
                let mut signature = vec![0; pair.public().modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
                signed.map(|()| signature).map_err(|_| Error::new())
            }
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key, &random);
                let pair = pair.map_err(|_| Error::new())?;
                pair.sign(&random, message).map(|s| s.as_ref().to_vec()).map_err(|_| Error::new())
            }
            _ => Err(Error::new()),
        }
    }
}

impl JwtSigner for Keyed<EncodingKey> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
