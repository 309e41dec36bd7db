//! Reading through the barrier: decryption, listing, ranges.
//!
//! Never returns a byte that did not authenticate at the place it was found.

use std::sync::Arc;

use async_trait::async_trait;
use coffer_core::secret::SecretBytes;
use coffer_core::token::HmacKey;

use crate::children;
use crate::envelope::{self, Key, Needs};
use crate::error::BarrierError;
use crate::key::{MountId, RowKey, number_after, range_after};
use crate::keyring::{KeyId, Purpose};
use crate::keys::Keys;
use crate::store::{KeyRange, Row, SCAN_PAGE_MAX, Snapshot};

/// What a read goes through; only this crate can look inside.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(crate) snapshot: &'a dyn Snapshot,
    pub(crate) keys: &'a Keys,
    /// Keys that this transaction creates and nobody else has yet.
    pub(crate) pending: &'a [(KeyId, Arc<Key>)],
}

impl View<'_> {
    /// Opens `stored`, found at storage key `at`.
    pub(crate) async fn open(&self, at: &[u8], stored: &[u8]) -> Result<SecretBytes, BarrierError> {
        self.keys.check()?;
        match envelope::needs(stored)? {
            Needs::System(generation) => {
                let id = KeyId::system(Purpose::Record, generation);
                let key = self.kek(id).await?;
                envelope::open_system(&key, at, stored)
            }
            Needs::Mount(generation) => {
                let mount = at.get(1..17).and_then(|m| m.try_into().ok()).map(MountId::from_bytes);
                let mount = mount.ok_or(BarrierError::Tampered { what: "row key" })?;
                let key = self.kek(KeyId::kek(mount, generation)).await?;
                envelope::open_secret(&key, at, stored)
            }
        }
    }

    pub(crate) async fn kek(&self, id: KeyId) -> Result<Arc<Key>, BarrierError> {
        match self.pending.iter().find(|(pending, _)| *pending == id) {
            Some((_, key)) => Ok(Arc::clone(key)),
            None => self.keys.find(self.snapshot, id).await,
        }
    }

    /// Reads and opens the row at storage key `at`.
    pub(crate) async fn get_at(&self, at: &[u8]) -> Result<Option<SecretBytes>, BarrierError> {
        self.keys.check()?;
        match self.snapshot.get(at).await? {
            Some(stored) => Ok(Some(self.open(at, &stored).await?)),
            None => Ok(None),
        }
    }

    /// All rows that begin with `prefix`, as stored.
    pub(crate) async fn all(&self, prefix: &[u8]) -> Result<Vec<Row>, BarrierError> {
        self.keys.check()?;
        let mut rows: Vec<Row> = Vec::new();
        let mut range = KeyRange::prefix(prefix);
        loop {
            let page = self.snapshot.scan(&range, SCAN_PAGE_MAX).await?;
            let full = page.len() == SCAN_PAGE_MAX;
            rows.extend(page);
            match rows.last() {
                Some((last, _)) if full => range = range_after(prefix, last),
                _ => return Ok(rows),
            }
        }
    }
}

/// What can be read, in a snapshot or in a transaction (which sees its own writes).
#[async_trait]
pub trait Read: Send + Sync {
    /// What reads go through.
    fn view(&self) -> View<'_>;

    /// The snapshot's version: it sees every commit up to this one.
    fn version(&self) -> u64 {
        self.view().snapshot.version()
    }

    /// An HMAC key for one purpose, the same at every unseal.
    fn hmac_key(&self, purpose: &str) -> HmacKey {
        self.view().keys.hmac_key(purpose)
    }

    /// The row at `key`, decrypted.
    async fn get(&self, key: &RowKey) -> Result<Option<SecretBytes>, BarrierError> {
        let view = self.view();
        view.get_at(&view.keys.layout.encode(key)?).await
    }

    /// Whether there is a row at `key`; it is not opened.
    async fn exists(&self, key: &RowKey) -> Result<bool, BarrierError> {
        let view = self.view();
        view.keys.check()?;
        Ok(view.snapshot.get(&view.keys.layout.encode(key)?).await?.is_some())
    }

    /// The names directly under `dir` ("" is the mount's root), sorted; directories end in `/`. `after` is an
    /// exclusive start.
    async fn list(
        &self,
        mount: MountId,
        dir: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, BarrierError> {
        children::list(self.view(), mount, dir, after, limit).await
    }

    /// Rows of an ordered family whose order is at most `upto`, oldest first.
    async fn range_ordered(
        &self,
        mount: MountId,
        family: &str,
        upto: u64,
        limit: usize,
    ) -> Result<Vec<(RowKey, u64, SecretBytes)>, BarrierError> {
        self.range_ordered_after(mount, family, None, upto, limit).await
    }

    /// The same, from behind the row `after` on: the next page.
    async fn range_ordered_after(
        &self,
        mount: MountId,
        family: &str,
        after: Option<&RowKey>,
        upto: u64,
        limit: usize,
    ) -> Result<Vec<(RowKey, u64, SecretBytes)>, BarrierError> {
        let view = self.view();
        view.keys.check()?;
        let prefix = view.keys.layout.family_prefix(mount, family);
        let mut range = match after {
            Some(row) => range_after(&prefix, &view.keys.layout.encode(row)?),
            None => KeyRange::prefix(&prefix),
        };
        if let Some(end) = upto.checked_add(1) {
            range.end = [prefix.as_slice(), &end.to_be_bytes()].concat();
        }
        let mut found = Vec::new();
        for (at, stored) in view.snapshot.scan(&range, limit.min(SCAN_PAGE_MAX)).await? {
            let order = at.get(prefix.len()..).and_then(|rest| rest.first_chunk::<8>());
            let order = u64::from_be_bytes(*order.ok_or(BarrierError::Tampered { what: "row key" })?);
            let plain = view.open(&at, &stored).await?;
            found.push((RowKey::stored(mount, crate::key::RecordKind::Index, at), order, plain));
        }
        Ok(found)
    }

    /// The version numbers that rows of `key`'s path and kind have, in order.
    async fn versions(&self, key: &RowKey) -> Result<Vec<u64>, BarrierError> {
        let view = self.view();
        let prefix = view.keys.layout.encode(key)?;
        let rows = view.all(&prefix).await?;
        Ok(rows.iter().filter_map(|(at, _)| number_after(at, &prefix)).collect())
    }
}

/// A consistent, decrypted view of the vault at one version.
pub struct Reader {
    pub(crate) snapshot: Box<dyn Snapshot>,
    pub(crate) keys: Arc<Keys>,
}

impl Read for Reader {
    fn view(&self) -> View<'_> {
        View { snapshot: &*self.snapshot, keys: &self.keys, pending: &[] }
    }
}
