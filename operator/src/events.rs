//! Kubernetes Events. Never emits secret material: notes are conditions' messages.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder};

use crate::error::brief;

/// Emits an Event about an object. That it fails is logged and no more: Events inform, they do not decide.
pub(crate) async fn emit<K>(recorder: &Recorder, object: &K, type_: EventType, reason: &str, note: &str)
where
    K: Resource<DynamicType = ()>,
{
    let reference: ObjectReference = object.object_ref(&());
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(brief(note)),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &reference).await {
        tracing::warn!(%reason, "event not published: {error}");
    }
}
