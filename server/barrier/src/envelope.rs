//! The stored formats: how a plaintext becomes a row and back.
//!
//! Pure but for randomness. Never sees a name: the storage key comes in as bytes and is part of what is
//! authenticated, so that a ciphertext moved to another row does not open.
//!
//! - system row (1): `1, generation u32, salt 16, ciphertext` under HKDF(system KEK, salt)
//! - secret row (2): `2, generation u32, salt 16, wrapped DEK 48, nonce 12, ciphertext`; the DEK is fresh per write and
//!   wrapped under HKDF(mount KEK, salt). The ciphertext does not depend on the KEK, so re-wrapping leaves it alone.
//! - wrapped key (3): `3, salt 16, ciphertext` under HKDF(wrapping key, salt)
//!
//! Every derived key is used for one message, so no key ever meets a second nonce.

use std::fmt;

use aes_gcm::aead::{Aead, Nonce, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use coffer_core::secret::SecretBytes;
use hkdf::Hkdf;
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::BarrierError;
use crate::store::VALUE_BYTES_MAX;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;
const SYSTEM_V1: u8 = 1;
const SECRET_V1: u8 = 2;
const WRAPPED_V1: u8 = 3;
const GENERATION_BYTES: usize = 4;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const WRAPPED_DEK_BYTES: usize = KEY_BYTES + TAG_BYTES;
const HEADER_BYTES: usize = 1 + GENERATION_BYTES + SALT_BYTES;
/// The most bytes a stored row is longer than its plaintext.
const OVERHEAD_MAX: usize = HEADER_BYTES + WRAPPED_DEK_BYTES + NONCE_BYTES + TAG_BYTES;
/// The longest plaintext of a row.
pub(crate) const PLAIN_BYTES_MAX: usize = VALUE_BYTES_MAX - OVERHEAD_MAX;

/// A 256-bit key. Cannot be cloned or printed, and wipes itself.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Key(Box<[u8; KEY_BYTES]>);

impl Key {
    /// A fresh key from the operating system's generator.
    pub(crate) fn generate() -> Result<Self, BarrierError> {
        let mut key = Self(Box::new([0; KEY_BYTES]));
        SysRng
            .try_fill_bytes(key.0.as_mut_slice())
            .map_err(|_| BarrierError::Unavailable("no randomness from the operating system".into()))?;
        Ok(key)
    }

    /// Copies a key; the caller wipes its own.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut key = Self(Box::new([0; KEY_BYTES]));
        if bytes.len() != KEY_BYTES {
            return None;
        }
        key.0.copy_from_slice(bytes);
        Some(key)
    }

    pub(crate) fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// A key for one purpose.
    pub(crate) fn derive(&self, salt: Option<&[u8]>, info: &[u8]) -> Self {
        let mut out = Self(Box::new([0; KEY_BYTES]));
        Hkdf::<Sha256>::new(salt, self.0.as_slice())
            .expand(info, out.0.as_mut_slice())
            .expect("32 bytes are within HKDF's limit");
        out
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key([redacted])")
    }
}

/// Which key a stored row needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// The system KEK of this generation.
    System(u32),
    /// The mount's KEK of this generation.
    Mount(u32),
}

/// Reads which key `stored` needs, without opening it.
pub(crate) fn needs(stored: &[u8]) -> Result<Needs, BarrierError> {
    let tampered = BarrierError::Tampered { what: "row header" };
    let Some((&format, rest)) = stored.split_first() else { return Err(tampered) };
    let Some(generation) = rest.first_chunk::<GENERATION_BYTES>() else { return Err(tampered) };
    let generation = u32::from_be_bytes(*generation);
    match format {
        SYSTEM_V1 => Ok(Needs::System(generation)),
        SECRET_V1 => Ok(Needs::Mount(generation)),
        _ => Err(tampered),
    }
}

