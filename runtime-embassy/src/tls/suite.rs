//! The cipher suite that embedded-tls works with, TLS_AES_128_GCM_SHA256, and what it has to see to on the way: nobody but
//! the cipher sees the inside of a record before embedded-tls does, so what that would panic over is stopped here.
//!
//! Where embedded-tls 0.19 panics, and what it takes besides that it should not:
//!
//! | where | on what | from whom | here |
//! |---|---|---|---|
//! | `decrypted_read_handler.rs`: `unimplemented!()` | a message of a handshake behind its end, but a ticket | the gateway | refused by `check_open` |
//! | the same | one inside of a ticket, behind its fields | the gateway | no ticket reaches it |
//! | the same | one that is not encrypted | anybody | refused by `Below` |
//! | `connection.rs`, `decrypt_record`: `last().unwrap()` | a record that holds nothing | anybody who takes part in the handshake | refused by `Below`, and by `check_opening` |
//! | `write_buffer.rs`, `close_record`: `take().unwrap()` | a flush after a failed one | | no link is used after an error (`TlsLink`) |
//! | `config.rs`, `with_psk`: `unwrap!` | five identities | | there is one |
//! | `connection.rs`, `process_server_verify` takes | messages of the handshake that are not encrypted | anybody | refused by `Below` |
//! | the same takes | no Certificate, or no CertificateVerify | anybody | `Verifier::is_content` |
//! | the same takes | several Certificates | anybody | refused by `Verifier` |
//!
//! Others are out of reach: `pre_shared_key.rs` reads what only a server reads; `record.rs` asks for what was
//! checked before; `key_schedule.rs` counts to 2^64. `tests/tls_hostile.rs` and the fuzz target `tls` look for more.

use aes_gcm::Aes128Gcm;
use aes_gcm::aead::{AeadCore, AeadInPlace, Error, Key, KeyInit, KeySizeUser, Nonce, Tag};
use embedded_tls::{Aes128GcmSha256, TlsCipherSuite};

use super::below::{ALERT, APPLICATION_DATA, HANDSHAKE, HEADER};

/// The only version of an encrypted record (RFC 8446 section 5.2).
pub(super) const VERSION: [u8; 2] = [3, 3];
/// What is put in its place once the handshake is done: a cipher is told nothing but a key, a nonce, and the record's header.
pub(super) const OPEN: [u8; 2] = [3, 0xff];

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// TLS_AES_128_GCM_SHA256 (RFC 8446 appendix B.4).
pub(super) struct Suite;

impl TlsCipherSuite for Suite {
    const CODE_POINT: u16 = Aes128GcmSha256::CODE_POINT;
    type Cipher = Cipher;
    type KeyLen = <Aes128GcmSha256 as TlsCipherSuite>::KeyLen;
    type IvLen = <Aes128GcmSha256 as TlsCipherSuite>::IvLen;
    type Hash = <Aes128GcmSha256 as TlsCipherSuite>::Hash;
    type LabelBufferSize = <Aes128GcmSha256 as TlsCipherSuite>::LabelBufferSize;
}

/// AES-128-GCM, which refuses what it has decrypted if embedded-tls could not bear it.
pub(super) struct Cipher(Aes128Gcm);

impl KeySizeUser for Cipher {
    type KeySize = <Aes128Gcm as KeySizeUser>::KeySize;
}

impl KeyInit for Cipher {
    fn new(key: &Key<Self>) -> Self {
        Self(Aes128Gcm::new(key))
    }
}

impl AeadCore for Cipher {
    type NonceSize = <Aes128Gcm as AeadCore>::NonceSize;
    type TagSize = <Aes128Gcm as AeadCore>::TagSize;
    type CiphertextOverhead = <Aes128Gcm as AeadCore>::CiphertextOverhead;
}

impl AeadInPlace for Cipher {
    fn encrypt_in_place_detached(
        &self,
        nonce: &Nonce<Self>,
        header: &[u8],
        content: &mut [u8],
    ) -> Result<Tag<Self>, Error> {
        self.0.encrypt_in_place_detached(nonce, header, content)
    }

    fn decrypt_in_place_detached(
        &self,
        nonce: &Nonce<Self>,
        header: &[u8],
        content: &mut [u8],
        tag: &Tag<Self>,
    ) -> Result<(), Error> {
        let &[kind, major, minor, high, low] = <&[u8; HEADER]>::try_from(header).map_err(|_| Error)?;
        let [first, second] = VERSION;
        self.0.decrypt_in_place_detached(nonce, &[kind, first, second, high, low], content, tag)?;
        if [major, minor] == OPEN { check_open(content) } else { check_opening(content) }
    }
}

