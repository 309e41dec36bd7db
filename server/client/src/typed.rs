//! The calls operator, agent and CLI make, by name. Each is a path and a type, nothing more.

use crate::{Call, Client, ClientError};
use coffer_wire::{
    Auth, AuthSpec, CaReply, DatabaseConfig, DatabaseRole, DeliveryReply, DeliveryWrite, Disclose, Envelope,
    Health, InitRequest, InitResponse, KubernetesConfig, KubernetesLogin, KvRead, LeaseLookup, LeaseRequest,
    MountInfo, MountSpec, PodToken, PodsReply, PolicyBody, PolicyReply, RenewSelf, RevokePod, RoleSpec,
    SealStatus, TokenLookup, Ttl, TuneSpec, UnsealRequest,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

type Reply<T> = Result<T, ClientError>;

fn required<T>(path: &str, value: Option<T>) -> Reply<T> {
    value.ok_or_else(|| ClientError::Decode { path: path.to_owned(), what: "the reply is empty".to_owned() })
}

fn optional<T>(reply: Reply<T>) -> Reply<Option<T>> {
    match reply {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Client {
    async fn data<T: DeserializeOwned>(&self, path: &str) -> Reply<T> {
        let reply = self.get(path).await?;
        required(path, reply.data)
    }
}

/// Tokens. Every method ends as [`ClientError`] says.
#[expect(clippy::missing_errors_doc, reason = "said once for the block")]
impl Client {
    /// Logs in at a Kubernetes mount with a projected ServiceAccount token.
    pub async fn login_kubernetes(&self, mount: &str, role: &str, jwt: Disclose) -> Reply<Auth> {
        let path = format!("auth/{mount}/login");
        let body = KubernetesLogin { role: role.to_owned(), jwt };
        let reply: Envelope<Value> = self.without_token().post(&path, &body).await?;
        required(&path, reply.auth)
    }

    /// What the server knows of the client's token.
    pub async fn lookup_self(&self) -> Reply<TokenLookup> {
        self.data("auth/token/lookup-self").await
    }

    /// Prolongs the client's token.
    pub async fn renew_self(&self, increment: Option<Ttl>) -> Reply<Auth> {
        let path = "auth/token/renew-self";
        let reply: Envelope<Value> = self.post(path, &RenewSelf { increment }).await?;
        required(path, reply.auth)
    }

    /// Revokes the client's token and everything issued to it.
    pub async fn revoke_self(&self) -> Reply<()> {
        self.write("auth/token/revoke-self", &Map::new()).await
    }

    /// Revokes every token of a pod; none is success.
    pub async fn revoke_pod(&self, mount: &str, uid: &str) -> Reply<()> {
        self.write(&format!("auth/{mount}/revoke-pod"), &RevokePod { uid: uid.to_owned() }).await
    }

    /// Pods with live tokens.
    pub async fn pods(&self, mount: &str) -> Reply<Vec<PodToken>> {
        self.data::<PodsReply>(&format!("auth/{mount}/pods")).await.map(|reply| reply.pods)
    }
}

/// Secrets and leases. Every method ends as [`ClientError`] says.
#[expect(clippy::missing_errors_doc, reason = "said once for the block")]
impl Client {
    /// Reads any secret; `lease_id` is set if it was issued for this call.
    pub async fn read_secret(&self, path: &str) -> Reply<Envelope<Disclose<Map<String, Value>>>> {
        self.get(path).await
    }

    /// Reads a key-value secret, version 2.
    pub async fn read_kv(&self, mount: &str, path: &str) -> Reply<Option<KvRead>> {
        optional(self.data(&format!("{mount}/data/{path}")).await)
    }

    /// What the server knows of a lease.
    pub async fn lookup_lease(&self, lease_id: &str) -> Reply<LeaseLookup> {
        let path = "sys/leases/lookup";
        let body = LeaseRequest { lease_id: lease_id.to_owned(), increment: None };
        required(path, self.put(path, &body).await?.data)
    }

    /// Prolongs a lease; the reply's `lease_duration` is what was given.
    pub async fn renew_lease(&self, lease_id: &str, increment: Option<Ttl>) -> Reply<Envelope<Value>> {
        self.put("sys/leases/renew", &LeaseRequest { lease_id: lease_id.to_owned(), increment }).await
    }

    /// Ends a lease. That there is none is success.
    pub async fn revoke_lease(&self, lease_id: &str) -> Reply<()> {
        let body = LeaseRequest { lease_id: lease_id.to_owned(), increment: None };
        optional(self.put::<_, Value>("sys/leases/revoke", &body).await).map(drop)
    }

    /// Ends every lease under a prefix.
    pub async fn revoke_prefix(&self, prefix: &str) -> Reply<()> {
        self.put::<_, Value>(&format!("sys/leases/revoke-prefix/{prefix}"), &Map::new()).await.map(drop)
    }

    /// Reads a delivery document, `k8s/<cluster>/<namespace>/<kind>/<name>`.
    pub async fn read_delivery(&self, path: &str) -> Reply<Option<DeliveryReply>> {
        optional(self.data(&format!("delivery/{path}")).await)
    }

    /// Writes a delivery document.
    pub async fn write_delivery(&self, path: &str, body: &DeliveryWrite) -> Reply<()> {
        self.write(&format!("delivery/{path}"), body).await
    }

    /// Deletes a delivery document.
    pub async fn delete_delivery(&self, path: &str) -> Reply<()> {
        self.delete(&format!("delivery/{path}")).await
    }
}

/// Policies, roles and mounts. Every method ends as [`ClientError`] says.
#[expect(clippy::missing_errors_doc, reason = "said once for the block")]
impl Client {
    /// Writes a policy.
    pub async fn write_policy(&self, name: &str, body: &PolicyBody) -> Reply<()> {
        self.write(&format!("sys/policies/acl/{name}"), body).await
    }

    /// Reads a policy.
    pub async fn read_policy(&self, name: &str) -> Reply<Option<PolicyReply>> {
        optional(self.data(&format!("sys/policies/acl/{name}")).await)
    }

    /// Deletes a policy.
    pub async fn delete_policy(&self, name: &str) -> Reply<()> {
        self.delete(&format!("sys/policies/acl/{name}")).await
    }

    /// Names of policies under a prefix that is empty or ends in a slash.
    pub async fn list_policies(&self, prefix: &str) -> Reply<Vec<String>> {
        self.list(format!("sys/policies/acl/{prefix}").trim_end_matches('/')).await
    }

    /// Writes a role of a Kubernetes mount.
    pub async fn write_role(&self, mount: &str, name: &str, role: &RoleSpec) -> Reply<()> {
        self.write(&format!("auth/{mount}/role/{name}"), role).await
    }

    /// Reads a role of a Kubernetes mount.
    pub async fn read_role(&self, mount: &str, name: &str) -> Reply<Option<RoleSpec>> {
        optional(self.data(&format!("auth/{mount}/role/{name}")).await)
    }

    /// Deletes a role of a Kubernetes mount.
    pub async fn delete_role(&self, mount: &str, name: &str) -> Reply<()> {
        self.delete(&format!("auth/{mount}/role/{name}")).await
    }

    /// Names of the roles of a Kubernetes mount.
    pub async fn list_roles(&self, mount: &str) -> Reply<Vec<String>> {
        self.list(&format!("auth/{mount}/role")).await
    }

    /// Configures a Kubernetes mount.
    pub async fn write_kubernetes_config(&self, mount: &str, config: &KubernetesConfig) -> Reply<()> {
        self.write(&format!("auth/{mount}/config"), config).await
    }

    /// Secret mounts by path, each ending in a slash.
    pub async fn mounts(&self) -> Reply<BTreeMap<String, MountInfo>> {
        self.data("sys/mounts").await
    }

    /// Mounts an engine.
    pub async fn mount(&self, path: &str, spec: &MountSpec) -> Reply<()> {
        self.write(&format!("sys/mounts/{path}"), spec).await
    }

    /// Unmounts an engine; its data is gone.
    pub async fn unmount(&self, path: &str) -> Reply<()> {
        self.delete(&format!("sys/mounts/{path}")).await
    }

    /// Auth mounts by path, each ending in a slash.
    pub async fn auth_mounts(&self) -> Reply<BTreeMap<String, MountInfo>> {
        self.data("sys/auth").await
    }

    /// Mounts an auth method.
    pub async fn enable_auth(&self, path: &str, spec: &AuthSpec) -> Reply<()> {
        self.write(&format!("sys/auth/{path}"), spec).await
    }

    /// Unmounts an auth method; its tokens are revoked.
    pub async fn disable_auth(&self, path: &str) -> Reply<()> {
        self.delete(&format!("sys/auth/{path}")).await
    }

    /// Reads the limits of an auth mount.
    pub async fn auth_tune(&self, path: &str) -> Reply<TuneSpec> {
        self.data(&format!("sys/auth/{path}/tune")).await
    }

    /// Sets the limits of an auth mount.
    pub async fn tune_auth(&self, path: &str, spec: &TuneSpec) -> Reply<()> {
        self.write(&format!("sys/auth/{path}/tune"), spec).await
    }
}

/// The database engine mounted at `database/`. Every method ends as [`ClientError`] says.
#[expect(clippy::missing_errors_doc, reason = "said once for the block")]
impl Client {
    /// Writes a connection.
    pub async fn write_database_config(&self, name: &str, config: &DatabaseConfig) -> Reply<()> {
        self.write(&format!("database/config/{name}"), config).await
    }

    /// Reads a connection as the server shows it; the password is never in it.
    pub async fn read_database_config(&self, name: &str) -> Reply<Option<Map<String, Value>>> {
        optional(self.data(&format!("database/config/{name}")).await)
    }

    /// Deletes a connection.
    pub async fn delete_database_config(&self, name: &str) -> Reply<()> {
        self.delete(&format!("database/config/{name}")).await
    }

    /// Names of the connections.
    pub async fn list_database_configs(&self) -> Reply<Vec<String>> {
        self.list("database/config").await
    }

    /// Replaces the admin password by one only the vault knows.
    pub async fn rotate_root(&self, name: &str) -> Reply<()> {
        self.write(&format!("database/rotate-root/{name}"), &Map::new()).await
    }

    /// Writes a role.
    pub async fn write_database_role(&self, name: &str, role: &DatabaseRole) -> Reply<()> {
        self.write(&format!("database/roles/{name}"), role).await
    }

    /// Reads a role.
    pub async fn read_database_role(&self, name: &str) -> Reply<Option<DatabaseRole>> {
        optional(self.data(&format!("database/roles/{name}")).await)
    }

    /// Deletes a role.
    pub async fn delete_database_role(&self, name: &str) -> Reply<()> {
        self.delete(&format!("database/roles/{name}")).await
    }

    /// Names of the roles.
    pub async fn list_database_roles(&self) -> Reply<Vec<String>> {
        self.list("database/roles").await
    }
}

/// The server itself. Every method ends as [`ClientError`] says.
#[expect(clippy::missing_errors_doc, reason = "said once for the block")]
impl Client {
    /// How the server is, sealed or not.
    pub async fn health(&self) -> Reply<Health> {
        let call = Call { any_status: true, ..Call::new("GET", "sys/health") };
        self.without_token().exchange(call, None::<&()>).await
    }

    /// Whether the server is sealed, and how far an unseal has come.
    pub async fn seal_status(&self) -> Reply<SealStatus> {
        self.without_token().exchange(Call::new("GET", "sys/seal-status"), None::<&()>).await
    }

    /// Initialises the vault. The reply is shown once.
    pub async fn init(&self, request: &InitRequest) -> Reply<InitResponse> {
        self.without_token().exchange(Call::new("PUT", "sys/init"), Some(request)).await
    }

    /// Gives one share of the unseal key.
    pub async fn unseal(&self, key: Disclose) -> Reply<SealStatus> {
        let body = UnsealRequest { key: Some(key), reset: false };
        self.without_token().exchange(Call::new("PUT", "sys/unseal"), Some(&body)).await
    }

    /// Seals the vault.
    pub async fn seal(&self) -> Reply<()> {
        self.put::<_, Value>("sys/seal", &Map::new()).await.map(drop)
    }

    /// The CAs a client should trust now, PEM.
    pub async fn ca_bundle(&self) -> Reply<String> {
        self.without_token().data::<CaReply>("sys/ca").await.map(|reply| reply.ca_bundle)
    }
}
