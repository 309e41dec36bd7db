//! Watches injected pods: revokes at once when one ends, compares with the server every five minutes, and emits
//! Events on pods that wait. Never changes a pod.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::diagnose::{Hint, connection_of, diagnose, is_waiting};
use super::revoke::{is_over, suspects};
use crate::clock;
use crate::context::Context;
use crate::error::Error;
use crate::events;

/// Label the webhook puts on injected pods.
const INJECTED: &str = "coffer.dev/injected=true";
/// How often the server's pods are compared with the cluster's.
const COMPARE_EVERY: Duration = Duration::from_secs(300);
/// How often failed revocations are tried again and waiting pods are looked at.
const TICK: Duration = Duration::from_secs(2);
/// How old a pod must be before it is told why it waits: pod and secret may come in one `kubectl apply`.
const PATIENCE_SECS: u64 = 5;

/// What is known of the cluster's injected pods.
#[derive(Default)]
struct Seen {
    alive: BTreeMap<String, Arc<Pod>>,
    pending: BTreeMap<String, String>,
    over: BTreeSet<String>,
    told: HashMap<String, Hint>,
    failing: bool,
    listed: bool,
    compare_at: Option<Instant>,
}

/// Watches for ever.
pub(crate) async fn watch(context: Arc<Context>) {
    let api: Api<Pod> = Api::all(context.kube.clone());
    let config = watcher::Config::default().labels(INJECTED);
    let mut stream = std::pin::pin!(watcher(api, config).default_backoff());
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = Seen::default();
    loop {
        tokio::select! {
            event = stream.next() => match event {
                Some(Ok(event)) => {
                    seen.take(event);
                    revoke_pending(&context, &mut seen).await;
                }
                Some(Err(error)) => tracing::warn!("watch of pods broke off and starts again: {error}"),
                None => return,
            },
            _ = tick.tick() => {
                revoke_pending(&context, &mut seen).await;
                if seen.compare_at.is_none_or(|at| at <= Instant::now()) && seen.listed {
                    compare(&context, &mut seen).await;
                }
                tell_waiting(&context, &mut seen).await;
            }
        }
    }
}

impl Seen {
    fn take(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => {
                // A new list: what is not in it has gone unseen. The comparison with the server finds it.
                self.alive.clear();
                self.listed = false;
            }
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => self.applied(pod),
            watcher::Event::InitDone => {
                self.listed = true;
                self.compare_at = None;
                let alive = &self.alive;
                self.told.retain(|uid, _| alive.contains_key(uid));
                self.over.retain(|uid| alive.contains_key(uid));
            }
            watcher::Event::Delete(pod) => {
                let Some(uid) = pod.uid() else { return };
                self.alive.remove(&uid);
                self.told.remove(&uid);
                self.over.remove(&uid);
                if pod.metadata.deletion_timestamp.is_some() {
                    self.pending.insert(uid, connection_of(&pod));
                } else {
                    // To this watch a pod that lost its label looks the same, and it must not be locked out: the
                    // comparison asks the API server.
                    self.compare_at = None;
                }
            }
        }
    }

    fn applied(&mut self, pod: Pod) {
        let Some(uid) = pod.uid() else { return };
        if is_over(&pod) && self.over.insert(uid.clone()) {
            self.pending.insert(uid.clone(), connection_of(&pod));
        }
        self.alive.insert(uid, Arc::new(pod));
    }
}

/// Revokes what must be revoked; what fails stays pending.
async fn revoke_pending(context: &Context, seen: &mut Seen) {
    let pending = std::mem::take(&mut seen.pending);
    for (uid, connection) in pending {
        match revoke(context, &connection, &uid).await {
            Ok(()) => {
                seen.failing = false;
                tracing::info!(pod = %uid, "pod is over; its tokens and leases are revoked");
            }
            // Without its CofferConnection there is no vault to revoke at.
            Err(Error::Connection(why)) if why.reason == "ConnectionNotFound" => {}
            Err(error) => {
                // Said once: it is tried again every other second.
                if !std::mem::replace(&mut seen.failing, true) {
                    tracing::warn!(pod = %uid, "not revoked yet: {error}");
                }
                seen.pending.insert(uid, connection);
            }
        }
    }
}

async fn revoke(context: &Context, connection: &str, uid: &str) -> Result<(), Error> {
    let vault = context.vault(connection).await?;
    let result = vault.client.revoke_pod(&vault.names.mount, uid).await;
    if result.as_ref().is_err_and(coffer_client::ClientError::is_denied) {
        context.sessions.forget(connection).await;
        let vault = context.vault(connection).await?;
        return Ok(vault.client.revoke_pod(&vault.names.mount, uid).await?);
    }
    Ok(result?)
}