/// The content of a record, and its true type, which is its last byte that is not zero (RFC 8446 section 5.4).
fn split_type(content: &mut [u8]) -> Result<(&mut [u8], u8), Error> {
    let end = content.iter().rposition(|byte| *byte != 0).ok_or(Error)?;
    let (inner, rest) = content.split_at_mut_checked(end).ok_or(Error)?;
    Ok((inner, rest.first().copied().ok_or(Error)?))
}

/// During the handshake embedded-tls can judge what comes, if there is something.
fn check_opening(content: &mut [u8]) -> Result<(), Error> {
    split_type(content).map(|_| ())
}

/// After it there are data, alerts, tickets that nobody here uses, and new keys (RFC 8446 section 4.6), which embedded-tls
/// has an error for. A record of tickets is made one of no data at all: embedded-tls believes the lengths inside of a ticket, and not
/// that of its message, so it might find another message in there.
fn check_open(content: &mut [u8]) -> Result<(), Error> {
    match split_type(content)? {
        (_, APPLICATION_DATA | ALERT) => Ok(()),
        ([KEY_UPDATE, ..], HANDSHAKE) => Ok(()),
        (messages, HANDSHAKE) if are_tickets(messages) => {
            content.fill(0);
            *content.first_mut().ok_or(Error)? = APPLICATION_DATA;
            Ok(())
        }
        _ => Err(Error),
    }
}

/// Whether these are whole messages (RFC 8446 section 4), and nothing but tickets.
fn are_tickets(mut messages: &[u8]) -> bool {
    while let Some((&[kind, high, middle, low], rest)) = messages.split_first_chunk() {
        let len = u32::from_be_bytes([0, high, middle, low]);
        let behind = usize::try_from(len).ok().and_then(|len| rest.get(len..));
        let (NEW_SESSION_TICKET, Some(behind)) = (kind, behind) else { return false };
        messages = behind;
    }
    messages.is_empty()
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    const DATA: u8 = APPLICATION_DATA;

    fn message(kind: u8, len: u8) -> Vec<u8> {
        [&[kind, 0, 0, len][..], &vec![7; len.into()]].concat()
    }

    /// What becomes of the inside of a record when the handshake is done; `None`: it is refused.
    fn open(content: &[u8], kind: u8, padding: usize) -> Option<Vec<u8>> {
        let mut content = [content, &[kind], &vec![0; padding]].concat();
        check_open(&mut content).ok().map(|()| content)
    }

    #[test]
    fn data_alerts_and_new_keys_pass_unchanged() {
        for (content, kind) in
            [(&b"data"[..], DATA), (b"", DATA), (&[1, 0], ALERT), (&message(KEY_UPDATE, 1), HANDSHAKE)]
        {
            for padding in [0, 1, 300] {
                let whole = [content, &[kind], &vec![0; padding]].concat();
                assert_eq!(open(content, kind, padding), Some(whole));
            }
        }
    }

    #[test]
    fn tickets_become_nothing() {
        let one = message(NEW_SESSION_TICKET, 30);
        for tickets in [one.clone(), [one.clone(), message(NEW_SESSION_TICKET, 0), one].concat()] {
            let nothing = [&[DATA][..], &vec![0; tickets.len() + 3]].concat();
            assert_eq!(open(&tickets, HANDSHAKE, 3), Some(nothing));
        }
    }

    #[test]
    fn what_has_no_place_behind_a_handshake_is_refused() {
        let ticket = message(NEW_SESSION_TICKET, 5);
        for kind in (0..=u8::MAX).filter(|kind| ![NEW_SESSION_TICKET, KEY_UPDATE].contains(kind)) {
            assert_eq!(open(&message(kind, 5), HANDSHAKE, 0), None, "{kind}");
            assert_eq!(open(&[ticket.clone(), message(kind, 5)].concat(), HANDSHAKE, 0), None, "{kind}");
        }
        // A ticket that is cut off, also inside of its header; ones that are followed by something.
        for end in 1..ticket.len() {
            assert_eq!(open(&ticket[..end], HANDSHAKE, 0), None, "{end}");
        }
        assert_eq!(open(&[&ticket[..], &message(KEY_UPDATE, 1)].concat(), HANDSHAKE, 0), None);
        assert_eq!(open(&[4, 0xff, 0xff, 0xff], HANDSHAKE, 0), None);
        // Other types of records, and none.
        for kind in [1, 20, 24, 255] {
            assert_eq!(open(b"data", kind, 1), None);
        }
        assert_eq!(open(&[0; 40], 0, 0), None);
        assert!(check_opening(&mut [0; 40]).is_err() && check_opening(&mut []).is_err());
        assert!(check_opening(&mut [8, 0, 0, 0, HANDSHAKE, 0]).is_ok());
    }
}
