//! Names of things at the server, as the contracts fix them. Never decides whether they may exist.

use std::collections::BTreeMap;

use coffer_client::wire::Metadata;

/// Value of `managed-by` on everything the operator writes.
pub(crate) const MANAGED_BY: &str = "coffer-operator";

/// Names for one cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Names {
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// Auth mount of its pods.
    pub(crate) mount: String,
}

impl Names {
    /// Auth mount where the operator logs in.
    pub(crate) fn operator_mount(&self) -> String {
        format!("{}-operator", self.mount)
    }

    /// Policy of a VaultPolicy.
    pub(crate) fn vault_policy(&self, namespace: &str, name: &str) -> String {
        format!("k8s/{}/{namespace}/vpol/{name}", self.cluster)
    }

    /// Policy of a DynamicSecret.
    pub(crate) fn dynamic_policy(&self, namespace: &str, name: &str) -> String {
        format!("k8s/{}/{namespace}/dsec/{name}", self.cluster)
    }

    /// Path of a DynamicSecret's delivery document below `delivery/`.
    pub(crate) fn delivery(&self, namespace: &str, name: &str) -> String {
        format!("k8s/{}/{namespace}/dsec/{name}", self.cluster)
    }

    /// Name of a database configuration or a database role.
    pub(crate) fn database(&self, namespace: &str, name: &str) -> String {
        format!("k8s.{}.{namespace}.{name}", self.cluster)
    }

    /// Prefix of all names that [`Names::database`] gives.
    pub(crate) fn database_prefix(&self) -> String {
        format!("k8s.{}.", self.cluster)
    }

    /// Auth role of a ServiceAccount. A namespace has no dot, so this is unambiguous.
    pub(crate) fn role(&self, namespace: &str, service_account: &str) -> String {
        format!("{namespace}.{service_account}")
    }

    /// Policy that caps the pods' auth mount.
    pub(crate) fn boundary(&self) -> String {
        format!("k8s/{}/boundary", self.cluster)
    }

    /// Policy of the operator itself.
    pub(crate) fn operator_policy(&self) -> String {
        format!("k8s/{}/operator", self.cluster)
    }

    /// Labels on what the operator writes for one object.
    pub(crate) fn labels(&self, uid: &str) -> Metadata {
        BTreeMap::from([
            ("managed-by".to_owned(), MANAGED_BY.to_owned()),
            ("cluster".to_owned(), self.cluster.clone()),
            ("uid".to_owned(), uid.to_owned()),
        ])
    }

    /// Whether something at the server is this operator's to change. A name belongs to one object at a time, so an
    /// older UID is our own predecessor under the same name.
    pub(crate) fn owns(&self, labels: Option<&Metadata>) -> bool {
        labels.is_some_and(|labels| {
            labels.get("managed-by").map(String::as_str) == Some(MANAGED_BY)
                && labels.get("cluster") == Some(&self.cluster)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names { cluster: "prod".into(), mount: "kubernetes/prod".into() }
    }

    #[test]
    fn follow_the_contracts() {
        let names = names();
        assert_eq!(names.operator_mount(), "kubernetes/prod-operator");
        assert_eq!(names.vault_policy("shop", "api"), "k8s/prod/shop/vpol/api");
        assert_eq!(names.dynamic_policy("shop", "db"), "k8s/prod/shop/dsec/db");
        assert_eq!(names.database("shop", "db"), "k8s.prod.shop.db");
        assert_eq!(names.role("shop", "api"), "shop.api");
    }

    #[test]
    fn own_only_what_carries_our_labels() {
        let names = names();
        assert!(names.owns(Some(&names.labels("u"))));
        assert!(!names.owns(None));
        let mut foreign = names.labels("u");
        foreign.insert("cluster".into(), "other".into());
        assert!(!names.owns(Some(&foreign)));
    }
}
