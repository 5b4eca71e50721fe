//! What can be wrong with a certificate.

use core::fmt;

use webpki::Error;

/// What is wrong with a gateway's certificate, or with one of the chain that it comes with (RFC 5280 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum BadCertificate {
    /// It is for other names than [`TlsConfig::server_name`](crate::TlsConfig::server_name).
    OtherName,
    /// Its time is over.
    Expired,
    /// Its time has not come; or the device's clock is wrong.
    NotYetValid,
    /// No CA of [`Trust::Cas`](crate::Trust::Cas) has issued it, also not by way of the intermediates that it came with.
    UnknownIssuer,
    /// It says that a CA, or an intermediate, has issued it, and that one has not signed it.
    WrongSignature,
    /// Who has issued it may not issue any, or not this one.
    IssuerMayNot,
    /// It is that of a CA, and of no server.
    IsCa,
    /// It is for other purposes than a server's.
    NotForServers,
    /// A key or a signature that is not ECDSA with P-256 and SHA-256.
    Algorithm,
    /// More certificates than a chain may have (a gateway's own and six intermediates), or more ways through them than a device
    /// can try.
    TooLong,
    /// None was wanted: who shares a secret has to show that.
    Unwanted,
    /// It cannot be read, or has something that must be understood and is not.
    Malformed,
}

impl From<Error> for BadCertificate {
    fn from(error: Error) -> Self {
        match error {
            Error::CertNotValidForName(_) => Self::OtherName,
            Error::CertExpired { .. } => Self::Expired,
            Error::CertNotValidYet { .. } => Self::NotYetValid,
            Error::UnknownIssuer => Self::UnknownIssuer,
            Error::InvalidSignatureForPublicKey => Self::WrongSignature,
            Error::EndEntityUsedAsCa | Error::PathLenConstraintViolated | Error::NameConstraintViolation => {
                Self::IssuerMayNot
            }
            Error::CaUsedAsEndEntity => Self::IsCa,
            Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => Self::NotForServers,
            Error::UnsupportedSignatureAlgorithmContext(_)
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
            | Error::SignatureAlgorithmMismatch => Self::Algorithm,
            Error::MaximumPathDepthExceeded
            | Error::MaximumSignatureChecksExceeded
            | Error::MaximumPathBuildCallsExceeded
            | Error::MaximumNameConstraintComparisonsExceeded => Self::TooLong,
            _ => Self::Malformed,
        }
    }
}

impl fmt::Display for BadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherName => "it is for another name",
            Self::Expired => "it has expired",
            Self::NotYetValid => "it is not valid yet",
            Self::UnknownIssuer => "no CA of this device has issued it",
            Self::WrongSignature => "its signature is not its issuer's",
            Self::IssuerMayNot => "its issuer may not issue it",
            Self::IsCa => "it is that of a CA",
            Self::NotForServers => "it is not for a server",
            Self::Algorithm => "it is not of ECDSA with P-256",
            Self::TooLong => "its chain is too long, or too tangled",
            Self::Unwanted => "none was wanted",
            Self::Malformed => "it cannot be read",
        })
    }
}

impl core::error::Error for BadCertificate {}
