//! What a namespace may grant: the delegations of its CofferConnection. Never looks at strings where the policy
//! engine's own containment can decide.

use std::collections::BTreeMap;

use coffer_core::policy::{PathPattern, contains};
use coffer_crds::Capability;
use coffer_crds::connection::Delegation;
use coffer_crds::policy::PolicyRule;

use crate::kubernetes::selects;
use crate::vault::is_quotable;

/// The patterns of a delegation's path prefix: what is below it, and where it does not end in a slash, itself. It never
/// covers a neighbour whose name only begins the same (`shop` and `shop-prod`), unless a `*` at its end asks for that.
pub(crate) fn patterns(prefix: &str) -> Vec<String> {
    if prefix.ends_with('*') {
        vec![prefix.to_owned()]
    } else if prefix.ends_with('/') {
        vec![format!("{prefix}*")]
    } else {
        vec![prefix.to_owned(), format!("{prefix}/*")]
    }
}

/// One path pattern and the most that may be granted under it.
#[derive(Clone, Debug)]
pub(crate) struct Ceiling {
    pattern: PathPattern,
    capabilities: Vec<Capability>,
}

/// The ceilings of a namespace. A prefix that is no path pattern grants nothing.
pub(crate) fn ceilings(
    delegations: &[Delegation],
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Vec<Ceiling> {
    let mut found = Vec::new();
    for delegation in delegations {
        if !selects(&delegation.namespace_selector, labels) {
            continue;
        }
        for prefix in &delegation.path_prefixes {
            for text in patterns(&prefix.replace("{{namespace}}", namespace)) {
                if let Ok(pattern) = PathPattern::parse(&text) {
                    found.push(Ceiling { pattern, capabilities: delegation.capabilities.clone() });
                }
            }
        }
    }
    found
}

/// Why a rule may not be granted; `None` when it may. A rule that only denies takes nothing from anyone else.
pub(crate) fn refusal(rule: &PolicyRule, ceilings: &[Ceiling]) -> Option<String> {
    let pattern = match PathPattern::parse(&rule.path) {
        Ok(pattern) => pattern,
        Err(error) => return Some(format!("{:?}: {error}", rule.path)),
    };
    // The CRD refuses these too. Here they must not come to a policy that says less, or later more, than the object.
    if !is_quotable(&rule.path) || rule.path.contains("{{") {
        return Some(format!("{:?}: a path holds no quote, backslash, dollar sign or template", rule.path));
    }
    if rule.capabilities == [Capability::Deny] {
        return None;
    }
    let around: Vec<&Ceiling> =
        ceilings.iter().filter(|ceiling| contains(&ceiling.pattern, &pattern)).collect();
    if around.is_empty() {
        return Some(format!("{:?} is under no path delegated to this namespace", rule.path));
    }
    let fits =
        |ceiling: &&&Ceiling| rule.capabilities.iter().all(|wanted| ceiling.capabilities.contains(wanted));
    if around.iter().any(|ceiling| fits(&ceiling)) {
        return None;
    }
    let allowed: Vec<&str> =
        around.iter().flat_map(|ceiling| &ceiling.capabilities).map(|one| one.as_str()).collect();
    let beyond: Vec<&str> = rule
        .capabilities
        .iter()
        .map(|wanted| wanted.as_str())
        .filter(|wanted| !allowed.contains(wanted))
        .collect();
    Some(format!("{:?}: {} not delegated (at most {})", rule.path, beyond.join(", "), allowed.join(", ")))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    use super::*;

    fn rule(path: &str, capabilities: &[Capability]) -> PolicyRule {
        PolicyRule { path: path.into(), description: None, capabilities: capabilities.to_vec() }
    }

    fn shop() -> Vec<Ceiling> {
        let delegation = Delegation {
            namespace_selector: LabelSelector::default(),
            path_prefixes: vec!["secret/data/{{namespace}}/".into(), "secret/metadata/{{namespace}}/".into()],
            capabilities: vec![Capability::Read, Capability::List],
        };
        ceilings(&[delegation], "shop", &BTreeMap::new())
    }

    #[test]
    fn what_is_delegated_may_be_granted() {
        use Capability::{Deny, List, Read};
        for (path, capabilities) in [
            ("secret/data/shop/db", vec![Read]),
            ("secret/data/shop/*", vec![Read, List]),
            ("secret/data/shop/+/x", vec![Read]),
            ("secret/data/other/x", vec![Deny]),
            ("*", vec![Deny]),
        ] {
            assert_eq!(refusal(&rule(path, &capabilities), &shop()), None, "{path}");
        }
    }

    #[test]
    fn nothing_else_may() {
        use Capability::{Read, Sudo, Update};
        for (path, capability) in [
            ("secret/data/other/db", Read),
            ("secret/data/shopping/db", Read),
            ("secret/data/shop", Read),
            ("secret/data/*", Read),
            ("secret/data/+/db", Read),
            ("secret/+/shop/db", Read),
            ("+/data/shop/db", Read),
            ("*", Read),
            ("sys/*", Sudo),
            ("secret/data/shop/../other/db", Read),
            ("secret/data/shop/db", Update),
            ("secret/data/shop/*", Sudo),
        ] {
            assert!(refusal(&rule(path, &[capability]), &shop()).is_some(), "{path}");
        }
    }

    #[test]
    fn a_prefix_without_a_slash_does_not_cover_its_neighbours() {
        let delegation = |prefix: &str| Delegation {
            namespace_selector: LabelSelector::default(),
            path_prefixes: vec![prefix.into()],
            capabilities: vec![Capability::Read],
        };
        let read = |path: &str| rule(path, &[Capability::Read]);
        let shop = ceilings(&[delegation("secret/data/{{namespace}}")], "shop", &BTreeMap::new());
        for path in ["secret/data/shop", "secret/data/shop/db", "secret/data/shop/*"] {
            assert_eq!(refusal(&read(path), &shop), None, "{path}");
        }
        for path in ["secret/data/shop-prod/db", "secret/data/shop*", "secret/data/shopping"] {
            assert!(refusal(&read(path), &shop).is_some(), "{path}");
        }
        let asked = ceilings(&[delegation("secret/data/{{namespace}}-*")], "shop", &BTreeMap::new());
        assert_eq!(refusal(&read("secret/data/shop-prod/db"), &asked), None);
    }

    #[test]
    fn a_path_that_a_policy_cannot_hold_is_refused_and_not_left_out() {
        for path in [
            "secret/data/shop/a$b",
            "secret/data/shop/a\\b",
            "secret/data/shop/a\" { capabilities = [\"sudo\"] } path \"b",
            "secret/data/shop/{{identity.entity.id}}",
        ] {
            assert!(refusal(&rule(path, &[Capability::Read]), &shop()).is_some(), "{path}");
            assert!(refusal(&rule(path, &[Capability::Deny]), &shop()).is_some(), "{path}");
        }
    }

    #[test]
    fn a_namespace_that_is_not_selected_has_no_ceiling() {
        let delegation = Delegation {
            namespace_selector: LabelSelector {
                match_labels: Some(BTreeMap::from([("team".into(), "shop".into())])),
                match_expressions: None,
            },
            path_prefixes: vec!["secret/data/".into()],
            capabilities: vec![Capability::Read],
        };
        let shop = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
        assert_eq!(ceilings(std::slice::from_ref(&delegation), "a", &shop).len(), 1);
        assert_eq!(ceilings(std::slice::from_ref(&delegation), "a", &BTreeMap::new()).len(), 0);
    }
}
