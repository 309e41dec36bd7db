//! The policies a cluster starts with: the operator's own, and the boundary of its pods. Pure.

use coffer_crds::connection::Delegation;

use crate::names::Names;
use crate::policy::patterns;
use crate::vault::{Grant, render};

/// What the server puts the pod's namespace in place of.
const NAMESPACE: &str = "{{auth.metadata.service_account_namespace}}";
const WRITE: [&str; 5] = ["create", "read", "update", "delete", "list"];

/// What the operator may do. Its own policy and the pods' boundary are not in it: a compromised operator cannot
/// raise its own ceiling.
pub(crate) fn operator(names: &Names) -> String {
    let (cluster, mount, database) = (&names.cluster, &names.mount, names.database_prefix());
    let mut grants = Vec::new();
    for kind in ["vpol", "dsec", "ssec"] {
        grants.push(Grant::new(format!("sys/policies/acl/k8s/{cluster}/+/{kind}/*"), &WRITE));
        grants.push(Grant::new(format!("sys/policies/acl/k8s/{cluster}/+/{kind}"), &["list"]));
    }
    grants.push(Grant::new(format!("sys/policies/acl/k8s/{cluster}"), &["list"]));
    grants.push(Grant::new(format!("sys/policies/acl/k8s/{cluster}/"), &["list"]));
    grants.push(Grant::new(format!("auth/{mount}/role/*"), &WRITE));
    grants.push(Grant::new(format!("auth/{mount}/role"), &["list"]));
    grants.push(Grant::new(format!("auth/{mount}/revoke-pod"), &["create", "update"]));
    grants.push(Grant::new(format!("auth/{mount}/pods"), &["read"]));
    grants.push(Grant::new(format!("delivery/k8s/{cluster}/*"), &WRITE));
    for what in ["config", "roles"] {
        grants.push(Grant::new(format!("database/{what}/{database}*"), &WRITE));
        grants.push(Grant::new(format!("database/{what}"), &["list"]));
        grants.push(Grant::new(format!("database/{what}/"), &["list"]));
    }
    grants.push(Grant::new(format!("database/rotate-root/{database}*"), &["create", "update"]));
    let leases = format!("database/creds/{database}*");
    grants.push(Grant::new(format!("sys/leases/lookup/{leases}"), &["read", "list", "sudo"]));
    grants.push(Grant::new(format!("sys/leases/revoke-prefix/{leases}"), &["create", "update", "sudo"]));
    render(&grants)
}

