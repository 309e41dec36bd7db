//! Request bodies: bytes to a JSON object, with a limit on depth that costs nothing to enforce.
//!
//! Never repeats what was sent: a body may be a secret, also when it is malformed.

use serde_json::{Map, Value};

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
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, BodyError> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    if depth(bytes) > DEPTH_MAX {
        return Err(BodyError::Deep);
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Ok(Map::new()),
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

/// The deepest nesting, found without building anything: brackets outside of strings.
fn depth(bytes: &[u8]) -> usize {
    let (mut now, mut most) = (0usize, 0usize);
    let (mut quoted, mut escaped) = (false, false);
    for byte in bytes {
        if quoted {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'{' | b'[' => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_nothing() {
        assert!(object(b"").unwrap().is_empty());
        assert!(object(b" \n").unwrap().is_empty());
        assert!(object(b"null").unwrap().is_empty());
        assert_eq!(object(br#"{"a":1}"#).unwrap()["a"], 1);
    }

    #[test]
    fn everything_else_is_refused_without_an_echo() {
        assert_eq!(object(b"[1]"), Err(BodyError::NotAnObject));
        assert_eq!(object(b"\"hunter2\""), Err(BodyError::NotAnObject));
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
        assert_eq!(object(nested(DEPTH_MAX).as_bytes()), Err(BodyError::Deep));
        assert_eq!(object("[".repeat(1 << 20).as_bytes()), Err(BodyError::Deep));
        let quoted = format!("{{\"a\":\"\\\"{}\"}}", "[".repeat(100));
        assert!(object(quoted.as_bytes()).is_ok());
    }
}
