//! Fuzz target of the selectors of namespaces that a role's author writes.

use std::collections::BTreeMap;

use coffer_fuzz::{Target, text};

use super::selector::Selector;

#[test]
fn a_selector_that_is_taken_asks_for_something() {
    let words = [
        "matchLabels",
        "matchExpressions",
        "key",
        "operator",
        "In",
        "NotIn",
        "Exists",
        "DoesNotExist",
        "values",
        "a: b",
        "\n",
        "  - ",
        "&a",
        "*a",
        "{",
        "}",
        "!!binary",
    ];
    Target::new("selector").words(&words).runs(3_000).run(|input| {
        let Some(selector) = Selector::parse(&text(input)) else { return "refused".into() };
        let fits = |labels: &[(&str, &str)]| {
            let labels: BTreeMap<_, _> =
                labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            selector.fits(&labels)
        };
        format!("{} {}", fits(&[]), fits(&[("team", "shop")]))
    });
}
