//! The decision's golden tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::path::VaultPath;

pub(super) fn policy(name: &str, source: &str) -> Arc<Policy> {
    let name = PolicyName::parse(name).unwrap();
    Arc::new(Policy::parse(&name, source).unwrap_or_else(|e| panic!("{source}: {e}")))
}

/// A policy of `(pattern, capabilities separated by spaces)`.
pub(super) fn rules(list: &[(&str, &str)]) -> String {
    list.iter()
        .map(|(path, caps)| {
            let caps: Vec<String> = caps.split_whitespace().map(|c| format!("{c:?}")).collect();
            format!("path {path:?} {{ capabilities = [{}] }}\n", caps.join(", "))
        })
        .collect()
}

pub(super) fn acl(list: &[(&str, &str)]) -> Acl {
    Acl::new(&[policy("p", &rules(list))])
}

pub(super) fn path(text: &str) -> VaultPath {
    VaultPath::parse(text).unwrap()
}

fn reads(acl: &Acl, text: &str) -> bool {
    acl.decide(Operation::Read, &path(text), None).allowed
}

fn lists(acl: &Acl, text: &str) -> bool {
    acl.decide(Operation::List, &path(text), None).allowed
}

#[test]
fn what_a_capability_can_be_granted_below() {
    let list = [
        ("a/b/*", "subscribe"),
        ("a/b/c", "subscribe read"),
        ("a/+/c", "subscribe"),
        ("d/e*", "subscribe"),
        ("f/*", "read"),
    ];
    assert_eq!(acl(&list).beginnings(Capability::Subscribe), ["a/", "d/e"]);
    assert_eq!(acl(&list).beginnings(Capability::Read), ["a/b/c", "f/"]);
    assert!(acl(&list).beginnings(Capability::Sudo).is_empty());
    assert_eq!(acl(&[("+/x", "read")]).beginnings(Capability::Read), [""]);
    let root = Acl::new(&[Arc::new(Policy::root())]);
    assert_eq!(root.beginnings(Capability::Subscribe), [""]);
}

/// Which of two patterns decides about a path: the first is given `read`, the second `deny`, and the other way
/// round.
#[test]
fn golden_priority() {
    for (winner, loser, asked) in [
        ("a/b", "a/*", "a/b"),
        ("a/b", "a/+", "a/b"),
        ("a/b/c", "+/b/c", "a/b/c"),
        ("a/b*", "a/*", "a/bc"),
        ("a/*", "*", "a/b"),
        // The first wildcard stands later.
        ("a/b/*", "a/+/c", "a/b/c"),
        ("a/b/+", "a/+/c", "a/b/c"),
        ("a/b*", "a/+", "a/bc"),
        // Same place: no star at the end wins.
        ("a/+", "a/*", "a/b"),
        ("a/+/c", "a/+/*", "a/b/c"),
        // Same place, both or neither with star: fewer `+`.
        ("a/+/c/d", "a/+/+/d", "a/b/c/d"),
        ("a/+/c/*", "a/+/+/*", "a/b/c/d"),
        // Longer.
        ("a/+/cc*", "a/+/c*", "a/b/cc"),
        // Lexicographically greater.
        ("a/+/c/+", "a/+/+/d", "a/b/c/d"),
    ] {
        for (first, second, expected) in [("read", "deny", true), ("deny", "read", false)] {
            let acl = acl(&[(winner, first), (loser, second)]);
            assert_eq!(reads(&acl, asked), expected, "{winner} {first}, {loser} {second}, for {asked}");
            let decided = acl.decide(Operation::Read, &path(asked), None).rule.unwrap();
            assert_eq!(decided.as_str(), winner);
        }
    }
}

#[test]
fn golden_matching() {
    for (pattern, asked, expected) in [
        ("a", "a", true),
        ("a", "a/", false),
        ("a", "a/b", false),
        ("*", "anything/at/all", true),
        ("a/*", "a", false),
        ("a/*", "a/", true),
        ("a/*", "a/b/c", true),
        ("a*", "a", true),
        ("a*", "ab/c", true),
        ("a/+", "a/b", true),
        ("a/+", "a/b/c", false),
        ("a/+", "a/b/", false),
        ("a/+", "a", false),
        ("a/+/", "a/b/", true),
        ("a/+/c", "a/b/c", true),
        ("a/+/c", "a/b/d", false),
        ("+/+", "a/b", true),
        ("+", "a", true),
        ("a/+/c*", "a/b/cd/e", true),
        ("a/+/c*", "a/b/d", false),
        ("a/b+c", "a/b+c", true),
        ("a/b+c", "a/bxc", false),
        ("/a/b", "a/b", true),
        ("A/b", "a/b", false),
    ] {
        assert_eq!(reads(&acl(&[(pattern, "read")]), asked), expected, "{pattern} for {asked}");
        assert_eq!(PathPattern::parse(pattern).unwrap().matches(asked), expected, "{pattern} for {asked}");
    }
    for bad in ["", "/", "a/*/b", "**", "a/+*", "+*", "a//b", "a/../b", "./a", "a\nb"] {
        assert!(PathPattern::parse(bad).is_err(), "{bad}");
    }
    assert!(PathPattern::parse(&vec!["a"; 64].join("/")).is_ok());
    assert_eq!(PathPattern::parse(&vec!["a"; 66].join("/")), Err(PatternError::TooDeep));
}

