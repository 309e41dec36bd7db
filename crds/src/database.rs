//! DatabaseConnection: the DBA's side of dynamic credentials. Never shows the admin's password.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::refs::{CaRef, ConnectionRef};

/// A database and the SQL that makes and drops its logins. The DBA owns it; applications pick a profile by name.
#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "coffer.dev",
    version = "v1alpha1",
    kind = "DatabaseConnection",
    plural = "databaseconnections",
    shortname = "dbconn",
    category = "coffer",
    namespaced,
    status = "DatabaseConnectionStatus",
    derive = "PartialEq",
    doc = "A database and the SQL that makes and drops its logins. The DBA owns it; applications pick a profile by name.",
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
    printcolumn(name = "Engine", type_ = "string", json_path = ".spec.engine"),
    printcolumn(name = "Leases", type_ = "integer", json_path = ".status.activeLeases"),
    printcolumn(name = "Config", type_ = "string", json_path = ".status.configName", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.caSecretRef) && has(self.caConfigMapRef))").message("set at most one of caSecretRef and caConfigMapRef"))]
pub struct DatabaseConnectionSpec {
    /// The vault that talks to the database.
    #[serde(default)]
    pub connection_ref: ConnectionRef,
    /// Kind of database.
    pub engine: DatabaseEngine,
    /// Connection URL; `{{username}}` and `{{password}}` stand for the admin login, which the vault keeps and rotates.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(
        validation = Rule::new("self.startsWith('postgresql://') || self.startsWith('postgres://')").message("url must start with postgresql://"),
        validation = Rule::new("self.contains('{{username}}') && self.contains('{{password}}')").message("url must hold {{username}} and {{password}}; never write a login into it")
    )]
    pub url: String,
    /// Secret in this namespace with the admin login. It is read when it is new or changed, and not kept.
    pub admin_secret_ref: AdminSecretRef,
    /// Change the admin's password as soon as the vault has it, so that the Secret's copy is worthless.
    #[serde(default)]
    pub rotate_admin: bool,
    /// Secret in this namespace with the CA that signed the database's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<CaRef>,
    /// ConfigMap in this namespace with the CA that signed the database's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaRef>,
    /// Kinds of login that DynamicSecrets may ask for.
    #[serde(default)]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub profiles: Vec<Profile>,
}

/// Kind of database.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum DatabaseEngine {
    /// PostgreSQL.
    PostgreSQL,
}

impl DatabaseEngine {
    /// Name of the engine's plugin at the server.
    pub fn plugin_name(self) -> &'static str {
        match self {
            Self::PostgreSQL => "postgresql-database-plugin",
        }
    }
}

impl JsonSchema for DatabaseEngine {
    fn schema_name() -> Cow<'static, str> {
        "DatabaseEngine".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "enum": ["PostgreSQL"]})
    }
}

/// The Secret with the admin login.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminSecretRef {
    /// Name of the Secret in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the user name.
    #[serde(default = "default_username_key")]
    #[schemars(length(min = 1, max = 253))]
    pub username_key: String,
    /// Key of the password.
    #[serde(default = "default_password_key")]
    #[schemars(length(min = 1, max = 253))]
    pub password_key: String,
}

fn default_username_key() -> String {
    "username".to_owned()
}

fn default_password_key() -> String {
    "password".to_owned()
}

/// One kind of login: the SQL that makes it, extends it and drops it.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// Name that DynamicSecrets use.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// SQL that makes a login; `{{name}}`, `{{password}}` and `{{expiration}}` are filled in by the vault.
    #[schemars(length(min = 1, max = 16384))]
    #[x_kube(validation = Rule::new("self.contains('{{name}}')").message("create must use {{name}}"))]
    pub create: String,
    /// SQL that drops a login; default: end its sessions and drop it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub revoke: Option<String>,
    /// SQL that extends a login; default: nothing needs to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub renew: Option<String>,
    /// Longest life of a login of this kind, whatever a DynamicSecret asks for.
    #[serde(default = "default_profile_max_ttl", rename = "maxTTL")]
    #[schemars(length(max = 16), regex(pattern = crate::duration::PATTERN))]
    pub max_ttl: String,
    /// Namespaces whose DynamicSecrets may use this profile; default: only this namespace. An empty selector means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<LabelSelector>,
}

fn default_profile_max_ttl() -> String {
    "24h".to_owned()
}

/// What the operator saw and did last.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseConnectionStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Name of the configuration at the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_name: Option<String>,
    /// Version of the admin Secret whose login the vault took over. A newer one is read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_secret_version: Option<String>,
    /// Whether the vault has since changed the admin's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_rotated: Option<bool>,
    /// Leases of all DynamicSecrets on this database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_leases: Option<i32>,
    /// Ready, and what stands in its way.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
