//! `coffer-operator run`: starts everything and stops it on a signal. Never reconciles anything itself.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use coffer_crds::{CofferConnection, DatabaseConnection, DynamicSecret, VaultPolicy};
use futures::StreamExt;
use kube::runtime::controller::Action;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::{Mutex, Notify};

use crate::cli::RunArgs;
use crate::context::{Context, Stores};
use crate::error::Error;
use crate::vault::Sessions;
use crate::{connection, database, dynamic, health, leftovers, pods, policy};

/// How soon a reconcile that broke off is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Events of a burst are taken together for this long.
const DEBOUNCE: Duration = Duration::from_millis(100);

fn on_error<K>(_: Arc<K>, error: &Error, _: Arc<Context>) -> Action {
    tracing::warn!("reconcile broke off: {error}");
    Action::requeue(RETRY)
}

/// References to every object in a store.
fn all_of<K>(store: &Store<K>) -> Vec<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state().iter().map(|object| ObjectRef::from_obj(&**object)).collect()
}

/// Reconciles until told to stop.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<()> {
    let kube = Client::try_default().await.context("no Kubernetes API server to talk to")?;
    let connections = Controller::new(Api::<CofferConnection>::all(kube.clone()), watcher::Config::default());
    let policies = Controller::new(Api::<VaultPolicy>::all(kube.clone()), watcher::Config::default());
    let databases = Controller::new(Api::<DatabaseConnection>::all(kube.clone()), watcher::Config::default());
    let dynamics = Controller::new(Api::<DynamicSecret>::all(kube.clone()), watcher::Config::default());
    let stores = Stores {
        connections: connections.store(),
        databases: databases.store(),
        dynamics: dynamics.store(),
        policies: policies.store(),
    };
    let (policy_store, database_store, dynamic_store) =
        (policies.store(), databases.store(), dynamics.store());
    let reporter = Reporter { controller: "coffer-operator".to_owned(), instance: args.pod_name.clone() };
    let context = Arc::new(Context {
        recorder: Recorder::new(kube.clone(), reporter),
        kube: kube.clone(),
        sessions: Sessions::new(args.token_file.clone()),
        stores,
        roles: Mutex::new(()),
        left_behind: Notify::new(),
    });

    let every_connection = || Api::<CofferConnection>::all(kube.clone());
    let policies =
        policies.watches(every_connection(), watcher::Config::default(), move |_| all_of(&policy_store));
    let databases =
        databases.watches(every_connection(), watcher::Config::default(), move |_| all_of(&database_store));
    let dynamics_of_connection = dynamic_store.clone();
    let dynamics = dynamics
        .watches(every_connection(), watcher::Config::default(), move |_| all_of(&dynamics_of_connection))
        .watches(Api::<DatabaseConnection>::all(kube.clone()), watcher::Config::default(), move |database| {
            users_of(&dynamic_store, &database)
        });

    tokio::select! {
        () = drive(connections, connection::reconcile, &context) => {}
        () = drive(policies, policy::reconcile, &context) => {}
        () = drive(databases, database::reconcile, &context) => {}
        () = drive(dynamics, dynamic::reconcile, &context) => {}
        () = pods::watch(Arc::clone(&context)) => {}
        () = leftovers::sweep_for_ever(Arc::clone(&context)) => {}
        served = health::serve(args.health_addr) => served.context("health endpoint")?,
        () = stopped() => tracing::info!("stopping"),
    }
    Ok(())
}

/// DynamicSecrets that use a DatabaseConnection.
fn users_of(store: &Store<DynamicSecret>, database: &DatabaseConnection) -> Vec<ObjectRef<DynamicSecret>> {
    let (namespace, name) = (database.namespace().unwrap_or_default(), database.name_any());
    store
        .state()
        .iter()
        .filter(|secret| {
            let Some(source) = &secret.spec.source.database else { return false };
            let theirs = source.connection_ref.namespace.clone().or_else(|| secret.namespace());
            source.connection_ref.name == name && theirs.as_deref() == Some(namespace.as_str())
        })
        .map(|secret| ObjectRef::from_obj(&**secret))
        .collect()
}

async fn drive<K, F>(
    controller: Controller<K>,
    reconcile: impl FnMut(Arc<K>, Arc<Context>) -> F,
    context: &Arc<Context>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let config = kube::runtime::controller::Config::default().debounce(DEBOUNCE).concurrency(8);
    controller
        .with_config(config)
        .run(reconcile, on_error::<K>, Arc::clone(context))
        .for_each(|result| async move {
            if let Err(kube::runtime::controller::Error::QueueError(error)) = result {
                tracing::warn!("watch broke off and starts again: {error}");
            }
        })
        .await;
}

/// Ends when the process is told to stop.
pub(crate) async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!("no signal handler: {error}");
            std::future::pending::<()>().await;
        }
    }
}
