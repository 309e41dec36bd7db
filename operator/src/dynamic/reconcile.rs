//! Carries a DynamicSecret's plan out. Never decides what the plan is.

use std::sync::Arc;

use coffer_crds::dynamic::LeaseCounts;
use coffer_crds::{DynamicSecret, DynamicSecretStatus};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use super::plan::{AtServer, Observed, Plan, deletion, plan};
use super::source::{database_of, resolve};
use crate::conditions::{is_foreign, merge};
use crate::context::Context;
use crate::controllers::{self, Failure};
use crate::error::Error;
use crate::finalize::{self, Step};
use crate::kubernetes::{apply_status, namespace_labels};
use crate::vault::Vault;
use crate::{clock, roles};

/// Brings the server in line with one DynamicSecret.
pub(crate) async fn reconcile(secret: Arc<DynamicSecret>, context: Arc<Context>) -> Result<Action, Error> {
    let namespace = secret.namespace().ok_or(Error::Incomplete("namespace"))?;
    let api: Api<DynamicSecret> = Api::namespaced(context.kube.clone(), &namespace);
    match finalize::step(&*secret) {
        Step::Gone => return Ok(Action::await_change()),
        Step::CleanUp => {
            return controllers::clean_up(&api, &*secret, &context, clean_up(&secret, &namespace, &context))
                .await;
        }
        Step::Add => finalize::add(&api, &*secret).await?,
        Step::Keep => {}
    }
    let connection = &secret.spec.connection_ref.name;
    let applied =
        controllers::settle(&context, connection, apply(&secret, &namespace, &context).await).await?;
    let status = status_of(&secret, &applied);
    if secret.status.as_ref() != Some(&status) {
        let old = secret.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        controllers::announce(&context, &*secret, old, &status.conditions).await;
        apply_status(&api, &*secret, &status).await?;
    }
    Ok(controllers::next(&applied.map(|(plan, _)| plan), &secret.uid().unwrap_or_default()))
}

async fn apply(secret: &DynamicSecret, namespace: &str, context: &Context) -> Result<(Plan, i32), Error> {
    let vault = context.vault(&secret.spec.connection_ref.name).await?;
    context.listed().await?;
    let database = database_of(secret).and_then(|(namespace, name)| {
        context.stores.databases.get(&ObjectRef::new(&name).within(&namespace))
    });
    let labels = namespace_labels(&context.kube, namespace).await?;
    let at_server = read(&vault, namespace, &secret.name_any()).await?;
    let source = resolve(secret, database.as_deref(), &labels);
    let plan = plan(&Observed { secret, names: &vault.names, source, at_server: &at_server });
    for change in &plan.changes {
        change.apply(&vault.client).await?;
    }
    let policy_name = vault.names.dynamic_policy(namespace, &secret.name_any());
    let foreign = is_foreign(&plan.verdicts).then_some(policy_name.as_str());
    roles::sync(context, &vault, namespace, foreign).await?;
    let leases = lease_count(&vault, &plan.role_name).await?;
    Ok((plan, leases))
}

async fn read(vault: &Vault, namespace: &str, name: &str) -> Result<AtServer, Error> {
    let names = &vault.names;
    Ok(AtServer {
        role: vault.client.read_database_role(&names.database(namespace, name)).await?,
        policy: vault.client.read_policy(&names.dynamic_policy(namespace, name)).await?,
        delivery: vault.client.read_delivery(&names.delivery(namespace, name)).await?,
    })
}

/// Leases of a database role at the server.
pub(crate) async fn lease_count(vault: &Vault, role: &str) -> Result<i32, Error> {
    let found = vault.client.list(&format!("sys/leases/lookup/database/creds/{role}")).await?;
    Ok(i32::try_from(found.len()).unwrap_or(i32::MAX))
}

async fn clean_up(secret: &DynamicSecret, namespace: &str, context: &Context) -> Result<(), Error> {
    let vault = context.vault(&secret.spec.connection_ref.name).await?;
    let at_server = read(&vault, namespace, &secret.name_any()).await?;
    for change in deletion(secret, &vault.names, &at_server) {
        change.apply(&vault.client).await?;
    }
    roles::sync(context, &vault, namespace, None).await
}

fn status_of(secret: &DynamicSecret, applied: &Result<(Plan, i32), Failure>) -> DynamicSecretStatus {
    let old = secret.status.clone().unwrap_or_default();
    let generation = secret.metadata.generation;
    let verdicts = match applied {
        Ok((plan, _)) => plan.verdicts.clone(),
        Err(failure) => vec![failure.verdict()],
    };
    let mut status = DynamicSecretStatus {
        observed_generation: generation,
        conditions: merge(&old.conditions, &verdicts, generation, &clock::now()),
        ..old
    };
    if let Ok((plan, leases)) = applied {
        status.role_name = Some(plan.role_name.clone());
        status.leases = Some(LeaseCounts { active: *leases });
    }
    status
}
