//! What a VaultPolicy needs at the server. Pure: everything it looks at is an argument.

use coffer_client::wire::{PolicyBody, PolicyReply};
use coffer_crds::{Capability, VaultPolicy};
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use super::delegation::{Ceiling, refusal};
use crate::conditions::Verdict;
use crate::names::Names;
use crate::vault::{Change, Grant, render};

/// Everything the plan looks at.
pub(crate) struct Observed<'a> {
    /// The object.
    pub(crate) policy: &'a VaultPolicy,
    /// Names at the server.
    pub(crate) names: &'a Names,
    /// What its namespace may grant.
    pub(crate) ceilings: &'a [Ceiling],
    /// The server's copy.
    pub(crate) at_server: Option<&'a PolicyReply>,
}

/// What to do, and what to say.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Changes at the server; none when all is as it should be.
    pub(crate) changes: Vec<Change>,
    /// Whether the server's copy was changed by someone else since it was applied.
    pub(crate) drifted: bool,
    /// Conditions, Ready first.
    pub(crate) verdicts: Vec<Verdict>,
    /// Name of the policy.
    pub(crate) policy_name: String,
    /// Rules in force.
    pub(crate) rules_count: i32,
    /// Digest of the policy's text.
    pub(crate) hash: String,
}

/// The rules that are granted, and why the others are not.
pub(crate) fn applied_grants(policy: &VaultPolicy, ceilings: &[Ceiling]) -> (Vec<Grant>, Vec<String>) {
    let mut granted = Vec::new();
    let mut refused = Vec::new();
    for rule in &policy.spec.rules {
        match refusal(rule, ceilings) {
            Some(why) => refused.push(why),
            None => {
                let words: Vec<&'static str> =
                    rule.capabilities.iter().map(|one: &Capability| one.as_str()).collect();
                granted.push(Grant::new(rule.path.clone(), &words));
            }
        }
    }
    (granted, refused)
}

/// Plans for an object that is not being deleted.
pub(crate) fn plan(observed: &Observed<'_>) -> Plan {
    let namespace = observed.policy.namespace().unwrap_or_default();
    let policy_name = observed.names.vault_policy(&namespace, &observed.policy.name_any());
    let (granted, refused) = applied_grants(observed.policy, observed.ceilings);
    let text = render(&granted);
    let hash = format!("sha256:{}", hex::encode(Sha256::digest(text.as_bytes())));
    let rules_count = i32::try_from(granted.len()).unwrap_or(i32::MAX);
    let mut plan = Plan { changes: vec![], drifted: false, verdicts: vec![], policy_name, rules_count, hash };

    if let Some(theirs) =
        observed.at_server.filter(|found| !observed.names.owns(found.custom_metadata.as_ref()))
    {
        let message = format!(
            "policy {:?} at the server is not the operator's; remove or rename it there",
            theirs.name
        );
        plan.verdicts.push(Verdict::no("Ready", "NotOwned", message));
        plan.rules_count = 0;
        return plan;
    }
    let labels = observed.names.labels(&observed.policy.uid().unwrap_or_default());
    let same = observed
        .at_server
        .is_some_and(|found| found.policy == text && found.custom_metadata.as_ref() == Some(&labels));
    if !same {
        let applied = observed.policy.status.as_ref().and_then(|status| status.applied_hash.as_ref());
        plan.drifted = applied == Some(&plan.hash);
        plan.changes.push(Change::WritePolicy {
            name: plan.policy_name.clone(),
            body: PolicyBody { policy: text, custom_metadata: Some(labels) },
        });
    }
    plan.verdicts = verdicts(observed, &refused);
    plan
}

fn verdicts(observed: &Observed<'_>, refused: &[String]) -> Vec<Verdict> {
    if !refused.is_empty() {
        let message = format!(
            "{} of {} rules are not in force: {}. Ask the admin for a delegation in CofferConnection {:?}",
            refused.len(),
            observed.policy.spec.rules.len(),
            refused.join("; "),
            observed.policy.spec.connection_ref.name,
        );
        return vec![
            Verdict::no("Ready", "OutsideDelegation", message.clone()),
            Verdict::no("Delegated", "OutsideDelegation", message),
        ];
    }
    let roles = observed.policy.spec.bindings.len();
    let noun = if roles == 1 { "role" } else { "roles" };
    vec![
        Verdict::yes("Ready", "Applied", format!("policy and {roles} {noun} in sync")),
        Verdict::yes(
            "Delegated",
            "WithinDelegation",
            "every rule is under a path delegated to this namespace",
        ),
    ]
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
