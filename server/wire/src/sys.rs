//! `sys/`: initialisation, seal, mounts, policies. Never touches a key.

use crate::{Disclose, Metadata, Ttl};
use serde::{Deserialize, Serialize};

/// Body of `PUT sys/init`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InitRequest {
    /// How many shares the unseal key is split into.
    pub secret_shares: u8,
    /// How many of them unseal.
    pub secret_threshold: u8,
}

/// Reply to `PUT sys/init`: shown once, kept by nobody but the caller.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct InitResponse {
    /// The shares, hex.
    pub keys: Vec<Disclose>,
    /// The same shares, base64.
    pub keys_base64: Vec<Disclose>,
    /// The first token; may do everything.
    pub root_token: Disclose,
}

/// Body of `PUT sys/unseal`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct UnsealRequest {
    /// One share, hex or base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Disclose>,
    /// Forget the shares given so far.
    #[serde(default)]
    pub reset: bool,
}

/// `GET sys/seal-status`, and the reply to an unseal.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct SealStatus {
    /// The kind of seal, such as `shamir`.
    #[serde(rename = "type")]
    pub seal_type: String,
    /// Whether `sys/init` has been done.
    pub initialized: bool,
    /// Whether the vault is sealed.
    pub sealed: bool,
    /// Shares needed.
    pub t: u8,
    /// Shares made.
    pub n: u8,
    /// Shares given so far.
    pub progress: u8,
    /// Names the present attempt.
    pub nonce: String,
    /// The server's version.
    pub version: String,
    /// When the server was built.
    pub build_date: String,
    /// Whether the seal is being changed.
    pub migration: bool,
    /// The cluster's name; none while sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// The cluster's id; none while sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Whether recovery keys are in use.
    pub recovery_seal: bool,
    /// The kind of storage.
    pub storage_type: String,
}

/// `GET sys/health`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Health {
    /// Whether `sys/init` has been done.
    pub initialized: bool,
    /// Whether the vault is sealed.
    pub sealed: bool,
    /// Whether this server answers reads only.
    pub standby: bool,
    /// The same for performance standbys; always false.
    pub performance_standby: bool,
    /// Replication for performance.
    pub replication_performance_mode: String,
    /// Replication for disaster recovery.
    pub replication_dr_mode: String,
    /// The server's clock, Unix seconds.
    pub server_time_utc: u64,
    /// The server's version.
    pub version: String,
    /// The cluster's name; none while sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// The cluster's id; none while sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
}

/// `GET sys/leader`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Leader {
    /// Whether there is more than one server.
    pub ha_enabled: bool,
    /// Whether this server does the background work.
    pub is_self: bool,
    /// Address of the one that does.
    pub leader_address: String,
    /// Its address for other servers.
    pub leader_cluster_address: String,
    /// Always false.
    pub performance_standby: bool,
}

/// Body of `POST sys/mounts/<path>`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct MountSpec {
    /// The engine, such as `kv` or `database`.
    #[serde(rename = "type")]
    pub mount_type: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The engine's options, such as `version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Metadata>,
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<TuneSpec>,
}

/// Body of `POST sys/auth/<path>`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct AuthSpec {
    /// The auth method, such as `kubernetes`.
    #[serde(rename = "type")]
    pub auth_type: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<TuneSpec>,
}

/// A mount as `GET sys/mounts` and `GET sys/auth` list it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct MountInfo {
    /// The engine or auth method.
    #[serde(rename = "type")]
    pub mount_type: String,
    /// For people.
    pub description: String,
    /// Names the mount for good, whatever its path.
    pub accessor: String,
    /// The same, internally.
    pub uuid: String,
    /// The engine's options.
    pub options: Option<Metadata>,
    /// Limits.
    pub config: TuneSpec,
}

/// `sys/auth/<path>/tune` and `sys/mounts/<path>/tune`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct TuneSpec {
    /// Life of what is issued if nothing else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_lease_ttl: Option<Ttl>,
    /// Longest life of what is issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lease_ttl: Option<Ttl>,
    /// The policy that limits every token issued here, whatever else it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_boundary_policy: Option<String>,
}

/// Body of `PUT sys/policies/acl/<name>`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PolicyBody {
    /// HCL or JSON.
    pub policy: String,
    /// The writer's labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<Metadata>,
}

/// `data` of `GET sys/policies/acl/<name>`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PolicyReply {
    /// Its name.
    pub name: String,
    /// HCL or JSON as written.
    pub policy: String,
    /// The writer's labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<Metadata>,
}

/// `data` of `GET sys/ca`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CaReply {
    /// PEM of every CA a client should trust now.
    pub ca_bundle: String,
}
