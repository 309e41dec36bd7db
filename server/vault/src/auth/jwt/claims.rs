//! What a role asks of a token's claims, and what it takes out of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Number, Value};

use crate::auth::glob::glob;
use crate::auth::jose::Claims;
use crate::error::{Fail, bad};

/// The most groups that a token may say its owner is in.
const GROUPS_MAX: usize = 256;
/// The longest text that is taken out of a token.
const TEXT_BYTES_MAX: usize = 512;

/// A claim by name, or by JSON pointer (RFC 6901) if the name begins with `/`.
fn claim<'c>(claims: &'c Claims, name: &str) -> Option<&'c Value> {
    let found = match name.strip_prefix('/') {
        None => claims.get(name),
        Some(below) => {
            let (first, rest) = below.split_once('/').map_or((below, None), |(a, b)| (a, Some(b)));
            let first = claims.get(&first.replace("~1", "/").replace("~0", "~"));
            match rest {
                None => first,
                Some(rest) => first?.pointer(&format!("/{rest}")),
            }
        }
    };
    found.filter(|value| !value.is_null())
}

fn shown(name: &str) -> std::str::EscapeDebug<'_> {
    name.escape_debug()
}

/// Texts that end up in names and metadata.
fn plain(what: &str, text: &str) -> Result<String, Fail> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(bad(format!("claim \"{}\" is longer than {TEXT_BYTES_MAX} bytes", shown(what))));
    }
    if text.chars().any(char::is_control) {
        return Err(bad(format!("claim \"{}\" has control characters", shown(what))));
    }
    Ok(text.to_owned())
}

/// The name of who logs in.
pub(super) fn user(claims: &Claims, name: &str, is_pointer: bool) -> Result<String, Fail> {
    let found = if is_pointer { claim(claims, name) } else { claims.get(name).filter(|v| !v.is_null()) };
    let value = found.ok_or_else(|| bad(format!("claim \"{}\" not found in token", shown(name))))?;
    let text = value
        .as_str()
        .ok_or_else(|| bad(format!("claim \"{}\" could not be converted to string", shown(name))))?;
    if text.trim().is_empty() {
        return Err(bad(format!("claim \"{}\" is empty", shown(name))));
    }
    plain(name, text)
}

/// Metadata out of claims. Those that are not there are left out.
pub(super) fn metadata(
    claims: &Claims,
    mappings: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Fail> {
    let mut metadata = BTreeMap::new();
    for (name, target) in mappings {
        let Some(value) = claim(claims, name) else { continue };
        let text = value
            .as_str()
            .ok_or_else(|| bad(format!("error converting claim '{}' to string", shown(name))))?;
        metadata.insert(target.clone(), plain(name, text)?);
    }
    Ok(metadata)
}

/// The groups that the token says its owner is in, each once.
pub(super) fn groups(claims: &Claims, name: &str) -> Result<Vec<String>, Fail> {
    let value = claim(claims, name).ok_or_else(|| {
        bad(format!("failed to fetch groups: \"{}\" claim not found in token", shown(name)))
    })?;
    let list = list(value)
        .ok_or_else(|| bad(format!("\"{}\" claim could not be converted to string list", shown(name))))?;
    let mut groups = BTreeSet::new();
    for entry in list {
        let text = entry
            .as_str()
            .ok_or_else(|| bad(format!("value {entry} in groups claim could not be parsed as string")))?;
        if !text.is_empty() {
            groups.insert(plain(name, text)?);
        }
    }
    if groups.len() > GROUPS_MAX {
        return Err(bad(format!("claim \"{}\" names more than {GROUPS_MAX} groups", shown(name))));
    }
    Ok(groups.into_iter().collect())
}

/// Checks that every bound claim is there with one of its values.
pub(super) fn check_bound(claims: &Claims, bound: &Map<String, Value>, globs: bool) -> Result<(), Fail> {
    let wrong = |why: String| bad(format!("error validating claims: {why}"));
    for (name, wanted) in bound {
        let shown = shown(name);
        let actual = claim(claims, name).ok_or_else(|| wrong(format!("claim \"{shown}\" is missing")))?;
        let actual = list(actual)
            .ok_or_else(|| wrong(format!("claim \"{shown}\" is not a string, bool, int or list")))?;
        let wanted = list(wanted)
            .ok_or_else(|| wrong(format!("bound claim \"{shown}\" is not a string, bool, int or list")))?;
        let fits = |wanted: &Value, actual: &Value| match (wanted, actual) {
            (Value::String(pattern), Value::String(text)) if globs => glob(pattern, text),
            _ if globs => false,
            (Value::Number(a), Value::Number(b)) => a == b || whole(a).is_some_and(|n| whole(b) == Some(n)),
            (a, b) => a == b,
        };
        if !wanted.iter().any(|wanted| actual.iter().any(|actual| fits(wanted, actual))) {
            let why = format!("claim \"{shown}\" does not match any associated bound claim values");
            return Err(wrong(why));
        }
    }
    Ok(())
}

/// A whole number, however it is written. None if the way it is written may have lost some of it.
fn whole(number: &Number) -> Option<i128> {
    /// Up to here every whole number has a floating-point number of its own.
    const EXACT: f64 = 9_007_199_254_740_991.0;
    let exact = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    exact.or_else(|| number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= EXACT).map(|n| n as i128))
}