#[test]
fn golden_listing_order() {
    // With and without the slash; then what is decided for LIST a/b/.
    for (list, expected, rule) in [
        (&[("a/b/", "list")][..], true, "a/b/"),
        (&[("a/b", "list")], true, "a/b"),
        (&[("a/b/", "list"), ("a/b", "deny")], true, "a/b/"),
        (&[("a/b/", "deny"), ("a/b", "list")], false, "a/b/"),
        // Exact without the slash comes before any other with it.
        (&[("a/b", "list"), ("a/b/*", "deny")], true, "a/b"),
        (&[("a/b", "deny"), ("a/b/*", "list")], false, "a/b"),
        // Others: as given first, whatever would match without the slash.
        (&[("a/*", "list"), ("a/+", "deny")], true, "a/*"),
        (&[("a/*", "deny"), ("a/+", "list")], false, "a/*"),
        (&[("a/+/", "deny"), ("a/+", "list")], false, "a/+/"),
        (&[("+/b", "list"), ("a/+", "deny")], false, "a/+"),
        (&[("a/+", "list")], true, "a/+"),
    ] {
        let acl = acl(list);
        let decision = acl.decide(Operation::List, &path("a/b/"), None);
        assert_eq!((decision.allowed, decision.rule.unwrap().as_str()), (expected, rule), "{list:?}");
        assert_eq!(lists(&acl, "a/b"), expected, "the slash is LIST's own, sent or not");
    }
}

#[test]
fn policies_add_up_on_one_pattern_and_deny_erases() {
    let a = policy("a", &rules(&[("x/*", "read"), ("y", "read"), ("z", "deny")]));
    let b = policy("b", &rules(&[("x/*", "list update"), ("y", "deny"), ("z", "read")]));
    let both = Acl::new(&[a.clone(), b.clone()]);
    assert_eq!(both.capabilities(&path("x/1")), ["list", "read", "update"]);
    assert_eq!(both.capabilities(&path("y")), ["deny"]);
    assert_eq!(both.capabilities(&path("z")), ["deny"]);
    assert_eq!(both.capabilities(&path("nowhere")), ["deny"]);
    let decision = both.decide(Operation::Renew, &path("x/1"), None);
    assert!(decision.allowed && !decision.sudo);
    assert_eq!(decision.granting_policies, [PolicyName::parse("b").unwrap()]);
    let empty = policy("c", "path \"x/*\" { capabilities = [] }");
    assert!(!reads(&Acl::new(&[a, b, empty]), "x/1"), "an empty list refuses");
}

#[test]
fn operations_need_their_capability() {
    use Operation as O;
    for (operation, capability) in [
        (O::Read, "read"),
        (O::List, "list"),
        (O::Scan, "scan"),
        (O::Create, "create"),
        (O::Update, "update"),
        (O::Patch, "patch"),
        (O::Delete, "delete"),
        (O::Renew, "update"),
        (O::Revoke, "update"),
        (O::Subscribe, "subscribe"),
    ] {
        for other in Capability::ALL {
            let acl = acl(&[("x", other.as_str())]);
            let decision = acl.decide(operation, &path("x"), None);
            assert_eq!(decision.allowed, other.as_str() == capability, "{operation:?} with {other}");
        }
    }
    assert!(acl(&[]).decide(O::Help, &path("x"), None).allowed);
}

#[test]
fn root_and_no_policies() {
    let root = Acl::new(&[Arc::new(Policy::root())]);
    assert!(root.is_root());
    assert_eq!(root.capabilities(&path("x")), ["root"]);
    let decision = root.decide(Operation::Delete, &path("sys/mounts/x"), None);
    assert!(decision.allowed && decision.sudo);
    let none = Acl::new(&[]);
    assert_eq!(none.decide(Operation::Read, &path("x"), None).reason, Reason::NoRule);
    assert!(Policy::parse(&PolicyName::root(), "").is_err());
}

