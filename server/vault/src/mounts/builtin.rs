//! The mounts that every vault has without anybody making them: `sys/`, `cubbyhole/`, `identity/` and
//! `auth/token/`.
//!
//! They are shown like others and some of what can be tuned can be tuned. Requests never come to them through the
//! table: each is a room of its own.

use std::collections::BTreeMap;

use coffer_barrier::MountId;
use coffer_core::time::Timestamp;
use coffer_core::token::HmacKey;

use super::{Class, Mount, Tuning, blank};

/// Class, path, kind, description, and whether its secrets are said to be local.
const ALL: [(Class, &str, &str, &str); 4] = [
    (Class::Auth, "token", "token", "token based credentials"),
    (Class::Secret, "cubbyhole", "cubbyhole", "per-token private secret storage"),
    (Class::Secret, "identity", "identity", "identity store"),
    (Class::Secret, "sys", "system", "system endpoints used for control, policy and debugging"),
];

/// Whether mounts of this kind are built in, and so cannot be made, moved or removed.
pub(super) fn is(class: Class, kind: &str) -> bool {
    ALL.iter().any(|(c, _, k, _)| *c == class && *k == kind)
}

/// All of them. Their ids are derived, so that they are the same each time and in no other vault.
pub(super) fn all(key: &HmacKey) -> impl Iterator<Item = Mount> {
    ALL.into_iter().map(|(class, path, kind, description)| {
        let mac = key.mac(&[b"builtin", kind.as_bytes()]);
        let mut id = [0; 16];
        id.copy_from_slice(&mac[..16]);
        let id = MountId::from_bytes(id);
        let passthrough = match kind {
            "system" => Some(vec!["Accept".to_owned()]),
            "identity" => Some(vec!["Authorization".to_owned()]),
            _ => None,
        };
        Mount {
            id,
            accessor: super::ops::accessor(class, kind, id),
            description: description.to_owned(),
            options: BTreeMap::new(),
            local: kind == "cubbyhole",
            seal_wrap: kind == "system",
            tuning: Tuning { passthrough_request_headers: passthrough, ..Tuning::default() },
            ..blank(class, path, kind, Timestamp::from_millis(0))
        }
    })
}
