//! Constraints on a request's top-level parameters.

use std::collections::BTreeMap;

use serde_json::Value;

/// A request's parameters: the top level of its body, or its query.
pub type Params = serde_json::Map<String, Value>;

/// Values by (lower-cased) parameter name; an empty list stands for any value.
pub(super) type ValueLists = BTreeMap<String, Vec<Value>>;

/// What a rule demands of parameters.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ParamRules {
    /// If given, other parameters and values are refused. `*` opens the rest.
    pub(super) allowed: Option<ValueLists>,
    /// Refused parameters and values. `*` refuses all.
    pub(super) denied: Option<ValueLists>,
    /// Parameters that must be there.
    pub(super) required: Vec<String>,
}

impl ParamRules {
    /// Adds another rule's demands on the same pattern: lists are joined, "any value" wins over a list.
    pub(super) fn merge(&mut self, other: &Self) {
        merge_lists(&mut self.allowed, other.allowed.as_ref());
        merge_lists(&mut self.denied, other.denied.as_ref());
        for name in &other.required {
            if !self.required.contains(name) {
                self.required.push(name.clone());
            }
        }
    }

    /// What does not let a request with these parameters pass, if anything.
    pub(super) fn fault(&self, params: Option<&Params>) -> Option<ParamFault> {
        let given: Vec<(String, &Value)> =
            params.into_iter().flatten().map(|(k, v)| (k.to_lowercase(), v)).collect();
        if let Some(missing) = self.required.iter().find(|r| !given.iter().any(|(k, _)| k == *r)) {
            return Some(ParamFault::Required(missing.clone()));
        }
        self.denied(&given).or_else(|| self.not_allowed(&given))
    }

    fn denied(&self, given: &[(String, &Value)]) -> Option<ParamFault> {
        let denied = self.denied.as_ref()?;
        if denied.contains_key("*") {
            return given.first().map(|(name, _)| ParamFault::Denied(name.clone()));
        }
        // A number sent as text means the same to most engines, so a denied value is denied in either form.
        let hit = |values: &[Value], v: &Value| {
            listed(values, v) || values.iter().any(|d| plain(d).is_some() && plain(d) == plain(v))
        };
        given.iter().find_map(|(k, v)| match denied.get(k)? {
            values if values.is_empty() => Some(ParamFault::Denied(k.clone())),
            values if hit(values, v) => Some(ParamFault::DeniedValue(k.clone())),
            _ => None,
        })
    }

    fn not_allowed(&self, given: &[(String, &Value)]) -> Option<ParamFault> {
        let allowed = self.allowed.as_ref()?;
        let open = allowed.contains_key("*");
        given.iter().find_map(|(k, v)| match allowed.get(k) {
            Some(values) => (!listed(values, v)).then(|| ParamFault::NotAllowedValue(k.clone())),
            None => (!open).then(|| ParamFault::NotAllowed(k.clone())),
        })
    }
}

/// Which parameter does not pass, and why. Never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamFault {
    /// It is refused, whatever its value.
    #[error("parameter {0:?} is denied")]
    Denied(String),
    /// It is refused with this value.
    #[error("the value of parameter {0:?} is denied")]
    DeniedValue(String),
    /// It is not among those that may be given.
    #[error("parameter {0:?} is not allowed")]
    NotAllowed(String),
    /// Its value is not among those that it may have.
    #[error("the value of parameter {0:?} is not allowed")]
    NotAllowedValue(String),
    /// It must be given.
    #[error("parameter {0:?} is required")]
    Required(String),
}

fn merge_lists(into: &mut Option<ValueLists>, from: Option<&ValueLists>) {
    let Some(from) = from else { return };
    let Some(lists) = into else {
        *into = Some(from.clone());
        return;
    };
    for (name, values) in from {
        match lists.get_mut(name) {
            None => {
                lists.insert(name.clone(), values.clone());
            }
            Some(existing) if existing.is_empty() || values.is_empty() => existing.clear(),
            Some(existing) => existing.extend(values.iter().cloned()),
        }
    }
}

/// Whether the value is in the list; texts in the list may begin or end with `*`.
fn listed(values: &[Value], value: &Value) -> bool {
    values.is_empty()
        || values.iter().any(|listed| match (listed, value) {
            (Value::String(pattern), Value::String(text)) => glob(pattern, text),
            // A fraction is compared as such; of whole numbers a neighbour is another number, however large.
            (Value::Number(a), Value::Number(b)) => {
                a == b || ((a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64())
            }
            (a, b) => a == b,
        })
}

fn glob(pattern: &str, text: &str) -> bool {
    if pattern.len() < 2 {
        return pattern == text;
    }
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) => text.contains(&pattern[1..pattern.len() - 1]),
        (Some(end), None) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => pattern == text,
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}
