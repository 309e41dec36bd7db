//! CofferConnection: where the vault is, and what each namespace may grant. Never holds a credential.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::Capability;
use crate::refs::CaBundleRef;

/// Where the vault is, how this cluster logs in, and the ceiling for what tenant namespaces may grant themselves.
#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "coffer.dev",
    version = "v1alpha1",
    kind = "CofferConnection",
    plural = "cofferconnections",
    shortname = "cconn",
    category = "coffer",
    status = "CofferConnectionStatus",
    derive = "PartialEq",
    doc = "Where the vault is, how this cluster logs in, and the ceiling for what tenant namespaces may grant themselves.",
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
    printcolumn(name = "Sealed", type_ = "boolean", json_path = ".status.sealed"),
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.address", priority = 1),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.serverVersion", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CofferConnectionSpec {
    /// URL of the vault, https only, without a path. IPv6 literals in brackets.
    #[schemars(length(min = 9, max = 512))]
    #[x_kube(
        validation = Rule::new("self.startsWith('https://')").message("address must be an https:// URL"),
        validation = Rule::new("!self.substring(8).contains('/')").message("address has no path and no trailing slash")
    )]
    pub address: String,
    /// ConfigMap with the CA bundle that the server's certificate is checked against.
    pub ca_bundle_ref: CaBundleRef,
    /// How pods and the operator of this cluster log in.
    pub auth: ConnectionAuth,
    /// Name of this cluster: a DNS label, part of the name of every object at the server.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cluster is immutable: it is part of every name at the server"))]
    pub cluster: String,
    /// What VaultPolicies in the selected namespaces may grant. A rule outside every delegation is refused.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub delegations: Vec<Delegation>,
}

/// How pods and the operator of a cluster log in.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionAuth {
    /// Auth mount of the pods of this cluster; the operator logs in at the same name with `-operator`.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[a-z0-9]([-a-z0-9/]*[a-z0-9])?$"))]
    pub mount: String,
    /// Audience of the ServiceAccount tokens used to log in.
    #[serde(default = "default_audience")]
    #[schemars(length(min = 1, max = 256))]
    pub audience: String,
    /// Lifetime of a projected ServiceAccount token, in seconds.
    #[serde(default = "default_token_seconds")]
    #[schemars(range(min = 600, max = 86400))]
    pub token_expiration_seconds: i64,
}

fn default_audience() -> String {
    "coffer".to_owned()
}

fn default_token_seconds() -> i64 {
    3600
}

/// One ceiling: in the selected namespaces, these paths, with at most these capabilities.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delegation {
    /// Namespaces this applies to; an empty selector selects all.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// Paths below which rules may be granted; `{{namespace}}` stands for the namespace of the VaultPolicy.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 512)))]
    pub path_prefixes: Vec<String>,
    /// The most a rule may grant there.
    #[schemars(length(min = 1, max = 10))]
    pub capabilities: Vec<Capability>,
}

/// What the operator saw last.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CofferConnectionStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Version the server reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// Whether the server is sealed; absent while it cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<bool>,
    /// Ready, and what stands in its way.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
