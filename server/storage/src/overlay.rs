//! What a transaction has written but not committed, laid over the snapshot it began with.
//!
//! Shared by the stores that read synchronously. Never touches the store itself: committing is the store's.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use coffer_barrier::store::{
    KEY_BYTES_MAX, KeyRange, Row, SCAN_PAGE_MAX, Snapshot, StoreError, VALUE_BYTES_MAX,
};

/// The most bytes one transaction may write.
pub(crate) const TXN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A snapshot that is read without waiting.
pub(crate) trait Base: Send + Sync {
    fn version(&self) -> u64;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// At most `limit` rows; the limit has been checked.
    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, StoreError>;
}

/// A [`Base`] as the port's snapshot.
pub(crate) struct Local<B>(pub(crate) B);

#[async_trait]
impl<B: Base> Snapshot for Local<B> {
    fn version(&self) -> u64 {
        self.0.version()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }

    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, StoreError> {
        check_page(limit)?;
        if is_empty(range) { Ok(Vec::new()) } else { self.0.scan(range, limit) }
    }
}

/// What a transaction hands to its store at commit.
#[derive(Default)]
pub(crate) struct Changes {
    /// `None` deletes.
    pub(crate) writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    pub(crate) guards: BTreeSet<Vec<u8>>,
    bytes: usize,
}

impl Changes {
    pub(crate) fn put(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        if value.is_empty() {
            return Err(StoreError::Limit("empty value"));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(StoreError::Limit("value too large"));
        }
        self.write(key, Some(value))
    }

    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.write(key, None)
    }

    pub(crate) fn guard(&mut self, key: &[u8]) {
        self.guards.insert(key.to_vec());
    }

    /// Whether any written or guarded key was changed after `snapshot`; `last_change` tells when a key last was.
    pub(crate) fn conflicts(&self, snapshot: u64, last_change: impl Fn(&[u8]) -> Option<u64>) -> bool {
        let mut keys = self.writes.keys().chain(&self.guards);
        keys.any(|key| last_change(key).is_some_and(|version| version > snapshot))
    }

    /// How many bytes the writes are.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    fn write(&mut self, key: &[u8], value: Option<Vec<u8>>) -> Result<(), StoreError> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(StoreError::Limit("key empty or too large"));
        }
        let added = key.len() + value.as_ref().map_or(0, Vec::len);
        if self.bytes + added > TXN_BYTES_MAX {
            return Err(StoreError::Limit("transaction too large"));
        }
        self.bytes += added;
        self.writes.insert(key.to_vec(), value);
        Ok(())
    }

    pub(crate) fn get(&self, base: &impl Base, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.writes.get(key) {
            Some(own) => Ok(own.clone()),
            None => base.get(key),
        }
    }

    /// The snapshot's rows with the own writes merged in.
    pub(crate) fn scan(
        &self,
        base: &impl Base,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        check_page(limit)?;
        if is_empty(range) {
            return Ok(Vec::new());
        }
        let mut merged = BTreeMap::new();
        let mut rest = range.clone();
        loop {
            let page = base.scan(&rest, limit)?;
            // Whatever lies behind the last row of a full page is not known yet.
            let horizon = if page.len() == limit { page.last().map(|(key, _)| key.clone()) } else { None };
            let seen = |key: &Vec<u8>| horizon.as_ref().is_none_or(|h| key <= h);
            merged.extend(page);
            let own = self.writes.range(rest.start.clone()..).take_while(|(key, _)| range.contains(key));
            for (key, value) in own.take_while(|(key, _)| seen(key)) {
                match value {
                    Some(value) => drop(merged.insert(key.clone(), value.clone())),
                    None => drop(merged.remove(key)),
                }
            }
            match horizon {
                Some(last) if merged.len() < limit => {
                    rest.start = last;
                    rest.start.push(0);
                }
                _ => return Ok(merged.into_iter().take(limit).collect()),
            }
        }
    }
}

fn check_page(limit: usize) -> Result<(), StoreError> {
    match limit {
        1..=SCAN_PAGE_MAX => Ok(()),
        _ => Err(StoreError::Limit("scan page empty or too large")),
    }
}

fn is_empty(range: &KeyRange) -> bool {
    !range.end.is_empty() && range.start >= range.end
}
