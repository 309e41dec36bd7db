//! Which roles a namespace needs. Pure: everything it looks at is an argument.

use std::collections::BTreeMap;

use coffer_client::wire::{RoleSpec, Ttl};
use coffer_crds::duration::parse_seconds;
use coffer_crds::refs::is_service_account_name;
use coffer_crds::{DynamicSecret, VaultPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use crate::conditions::find;
use crate::names::Names;

/// Life of a token when no VaultPolicy says otherwise.
const TOKEN_TTL_SECS: u64 = 15 * 60;
/// Longest life of a token when no VaultPolicy says otherwise.
const TOKEN_MAX_TTL_SECS: u64 = 24 * 3600;

/// A TTL in seconds, whatever form it came in.
pub(crate) fn seconds(ttl: &Ttl) -> Option<u64> {
    match ttl {
        Ttl::Seconds(seconds) => Some(*seconds),
        Ttl::Text(text) => text.parse().ok().or_else(|| parse_seconds(text)),
    }
}

#[derive(Default)]
struct Share {
    policies: Vec<String>,
    ttl: Option<u64>,
    max_ttl: Option<u64>,
}

fn smaller(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

/// Roles by name. Objects that are being deleted, or belong to another vault, have no share in them.
pub(crate) fn compose(
    names: &Names,
    connection: &str,
    audience: &str,
    namespace: &str,
    policies: &[impl AsRef<VaultPolicy>],
    dynamics: &[impl AsRef<DynamicSecret>],
) -> BTreeMap<String, RoleSpec> {
    let mut shares: BTreeMap<String, Share> = BTreeMap::new();
    for policy in
        policies.iter().map(AsRef::as_ref).filter(|policy| counts_policy(policy, connection, namespace))
    {
        let name = names.vault_policy(namespace, &policy.name_any());
        for binding in &policy.spec.bindings {
            let share = shares.entry(binding.service_account.clone()).or_default();
            share.policies.push(name.clone());
            share.ttl = smaller(share.ttl, parse_seconds(&binding.token_ttl));
            share.max_ttl = smaller(share.max_ttl, parse_seconds(&binding.token_max_ttl));
        }
    }
    for secret in
        dynamics.iter().map(AsRef::as_ref).filter(|secret| counts_dynamic(secret, connection, namespace))
    {
        let name = names.dynamic_policy(namespace, &secret.name_any());
        for consumer in &secret.spec.consumers {
            shares.entry(consumer.service_account.clone()).or_default().policies.push(name.clone());
        }
    }
    shares
        .into_iter()
        // The CRDs refuse any other name too.
        .filter(|(service_account, _)| is_service_account_name(service_account))
        .map(|(service_account, share)| {
            let role = role(names, audience, namespace, &service_account, share);
            (names.role(namespace, &service_account), role)
        })
        .collect()
}

/// The roles without one policy, which was just found to be somebody else's: its status does not say so yet.
pub(crate) fn without(mut roles: BTreeMap<String, RoleSpec>, policy: &str) -> BTreeMap<String, RoleSpec> {
    for role in roles.values_mut() {
        role.token_policies.retain(|name| name != policy);
    }
    roles.retain(|_, role| !role.token_policies.is_empty());
    roles
}

fn counts_policy(policy: &VaultPolicy, connection: &str, namespace: &str) -> bool {
    let conditions = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    policy.namespace().as_deref() == Some(namespace)
        && policy.spec.connection_ref.name == connection
        && policy.metadata.deletion_timestamp.is_none()
        && !is_foreign(conditions)
}

// A policy of that name which is not ours may grant anything: nobody gets it through us.
fn is_foreign(conditions: &[Condition]) -> bool {
    find(conditions, "Ready").is_some_and(|ready| ready.reason == "NotOwned")
}

fn counts_dynamic(secret: &DynamicSecret, connection: &str, namespace: &str) -> bool {
    let conditions = secret.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    secret.namespace().as_deref() == Some(namespace)
        && secret.spec.connection_ref.name == connection
        && secret.metadata.deletion_timestamp.is_none()
        && !is_foreign(conditions)
}

fn role(names: &Names, audience: &str, namespace: &str, service_account: &str, mut share: Share) -> RoleSpec {
    share.policies.sort();
    share.policies.dedup();
    let max_ttl = share.max_ttl.unwrap_or(TOKEN_MAX_TTL_SECS);
    let ttl = share.ttl.unwrap_or(TOKEN_TTL_SECS).min(max_ttl);
    RoleSpec {
        bound_service_account_names: vec![service_account.to_owned()],
        bound_service_account_namespaces: vec![namespace.to_owned()],
        audience: Some(audience.to_owned()),
        token_policies: share.policies,
        token_ttl: Some(Ttl::Seconds(ttl)),
        token_max_ttl: Some(Ttl::Seconds(max_ttl)),
        // Several objects share a role, so it carries its ServiceAccount instead of one object's UID.
        custom_metadata: Some(names.labels(&format!("serviceaccount/{namespace}/{service_account}"))),
    }
}

/// Whether two roles say the same, whatever form their TTLs have and however their policies are ordered.
pub(crate) fn same(wanted: &RoleSpec, found: &RoleSpec) -> bool {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    let ttl = |ttl: &Option<Ttl>| ttl.as_ref().and_then(seconds);
    wanted.bound_service_account_names == found.bound_service_account_names
        && wanted.bound_service_account_namespaces == found.bound_service_account_namespaces
        && wanted.audience == found.audience
        && sorted(&wanted.token_policies) == sorted(&found.token_policies)
        && ttl(&wanted.token_ttl) == ttl(&found.token_ttl)
        && ttl(&wanted.token_max_ttl) == ttl(&found.token_max_ttl)
        && wanted.custom_metadata == found.custom_metadata
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn names() -> Names {
        Names { cluster: "c".into(), mount: "kubernetes/c".into() }
    }

    fn policy(yaml: &str) -> Arc<VaultPolicy> {
        Arc::new(serde_yaml::from_str(yaml).unwrap())
    }

    fn secret(yaml: &str) -> Arc<DynamicSecret> {
        Arc::new(serde_yaml::from_str(yaml).unwrap())
    }

    const API: &str = "
apiVersion: coffer.dev/v1alpha1
kind: VaultPolicy
metadata: {name: api, namespace: shop}
spec:
  rules: [{path: secret/data/shop/*, capabilities: [read]}]
  bindings: [{serviceAccount: api, tokenTTL: 30m}, {serviceAccount: batch}]
";
    const AUDIT: &str = "
apiVersion: coffer.dev/v1alpha1
kind: VaultPolicy
metadata: {name: audit, namespace: shop}
spec:
  rules: [{path: secret/data/shop/*, capabilities: [read]}]
  bindings: [{serviceAccount: api, tokenTTL: 10m, tokenMaxTTL: 2h}]
";
    const DB: &str = "
apiVersion: coffer.dev/v1alpha1
kind: DynamicSecret
metadata: {name: db, namespace: shop}
spec:
  source: {database: {connectionRef: {name: pg}, profile: rw}}
  consumers: [{serviceAccount: api}, {serviceAccount: job}]
";

    #[test]
    fn one_role_for_each_service_account_with_everything_that_names_it() {
        let roles =
            compose(&names(), "default", "coffer", "shop", &[policy(API), policy(AUDIT)], &[secret(DB)]);
        let found: Vec<_> = roles
            .iter()
            .map(|(name, role)| {
                let ttl = role.token_ttl.as_ref().and_then(seconds).unwrap();
                let max = role.token_max_ttl.as_ref().and_then(seconds).unwrap();
                format!("{name} {} {ttl} {max}", role.token_policies.join(","))
            })
            .collect();
        assert_eq!(
            found,
            [
                "shop.api k8s/c/shop/dsec/db,k8s/c/shop/vpol/api,k8s/c/shop/vpol/audit 600 7200",
                "shop.batch k8s/c/shop/vpol/api 900 86400",
                "shop.job k8s/c/shop/dsec/db 900 86400",
            ]
        );
        assert_eq!(roles["shop.api"].bound_service_account_names, ["api"]);
        assert_eq!(roles["shop.api"].bound_service_account_namespaces, ["shop"]);
        assert_eq!(roles["shop.api"].audience.as_deref(), Some("coffer"));
    }

    #[test]
    fn other_namespaces_other_vaults_and_deleted_objects_have_no_share() {
        let none: [Arc<DynamicSecret>; 0] = [];
        assert!(compose(&names(), "default", "coffer", "other", &[policy(API)], &none).is_empty());
        assert!(compose(&names(), "second", "coffer", "shop", &[policy(API)], &none).is_empty());
        let mut going = (*policy(API)).clone();
        going.metadata.deletion_timestamp = Some(crate::clock::now());
        assert!(compose(&names(), "default", "coffer", "shop", &[Arc::new(going)], &none).is_empty());
    }

    #[test]
    fn a_name_that_no_service_account_has_gets_no_role() {
        let none: [Arc<DynamicSecret>; 0] = [];
        for bad in ["../other.api", "a/b", "a\\nb", "A"] {
            let policy =
                policy(&API.replace("{serviceAccount: batch}", &format!("{{serviceAccount: \"{bad}\"}}")));
            let roles = compose(&names(), "default", "coffer", "shop", &[policy], &none);
            assert_eq!(roles.keys().collect::<Vec<_>>(), ["shop.api"], "{bad}");
        }
    }

    #[test]
    fn what_the_server_has_from_somebody_else_is_in_no_role() {
        let status = "
status:
  conditions: [{type: Ready, status: 'False', reason: NotOwned, message: m, lastTransitionTime: '2026-11-24T07:00:00Z'}]
";
        let roles = compose(
            &names(),
            "default",
            "coffer",
            "shop",
            &[policy(&format!("{}{status}", AUDIT.trim_end()))],
            &[secret(&format!("{}{status}", DB.trim_end()))],
        );
        assert!(roles.is_empty(), "{roles:?}");

        let roles =
            compose(&names(), "default", "coffer", "shop", &[policy(API), policy(AUDIT)], &[secret(DB)]);
        let left = without(roles, "k8s/c/shop/vpol/api");
        assert_eq!(left.keys().collect::<Vec<_>>(), ["shop.api", "shop.job"]);
        assert_eq!(left["shop.api"].token_policies, ["k8s/c/shop/dsec/db", "k8s/c/shop/vpol/audit"]);
    }

    #[test]
    fn a_role_is_the_same_in_whatever_form_the_server_shows_it() {
        let none: [Arc<DynamicSecret>; 0] = [];
        let roles = compose(&names(), "default", "coffer", "shop", &[policy(API)], &none);
        let mut shown = roles["shop.api"].clone();
        shown.token_ttl = Some(Ttl::Text("30m".into()));
        assert!(same(&roles["shop.api"], &shown));
        shown.token_policies.push("root".into());
        assert!(!same(&roles["shop.api"], &shown));
    }
}
