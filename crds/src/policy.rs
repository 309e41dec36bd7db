//! VaultPolicy: what ServiceAccounts of one namespace may do in the vault. Never more than was delegated.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::refs::ConnectionRef;

/// What ServiceAccounts of this namespace may do in the vault, confined to the paths the admin delegated.
#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "coffer.dev",
    version = "v1alpha1",
    kind = "VaultPolicy",
    plural = "vaultpolicies",
    shortname = "vpol",
    category = "coffer",
    namespaced,
    status = "VaultPolicyStatus",
    derive = "PartialEq",
    doc = "What ServiceAccounts of this namespace may do in the vault, confined to the paths the admin delegated.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "Rules", type_ = "integer", json_path = ".status.rulesCount"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".status.policyName", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct VaultPolicySpec {
    /// The vault this policy is written to.
    #[serde(default)]
    pub connection_ref: ConnectionRef,
    /// What may be done where. The most specific path wins; `deny` wins over everything else on its path.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    pub rules: Vec<PolicyRule>,
    /// ServiceAccounts of this namespace that get this policy when their pods log in.
    #[serde(default)]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["serviceAccount".into()]))]
    pub bindings: Vec<PolicyBinding>,
    /// Whether the policy at the server goes when this object goes.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// One path and what may be done there.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!('deny' in self.capabilities) || size(self.capabilities) == 1").message("deny excludes every other capability"),
    validation = Rule::new("!self.path.startsWith('/') && !self.path.startsWith('v1/')").message("path has no leading slash and no v1/"),
    validation = Rule::new("!self.path.contains('*') || (self.path.endsWith('*') && self.path.indexOf('*') == size(self.path) - 1)").message("* is only valid at the end; use + for one segment"),
    validation = Rule::new("!self.path.contains('{{') && !self.path.contains('\"') && !self.path.contains('..')").message("path holds no template, quote or ..")
)]
pub struct PolicyRule {
    /// Path at the server, as in Vault: exact, `*` at the end for a prefix, `+` for one segment.
    #[schemars(length(min = 1, max = 512))]
    pub path: String,
    /// Why this rule is here; for readers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub description: Option<String>,
    /// What may be done at the path.
    #[schemars(length(min = 1, max = 10))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub capabilities: Vec<Capability>,
}

/// One ServiceAccount that gets the policy.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.tokenTTL) <= duration(self.tokenMaxTTL)").message("tokenTTL must not exceed tokenMaxTTL"))]
pub struct PolicyBinding {
    /// Name of a ServiceAccount in this namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::refs::SERVICE_ACCOUNT_PATTERN))]
    pub service_account: String,
    /// Lifetime of a token before it must be renewed. Of several values for one ServiceAccount the smallest holds.
    #[serde(default = "default_token_ttl", rename = "tokenTTL")]
    #[schemars(length(max = 16), regex(pattern = crate::duration::PATTERN))]
    pub token_ttl: String,
    /// Lifetime of a token with all its renewals. Of several values for one ServiceAccount the smallest holds.
    #[serde(default = "default_token_max_ttl", rename = "tokenMaxTTL")]
    #[schemars(length(max = 16), regex(pattern = crate::duration::PATTERN))]
    pub token_max_ttl: String,
}

fn default_token_ttl() -> String {
    "15m".to_owned()
}

fn default_token_max_ttl() -> String {
    "24h".to_owned()
}

/// What may be done at a path.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Create what is not there.
    Create,
    /// Delete.
    Delete,
    /// Nothing at all; wins over every other capability.
    Deny,
    /// List names.
    List,
    /// Change parts.
    Patch,
    /// Read.
    Read,
    /// List names recursively.
    Scan,
    /// Receive events.
    Subscribe,
    /// Use paths that need root protection.
    Sudo,
    /// Change what is there.
    Update,
}

impl Capability {
    /// The word in a policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Deny => "deny",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Read => "read",
            Self::Scan => "scan",
            Self::Subscribe => "subscribe",
            Self::Sudo => "sudo",
            Self::Update => "update",
        }
    }
}

impl JsonSchema for Capability {
    fn schema_name() -> Cow<'static, str> {
        "Capability".into()
    }

    // By hand: the API server's cost estimate of the CEL rules needs the maximum length beside the enum.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "maxLength": 16,
            "enum": ["create", "read", "update", "patch", "delete", "list", "scan", "subscribe", "sudo", "deny"],
        })
    }
}

/// What happens to the server's copy when the object is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum DeletionPolicy {
    /// It is deleted.
    #[default]
    Delete,
    /// It stays.
    Retain,
}

impl JsonSchema for DeletionPolicy {
    fn schema_name() -> Cow<'static, str> {
        "DeletionPolicy".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "enum": ["Delete", "Retain"]})
    }
}

/// What the operator saw and did last.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VaultPolicyStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Name of the policy at the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_name: Option<String>,
    /// Auth roles that carry the policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Number of rules in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules_count: Option<i32>,
    /// Digest of the policy as applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_hash: Option<String>,
    /// Ready, Delegated, and what stands in their way.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
