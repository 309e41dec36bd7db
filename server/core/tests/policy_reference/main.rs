//! The compiled policies against an independent, naive reading of the same rules, over generated policies and
//! paths; and the same run against readings that are wrong on purpose.
//!
//! `COFFER_POLICY_TRIPLES` says how many (policies, path, operation); `make soak` asks for a million.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, reason = "tests")]

mod reference;

use std::sync::Arc;

use coffer_core::path::VaultPath;
use coffer_core::policy::{Acl, Operation, Policy, PolicyName, Reason};
use reference::{FAULTS, Fault, Hits, RULES, Reference, Rules};

/// Splitmix64: small, seeded, the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % below as u64).unwrap()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }
}

const SEGMENTS: [&str; 8] = ["a", "a", "b", "ab", "A", "B", "aB", "a+b"];

fn pattern(dice: &mut Dice) -> String {
    let mut parts: Vec<String> = Vec::new();
    for _ in 0..=dice.roll(4) {
        parts.push(if dice.roll(3) == 0 { "+".into() } else { dice.one(&SEGMENTS).into() });
    }
    let text = parts.join("/");
    match dice.roll(6) {
        // A star after a slash, or after part of a segment.
        0 => format!("{text}/*"),
        1 if !text.ends_with('+') => format!("{text}*"),
        2 => format!("{text}/"),
        _ => text,
    }
}

fn request(dice: &mut Dice) -> String {
    let parts: Vec<&str> = (0..=dice.roll(4)).map(|_| dice.one(&SEGMENTS)).collect();
    let text = parts.join("/");
    if dice.roll(5) == 0 { format!("{text}/") } else { text }
}

/// A path that one of the patterns was made for, more or less.
fn aimed(dice: &mut Dice, policies: &[Rules]) -> String {
    let rules: Vec<&String> = policies.iter().flatten().map(|(p, _)| p).collect();
    let Some(pattern) = rules.get(dice.roll(rules.len().max(1))) else { return request(dice) };
    let mut parts: Vec<String> = Vec::new();
    for segment in pattern.trim_end_matches('*').split('/') {
        parts.push(if segment == "+" { dice.one(&SEGMENTS).into() } else { segment.into() });
    }
    let mut text = parts.join("/");
    if pattern.ends_with('*') {
        text.push_str(dice.one(&SEGMENTS));
    }
    match dice.roll(6) {
        0 => text.to_ascii_uppercase(),
        1 => text.to_ascii_lowercase(),
        2 if !text.ends_with('/') => text + "/",
        _ => text,
    }
}

const CAPABILITIES: [&str; 8] = ["create", "read", "update", "delete", "list", "scan", "patch", "deny"];

fn capabilities(dice: &mut Dice) -> Vec<&'static str> {
    match dice.roll(12) {
        0 => Vec::new(),
        1 | 2 => vec!["deny"],
        _ => (0..=dice.roll(4)).map(|_| CAPABILITIES[dice.roll(7)]).collect(),
    }
}

fn rules(dice: &mut Dice) -> Rules {
    let mut rules: Rules = (0..=dice.roll(6)).map(|_| (pattern(dice), capabilities(dice))).collect();
    if dice.roll(4) == 0 {
        // Two that only their letters tell apart.
        let (first, last) = (dice.one(&SEGMENTS), dice.one(&["a", "b"]));
        rules.push((format!("{first}/+/{last}/+"), capabilities(dice)));
        rules.push((format!("{first}/+/+/{last}"), capabilities(dice)));
    }
    rules
}

fn compiled(policies: &[Rules]) -> Acl {
    let parsed: Vec<Arc<Policy>> = policies
        .iter()
        .enumerate()
        .map(|(n, rules)| {
            let text: String =
                rules.iter().map(|(p, c)| format!("path {p:?} {{ capabilities = {c:?} }}\n")).collect();
            let name = PolicyName::parse(&format!("p{n}")).unwrap();
            Arc::new(Policy::parse(&name, &text).unwrap_or_else(|e| panic!("{text}: {e}")))
        })
        .collect();
    Acl::new(&parsed)
}

const OPERATIONS: [(Operation, &str, &str); 9] = [
    (Operation::Read, "read", "read"),
    (Operation::List, "list", "list"),
    (Operation::List, "list", "list"),
    (Operation::Scan, "scan", "scan"),
    (Operation::Create, "create", "create"),
    (Operation::Update, "update", "update"),
    (Operation::Patch, "patch", "patch"),
    (Operation::Delete, "delete", "delete"),
    (Operation::Renew, "renew", "update"),
];

const PATHS_PER_SET: usize = 20;

