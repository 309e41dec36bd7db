//! Policy texts, placeholders, parameters; and properties over random policies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::tests::{acl, path, policy, rules};
use super::*;
use crate::time::Timestamp;

fn parse(source: &str) -> Result<Policy, PolicyError> {
    Policy::parse(&PolicyName::parse("p").unwrap(), source)
}

#[test]
fn bad_policies_are_refused_with_their_line() {
    for (source, says) in [
        ("path \"a\" {\n capabilities = [\"raed\"] }", "line 2, column 2: invalid capability \"raed\""),
        ("path \"a\" { capabilites = [\"read\"] }", "invalid key \"capabilites\""),
        ("paths \"a\" { capabilities = [\"read\"] }", "invalid key \"paths\""),
        ("path \"a\" { }", "path has no capabilities"),
        ("path \"a/*/b\" { capabilities = [\"read\"] }", "'*' is only allowed as the last"),
        ("\npath \"a/+*\" { capabilities = [\"read\"] }", "line 2: path \"a/+*\": '+*' is forbidden"),
        ("path \"a/{{x}}/*/b\" { capabilities = [\"read\"] }", "'*' is only allowed as the last"),
        ("path \"a\" { capabilities = [\"read\"] mfa_methods = [\"x\"] }", "not supported by this server"),
        ("path \"a\" { policy = \"admin\" }", "invalid policy \"admin\""),
        ("path \"a\" { capabilities = \"read\" }", "must be a list of strings"),
        (
            "path \"a\" { capabilities = [\"read\"] allowed_parameters = { x = 1 } }",
            "must be a list of values",
        ),
        ("path \"a\" {", "expected '}'"),
    ] {
        let error = parse(source).unwrap_err().to_string();
        assert!(error.contains(says), "{source}: {error}");
    }
    assert_eq!(parse(&" ".repeat(MAX_POLICY_BYTES + 1)).unwrap_err(), PolicyError::TooLarge);
    assert_eq!(parse(&rules(&vec![("a", "read"); 10_001])).unwrap_err(), PolicyError::TooManyRules);
}

