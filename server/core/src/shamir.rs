//! Splitting a key into shares of which any `k` give it back and fewer tell nothing.
//!
//! The arithmetic is the `vsss-rs` crate's, in constant time; this module keeps Vault's byte layout (the values
//! first, the share's number last), so that its tools read our shares. One share of one is the key itself.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::CryptoRng;
use vsss_rs::Gf256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::secret::SecretBytes;

/// The largest secret that may be split.
pub const MAX_SECRET_BYTES: usize = 4096;

/// Why splitting or combining failed. Never carries a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShamirError {
    /// `k` of `n` must fulfil `1 <= k <= n <= 255`.
    #[error("invalid share count or threshold: 1 <= threshold <= shares <= 255 is required")]
    Threshold,
    /// With a threshold of one, every share would be the key.
    #[error("a threshold of 1 is only allowed with a single share")]
    SingleOfMany,
    /// Nothing to split, or too much.
    #[error("the secret must have 1 to {MAX_SECRET_BYTES} bytes")]
    Secret,
    /// Neither hex nor base64, or of an impossible length.
    #[error("share is neither valid hex nor valid base64")]
    Malformed,
    /// The same share twice.
    #[error("the same share was given twice")]
    Duplicate,
    /// Shares of different secrets.
    #[error("shares differ in length")]
    Mixed,
    /// None were given.
    #[error("no shares were given")]
    NoShares,
    /// The arithmetic refused.
    #[error("shares cannot be combined")]
    Combine,
}

/// How many shares there are and how many it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "RawThreshold", into = "RawThreshold")]
pub struct Threshold {
    shares: u8,
    needed: u8,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct RawThreshold {
    shares: u64,
    needed: u64,
}

impl Threshold {
    /// `needed` of `shares`.
    pub fn new(shares: u64, needed: u64) -> Result<Self, ShamirError> {
        let (n, k) = (u8::try_from(shares), u8::try_from(needed));
        match (n, k) {
            (Ok(n), Ok(k)) if k >= 1 && k <= n => {
                if k == 1 && n > 1 {
                    return Err(ShamirError::SingleOfMany);
                }
                Ok(Self { shares: n, needed: k })
            }
            _ => Err(ShamirError::Threshold),
        }
    }

    /// How many shares there are.
    pub const fn shares(self) -> u8 {
        self.shares
    }

    /// How many of them it takes.
    pub const fn needed(self) -> u8 {
        self.needed
    }
}

impl TryFrom<RawThreshold> for Threshold {
    type Error = ShamirError;
    fn try_from(raw: RawThreshold) -> Result<Self, ShamirError> {
        Self::new(raw.shares, raw.needed)
    }
}

impl From<Threshold> for RawThreshold {
    fn from(t: Threshold) -> Self {
        Self { shares: t.shares.into(), needed: t.needed.into() }
    }
}

/// One share, in Vault's layout. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Share(Box<[u8]>);

impl Share {
    /// Reads a share as people type it: hex, else base64. (Base64 that happens to be hex too is taken for hex;
    /// for shares of keys, 33 characters and more, that does not happen.)
    pub fn parse(text: &str) -> Result<Self, ShamirError> {
        let text = text.trim();
        if text.is_empty() || text.len() > 2 * (MAX_SECRET_BYTES + 1) {
            return Err(ShamirError::Malformed);
        }
        let decoded = hex::decode(text).ok().or_else(|| STANDARD.decode(text).ok());
        let bytes = Zeroizing::new(decoded.ok_or(ShamirError::Malformed)?);
        // Base64 is shorter than hex: without this one spelling would have room for more than the other.
        if bytes.len() > MAX_SECRET_BYTES + 1 {
            return Err(ShamirError::Malformed);
        }
        Ok(Self::from_bytes(&bytes))
    }

    /// From raw bytes in Vault's layout.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Box::from(bytes))
    }

    /// The raw bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Lower-case hex.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(&self.0))
    }

    /// Base64.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(&self.0))
    }

    /// The share's number; `None` for a share too short to have one.
    fn number(&self) -> Option<u8> {
        if self.0.len() < 2 { None } else { self.0.last().copied() }
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Share([redacted])")
    }
}

/// Splits a secret. With one share of one the share is the secret, as in Vault.
pub fn split(
    secret: &SecretBytes,
    threshold: Threshold,
    rng: &mut impl CryptoRng,
) -> Result<Vec<Share>, ShamirError> {
    if secret.is_empty() || secret.len() > MAX_SECRET_BYTES {
        return Err(ShamirError::Secret);
    }
    if threshold.shares == 1 {
        return Ok(vec![Share::from_bytes(secret.expose())]);
    }
    let (k, n) = (usize::from(threshold.needed), usize::from(threshold.shares));
    let mut raw = Gf256::split_bytes(k, n, secret.expose(), rng).map_err(|_| ShamirError::Secret)?;
    let mut shares = Vec::with_capacity(n);
    for bytes in &mut raw {
        // The crate puts the number first.
        bytes.rotate_left(1);
        shares.push(Share::from_bytes(bytes));
        bytes.zeroize();
    }
    Ok(shares)
}

