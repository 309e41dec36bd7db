//! Reading fields out of JSON bodies and queries as leniently as Vault does, within limits. Never echoes a
//! field's value in a message: it may be a secret.

use std::collections::BTreeMap;
use std::time::Duration;

use coffer_core::time::duration_from_json;
use serde_json::{Map, Value};

use crate::EngineError;

/// Labels of an object, as `custom_metadata` has them.
pub(crate) type Labels = BTreeMap<String, String>;

/// Most names in one page of a list.
pub(crate) const PAGE_MAX: usize = 10_000;

/// In Vault's words.
const LIMIT_REFUSED: &str = "Field validation failed: error converting input for field \"limit\": '' cannot parse \
                             value as 'int': strconv.ParseInt: invalid syntax";

pub(crate) const LABELS_MAX: usize = 64;
pub(crate) const LABEL_KEY_BYTES_MAX: usize = 128;
pub(crate) const LABEL_VALUE_BYTES_MAX: usize = 512;

/// A field that is present and not null.
pub(crate) fn field<'a>(body: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    body.get(name).filter(|value| !value.is_null())
}

pub(crate) fn text<'a>(body: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, EngineError> {
    match field(body, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(EngineError::bad(format!("field {name:?} must be a string"))),
    }
}

pub(crate) fn boolean(body: &Map<String, Value>, name: &str) -> Result<Option<bool>, EngineError> {
    match field(body, name) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(Value::String(text)) if text == "true" || text == "1" => Ok(Some(true)),
        Some(Value::String(text)) if text == "false" || text == "0" => Ok(Some(false)),
        Some(_) => Err(EngineError::bad(format!("field {name:?} must be true or false"))),
    }
}

pub(crate) fn duration(body: &Map<String, Value>, name: &str) -> Result<Option<Duration>, EngineError> {
    let Some(value) = field(body, name) else { return Ok(None) };
    duration_from_json(value).map(Some).map_err(|why| EngineError::bad(format!("field {name:?}: {why}")))
}

/// A number of things. As in Vault, a negative one means the default, which is zero here.
pub(crate) fn whole(body: &Map<String, Value>, name: &str) -> Result<Option<u64>, EngineError> {
    let number = match field(body, name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(text)) => text.parse::<i64>().ok(),
        Some(_) => None,
    };
    match number {
        Some(number) => Ok(Some(u64::try_from(number).unwrap_or(0))),
        None => Err(EngineError::bad(format!("field {name:?} must be a whole number"))),
    }
}

/// A list of strings: an array, or one string. With `commas`, one string is split at its commas.
pub(crate) fn texts(
    body: &Map<String, Value>,
    name: &str,
    commas: bool,
) -> Result<Option<Vec<String>>, EngineError> {
    let refused = || EngineError::bad(format!("field {name:?} must be a list of strings"));
    match field(body, name) {
        None => Ok(None),
        Some(Value::String(one)) if commas => Ok(Some(
            one.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect(),
        )),
        Some(Value::String(one)) => Ok(Some(if one.is_empty() { Vec::new() } else { vec![one.clone()] })),
        Some(Value::Array(items)) => {
            let strings = items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(refused));
            strings.collect::<Result<_, _>>().map(Some)
        }
        Some(_) => Err(refused()),
    }
}

/// `custom_metadata`.
pub(crate) fn labels(body: &Map<String, Value>) -> Result<Option<Labels>, EngineError> {
    let Some(value) = field(body, "custom_metadata") else { return Ok(None) };
    let Value::Object(map) = value else {
        return Err(EngineError::bad("custom_metadata must be a map of strings"));
    };
    if map.len() > LABELS_MAX {
        return Err(EngineError::bad(format!("custom_metadata has more than {LABELS_MAX} keys")));
    }
    let mut labels = Labels::new();
    for (key, value) in map {
        let Value::String(value) = value else {
            return Err(EngineError::bad("custom_metadata must be a map of strings"));
        };
        check_label("key", key, LABEL_KEY_BYTES_MAX)?;
        check_label("value", value, LABEL_VALUE_BYTES_MAX)?;
        labels.insert(key.clone(), value.clone());
    }
    Ok(Some(labels))
}

