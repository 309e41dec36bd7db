//! Carries a DatabaseConnection's plan out. The admin's password passes through and is not kept.

use std::sync::Arc;

use coffer_client::wire::{DatabaseConfig, Disclose};
use coffer_crds::database::AdminSecretRef;
use coffer_crds::{DatabaseConnection, DatabaseConnectionStatus};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use super::plan::{Observed, Plan, Write, plan};
use crate::clock;
use crate::conditions::{Verdict, merge};
use crate::context::Context;
use crate::controllers::{self, Failure};
use crate::error::{Error, brief};
use crate::finalize::{self, Step};
use crate::kubernetes::{self, Lookup, apply_status};
use crate::vault::{Change, Vault};

/// What came of it.
struct Applied {
    plan: Plan,
    verdict: Verdict,
    config_name: String,
    leases: i32,
}

/// Brings the server in line with one DatabaseConnection.
pub(crate) async fn reconcile(
    database: Arc<DatabaseConnection>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let namespace = database.namespace().ok_or(Error::Incomplete("namespace"))?;
    let api: Api<DatabaseConnection> = Api::namespaced(context.kube.clone(), &namespace);
    match finalize::step(&*database) {
        Step::Gone => return Ok(Action::await_change()),
        Step::CleanUp => {
            return controllers::clean_up(
                &api,
                &*database,
                &context,
                clean_up(&database, &namespace, &context),
            )
            .await;
        }
        Step::Add => finalize::add(&api, &*database).await?,
        Step::Keep => {}
    }
    let connection = &database.spec.connection_ref.name;
    let applied =
        controllers::settle(&context, connection, apply(&database, &namespace, &context).await).await?;
    let status = status_of(&database, &applied);
    if database.status.as_ref() != Some(&status) {
        let old = database.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        controllers::announce(&context, &*database, old, &status.conditions).await;
        apply_status(&api, &*database, &status).await?;
    }
    let settled =
        applied.and_then(|applied| if applied.verdict.holds() { Ok(()) } else { Err(Failure::said()) });
    Ok(controllers::next(&settled, &database.uid().unwrap_or_default()))
}

async fn apply(database: &DatabaseConnection, namespace: &str, context: &Context) -> Result<Applied, Error> {
    let vault = context.vault(&database.spec.connection_ref.name).await?;
    let config_name = vault.names.database(namespace, &database.name_any());
    let at_server = vault.client.read_database_config(&config_name).await?;
    let reference = &database.spec.admin_secret_ref;
    let version = kubernetes::secret_version(&context.kube, namespace, &reference.name).await?;
    let ca_pem = ca_pem(database, namespace, context).await?;
    let plan = plan(&Observed {
        database,
        names: &vault.names,
        secret_version: &version,
        ca_pem: ca_pem.as_ref(),
        at_server: at_server.as_ref(),
    });
    let verdict = match &plan.obstacle {
        Some(obstacle) => obstacle.clone(),
        None => carry_out(database, namespace, context, &vault, &plan, ca_pem, &config_name).await?,
    };
    let leases = leases(&vault, &config_name).await?;
    Ok(Applied { plan, verdict, config_name, leases })
}

async fn carry_out(
    database: &DatabaseConnection,
    namespace: &str,
    context: &Context,
    vault: &Vault,
    plan: &Plan,
    ca_pem: Option<Lookup<String>>,
    config_name: &str,
) -> Result<Verdict, Error> {
    if plan.write != Write::Nothing {
        let reference = &database.spec.admin_secret_ref;
        let secret = kubernetes::secret(&context.kube, namespace, &reference.name).await?;
        let (username, password) = match login(secret, reference) {
            Ok(login) => login,
            Err(verdict) => return Ok(verdict),
        };
        let config = DatabaseConfig {
            plugin_name: database.spec.engine.plugin_name().to_owned(),
            connection_url: database.spec.url.clone(),
            username,
            password: (plan.write == Write::WithLogin).then_some(password),
            // Empty rather than left out: the server keeps what is not named.
            root_ca: Some(match ca_pem {
                Some(Lookup::Found(pem)) => pem,
                Some(Lookup::Missing(_) | Lookup::Forbidden(_)) | None => String::new(),
            }),
            allowed_roles: vec!["*".to_owned()],
            verify_connection: Some(true),
            custom_metadata: Some(plan.labels.clone()),
        };
        let change = Change::WriteDatabaseConfig { name: config_name.to_owned(), config: Box::new(config) };
        if let Some(verdict) = refused(change.apply(&vault.client).await, "VerifyFailed")? {
            return Ok(verdict);
        }
    }
    if plan.rotate {
        let change = Change::RotateRoot(config_name.to_owned());
        if let Some(verdict) = refused(change.apply(&vault.client).await, "RotateFailed")? {
            return Ok(verdict);
        }
    }
    let rotated = if plan.rotated { "; admin password rotated" } else { "" };
    Ok(Verdict::yes("Ready", "Verified", format!("the server connected with the admin login{rotated}")))
}

