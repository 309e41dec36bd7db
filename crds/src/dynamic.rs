//! DynamicSecret: a leased credential that pods get as files. Never holds the credential itself.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::refs::{ConnectionRef, Consumer, NamespacedRef};

/// A leased credential, given to pods as files, renewed while they live and revoked when they die.
#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "coffer.dev",
    version = "v1alpha1",
    kind = "DynamicSecret",
    plural = "dynamicsecrets",
    shortname = "dsec",
    category = "coffer",
    namespaced,
    status = "DynamicSecretStatus",
    derive = "PartialEq",
    selectable = ".spec.scope",
    doc = "A leased credential, given to pods as files, renewed while they live and revoked when they die.",
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
    printcolumn(name = "Leases", type_ = "integer", json_path = ".status.leases.active"),
    printcolumn(name = "Role", type_ = "string", json_path = ".status.roleName", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.ttl) <= duration(self.maxTTL)").message("ttl must not exceed maxTTL").field_path(".ttl"),
    validation = Rule::new("duration(self.rotation.overlap) < duration(self.ttl)").message("rotation.overlap (default 5m) must be shorter than ttl")
)]
pub struct DynamicSecretSpec {
    /// The vault that issues the credential.
    #[serde(default)]
    pub connection_ref: ConnectionRef,
    /// Where the credential comes from.
    pub source: DynamicSource,
    /// Who shares a lease. `PerPod`: every pod has its own.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("scope is immutable; create a new DynamicSecret"))]
    pub scope: Scope,
    /// How long a lease lasts before it must be renewed.
    #[serde(default = "default_ttl")]
    #[schemars(length(max = 16), regex(pattern = crate::duration::PATTERN))]
    pub ttl: String,
    /// How long a lease lasts with all its renewals; then the pod gets a new one, without a gap.
    #[serde(default = "default_max_ttl", rename = "maxTTL")]
    #[schemars(length(max = 16), regex(pattern = crate::duration::PATTERN))]
    pub max_ttl: String,
    /// When to renew, and how long old and new are both valid.
    #[serde(default)]
    pub rotation: Rotation,
    /// ServiceAccounts of this namespace whose pods may read the secret; no VaultPolicy is needed for it.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["serviceAccount".into()]))]
    pub consumers: Vec<Consumer>,
    /// Files to render; without any, one file per key of the credential (`username`, `password`).
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub files: Vec<SecretFile>,
    /// How the application learns that its files have changed.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub on_change: Vec<OnChange>,
}

fn default_ttl() -> String {
    "1h".to_owned()
}

fn default_max_ttl() -> String {
    "24h".to_owned()
}

/// Where the credential comes from.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.database)").message("set database"))]
pub struct DynamicSource {
    /// A login at a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseSource>,
}

/// A login at a database, made by one of its profiles.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseSource {
    /// The DatabaseConnection.
    pub connection_ref: NamespacedRef,
    /// Name of the profile in the DatabaseConnection.
    #[schemars(length(min = 1, max = 63))]
    pub profile: String,
}

/// Who shares a lease.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Scope {
    /// Every pod has its own lease.
    #[default]
    PerPod,
}

impl JsonSchema for Scope {
    fn schema_name() -> Cow<'static, str> {
        "Scope".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "maxLength": 16, "enum": ["PerPod"]})
    }
}

/// When to renew, and how long old and new are both valid.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// Renew when this share of the lease has passed, in percent.
    #[serde(default = "default_renew_at")]
    #[schemars(range(min = 10, max = 90))]
    pub renew_at_percent: i32,
    /// How long the old credential stays valid after the new one is in place.
    #[serde(default = "default_overlap")]
    #[schemars(length(max = 16), regex(pattern = crate::duration::PATTERN))]
    pub overlap: String,
}

fn default_renew_at() -> i32 {
    66
}

fn default_overlap() -> String {
    "5m".to_owned()
}

impl Default for Rotation {
    fn default() -> Self {
        Self { renew_at_percent: default_renew_at(), overlap: default_overlap() }
    }
}

/// One file in the pod.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretFile {
    /// Name of the file below the secret's directory.
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    #[x_kube(validation = Rule::new("!self.startsWith('..')").message("a file name must not start with .."))]
    pub name: String,
    /// Mode of the file, octal.
    #[serde(default = "default_mode")]
    #[schemars(length(max = 4), regex(pattern = "^0[0-7]{3}$"))]
    pub mode: String,
    /// Go template of the content; the dot is the credential's data. Without it: the key with the file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub template: Option<String>,
}

fn default_mode() -> String {
    "0440".to_owned()
}

/// One way to tell the application: a signal to a container, or an HTTP request inside the pod.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.signal) != has(self.http)").message("set exactly one of signal or http"),
    validation = Rule::new("has(self.signal) == has(self.container)").message("signal and container go together")
)]
pub struct OnChange {
    /// Container to signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub container: Option<String>,
    /// Signal to send, such as SIGHUP; needs shareProcessNamespace in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = "^SIG[A-Z0-9]+$"))]
    pub signal: Option<String>,
    /// HTTP request to make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpNotice>,
}

/// An HTTP request inside the pod.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpNotice {
    /// URL on the pod's own loopback address that is sent an empty POST.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^http://(127[.]0[.]0[.]1|localhost|\\\\[::1\\\\])(:[0-9]+)?(/.*)?$')").message("post must be an http:// URL on loopback"))]
    pub post: String,
}

/// Leases of this secret by state.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseCounts {
    /// Leases at the server.
    #[serde(default)]
    pub active: i32,
}

/// What the operator saw and did last.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DynamicSecretStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Name of the database role at the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_name: Option<String>,
    /// Leases of this secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leases: Option<LeaseCounts>,
    /// Ready, SourceReady, and what stands in their way.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
