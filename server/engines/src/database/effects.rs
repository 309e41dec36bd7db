//! What writes are told of as. Names are Vault's.

use crate::engine::Effect;

/// One effect.
pub(super) fn one(event_type: &'static str, operation: &'static str, path: String) -> Vec<Effect> {
    vec![Effect { event_type, path, operation }]
}

/// A static role has a new password: for those who watch the role, and for those who watch the credential.
pub(super) fn rotated(name: &str) -> Vec<Effect> {
    let mut effects = one("database/rotate", "rotate", format!("rotate-role/{name}"));
    effects.extend(one(
        "database/static-creds-rotate",
        "static-creds-rotate",
        format!("static-creds/{name}"),
    ));
    effects
}

/// The engine has a new password of its own.
pub(super) fn root_rotated(name: &str) -> Vec<Effect> {
    one("database/root-rotate", "root-rotate", format!("rotate-root/{name}"))
}
