//! The fields of a request, converted as leniently as Vault converts them and refused in its words: people search
//! for these messages. Never echoes a field's value: it may be a secret.

use std::time::Duration;

use coffer_core::time::duration_from_json;
use serde_json::{Map, Value};

use crate::EngineError;

/// How much of what is no duration is repeated.
const DURATION_CHARS_MAX: usize = 32;
const NOT_A_NUMBER: &str = "'' cannot parse value as 'int': strconv.ParseInt: invalid syntax";

/// A request's fields. Vault says "Field validation failed" except where it has looked for an existing record first.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    body: &'a Map<String, Value>,
    prefix: &'static str,
}

impl<'a> Fields<'a> {
    /// The fields of a body.
    pub(super) const fn of(body: &'a Map<String, Value>) -> Self {
        Self { body, prefix: "Field validation failed: " }
    }

    /// The fields of a `POST` to a path where what is there decides between create and update.
    pub(super) const fn after_lookup(body: &'a Map<String, Value>) -> Self {
        Self { body, prefix: "" }
    }

    fn refuse(&self, name: &str, why: &str) -> EngineError {
        EngineError::bad(format!("{}error converting input for field \"{name}\": {why}", self.prefix))
    }

    /// A whole number; null is zero.
    pub(super) fn int(&self, name: &str) -> Result<Option<i64>, EngineError> {
        self.body.get(name).map(|value| int(value).map_err(|why| self.refuse(name, &why))).transpose()
    }

    /// True or false; null is false.
    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, EngineError> {
        let Some(value) = self.body.get(name) else { return Ok(None) };
        let refused =
            || self.refuse(name, "'' cannot parse value as 'bool': strconv.ParseBool: invalid syntax");
        match value {
            Value::Null => Ok(Some(false)),
            Value::Bool(value) => Ok(Some(*value)),
            Value::Number(number) => Ok(Some(number.as_f64() != Some(0.0))),
            Value::String(text) => match text.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
                "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
                _ => Err(refused()),
            },
            other => Err(self.refuse(name, &unconvertible("", "bool", other))),
        }
    }

    /// A duration in whole seconds; null is as if it were not there.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<Span>, EngineError> {
        let value = match self.body.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        if !matches!(value, Value::String(_) | Value::Number(_)) {
            return Err(self.refuse(name, "could not parse duration from input"));
        }
        if let Some(positive) = without_minus(value) {
            return duration_from_json(&positive)
                .map(|span| Some(Span::Negative(span.as_secs())))
                .map_err(|_| self.no_duration(name, value));
        }
        duration_from_json(value)
            .map(|span| Some(Span::Positive(Duration::from_secs(span.as_secs()))))
            .map_err(|_| self.no_duration(name, value))
    }

    /// The one refusal that repeats what was sent, as far as it may be a duration: it is no secret.
    fn no_duration(&self, name: &str, value: &Value) -> EngineError {
        let text: String = value.as_str().unwrap_or_default().chars().take(DURATION_CHARS_MAX).collect();
        self.refuse(name, &format!("time: invalid duration {text:?}"))
    }

    /// As [`Fields::seconds`], where less than nothing makes no sense.
    pub(super) fn positive_seconds(&self, name: &str) -> Result<Option<Duration>, EngineError> {
        match self.seconds(name)? {
            Some(Span::Negative(secs)) if secs > 0 => {
                Err(self.refuse(name, &format!("cannot provide negative value '-{secs}'")))
            }
            Some(Span::Negative(_)) => Ok(Some(Duration::ZERO)),
            Some(Span::Positive(span)) => Ok(Some(span)),
            None => Ok(None),
        }
    }

    /// An object; `Some(None)` for null.
    pub(super) fn map(&self, name: &str) -> Result<Option<Option<&'a Map<String, Value>>>, EngineError> {
        match self.body.get(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::Object(map)) => Ok(Some(Some(map))),
            Some(Value::Array(items)) => {
                let first = items.first().unwrap_or(&Value::Null);
                Err(self.refuse(name, &unconvertible("[0]", MAP, first)))
            }
            Some(other) => Err(self.refuse(name, &unconvertible("", MAP, other))),
        }
    }

    /// A list of whole numbers: a list, one number, or text with commas. `max` is the longest list taken.
    pub(super) fn ints(&self, name: &str, max: usize) -> Result<Vec<i64>, EngineError> {
        let too_many = || EngineError::bad(format!("more than {max} numbers in field \"{name}\""));
        let texts;
        let items: &[Value] = match self.body.get(name) {
            None | Some(Value::Null) => &[],
            Some(Value::Array(items)) => items,
            Some(Value::String(text)) => {
                if text.split(',').count() > max {
                    return Err(too_many());
                }
                texts = text.split(',').map(Value::from).collect::<Vec<_>>();
                if text.is_empty() { &[] } else { &texts }
            }
            Some(one) => std::slice::from_ref(one),
        };
        if items.len() > max {
            return Err(too_many());
        }
        let (mut numbers, mut wrong) = (Vec::with_capacity(items.len()), Vec::new());
        for (at, item) in items.iter().enumerate() {
            match int(item) {
                Ok(number) => numbers.push(number),
                Err(why) => wrong.push(why.replacen("''", &format!("'[{at}]'"), 1)),
            }
        }
        if wrong.is_empty() {
            return Ok(numbers);
        }
        Err(self
            .refuse(name, &format!("decoding failed due to the following error(s):\n\n{}", wrong.join("\n"))))
    }
}

