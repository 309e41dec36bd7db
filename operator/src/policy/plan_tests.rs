//! Plans of VaultPolicies, case by case.

use std::collections::BTreeMap;

use coffer_client::wire::PolicyReply;
use coffer_crds::VaultPolicy;
use coffer_crds::connection::Delegation;

use super::super::delegation::ceilings;
use super::*;

const POLICY: &str = "
apiVersion: coffer.dev/v1alpha1
kind: VaultPolicy
metadata: {name: orders-api, namespace: shop, uid: u-1, generation: 2}
spec:
  rules:
  - {path: secret/data/shop/*, capabilities: [read]}
  - {path: secret/data/shop/admin, capabilities: [deny]}
  - {path: secret/data/other/*, capabilities: [read]}
  bindings: [{serviceAccount: orders-api}]
";

fn names() -> Names {
    Names { cluster: "c".into(), mount: "kubernetes/c".into() }
}

fn policy() -> VaultPolicy {
    serde_yaml::from_str(POLICY).unwrap()
}

fn plan_with(policy: &VaultPolicy, prefix: &str, at_server: Option<&PolicyReply>) -> Plan {
    let delegation: Delegation =
        serde_yaml::from_str(&format!("{{pathPrefixes: ['{prefix}'], capabilities: [read, list]}}")).unwrap();
    let ceilings = ceilings(&[delegation], "shop", &BTreeMap::new());
    plan(&Observed { policy, names: &names(), ceilings: &ceilings, at_server })
}

/// The server's copy after a plan's changes.
fn written(plan: &Plan) -> PolicyReply {
    let [Change::WritePolicy { name, body }] = plan.changes.as_slice() else {
        panic!("{:?}", plan.changes);
    };
    PolicyReply {
        name: name.clone(),
        policy: body.policy.clone(),
        custom_metadata: body.custom_metadata.clone(),
    }
}

#[test]
fn what_is_delegated_is_written_and_the_rest_is_said() {
    let plan = plan_with(&policy(), "secret/data/{{namespace}}/", None);
    let written = written(&plan);
    assert_eq!(written.name, "k8s/c/shop/vpol/orders-api");
    assert_eq!(
        written.policy.lines().skip(1).collect::<Vec<_>>(),
        [
            "path \"secret/data/shop/*\" { capabilities = [\"read\"] }",
            "path \"secret/data/shop/admin\" { capabilities = [\"deny\"] }",
        ]
    );
    assert_eq!(written.custom_metadata.unwrap()["uid"], "u-1");
    assert_eq!(plan.verdicts[0].reason, "OutsideDelegation");
    assert!(plan.verdicts[0].message.contains("secret/data/other/*"), "{}", plan.verdicts[0].message);
    assert_eq!(plan.rules_count, 2);
}

#[test]
fn a_second_look_changes_nothing() {
    let first = plan_with(&policy(), "secret/data/", None);
    let again = plan_with(&policy(), "secret/data/", Some(&written(&first)));
    assert!(again.changes.is_empty());
    assert!(!again.drifted);
    assert!(again.verdicts.iter().all(Verdict::holds));
}

#[test]
fn an_edit_at_the_server_is_drift_and_an_edit_of_the_object_is_not() {
    let first = plan_with(&policy(), "secret/data/", None);
    let mut known = policy();
    known.status =
        Some(coffer_crds::VaultPolicyStatus { applied_hash: Some(first.hash.clone()), ..Default::default() });
    let mut edited = written(&first);
    edited.policy.push_str("path \"*\" { capabilities = [\"sudo\"] }\n");
    assert!(plan_with(&known, "secret/data/", Some(&edited)).drifted);

    known.spec.rules.pop();
    let plan = plan_with(&known, "secret/data/", Some(&written(&first)));
    assert!(!plan.drifted);
    assert_eq!(plan.changes.len(), 1);
}

#[test]
fn a_narrower_delegation_takes_back() {
    let first = plan_with(&policy(), "secret/data/", None);
    let narrowed = plan_with(&policy(), "nothing/", Some(&written(&first)));
    let text = written(&narrowed).policy;
    assert!(!text.contains("read"), "{text}");
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let theirs = PolicyReply {
        name: "k8s/c/shop/vpol/orders-api".into(),
        policy: String::new(),
        custom_metadata: None,
    };
    let plan = plan_with(&policy(), "secret/data/", Some(&theirs));
    assert!(plan.changes.is_empty());
    assert_eq!(plan.verdicts[0].reason, "NotOwned");
}