#[test]
fn json_and_the_old_spelling() {
    let json = parse(r#"{"path": {"a/*": {"capabilities": ["read"]}, "b": {"policy": "write"}}}"#).unwrap();
    assert_eq!(json.rules().len(), 2);
    let acl = Acl::new(&[Arc::new(json)]);
    assert_eq!(acl.capabilities(&path("a/x")), ["read"]);
    assert_eq!(acl.capabilities(&path("b")), ["create", "delete", "list", "read", "update"]);
}

#[test]
fn names() {
    assert_eq!(PolicyName::parse("K8s/Prod/Shop/vpol/App").unwrap().as_str(), "k8s/prod/shop/vpol/app");
    for bad in ["", "a//b", "/a", "a/", "a/../b", "a\nb", "a*", "ü", " a", &"x".repeat(513)] {
        assert!(PolicyName::parse(bad).is_err(), "{bad}");
    }
    assert!(PolicyName::parse("ROOT").unwrap().is_root());
    assert!(serde_json::from_str::<PolicyName>("\"a,b\"").is_err());
}

#[test]
fn placeholders() {
    let source = rules(&[
        ("secret/data/{{auth.metadata.ns}}/*", "read"),
        ("x/{{ identity.entity.id }}", "read"),
        ("plain", "read"),
    ]);
    let name = PolicyName::parse("p").unwrap();
    let with = |pairs: &[(&str, &str)]| {
        let values = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Policy::parse_templated(&name, &source, &values).unwrap()
    };
    let good = with(&[("auth.metadata.ns", "shop"), ("identity.entity.id", "e1")]);
    assert!(good.dropped().is_empty() && good.is_templated());
    let acl = Acl::new(&[Arc::new(good)]);
    assert_eq!(acl.capabilities(&path("secret/data/shop/db")), ["read"]);
    assert_eq!(acl.capabilities(&path("secret/data/other/db")), ["deny"]);
    assert_eq!(acl.capabilities(&path("x/e1")), ["read"]);
    for bad in ["a/b", "*", "+", "a*", "a+b", "a,b", "{{x}}", "}", "", "..", ".", "a\nb"] {
        let policy = with(&[("auth.metadata.ns", bad), ("identity.entity.id", "e1")]);
        assert_eq!(policy.rules().len(), 2, "{bad}");
        assert_eq!(policy.dropped()[0].path, "secret/data/{{auth.metadata.ns}}/*");
        assert!(bad.len() < 2 || !policy.dropped()[0].why.contains(bad), "values are not repeated");
    }
    assert_eq!(with(&[]).dropped().len(), 2, "unknown keys drop their rules");
    assert_eq!(parse(&source).unwrap().rules().len(), 1);
}

#[test]
fn a_refusal_with_a_bad_placeholder_is_widened_not_dropped() {
    let source = rules(&[
        ("s/*", "read"),
        ("s/{{auth.metadata.ns}}/private", "deny"),
        ("t/*", "read"),
        ("t/x-{{auth.metadata.ns}}*", "deny"),
    ]);
    let values = BTreeMap::from([("auth.metadata.ns".to_owned(), "*".to_owned())]);
    let policy = Policy::parse_templated(&PolicyName::parse("p").unwrap(), &source, &values).unwrap();
    assert!(policy.dropped().iter().all(|d| d.widened));
    let acl = Acl::new(&[Arc::new(policy)]);
    assert_eq!(acl.capabilities(&path("s/any/private")), ["deny"]);
    assert_eq!(acl.capabilities(&path("s/any/public")), ["read"]);
    assert_eq!(acl.capabilities(&path("t/x-1")), ["deny"]);
}

fn permits(constraints: &str, body: &str) -> bool {
    let source = format!("path \"x\" {{ capabilities = [\"update\"]\n {constraints} }}");
    let acl = Acl::new(&[policy("p", &source)]);
    let params: Params = serde_json::from_str(body).unwrap();
    acl.decide(Operation::Update, &path("x"), Some(&params)).allowed
}

#[test]
fn golden_parameters() {
    for (constraints, body, expected) in [
        ("required_parameters = [\"a\"]", "{}", false),
        ("required_parameters = [\"A\"]", r#"{"a": 1}"#, true),
        ("denied_parameters = { \"*\" = [] }", "{}", true),
        ("denied_parameters = { \"*\" = [] }", r#"{"a": 1}"#, false),
        ("denied_parameters = { a = [] }", r#"{"A": 1}"#, false),
        ("denied_parameters = { a = [] }", r#"{"b": 1}"#, true),
        ("denied_parameters = { a = [\"x\", \"y*\"] }", r#"{"a": "yes"}"#, false),
        ("denied_parameters = { a = [\"x\"] }", r#"{"a": "z"}"#, true),
        ("denied_parameters = { a = [5] }", r#"{"a": "5"}"#, false),
        ("allowed_parameters = { a = [] }", r#"{"a": [1, 2]}"#, true),
        ("allowed_parameters = { a = [] }", r#"{"a": 1, "b": 2}"#, false),
        ("allowed_parameters = { a = [] }", "{}", true),
        ("allowed_parameters = { a = [\"*x*\"] }", r#"{"a": "axb"}"#, true),
        ("allowed_parameters = { a = [\"*x\"] }", r#"{"a": "axb"}"#, false),
        ("allowed_parameters = { a = [\"*\"] }", r#"{"a": "q"}"#, false),
        ("allowed_parameters = { a = [1, true] }", r#"{"a": 1.0}"#, true),
        ("allowed_parameters = { a = [9007199254740993] }", r#"{"a": 9007199254740993}"#, true),
        ("allowed_parameters = { a = [9007199254740993] }", r#"{"a": 9007199254740992}"#, false),
        ("allowed_parameters = { a = [1, true] }", r#"{"a": "1"}"#, false),
        ("allowed_parameters = { a = [\"x\"] \"*\" = [] }", r#"{"a": "x", "b": 1}"#, true),
        ("allowed_parameters = { a = [\"x\"] \"*\" = [] }", r#"{"a": "y", "b": 1}"#, false),
        ("allowed_parameters = { \"*\" = [] } denied_parameters = { a = [] }", r#"{"a": 1}"#, false),
    ] {
        assert_eq!(permits(constraints, body), expected, "{constraints} for {body}");
    }
}

#[test]
fn parameters_and_wrapping_merge() {
    let text = |more: &str| format!("path \"x\" {{ capabilities = [\"update\"]\n {more} }}");
    let a = policy("a", &text("allowed_parameters = { a = [\"1\"] b = [\"1\"] } max_wrapping_ttl = \"1h\""));
    let b = policy("b", &text("allowed_parameters = { a = [\"2\"] b = [] } max_wrapping_ttl = 60"));
    let acl = Acl::new(&[a, b]);
    let may = |body: &str| {
        acl.decide(Operation::Update, &path("x"), Some(&serde_json::from_str(body).unwrap())).allowed
    };
    assert!(may(r#"{"a": "1"}"#) && may(r#"{"a": "2"}"#) && may(r#"{"b": "9"}"#));
    assert!(!may(r#"{"a": "3"}"#) && !may(r#"{"c": "1"}"#));
    let decision = acl.decide(Operation::Update, &path("x"), None);
    assert_eq!(decision.max_wrapping_ttl, Some(std::time::Duration::from_secs(60)));
}

#[test]
fn event_types_merge() {
    let text = |types: &str| format!("path \"x\" {{ capabilities = [\"subscribe\"]\n {types} }}");
    let kv = policy("a", &text("subscribe_event_types = [\"kv-v2/data-write\"]"));
    let db = policy("b", &text("subscribe_event_types = [\"database/creds-create\"]"));
    let any = policy("c", &text(""));
    let types =
        |list: &[Arc<Policy>]| Acl::new(list).decide(Operation::Subscribe, &path("x"), None).event_types;
    assert_eq!(types(&[kv.clone(), db]).unwrap().len(), 2);
    assert_eq!(types(&[kv, any]), None);
}

#[test]
fn golden_containment() {
    for (outer, inner, expected) in [
        ("*", "a/+/b*", true),
        ("a/*", "a/b", true),
        ("a/*", "a/+", true),
        ("a/*", "a/+/c*", true),
        ("a/*", "a", false),
        ("a/*", "ab/*", false),
        ("a*", "ab/*", true),
        ("a/b*", "a/+", false),
        ("a/b*", "a/*", false),
        ("a/+", "a/b", true),
        ("a/+", "a/b*", false),
        ("a/+", "a/b/c", false),
        ("a/+/c", "a/+/c", true),
        ("a/+/c", "+/b/c", false),
        ("a/b", "a/+", false),
        ("a/b", "a/b", true),
        ("+/*", "a/b/c", true),
        ("a/+/*", "a/b/", true),
        ("a/+/*", "a/b", false),
    ] {
        let p = |t: &str| PathPattern::parse(t).unwrap();
        assert_eq!(contains(&p(outer), &p(inner)), expected, "{outer} ⊇ {inner}");
    }
}

fn pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![4 => "[abAéè]{1,3}", 1 => Just("+".to_owned())];
    (proptest::collection::vec(segment, 1..4), prop_oneof![Just(""), Just("/*"), Just("/"), Just("*")])
        .prop_map(|(segments, end)| {
            let text = segments.join("/");
            if end == "*" && text.ends_with('+') { text } else { text + end }
        })
}

fn request() -> impl Strategy<Value = String> {
    (proptest::collection::vec("[abAéè]{1,3}", 1..5), prop_oneof![Just(""), Just("/")])
        .prop_map(|(segments, end)| segments.join("/") + end)
}

fn grants() -> impl Strategy<Value = Vec<(String, &'static str)>> {
    let caps = prop_oneof![3 => Just("read list"), 1 => Just("deny"), 1 => Just("update")];
    proptest::collection::vec((pattern(), caps), 0..8)
}

fn build(list: &[(String, &str)]) -> Acl {
    acl(&list.iter().map(|(p, c)| (p.as_str(), *c)).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The trie decides as a plain loop over all rules would.
    #[test]
    fn the_trie_is_the_loop(list in grants(), asked in request()) {
        let acl = build(&list);
        let rule = acl.decide(Operation::Read, &path(&asked), None);
        prop_assume!(rule.reason != Reason::DeniedCaseVariant);
        let best = list.iter().map(|(p, _)| PathPattern::parse(p).unwrap()).filter(|p| p.matches(&asked))
            .max_by(|a, b| a.priority(b));
        prop_assert_eq!(rule.rule, best);
    }

    /// Listings take the exact rules first, then the others, each with the slash before without it.
    #[test]
    fn listings_keep_their_order(list in grants(), asked in request()) {
        let acl = build(&list);
        let decision = acl.decide(Operation::List, &path(&asked), None);
        prop_assume!(decision.reason != Reason::DeniedCaseVariant);
        let bare = asked.trim_end_matches('/');
        let best = |exact: bool, form: &str| list.iter().map(|(p, _)| PathPattern::parse(p).unwrap())
            .filter(|p| p.is_exact() == exact && p.matches(form)).max_by(|a, b| a.priority(b));
        let dir = format!("{bare}/");
        let expected = best(true, &dir).or(best(true, bare)).or(best(false, &dir)).or(best(false, bare));
        prop_assert_eq!(decision.rule, expected);
    }

    /// Refusing what decided, or the very path, never allows more.
    #[test]
    fn an_added_refusal_on_the_deciding_pattern_refuses(list in grants(), asked in request()) {
        let before = build(&list).decide(Operation::Read, &path(&asked), None);
        let mut more = list.clone();
        more.push((before.rule.map_or(asked.clone(), |r| r.as_str().to_owned()), "deny"));
        prop_assert!(!build(&more).decide(Operation::Read, &path(&asked), None).allowed);
    }

    /// A refusal added anywhere never allows a path that its pattern does not make less specific: what was
    /// refused stays refused.
    #[test]
    fn refusals_are_monotone(list in grants(), deny in pattern(), asked in request()) {
        let before = build(&list).decide(Operation::Read, &path(&asked), None).allowed;
        let mut more = list.clone();
        more.push((deny, "deny"));
        let after = build(&more).decide(Operation::Read, &path(&asked), None).allowed;
        prop_assert!(before || !after);
    }

    /// An exact refusal covers every spelling of the path, unless that very spelling is granted exactly.
    #[test]
    fn exact_refusals_cover_case_variants(list in grants(), asked in "[abAB]{1,3}/[abAB]{1,3}") {
        let mut more = list.clone();
        more.push((asked.to_ascii_lowercase(), "deny"));
        let granted_exactly = list.iter().any(|(p, _)| *p == asked);
        prop_assume!(!granted_exactly);
        prop_assert!(!build(&more).decide(Operation::Read, &path(&asked), None).allowed);
    }

    /// Containment is what it says, checked by sampling paths.
    #[test]
    fn containment_is_sound(outer in pattern(), inner in pattern(), asked in request()) {
        let (outer, inner) = (PathPattern::parse(&outer).unwrap(), PathPattern::parse(&inner).unwrap());
        if contains(&outer, &inner) && inner.matches(&asked) {
            prop_assert!(outer.matches(&asked));
        }
    }

    #[test]
    fn a_boundary_never_adds(list in grants(), bound in grants(), asked in request()) {
        let both = Acl::with_boundary(build(&list), Arc::new(build(&bound)));
        for operation in [Operation::Read, Operation::List, Operation::Update] {
            let of = |acl: &Acl| acl.decide(operation, &path(&asked), None).allowed;
            prop_assert_eq!(of(&both), of(&build(&list)) && of(&build(&bound)));
        }
    }

    #[test]
    fn policies_survive_printing(list in grants()) {
        let policy = policy("p", &rules(&list.iter().map(|(p, c)| (p.as_str(), *c)).collect::<Vec<_>>()));
        let printed: String = policy.rules().iter().map(|r| {
            let caps: Vec<&str> = r.capabilities().iter().map(Capability::as_str).collect();
            rules(&[(r.pattern().as_str(), &caps.join(" "))])
        }).collect();
        let again = Policy::parse(policy.name(), &printed).unwrap();
        let flat = |p: &Policy| p.rules().iter().map(|r| (r.pattern().clone(), r.capabilities())).collect::<Vec<_>>();
        prop_assert_eq!(flat(&policy), flat(&again));
    }
}

#[test]
fn rules_end_and_listings_have_a_limit() {
    let source = "path \"a/*\" { capabilities = [\"list\"] pagination_limit = 7 expiration = \"2026-01-01T00:00:10Z\" }\n\
        path \"a/b\" { capabilities = [\"deny\"] expiration = 1767225605 }\n\
        path \"c\" { capabilities = [\"read\"] pagination_limit = \"0\" }";
    let read = parse(source).unwrap();
    let start = Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
    let at = |secs| start.plus(Duration::from_secs(secs));
    assert_eq!(read.next_end(), Some(at(5)));
    let capabilities = |secs| {
        let acl = Acl::new(&[Arc::new(read.clone().at(at(secs)))]);
        ["a/b", "a/x", "c"].map(|p| acl.capabilities(&path(p))[0])
    };
    assert_eq!(capabilities(4), ["deny", "list", "read"]);
    assert_eq!(capabilities(5), ["list", "list", "read"], "a refusal ends as well");
    assert_eq!(capabilities(10), ["deny", "deny", "read"], "no rule is left");
    let more = "path \"a/*\" { capabilities = [\"list\"] pagination_limit = 9 }\npath \"c\" { capabilities = [\"list\"] }";
    let acl = Acl::new(&[Arc::new(read.at(start)), policy("q", more)]);
    let limit = |p| acl.decide(Operation::List, &path(p), None).pagination_limit;
    assert_eq!((limit("a/x/"), limit("c/")), (Some(7), None));
    for wrong in ["pagination_limit = -1", "pagination_limit = \"x\"", "expiration = \"tomorrow\""] {
        assert!(parse(&format!("path \"a\" {{ capabilities = [\"read\"]\n {wrong} }}")).is_err(), "{wrong}");
    }
}