/// A list as it is, a single value as a list of one.
pub(super) fn list(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(list) => Some(list),
        Value::String(_) | Value::Bool(_) | Value::Number(_) => Some(std::slice::from_ref(value)),
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn claims_are_found_by_name_and_by_pointer() {
        let claims =
            claims(json!({"a": 1, "/a": 2, "b": {"c": ["x", {"d/e": 3, "~": 4}]}, "n": null, "": {"": 5}}));
        for (name, found) in [
            ("a", Some(json!(1))),
            ("/a", Some(json!(1))),
            ("/b/c/0", Some(json!("x"))),
            ("/b/c/1/d~1e", Some(json!(3))),
            ("/b/c/1/~0", Some(json!(4))),
            ("//", Some(json!(5))),
            ("/b/c/2", None),
            ("b/c", None),
            ("n", None),
            ("/n", None),
            ("/n/x", None),
        ] {
            assert_eq!(claim(&claims, name), found.as_ref(), "{name}");
        }
    }

    #[test]
    fn bound_claims_must_all_be_there_with_one_of_their_values() {
        let claims =
            claims(json!({"s": "dev-1", "l": ["a", "b"], "n": 5, "f": 5.0, "t": true, "o": {"x": 1}}));
        for (bound, globs, fits) in [
            (json!({}), false, true),
            (json!({"s": "dev-1"}), false, true),
            (json!({"s": "dev-*"}), false, false),
            (json!({"s": "dev-*"}), true, true),
            (json!({"s": ["x", "d*1"]}), true, true),
            (json!({"l": "b"}), false, true),
            (json!({"l": ["c", "d"]}), false, false),
            (json!({"l": "*"}), true, true),
            (json!({"n": 5}), false, true),
            (json!({"n": 5.0, "f": 5}), false, true),
            (json!({"n": "5"}), false, false),
            (json!({"n": 5}), true, false),
            (json!({"t": true}), false, true),
            (json!({"t": "true"}), false, false),
            (json!({"o": {"x": 1}}), false, false),
            (json!({"/o/x": [0, 1]}), false, true),
            (json!({"s": "dev-1", "none": "x"}), false, false),
            (json!({"s": null}), false, false),
            (json!({"s": []}), false, false),
        ] {
            let checked = check_bound(&claims, bound.as_object().unwrap(), globs);
            assert_eq!(checked.is_ok(), fits, "{bound} {globs}: {checked:?}");
        }
    }

    #[test]
    fn large_numbers_are_not_mistaken_for_their_neighbours() {
        let claims = claims(json!({"n": 9_007_199_254_740_993_i64}));
        assert!(
            check_bound(&claims, json!({"n": 9_007_199_254_740_993_i64}).as_object().unwrap(), false).is_ok()
        );
        for other in [json!(9_007_199_254_740_992_i64), json!(9_007_199_254_740_992.0)] {
            assert!(check_bound(&claims, json!({"n": other}).as_object().unwrap(), false).is_err());
        }
    }

    #[test]
    fn names_are_texts_of_a_reasonable_kind() {
        for (value, fits) in [
            (json!("bob"), true),
            (json!("b@example.org"), true),
            (json!(" "), false),
            (json!(""), false),
            (json!("a\nb"), false),
            (json!("x".repeat(513)), false),
            (json!(5), false),
            (json!(null), false),
        ] {
            assert_eq!(user(&claims(json!({"sub": value})), "sub", false).is_ok(), fits, "{value}");
        }
        let deep = claims(json!({"a": {"b": "u"}}));
        assert_eq!(user(&deep, "/a/b", true).unwrap(), "u");
        assert!(user(&deep, "/a/b", false).is_err(), "a name is no pointer unless it is said to be one");
    }

    #[test]
    fn groups_are_a_list_of_texts_or_one_text() {
        let groups = |value: Value| groups(&claims(json!({"g": value})), "g");
        assert_eq!(groups(json!(["a", "", "b"])).unwrap(), ["a", "b"]);
        assert_eq!(groups(json!("a")).unwrap(), ["a"]);
        assert_eq!(groups(json!(["b", "a", "b"])).unwrap(), ["a", "b"]);
        let named = |count: usize| json!((0..count).map(|n| format!("g{n}")).collect::<Vec<_>>());
        assert_eq!(groups(named(256)).unwrap().len(), 256);
        assert!(groups(named(257)).unwrap_err().to_string().contains("more than 256 groups"));
        // The same one, however often, is one.
        assert_eq!(groups(json!(vec!["a"; 1000])).unwrap(), ["a"]);
        for wrong in [json!([5]), json!({"a": 1}), json!(null)] {
            assert!(groups(wrong).is_err());
        }
    }
}