/// A refusal that is about the database, as a verdict; any other error stays one.
fn refused(result: Result<(), Error>, reason: &str) -> Result<Option<Verdict>, Error> {
    match result {
        Ok(()) => Ok(None),
        Err(Error::Vault(error)) if matches!(error.status(), Some(400 | 422 | 500 | 502 | 504)) => {
            let message =
                format!("the server could not use the login or the database: {}", brief(&error.to_string()));
            Ok(Some(Verdict::no("Ready", reason, message)))
        }
        Err(error) => Err(error),
    }
}

fn login(secret: Lookup<Secret>, reference: &AdminSecretRef) -> Result<(String, Disclose), Verdict> {
    let secret = match secret {
        Lookup::Found(secret) => secret,
        Lookup::Missing(message) => return Err(Verdict::no("Ready", "AdminSecretMissing", message)),
        Lookup::Forbidden(message) => return Err(Verdict::no("Ready", "AdminSecretForbidden", message)),
    };
    let mut data = secret.data.unwrap_or_default();
    let mut take = |key: &str| {
        data.remove(key)
            .and_then(|bytes| String::from_utf8(bytes.0).ok())
            .filter(|text| !text.is_empty())
            .ok_or_else(|| {
                let message = format!("Secret {:?} has no text under key {key:?}", reference.name);
                Verdict::no("Ready", "AdminSecretIncomplete", message)
            })
    };
    // Wrapped first, so that it is scrubbed whatever happens next.
    let password = Disclose::from(take(&reference.password_key)?);
    Ok((take(&reference.username_key)?, password))
}

async fn ca_pem(
    database: &DatabaseConnection,
    namespace: &str,
    context: &Context,
) -> Result<Option<Lookup<String>>, Error> {
    if let Some(reference) = &database.spec.ca_config_map_ref {
        let found =
            kubernetes::config_map_key(&context.kube, namespace, &reference.name, &reference.key).await?;
        return Ok(Some(found));
    }
    let Some(reference) = &database.spec.ca_secret_ref else { return Ok(None) };
    Ok(Some(match kubernetes::secret(&context.kube, namespace, &reference.name).await? {
        Lookup::Found(secret) => {
            let pem = secret.data.and_then(|mut data| data.remove(&reference.key));
            match pem.and_then(|bytes| String::from_utf8(bytes.0).ok()) {
                Some(pem) => Lookup::Found(pem),
                None => Lookup::Missing(format!(
                    "Secret {:?} has no text under key {:?}",
                    reference.name, reference.key
                )),
            }
        }
        Lookup::Missing(message) => Lookup::Missing(message),
        Lookup::Forbidden(message) => Lookup::Forbidden(message),
    }))
}

/// Names of the operator's database roles on a configuration.
async fn roles_on(vault: &Vault, config_name: &str) -> Result<Vec<String>, Error> {
    let prefix = vault.names.database_prefix();
    let mut found = Vec::new();
    for name in vault.client.list_database_roles().await? {
        if !name.starts_with(&prefix) {
            continue;
        }
        let role = vault.client.read_database_role(&name).await?;
        if role.is_some_and(|role| role.db_name == config_name) {
            found.push(name);
        }
    }
    Ok(found)
}

async fn leases(vault: &Vault, config_name: &str) -> Result<i32, Error> {
    let mut total: i32 = 0;
    for role in roles_on(vault, config_name).await? {
        total = total.saturating_add(crate::dynamic::lease_count(vault, &role).await?);
    }
    Ok(total)
}

/// The logins go before the configuration that is needed to drop them.
async fn clean_up(database: &DatabaseConnection, namespace: &str, context: &Context) -> Result<(), Error> {
    let vault = context.vault(&database.spec.connection_ref.name).await?;
    let config_name = vault.names.database(namespace, &database.name_any());
    let Some(config) = vault.client.read_database_config(&config_name).await? else { return Ok(()) };
    if !vault.names.owns(Some(&super::plan::labels_of(&config))) {
        return Ok(());
    }
    for role in roles_on(&vault, &config_name).await? {
        Change::RevokePrefix(format!("database/creds/{role}")).apply(&vault.client).await?;
        Change::DeleteDatabaseRole(role).apply(&vault.client).await?;
    }
    Change::DeleteDatabaseConfig(config_name).apply(&vault.client).await?;
    Ok(())
}

fn status_of(database: &DatabaseConnection, applied: &Result<Applied, Failure>) -> DatabaseConnectionStatus {
    let old = database.status.clone().unwrap_or_default();
    let generation = database.metadata.generation;
    let verdicts = match applied {
        Ok(applied) => vec![applied.verdict.clone()],
        Err(failure) => vec![failure.verdict()],
    };
    let mut status = DatabaseConnectionStatus {
        observed_generation: generation,
        conditions: merge(&old.conditions, &verdicts, generation, &clock::now()),
        ..old
    };
    if let Ok(applied) = applied {
        status.config_name = Some(applied.config_name.clone());
        status.active_leases = Some(applied.leases);
        if applied.verdict.holds() {
            status.admin_secret_version = applied.plan.secret_version.clone();
            status.admin_rotated = Some(applied.plan.rotated);
        }
    }
    status
}
