//! Tokens, what is stored of them, and the accessors that may be shown.
//!
//! The secret half never leaves a [`Token`] except by `expose`; stores and logs see a [`TokenHash`] or an
//! [`Accessor`]. Who owns a token and what it may do is not decided here.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The longest token a client may send.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
const PREFIX: &str = "s.";
const ACCESSOR_LEN: usize = 24;

/// Why a token or accessor was refused. Never carries what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Empty, too long, or with characters no token has.
    #[error("malformed token")]
    Token,
    /// Not an accessor.
    #[error("malformed accessor")]
    Accessor,
}

/// The key tokens are hashed under. Comes from the barrier.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct HmacKey(Box<[u8; 32]>);

impl HmacKey {
    /// Takes a key over.
    pub fn new(mut key: [u8; 32]) -> Self {
        let boxed = Box::new(key);
        key.zeroize();
        Self(boxed)
    }

    /// HMAC-SHA256 of `parts`, each preceded by its length so that no two lists of parts collide.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = keyed(&self.0);
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey([redacted])")
    }
}

/// A token's secret: `s.` and 32 random bytes in base64url, or whatever a client sent in its place.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Token(Box<str>);

impl Token {
    /// A new token from 32 random bytes.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0u8; 32]);
        rng.fill_bytes(bytes.as_mut());
        // 45 = prefix and 43 characters: nothing is reallocated, so no copy stays behind.
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes.as_ref(), &mut text);
        Self(Box::from(text.as_str()))
    }

    /// Takes what a client sent. Any visible ASCII up to [`MAX_TOKEN_BYTES`] is a possible token: other
    /// prefixes and lengths are simply unknown, and must look so from outside.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.is_empty() || text.len() > MAX_TOKEN_BYTES || !text.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(TokenError::Token);
        }
        Ok(Self(Box::from(text)))
    }

    /// The secret itself, to hand to the client it was made for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the store knows this token by.
    pub fn hash(&self, key: &HmacKey) -> TokenHash {
        let mut mac = keyed(&key.0);
        mac.update(self.0.as_bytes());
        TokenHash(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

/// HMAC-SHA256 of a token. Serialised as hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// From stored bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, as a storage key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Lower-case hex.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell two apart while debugging; the accessor is what names a token.
        write!(f, "TokenHash({}..)", hex::encode(&self.0[..4]))
    }
}

impl Serialize for TokenHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// Names a token without being able to use it. May be logged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Accessor(Box<str>);

impl Accessor {
    /// A new accessor: 24 characters from 18 random bytes.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0u8; 18];
        rng.fill_bytes(&mut bytes);
        Self::from_bytes(bytes)
    }

    /// The accessor that these bytes stand for.
    pub fn from_bytes(bytes: [u8; 18]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(bytes).into())
    }

    /// Reads an accessor back.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        if text.len() != ACCESSOR_LEN || !text.bytes().all(good) {
            return Err(TokenError::Accessor);
        }
        Ok(Self(text.into()))
    }

    /// The accessor's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Accessor {
    type Error = TokenError;
    fn try_from(text: String) -> Result<Self, TokenError> {
        Self::parse(&text)
    }
}

impl From<Accessor> for String {
    fn from(accessor: Accessor) -> Self {
        accessor.0.into()
    }
}

impl fmt::Display for Accessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Accessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accessor({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    #[test]
    fn tokens_have_their_shape() {
        let mut rng = StdRng::seed_from_u64(7);
        let token = Token::generate(&mut rng);
        assert_eq!(token.expose().len(), 45);
        assert!(token.expose().starts_with("s."));
        assert_ne!(token.expose(), Token::generate(&mut rng).expose());
        assert!(!format!("{token:?}").contains(token.expose()));
        assert_eq!(Accessor::generate(&mut rng).as_str().len(), 24);
    }

    #[test]
    fn hashes_depend_on_key_and_token() {
        let (a, b) = (Token::parse("s.a").unwrap(), Token::parse("s.b").unwrap());
        let (k1, k2) = (HmacKey::new([1; 32]), HmacKey::new([2; 32]));
        assert_eq!(a.hash(&k1), a.hash(&k1));
        assert_ne!(a.hash(&k1), b.hash(&k1));
        assert_ne!(a.hash(&k1), a.hash(&k2));
        let json = serde_json::to_string(&a.hash(&k1)).unwrap();
        assert_eq!(serde_json::from_str::<TokenHash>(&json).unwrap(), a.hash(&k1));
        assert_ne!(k1.mac(&[b"ab", b"c"]), k1.mac(&[b"a", b"bc"]));
    }

    #[test]
    fn malformed_ones_are_refused_without_an_echo() {
        for bad in ["", "with space", "new\nline", "ünïcode"] {
            let error = Token::parse(bad).unwrap_err();
            assert_eq!(error.to_string(), "malformed token");
        }
        assert!(Token::parse(&"x".repeat(MAX_TOKEN_BYTES + 1)).is_err());
        assert!(Token::parse("hvs.CAESIJ").is_ok());
        assert!(Accessor::parse("short").is_err());
        assert!(serde_json::from_str::<Accessor>("\"../../../../../../../../\"").is_err());
    }
}
