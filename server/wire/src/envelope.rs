//! The frame around every reply, as Vault's clients expect it. Never interprets what it carries.

use crate::{Disclose, Metadata};
use serde::{Deserialize, Serialize};

/// A reply. `data` holds what was asked for; `auth` is there after a login or token creation.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Envelope<T> {
    /// Names the request in the audit log.
    #[serde(default)]
    pub request_id: String,
    /// The lease of what was issued; empty if nothing was leased.
    #[serde(default)]
    pub lease_id: String,
    /// Whether the lease can be renewed.
    #[serde(default)]
    pub renewable: bool,
    /// Seconds the lease lives from now.
    #[serde(default)]
    pub lease_duration: u64,
    /// The reply proper.
    #[serde(default = "none")]
    pub data: Option<T>,
    /// Set if the reply was wrapped.
    #[serde(default)]
    pub wrap_info: Option<WrapInfo>,
    /// Things the caller should know although the request succeeded.
    #[serde(default)]
    pub warnings: Option<Vec<String>>,
    /// The token that was issued.
    #[serde(default)]
    pub auth: Option<Auth>,
}

// `Option<T>::default` as a path would ask for `T: Default`.
fn none<T>() -> Option<T> {
    None
}

/// A token that was just issued or renewed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Auth {
    /// The token: whoever has it is its owner.
    pub client_token: Disclose,
    /// Names the token without being able to use it.
    pub accessor: String,
    /// Every policy in effect.
    #[serde(default)]
    pub policies: Vec<String>,
    /// Policies of the token itself.
    #[serde(default)]
    pub token_policies: Vec<String>,
    /// What the auth method knows about the caller, such as the pod's UID.
    #[serde(default)]
    pub metadata: Option<Metadata>,
    /// Seconds the token lives from now.
    #[serde(default)]
    pub lease_duration: u64,
    /// Whether the token can be renewed.
    #[serde(default)]
    pub renewable: bool,
    /// The identity behind the token; empty if none.
    #[serde(default)]
    pub entity_id: String,
    /// `service` or `batch`.
    #[serde(default)]
    pub token_type: String,
    /// Whether the token has no parent.
    #[serde(default)]
    pub orphan: bool,
    /// Uses left; 0 means no limit.
    #[serde(default)]
    pub num_uses: u64,
}

/// A wrapped reply's single-use token.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WrapInfo {
    /// The wrapping token.
    pub token: Disclose,
    /// Its accessor.
    #[serde(default)]
    pub accessor: String,
    /// Seconds it lives.
    pub ttl: u64,
    /// When it was made, RFC 3339.
    pub creation_time: String,
    /// The path that was asked.
    #[serde(default)]
    pub creation_path: String,
    /// The accessor of the token that was wrapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped_accessor: Option<String>,
}

/// The body of every reply that is not a success.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Errors {
    /// What went wrong; empty for "there is nothing here".
    #[serde(default)]
    pub errors: Vec<String>,
    /// Warnings beside the errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
}

/// `data` of every LIST.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Keys {
    /// Names; those that end in a slash have children. A SCAN that found nothing leaves them out.
    #[serde(default)]
    pub keys: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_reply_needs_no_fields() {
        let reply: Envelope<Keys> = serde_json::from_str("{}").unwrap();
        assert!(reply.data.is_none());
        assert!(reply.auth.is_none());
    }

    #[test]
    fn a_login_shows_no_token_in_debug() {
        let text =
            r#"{"auth":{"client_token":"s.abc","accessor":"acc","lease_duration":60,"metadata":null}}"#;
        let reply: Envelope<serde_json::Value> = serde_json::from_str(text).unwrap();
        let shown = format!("{reply:?}");
        assert!(shown.contains("acc") && !shown.contains("s.abc"), "{shown}");
    }
}
