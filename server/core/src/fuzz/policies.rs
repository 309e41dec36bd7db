//! Policies, the language they are written in, patterns and names.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_fuzz::{Target, kind, text};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value as Json;

use crate::hcl::{self, Body, Value};
use crate::password_policy::{MAX_LENGTH, PasswordPolicy};
use crate::path::VaultPath;
use crate::policy::{Acl, Capability, Operation, PathPattern, Policy, PolicyName, Reason, contains};

const HCL: [&str; 24] = [
    "path ",
    "\"secret/*\"",
    "\"+/a\"",
    "capabilities = [\"read\"]",
    "\"deny\"",
    "\"sudo\"",
    "policy = \"write\"",
    "allowed_parameters = { \"*\" = [] }",
    "denied_parameters",
    "min_wrapping_ttl = \"1m\"",
    "{{identity.entity.id}}",
    "{{",
    "}}",
    "<<EOF\n",
    "<<-EOF\n",
    "\nEOF\n",
    "/*",
    "*/",
    "//",
    "#",
    "${",
    "\\u00e9",
    "\\ud83d\\ude00",
    "\u{feff}",
];

/// What JSON there is, HCL's reader reads as JSON's does.
#[test]
fn hcl_reads_every_json_object_as_json_does() {
    Target::new("hcl").words(&HCL).run(|input| {
        let source = text(input);
        let read = hcl::parse(&source);
        if let Ok(body) = &read {
            assert_eq!(hcl::parse(&source).as_ref(), Ok(body));
            let entries = count(body);
            assert!(entries <= source.len(), "{entries} entries");
            for entry in &body.entries {
                assert!(entry.at.line as usize <= source.lines().count().max(1));
            }
        }
        match (serde_json::from_str::<Json>(&source), &read) {
            (Ok(Json::Object(map)), Ok(body)) => {
                assert_eq!(
                    comparable(&Value::Object(body.clone()).to_json()),
                    comparable(&Json::Object(map))
                );
                "json".into()
            }
            (Ok(Json::Object(_)), Err(why)) => {
                let known = ["given twice", "nested deeper", "invalid number"];
                assert!(known.iter().any(|k| why.message.contains(k)), "JSON that is refused: {why}");
                kind(&why.message)
            }
            (_, Ok(body)) => format!("hcl {}", body.entries.len().min(9)),
            (_, Err(why)) => kind(&why.message),
        }
    });
}

/// Numbers apart: the two readers have different types for them, and only one is exact to the last digit.
fn comparable(json: &Json) -> Json {
    match json {
        Json::Number(n) => n.as_f64().map_or(Json::Null, |n| format!("{n:.12e}").into()),
        Json::Array(items) => items.iter().map(comparable).collect(),
        Json::Object(map) => map.iter().map(|(k, v)| (k.clone(), comparable(v))).collect(),
        other => other.clone(),
    }
}

fn count(body: &Body) -> usize {
    let value = |value: &Value| if let Value::Object(inner) = value { count(inner) } else { 0 };
    body.entries.iter().map(|entry| 1 + value(&entry.value)).sum()
}

const OPERATIONS: [Operation; 6] = [
    Operation::Read,
    Operation::List,
    Operation::Create,
    Operation::Update,
    Operation::Delete,
    Operation::Patch,
];

/// The first line is a path, the rest a policy. What is granted is granted by a rule that says so and matches; a refusal
/// of the path is final; a boundary never adds anything.
#[test]
fn a_policy_never_grants_more_than_is_written() {
    Target::new("policy").words(&HCL).run(|input| {
        let given = text(input);
        let (path, source) = given.split_once('\n').unwrap_or((&given, ""));
        let name = PolicyName::parse("fuzz").unwrap();
        let values = BTreeMap::from([("identity.entity.id".to_owned(), "me".to_owned())]);
        let policy = match Policy::parse_templated(&name, source, &values) {
            Ok(policy) => Arc::new(policy),
            Err(why) => return kind(&why),
        };
        let Ok(path) = VaultPath::parse(path) else {
            return format!("rules {}", policy.rules().len().min(9));
        };
        let acl = Acl::new(&[Arc::clone(&policy)]);
        let refusing = format!(
            "path \"{0}\" {{ capabilities = [\"deny\"] }}",
            path.as_str().replace(['"', '\\', '$'], "x")
        );
        let refusing = Policy::parse(&PolicyName::parse("no").unwrap(), &refusing).map(Arc::new);
        let mut answer = String::new();
        for operation in OPERATIONS {
            let decision = acl.decide(operation, &path, None);
            let needed = operation.needs().unwrap();
            if decision.allowed {
                assert!(written(&policy, needed, &path), "{operation:?} is granted and nowhere written");
                assert!(decision.capabilities.has(needed) && !decision.granting_policies.is_empty());
            }
            if decision.sudo {
                assert!(written(&policy, Capability::Sudo, &path));
            }
            let bounded = Acl::with_boundary(
                Acl::new(&[Arc::clone(&policy)]),
                Arc::new(Acl::new(&[Arc::clone(&policy)])),
            );
            assert_eq!(bounded.decide(operation, &path, None).allowed, decision.allowed, "within itself");
            let nothing =
                Acl::with_boundary(Acl::new(&[Arc::new(Policy::root())]), Arc::new(acl_of(&policy)));
            assert_eq!(nothing.decide(operation, &path, None).allowed, decision.allowed, "root within it");
            if let Ok(no) = &refusing
                && no.rules()[0].pattern().as_str() == path.as_str()
                && !operation.needs().is_some_and(|_| path.is_dir())
                && !matches!(operation, Operation::List)
            {
                let refused = Acl::new(&[Arc::clone(&policy), Arc::clone(no)]).decide(operation, &path, None);
                assert!(!refused.allowed && refused.reason == Reason::Denied, "{:?}", refused.reason);
            }
            answer.push_str(&format!("{:?}", decision.reason));
        }
        answer
    });
}

