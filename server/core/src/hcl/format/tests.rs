//! What `hclfmt` makes of the same sources, and that formatting changes nothing else.

use proptest::prelude::*;

use super::super::{Body, Value, parse};
use super::format;

/// As OpenBao 2.7.2's `policy fmt` wrote it.
const BEFORE: &str = include_str!("format_before.hcl");
const AFTER: &str = include_str!("format_after.hcl");

/// A document without its positions.
fn meaning(body: &Body) -> Vec<String> {
    fn of(value: &Value) -> String {
        match value {
            Value::Object(body) => format!("{:?}", meaning(body)),
            Value::List(items) => format!("{:?}", items.iter().map(of).collect::<Vec<_>>()),
            other => format!("{other:?}"),
        }
    }
    body.entries.iter().map(|e| format!("{} {:?} {}", e.key, e.labels, of(&e.value))).collect()
}

#[test]
fn the_layout_is_hclfmts() {
    assert_eq!(format(BEFORE).unwrap(), AFTER);
    assert_eq!(format(AFTER).unwrap(), AFTER);
}

#[test]
fn comments_stay_wherever_they_stand() {
    let source = "# a\n\n# b\npath \"x\" { # c\n capabilities = [ # d\n \"read\", # e\n \"list\" /* f */, # g\n # h\n ]\n # i\n} # j\n# k\n";
    let once = format(source).unwrap();
    for comment in 'a'..='k' {
        let text = if comment == 'f' { "/* f */".to_owned() } else { format!("# {comment}") };
        assert_eq!(once.matches(&text).count(), 1, "{comment} in\n{once}");
    }
    assert_eq!(format(&once).unwrap(), once);
    assert_eq!(meaning(&parse(&once).unwrap()), meaning(&parse(source).unwrap()));
}

#[test]
fn what_is_no_hcl_is_refused() {
    assert!(format("path \"x\" {").is_err());
    assert!(format("{\"path\": {}}").unwrap_err().message.contains("JSON"));
    assert_eq!(format("").unwrap(), "");
}

fn documents() -> impl Strategy<Value = String> {
    let word = prop_oneof![Just("a"), Just("\"b/*\""), Just("capabilities"), Just("c-1")];
    let blank = prop_oneof![
        Just(" "),
        Just("\n"),
        Just("\n\n"),
        Just(" # one\n"),
        Just(" // two\n\n"),
        Just(" /* three */ "),
        Just("\n/* four\n five */\n")
    ];
    let leaf = prop_oneof![
        Just("1".to_owned()),
        Just("\"x\"".to_owned()),
        Just("true".to_owned()),
        Just("[]".to_owned()),
        Just("<<E\n h\nE\n".to_owned())
    ];
    let value = leaf.prop_recursive(3, 24, 4, move |inner| {
        let list = prop::collection::vec((blank_of(), inner.clone(), blank_of()), 0..4).prop_map(|items| {
            items.iter().fold("[".to_owned(), |text, (a, item, b)| text + a + item + b + ",") + "]"
        });
        let object = prop::collection::vec((blank_of(), inner), 0..3).prop_map(|items| {
            items
                .iter()
                .enumerate()
                .fold("{".to_owned(), |text, (i, (a, item))| format!("{text}{a}k{i} = {item}\n"))
                + "}"
        });
        prop_oneof![list, object]
    });
    prop::collection::vec((blank, word, value), 0..5).prop_map(|items| {
        items.iter().enumerate().fold(String::new(), |text, (i, (blank, word, value))| {
            format!("{text}{blank}n{i} {word} {{ v = {value}\n}}{blank}")
        })
    })
}

fn blank_of() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(" "), Just("\n"), Just("# c\n"), Just("\n\n// d\n\n"), Just("/* e */")]
}

proptest! {
    #[test]
    fn formatting_keeps_the_meaning_and_the_comments_and_is_done_once(source in documents()) {
        let Ok(before) = parse(&source) else { return Ok(()) };
        let once = format(&source).unwrap();
        prop_assert_eq!(meaning(&before), meaning(&parse(&once).unwrap()), "{}", once);
        for comment in ["# one", "// two", "/* three", "five */", "# c", "// d", "/* e"] {
            prop_assert_eq!(source.matches(comment).count(), once.matches(comment).count(), "{} in\n{}", comment, once);
        }
        prop_assert_eq!(format(&once).unwrap(), once);
    }
}
