//! Request bodies: bytes to a JSON object, with a limit on depth that costs nothing to enforce, and with its numbers as
//! they were written where a `Value` would change one.
//!
//! Never repeats what was sent: a body may be a secret, also when it is malformed.

use coffer_core::exact::{self, Exact};
use serde_json::{Map, Value};

/// A body, and the same with its numbers as they were written; the latter only if it makes a difference.
pub(crate) type Read = (Map<String, Value>, Option<Exact>);

/// The deepest nesting of objects and arrays accepted.
pub(crate) const DEPTH_MAX: usize = 32;

/// What is wrong with a body, in words for its sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("failed to parse JSON input: nested deeper than {DEPTH_MAX} levels")]
    Deep,
    #[error("failed to parse JSON input: {kind} at line {line} column {column}")]
    Syntax { kind: &'static str, line: usize, column: usize },
    #[error("failed to parse JSON input: expected an object")]
    NotAnObject,
}

/// Reads a body; nothing at all, and `null`, are an empty object.
pub(crate) fn object(bytes: &[u8]) -> Result<Read, BodyError> {
    if bytes.trim_ascii().is_empty() {
        return Ok((Map::new(), None));
    }
    let seen = Seen::of(bytes);
    if seen.depth > DEPTH_MAX {
        return Err(BodyError::Deep);
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => {
            let exact = if seen.changed { Exact::parse(bytes) } else { None };
            Ok((map, exact))
        }
        Ok(Value::Null) => Ok((Map::new(), None)),
        Ok(mut other) => {
            coffer_vault::scrub(&mut other);
            Err(BodyError::NotAnObject)
        }
        Err(error) => {
            let kind = if error.is_eof() { "unexpected end" } else { "syntax error" };
            Err(BodyError::Syntax { kind, line: error.line(), column: error.column() })
        }
    }
}

/// What can be seen of a body without building anything.
#[derive(Default)]
struct Seen {
    /// The deepest nesting: brackets outside of strings.
    depth: usize,
    /// Whether there is a number that a `Value` would change.
    changed: bool,
}

impl Seen {
    fn of(bytes: &[u8]) -> Self {
        let mut seen = Self::default();
        let (mut now, mut at) = (0usize, 0usize);
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'"' => at += string(&bytes[at..]),
                b'{' | b'[' => {
                    now += 1;
                    seen.depth = seen.depth.max(now);
                }
                b'}' | b']' => now = now.saturating_sub(1),
                b'-' | b'0'..=b'9' => {
                    let in_number =
                        |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                    let more = bytes[at..].iter().take_while(in_number).count();
                    seen.changed = seen.changed || !exact::keeps(&bytes[at - 1..at + more]);
                    at += more;
                }
                _ => {}
            }
        }
        seen
    }
}

/// How many bytes a string has behind its opening quote, with the closing one.
fn string(bytes: &[u8]) -> usize {
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_nothing() {
        assert!(object(b"").unwrap().0.is_empty());
        assert!(object(b" \n").unwrap().0.is_empty());
        assert!(object(b"null").unwrap().0.is_empty());
        assert_eq!(object(br#"{"a":1}"#).unwrap().0["a"], 1);
    }

    #[test]
    fn everything_else_is_refused_without_an_echo() {
        assert_eq!(object(b"[1]").unwrap_err(), BodyError::NotAnObject);
        assert_eq!(object(b"\"hunter2\"").unwrap_err(), BodyError::NotAnObject);
        for bad in
            [&b"{"[..], b"{\"a\":hunter2}", b"{\"hunter2\"", b"{\"a\":\"\xff\"}", b"a=hunter2", b"{}{}"]
        {
            let error = object(bad).unwrap_err().to_string();
            assert!(
                error.starts_with("failed to parse JSON input: ") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn depth_is_limited_and_strings_do_not_count() {
        let nested = |n: usize| format!("{{\"a\":{}1{}}}", "[".repeat(n), "]".repeat(n));
        assert!(object(nested(DEPTH_MAX - 1).as_bytes()).is_ok());
        assert_eq!(object(nested(DEPTH_MAX).as_bytes()).unwrap_err(), BodyError::Deep);
        assert_eq!(object("[".repeat(1 << 20).as_bytes()).unwrap_err(), BodyError::Deep);
        let quoted = format!("{{\"a\":\"\\\"{}\"}}", "[".repeat(100));
        assert!(object(quoted.as_bytes()).is_ok());
    }
    #[test]
    fn only_numbers_that_would_be_changed_are_kept_apart() {
        let exact = |body: &str| object(body.as_bytes()).unwrap().1.is_some();
        for plain in [r#"{"a":1,"b":[-2.5],"c":"1e9 123456789012345678901234567890 -0","d\"1e9":true}"#, "{}"]
        {
            assert!(!exact(plain), "{plain}");
        }
        for changed in [r#"{"a":123456789012345678901234567890}"#, r#"{"a":{"b":[1,1.10]}}"#, r#"{"a":-0}"#] {
            assert!(exact(changed), "{changed}");
        }
    }

    /// A feature of `serde_json` gives this key a meaning of its own; here it must have none.
    #[test]
    fn no_key_is_read_as_anything_but_a_key() {
        for key in ["$serde_json::private::RawValue", "$serde_json::private::Number"] {
            let body = format!(r#"{{"a":{{"{key}":"[[1]]"}}}}"#);
            let read = object(body.as_bytes()).unwrap().0;
            assert_eq!(read["a"][key], "[[1]]");
        }
    }
}
