//! References from one object to another, shared by the kinds. Never resolves them.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the CofferConnection used when none is given.
pub const DEFAULT_CONNECTION: &str = "default";

/// The pattern of a ServiceAccount's name in the schema: what the API server demands of it, in one expression.
pub const SERVICE_ACCOUNT_PATTERN: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// Whether a ServiceAccount can have this name. What cannot must not become a part of a path at the server.
pub fn is_service_account_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let outer = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let label =
        |label: &str| outer(label.bytes().next()) && outer(label.bytes().last()) && label.bytes().all(inner);
    name.len() <= 253 && name.split('.').all(label)
}

/// Names a CofferConnection (cluster-scoped).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionRef {
    /// Name of the CofferConnection.
    #[serde(default = "default_connection")]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn default_connection() -> String {
    DEFAULT_CONNECTION.to_owned()
}

impl Default for ConnectionRef {
    fn default() -> Self {
        Self { name: default_connection() }
    }
}

/// Names an object in this namespace or another one.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedRef {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the object; default: the namespace of the referring object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// Names one key of a ConfigMap or Secret in this namespace that holds PEM certificates.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaRef {
    /// Name of the ConfigMap or Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key with the PEM text.
    #[serde(default = "default_ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_ca_key() -> String {
    "ca.crt".to_owned()
}

/// Kind of object that holds a CA bundle.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum CaBundleKind {
    /// A ConfigMap.
    #[default]
    ConfigMap,
}

impl JsonSchema for CaBundleKind {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CaBundleKind".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "enum": ["ConfigMap"]})
    }
}

/// Where the server's CA bundle is, in any namespace (CofferConnection is cluster-scoped).
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaBundleRef {
    /// Kind of the object with the bundle.
    #[serde(default)]
    pub kind: CaBundleKind,
    /// Namespace of the object.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key with the PEM text.
    #[serde(default = "default_ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A ServiceAccount of the object's own namespace.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Consumer {
    /// Name of the ServiceAccount that may read the secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = SERVICE_ACCOUNT_PATTERN))]
    pub service_account: String,
}

#[cfg(test)]
mod tests {
    use super::is_service_account_name;

    #[test]
    fn names_of_service_accounts() {
        for good in ["default", "a", "orders-api", "orders.api.v2", "0"] {
            assert!(is_service_account_name(good), "{good}");
        }
        for bad in ["", "a/b", "../x", "a/../b", ".", "a..b", "-a", "A", "a b", "a\n", &"x".repeat(254)] {
            assert!(!is_service_account_name(bad), "{bad:?}");
        }
    }
}
