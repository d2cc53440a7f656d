//! The secret that all nodes share, and proofs of knowing it that do not give it away.
//!
//! Never knows: who asks whom, or what for.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Bytes of a nonce and of a proof.
pub(super) const PROOF_BYTES: usize = 32;

/// What all nodes of a group know and nobody else.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// A secret; any text will do, a long random one is good.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// A value that only who knows the secret can make of `parts`.
    pub(super) fn proof(&self, parts: &[&[u8]]) -> [u8; PROOF_BYTES] {
        self.mac(parts).finalize().into_bytes().into()
    }

    /// Whether `proof` is that value. Takes the same time whichever bytes differ.
    pub(super) fn verify(&self, parts: &[&[u8]], proof: &[u8]) -> bool {
        self.mac(parts).verify_slice(proof).is_ok()
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes())
            .expect("HMAC takes keys of any length");
        for part in parts {
            // The length keeps the parts apart.
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
