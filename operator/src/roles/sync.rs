//! Brings the roles of a namespace in line. Touches no role that is not the operator's.

use crate::context::Context;
use crate::error::Error;
use crate::vault::{Change, Vault};

use super::compose::{compose, same, without};

use kube::ResourceExt;

/// Writes the roles that differ and deletes those that nothing names any more.
///
/// `foreign` names a policy that the caller found to be somebody else's: no role may carry it.
pub(crate) async fn sync(
    context: &Context,
    vault: &Vault,
    namespace: &str,
    foreign: Option<&str>,
) -> Result<(), Error> {
    context.listed().await?;
    // Two reconciles of one namespace would each write the other's older view.
    let _held = context.roles.lock().await;
    let wanted = compose(
        &vault.names,
        &vault.connection.name_any(),
        &vault.connection.spec.auth.audience,
        namespace,
        &context.stores.policies.state(),
        &context.stores.dynamics.state(),
    );
    let wanted = match foreign {
        Some(policy) => without(wanted, policy),
        None => wanted,
    };
    let mount = &vault.names.mount;
    let prefix = vault.names.role(namespace, "");
    for name in vault.client.list_roles(mount).await? {
        if !name.starts_with(&prefix) || wanted.contains_key(&name) {
            continue;
        }
        let found = vault.client.read_role(mount, &name).await?;
        if found.is_some_and(|role| vault.names.owns(role.custom_metadata.as_ref())) {
            Change::DeleteRole { mount: mount.clone(), name }.apply(&vault.client).await?;
        }
    }
    for (name, role) in wanted {
        match vault.client.read_role(mount, &name).await? {
            Some(found) if same(&role, &found) => {}
            Some(found) if !vault.names.owns(found.custom_metadata.as_ref()) => {
                tracing::warn!(role = %name, "not the operator's; left as it is");
            }
            _ => {
                let change = Change::WriteRole { mount: mount.clone(), name, role: Box::new(role) };
                change.apply(&vault.client).await?;
            }
        }
    }
    Ok(())
}
