//! Holders for secret values.
//!
//! They cannot be cloned, printed, serialised or compared by accident, and they wipe their memory when dropped.
//! Reading one takes an explicit `expose`.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Secret bytes. Boxed, so that moving the holder does not leave copies behind.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretBytes(Box<[u8]>);

impl SecretBytes {
    /// Takes over `bytes`. Spare capacity is wiped.
    pub fn new(bytes: Vec<u8>) -> Self {
        // `into_boxed_slice` may move the bytes and free the old block unwiped, so copy and wipe instead.
        let bytes = Zeroizing::new(bytes);
        Self(Box::from(bytes.as_slice()))
    }

    /// Copies `bytes`; the caller keeps (and wipes) its own.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(Box::from(bytes))
    }

    /// Copies `parts`, one behind the other, without a copy on the way.
    pub fn concat(parts: &[&[u8]]) -> Self {
        // Exactly as large as needed, so that nothing is moved.
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        Self(bytes.into_boxed_slice())
    }

    /// The bytes. Do not keep them longer than needed.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The number of bytes, which is not secret.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in time that depends on the lengths only.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// The bytes as text, if they are UTF-8; otherwise they are given back.
    pub fn into_string(self) -> Result<SecretString, Self> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => Ok(SecretString::copy_of(text)),
            Err(_) => Err(self),
        }
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes([redacted])")
    }
}

/// Secret text. As [`SecretBytes`], but UTF-8.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretString(Box<str>);

impl SecretString {
    /// Takes over `text`. Spare capacity is wiped.
    pub fn new(text: String) -> Self {
        let text = Zeroizing::new(text);
        Self(Box::from(text.as_str()))
    }

    /// Copies `text`; the caller keeps (and wipes) its own.
    pub fn copy_of(text: &str) -> Self {
        Self(Box::from(text))
    }

    /// The text. Do not keep it longer than needed.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The number of bytes, which is not secret.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in time that depends on the lengths only.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretString([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_is_redacted() {
        assert!(!format!("{:?}", SecretBytes::new(b"hunter2".to_vec())).contains("hunter2"));
        assert!(!format!("{:?}", SecretString::new("hunter2".into())).contains("hunter2"));
    }

    #[test]
    fn compares_and_converts() {
        let a = SecretBytes::copy_of(b"abc");
        assert!(a.ct_eq(&SecretBytes::new(b"abc".to_vec())));
        assert!(!a.ct_eq(&SecretBytes::copy_of(b"abd")));
        assert!(!a.ct_eq(&SecretBytes::copy_of(b"ab")));
        assert_eq!(a.into_string().unwrap().expose(), "abc");
        assert_eq!(SecretBytes::copy_of(&[0xff]).into_string().unwrap_err().expose(), [0xff]);
    }
}
