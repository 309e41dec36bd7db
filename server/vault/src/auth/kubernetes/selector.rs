//! Label selectors of namespaces: Kubernetes' own form, as JSON or YAML.
//!
//! What they mean is in the Kubernetes API's `LabelSelector`; an empty one, which there means everything, is none here.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The longest text of a selector.
const TEXT_MAX: usize = 4096;
/// The most requirements of each kind.
const PARTS_MAX: usize = 64;

/// A selector that was understood.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
pub(super) struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Requirement>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Reads a selector; none if it is not one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > TEXT_MAX {
            return None;
        }
        // YAML has JSON in it, but for its tabs.
        let selector: Self = serde_json::from_str(text).ok().or_else(|| serde_yaml::from_str(text).ok())?;
        let parts = [selector.match_labels.len(), selector.match_expressions.len()];
        let sensible = selector.match_expressions.iter().all(Requirement::is_sensible);
        let size = parts.iter().all(|n| *n <= PARTS_MAX) && parts.iter().any(|n| *n > 0);
        (sensible && size).then_some(selector)
    }

    /// Whether these labels fit.
    pub(super) fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|part| part.fits(labels.get(&part.key)))
    }
}

impl Requirement {
    fn is_sensible(&self) -> bool {
        let compares = matches!(self.operator, Operator::In | Operator::NotIn);
        !self.key.is_empty() && compares != self.values.is_empty()
    }

    fn fits(&self, label: Option<&String>) -> bool {
        let among = label.is_some_and(|label| self.values.contains(label));
        match self.operator {
            Operator::In => among,
            Operator::NotIn => !among,
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_choose_as_kubernetes_does() {
        let labels = BTreeMap::from([("team".to_owned(), "blue".to_owned()), ("env".into(), "dev".into())]);
        for (text, fits) in [
            (r#"{"matchLabels": {"team": "blue"}}"#, true),
            (r#"{"matchLabels": {"team": "blue", "env": "prod"}}"#, false),
            ("matchLabels:\n  team: blue\n", true),
            ("matchExpressions:\n- {key: env, operator: In, values: [dev, test]}\n", true),
            (r#"{"matchExpressions": [{"key": "env", "operator": "In", "values": ["prod"]}]}"#, false),
            (r#"{"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["prod"]}]}"#, true),
            (r#"{"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["prod"]}]}"#, true),
            (r#"{"matchExpressions": [{"key": "none", "operator": "In", "values": ["prod"]}]}"#, false),
            (r#"{"matchExpressions": [{"key": "env", "operator": "Exists"}]}"#, true),
            (r#"{"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]}"#, false),
            (
                r#"{"matchLabels": {"team": "blue"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}"#,
                false,
            ),
        ] {
            assert_eq!(Selector::parse(text).unwrap().fits(&labels), fits, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            "",
            "x",
            "{}",
            "[]",
            r#"{"matchLabels": {}}"#,
            r#"{"matchLabel": {"a": "b"}}"#,
            r#"{"matchExpressions": [{"key": "a", "operator": "In"}]}"#,
            r#"{"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}"#,
            r#"{"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}"#,
            r#"{"matchExpressions": [{"key": "", "operator": "Exists"}]}"#,
        ] {
            assert!(Selector::parse(text).is_none(), "{text}");
        }
        assert!(
            Selector::parse(&format!("{{\"matchLabels\": {{\"a\": \"{}\"}}}}", "x".repeat(5000))).is_none()
        );
    }
}
