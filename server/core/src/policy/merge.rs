//! Placeholders in paths, and what several policies say together about one pattern.

use std::collections::BTreeMap;
use std::time::Duration;

use super::params::ParamRules;
use super::{Capabilities, Capability, Params, PathPattern, PolicyName, Rule};

/// Characters that could turn a value into more of the path, or into a pattern.
const UNSAFE_IN_VALUE: [char; 6] = ['/', '*', '+', ',', '{', '}'];

/// Why a placeholder was not filled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoValue {
    /// The key and what is wrong with it. Never the value.
    pub(super) why: String,
    /// There is a value, but it could reach for other paths.
    pub(super) hostile: bool,
}

impl NoValue {
    fn missing(why: String) -> Self {
        Self { why, hostile: false }
    }

    fn hostile(why: String) -> Self {
        Self { why, hostile: true }
    }
}

/// Puts values in the place of `{{key}}`. The error says which key has no usable value.
pub(super) fn substitute(path: &str, values: &BTreeMap<String, String>) -> Result<String, NoValue> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, tail)) = rest.split_once("{{") {
        let Some((key, after)) = tail.split_once("}}") else {
            return Err(NoValue::missing("'{{' is not closed".to_owned()));
        };
        let key = key.trim();
        let value = values.get(key).ok_or_else(|| NoValue::missing(format!("{key:?} has no value")))?;
        if value.is_empty() {
            return Err(NoValue::missing(format!("{key:?} is empty")));
        }
        if value.contains(UNSAFE_IN_VALUE) || value.chars().any(char::is_control) {
            return Err(NoValue::hostile(format!(
                "the value of {key:?} has a character that is not allowed in a path"
            )));
        }
        // A path made only of a value could still be relative.
        if matches!(value.as_str(), "." | "..") {
            return Err(NoValue::hostile(format!("the value of {key:?} is not a path segment")));
        }
        out.push_str(before);
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// The pattern that covers every value of every placeholder: such a segment becomes `+`, or `*` if it is the
/// last and ended in a star.
pub(super) fn widen(path: &str) -> String {
    // A slash inside the braces must not be taken for a separator.
    let mut flat = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, tail)) = rest.split_once("{{") {
        flat.push_str(before);
        flat.push('\u{0}');
        rest = tail.split_once("}}").map_or("", |(_, after)| after);
    }
    flat.push_str(rest);
    let wide: Vec<&str> = flat
        .split('/')
        .map(|s| match (s.contains('\u{0}'), s.ends_with('*')) {
            (true, true) => "*",
            (true, false) => "+",
            (false, _) => s,
        })
        .collect();
    wide.join("/")
}

/// What all of a token's policies say about one pattern.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) pattern: PathPattern,
    pub(super) capabilities: Capabilities,
    pub(super) params: ParamRules,
    pub(super) min_wrapping_ttl: Option<Duration>,
    pub(super) max_wrapping_ttl: Option<Duration>,
    /// `None`: every type.
    pub(super) event_types: Option<Vec<String>>,
    pub(super) sources: Vec<(PolicyName, Capabilities)>,
    pub(super) pagination_limit: Option<u64>,
}

impl Merged {
    pub(super) fn new(name: &PolicyName, rule: &Rule) -> Self {
        Self {
            pattern: rule.pattern.clone(),
            capabilities: rule.capabilities,
            params: rule.params.clone(),
            min_wrapping_ttl: rule.min_wrapping_ttl,
            max_wrapping_ttl: rule.max_wrapping_ttl,
            event_types: types_of(rule),
            pagination_limit: rule.pagination_limit,
            sources: vec![(name.clone(), rule.capabilities)],
        }
    }

    pub(super) fn add(&mut self, name: &PolicyName, rule: &Rule) {
        let had_subscribe = self.capabilities.has(Capability::Subscribe);
        self.capabilities = self.capabilities.or(rule.capabilities);
        self.params.merge(&rule.params);
        self.min_wrapping_ttl = smaller(self.min_wrapping_ttl, rule.min_wrapping_ttl);
        self.max_wrapping_ttl = smaller(self.max_wrapping_ttl, rule.max_wrapping_ttl);
        self.pagination_limit = smaller(self.pagination_limit, rule.pagination_limit);
        if rule.capabilities.has(Capability::Subscribe) {
            self.event_types = match (had_subscribe, self.event_types.take(), types_of(rule)) {
                (false, _, new) => new,
                (true, Some(mut old), Some(new)) => {
                    old.extend(new);
                    Some(old)
                }
                (true, _, _) => None,
            };
        }
        self.sources.push((name.clone(), rule.capabilities));
    }

    /// What it demands besides, under its names in policies; what is not said is left out. Times are in seconds.
    pub(super) fn limits(&self) -> Params {
        let mut limits = Params::new();
        for (name, lists) in
            [("allowed_parameters", &self.params.allowed), ("denied_parameters", &self.params.denied)]
        {
            if let Some(lists) = lists {
                limits.insert(name.into(), serde_json::json!(lists));
            }
        }
        if !self.params.required.is_empty() {
            limits.insert("required_parameters".into(), serde_json::json!(self.params.required));
        }
        for (name, ttl) in
            [("min_wrapping_ttl", self.min_wrapping_ttl), ("max_wrapping_ttl", self.max_wrapping_ttl)]
        {
            if let Some(ttl) = ttl {
                limits.insert(name.into(), ttl.as_secs().into());
            }
        }
        limits
    }

    /// The policies that grant the capability here, each once.
    pub(super) fn granting(&self, capability: Capability) -> Vec<PolicyName> {
        let mut names: Vec<PolicyName> =
            self.sources.iter().filter(|(_, c)| c.has(capability)).map(|(n, _)| n.clone()).collect();
        names.dedup();
        names
    }
}

fn types_of(rule: &Rule) -> Option<Vec<String>> {
    let all = rule.event_types.is_empty() || rule.event_types.iter().any(|t| t == "*");
    if all { None } else { Some(rule.event_types.clone()) }
}

pub(super) fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
