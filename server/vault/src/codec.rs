//! How the vault's own records become bytes: one format byte, then JSON. Also the transaction loop.
//!
//! Never sees a ciphertext.

use coffer_barrier::{BarrierError, Read, RowKey, Writer};
use coffer_core::exact::Exact;
use coffer_core::secret::SecretBytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::error::Fail;

/// The present format of every record this room writes.
const FORMAT: u8 = 1;
const UNKNOWN: Fail = Fail::Internal("a stored record has a format this version does not know");

/// How often a transaction that met another is run again before its caller is told to come back later.
const ATTEMPTS_MAX: u32 = 24;

/// Encodes a record.
pub(crate) fn encode<T: Serialize>(record: &T) -> Result<Zeroizing<Vec<u8>>, Fail> {
    let mut bytes = Zeroizing::new(vec![FORMAT]);
    serde_json::to_writer(&mut *bytes, record)?;
    Ok(bytes)
}

/// As [`encode`], for JSON whose numbers stay as they are.
pub(crate) fn encode_exact(value: &Exact) -> Result<Zeroizing<Vec<u8>>, Fail> {
    let mut bytes = Zeroizing::new(vec![FORMAT]);
    value.write(&mut *bytes).map_err(|_| Fail::Internal("a body could not be encoded"))?;
    Ok(bytes)
}

/// JSON whose numbers stay as they are, without a record around it.
pub(crate) fn exact(value: &Exact) -> Result<SecretBytes, Fail> {
    let record = encode_exact(value)?;
    Ok(SecretBytes::copy_of(&record[1..]))
}

/// The JSON of a record, as it was written.
pub(crate) fn json(bytes: &SecretBytes) -> Result<SecretBytes, Fail> {
    match bytes.expose().split_first() {
        Some((&FORMAT, json)) => Ok(SecretBytes::copy_of(json)),
        _ => Err(UNKNOWN),
    }
}

/// Decodes a record; refuses formats of other versions.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &SecretBytes) -> Result<T, Fail> {
    match bytes.expose().split_first() {
        Some((&FORMAT, json)) => Ok(serde_json::from_slice(json)?),
        _ => Err(UNKNOWN),
    }
}

/// Reads a record.
pub(crate) async fn get<T: DeserializeOwned>(reader: &dyn Read, key: &RowKey) -> Result<Option<T>, Fail> {
    reader.get(key).await?.map(|bytes| decode(&bytes)).transpose()
}

/// Writes a record of the system's.
pub(crate) async fn put<T: Serialize>(writer: &mut Writer, key: &RowKey, record: &T) -> Result<(), Fail> {
    let bytes = encode(record)?;
    writer.put_system(key, &bytes).await?;
    Ok(())
}

/// Counts the runs of one transaction and says whether there may be another.
#[derive(Default)]
pub(crate) struct Attempts(u32);

impl Attempts {
    /// After `error`: waits a little and returns, or gives the error back when it is final. An unknown outcome is
    /// always final here: only its caller can tell what reading back means.
    pub(crate) async fn again(&mut self, error: Fail) -> Result<(), Fail> {
        if !matches!(error, Fail::Barrier(BarrierError::Conflict)) || self.0 >= ATTEMPTS_MAX {
            return Err(error);
        }
        self.0 += 1;
        // Full jitter, so that two that met do not meet again.
        let most = 1u64 << self.0.min(7);
        let wait = rand::random_range(0..=most);
        tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
        Ok(())
    }
}

/// Runs `$body` (which may use `?` on anything that becomes a [`Fail`]) in a transaction and commits it; the whole
/// of it runs again after a conflict. Gives back what the body gave.
///
/// A macro, because a closure that borrows both the transaction and its surroundings cannot promise to be `Send`.
macro_rules! transact {
    ($barrier:expr, |$writer:ident| $body:expr) => {{
        let mut attempts = $crate::codec::Attempts::default();
        loop {
            let outcome: Result<_, $crate::error::Fail> = async {
                let mut writer = $barrier.begin().await?;
                let value = {
                    let $writer = &mut writer;
                    $body
                };
                writer.commit().await?;
                Ok(value)
            }
            .await;
            match outcome {
                Ok(value) => break Ok(value),
                Err(error) => {
                    if let Err(last) = attempts.again(error).await {
                        break Err(last);
                    }
                }
            }
        }
    }};
}
pub(crate) use transact;
