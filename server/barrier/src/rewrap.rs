//! Re-wrapping: after a rotation, every old row is brought under the new keys, a batch at a time.
//!
//! Each batch is one transaction, with the place it has come to in the same transaction: a crash anywhere loses
//! nothing, and the work goes on where it was. Secrets are not opened, only their DEKs are wrapped anew. Old keys go
//! once a second pass over everything has found no row under them. Whoever takes over from a dead process closes its
//! stream first: what that one sent under old keys must not arrive after they are gone.

use std::sync::Arc;

use coffer_core::failpoint::{self, Step};
use coffer_core::secret::SecretBytes;
use serde::{Deserialize, Serialize};

use crate::barrier::Barrier;
use crate::envelope::{self, Key, Needs};
use crate::error::BarrierError;
use crate::key::{FIRST_BYTE, MountId, RecordKind, RowKey, range_after};
use crate::keyring::KeyId;
use crate::read::Read;
use crate::writer::Writer;

/// The most rows one transaction re-wraps.
const BATCH_ROWS: usize = 1000;
/// The most bytes of rows one transaction re-wraps, but for its last row.
const BATCH_BYTES: usize = 4 << 20;
/// The most rows one transaction looks at.
const BATCH_SEEN: usize = 10_000;
/// Rows read at once: few, because each may be large.
const PAGE: usize = 100;
/// Passes without a row under an old key after which the old keys go.
const PASSES: u32 = 2;

/// How far it has come, as stored and as shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewrapStatus {
    /// The term whose keys everything is brought under.
    pub term: u32,
    /// Which pass over all rows this is, from 1.
    pub pass: u32,
    /// Rows looked at in this pass.
    pub seen: u64,
    /// Rows found under old keys in this pass.
    pub found: u64,
    /// Rows re-wrapped in this term.
    pub rewrapped: u64,
    /// Rows of this pass that do not open under their keys (damaged, or left over from a removed mount).
    pub unreadable: u64,
    /// Nothing is left to do.
    pub done: bool,
    /// The keys of earlier terms are gone.
    pub retired: bool,
    /// The row behind which the next batch begins, in hexadecimal.
    #[serde(default)]
    cursor: String,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewrapStep {
    /// There is nothing to do.
    Idle,
    /// There is more to do, at once.
    More,
    /// Somebody is still writing under old keys: come again.
    Waiting,
}

fn status_key() -> RowKey {
    RowKey::path(MountId::SYSTEM, RecordKind::Meta, "rewrap")
}

impl Barrier {
    /// How far re-wrapping has come; before the first rotation there is nothing to re-wrap.
    pub async fn rewrap_status(&self) -> Result<RewrapStatus, BarrierError> {
        let (keys, _) = self.unsealed()?;
        let reader = self.reader().await?;
        let term = keys.term().generation;
        known(reader.get(&status_key()).await?, term)
    }

    /// Does one batch. After a conflict it does fewer rows at a time, so that busy rows do not hold it up.
    ///
    /// # Errors
    /// After any error it may be called again; nothing is lost.
    pub async fn rewrap(&self) -> Result<RewrapStep, BarrierError> {
        self.catch_up().await?;
        let status = self.rewrap_status().await?;
        let (keys, stream) = self.unsealed()?;
        if status.done {
            if status.retired {
                // Gone from the keyring; what a copy of it opens is to open nothing here either.
                keys.forget_old();
            }
            return Ok(RewrapStep::Idle);
        }
        if !keys.settled() {
            return Ok(RewrapStep::Waiting);
        }
        if status.cursor.is_empty() {
            // Whatever was sent under old keys and never answered cannot arrive any more after this.
            stream.publish(&keys).await?;
        }
        let mut rows = BATCH_ROWS;
        loop {
            let mut w = self.begin().await?;
            w.rewrap_batch(&status, rows).await?;
            match w.commit().await {
                Ok(_) => {
                    failpoint::reach(Step::Rewrapped);
                    return Ok(RewrapStep::More);
                }
                Err(BarrierError::Conflict) if rows > 1 => rows = (rows / 4).max(1),
                Err(other) => return Err(other),
            }
        }
    }
}

fn known(stored: Option<SecretBytes>, term: u32) -> Result<RewrapStatus, BarrierError> {
    let tampered = |_| BarrierError::Tampered { what: "re-wrap state" };
    let known: Option<RewrapStatus> =
        stored.map(|row| serde_json::from_slice(row.expose()).map_err(tampered)).transpose()?;
    Ok(match known {
        Some(status) if status.term == term => status,
        _ if term == 1 => RewrapStatus { term, done: true, retired: true, ..RewrapStatus::default() },
        _ => RewrapStatus { term, ..RewrapStatus::default() },
    })
}

