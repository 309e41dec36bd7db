//! Asks the vault how it is and writes the answer into the status. Never unseals or changes anything there.

use std::sync::Arc;
use std::time::Duration;

use coffer_crds::{CofferConnection, CofferConnectionStatus};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use super::plan::{Observed, plan};
use crate::conditions::merge;
use crate::context::Context;
use crate::error::Error;
use crate::kubernetes::apply_status;
use crate::vault::{client_for, explain};
use crate::{clock, controllers};

/// How soon a connection that is not ready is looked at again: everything else waits for it.
const RECHECK_NOT_READY: Duration = Duration::from_secs(5);
/// How soon one that is ready is: the seal state is a thing people watch.
const RECHECK_READY: Duration = Duration::from_secs(15);

/// Brings the status of one CofferConnection up to date.
pub(crate) async fn reconcile(
    connection: Arc<CofferConnection>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    if connection.metadata.deletion_timestamp.is_some() {
        context.sessions.forget(&connection.name_any()).await;
        return Ok(Action::await_change());
    }
    let api: Api<CofferConnection> = Api::all(context.kube.clone());
    let plan = plan(observe(&connection, &context).await?);
    let old = connection.status.clone().unwrap_or_default();
    let generation = connection.metadata.generation;
    let ready = plan.verdict.holds();
    let status = CofferConnectionStatus {
        observed_generation: generation,
        server_version: plan.version.or(old.server_version),
        sealed: plan.sealed,
        conditions: merge(&old.conditions, &[plan.verdict], generation, &clock::now()),
    };
    if connection.status.as_ref() != Some(&status) {
        controllers::announce(&context, &*connection, &old.conditions, &status.conditions).await;
        apply_status(&api, &*connection, &status).await?;
    }
    Ok(Action::requeue(if ready { RECHECK_READY } else { RECHECK_NOT_READY }))
}

async fn observe(connection: &Arc<CofferConnection>, context: &Context) -> Result<Observed, Error> {
    let mount = format!("{}-operator", connection.spec.auth.mount);
    let name = connection.name_any();
    let ca_pem = match context.ca_bundle(connection).await {
        Ok(pem) => pem,
        Err(Error::Connection(why)) => return Ok(Observed::NoAnswer(why)),
        Err(error) => return Err(error),
    };
    let health = match client_for(&connection.spec.address, &ca_pem) {
        Ok(client) => client.health().await,
        Err(error) => Err(error),
    };
    let health = match health {
        Ok(health) => health,
        Err(error) => {
            context.sessions.forget(&name).await;
            return Ok(Observed::NoAnswer(explain(&error, &mount)));
        }
    };
    if health.sealed || !health.initialized {
        return Ok(Observed::Answered { health, login: None });
    }
    let login = match context.sessions.vault(Arc::clone(connection), &ca_pem).await {
        Ok(_) => Ok(()),
        Err(Error::Connection(why)) => Err(why),
        Err(Error::Vault(error)) => Err(explain(&error, &mount)),
        Err(error) => return Err(error),
    };
    Ok(Observed::Answered { health, login: Some(login) })
}