/// Seals a system row at storage key `at`.
pub(crate) fn seal_system(
    kek: &Key,
    generation: u32,
    at: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, BarrierError> {
    check_size(plain)?;
    let mut out = header(SYSTEM_V1, generation);
    let key = kek.derive(Some(salt_of(&out)), b"coffer system record v1");
    let aad = aad(b"system", &out, at);
    out.extend_from_slice(&encrypt(&key, &[0; NONCE_BYTES], &aad, plain)?);
    Ok(out)
}

/// Opens a system row found at storage key `at`.
pub(crate) fn open_system(kek: &Key, at: &[u8], stored: &[u8]) -> Result<SecretBytes, BarrierError> {
    let tampered = BarrierError::Tampered { what: "system row" };
    let Some((head, body)) = stored.split_at_checked(HEADER_BYTES) else { return Err(tampered) };
    let key = kek.derive(Some(salt_of(head)), b"coffer system record v1");
    decrypt(&key, &[0; NONCE_BYTES], &aad(b"system", head, at), body).ok_or(tampered)
}

/// Seals a secret row at storage key `at` under a fresh DEK wrapped by `kek`.
pub(crate) fn seal_secret(
    kek: &Key,
    generation: u32,
    at: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, BarrierError> {
    check_size(plain)?;
    let dek = Key::generate()?;
    let nonce: [u8; NONCE_BYTES] = rand::random();
    let mut out = header(SECRET_V1, generation);
    let wrapping = kek.derive(Some(salt_of(&out)), b"coffer dek wrap v1");
    let wrapped = encrypt(&wrapping, &[0; NONCE_BYTES], &aad(b"dek", &out, at), dek.expose())?;
    let body = encrypt(&dek, &nonce, &aad(b"secret", &[SECRET_V1], at), plain)?;
    out.reserve(wrapped.len() + NONCE_BYTES + body.len());
    out.extend_from_slice(&wrapped);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&body);
    Ok(out)
}

/// Opens a secret row found at storage key `at`.
pub(crate) fn open_secret(kek: &Key, at: &[u8], stored: &[u8]) -> Result<SecretBytes, BarrierError> {
    let parts = || {
        let (head, rest) = stored.split_at_checked(HEADER_BYTES)?;
        let (wrapped, rest) = rest.split_at_checked(WRAPPED_DEK_BYTES)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let wrapping = kek.derive(Some(salt_of(head)), b"coffer dek wrap v1");
        let dek = decrypt(&wrapping, &[0; NONCE_BYTES], &aad(b"dek", head, at), wrapped)?;
        let dek = Key::from_slice(dek.expose())?;
        decrypt(&dek, nonce, &aad(b"secret", &[SECRET_V1], at), body)
    };
    parts().ok_or(BarrierError::Tampered { what: "secret row" })
}

/// Moves a secret row found at `at` from one KEK to another. The secret itself is not opened: only its DEK is wrapped
/// anew.
pub(crate) fn rewrap_secret(
    old: &Key,
    new: &Key,
    generation: u32,
    at: &[u8],
    stored: &[u8],
) -> Result<Vec<u8>, BarrierError> {
    let tampered = BarrierError::Tampered { what: "secret row" };
    let parts = || {
        let (head, rest) = stored.split_at_checked(HEADER_BYTES)?;
        let (wrapped, body) = rest.split_at_checked(WRAPPED_DEK_BYTES)?;
        let wrapping = old.derive(Some(salt_of(head)), b"coffer dek wrap v1");
        Some((decrypt(&wrapping, &[0; NONCE_BYTES], &aad(b"dek", head, at), wrapped)?, body))
    };
    let (dek, body) = parts().ok_or(tampered)?;
    let mut out = header(SECRET_V1, generation);
    let wrapping = new.derive(Some(salt_of(&out)), b"coffer dek wrap v1");
    let wrapped = encrypt(&wrapping, &[0; NONCE_BYTES], &aad(b"dek", &out, at), dek.expose())?;
    out.reserve(wrapped.len() + body.len());
    out.extend_from_slice(&wrapped);
    out.extend_from_slice(body);
    Ok(out)
}

/// Wraps `key` under `wrapping`; `context` says what it is and is needed to unwrap it.
pub(crate) fn wrap_key(wrapping: &Key, context: &[u8], key: &Key) -> Result<Vec<u8>, BarrierError> {
    let mut out = vec![WRAPPED_V1];
    out.extend_from_slice(&rand::random::<[u8; SALT_BYTES]>());
    let derived = wrapping.derive(Some(&out[1..]), b"coffer key wrap v1");
    let body = encrypt(&derived, &[0; NONCE_BYTES], &aad(b"key", &out, context), key.expose())?;
    out.extend_from_slice(&body);
    Ok(out)
}

/// Unwraps what [`wrap_key`] made; `None` when the key, the context or a bit is another.
pub(crate) fn unwrap_key(wrapping: &Key, context: &[u8], wrapped: &[u8]) -> Option<Key> {
    let (head, body) = wrapped.split_at_checked(1 + SALT_BYTES)?;
    if head.first() != Some(&WRAPPED_V1) {
        return None;
    }
    let derived = wrapping.derive(Some(&head[1..]), b"coffer key wrap v1");
    Key::from_slice(decrypt(&derived, &[0; NONCE_BYTES], &aad(b"key", head, context), body)?.expose())
}

fn check_size(plain: &[u8]) -> Result<(), BarrierError> {
    if plain.len() > PLAIN_BYTES_MAX { Err(BarrierError::Limit("row too large")) } else { Ok(()) }
}

fn header(format: u8, generation: u32) -> Vec<u8> {
    let mut out = vec![format];
    out.extend_from_slice(&generation.to_be_bytes());
    out.extend_from_slice(&rand::random::<[u8; SALT_BYTES]>());
    out
}

fn salt_of(header: &[u8]) -> &[u8] {
    &header[1 + GENERATION_BYTES..HEADER_BYTES]
}

/// Label, header and place, each behind its length so that no two triples give the same bytes.
fn aad(label: &[u8], head: &[u8], at: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(label.len() + head.len() + at.len() + 12);
    for part in [label, head, at] {
        out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

fn cipher(key: &Key) -> Aes256Gcm {
    Aes256Gcm::new(&(*key.expose()).into())
}

fn encrypt(key: &Key, nonce: &[u8; NONCE_BYTES], aad: &[u8], msg: &[u8]) -> Result<Vec<u8>, BarrierError> {
    let nonce = Nonce::<Aes256Gcm>::from(*nonce);
    cipher(key).encrypt(&nonce, Payload { msg, aad }).map_err(|_| BarrierError::Limit("row too large"))
}

fn decrypt(key: &Key, nonce: &[u8; NONCE_BYTES], aad: &[u8], msg: &[u8]) -> Option<SecretBytes> {
    let nonce = Nonce::<Aes256Gcm>::from(*nonce);
    let plain = Zeroizing::new(cipher(key).decrypt(&nonce, Payload { msg, aad }).ok()?);
    Some(SecretBytes::copy_of(&plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_other_place_is_refused() {
        let kek = Key::generate().unwrap();
        let system = seal_system(&kek, 1, b"here", b"plain").unwrap();
        let secret = seal_secret(&kek, 1, b"here", b"plain").unwrap();
        assert_eq!(open_system(&kek, b"here", &system).unwrap().expose(), b"plain");
        assert_eq!(open_secret(&kek, b"here", &secret).unwrap().expose(), b"plain");
        assert!(open_system(&kek, b"there", &system).is_err());
        assert!(open_secret(&kek, b"there", &secret).is_err());
        // The format byte decides which of the two is called, so flips start behind it.
        for bit in 8..system.len() * 8 {
            let mut bad = system.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open_system(&kek, b"here", &bad).is_err(), "bit {bit}");
        }
        for bit in 8..secret.len() * 8 {
            let mut bad = secret.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open_secret(&kek, b"here", &bad).is_err(), "bit {bit}");
        }
        assert!(open_system(&kek, b"here", &secret).is_err());
        assert!(open_secret(&kek, b"here", &system).is_err());
    }

    #[test]
    fn cut_rows_are_refused_without_panic() {
        let kek = Key::generate().unwrap();
        let secret = seal_secret(&kek, 1, b"k", b"v").unwrap();
        for len in 0..secret.len() {
            assert!(open_secret(&kek, b"k", &secret[..len]).is_err());
            assert!(open_system(&kek, b"k", &secret[..len]).is_err());
            assert!(unwrap_key(&kek, b"k", &secret[..len]).is_none());
            let _ = needs(&secret[..len]);
        }
    }

    #[test]
    fn a_wrapped_key_needs_its_context() {
        let (outer, inner) = (Key::generate().unwrap(), Key::generate().unwrap());
        let wrapped = wrap_key(&outer, b"kek a 1", &inner).unwrap();
        assert_eq!(unwrap_key(&outer, b"kek a 1", &wrapped).unwrap().expose(), inner.expose());
        assert!(unwrap_key(&outer, b"kek b 1", &wrapped).is_none());
        assert!(unwrap_key(&inner, b"kek a 1", &wrapped).is_none());
    }

    #[test]
    fn debug_is_redacted() {
        assert_eq!(format!("{:?}", Key::generate().unwrap()), "Key([redacted])");
    }
}
