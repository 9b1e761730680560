//! Which images may be pulled: accepted, rejected, or only with a signature by a given key.
//!
//! A policy belongs to a registry, or to a repository or a path of repositories of it; the longest path
//! that fits decides, and without any an image is accepted. It is looked at for each pull, before any
//! layer is fetched or unpacked.
//!
//! Signatures are those that `cosign sign --key` makes: beside the image, under the tag
//! `sha256-<hex>.sig`, lies a manifest whose layers are small JSON texts that name the digest of what is
//! signed, each with its signature in an annotation. What counts is the key and the digest in the signed
//! text; names and labels around it are only data. Transparency logs are not asked.

mod key;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use self::key::PublicKey;
use crate::registry::{RegistryError, Session};
use crate::{Digest, PullError, Reference};

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Of one signed text.
const PAYLOAD_BYTES: u64 = 64 << 10;
/// Signatures that are looked at.
const MOST_SIGNATURES: usize = 64;

/// What is asked of the images of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Nothing.
    Accept,
    /// They are not pulled.
    Reject,
    /// A cosign signature by one of these keys.
    Signed {
        /// PEM files with public keys: ECDSA on P-256 or P-384, or Ed25519.
        keys: Vec<PathBuf>,
    },
}

/// The policy for a repository: that of the longest path which is the repository or leads to it. The empty
/// path is the whole registry.
pub(crate) fn policy_for<'a>(policies: &'a BTreeMap<String, Policy>, repository: &str) -> &'a Policy {
    let fits = |path: &str| {
        path.is_empty()
            || repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let longest = policies.iter().filter(|(path, _)| fits(path)).max_by_key(|(path, _)| path.len());
    longest.map_or(&Policy::Accept, |(_, policy)| policy)
}

/// Fails where the policy rejects every image of the repository.
pub(crate) fn check_name(
    policies: &BTreeMap<String, Policy>,
    reference: &Reference,
) -> Result<(), PullError> {
    match policy_for(policies, reference.repository()) {
        Policy::Reject => Err(refused(reference, "its repository is rejected")),
        Policy::Accept | Policy::Signed { .. } => Ok(()),
    }
}

/// Fails where no signature that the policy asks for covers one of `digests`: what the reference names,
/// and the manifest that it led to. The endpoints are asked in their order.
pub(crate) async fn check_signature(
    policies: &BTreeMap<String, Policy>,
    reference: &Reference,
    sessions: &[Arc<Session>],
    digests: &[&Digest],
    most: u64,
) -> Result<(), PullError> {
    let Policy::Signed { keys } = policy_for(policies, reference.repository()) else { return Ok(()) };
    let keys = keys
        .iter()
        .map(|path| {
            PublicKey::read(path).map_err(|why| PullError::Local(format!("{}: {why}", path.display())))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut why = "it has no signature".to_owned();
    for session in sessions {
        for digest in digests {
            match find(session, digest, &keys, most).await {
                Ok(Found::Valid) => return Ok(()),
                Ok(Found::Invalid) => "no signature is by a key of the policy".clone_into(&mut why),
                Ok(Found::None) => {}
                Err(error) => why = format!("its signatures cannot be read: {error}"),
            }
        }
    }
    Err(refused(reference, &why))
}

fn refused(reference: &Reference, why: &str) -> PullError {
    PullError::Denied(format!("{} is refused by the signature policy: {why}", reference.familiar()))
}

enum Found {
    Valid,
    Invalid,
    None,
}

#[derive(Deserialize)]
struct SignatureManifest {
    #[serde(default)]
    layers: Vec<SignatureLayer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignatureLayer {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

async fn find(
    session: &Session,
    digest: &Digest,
    keys: &[PublicKey],
    most: u64,
) -> Result<Found, RegistryError> {
    let tag = format!("sha256-{}.sig", digest.hex());
    let fetched = match session.manifest(&tag, most).await {
        Ok(fetched) => fetched,
        Err(error) if error.status() == Some(404) => return Ok(Found::None),
        Err(error) => return Err(error),
    };
    let manifest: SignatureManifest = serde_json::from_slice(&fetched.bytes)
        .map_err(|error| RegistryError::Corrupt(format!("signatures of {digest}: {error}")))?;
    let mut found = Found::None;
    for layer in manifest.layers.iter().filter(|layer| layer.media_type == PAYLOAD).take(MOST_SIGNATURES) {
        found = Found::Invalid;
        let signature = layer.annotations.get(SIGNATURE).and_then(|text| STANDARD.decode(text.trim()).ok());
        let (Some(signature), Some(payload)) = (signature, Digest::parse(&layer.digest)) else { continue };
        let payload = session.document(&payload, PAYLOAD_BYTES).await?;
        if keys.iter().any(|key| key.verifies(&payload, &signature)) && signs(&payload, digest) {
            return Ok(Found::Valid);
        }
    }
    Ok(found)
}

/// Whether a signed text is about this digest.
fn signs(payload: &[u8], digest: &Digest) -> bool {
    #[derive(Deserialize)]
    struct Payload {
        critical: Critical,
    }
    #[derive(Deserialize)]
    struct Critical {
        image: SignedImage,
        #[serde(rename = "type")]
        kind: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct SignedImage {
        docker_manifest_digest: String,
    }
    serde_json::from_slice::<Payload>(payload).is_ok_and(|payload| {
        payload.critical.kind == "cosign container image signature"
            && payload.critical.image.docker_manifest_digest == digest.as_str()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_decides() {
        let policies = BTreeMap::from([
            (String::new(), Policy::Reject),
            ("team".to_owned(), Policy::Accept),
            ("team/secret".to_owned(), Policy::Signed { keys: vec![] }),
        ]);
        assert_eq!(policy_for(&policies, "other"), &Policy::Reject);
        assert_eq!(policy_for(&policies, "teams/app"), &Policy::Reject);
        assert_eq!(policy_for(&policies, "team/app"), &Policy::Accept);
        assert_eq!(policy_for(&policies, "team/secret/a"), &Policy::Signed { keys: vec![] });
        assert_eq!(policy_for(&BTreeMap::new(), "x"), &Policy::Accept);
    }
}