/// Revokes the tokens of pods that ended while nobody looked.
async fn compare(context: &Context, seen: &mut Seen) {
    let alive: BTreeSet<String> =
        seen.alive.iter().filter(|(_, pod)| !is_over(pod)).map(|(uid, _)| uid.clone()).collect();
    let mut complete = true;
    for connection in context.stores.connections.state() {
        let name = connection.name_any();
        match orphans(context, &name, &alive).await {
            Ok(uids) => seen.pending.extend(uids.into_iter().map(|uid| (uid, name.clone()))),
            Err(error) => {
                tracing::info!(connection = %name, "pods not compared: {error}");
                complete = false;
            }
        }
    }
    let wait = if complete && !context.stores.connections.is_empty() { COMPARE_EVERY } else { TICK * 5 };
    seen.compare_at = Some(Instant::now() + wait);
    revoke_pending(context, seen).await;
}

/// Pods with tokens that the API server does not have any more, asked one by one: revoking a living pod by mistake
/// would lock it out for good.
async fn orphans(
    context: &Context,
    connection: &str,
    alive: &BTreeSet<String>,
) -> Result<Vec<String>, Error> {
    let vault = context.vault(connection).await?;
    let with_tokens = vault.client.pods(&vault.names.mount).await?;
    let mut gone = Vec::new();
    for pod in suspects(&with_tokens, alive) {
        let api: Api<Pod> = Api::namespaced(context.kube.clone(), &pod.namespace);
        let found = api.get_opt(&pod.name).await?;
        let lives = found.is_some_and(|found| found.uid().as_deref() == Some(&pod.uid) && !is_over(&found));
        if !lives {
            gone.push(pod.uid.clone());
        }
    }
    Ok(gone)
}

/// Tells each waiting pod why it waits, once for each reason.
async fn tell_waiting(context: &Context, seen: &mut Seen) {
    let now = clock::now();
    for (uid, pod) in &seen.alive {
        let young = pod
            .metadata
            .creation_timestamp
            .as_ref()
            .is_none_or(|created| clock::seconds_since(created, &now) < PATIENCE_SECS);
        if young || !is_waiting(pod) {
            continue;
        }
        let namespace = pod.namespace().unwrap_or_default();
        let connection = context.stores.connections.get(&ObjectRef::new(&connection_of(pod)));
        let hint = diagnose(pod, connection.as_deref(), |name| {
            context.stores.dynamics.get(&ObjectRef::new(name).within(&namespace))
        });
        match hint {
            Some(hint) if seen.told.get(uid) != Some(&hint) => {
                events::emit(&context.recorder, &**pod, EventType::Warning, hint.reason, &hint.message).await;
                seen.told.insert(uid.clone(), hint);
            }
            Some(_) => {}
            None => {
                seen.told.remove(uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, phase: &str) -> Pod {
        serde_yaml::from_str(&format!(
            "{{metadata: {{name: p, namespace: n, uid: {uid}}}, status: {{phase: {phase}}}}}"
        ))
        .unwrap()
    }

    #[test]
    fn a_deleted_pod_is_revoked() {
        let mut seen = Seen::default();
        seen.take(watcher::Event::Apply(pod("u", "Running")));
        assert!(seen.pending.is_empty());
        let mut deleted = pod("u", "Running");
        deleted.metadata.deletion_timestamp = Some(crate::clock::now());
        seen.take(watcher::Event::Delete(deleted));
        assert_eq!(seen.pending.keys().collect::<Vec<_>>(), ["u"]);
        assert!(seen.alive.is_empty());
    }

    #[test]
    fn a_pod_that_only_lost_its_label_is_asked_about_first() {
        let mut seen = Seen { compare_at: Some(Instant::now()), listed: true, ..Seen::default() };
        seen.take(watcher::Event::Apply(pod("u", "Running")));
        seen.take(watcher::Event::Delete(pod("u", "Running")));
        assert!(seen.pending.is_empty());
        assert!(seen.compare_at.is_none());
    }

    #[test]
    fn a_finished_pod_is_revoked_once() {
        let mut seen = Seen::default();
        seen.take(watcher::Event::Apply(pod("u", "Succeeded")));
        assert_eq!(seen.pending.len(), 1);
        seen.pending.clear();
        seen.take(watcher::Event::Apply(pod("u", "Succeeded")));
        assert!(seen.pending.is_empty());
    }

    #[test]
    fn a_new_list_calls_for_a_comparison_once_it_is_complete() {
        let mut seen = Seen { compare_at: Some(Instant::now()), listed: true, ..Seen::default() };
        seen.take(watcher::Event::Init);
        assert!(!seen.listed);
        seen.take(watcher::Event::InitApply(pod("u", "Running")));
        seen.take(watcher::Event::InitDone);
        assert!(seen.listed && seen.compare_at.is_none());
    }
}
