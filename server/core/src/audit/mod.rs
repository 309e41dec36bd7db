//! Audit records and the hash chain that makes tampering with their file visible.
//!
//! Builds and checks lines of text; writing them, and keeping the head where a file's editor cannot reach, is
//! the caller's part. Records have no field that could hold a secret value.

pub mod files;
mod record;
mod verify;

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use record::{AuditRecord, RecordType};
pub use verify::{Finding, LostTail, OpenIntent, Report, Verifier, verify, verify_from};

/// The longest line the chain takes, in bytes.
pub const MAX_LINE_BYTES: usize = 256 * 1024;

/// Keeps these hashes apart from all others.
const DOMAIN: &[u8] = b"coffer-audit-v1\0";

/// Why a record could not be appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// Longer than [`MAX_LINE_BYTES`].
    #[error("audit record is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// Not one JSON object on one line, or with a field that is the chain's own.
    #[error("audit record is not a JSON object on one line")]
    Malformed,
}

/// SHA-256 over a record and all before it. Serialised as hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// What stands in the place of a predecessor before the first record.
    pub const GENESIS: Self = Self([0; 32]);

    /// Lower-case hex.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// Appends [`ChainHash::to_hex`] without an allocation of its own.
    fn put_hex(self, out: &mut Vec<u8>) {
        let mut hex = [0; 64];
        // Cannot fail: the lengths are fixed.
        if hex::encode_to_slice(self.0, &mut hex).is_ok() {
            out.extend_from_slice(&hex);
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        // One spelling only: a changed letter case is an edit too.
        let lower = text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(Self(bytes))
    }

    fn of(prev: Self, seq: u64, record: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(prev.0);
        hash.update(seq.to_be_bytes());
        hash.update(record);
        Self(hash.finalize().into())
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl Serialize for ChainHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for ChainHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a SHA-256 in hex"))
    }
}

/// The head of a chain: what the next record will be linked to. This is what is anchored in the barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The hash of the last record.
    pub prev: ChainHash,
    /// The number the next record will get; so, how many there are.
    pub seq: u64,
}

impl Default for Chain {
    fn default() -> Self {
        Self { prev: ChainHash::GENESIS, seq: 0 }
    }
}

impl Chain {
    /// The line for a record, without a line end. The head moves on only when this succeeds.
    pub fn append(&mut self, record: &AuditRecord) -> Result<String, AuditError> {
        self.link(&serde_json::to_string(record).map_err(|_| AuditError::Malformed)?)
    }

    /// As [`Chain::append`], for a record that is JSON already: one object on one line, without the fields
    /// `seq`, `prev` and `hash`.
    pub fn append_json(&mut self, record: &str) -> Result<String, AuditError> {
        if record.len() > MAX_LINE_BYTES {
            return Err(AuditError::TooLong);
        }
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(record).map_err(|_| AuditError::Malformed)?;
        let taken = ["seq", "prev", "hash"].iter().any(|k| object.contains_key(*k));
        let one_line = record.starts_with('{') && !record.contains('\n');
        if object.is_empty() || taken || !one_line { Err(AuditError::Malformed) } else { self.link(record) }
    }

    /// As [`Chain::append`], for a record that the caller has just serialised; the line, with its end, is put
    /// behind what is in `out` already. For whoever writes many at once. On an error, `out` and head are as before.
    pub fn append_line(&mut self, record: &str, out: &mut Vec<u8>) -> Result<(), AuditError> {
        let open = Self::fits(record)?;
        let next = self.seq.checked_add(1).ok_or(AuditError::Malformed)?;
        let hash = ChainHash::of(self.prev, self.seq, record.as_bytes());
        out.extend_from_slice(open.as_bytes());
        out.extend_from_slice(b",\"seq\":");
        out.extend_from_slice(self.seq.to_string().as_bytes());
        out.extend_from_slice(b",\"prev\":\"");
        self.prev.put_hex(out);
        out.extend_from_slice(b"\",\"hash\":\"");
        hash.put_hex(out);
        out.extend_from_slice(b"\"}\n");
        *self = Self { prev: hash, seq: next };
        Ok(())
    }

    /// The record without its closing brace, if there is room for the chain's fields.
    fn fits(record: &str) -> Result<&str, AuditError> {
        // Seven fixed words, two hashes and a number take less than this.
        const SUFFIX: usize = 192;
        if record.len() + SUFFIX > MAX_LINE_BYTES {
            return Err(AuditError::TooLong);
        }
        record.strip_suffix('}').ok_or(AuditError::Malformed)
    }

    /// Links a record that is known to be a JSON object.
    fn link(&mut self, record: &str) -> Result<String, AuditError> {
        let mut line = Vec::with_capacity(record.len() + 192);
        self.append_line(record, &mut line)?;
        line.pop();
        String::from_utf8(line).map_err(|_| AuditError::Malformed)
    }
}

/// A line taken apart.
struct Line {
    record: String,
    seq: u64,
    prev: ChainHash,
    hash: ChainHash,
}

impl Line {
    /// Accepts exactly what [`Chain::append_json`] writes.
    fn parse(line: &str) -> Option<Self> {
        if line.len() > MAX_LINE_BYTES {
            return None;
        }
        // Inside a string the quotes would be escaped, so the last match is the chain's own.
        let (open, tail) = line.rsplit_once(",\"seq\":")?;
        let (seq, tail) = tail.split_once(",\"prev\":\"")?;
        let (prev, tail) = tail.split_once("\",\"hash\":\"")?;
        let hash = tail.strip_suffix("\"}")?;
        let number: u64 = seq.parse().ok()?;
        // No log gets as far as the last number; a forged line with it would leave none for the next record.
        (number.to_string() == seq && number < u64::MAX).then_some(())?;
        Some(Self {
            record: format!("{open}}}"),
            seq: number,
            prev: ChainHash::parse(prev)?,
            hash: ChainHash::parse(hash)?,
        })
    }

    fn is_intact(&self) -> bool {
        ChainHash::of(self.prev, self.seq, self.record.as_bytes()) == self.hash
    }
}

#[cfg(test)]
mod tests;