/// What pods may do at the very most, whatever policies they carry: their own namespace's objects, and what the admin
/// delegated. Selectors of delegations cannot be said here; the operator narrows by them.
///
/// `home` is the operator's own namespace, which has no part in it: otherwise a compromised operator would write itself a
/// role and a policy, and log in at the pods' mount with its own ServiceAccount.
pub(crate) fn boundary(names: &Names, delegations: &[Delegation], home: &str) -> String {
    let cluster = &names.cluster;
    let mut grants = vec![
        Grant::new("auth/token/lookup-self", &["read"]),
        Grant::new("auth/token/renew-self", &["update"]),
        Grant::new("auth/token/revoke-self", &["update"]),
        Grant::new("sys/capabilities-self", &["update"]),
        Grant::new("sys/leases/lookup", &["update"]),
        Grant::new("sys/leases/renew", &["update"]),
        Grant::new("sys/leases/revoke", &["update"]),
        Grant::new("sys/events/subscribe/*", &["read"]),
        Grant::new(format!("database/creds/{}{NAMESPACE}.*", names.database_prefix()), &["read"]),
        Grant::new(format!("delivery/k8s/{cluster}/{NAMESPACE}/*"), &["read", "subscribe"]),
    ];
    for delegation in delegations {
        let words: Vec<&'static str> = delegation.capabilities.iter().map(|one| one.as_str()).collect();
        for prefix in &delegation.path_prefixes {
            for path in patterns(&prefix.replace("{{namespace}}", NAMESPACE)) {
                match grants.iter_mut().find(|grant| grant.path == path) {
                    Some(grant) => {
                        let missing: Vec<&'static str> =
                            words.iter().filter(|word| !grant.capabilities.contains(word)).copied().collect();
                        grant.capabilities.extend(missing);
                    }
                    None => grants.push(Grant { path, capabilities: words.clone() }),
                }
            }
        }
    }
    let of_home: Vec<Grant> = grants
        .iter()
        .filter(|grant| grant.path.contains(NAMESPACE))
        .map(|grant| Grant::new(grant.path.replace(NAMESPACE, home), &["deny"]))
        .collect();
    grants.extend(of_home);
    render(&grants)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use coffer_core::path::VaultPath;
    use coffer_crds::Capability;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    use super::*;

    fn names() -> Names {
        Names { cluster: "c".into(), mount: "kubernetes/c".into() }
    }

    #[test]
    fn the_operator_cannot_touch_its_own_ceiling() {
        let text = operator(&names());
        let policy = coffer_core::policy::PathPattern::parse;
        for line in text.lines().skip(1) {
            let path = line.split('"').nth(1).unwrap();
            for own in [
                "sys/policies/acl/k8s/c/operator",
                "sys/policies/acl/k8s/c/boundary",
                "sys/auth/kubernetes/c/tune",
            ] {
                assert!(!policy(path).unwrap().matches(own), "{path} matches {own}");
            }
        }
    }

    #[test]
    fn the_boundary_is_tied_to_the_namespace() {
        let delegation = |capabilities: &[Capability]| Delegation {
            namespace_selector: LabelSelector::default(),
            path_prefixes: vec!["secret/data/{{namespace}}/".into()],
            capabilities: capabilities.to_vec(),
        };
        let text = boundary(
            &names(),
            &[delegation(&[Capability::Read]), delegation(&[Capability::Read, Capability::List])],
            "coffer-system",
        );
        assert!(text.contains(
            "path \"secret/data/{{auth.metadata.service_account_namespace}}/*\" { capabilities = [\"read\", \"list\"] }"
        ));
        assert!(text.contains("path \"database/creds/k8s.c.{{auth.metadata.service_account_namespace}}.*\""));
        assert_eq!(text.matches("secret/data/{{").count(), 1);
    }

    /// Whether a pod's token may read a path, as far as the boundary goes.
    fn may_read(boundary: &str, namespace: &str, path: &str) -> bool {
        use coffer_core::policy::{Acl, Operation, Policy, PolicyName};

        let name = PolicyName::parse("k8s/c/boundary").unwrap();
        let values =
            BTreeMap::from([("auth.metadata.service_account_namespace".to_owned(), namespace.to_owned())]);
        let policy = Policy::parse_templated(&name, boundary, &values).unwrap();
        let acl = Acl::new(&[Arc::new(policy)]);
        acl.decide(Operation::Read, &VaultPath::parse(path).unwrap(), None).allowed
    }

    #[test]
    fn the_boundary_leaves_a_namespace_its_own_and_the_operators_nothing() {
        let delegation = Delegation {
            namespace_selector: LabelSelector::default(),
            path_prefixes: vec!["secret/data/{{namespace}}".into()],
            capabilities: vec![Capability::Read],
        };
        let text = boundary(&names(), &[delegation], "coffer-system");
        for path in ["secret/data/shop/x", "database/creds/k8s.c.shop.db", "delivery/k8s/c/shop/dsec/db"] {
            assert!(may_read(&text, "shop", path), "{path}");
            assert!(!may_read(&text, "other", path), "{path}");
            let home = path.replace("shop", "coffer-system");
            assert!(!may_read(&text, "coffer-system", &home), "{home}");
        }
        assert!(!may_read(&text, "shop", "secret/data/shop-prod/x"));
    }
}
