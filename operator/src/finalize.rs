//! Finalizers with a deadline: what an object has at the server goes with it, but a server that is down never keeps a
//! namespace from being deleted. What is left then is found later by its labels (see `leftovers`).

use std::time::Duration;

use coffer_crds::FINALIZER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::clock;
use crate::error::Error;

/// How long a deletion waits for the server.
pub(crate) const DEADLINE_SECS: u64 = 15;

/// How long one attempt to clean up may take.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(8);

/// What to do about an object's finalizer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Put it on, then go on.
    Add,
    /// Clean up, then take it off.
    CleanUp,
    /// The object is going and has nothing of ours: leave it alone.
    Gone,
    /// Go on.
    Keep,
}

/// Decides by the object's metadata alone.
pub(crate) fn step<K: Resource>(object: &K) -> Step {
    let ours = object.meta().finalizers.iter().flatten().any(|name| name == FINALIZER);
    match (object.meta().deletion_timestamp.is_some(), ours) {
        (true, true) => Step::CleanUp,
        (true, false) => Step::Gone,
        (false, true) => Step::Keep,
        (false, false) => Step::Add,
    }
}

/// Whether a deletion has waited long enough.
pub(crate) fn is_overdue<K: Resource>(object: &K, now: &Time) -> bool {
    object
        .meta()
        .deletion_timestamp
        .as_ref()
        .is_some_and(|since| clock::seconds_since(since, now) >= DEADLINE_SECS)
}

/// Puts the finalizer on.
pub(crate) async fn add<K>(api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set(api, object, &finalizers).await
}

/// Takes the finalizer off.
pub(crate) async fn remove<K>(api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let finalizers: Vec<String> =
        object.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
    match set(api, object, &finalizers).await {
        Err(Error::Kube(error)) if matches!(&*error, kube::Error::Api(status) if status.code == 404) => {
            Ok(())
        }
        other => other,
    }
}

async fn set<K>(api: &Api<K>, object: &K, finalizers: &[String]) -> Result<(), Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    // The resource version makes the API server refuse the patch when someone else changed the list meanwhile.
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version()}});
    api.patch_metadata(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use coffer_crds::{VaultPolicy, VaultPolicySpec};
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn object(finalizer: bool, deleted_at: Option<i64>) -> VaultPolicy {
        let spec = VaultPolicySpec {
            connection_ref: Default::default(),
            rules: vec![],
            bindings: vec![],
            deletion_policy: Default::default(),
        };
        let mut object = VaultPolicy::new("a", spec);
        object.metadata.finalizers = finalizer.then(|| vec![FINALIZER.to_owned()]);
        object.metadata.deletion_timestamp =
            deleted_at.map(|second| Time(Timestamp::from_second(second).unwrap()));
        object
    }

    #[test]
    fn every_case_has_its_step() {
        assert_eq!(step(&object(false, None)), Step::Add);
        assert_eq!(step(&object(true, None)), Step::Keep);
        assert_eq!(step(&object(true, Some(1))), Step::CleanUp);
        assert_eq!(step(&object(false, Some(1))), Step::Gone);
    }

    #[test]
    fn a_deletion_does_not_wait_for_ever() {
        let now = Time(Timestamp::from_second(100).unwrap());
        assert!(!is_overdue(&object(true, Some(90)), &now));
        assert!(is_overdue(&object(true, Some(85)), &now));
        assert!(!is_overdue(&object(true, None), &now));
    }
}
