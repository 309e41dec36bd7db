//! What `kv` prints: headings as wide as the table below them, and the table.

use serde_json::{Map, Value};

use super::super::out::{Out, cell, rows};

/// A heading over a path.
pub(super) fn path(title: &str, path: &str, out: &Out) -> anyhow::Result<()> {
    out.line(&heading(title, path.len()))?;
    out.line(path)?;
    out.line("")
}

/// A heading over a table, and the table.
pub(super) fn table(title: &str, map: &Map<String, Value>, out: &Out) -> anyhow::Result<()> {
    let widest = map.keys().map(String::len).max().unwrap_or(0);
    // Four blanks and the word "Value" follow the widest key.
    out.line(&heading(title, widest + 4 + 5))?;
    out.pairs(&rows(map))
}

/// Metadata without headings of its own.
pub(super) fn plain(map: &Map<String, Value>, out: &Out) -> anyhow::Result<()> {
    out.pairs(&rows(&readable(map)))
}

/// As [`table`], of metadata: what is not set is said so.
pub(super) fn metadata(title: &str, map: &Map<String, Value>, out: &Out) -> anyhow::Result<()> {
    table(title, &readable(map), out)
}

fn readable(map: &Map<String, Value>) -> Map<String, Value> {
    let text = |(name, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) if text.is_empty() && name == "deletion_time" => "n/a".to_owned(),
            Value::Null => "<nil>".to_owned(),
            Value::Object(labels) if name == "custom_metadata" => {
                let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}:{}", cell(v))).collect();
                format!("map[{}]", labels.join(" "))
            }
            other => cell(other),
        };
        (name.clone(), Value::String(text))
    };
    map.iter().map(text).collect()
}

/// A title between equal signs, `width` wide altogether, or as wide as it takes.
fn heading(title: &str, width: usize) -> String {
    let signs = match width.saturating_sub(title.len() + 2) {
        0 => 4,
        signs => signs.next_multiple_of(2),
    };
    let half = "=".repeat(signs / 2);
    format!("{half} {title} {half}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_are_as_wide_as_in_vault() {
        assert_eq!(heading("Secret Path", "secret/data/c".len()), "== Secret Path ==");
        assert_eq!(heading("Metadata", "custom_metadata".len() + 9), "======= Metadata =======");
        assert_eq!(heading("Version 1", "deletion_time".len() + 9), "====== Version 1 ======");
        assert_eq!(heading("Data", 10), "== Data ==");
    }

    #[test]
    fn metadata_is_spelled_as_in_vault() {
        let map = serde_json::json!({
            "custom_metadata": { "a": "b", "c": "d" }, "deletion_time": "", "destroyed": false, "x": null,
        });
        let shown = readable(map.as_object().unwrap());
        assert_eq!(shown["custom_metadata"], "map[a:b c:d]");
        assert_eq!((&shown["deletion_time"], &shown["x"]), (&Value::from("n/a"), &Value::from("<nil>")));
    }
}
