//! Names of rows, and how they become storage keys.
//!
//! A storage key is `C`, the mount id, then per path segment a `/` and a keyed 128-bit hash, then the record kind
//! and an ordered suffix. A subtree is one range, siblings are neighbours, and no name is ever part of a key.
//! Kinds are below `/`, so that no row of a deeper path can lie in the range of a shallower one's kind.

use std::fmt;

use coffer_core::token::HmacKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::BarrierError;
use crate::store::KeyRange;

/// First byte of every storage key, so that a shared store can tell whose rows these are.
pub(crate) const FIRST_BYTE: u8 = b'C';
/// Stands before each hashed segment. Every [`RecordKind`] is smaller.
const SEGMENT: u8 = b'/';
/// Bytes of a segment's hash.
pub(crate) const HASH_BYTES: usize = 16;
/// The most segments a path may have.
pub const PATH_DEPTH_MAX: usize = 128;
/// The longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;

/// Names a mount in storage keys. Random, so that a mount that comes back under an old path gets rows of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MountId([u8; 16]);

impl MountId {
    /// The vault's own rows: tokens, leases, policies, mounts, the change log.
    pub const SYSTEM: Self = Self([0; 16]);
    /// The boot records, which are readable while sealed.
    pub(crate) const BOOT: Self = Self([0xff; 16]);

    /// A fresh id.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// From stored bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes as they stand in storage keys.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Reads [`MountId::to_hex`].
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Debug for MountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MountId({})", self.to_hex())
    }
}

impl Serialize for MountId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for MountId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("a mount id is 32 hexadecimal digits"))
    }
}

/// What a row is. The number is part of the storage key and of every ciphertext's associated data: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordKind {
    /// What is known about a path beside its values (KV metadata).
    Meta = 1,
    /// One version of a secret; the suffix is its number.
    Version = 2,
    /// The name of one child of a directory. Written by `link` and `unlink` only.
    Child = 3,
    /// A record that stands for itself: a token, a lease, a policy, a role, a mount.
    Entry = 4,
    /// A row of an ordered family (see [`RowKey::ordered`]).
    Index = 5,
    /// One entry of a change-log stream.
    Log = 6,
    /// The state of a change-log stream.
    Stream = 7,
    /// Written by whoever adds a child, so that whoever removes the directory meets him.
    Marker = 8,
}

/// Names a row without revealing it: segments are hashed on the way to storage.
#[derive(Clone, PartialEq, Eq)]
pub struct RowKey {
    mount: MountId,
    kind: RecordKind,
    place: Place,
}

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Path {
        path: String,
        suffix: Vec<u8>,
    },
    Ordered {
        family: String,
        order: u64,
        id: Vec<u8>,
    },
    /// A row found by a range: the key as stored.
    Stored(Vec<u8>),
}

impl RowKey {
    /// The row of `kind` at `path` ("a/b/c"; "" is the mount's root).
    #[must_use]
    pub fn path(mount: MountId, kind: RecordKind, path: &str) -> Self {
        Self { mount, kind, place: Place::Path { path: path.to_owned(), suffix: Vec::new() } }
    }

    /// The same path's row number `v`: many rows per path, in order.
    #[must_use]
    pub fn version(mut self, v: u64) -> Self {
        if let Place::Path { suffix, .. } = &mut self.place {
            *suffix = v.to_be_bytes().to_vec();
        }
        self
    }

    /// A row of the ordered family `family`: `order` (a time, for instance) stands in clear and orders the rows,
    /// `id` is hashed and keeps rows of the same order apart.
    #[must_use]
    pub fn ordered(mount: MountId, family: &str, order: u64, id: &[u8]) -> Self {
        let place = Place::Ordered { family: family.to_owned(), order, id: id.to_vec() };
        Self { mount, kind: RecordKind::Index, place }
    }

    pub(crate) fn with_suffix(mount: MountId, kind: RecordKind, path: &str, suffix: Vec<u8>) -> Self {
        Self { mount, kind, place: Place::Path { path: path.to_owned(), suffix } }
    }

    pub(crate) fn stored(mount: MountId, kind: RecordKind, key: Vec<u8>) -> Self {
        Self { mount, kind, place: Place::Stored(key) }
    }

    /// The path of a row that is named by its path alone.
    #[must_use]
    pub fn as_path(&self) -> Option<&str> {
        match &self.place {
            Place::Path { path, suffix } if suffix.is_empty() => Some(path),
            _ => None,
        }
    }

    /// The mount the row belongs to.
    #[must_use]
    pub const fn mount(&self) -> MountId {
        self.mount
    }

    /// What the row is.
    #[must_use]
    pub const fn kind(&self) -> RecordKind {
        self.kind
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowKey({:?}, {:?}, [path redacted])", self.mount, self.kind)
    }
}