/// A duration with a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// Zero or more.
    Positive(Duration),
    /// So many whole seconds less than zero.
    Negative(u64),
}

const MAP: &str = "map[string]interface {}";

/// A number of the query.
pub(super) fn query_int(text: Option<&String>, name: &str) -> Result<i64, EngineError> {
    let Some(text) = text else { return Ok(0) };
    parse_int(text).ok_or_else(|| {
        EngineError::bad(format!(
            "Field validation failed: error converting input for field \"{name}\": {NOT_A_NUMBER}"
        ))
    })
}

/// A whole number as Go's weak decoding takes it; the error is in its words.
pub(super) fn int(value: &Value) -> Result<i64, String> {
    let none = || NOT_A_NUMBER.to_owned();
    match value {
        Value::Null => Ok(0),
        Value::Bool(value) => Ok(i64::from(*value)),
        Value::Number(number) => number.as_i64().ok_or_else(none),
        Value::String(text) => parse_int(text).ok_or_else(none),
        other => Err(unconvertible("", "int", other)),
    }
}

fn parse_int(text: &str) -> Option<i64> {
    if text.is_empty() { Some(0) } else { text.parse().ok() }
}

fn without_minus(value: &Value) -> Option<Value> {
    match value {
        Value::String(text) => text.strip_prefix('-').map(Value::from),
        Value::Number(number) => number.as_i64().filter(|n| *n < 0).map(|n| Value::from(n.unsigned_abs())),
        _ => None,
    }
}

/// Go's words for a value of another kind.
pub(super) fn unconvertible(at: &str, wanted: &str, value: &Value) -> String {
    let kind = match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(_) => "json.Number",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => MAP,
    };
    format!("'{at}' expected type '{wanted}', got unconvertible type '{kind}'")
}

/// Names that a reply's warning says were ignored: those sent but not known, in order.
pub(super) fn ignored<'n>(sent: impl Iterator<Item = &'n String>, known: &[&str]) -> Option<String> {
    let mut unknown: Vec<&str> = sent.map(String::as_str).filter(|name| !known.contains(name)).collect();
    if unknown.is_empty() {
        return None;
    }
    unknown.sort_unstable();
    Some(format!("Endpoint ignored these unrecognized parameters: [{}]", unknown.join(" ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::input::object;

    #[test]
    fn numbers_come_in_gos_spellings() {
        let body = object(json!({
            "a": 5, "b": "-7", "c": null, "d": true, "e": "", "x": "x", "f": 1.5, "l": [1], "big": 1e30,
        }));
        let fields = Fields::of(&body);
        for (name, wanted) in [("a", 5), ("b", -7), ("c", 0), ("d", 1), ("e", 0)] {
            assert_eq!(fields.int(name).unwrap(), Some(wanted), "{name}");
        }
        assert_eq!(fields.int("none").unwrap(), None);
        for name in ["x", "f", "l", "big"] {
            assert!(fields.int(name).is_err(), "{name}");
        }
        assert_eq!(fields.ints("a", 3).unwrap(), [5]);
        assert!(fields.ints("none", 3).unwrap().is_empty());
    }

    #[test]
    fn refusals_are_in_vaults_words_and_hold_no_value() {
        let body = object(json!({ "n": "hunter2", "b": "hunter2", "m": "hunter2", "l": [1, "hunter2"] }));
        let said = |error: EngineError| error.to_string();
        let fields = Fields::of(&body);
        assert_eq!(
            said(fields.int("n").unwrap_err()),
            "Field validation failed: error converting input for field \"n\": '' cannot parse value as 'int': \
             strconv.ParseInt: invalid syntax"
        );
        assert_eq!(
            said(Fields::after_lookup(&body).map("m").unwrap_err()),
            "error converting input for field \"m\": '' expected type 'map[string]interface {}', got \
             unconvertible type 'string'"
        );
        let list = said(fields.ints("l", 3).unwrap_err());
        assert!(list.ends_with("\n\n'[1]' cannot parse value as 'int': strconv.ParseInt: invalid syntax"));
        assert!(!said(fields.boolean("b").unwrap_err()).contains("hunter2"));
        assert!(fields.ints("l", 1).is_err());
    }

    #[test]
    fn durations_have_a_sign_and_whole_seconds() {
        let body =
            object(json!({ "a": "1.5s", "b": "-1s", "c": null, "d": 30, "e": -30, "f": "-0s", "g": [] }));
        let fields = Fields::of(&body);
        assert_eq!(fields.seconds("a").unwrap(), Some(Span::Positive(Duration::from_secs(1))));
        assert_eq!(fields.seconds("b").unwrap(), Some(Span::Negative(1)));
        assert_eq!(fields.seconds("c").unwrap(), None);
        assert_eq!(fields.seconds("e").unwrap(), Some(Span::Negative(30)));
        assert!(fields.seconds("g").is_err());
        assert_eq!(fields.positive_seconds("f").unwrap(), Some(Duration::ZERO));
        assert!(fields.positive_seconds("e").unwrap_err().to_string().ends_with("negative value '-30'"));
    }

    #[test]
    fn parameters_nobody_knows_are_named_in_order() {
        let names = ["b".to_owned(), "version".to_owned(), "a".to_owned()];
        let said = ignored(names.iter(), &["version"]).unwrap();
        assert_eq!(said, "Endpoint ignored these unrecognized parameters: [a b]");
        assert_eq!(ignored(names.iter(), &["a", "b", "version"]), None);
    }
}
