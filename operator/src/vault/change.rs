//! One change at the server, as data that a plan makes and a test reads. Never decides whether to make it.

use coffer_client::wire::{DatabaseConfig, DatabaseRole, DeliveryWrite, PolicyBody, RoleSpec};
use coffer_client::{Client, ClientError};
use serde_json::{Value, json};

use crate::error::Error;

/// One change. What it says is in its name; all of them may be repeated.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    DeleteDatabaseConfig(String),
    DeleteDatabaseRole(String),
    DeleteDelivery(String),
    DeletePolicy(String),
    DeleteRole { mount: String, name: String },
    RevokePrefix(String),
    RotateRoot(String),
    WriteDatabaseConfig { name: String, config: Box<DatabaseConfig> },
    WriteDatabaseRole { name: String, role: Box<DatabaseRole> },
    WriteDelivery { path: String, document: Box<DeliveryWrite> },
    WritePolicy { name: String, body: PolicyBody },
    WriteRole { mount: String, name: String, role: Box<RoleSpec> },
}

impl Change {
    /// Makes the change.
    pub(crate) async fn apply(&self, client: &Client) -> Result<(), Error> {
        self.send(client).await?;
        if let Self::RevokePrefix(prefix) = self {
            // The server may go on in the background; what a revocation needs must not be deleted meanwhile.
            let left = client.list(&format!("sys/leases/lookup/{prefix}")).await?.len();
            if left > 0 {
                return Err(Error::Revoking { prefix: prefix.clone(), left });
            }
        }
        Ok(())
    }

    async fn send(&self, client: &Client) -> Result<(), ClientError> {
        tracing::info!(change = %self.summary(), "vault");
        match self {
            Self::DeleteDatabaseConfig(name) => client.delete_database_config(name).await,
            Self::DeleteDatabaseRole(name) => client.delete_database_role(name).await,
            Self::DeleteDelivery(path) => client.delete_delivery(path).await,
            Self::DeletePolicy(name) => client.delete_policy(name).await,
            Self::DeleteRole { mount, name } => client.delete_role(mount, name).await,
            Self::RevokePrefix(prefix) => client.revoke_prefix(prefix).await,
            Self::RotateRoot(name) => client.rotate_root(name).await,
            Self::WriteDatabaseConfig { name, config } => client.write_database_config(name, config).await,
            Self::WriteDatabaseRole { name, role } => write_role(client, name, role).await,
            Self::WriteDelivery { path, document } => client.write_delivery(path, document).await,
            Self::WritePolicy { name, body } => client.write_policy(name, body).await,
            Self::WriteRole { mount, name, role } => client.write_role(mount, name, role).await,
        }
    }

    /// The change in a few words, without its content.
    pub(crate) fn summary(&self) -> String {
        match self {
            Self::DeleteDatabaseConfig(name) => format!("delete database/config/{name}"),
            Self::DeleteDatabaseRole(name) => format!("delete database/roles/{name}"),
            Self::DeleteDelivery(path) => format!("delete delivery/{path}"),
            Self::DeletePolicy(name) => format!("delete policy {name}"),
            Self::DeleteRole { mount, name } => format!("delete auth/{mount}/role/{name}"),
            Self::RevokePrefix(prefix) => format!("revoke leases under {prefix}"),
            Self::RotateRoot(name) => format!("rotate the admin password of database/config/{name}"),
            Self::WriteDatabaseConfig { name, .. } => format!("write database/config/{name}"),
            Self::WriteDatabaseRole { name, .. } => format!("write database/roles/{name}"),
            Self::WriteDelivery { path, .. } => format!("write delivery/{path}"),
            Self::WritePolicy { name, .. } => format!("write policy {name}"),
            Self::WriteRole { mount, name, .. } => format!("write auth/{mount}/role/{name}"),
        }
    }
}

/// Writes a database role with every list in it: the server keeps the lists that are not named, and the type leaves an
/// empty one out.
async fn write_role(client: &Client, name: &str, role: &DatabaseRole) -> Result<(), ClientError> {
    let mut body = json!(role);
    if let Value::Object(fields) = &mut body {
        fields.entry("renew_statements").or_insert_with(|| json!([]));
    }
    client.write(&format!("database/roles/{name}"), &body).await
}