fn acl_of(policy: &Arc<Policy>) -> Acl {
    Acl::new(&[Arc::clone(policy)])
}

/// Whether some rule that matches, with or without LIST's slash, names the capability.
fn written(policy: &Policy, capability: Capability, path: &VaultPath) -> bool {
    let forms = [path.as_str().to_owned(), path.to_dir().as_str().to_owned(), path.trimmed().to_owned()];
    policy.rules().iter().any(|rule| {
        rule.capabilities().has(capability) && forms.iter().any(|form| rule.pattern().matches(form))
    })
}

/// Two lines: patterns.
#[test]
fn a_pattern_covers_itself_and_what_it_covers_it_matches() {
    let words = ["+", "*", "/", "+/", "/*", "a", "..", ".", "é", "secret/data/"];
    Target::new("pattern").words(&words).run(|input| {
        let given = text(input);
        let (one, other) = given.split_once('\n').unwrap_or((&given, "secret/+/app"));
        let outer = match PathPattern::parse(one) {
            Ok(outer) => outer,
            Err(why) => return kind(&why),
        };
        assert_eq!(PathPattern::parse(outer.as_str()).as_ref(), Ok(&outer));
        assert!(contains(&outer, &outer));
        let Ok(inner) = PathPattern::parse(other) else { return "one".into() };
        let covers = contains(&outer, &inner);
        // An example of what the inner one matches: any segment for `+`, any rest for `*`.
        let example: Vec<&str> = inner.as_str().split('/').map(|s| if s == "+" { "zz" } else { s }).collect();
        let example = example.join("/");
        for rest in ["", "x", "x/y"] {
            let example = example.strip_suffix('*').map_or(example.clone(), |start| format!("{start}{rest}"));
            assert!(example.is_empty() || inner.matches(&example), "{example}");
            assert!(
                !covers || example.is_empty() || outer.matches(&example),
                "covered, and not matched: {example}"
            );
        }
        format!("{covers} {} {}", outer.wildcards(), outer.is_prefix())
    });
}

#[test]
fn a_policy_name_is_a_fixed_point_and_root_is_no_other_word() {
    let words = ["root", "ROOT", "/", "..", " ", "default", "é", ".", "K"];
    Target::new("policy-name").words(&words).run(|input| {
        let given = text(input);
        let Ok(name) = PolicyName::parse(&given) else { return "refused".into() };
        assert_eq!(PolicyName::parse(name.as_str()), Ok(name.clone()));
        assert_eq!(name.is_root(), given.eq_ignore_ascii_case("root"));
        format!("{}", name.as_str().split('/').count())
    });
}

/// The first line is a value that a client chose, the second a path with a placeholder.
#[test]
fn a_value_in_a_templated_path_stays_one_segment() {
    let words = ["{{x}}", "{{", "}}", "/", "*", "+", "..", ".", "%2f", "\u{0}", "{{ x }}"];
    Target::new("policy-template").words(&words).runs(5_000).run(|input| {
        let given = text(input);
        let (value, path) = given.split_once('\n').unwrap_or((&given, "secret/{{x}}/own"));
        if path.contains(['"', '\\', '$', '\n']) {
            return "no source".into();
        }
        let source = format!("path \"{path}\" {{ capabilities = [\"read\"] }}");
        let name = PolicyName::parse("t").unwrap();
        let read = |value: &str| {
            let values = BTreeMap::from([("x".to_owned(), value.to_owned())]);
            Policy::parse_templated(&name, &source, &values)
        };
        let (filled, plain) = match (read(value), read("plain")) {
            (Ok(filled), Ok(plain)) => (filled, plain),
            (Err(why), _) | (_, Err(why)) => return kind(&why),
        };
        let (Some(filled), Some(plain)) = (filled.rules().first(), plain.rules().first()) else {
            return "dropped".into();
        };
        let shape = |rule: &crate::policy::Rule| {
            let pattern = rule.pattern();
            (pattern.as_str().split('/').count(), pattern.wildcards(), pattern.is_prefix())
        };
        assert_eq!(shape(filled), shape(plain), "{:?}", filled.pattern());
        format!("{:?}", shape(filled))
    });
}

/// Whatever is asked for, a password has as many characters as were asked for, and making it ends.
#[test]
fn a_password_policy_makes_passwords_of_its_length() {
    let words = [
        "length = 20",
        "rule \"charset\" {",
        "charset = \"abc\"",
        "min-chars = 1",
        "}",
        "0",
        "512",
        "513",
        "\"\"",
        "é",
        "64",
    ];
    Target::new("password-policy").words(&words).runs(2_000).run(|input| {
        let policy = match PasswordPolicy::parse(&text(input)) {
            Ok(policy) => policy,
            Err(why) => return kind(&why),
        };
        let mut rng = StdRng::seed_from_u64(1);
        let one = policy.generate(&mut rng).expose().chars().count();
        let other = policy.generate(&mut rng).expose().chars().count();
        assert!(one == other && (1..=MAX_LENGTH).contains(&one), "{one} and {other} characters");
        format!("{}", one.min(40))
    });
}
