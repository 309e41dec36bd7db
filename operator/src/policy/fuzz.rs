//! Fuzz targets of what becomes policy text at the server: a namespace never gets more than was delegated to it.

use std::collections::BTreeMap;

use coffer_core::policy::{PathPattern, Policy, PolicyName, contains};
use coffer_crds::connection::Delegation;
use coffer_crds::policy::PolicyRule;
use coffer_fuzz::{Target, kind, text};
use serde_json::Value;

use super::delegation::{ceilings, patterns, refusal};
use crate::bootstrap::parse_delegation;
use crate::vault::{Grant, render};

/// An object with `rules` (of a VaultPolicy) and `delegations` (of a CofferConnection).
#[test]
fn a_namespace_gets_no_more_than_was_delegated() {
    let words = [
        "rules",
        "delegations",
        "path",
        "pathPrefixes",
        "capabilities",
        "read",
        "sudo",
        "deny",
        "{{namespace}}",
        "secret/data/shop/",
        "+",
        "*",
        "\"",
        "\\",
        "$",
        "}\npath \"*\" {",
        "..",
        "/",
    ];
    Target::new("policy-rules").words(&words).runs(3_000).run(|input| {
        let Ok(value) = serde_json::from_slice::<Value>(input) else { return "no JSON".into() };
        let rules = serde_json::from_value::<Vec<PolicyRule>>(value["rules"].clone());
        let delegations = serde_json::from_value::<Vec<Delegation>>(value["delegations"].clone());
        let (Ok(rules), Ok(delegations)) = (rules, delegations) else { return "no rules".into() };
        let ceilings = ceilings(&delegations, "shop", &BTreeMap::new());
        let granted: Vec<&PolicyRule> =
            rules.iter().filter(|rule| refusal(rule, &ceilings).is_none()).collect();
        let grants = granted.iter().map(|rule| {
            let words: Vec<&'static str> = rule.capabilities.iter().map(|one| one.as_str()).collect();
            Grant::new(rule.path.clone(), &words)
        });
        let written = render(&grants.collect::<Vec<_>>());
        let policy = match Policy::parse(&PolicyName::parse("x").unwrap(), &written) {
            Ok(policy) => policy,
            Err(why) => {
                // A server that refuses the whole keeps the one before: nothing is gained.
                return kind(&why);
            }
        };
        assert!(policy.rules().len() <= granted.len());
        for rule in policy.rules().iter().filter(|rule| rule.capabilities().grants_any()) {
            let delegated = delegations.iter().filter(|d| {
                rule.capabilities()
                    .iter()
                    .all(|c| d.capabilities.iter().any(|one| one.as_str() == c.as_str()))
            });
            let prefixes = delegated
                .flat_map(|d| &d.path_prefixes)
                .flat_map(|p| patterns(&p.replace("{{namespace}}", "shop")));
            let outer: Vec<PathPattern> = prefixes.filter_map(|p| PathPattern::parse(&p).ok()).collect();
            let covered = outer.iter().any(|outer| contains(outer, rule.pattern()));
            assert!(covered, "{:?} with {:?} is not delegated", rule.pattern(), rule.capabilities());
        }
        format!("{} of {}", policy.rules().len().min(9), rules.len().min(9))
    });
}

#[test]
fn a_delegation_names_a_prefix_and_known_capabilities() {
    let words = ["=", ",", "read", "list", "sudo", "secret/data/", "{{namespace}}", " ", "root"];
    Target::new("delegation").words(&words).run(|input| {
        let given = text(input);
        let delegation = match parse_delegation(&given) {
            Ok(delegation) => delegation,
            Err(why) => return kind(&why),
        };
        assert!(!delegation.capabilities.is_empty() && delegation.path_prefixes.len() == 1);
        assert!(given.starts_with(&delegation.path_prefixes[0]));
        format!("{}", delegation.capabilities.len().min(9))
    });
}