fn check_label(what: &str, text: &str, bytes_max: usize) -> Result<(), EngineError> {
    if text.is_empty() || text.len() > bytes_max {
        return Err(EngineError::bad(format!("custom_metadata: a {what} must have 1 to {bytes_max} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(EngineError::bad(format!("custom_metadata: a {what} has a control character")));
    }
    Ok(())
}

/// `after` and `limit` of a list.
pub(crate) fn page(query: &BTreeMap<String, String>) -> Result<(Option<&str>, usize), EngineError> {
    let after = query.get("after").map(String::as_str).filter(|after| !after.is_empty());
    let asked = match query.get("limit").map(String::as_str) {
        None | Some("") => 0,
        Some(text) => text.parse::<i64>().map_err(|_| EngineError::bad(LIMIT_REFUSED))?,
    };
    // As in OpenBao, no positive limit means none; ours is then the largest page.
    let limit =
        usize::try_from(asked).ok().filter(|limit| *limit > 0).map_or(PAGE_MAX, |limit| limit.min(PAGE_MAX));
    Ok((after, limit))
}

/// Moves the entries of a `json!` object out; anything else has none.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A duration as Go prints it: `0s`, `1h0m0s`, `1.5s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let (secs, millis) = (duration.as_secs(), duration.subsec_millis());
    if secs == 0 && millis != 0 {
        return format!("{millis}ms");
    }
    let (h, m, s) = (secs / 3600, secs / 60 % 60, secs % 60);
    let fraction = if millis == 0 {
        String::new()
    } else {
        format!(".{}", format!("{millis:03}").trim_end_matches('0'))
    };
    match (h, m) {
        (0, 0) => format!("{s}{fraction}s"),
        (0, _) => format!("{m}m{s}{fraction}s"),
        _ => format!("{h}h{m}m{s}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        for (millis, text) in [
            (0, "0s"),
            (250, "250ms"),
            (1_500, "1.5s"),
            (60_000, "1m0s"),
            (3_600_000, "1h0m0s"),
            (90_061_000, "25h1m1s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn lists_come_in_three_spellings() {
        let body = object(json!({ "a": "x, y,", "b": ["x,y"], "c": "x;y", "d": [1] }));
        assert_eq!(texts(&body, "a", true).unwrap().unwrap(), ["x", "y"]);
        assert_eq!(texts(&body, "b", true).unwrap().unwrap(), ["x,y"]);
        assert_eq!(texts(&body, "c", false).unwrap().unwrap(), ["x;y"]);
        assert!(texts(&body, "d", false).is_err());
        assert_eq!(texts(&body, "e", false).unwrap(), None);
    }

    #[test]
    fn labels_are_bounded() {
        let labels_of = |value: Value| labels(&object(json!({ "custom_metadata": value })));
        assert_eq!(labels_of(json!({ "a": "b" })).unwrap().unwrap().len(), 1);
        assert_eq!(labels_of(json!(null)).unwrap(), None);
        for bad in [json!("x"), json!({ "a": 1 }), json!({ "": "b" }), json!({ "a": "\n" })] {
            assert!(labels_of(bad).is_err());
        }
        assert!(labels_of(json!({ "a": "x".repeat(513) })).is_err());
        let many: Map<_, _> = (0..65).map(|n| (n.to_string(), json!("x"))).collect();
        assert!(labels_of(Value::Object(many)).is_err());
    }

    #[test]
    fn values_are_never_echoed() {
        let body = object(json!({ "password": ["hunter2"], "on": "hunter2" }));
        for error in [text(&body, "password").unwrap_err(), boolean(&body, "on").unwrap_err()] {
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