/// What is to be done to a row.
enum Fate {
    /// It is under the newest key, or under none.
    Leave,
    Put(Vec<u8>),
    Unreadable,
}

impl Writer {
    /// Re-wraps up to `most` rows behind the cursor, and says in the same transaction how far it came.
    async fn rewrap_batch(&mut self, from: &RewrapStatus, most: usize) -> Result<(), BarrierError> {
        let tampered = || BarrierError::Tampered { what: "re-wrap state" };
        let mut status = known(self.get(&status_key()).await?, self.system_generation())?;
        if status != *from {
            // Two at once (two processes, or a step that was given up half way) must not both move the cursor.
            return Err(BarrierError::Conflict);
        }
        status.pass = status.pass.max(1);
        let mut at = hex::decode(&status.cursor).map_err(|_| tampered())?;
        let (mut bytes, mut rows, mut seen, mut end) = (0, 0, 0, false);
        while !end && rows < most && bytes < BATCH_BYTES && seen < BATCH_SEEN {
            let page = self.scan(&range_after(&[FIRST_BYTE], &at), PAGE).await?;
            end = page.len() < PAGE;
            for (key, stored) in page {
                if rows >= most || bytes >= BATCH_BYTES {
                    end = false;
                    break;
                }
                seen += 1;
                match self.fate(&key, &stored).await? {
                    Fate::Leave => {}
                    Fate::Unreadable => status.unreadable += 1,
                    Fate::Put(row) => {
                        bytes += row.len();
                        rows += 1;
                        self.put_at(key.clone(), row)?;
                    }
                }
                at = key;
            }
        }
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        status.seen += count(seen);
        status.found += count(rows);
        status.rewrapped += count(rows);
        status.cursor = hex::encode(&at);
        if end {
            self.end_pass(&mut status).await?;
        }
        let plain = serde_json::to_vec(&status).map_err(|_| tampered())?;
        self.put_system(&status_key(), &plain).await
    }

    /// After the last row: another pass, or the end of the old keys.
    async fn end_pass(&mut self, status: &mut RewrapStatus) -> Result<(), BarrierError> {
        if status.found > 0 || status.pass < PASSES {
            let (term, rewrapped, pass) = (status.term, status.rewrapped, status.pass + 1);
            *status = RewrapStatus { term, rewrapped, pass, ..RewrapStatus::default() };
            return Ok(());
        }
        status.done = true;
        status.cursor.clear();
        if status.unreadable > 0 {
            // Somebody may be able to repair them, with the keys.
            tracing::warn!(rows = status.unreadable, "old keys are kept: rows do not open under their keys");
            return Ok(());
        }
        let mut record = self.keyring().await?;
        if record.term() != Some(status.term) {
            // There is a newer term that this process does not know: what it has brought under its own keys would be
            // lost with them.
            return Err(BarrierError::Conflict);
        }
        record.retire();
        self.put_keyring(record).await?;
        status.retired = true;
        Ok(())
    }

    async fn fate(&self, at: &[u8], stored: &[u8]) -> Result<Fate, BarrierError> {
        let mount = at.get(1..17).and_then(|m| m.try_into().ok()).map(MountId::from_bytes);
        let Some(mount) = mount.filter(|m| *m != MountId::BOOT) else { return Ok(Fate::Leave) };
        let done = match envelope::needs(stored) {
            Ok(Needs::System(generation)) => self.fate_of_system_row(at, stored, generation).await,
            Ok(Needs::Mount(generation)) => self.fate_of_secret(mount, at, stored, generation).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(row) => Ok(row.map_or(Fate::Leave, Fate::Put)),
            Err(BarrierError::NoKey | BarrierError::Tampered { .. }) => Ok(Fate::Unreadable),
            Err(other) => Err(other),
        }
    }

    async fn fate_of_system_row(
        &self,
        at: &[u8],
        stored: &[u8],
        generation: u32,
    ) -> Result<Option<Vec<u8>>, BarrierError> {
        if generation == self.system_generation() {
            return Ok(None);
        }
        let plain = self.view().open(at, stored).await?;
        self.seal_row(at, plain.expose()).map(Some)
    }

    async fn fate_of_secret(
        &self,
        mount: MountId,
        at: &[u8],
        stored: &[u8],
        generation: u32,
    ) -> Result<Option<Vec<u8>>, BarrierError> {
        let (newest, kek) = match self.kek_of(mount).await {
            Ok(found) => found,
            // A removed mount's secrets: nothing opens them, and they are being cleared away.
            Err(BarrierError::NoKey) => return Ok(None),
            Err(other) => return Err(other),
        };
        if generation == newest {
            return Ok(None);
        }
        let old: Arc<Key> = self.view().kek(KeyId::kek(mount, generation)).await?;
        envelope::rewrap_secret(&old, &kek, newest, at, stored).map(Some)
    }
}
