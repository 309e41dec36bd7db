//! Small calls to the API server that several kinds need. Never caches.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Patch, PatchParams};
use kube::core::{Selector, SelectorExt};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, is_forbidden};

/// Field manager of every server-side apply.
pub(crate) const FIELD_MANAGER: &str = "coffer-operator";

/// What came of looking for one key of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Lookup<T> {
    /// It is there.
    Found(T),
    /// The object or the key is not there.
    Missing(String),
    /// The operator may not read it.
    Forbidden(String),
}

/// Labels of a namespace; none when it does not exist.
pub(crate) async fn namespace_labels(client: &Client, name: &str) -> Result<BTreeMap<String, String>, Error> {
    let namespace = Api::<Namespace>::all(client.clone()).get_metadata_opt(name).await?;
    Ok(namespace.map(|namespace| namespace.labels().clone()).unwrap_or_default())
}

/// Whether a label selector selects these labels. A selector that cannot be read selects nothing.
pub(crate) fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

/// One key of a ConfigMap.
pub(crate) async fn config_map_key(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Lookup<String>, Error> {
    match Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(name).await {
        Ok(Some(map)) => Ok(match map.data.and_then(|mut data| data.remove(key)) {
            Some(text) => Lookup::Found(text),
            None => Lookup::Missing(format!("ConfigMap {namespace}/{name} has no key {key:?}")),
        }),
        Ok(None) => Ok(Lookup::Missing(format!("ConfigMap {namespace}/{name} does not exist"))),
        Err(error) if is_forbidden(&error) => {
            Ok(Lookup::Forbidden(grant_hint("configmaps", namespace, name)))
        }
        Err(error) => Err(error.into()),
    }
}

/// A Secret.
pub(crate) async fn secret(client: &Client, namespace: &str, name: &str) -> Result<Lookup<Secret>, Error> {
    match Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await {
        Ok(Some(secret)) => Ok(Lookup::Found(secret)),
        Ok(None) => Ok(Lookup::Missing(format!("Secret {namespace}/{name} does not exist"))),
        Err(error) if is_forbidden(&error) => Ok(Lookup::Forbidden(grant_hint("secrets", namespace, name))),
        Err(error) => Err(error.into()),
    }
}

/// The resource version of a Secret, without its content.
pub(crate) async fn secret_version(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Lookup<String>, Error> {
    match Api::<Secret>::namespaced(client.clone(), namespace).get_metadata_opt(name).await {
        Ok(Some(meta)) => Ok(Lookup::Found(meta.resource_version().unwrap_or_default())),
        Ok(None) => Ok(Lookup::Missing(format!("Secret {namespace}/{name} does not exist"))),
        Err(error) if is_forbidden(&error) => Ok(Lookup::Forbidden(grant_hint("secrets", namespace, name))),
        Err(error) => Err(error.into()),
    }
}

fn grant_hint(resource: &str, namespace: &str, name: &str) -> String {
    format!(
        "the operator may not read it; allow it: kubectl -n {namespace} create role coffer-{name} --verb=get \
         --resource={resource} --resource-name={name} && kubectl -n {namespace} create rolebinding coffer-{name} \
         --role=coffer-{name} --serviceaccount=<coffer's namespace>:coffer-operator"
    )
}

/// Applies a status, server-side.
pub(crate) async fn apply_status<K, S>(api: &Api<K>, object: &K, status: &S) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize,
{
    let body = serde_json::json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": object.name_any()},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&object.name_any(), &params, &Patch::Apply(&body)).await?;
    Ok(())
}
