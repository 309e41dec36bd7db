//! What objects left behind at the server when they were deleted while it was down. Deletes only what carries the
//! operator's labels and whose object is gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coffer_client::wire::Metadata;
use coffer_crds::CofferConnection;
use kube::ResourceExt;

use crate::context::Context;
use crate::error::Error;
use crate::names::Names;
use crate::roles;
use crate::vault::{Change, Vault};

/// How often.
const INTERVAL: Duration = Duration::from_secs(300);
/// How soon after a start, and after a failure.
const SOON: Duration = Duration::from_secs(20);

/// Sweeps at the start, every five minutes, and soon after a deletion that left something behind; what fails is tried
/// again until it is done.
pub(crate) async fn sweep_for_ever(context: Arc<Context>) {
    loop {
        tokio::time::sleep(SOON).await;
        if let Err(error) = sweep_all(&context).await {
            tracing::info!("sweep of leftovers broke off: {error}");
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = context.left_behind.notified() => {}
        }
    }
}

async fn sweep_all(context: &Context) -> Result<(), Error> {
    context.listed().await?;
    for connection in context.stores.connections.state() {
        sweep(context, &connection).await?;
    }
    Ok(())
}

/// Names of everything that live objects of one connection have at the server.
#[derive(Debug, Default)]
struct Live {
    policies: BTreeSet<String>,
    deliveries: BTreeSet<String>,
    database_roles: BTreeSet<String>,
    database_configs: BTreeSet<String>,
    namespaces: BTreeSet<String>,
}

fn live(context: &Context, names: &Names) -> Live {
    // By name whatever vault they refer to: sparing too much is harmless here.
    let mut live = Live::default();
    for object in context.stores.policies.state() {
        let namespace = object.namespace().unwrap_or_default();
        live.policies.insert(names.vault_policy(&namespace, &object.name_any()));
        live.namespaces.insert(namespace);
    }
    for object in context.stores.dynamics.state() {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        live.policies.insert(names.dynamic_policy(&namespace, &name));
        live.deliveries.insert(names.delivery(&namespace, &name));
        live.database_roles.insert(names.database(&namespace, &name));
        live.namespaces.insert(namespace);
    }
    for object in context.stores.databases.state() {
        let namespace = object.namespace().unwrap_or_default();
        live.database_configs.insert(names.database(&namespace, &object.name_any()));
    }
    live
}

async fn sweep(context: &Context, connection: &CofferConnection) -> Result<(), Error> {
    let vault = context.vault(&connection.name_any()).await?;
    let live = live(context, &vault.names);
    let mut namespaces = live.namespaces.clone();
    let root = format!("k8s/{}", vault.names.cluster);
    let listed = vault.client.list_policies(&format!("{root}/")).await?;
    namespaces.extend(listed.iter().filter_map(|name| name.strip_suffix('/')).map(str::to_owned));
    let roles = vault.client.list_roles(&vault.names.mount).await?;
    namespaces.extend(
        roles.iter().filter_map(|role| role.split_once('.')).map(|(namespace, _)| namespace.to_owned()),
    );
    for namespace in &namespaces {
        sweep_policies(&vault, &live, namespace).await?;
        sweep_deliveries(&vault, &live, namespace).await?;
    }
    sweep_database(&vault, &live).await?;
    for namespace in &namespaces {
        roles::sync(context, &vault, namespace, None).await?;
    }
    Ok(())
}

fn is_leftover(vault: &Vault, labels: Option<&Metadata>) -> bool {
    // The names were compared already; a policy that was retained on purpose has lost its label.
    vault.names.owns(labels)
}

async fn sweep_policies(vault: &Vault, live: &Live, namespace: &str) -> Result<(), Error> {
    for kind in ["vpol", "dsec"] {
        let prefix = format!("k8s/{}/{namespace}/{kind}/", vault.names.cluster);
        for name in vault.client.list_policies(&prefix).await? {
            let name = format!("{prefix}{name}");
            if live.policies.contains(&name) {
                continue;
            }
            let found = vault.client.read_policy(&name).await?;
            if found.is_some_and(|found| is_leftover(vault, found.custom_metadata.as_ref())) {
                Change::DeletePolicy(name).apply(&vault.client).await?;
            }
        }
    }
    Ok(())
}

async fn sweep_deliveries(vault: &Vault, live: &Live, namespace: &str) -> Result<(), Error> {
    let prefix = format!("k8s/{}/{namespace}/dsec", vault.names.cluster);
    for name in vault.client.list(&format!("delivery/{prefix}")).await? {
        let path = format!("{prefix}/{name}");
        if live.deliveries.contains(&path) {
            continue;
        }
        let found = vault.client.read_delivery(&path).await?;
        if found.is_some_and(|found| is_leftover(vault, found.custom_metadata.as_ref())) {
            Change::DeleteDelivery(path).apply(&vault.client).await?;
        }
    }
    Ok(())
}

async fn sweep_database(vault: &Vault, live: &Live) -> Result<(), Error> {
    let prefix = vault.names.database_prefix();
    for name in vault.client.list_database_roles().await? {
        if !name.starts_with(&prefix) || live.database_roles.contains(&name) {
            continue;
        }
        let found = vault.client.read_database_role(&name).await?;
        if found.is_some_and(|found| is_leftover(vault, found.custom_metadata.as_ref())) {
            Change::RevokePrefix(format!("database/creds/{name}")).apply(&vault.client).await?;
            Change::DeleteDatabaseRole(name).apply(&vault.client).await?;
        }
    }
    // After the roles: a configuration is what their logins are dropped with.
    for name in vault.client.list_database_configs().await? {
        if !name.starts_with(&prefix) || live.database_configs.contains(&name) {
            continue;
        }
        let found = vault.client.read_database_config(&name).await?;
        if found.is_some_and(|found| is_leftover(vault, Some(&crate::database::labels_of(&found)))) {
            Change::DeleteDatabaseConfig(name).apply(&vault.client).await?;
        }
    }
    Ok(())
}
