//! An engine's window on the barrier: the rows of its own mount. Never lets a key of another mount be named:
//! keys are built here, from the view's own mount.

use coffer_barrier::{MountId, Read, RecordKind, RowKey, Writer};
use coffer_core::secret::SecretBytes;
use coffer_core::time::Timestamp;
use coffer_core::token::HmacKey;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{EngineError, codec};

/// Most bytes of a system record that an engine writes.
const SYSTEM_BYTES_MAX: usize = 1024 * 1024;

/// Where password policies are listed.
pub const PASSWORD_POLICY_DIR: &str = "sys/policies/password";

/// The row of a password policy: JSON text.
pub fn password_policy_row(name: &str) -> RowKey {
    RowKey::path(MountId::SYSTEM, RecordKind::Entry, &format!("{PASSWORD_POLICY_DIR}/{name}"))
}

/// A consistent view of one mount's rows.
#[derive(Clone, Copy)]
pub struct ReadView<'a> {
    mount: MountId,
    read: &'a dyn Read,
}

impl<'a> ReadView<'a> {
    /// The rows of `mount`, as `read` sees them.
    pub fn new(mount: MountId, read: &'a dyn Read) -> Self {
        Self { mount, read }
    }

    /// Which mount this is.
    pub fn mount(&self) -> MountId {
        self.mount
    }

    /// The key by which names of accounts are known to be this vault's.
    pub fn accounts_key(&self) -> HmacKey {
        self.read.hmac_key("account-names")
    }

    /// The row of that kind at `path`.
    pub async fn get(&self, kind: RecordKind, path: &str) -> Result<Option<SecretBytes>, EngineError> {
        Ok(self.read.get(&key(self.mount, kind, path)?).await?)
    }

    /// One of the numbered rows at `path`.
    pub async fn get_version(&self, path: &str, version: u64) -> Result<Option<SecretBytes>, EngineError> {
        Ok(self.read.get(&key(self.mount, RecordKind::Version, path)?.version(version)).await?)
    }

    /// Whether there is a row of that kind at `path`; it is not opened.
    pub async fn has(&self, kind: RecordKind, path: &str) -> Result<bool, EngineError> {
        Ok(self.read.exists(&key(self.mount, kind, path)?).await?)
    }

    /// Whether there is that numbered row at `path`; it is not opened.
    pub async fn has_version(&self, path: &str, version: u64) -> Result<bool, EngineError> {
        let key = key(self.mount, RecordKind::Version, path)?.version(version);
        Ok(self.read.exists(&key).await?)
    }

    /// A JSON record; `what` names it should it not decode.
    pub async fn record<T: DeserializeOwned>(
        &self,
        kind: RecordKind,
        path: &str,
        what: &'static str,
    ) -> Result<Option<T>, EngineError> {
        let Some(bytes) = self.get(kind, path).await? else { return Ok(None) };
        codec::decode(&bytes, what).map(Some)
    }

    /// Names directly below `dir` (empty for the mount itself), sorted, directories with a trailing slash.
    pub async fn list(
        &self,
        dir: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, EngineError> {
        check(dir, true)?;
        Ok(self.read.list(self.mount, dir, after, limit).await?)
    }

    /// The text of a password policy. They belong to no mount, are no secrets, and everybody who makes passwords
    /// needs them: the one thing an engine sees outside its own rows.
    pub async fn password_policy(&self, name: &str) -> Result<Option<String>, EngineError> {
        let Some(bytes) = self.read.get(&password_policy_row(name)).await? else { return Ok(None) };
        codec::decode(&bytes, "password policy").map(Some)
    }

    /// The names in the order `family` that stand at `upto` or before, the earliest first.
    pub async fn due(&self, family: &str, upto: Timestamp, limit: usize) -> Result<Vec<String>, EngineError> {
        let rows = self.read.range_ordered(self.mount, family, upto.as_millis(), limit).await?;
        let name = |bytes: SecretBytes| String::from_utf8(bytes.expose().to_vec());
        rows.into_iter()
            .map(|(_, _, bytes)| name(bytes).map_err(|_| EngineError::Corrupt("name of what is due")))
            .collect()
    }
}

/// One mount's rows within a transaction.
pub struct WriteView<'a> {
    mount: MountId,
    writer: &'a mut Writer,
}

