use super::*;

fn ok(source: &str) -> Body {
    parse(source).unwrap_or_else(|e| panic!("{source}: {e}"))
}

#[test]
fn reads_a_policy_with_every_comment_style() {
    let body = ok(
        "# one\n// two\n/* three\n three */ path \"secret/*\" {\n  capabilities = [\"read\", \"list\",] // x\n}\n",
    );
    let blocks = body.labelled_blocks("path").unwrap();
    assert_eq!(blocks.len(), 1);
    assert_eq!((blocks[0].label, blocks[0].at.line), ("secret/*", 4));
    assert_eq!(blocks[0].body.entry("capabilities").unwrap().as_strings().unwrap(), ["read", "list"]);
}

#[test]
fn one_block_in_all_its_spellings() {
    for source in [
        r#"path "a" { capabilities = ["read"] }"#,
        r#""path" "a" { "capabilities" = ["read"] }"#,
        r#"path = { "a" = { capabilities = ["read"] } }"#,
        r#"path { a { capabilities = ["read"] } }"#,
        r#"{"path": {"a": {"capabilities": ["read"]}}}"#,
        r#"{"path": [{"a": [{"capabilities": ["read"]}]}]}"#,
    ] {
        let body = ok(source);
        let blocks = body.labelled_blocks("path").unwrap();
        assert_eq!(blocks.len(), 1, "{source}");
        assert_eq!(blocks[0].label, "a", "{source}");
        assert_eq!(blocks[0].body.entry("capabilities").unwrap().as_strings().unwrap(), ["read"], "{source}");
    }
}

#[test]
fn scalars() {
    let body = ok("a = 1 b = -2, c = 0x1F\nd = 1.5e3 e = true \"f g\" = \"x\\ty\\u00e9\" h = 010");
    let get = |k: &str| body.get(k).unwrap().clone();
    assert_eq!(get("a"), Value::Integer(1));
    assert_eq!(get("b"), Value::Integer(-2));
    assert_eq!(get("c"), Value::Integer(31));
    assert_eq!(get("d"), Value::Float(1500.0));
    assert_eq!(get("e"), Value::Bool(true));
    assert_eq!(get("f g"), Value::String("x\tyé".into()));
    assert_eq!(get("h"), Value::Integer(8));
    assert_eq!(body.entry("e").unwrap().at, Position { line: 2, column: 11 });
}

#[test]
fn heredocs() {
    assert_eq!(ok("a = <<EOF\n x\n  y\nEOF\nb = 1").get("a"), Some(&Value::String(" x\n  y\n".into())));
    assert_eq!(ok("a = <<-EOF\n    x\n      y\n    EOF\n").get("a"), Some(&Value::String("x\n  y\n".into())));
    assert!(parse("a = <<EOF\nx\n").is_err());
}

#[test]
fn interpolations_are_plain_text() {
    assert_eq!(ok(r#"a = "x ${f("y")} z""#).get("a"), Some(&Value::String(r#"x ${f("y")} z"#.into())));
    assert_eq!(
        ok(r#"a = "{{identity.entity.id}}""#).get("a"),
        Some(&Value::String("{{identity.entity.id}}".into()))
    );
}

#[test]
fn json_escapes() {
    assert_eq!(ok(r#"{"a": "\ud83d\ude00\/"}"#).get("a"), Some(&Value::String("😀/".into())));
    assert!(parse(r#"{"a": "\ud83d"}"#).is_err());
    assert_eq!(ok(r#"{"a": null}"#).get("a"), Some(&Value::Null));
}

#[test]
fn errors_say_where() {
    for (source, line, column) in [
        ("a = ", 1, 5),
        ("\n\n  path \"x\" {", 3, 13),
        ("a = 1\na = 2", 2, 1),
        ("a = [1 2]", 1, 8),
        ("a = \"x", 1, 5),
        ("a = bare", 1, 5),
        ("/* x", 1, 1),
        ("}", 1, 1),
        ("{\"a\": 1,}", 1, 9),
        ("{\"a\": 1} x", 1, 10),
        ("a = 1..2", 1, 5),
        ("a = \"\\q\"", 1, 8),
    ] {
        let error = parse(source).unwrap_err();
        assert_eq!((error.line, error.column), (line, column), "{source}: {error}");
    }
}

#[test]
fn limits() {
    let deep = format!("a = {}{}", "[".repeat(40), "]".repeat(40));
    assert!(parse(&deep).unwrap_err().message.contains("deeper"));
    let deep = format!("{}{}", "a {".repeat(10_000), "}".repeat(10_000));
    assert!(parse(&deep).is_err());
    assert!(parse(&" ".repeat(MAX_HCL_BYTES + 1)).unwrap_err().message.contains("larger"));
}

proptest::proptest! {
    #[test]
    fn never_panics(source in "[a-z0-9\"{}\\[\\]=,:<\\-E\n \\\\$#/*\\.é]{0,60}") {
        let _ = parse(&source);
    }

    #[test]
    fn reads_the_strings_json_writes(text in "\\PC{0,30}") {
        let source = serde_json::json!({ "k": text }).to_string();
        let body = parse(&source).unwrap();
        proptest::prop_assert_eq!(body.get("k"), Some(&Value::String(text)));
    }
}
