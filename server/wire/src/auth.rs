//! Auth mounts, roles and tokens. Never verifies anything.

use crate::{Disclose, Metadata, Ttl};
use serde::{Deserialize, Serialize};

/// `POST auth/<mount>/login` of a Kubernetes mount.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct KubernetesLogin {
    /// The role to take on, `<namespace>.<service account>` for pods.
    pub role: String,
    /// The projected ServiceAccount token.
    pub jwt: Disclose,
}

/// `POST auth/<mount>/config` of a Kubernetes mount.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct KubernetesConfig {
    /// What `iss` of a ServiceAccount token must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The API server's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_host: Option<String>,
    /// PEM of the CA that signed the API server's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_ca_cert: Option<String>,
    /// Where the signing keys are, if not at the API server's usual place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// The signing keys themselves, a JSON Web Key Set as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
}

/// `auth/<mount>/role/<name>` of a Kubernetes mount.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct RoleSpec {
    /// ServiceAccounts that may take this role.
    pub bound_service_account_names: Vec<String>,
    /// Their namespaces.
    pub bound_service_account_namespaces: Vec<String>,
    /// What the token's audience must contain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Policies a login gets.
    pub token_policies: Vec<String>,
    /// First life of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ttl: Option<Ttl>,
    /// Longest life of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_max_ttl: Option<Ttl>,
    /// The writer's labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<Metadata>,
}

/// `POST auth/<mount>/revoke-pod`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RevokePod {
    /// UID of the pod that is gone.
    pub uid: String,
}

/// `data` of `GET auth/<mount>/pods`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PodsReply {
    /// Pods with at least one live token.
    pub pods: Vec<PodToken>,
}

/// A pod that holds live tokens.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PodToken {
    /// The pod's UID.
    pub uid: String,
    /// The pod's name.
    #[serde(default)]
    pub name: String,
    /// The pod's namespace.
    #[serde(default)]
    pub namespace: String,
    /// How many tokens it holds.
    #[serde(default)]
    pub tokens: u64,
}

/// `POST auth/token/renew-self`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RenewSelf {
    /// The life asked for; the server may give less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub increment: Option<Ttl>,
}

/// `data` of `GET auth/token/lookup-self`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TokenLookup {
    /// Names the token without being able to use it.
    pub accessor: String,
    /// Unix seconds of its creation.
    pub creation_time: u64,
    /// Seconds it was given at creation.
    pub creation_ttl: u64,
    /// Who it belongs to, for people.
    pub display_name: String,
    /// The identity behind it; empty if none.
    pub entity_id: String,
    /// When it ends, RFC 3339; none if never.
    pub expire_time: Option<String>,
    /// The longest life set for it, seconds; 0 if only the system's limit holds.
    pub explicit_max_ttl: u64,
    /// What the auth method knows about its owner.
    pub meta: Option<Metadata>,
    /// Uses left; 0 means no limit.
    pub num_uses: u64,
    /// Whether it has no parent.
    pub orphan: bool,
    /// The path it came from.
    pub path: String,
    /// Its policies.
    pub policies: Vec<String>,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// Seconds left.
    pub ttl: u64,
    /// `service` or `batch`.
    #[serde(rename = "type")]
    pub token_type: String,
}