/// The directory a path lies in, and its last segment.
pub(crate) fn split_last(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Turns names into storage keys. Holds the one key that path hashes are made with.
pub(crate) struct Layout {
    key: HmacKey,
}

impl Layout {
    pub(crate) const fn new(key: HmacKey) -> Self {
        Self { key }
    }

    /// The storage key of `row`.
    pub(crate) fn encode(&self, row: &RowKey) -> Result<Vec<u8>, BarrierError> {
        match &row.place {
            Place::Path { path, suffix } => {
                let mut key = self.kind_prefix(row.mount, row.kind, path)?;
                key.extend_from_slice(suffix);
                Ok(key)
            }
            Place::Ordered { family, order, id } => {
                let mut key = self.family_prefix(row.mount, family);
                key.extend_from_slice(&order.to_be_bytes());
                key.extend_from_slice(&self.hash(&[b"id", row.mount.as_bytes(), family.as_bytes(), id]));
                Ok(key)
            }
            Place::Stored(key) => Ok(key.clone()),
        }
    }

    /// What all rows of `kind` at `path` begin with.
    pub(crate) fn kind_prefix(
        &self,
        mount: MountId,
        kind: RecordKind,
        path: &str,
    ) -> Result<Vec<u8>, BarrierError> {
        let mut key = self.tree_prefix(mount, path)?;
        key.push(kind as u8);
        Ok(key)
    }

    /// What all rows at and below `path` begin with.
    pub(crate) fn tree_prefix(&self, mount: MountId, path: &str) -> Result<Vec<u8>, BarrierError> {
        if path.len() > PATH_BYTES_MAX {
            return Err(BarrierError::Path);
        }
        let mut key = mount_prefix(mount);
        if path.is_empty() {
            return Ok(key);
        }
        // Chained over the parent, so that equal names in different directories do not show as equal.
        let mut parent = [0; HASH_BYTES];
        for (depth, segment) in path.split('/').enumerate() {
            if segment.is_empty() || depth >= PATH_DEPTH_MAX {
                return Err(BarrierError::Path);
            }
            parent = self.hash(&[b"segment", mount.as_bytes(), &parent, segment.as_bytes()]);
            key.push(SEGMENT);
            key.extend_from_slice(&parent);
        }
        Ok(key)
    }

    /// What all rows of an ordered family begin with.
    pub(crate) fn family_prefix(&self, mount: MountId, family: &str) -> Vec<u8> {
        let mut key = mount_prefix(mount);
        key.push(SEGMENT);
        key.extend_from_slice(&self.hash(&[b"family", mount.as_bytes(), family.as_bytes()]));
        key.push(RecordKind::Index as u8);
        key
    }

    /// The suffix of `name`'s child row in directory `dir`; directories' names end in `/`.
    pub(crate) fn child_suffix(&self, mount: MountId, dir: &str, name: &str) -> [u8; HASH_BYTES] {
        self.hash(&[b"child", mount.as_bytes(), dir.as_bytes(), name.as_bytes()])
    }

    fn hash(&self, parts: &[&[u8]]) -> [u8; HASH_BYTES] {
        let mut out = [0; HASH_BYTES];
        out.copy_from_slice(&self.key.mac(parts)[..HASH_BYTES]);
        out
    }
}

/// What all rows of a mount begin with.
pub(crate) fn mount_prefix(mount: MountId) -> Vec<u8> {
    let mut key = Vec::with_capacity(96);
    key.push(FIRST_BYTE);
    key.extend_from_slice(mount.as_bytes());
    key
}

/// The last eight bytes of `key` as a number, if exactly that many follow `prefix`.
pub(crate) fn number_after(key: &[u8], prefix: &[u8]) -> Option<u64> {
    let rest: [u8; 8] = key.strip_prefix(prefix)?.try_into().ok()?;
    Some(u64::from_be_bytes(rest))
}

/// All rows that begin with `prefix` and lie behind `key`.
pub(crate) fn range_after(prefix: &[u8], key: &[u8]) -> KeyRange {
    let mut range = KeyRange::prefix(prefix);
    range.start = key.to_vec();
    range.start.push(0);
    range
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(HmacKey::new([7; 32]))
    }

    #[test]
    fn a_subtree_is_a_range_and_kinds_do_not_mix() {
        let (l, m) = (layout(), MountId::random());
        let dir = l.tree_prefix(m, "a").unwrap();
        let deep = l.encode(&RowKey::path(m, RecordKind::Version, "a/b").version(3)).unwrap();
        assert!(deep.starts_with(&dir));
        let versions_of_a = l.kind_prefix(m, RecordKind::Version, "a").unwrap();
        assert!(!deep.starts_with(&versions_of_a));
        assert!((RecordKind::Marker as u8) < SEGMENT);
        let prefix = l.kind_prefix(m, RecordKind::Version, "a/b").unwrap();
        assert_eq!(number_after(&deep, &prefix), Some(3));
    }

    #[test]
    fn names_never_show_and_equal_names_differ_by_place() {
        let (l, m) = (layout(), MountId::random());
        let key = l.encode(&RowKey::path(m, RecordKind::Meta, "password/password")).unwrap();
        assert!(!key.windows(4).any(|w| w == b"pass"));
        assert_ne!(key[18..34], key[35..51]);
        let other = l.encode(&RowKey::path(MountId::random(), RecordKind::Meta, "password")).unwrap();
        assert_ne!(key[18..34], other[18..34]);
    }

    #[test]
    fn malformed_paths_are_refused() {
        let (l, m) = (layout(), MountId::SYSTEM);
        for bad in ["/a", "a/", "a//b", &"x/".repeat(200), &"y".repeat(PATH_BYTES_MAX + 1)] {
            assert!(matches!(l.tree_prefix(m, bad), Err(BarrierError::Path)), "{bad:?}");
        }
        let deepest = vec!["s"; PATH_DEPTH_MAX].join("/");
        let key = l.kind_prefix(m, RecordKind::Meta, &deepest).unwrap();
        assert!(key.len() + HASH_BYTES <= crate::store::KEY_BYTES_MAX);
    }

    #[test]
    fn debug_hides_the_path() {
        let key = RowKey::path(MountId::SYSTEM, RecordKind::Entry, "token/canary");
        assert!(!format!("{key:?}").contains("canary"));
    }
}
