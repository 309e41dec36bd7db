//! Golden explanations: the whole text of each, and that they never differ from the decision.

use std::sync::Arc;

use super::tests::{path, policy};
use super::*;

fn acl() -> Acl {
    let team = policy(
        "team",
        r#"
        path "secret/data/*" { capabilities = ["read", "list"] }
        path "secret/data/team/*" { capabilities = ["create", "update", "read"] }
        path "secret/data/team/private" { capabilities = ["deny"] }
        path "sys/audit" { capabilities = ["read"] }
        path "database/config/app" {
            capabilities = ["update"]
            denied_parameters = { "password" = [] }
            required_parameters = ["url"]
            allowed_parameters = { "url" = ["postgres://*"], "max" = [] }
        }
        "#,
    );
    let more = policy("more", r#"path "secret/data/team/*" { capabilities = ["delete"] }"#);
    Acl::new(&[team, more])
}

fn told(acl: &Acl, operation: Operation, text: &str, params: Option<&str>) -> String {
    let params: Option<Params> = params.map(|json| serde_json::from_str(json).unwrap());
    let explained = acl.explain(operation, &path(text), params.as_ref());
    let decided = acl.decide(operation, &path(text), params.as_ref());
    let free = operation == Operation::Help;
    let sudo = free || !requires_sudo(operation, &path(text)) || decided.sudo;
    assert_eq!(explained.allowed, decided.allowed && sudo, "{explained}");
    assert_eq!(explained.reason, decided.reason);
    format!("[{}] {explained}", explained.verdict())
}

#[track_caller]
fn check(found: &str, wanted: &[&str]) {
    assert_eq!(found, wanted.join("\n"));
}

#[test]
fn the_rule_that_decides_is_named_with_everything_that_matches() {
    check(
        &told(&acl(), Operation::Read, "secret/data/team/a", None),
        &[
            "[granted] read on \"secret/data/team/a\" is allowed.",
            "Rule \"secret/data/team/*\" decides, and grants it.",
            "Policy \"team\" says [create, read, update] there.",
            "Policy \"more\" says [delete] there.",
            "Rule \"secret/data/*\" of \"team\" matches too, and decides nothing.",
        ],
    );
}

#[test]
fn what_is_missing_is_named() {
    check(
        &told(&acl(), Operation::List, "secret/data/team", None),
        &[
            "[not_granted] list on \"secret/data/team/\" is denied.",
            "Rule \"secret/data/team/*\" decides, and does not grant it.",
            "Policy \"team\" says [create, read, update] there.",
            "Policy \"more\" says [delete] there.",
            "Rule \"secret/data/*\" of \"team\" matches too, and decides nothing.",
            "Missing: list.",
        ],
    );
    check(
        &told(&acl(), Operation::Delete, "other/x", None),
        &["[no_rule] delete on \"other/x\" is denied.", "No rule matches.", "Missing: delete."],
    );
    check(
        &told(&acl(), Operation::Read, "sys/audit", None),
        &[
            "[sudo_missing] read on \"sys/audit\" is denied.",
            "Rule \"sys/audit\" grants the operation, but the path is for administrators and needs sudo.",
            "Policy \"team\" says [read] there.",
            "Missing: sudo.",
        ],
    );
}

#[test]
fn refusals_are_named_in_whatever_case_they_are_asked_for() {
    check(
        &told(&acl(), Operation::Read, "secret/data/team/private", None),
        &[
            "[denied] read on \"secret/data/team/private\" is denied.",
            "Rule \"secret/data/team/private\" decides, and refuses everything.",
            "Policy \"team\" says [deny] there.",
            "Rule \"secret/data/team/*\" of \"team\", \"more\" matches too, and decides nothing.",
            "Rule \"secret/data/*\" of \"team\" matches too, and decides nothing.",
            "Missing: read.",
        ],
    );
    check(
        &told(&acl(), Operation::Read, "secret/data/team/Private", None),
        &[
            "[denied_case_variant] read on \"secret/data/team/Private\" is denied.",
            "Rule \"secret/data/team/private\" refuses this path in another spelling of upper and lower case.",
            "Policy \"team\" says [deny] there.",
            "Rule \"secret/data/team/*\" of \"team\", \"more\" matches too, and decides nothing.",
            "Rule \"secret/data/*\" of \"team\" matches too, and decides nothing.",
            "Missing: read.",
        ],
    );
}

#[test]
fn a_parameter_that_does_not_pass_is_named_and_its_value_is_not() {
    for (params, fault) in [
        ("{}", "parameter \"url\" is required"),
        (r#"{"url": "postgres://a", "Password": "s3cret"}"#, "parameter \"password\" is denied"),
        (r#"{"url": "mysql://s3cret"}"#, "the value of parameter \"url\" is not allowed"),
        (r#"{"url": "postgres://a", "other": "s3cret"}"#, "parameter \"other\" is not allowed"),
    ] {
        let found = told(&acl(), Operation::Update, "database/config/app", Some(params));
        let wanted = format!("decides, and does not let the parameters pass: {fault}.");
        assert!(found.contains(&wanted) && !found.contains("s3cret"), "{found}");
    }
    let fine =
        told(&acl(), Operation::Update, "database/config/app", Some(r#"{"url": "postgres://a", "max": 1}"#));
    assert!(fine.starts_with("[granted]"), "{fine}");
}

#[test]
fn a_boundary_explains_itself() {
    let edge = Acl::new(&[policy("edge", r#"path "secret/data/team/b" { capabilities = ["read"] }"#)]);
    let bounded = Acl::with_boundary(acl(), Arc::new(edge));
    check(
        &told(&bounded, Operation::Read, "secret/data/team/a", None),
        &[
            "[boundary] read on \"secret/data/team/a\" is denied.",
            "The policies allow it, the boundary does not.",
            "Policy \"team\" says [create, read, update] there.",
            "Policy \"more\" says [delete] there.",
            "Rule \"secret/data/*\" of \"team\" matches too, and decides nothing.",
            "Missing: read.",
            "By the boundary alone: read on \"secret/data/team/a\" is denied. No rule matches. Missing: read.",
        ],
    );
    assert!(told(&bounded, Operation::Read, "secret/data/team/b", None).starts_with("[granted]"));
}

#[test]
fn root_and_what_is_free_have_no_rule() {
    let root = Acl::new(&[Arc::new(Policy::root())]);
    check(
        &told(&root, Operation::Read, "sys/audit", None),
        &["[root] read on \"sys/audit\" is allowed.", "The root policy allows everything."],
    );
    check(
        &told(&acl(), Operation::Help, "sys/audit", None),
        &["[free] help on \"sys/audit\" is allowed.", "It is free for all."],
    );
}