impl<'a> WriteView<'a> {
    /// The rows of `mount` within the transaction `writer`.
    pub fn new(mount: MountId, writer: &'a mut Writer) -> Self {
        Self { mount, writer }
    }

    /// The same rows for reading; sees this transaction's own writes.
    pub fn reading(&self) -> ReadView<'_> {
        ReadView { mount: self.mount, read: &*self.writer }
    }

    /// Writes a record that is no secret of a user (settings, metadata).
    pub async fn put_record<T: Serialize + Sync>(
        &mut self,
        kind: RecordKind,
        path: &str,
        record: &T,
    ) -> Result<(), EngineError> {
        let plain = codec::encode(record, "record", SYSTEM_BYTES_MAX)?;
        Ok(self.writer.put_system(&key(self.mount, kind, path)?, plain.expose()).await?)
    }

    /// Writes a secret row, under a DEK of its own.
    pub async fn put_secret(
        &mut self,
        kind: RecordKind,
        path: &str,
        plain: &SecretBytes,
    ) -> Result<(), EngineError> {
        Ok(self.writer.put_secret(&key(self.mount, kind, path)?, plain).await?)
    }

    /// Writes a numbered secret row, under a DEK of its own.
    pub async fn put_version(
        &mut self,
        path: &str,
        version: u64,
        plain: &SecretBytes,
    ) -> Result<(), EngineError> {
        let key = key(self.mount, RecordKind::Version, path)?.version(version);
        Ok(self.writer.put_secret(&key, plain).await?)
    }

    /// Removes the row of that kind at `path`, if there is one.
    pub async fn delete(&mut self, kind: RecordKind, path: &str) -> Result<(), EngineError> {
        Ok(self.writer.delete(&key(self.mount, kind, path)?).await?)
    }

    /// Removes a numbered row, if there is one.
    pub async fn delete_version(&mut self, path: &str, version: u64) -> Result<(), EngineError> {
        let key = key(self.mount, RecordKind::Version, path)?.version(version);
        Ok(self.writer.delete(&key).await?)
    }

    /// Makes the commit fail if somebody else changes that row in the meantime, also if it is absent.
    pub fn guard(&mut self, kind: RecordKind, path: &str) -> Result<(), EngineError> {
        let key = key(self.mount, kind, path)?;
        Ok(self.writer.guard(&key)?)
    }

    /// Puts a name into the order `family`, at `at`.
    pub async fn put_due(&mut self, family: &str, at: Timestamp, name: &str) -> Result<(), EngineError> {
        let key = RowKey::ordered(self.mount, family, at.as_millis(), name.as_bytes());
        Ok(self.writer.put_system(&key, name.as_bytes()).await?)
    }

    /// Takes a name out of the order `family`, where it stood at `at`.
    pub async fn delete_due(&mut self, family: &str, at: Timestamp, name: &str) -> Result<(), EngineError> {
        let key = RowKey::ordered(self.mount, family, at.as_millis(), name.as_bytes());
        Ok(self.writer.delete(&key).await?)
    }

    /// Makes [`ReadView::list`] find `path`.
    pub async fn link(&mut self, path: &str) -> Result<(), EngineError> {
        check(path, false)?;
        Ok(self.writer.link(self.mount, path).await?)
    }

    /// Makes [`ReadView::list`] no longer find `path`.
    pub async fn unlink(&mut self, path: &str) -> Result<(), EngineError> {
        check(path, false)?;
        Ok(self.writer.unlink(self.mount, path).await?)
    }
}

fn key(mount: MountId, kind: RecordKind, path: &str) -> Result<RowKey, EngineError> {
    check(path, false)?;
    Ok(RowKey::path(mount, kind, path))
}

/// The canonicaliser in front has refused odd paths already; a key is never built from one all the same.
fn check(path: &str, directory: bool) -> Result<(), EngineError> {
    if path.is_empty() {
        return if directory { Ok(()) } else { Err(EngineError::bad("missing path")) };
    }
    if path.split('/').any(|segment| segment.is_empty() || segment == "." || segment == "..") {
        return Err(EngineError::bad("invalid path"));
    }
    Ok(())
}
