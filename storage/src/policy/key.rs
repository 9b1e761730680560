//! Public keys as `cosign generate-key-pair` and `openssl` write them: PEM around a
//! SubjectPublicKeyInfo (RFC 5280), whose start says the kind of key and is the same for all of a kind.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm,
};

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// What stands before the point of a key on P-256 (RFC 5480).
const P256: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
/// The same on P-384.
const P384: &[u8] =
    b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";
/// The same of an Ed25519 key (RFC 8410).
const ED: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// A key that signatures are compared with.
pub(super) struct PublicKey {
    algorithm: &'static dyn VerificationAlgorithm,
    point: Vec<u8>,
}

impl PublicKey {
    /// Reads a PEM file. The error says what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, String> {
        Self::parse(&std::fs::read_to_string(path).map_err(|error| error.to_string())?)
    }

    fn parse(pem: &str) -> Result<Self, String> {
        let body = pem
            .split_once(BEGIN)
            .and_then(|(_, rest)| rest.split_once(END))
            .map(|(body, _)| body.split_whitespace().collect::<String>())
            .ok_or("it is no public key in PEM")?;
        let der = STANDARD.decode(body).map_err(|error| error.to_string())?;
        let kinds: [(&[u8], usize, &'static dyn VerificationAlgorithm); 3] =
            [(P256, 65, &ECDSA_P256_SHA256_ASN1), (P384, 97, &ECDSA_P384_SHA384_ASN1), (ED, 32, &ED25519)];
        kinds
            .into_iter()
            .find_map(|(start, length, algorithm)| {
                let point = der.strip_prefix(start)?;
                (point.len() == length).then(|| Self { algorithm, point: point.to_vec() })
            })
            .ok_or_else(|| "it is neither an ECDSA key on P-256 or P-384 nor an Ed25519 key".to_owned())
    }

    /// Whether the signature is this key's over exactly these bytes.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.point).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_key() {
        for text in
            ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "-----BEGIN PUBLIC KEY-----"]
        {
            assert!(PublicKey::parse(text).is_err(), "{text:?}");
        }
    }
}