fn triples() -> usize {
    std::env::var("COFFER_POLICY_TRIPLES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

#[test]
fn the_compiled_policies_decide_as_the_naive_reading_does_and_wrong_readings_are_caught() {
    let hits = Hits::default();
    let mut at_large: Vec<Fault> = FAULTS.to_vec();
    let (mut total, mut matched) = (0usize, 0usize);
    let mut seed = 0;
    while total < triples() {
        let mut dice = Dice(seed);
        seed += 1;
        let policies: Vec<Rules> = (0..=dice.roll(3)).map(|_| rules(&mut dice)).collect();
        let acl = compiled(&policies);
        let right = Reference::new(&policies, None, Some(&hits));
        let wrong: Vec<_> =
            at_large.iter().map(|f| (*f, Reference::new(&policies, Some(*f), None))).collect();
        let mut caught = Vec::new();
        for _ in 0..PATHS_PER_SET {
            let path = if dice.roll(3) > 0 { aimed(&mut dice, &policies) } else { request(&mut dice) };
            let Ok(asked) = VaultPath::parse(&path) else { continue };
            let (operation, name, needs) = dice.one(&OPERATIONS);
            let decision = acl.decide(operation, &asked, None);
            let verdict = right.decide(name, needs, asked.as_str());
            let ours =
                (decision.allowed, matches!(decision.reason, Reason::Denied | Reason::DeniedCaseVariant));
            assert_eq!(ours, (verdict.allowed, verdict.refused), "seed {seed}: {name} {path}: {policies:?}");
            // Of several refusals in another case any may be named.
            if decision.reason != Reason::DeniedCaseVariant {
                let rule = decision.rule.as_ref().map(|r| r.as_str().to_owned());
                assert_eq!(rule, verdict.rule, "seed {seed}: {name} {path}: {policies:?}");
            }
            total += 1;
            matched += usize::from(decision.rule.is_some());
            for (fault, reference) in &wrong {
                if reference.decide(name, needs, asked.as_str()).allowed != decision.allowed {
                    caught.push(*fault);
                }
            }
        }
        at_large.retain(|fault| !caught.contains(fault));
    }
    let hits = hits.0.into_inner();
    let share = matched * 100 / total;
    println!(
        "{total} triples, {share} % matched a rule, {} of {} faults caught",
        FAULTS.len() - at_large.len(),
        FAULTS.len()
    );
    for (rule, times) in &hits {
        println!("{times:>9} {rule}");
    }
    assert!(share >= 30, "only {share} % matched a rule");
    assert!(at_large.is_empty(), "nobody noticed {at_large:?}");
    for rule in RULES {
        assert!(hits.get(rule).is_some_and(|n| *n >= 20), "{rule} hardly ever decided: {hits:?}");
    }
}

/// Where an explicit deny decides about a path, no spelling of it that differs only in ASCII case is allowed,
/// unless a rule more specific than the deny allows that very spelling.
#[test]
fn a_deny_covers_every_ascii_case_variant_unless_a_more_specific_allow_matches_it() {
    let (mut denied, mut overruled) = (0, 0);
    for seed in 0..(triples() / PATHS_PER_SET) as u64 {
        let mut dice = Dice(seed ^ 0xc1);
        let policies: Vec<Rules> = (0..=dice.roll(3)).map(|_| rules(&mut dice)).collect();
        let acl = compiled(&policies);
        for _ in 0..4 {
            let Ok(path) = VaultPath::parse(&aimed(&mut dice, &policies)) else { continue };
            let (operation, ..) = dice.one(&OPERATIONS);
            let decision = acl.decide(operation, &path, None);
            let Some(deny) = decision.rule.filter(|_| decision.reason == Reason::Denied) else { continue };
            let flip = |dice: &mut Dice, c: char| {
                let other =
                    if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
                if dice.roll(2) == 0 { other } else { c }
            };
            let variant: String = path.as_str().chars().map(|c| flip(&mut dice, c)).collect();
            let decision = acl.decide(operation, &VaultPath::parse(&variant).unwrap(), None);
            denied += 1;
            if decision.allowed {
                overruled += 1;
                let allow = decision.rule.unwrap();
                // Where the deny matches this spelling as well, the ordinary order decided between the two.
                let bare = variant.trim_end_matches('/');
                let both = [variant.as_str(), bare, &format!("{bare}/")].iter().any(|v| deny.matches(v));
                assert!(
                    both || Reference::more_specific(allow.as_str(), deny.as_str()),
                    "{variant}: {allow} is not more specific than {deny}: {policies:?}"
                );
            }
        }
    }
    println!("{denied} refusals, {overruled} variants of them allowed by something more specific");
    assert!(denied > 500 && overruled > 0 && overruled < denied / 2);
}

/// Any other spelling (escapes, dots, doubled slashes) is the same path before a policy sees it, or is refused.
#[test]
fn other_spellings_never_reach_a_policy() {
    for seed in 0..20_000 {
        let mut dice = Dice(seed ^ 0x5be11);
        let path = request(&mut dice);
        let escaped: String = path
            .chars()
            .map(|c| if c != '/' && dice.roll(3) == 0 { format!("%{:02x}", c as u32) } else { c.into() })
            .collect();
        assert_eq!(VaultPath::parse_encoded(&escaped).unwrap().as_str(), path, "{escaped}");
        let at = dice.roll(path.matches('/').count() + 1);
        let mut parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        parts
            .insert(at.min(parts.len()), dice.one(&["", ".", "..", "%2e", ".%2E", "%00", "%0a", "a%2F%2Fb"]));
        let tricked = parts.join("/");
        assert!(tricked.ends_with('/') || VaultPath::parse_encoded(&tricked).is_err(), "{tricked}");
    }
}
