//! Ceremonies that need several people: new shares, and a new root token.
//!
//! Shares given so far are kept in memory only, and go with the attempt or when the vault is sealed. Never decides who
//! may take part: that is the gate's, and the shares'.

mod rekey;
mod root;

use coffer_barrier::{Barrier, BarrierError};
use coffer_core::shamir::Share;
use serde_json::Value;

use crate::error::{Fail, bad};
use crate::outcome::Outcome;

pub(crate) use rekey::Rekey;
pub(crate) use root::RootAttempt;

/// What real Vault says when shares do not fit.
pub(crate) const WRONG_SHARES: &str =
    "invalid key: failed to decrypt keys from storage: cipher: message authentication failed";
/// The shortest and the longest share, in bytes: Vault's bounds.
const SHARE_BYTES: std::ops::RangeInclusive<usize> = 16..=33;

/// The ceremonies that are going on.
#[derive(Default)]
pub(crate) struct Ceremonies {
    pub(crate) rekey: tokio::sync::Mutex<Rekey>,
    pub(crate) root: tokio::sync::Mutex<RootAttempt>,
}

/// How a family of endpoints words things: Vault's old names answer without an envelope, OpenBao's with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `sys/rekey/...`, `sys/generate-root/...`
    Legacy,
    /// `sys/rotate/root/...`, `sys/generate-root-token/...`
    Present,
}

impl Dialect {
    fn pick<T>(self, legacy: T, present: T) -> T {
        match self {
            Self::Legacy => legacy,
            Self::Present => present,
        }
    }

    fn reply(self, body: Value) -> Outcome {
        self.pick(Outcome::raw as fn(Value) -> Outcome, Outcome::data)(body)
    }
}

/// Handles `sys/rekey/...` and `sys/rotate/root/...`.
pub(crate) use rekey::handle as rekey;
pub(crate) use rekey::threshold;
/// Handles `sys/generate-root/...` and `sys/generate-root-token/...`.
pub(crate) use root::handle as generate_root;

/// Shares given so far, and the number that belongs to the attempt.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) nonce: String,
    pub(crate) shares: Vec<Share>,
}

impl Collected {
    /// A new attempt.
    pub(crate) fn begin() -> Self {
        Self { nonce: uuid::Uuid::new_v4().to_string(), shares: Vec::new() }
    }

    /// Takes a share; tells whether it is new.
    pub(crate) fn add(&mut self, share: Share) -> bool {
        use subtle::ConstantTimeEq as _;
        let known = self.shares.iter().any(|s| s.expose().ct_eq(share.expose()).into());
        if !known {
            self.shares.push(share);
        }
        !known
    }

    /// The shares, once there are `needed`; the next attempt begins without any.
    pub(crate) fn complete(&mut self, needed: usize) -> Option<Vec<Share>> {
        (self.shares.len() >= needed).then(|| std::mem::take(&mut self.shares))
    }

    fn progress(&self) -> usize {
        self.shares.len()
    }
}

/// Reads a share as people send it.
pub(crate) fn share(text: &str) -> Result<Share, Fail> {
    let share = Share::parse(text).map_err(|_| bad("'key' must be a valid hex or base64 string"))?;
    let (length, shortest, longest) = (share.expose().len(), SHARE_BYTES.start(), SHARE_BYTES.end());
    if length < *shortest {
        return Err(bad(format!("invalid key: key is shorter than minimum {shortest} bytes")));
    }
    if length > *longest {
        return Err(bad(format!("invalid key: key is longer than maximum {longest} bytes")));
    }
    Ok(share)
}

/// How many shares a ceremony takes.
async fn required(barrier: &Barrier) -> Result<usize, Fail> {
    let config = barrier.seal_config().await?.ok_or(BarrierError::NotInitialized)?;
    Ok(config.threshold.needed().into())
}

/// Whether these were simply the wrong shares.
pub(crate) fn is_wrong(error: &BarrierError) -> bool {
    matches!(error, BarrierError::WrongShares | BarrierError::Shares(_))
}

/// `pgp_keys` and the like: refused in plain words rather than ignored, which would give keys in clear.
pub(crate) fn no_pgp(given: bool, what: &str) -> Result<(), Fail> {
    if given {
        return Err(bad(format!(
            "{what} is not supported: Coffer does not encrypt keys for PGP; use require_verification and hand each \
             key over in a safe way"
        )));
    }
    Ok(())
}

/// Whether a body's field says something.
fn says(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}