#[test]
fn golden_case_variants() {
    for (list, asked, expected) in [
        (&[("s/*", "read"), ("s/admin", "deny")][..], "s/ADMIN", false),
        (&[("s/*", "read"), ("s/Admin/*", "deny")], "s/admin/x", false),
        (&[("s/*", "read"), ("s/+/Key", "deny")], "s/a/KEY", false),
        // A more specific allow matches the variant.
        (&[("s/ADMIN", "read"), ("s/admin*", "deny")], "s/ADMIN", true),
        (&[("s/admin/a*", "read"), ("s/Admin/*", "deny")], "s/admin/ab", true),
        // Exact against exact: the spelling that was written wins.
        (&[("s/admin", "read"), ("s/Admin", "deny")], "s/admin", true),
        (&[("s/admin", "read"), ("s/Admin", "deny")], "s/Admin", false),
        (&[("s/admin", "read"), ("s/Admin", "deny")], "s/aDMIN", false),
        // Otherwise a tie is a refusal.
        (&[("s/admin*", "read"), ("s/Admin*", "deny")], "s/admin1", false),
        // Only letters of ASCII fold.
        (&[("s/*", "read"), ("s/é", "deny")], "s/É", true),
        // A refusal that matches as written but loses does not come back by folding.
        (&[("s/admin/+", "read"), ("s/*", "deny")], "s/admin/x", true),
        (&[("a/+/c/+", "read"), ("a/+/+/d", "deny")], "a/b/c/d", true),
    ] {
        let acl = acl(list);
        assert_eq!(reads(&acl, asked), expected, "{list:?} for {asked}");
        assert_eq!(acl.capabilities(&path(asked)) == ["read"], expected, "{list:?} for {asked}");
    }
    let acl = acl(&[("s/*", "list"), ("s/Admin/*", "deny")]);
    assert!(!lists(&acl, "s/admin/"));
    let decision = acl.decide(Operation::List, &path("s/admin/"), None);
    assert_eq!((decision.reason, decision.rule.unwrap().as_str()), (Reason::DeniedCaseVariant, "s/Admin/*"));
}

#[test]
fn boundaries_allow_what_both_allow() {
    let own = || acl(&[("a/*", "read update sudo"), ("b", "read")]);
    let boundary = Arc::new(acl(&[("a/*", "read list"), ("a/x", "deny"), ("c", "read")]));
    let both = Acl::with_boundary(own(), boundary.clone());
    assert!(reads(&both, "a/1"));
    let update = both.decide(Operation::Update, &path("a/1"), None);
    assert_eq!((update.allowed, update.sudo, update.reason), (false, false, Reason::Boundary));
    assert!(!reads(&both, "a/x") && !reads(&both, "b") && !reads(&both, "c"));
    assert_eq!(both.capabilities(&path("a/1")), ["read"]);
    assert_eq!(both.capabilities(&path("a/x")), ["deny"]);
    let root = Acl::with_boundary(Acl::new(&[Arc::new(Policy::root())]), boundary);
    assert!(!root.is_root() && reads(&root, "c") && !reads(&root, "b"));
    assert_eq!(root.capabilities(&path("c")), ["read"]);
    let twice = Acl::with_boundary(root, Arc::new(acl(&[("*", "read"), ("c", "deny")])));
    assert!(reads(&twice, "a/1") && !reads(&twice, "c") && !reads(&twice, "b"));
}

#[test]
fn mounts_are_seen_when_anything_below_is_granted() {
    let acl =
        acl(&[("secret/data/a/*", "read"), ("kv/*", "deny"), ("+/y/z", "list"), ("kubernetes/p*", "read")]);
    for (mount, seen) in [
        ("secret/", true),
        ("secret", true),
        ("kv/", true), // by `+/y/z`
        ("kv/y", true),
        ("kv/x", false),
        ("secrets/x", false),
        ("kubernetes/prod/", true),
        ("kubernetes/dev/", false),
    ] {
        assert_eq!(acl.sees_mount(mount), seen, "{mount}");
    }
}

#[test]
fn administrators_paths() {
    use Operation as O;
    for (operation, text, sudo) in [
        (O::Update, "sys/auth/x", true),
        (O::List, "sys/leases/lookup", true),
        (O::List, "sys/leases/lookup/a/", true),
        (O::Update, "sys/leases/lookup", false),
        (O::Update, "sys/leases/revoke-prefix/a", true),
        (O::Update, "sys/leases/renew", false),
        (O::List, "auth/token/accessors", true),
        (O::Update, "sys/mounts/x", false),
    ] {
        assert_eq!(requires_sudo(operation, &path(text)), sudo, "{text}");
    }
}

#[test]
fn the_default_policy_stands() {
    let values = BTreeMap::from([("identity.entity.id".to_owned(), "e-1".to_owned())]);
    let policy = Policy::parse_templated(&PolicyName::default_policy(), DEFAULT_POLICY, &values).unwrap();
    assert_eq!(policy.dropped().len(), 1, "the entity's name is not known here");
    let acl = Acl::new(&[Arc::new(policy)]);
    assert!(reads(&acl, "auth/token/lookup-self") && reads(&acl, "identity/entity/id/e-1"));
    assert!(!reads(&acl, "identity/entity/id/e-2") && !reads(&acl, "secret/data/x"));
    assert!(acl.decide(Operation::Update, &path("sys/leases/renew"), None).allowed);
    assert!(acl.decide(Operation::List, &path("cubbyhole/"), None).allowed);
}
