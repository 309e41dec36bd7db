//! Why a pod that asks for secrets is still waiting for them. Pure: everything it looks at is an argument.

use coffer_crds::{CofferConnection, DynamicSecret};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::conditions::{find, is_ready};

/// Annotation that names the secrets.
const INJECT: &str = "coffer.dev/inject";
/// Prefix of annotations that name a path instead of an object.
const SECRET_PREFIX: &str = "coffer.dev/secret.";
/// Annotation that names the CofferConnection.
const CONNECTION: &str = "coffer.dev/connection";
/// Most names of one pod that are looked at.
const NAMES_MAX: usize = 64;

/// What to tell the pod's owner.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Hint {
    /// CamelCase reason.
    pub(crate) reason: &'static str,
    /// What a person can do about it.
    pub(crate) message: String,
}

/// Name of the CofferConnection a pod uses.
pub(crate) fn connection_of(pod: &Pod) -> String {
    pod.annotations()
        .get(CONNECTION)
        .map_or_else(|| coffer_crds::refs::DEFAULT_CONNECTION.to_owned(), |name| name.trim().to_owned())
}

/// Names of the objects a pod asks for; those given by path need no object.
pub(crate) fn secrets_of(pod: &Pod) -> Vec<String> {
    let annotations = pod.annotations();
    let Some(inject) = annotations.get(INJECT) else { return vec![] };
    inject
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty() && !annotations.contains_key(&format!("{SECRET_PREFIX}{name}")))
        .take(NAMES_MAX)
        .map(str::to_owned)
        .collect()
}

/// Whether a pod can still be waiting for its files: it has not started, and is not going.
pub(crate) fn is_waiting(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && matches!(phase, None | Some("Pending"))
}

/// The first thing that keeps a pod waiting, if it is one that can be seen from here.
pub(crate) fn diagnose(
    pod: &Pod,
    connection: Option<&CofferConnection>,
    find_secret: impl Fn(&str) -> Option<std::sync::Arc<DynamicSecret>>,
) -> Option<Hint> {
    let connection_name = connection_of(pod);
    let Some(connection) = connection else {
        let message = format!("CofferConnection {connection_name:?} does not exist");
        return Some(Hint { reason: "ConnectionNotFound", message });
    };
    let conditions =
        connection.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if let Some(ready) = find(conditions, "Ready").filter(|ready| ready.status != "True") {
        let reason = match ready.reason.as_str() {
            "Sealed" => "VaultSealed",
            "Unreachable" => "VaultUnreachable",
            _ => "VaultNotReady",
        };
        return Some(Hint { reason, message: format!("the pod waits for its secrets: {}", ready.message) });
    }
    let namespace = pod.namespace().unwrap_or_default();
    let service_account = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.clone())
        .unwrap_or_else(|| "default".to_owned());
    secrets_of(pod).iter().find_map(|name| match find_secret(name) {
        None => Some(Hint {
            reason: "SecretNotFound",
            message: format!(
                "DynamicSecret {namespace}/{name} does not exist; create it, or correct the annotation {INJECT}"
            ),
        }),
        Some(secret) => diagnose_secret(&secret, &service_account),
    })
}

fn diagnose_secret(secret: &DynamicSecret, service_account: &str) -> Option<Hint> {
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    if !secret.spec.consumers.iter().any(|consumer| consumer.service_account == service_account) {
        return Some(Hint {
            reason: "SecretForbidden",
            message: format!(
                "ServiceAccount {service_account:?} is not among the consumers of DynamicSecret {namespace}/{name}; add it to spec.consumers"
            ),
        });
    }
    let conditions = secret.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if is_ready(conditions, secret.metadata.generation) {
        return None;
    }
    let why = find(conditions, "Ready").map_or_else(
        || "not looked at yet".to_owned(),
        |ready| format!("{} ({})", ready.message, ready.reason),
    );
    Some(Hint {
        reason: "SecretNotReady",
        message: format!("DynamicSecret {namespace}/{name} is not ready: {why}"),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn pod(yaml: &str) -> Pod {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn orders() -> Pod {
        pod("
metadata: {name: p, namespace: shop, uid: u, annotations: {coffer.dev/inject: 'db, kv', coffer.dev/secret.kv: secret/data/shop/kv}}
spec: {serviceAccountName: api, containers: []}
status: {phase: Pending}
")
    }

    fn connection(status: &str, reason: &str) -> CofferConnection {
        serde_yaml::from_str(&format!(
            "
apiVersion: coffer.dev/v1alpha1
kind: CofferConnection
metadata: {{name: default, generation: 1}}
spec:
  address: https://coffer:8200
  caBundleRef: {{namespace: a, name: b}}
  auth: {{mount: kubernetes/c}}
  cluster: c
status: {{conditions: [{{type: Ready, status: '{status}', reason: {reason}, message: m, observedGeneration: 1, lastTransitionTime: '2026-11-24T07:00:00Z'}}]}}
"
        ))
        .unwrap()
    }

    fn secret(consumer: &str, ready: &str) -> Arc<DynamicSecret> {
        Arc::new(
            serde_yaml::from_str(&format!(
                "
apiVersion: coffer.dev/v1alpha1
kind: DynamicSecret
metadata: {{name: db, namespace: shop, generation: 1}}
spec:
  source: {{database: {{connectionRef: {{name: pg}}, profile: rw}}}}
  consumers: [{{serviceAccount: {consumer}}}]
status: {{conditions: [{{type: Ready, status: '{ready}', reason: ProfileNotFound, message: m, observedGeneration: 1, lastTransitionTime: '2026-11-24T07:00:00Z'}}]}}
"
            ))
            .unwrap(),
        )
    }

    fn reason(
        connection: Option<&CofferConnection>,
        secret: Option<Arc<DynamicSecret>>,
    ) -> Option<&'static str> {
        diagnose(&orders(), connection, |_| secret.clone()).map(|hint| hint.reason)
    }

    #[test]
    fn says_the_first_thing_that_is_wrong() {
        let fine = connection("True", "Connected");
        assert_eq!(reason(None, None), Some("ConnectionNotFound"));
        assert_eq!(reason(Some(&connection("False", "Sealed")), None), Some("VaultSealed"));
        assert_eq!(reason(Some(&connection("False", "Unreachable")), None), Some("VaultUnreachable"));
        assert_eq!(reason(Some(&fine), None), Some("SecretNotFound"));
        assert_eq!(reason(Some(&fine), Some(secret("other", "True"))), Some("SecretForbidden"));
        assert_eq!(reason(Some(&fine), Some(secret("api", "False"))), Some("SecretNotReady"));
        assert_eq!(reason(Some(&fine), Some(secret("api", "True"))), None);
    }

    #[test]
    fn a_secret_given_by_path_needs_no_object() {
        assert_eq!(secrets_of(&orders()), ["db"]);
    }

    #[test]
    fn only_a_pod_that_has_not_started_waits() {
        let mut pod = orders();
        assert!(is_waiting(&pod));
        pod.status.as_mut().unwrap().phase = Some("Running".into());
        assert!(!is_waiting(&pod));
    }
}
