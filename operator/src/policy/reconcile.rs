//! Carries a VaultPolicy's plan out. Never decides what the plan is.

use std::sync::Arc;

use coffer_client::wire::PolicyBody;
use coffer_crds::policy::DeletionPolicy;
use coffer_crds::{VaultPolicy, VaultPolicyStatus};
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt};

use super::delegation::ceilings;
use super::plan::{Observed, Plan, plan};
use crate::conditions::{is_foreign, merge};
use crate::context::Context;
use crate::controllers::{self, Failure};
use crate::error::Error;
use crate::finalize::{self, Step};
use crate::kubernetes::{apply_status, namespace_labels};
use crate::vault::Change;
use crate::{clock, events, roles};

/// Brings the server in line with one VaultPolicy.
pub(crate) async fn reconcile(policy: Arc<VaultPolicy>, context: Arc<Context>) -> Result<Action, Error> {
    let namespace = policy.namespace().ok_or(Error::Incomplete("namespace"))?;
    let api: Api<VaultPolicy> = Api::namespaced(context.kube.clone(), &namespace);
    match finalize::step(&*policy) {
        Step::Gone => return Ok(Action::await_change()),
        Step::CleanUp => {
            return controllers::clean_up(&api, &*policy, &context, clean_up(&policy, &namespace, &context))
                .await;
        }
        Step::Add => finalize::add(&api, &*policy).await?,
        Step::Keep => {}
    }
    let connection = &policy.spec.connection_ref.name;
    let applied =
        controllers::settle(&context, connection, apply(&policy, &namespace, &context).await).await?;
    let status = status_of(&policy, &applied);
    if policy.status.as_ref() != Some(&status) {
        let old = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        controllers::announce(&context, &*policy, old, &status.conditions).await;
        apply_status(&api, &*policy, &status).await?;
    }
    Ok(controllers::next(&applied, &policy.uid().unwrap_or_default()))
}

async fn apply(policy: &VaultPolicy, namespace: &str, context: &Context) -> Result<Plan, Error> {
    let vault = context.vault(&policy.spec.connection_ref.name).await?;
    let labels = namespace_labels(&context.kube, namespace).await?;
    let ceilings = ceilings(&vault.connection.spec.delegations, namespace, &labels);
    let name = vault.names.vault_policy(namespace, &policy.name_any());
    let at_server = vault.client.read_policy(&name).await?;
    let plan =
        plan(&Observed { policy, names: &vault.names, ceilings: &ceilings, at_server: at_server.as_ref() });
    for change in &plan.changes {
        change.apply(&vault.client).await?;
    }
    if plan.drifted {
        let note = format!("policy {name} was changed at the server and is applied again");
        events::emit(&context.recorder, policy, EventType::Warning, "Drifted", &note).await;
    }
    let foreign = is_foreign(&plan.verdicts).then_some(plan.policy_name.as_str());
    roles::sync(context, &vault, namespace, foreign).await?;
    Ok(plan)
}

async fn clean_up(policy: &VaultPolicy, namespace: &str, context: &Context) -> Result<(), Error> {
    let vault = context.vault(&policy.spec.connection_ref.name).await?;
    let name = vault.names.vault_policy(namespace, &policy.name_any());
    let found = vault.client.read_policy(&name).await?;
    if let Some(found) = found.filter(|found| vault.names.owns(found.custom_metadata.as_ref())) {
        let change = match policy.spec.deletion_policy {
            DeletionPolicy::Delete => Change::DeletePolicy(name),
            DeletionPolicy::Retain => {
                // Without the label the policy is nobody's, so that no sweep takes it for something left behind.
                let mut labels = found.custom_metadata.unwrap_or_default();
                labels.remove("managed-by");
                let body = PolicyBody { policy: found.policy, custom_metadata: Some(labels) };
                Change::WritePolicy { name, body }
            }
        };
        change.apply(&vault.client).await?;
    }
    roles::sync(context, &vault, namespace, None).await
}

fn status_of(policy: &VaultPolicy, applied: &Result<Plan, Failure>) -> VaultPolicyStatus {
    let old = policy.status.clone().unwrap_or_default();
    let generation = policy.metadata.generation;
    let verdicts = match applied {
        Ok(plan) => plan.verdicts.clone(),
        Err(failure) => vec![failure.verdict()],
    };
    let namespace = policy.namespace().unwrap_or_default();
    let mut status = VaultPolicyStatus {
        observed_generation: generation,
        conditions: merge(&old.conditions, &verdicts, generation, &clock::now()),
        ..old
    };
    if let Ok(plan) = applied {
        status.policy_name = Some(plan.policy_name.clone());
        status.rules_count = Some(plan.rules_count);
        status.applied_hash = Some(plan.hash.clone());
        status.roles = policy
            .spec
            .bindings
            .iter()
            .map(|binding| format!("{namespace}.{}", binding.service_account))
            .collect();
    }
    status
}
