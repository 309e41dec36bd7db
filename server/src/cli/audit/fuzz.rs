//! Fuzz target of the file that holds the heads an audit log is checked against.

use coffer_fuzz::Target;
use serde_json::Value;

use super::verify::Anchor;

#[test]
fn a_head_is_found_for_one_node_or_not_at_all() {
    let words = [
        "data",
        "nodes",
        "head",
        "start",
        "seq",
        "prev",
        "a",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ];
    Target::new("audit-head").words(&words).run(|input| {
        let Ok(value) = serde_json::from_slice::<Value>(input) else { return "no JSON".into() };
        let alone = Anchor::find(&value, None);
        let named = Anchor::find(&value, Some("a"));
        if let (Ok(alone), Ok(named)) = (&alone, &named) {
            assert_eq!(alone, named, "the only node is the named one");
        }
        format!("{} {}", alone.is_ok(), named.is_ok())
    });
}
