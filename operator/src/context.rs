//! What every reconcile shares. Never decides anything.

use std::sync::Arc;
use std::time::Duration;

use coffer_crds::{CofferConnection, DatabaseConnection, DynamicSecret, VaultPolicy};
use kube::Client;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::{Mutex, Notify};

use crate::conditions::{find, is_ready};
use crate::error::{Error, NotConnected};
use crate::kubernetes::{Lookup, config_map_key};
use crate::vault::{Sessions, Vault};

/// How long a reconcile waits for the first list of another kind.
const LISTED_WITHIN: Duration = Duration::from_secs(10);

/// The objects of all kinds, as last seen.
pub(crate) struct Stores {
    /// CofferConnections.
    pub(crate) connections: Store<CofferConnection>,
    /// DatabaseConnections.
    pub(crate) databases: Store<DatabaseConnection>,
    /// DynamicSecrets.
    pub(crate) dynamics: Store<DynamicSecret>,
    /// VaultPolicies.
    pub(crate) policies: Store<VaultPolicy>,
}

/// What every reconcile shares.
pub(crate) struct Context {
    /// The API server.
    pub(crate) kube: Client,
    /// Where Events go.
    pub(crate) recorder: Recorder,
    /// Sessions at the vaults.
    pub(crate) sessions: Sessions,
    /// What there is in the cluster.
    pub(crate) stores: Stores,
    /// Held while the roles of a namespace are composed: they follow from objects of several kinds.
    pub(crate) roles: Mutex<()>,
    /// Told when a deletion left something at a server.
    pub(crate) left_behind: Notify,
}

impl Context {
    /// Waits until every kind has been listed once: what is not in a store must really not exist before something at
    /// the server is deleted for it.
    pub(crate) async fn listed(&self) -> Result<(), Error> {
        let stores = &self.stores;
        let all = async {
            let (connections, databases, dynamics, policies) = tokio::join!(
                stores.connections.wait_until_ready(),
                stores.databases.wait_until_ready(),
                stores.dynamics.wait_until_ready(),
                stores.policies.wait_until_ready(),
            );
            connections.and(databases).and(dynamics).and(policies)
        };
        match tokio::time::timeout(LISTED_WITHIN, all).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Error::NotListed("the coffer.dev kinds")),
        }
    }

    /// The CofferConnection of this name.
    pub(crate) fn connection(&self, name: &str) -> Result<Arc<CofferConnection>, Error> {
        self.stores.connections.get(&ObjectRef::new(name)).ok_or_else(|| {
            Error::Connection(NotConnected {
                reason: "ConnectionNotFound",
                message: format!(
                    "CofferConnection {name:?} does not exist; create it or set spec.connectionRef"
                ),
            })
        })
    }

    /// A session at the vault of this CofferConnection.
    pub(crate) async fn vault(&self, name: &str) -> Result<Vault, Error> {
        let connection = self.connection(name)?;
        let conditions =
            connection.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        // What its own reconcile found out need not be found out by each object again, with a timeout each.
        if !is_ready(conditions, connection.metadata.generation)
            && let Some(ready) = find(conditions, "Ready").filter(|ready| ready.status == "False")
        {
            return Err(Error::Connection(NotConnected {
                reason: "ConnectionNotReady",
                message: format!("CofferConnection {name:?}: {} ({})", ready.message, ready.reason),
            }));
        }
        let ca_pem = self.ca_bundle(&connection).await?;
        self.sessions.vault(connection, &ca_pem).await
    }

    /// The CA bundle of a CofferConnection.
    pub(crate) async fn ca_bundle(&self, connection: &CofferConnection) -> Result<String, Error> {
        let bundle = &connection.spec.ca_bundle_ref;
        match config_map_key(&self.kube, &bundle.namespace, &bundle.name, &bundle.key).await? {
            Lookup::Found(pem) => Ok(pem),
            Lookup::Missing(message) | Lookup::Forbidden(message) => Err(Error::Connection(NotConnected {
                reason: "CaBundleMissing",
                message: format!("spec.caBundleRef: {message}"),
            })),
        }
    }
}
