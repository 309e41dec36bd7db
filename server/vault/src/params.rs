//! Parameters out of JSON bodies, in the spellings Vault's clients use.
//!
//! An error names the parameter and never its value.

use std::collections::BTreeMap;
use std::time::Duration;

use coffer_core::policy::PolicyName;
use coffer_core::time::duration_from_json;
use serde_json::{Map, Value};

use crate::error::{Fail, bad};

/// The most entries of a metadata map, and the longest key or value.
const METADATA_MAX: usize = 64;
const METADATA_TEXT_MAX: usize = 512;
/// The most entries of a list.
const LIST_MAX: usize = 1024;

/// A text.
pub(crate) fn text<'b>(body: &'b Map<String, Value>, name: &str) -> Result<Option<&'b str>, Fail> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(bad(format!("{name} must be a string"))),
    }
}

/// A duration: seconds, or text such as `1h30m`.
pub(crate) fn duration(body: &Map<String, Value>, name: &str) -> Result<Option<Duration>, Fail> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            duration_from_json(value).map(Some).map_err(|_| bad(format!("{name} is not a duration")))
        }
    }
}

/// A yes or no; clients send it as text, too.
pub(crate) fn flag(body: &Map<String, Value>, name: &str) -> Result<Option<bool>, Fail> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(Value::String(text)) if text == "true" => Ok(Some(true)),
        Some(Value::String(text)) if text == "false" => Ok(Some(false)),
        Some(_) => Err(bad(format!("{name} must be true or false"))),
    }
}

/// A whole number that is not negative; clients send it as text, too.
pub(crate) fn number(body: &Map<String, Value>, name: &str) -> Result<Option<u64>, Fail> {
    let wrong = || bad(format!("{name} must be a whole number"));
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(n)) => n.as_u64().map(Some).ok_or_else(wrong),
        Some(Value::String(text)) => text.parse().map(Some).map_err(|_| wrong()),
        Some(_) => Err(wrong()),
    }
}

/// A list of texts, or one text with commas.
pub(crate) fn list(body: &Map<String, Value>, name: &str) -> Result<Option<Vec<String>>, Fail> {
    let items: Vec<String> = match body.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => {
            text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()
        }
        Some(Value::Array(items)) => {
            let texts: Option<Vec<_>> = items.iter().map(|i| i.as_str().map(str::to_owned)).collect();
            texts.ok_or_else(|| bad(format!("{name} must be a list of strings")))?
        }
        Some(_) => return Err(bad(format!("{name} must be a list of strings"))),
    };
    if items.len() > LIST_MAX {
        return Err(Fail::TooLarge(format!("{name} has more than {LIST_MAX} entries")));
    }
    Ok(Some(items))
}

/// Names of policies.
pub(crate) fn policies(body: &Map<String, Value>, name: &str) -> Result<Option<Vec<PolicyName>>, Fail> {
    let Some(texts) = list(body, name)? else { return Ok(None) };
    if texts.len() > crate::policy::POLICIES_PER_TOKEN_MAX {
        let most = crate::policy::POLICIES_PER_TOKEN_MAX;
        return Err(Fail::TooLarge(format!("{name} has more than {most} entries")));
    }
    let mut names = Vec::with_capacity(texts.len());
    for text in texts {
        let parsed =
            PolicyName::parse(&text).map_err(|_| bad(format!("{name} has an invalid policy name")))?;
        if !names.contains(&parsed) {
            names.push(parsed);
        }
    }
    Ok(Some(names))
}

/// Labels: a map of texts.
pub(crate) fn labels(
    body: &Map<String, Value>,
    name: &str,
) -> Result<Option<BTreeMap<String, String>>, Fail> {
    let map = match body.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(bad(format!("{name} must be an object of strings"))),
    };
    if map.len() > METADATA_MAX {
        return Err(Fail::TooLarge(format!("{name} has more than {METADATA_MAX} entries")));
    }
    let mut labels = BTreeMap::new();
    for (key, value) in map {
        let text = value.as_str().ok_or_else(|| bad(format!("{name} must be an object of strings")))?;
        if key.len() > METADATA_TEXT_MAX || text.len() > METADATA_TEXT_MAX {
            return Err(Fail::TooLarge(format!("{name} has a text of more than {METADATA_TEXT_MAX} bytes")));
        }
        labels.insert(key.clone(), text.to_owned());
    }
    Ok(Some(labels))
}

/// Labels in any of the shapes Vault's clients send them in: a map, a list of `key=value`, or one such text.
pub(crate) fn pairs(body: &Map<String, Value>, name: &str) -> Result<Option<BTreeMap<String, String>>, Fail> {
    if matches!(body.get(name), None | Some(Value::Null | Value::Object(_))) {
        return labels(body, name);
    }
    let mut map = Map::new();
    for text in list(body, name)?.unwrap_or_default() {
        let (key, value) =
            text.split_once('=').ok_or_else(|| bad(format!("{name} must be key=value pairs")))?;
        map.insert(key.trim().to_owned(), value.trim().into());
    }
    labels(&Map::from_iter([(name.to_owned(), Value::Object(map))]), name)
}

/// `after` and `limit` of a listing.
pub(crate) fn page(query: &BTreeMap<String, String>) -> Result<(Option<&str>, usize), Fail> {
    /// The largest page, and the page when nothing is said.
    const PAGE_MAX: usize = 10_000;
    let limit = match query.get("limit") {
        None => PAGE_MAX,
        Some(text) => text.parse::<usize>().map_err(|_| bad("limit must be a whole number"))?,
    };
    let limit = if limit == 0 { PAGE_MAX } else { limit.min(PAGE_MAX) };
    Ok((query.get("after").map(String::as_str).filter(|a| !a.is_empty()), limit))
}