/// Puts shares together. Whether the result is the right key only a key check can tell: too few shares, or
/// shares of different secrets, give a wrong key and not an error. `threshold` says how one share is to be read.
pub fn combine(shares: &[Share], threshold: Threshold) -> Result<SecretBytes, ShamirError> {
    let first = shares.first().ok_or(ShamirError::NoShares)?;
    if threshold.shares == 1 {
        return Ok(SecretBytes::copy_of(first.expose()));
    }
    let mut seen = [false; 256];
    let mut raw: Zeroizing<Vec<Vec<u8>>> = Zeroizing::new(Vec::with_capacity(shares.len()));
    for share in shares {
        let number = share.number().filter(|n| *n != 0).ok_or(ShamirError::Malformed)?;
        if share.0.len() != first.0.len() {
            return Err(ShamirError::Mixed);
        }
        if std::mem::replace(&mut seen[usize::from(number)], true) {
            return Err(ShamirError::Duplicate);
        }
        let mut bytes = share.0.to_vec();
        bytes.rotate_right(1);
        raw.push(bytes);
    }
    let secret = Gf256::combine_bytes(raw.as_slice()).map_err(|_| ShamirError::Combine)?;
    Ok(SecretBytes::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    #[test]
    fn thresholds() {
        for (n, k, ok) in [(1, 1, true), (5, 3, true), (255, 255, true), (2, 2, true)] {
            assert_eq!(Threshold::new(n, k).is_ok(), ok);
        }
        assert_eq!(Threshold::new(5, 1), Err(ShamirError::SingleOfMany));
        for (n, k) in [(0, 0), (3, 0), (3, 4), (256, 3), (u64::MAX, 2)] {
            assert_eq!(Threshold::new(n, k), Err(ShamirError::Threshold));
        }
        assert!(serde_json::from_str::<Threshold>(r#"{"shares":5,"needed":9}"#).is_err());
    }

    #[test]
    fn one_of_one_is_the_key() {
        let mut rng = StdRng::seed_from_u64(1);
        let one = Threshold::new(1, 1).unwrap();
        let shares = split(&SecretBytes::copy_of(&[7; 32]), one, &mut rng).unwrap();
        assert_eq!(shares[0].expose(), [7; 32]);
        assert_eq!(combine(&shares, one).unwrap().expose(), [7; 32]);
    }

    /// Made by hand over GF(2^8) with the AES polynomial: f(x) = 0x42 + 0x1c*x, at x = 1 and x = 2.
    #[test]
    fn reads_vaults_layout() {
        let two = Threshold::new(2, 2).unwrap();
        let shares = [Share::parse("5e01").unwrap(), Share::parse("7a02").unwrap()];
        assert_eq!(combine(&shares, two).unwrap().expose(), [0x42]);
    }

    #[test]
    fn short_secrets_split_too() {
        let mut rng = StdRng::seed_from_u64(2);
        let t = Threshold::new(255, 200).unwrap();
        let mut shares = split(&SecretBytes::copy_of(&[9]), t, &mut rng).unwrap();
        shares.drain(..55);
        assert_eq!(combine(&shares, t).unwrap().expose(), [9]);
        assert!(split(&SecretBytes::copy_of(&[]), t, &mut rng).is_err());
    }

    #[test]
    fn bad_shares_are_refused() {
        let t = Threshold::new(3, 2).unwrap();
        let share = |b: &[u8]| Share::from_bytes(b);
        assert_eq!(combine(&[], t).unwrap_err(), ShamirError::NoShares);
        assert_eq!(combine(&[share(&[1, 1]), share(&[2, 1])], t).unwrap_err(), ShamirError::Duplicate);
        assert_eq!(combine(&[share(&[1, 1]), share(&[2, 3, 2])], t).unwrap_err(), ShamirError::Mixed);
        assert_eq!(combine(&[share(&[1, 0]), share(&[2, 1])], t).unwrap_err(), ShamirError::Malformed);
        assert_eq!(combine(&[share(&[1]), share(&[2])], t).unwrap_err(), ShamirError::Malformed);
        assert!(combine(&[share(&[1, 1])], t).is_err());
        for bad in ["", "not a share!", "zz"] {
            assert_eq!(Share::parse(bad).unwrap_err(), ShamirError::Malformed);
        }
        for (bytes, fits) in [(MAX_SECRET_BYTES + 1, true), (MAX_SECRET_BYTES + 2, false)] {
            let share = Share::from_bytes(&vec![1; bytes]);
            assert_eq!(Share::parse(&share.to_hex()).is_ok(), fits, "hex of {bytes}");
            assert_eq!(Share::parse(&share.to_base64()).is_ok(), fits, "base64 of {bytes}");
        }
        assert!(!format!("{:?}", Share::parse("5e01").unwrap()).contains("5e"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_k_of_n(
            secret in proptest::collection::vec(any::<u8>(), 16..40),
            (n, k) in (2u64..12).prop_flat_map(|n| (Just(n), 2..=n)),
            seed: u64,
            skip in 0usize..12,
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let t = Threshold::new(n, k).unwrap();
            let mut shares = split(&SecretBytes::copy_of(&secret), t, &mut rng).unwrap();
            prop_assert!(shares.iter().all(|s| s.expose().len() == secret.len() + 1));
            shares.rotate_left(skip % usize::try_from(n).unwrap());
            shares.truncate(usize::try_from(k).unwrap());
            // Through both spellings, as a person would type them in.
            let typed: Vec<Share> = shares.iter().enumerate().map(|(i, s)| {
                let text = if i % 2 == 0 { s.to_hex() } else { s.to_base64() };
                Share::parse(&text)
            }).collect::<Result<_, _>>().unwrap();
            let combined = combine(&typed, t).unwrap();
            prop_assert_eq!(combined.expose(), secret.as_slice());
        }
    }
}
