//! Changes to JSON documents that leave them JSON: values of another type or at an edge, keys dropped, doubled, renamed.

use serde_json::{Map, Number, Value};

use crate::mutate::Mutator;

/// How deep a document is made that is nested for the sake of it.
const NESTED: usize = 200;

/// The document in `input`, changed; `None` if it is none. What stands before it (a format byte) is kept.
pub(crate) fn change(mutator: &mut Mutator<'_>, input: &[u8]) -> Option<Vec<u8>> {
    let start = input.iter().position(|c| matches!(c, b'{' | b'['))?;
    if start > 1 {
        return None;
    }
    let mut value: Value = serde_json::from_slice(&input[start..]).ok()?;
    for _ in 0..=mutator.below(3) {
        let at = mutator.below(count(&value));
        let mut left = at;
        if let Some(node) = find(&mut value, &mut left) {
            change_node(mutator, node);
        }
    }
    let mut out = input[..start].to_vec();
    serde_json::to_writer(&mut out, &value).ok()?;
    if mutator.below(16) == 0 {
        double_a_key(mutator, &mut out);
    }
    Some(out)
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// The node whose turn it is, in the order of [`count`].
fn find<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| find(item, left)),
        Value::Object(map) => map.values_mut().find_map(|item| find(item, left)),
        _ => None,
    }
}

fn change_node(mutator: &mut Mutator<'_>, node: &mut Value) {
    match (mutator.below(4), &mut *node) {
        (0, Value::Object(map)) if !map.is_empty() => {
            let at = mutator.below(map.len());
            let key = map.keys().nth(at).cloned().unwrap_or_default();
            let taken = map.remove(&key);
            // Dropped half of the time, else under another name.
            if let (0, Some(word), Some(value)) = (mutator.below(2), mutator.word(), taken) {
                map.insert(word.to_owned(), value);
            }
        }
        (1, Value::Object(map)) => {
            let word = mutator.word().unwrap_or("x").to_owned();
            map.insert(word, odd_value(mutator));
        }
        (0 | 1, Value::Array(items)) => {
            let at = mutator.below(items.len() + 1);
            let value = items.get(at).cloned().unwrap_or_else(|| odd_value(mutator));
            items.insert(at, value);
        }
        (2, Value::Array(items)) if !items.is_empty() => {
            let at = mutator.below(items.len());
            items.remove(at);
        }
        (2, Value::String(text)) => {
            let at = text.char_indices().map(|(at, _)| at).nth(mutator.below(text.len() + 1));
            let word = mutator.word().unwrap_or("\u{e9}").to_owned();
            text.insert_str(at.unwrap_or(text.len()), &word);
        }
        _ => *node = odd_value(mutator),
    }
}

fn odd_value(mutator: &mut Mutator<'_>) -> Value {
    match mutator.below(12) {
        0 => Value::Null,
        1 => Value::Bool(mutator.below(2) == 0),
        2 | 3 => mutator.edge().parse::<Number>().map_or(Value::Null, Value::Number),
        4 => Value::String(mutator.edge().to_owned()),
        5 => Value::String(String::new()),
        6 => Value::String("x".repeat(1 << mutator.below(14))),
        7 => Value::Array(Vec::new()),
        8 => Value::Object(Map::new()),
        9 => (0..mutator.below(NESTED)).fold(Value::Null, |inner, _| Value::Array(vec![inner])),
        _ => Value::String(mutator.word().unwrap_or_default().to_owned()),
    }
}

/// Repeats one of the outermost entries, which a map cannot hold twice.
fn double_a_key(mutator: &mut Mutator<'_>, out: &mut Vec<u8>) {
    let Some(end) = out.iter().rposition(|c| *c == b'}') else { return };
    let word = mutator.word().unwrap_or("x");
    let key = Value::String(word.to_owned()).to_string();
    drop(out.splice(end..end, format!(",{key}:1,{key}:\"2\"").bytes()));
}
