//! One change at the server, as data that a plan makes and a test reads. Never decides whether to make it.

use coffer_client::wire::{DatabaseConfig, DatabaseRole, DeliveryWrite, PolicyBody, RoleSpec};
use coffer_client::{Client, ClientError};

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
    pub(crate) async fn apply(&self, client: &Client) -> Result<(), ClientError> {
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
            Self::WriteDatabaseRole { name, role } => client.write_database_role(name, role).await,
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
