//! JSON whose numbers stay as they were written.
//!
//! `serde_json::Value` keeps 64-bit integers and doubles, and its feature for more changes how every number in the
//! program is read. So whoever keeps other people's data looks whether there is a number that a `Value` would change
//! ([`keeps`]), and only then takes this form. It never judges whether text is JSON: `serde_json` does.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::de::IgnoredAny;
use serde_json::{Map, Number, Value};
use zeroize::Zeroizing;

/// The deepest nesting that is taken apart.
pub const DEPTH_MAX: usize = 128;
/// So many digits always fit 64 bits.
const DIGITS_SURE: usize = 18;

/// A JSON value. Texts and numbers are wiped when they are dropped. Of a key that occurs twice the last counts, and
/// keys are sorted, as in a `Value`.
#[derive(Clone)]
pub enum Exact {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it was written.
    Number(Zeroizing<String>),
    /// A text.
    Text(Zeroizing<String>),
    /// A list.
    List(Vec<Exact>),
    /// An object.
    Object(BTreeMap<String, Exact>),
}

/// Whether a `Value` writes this number as it was written here.
pub fn keeps(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    if digits.iter().all(u8::is_ascii_digit) && digits.len() <= DIGITS_SURE {
        return digits != b"0" || digits.len() == number.len();
    }
    let parsed: Result<Number, _> = serde_json::from_slice(number);
    parsed.is_ok_and(|parsed| parsed.to_string().as_bytes() == number)
}

impl Exact {
    /// Takes JSON apart; none if it is no JSON, or nested deeper than [`DEPTH_MAX`].
    pub fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice::<IgnoredAny>(json).ok()?;
        let mut cut = Cut { rest: json };
        let value = cut.value(0)?;
        cut.space();
        cut.rest.is_empty().then_some(value)
    }

    /// The member of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.get(key),
            _ => None,
        }
    }

    /// Writes the shortest JSON with this meaning.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Null => to.write_all(b"null"),
            Self::Bool(value) => to.write_all(if *value { b"true" } else { b"false" }),
            Self::Number(number) => to.write_all(number.as_bytes()),
            Self::Text(text) => Ok(serde_json::to_writer(to, text.as_str())?),
            Self::List(items) => {
                to.write_all(b"[")?;
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        to.write_all(b",")?;
                    }
                    item.write(to)?;
                }
                to.write_all(b"]")
            }
            Self::Object(members) => {
                to.write_all(b"{")?;
                for (at, (key, member)) in members.iter().enumerate() {
                    if at > 0 {
                        to.write_all(b",")?;
                    }
                    serde_json::to_writer(&mut *to, key)?;
                    to.write_all(b":")?;
                    member.write(to)?;
                }
                to.write_all(b"}")
            }
        }
    }
}

impl From<&Value> for Exact {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => Self::Number(Zeroizing::new(number.to_string())),
            Value::String(text) => Self::Text(Zeroizing::new(text.clone())),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(map) => map.into(),
        }
    }
}

impl From<&Map<String, Value>> for Exact {
    fn from(map: &Map<String, Value>) -> Self {
        Self::Object(map.iter().map(|(key, value)| (key.clone(), value.into())).collect())
    }
}

impl std::fmt::Debug for Exact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exact([redacted])")
    }
}

/// Cuts text, which is known to be JSON, where its values end.
struct Cut<'a> {
    rest: &'a [u8],
}

impl<'a> Cut<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    /// Whether this is the next byte; it is taken.
    fn next(&mut self, byte: u8) -> bool {
        self.space();
        let here = self.rest.first() == Some(&byte);
        if here {
            self.rest = &self.rest[1..];
        }
        here
    }

    fn value(&mut self, depth: usize) -> Option<Exact> {
        self.space();
        match *self.rest.first()? {
            b'{' | b'[' if depth >= DEPTH_MAX => None,
            b'{' => self.object(depth + 1),
            b'[' => self.list(depth + 1),
            b'"' => Some(Exact::Text(Zeroizing::new(self.text()?))),
            b't' => self.take(4).map(|_| Exact::Bool(true)),
            b'f' => self.take(5).map(|_| Exact::Bool(false)),
            b'n' => self.take(4).map(|_| Exact::Null),
            _ => {
                let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let bytes = self.rest.iter().take_while(|byte| in_number(byte)).count();
                let number = std::str::from_utf8(self.take(bytes)?).ok()?;
                (!number.is_empty()).then(|| Exact::Number(Zeroizing::new(number.to_owned())))
            }
        }
    }

    fn text(&mut self) -> Option<String> {
        let mut escaped = true; // the opening quote is not the end
        let end = self.rest.iter().position(|byte| {
            let end = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            end
        })?;
        serde_json::from_slice(self.take(end + 1)?).ok()
    }

    fn list(&mut self, depth: usize) -> Option<Exact> {
        let mut items = Vec::new();
        self.take(1)?;
        if self.next(b']') {
            return Some(Exact::List(items));
        }
        loop {
            items.push(self.value(depth)?);
            if !self.next(b',') {
                return self.next(b']').then_some(Exact::List(items));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Exact> {
        let mut members = BTreeMap::new();
        self.take(1)?;
        if self.next(b'}') {
            return Some(Exact::Object(members));
        }
        loop {
            self.space();
            let key = self.text()?;
            if !self.next(b':') {
                return None;
            }
            members.insert(key, self.value(depth)?);
            if !self.next(b',') {
                return self.next(b'}').then_some(Exact::Object(members));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use coffer_fuzz::Target;

    use super::*;

    fn written(value: &Exact) -> String {
        let mut bytes = Vec::new();
        value.write(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn numbers_stay_as_they_were_written_and_the_rest_is_as_in_a_value() {
        let json = r#" {"b" : 123456789012345678901234567890, "a": [1.10, 1e3,-0, 18446744073709551616 ,1E-400],
            "a\"\\" : "\u00e9<\n", "x":{}, "l":[ ], "t":true, "f" : false, "n":null, "b2":1,"b2":2.50 } "#;
        let wanted = concat!(
            r#"{"a":[1.10,1e3,-0,18446744073709551616,1E-400],"a\"\\":"é<\n","b":123456789012345678901234567890,"#,
            r#""b2":2.50,"f":false,"l":[],"n":null,"t":true,"x":{}}"#
        );
        let exact = Exact::parse(json.as_bytes()).unwrap();
        assert_eq!(written(&exact), wanted);
        assert!(!format!("{exact:?}").contains('1'));
    }

    #[test]
    fn it_is_known_which_numbers_a_value_keeps() {
        for kept in
            ["0", "-1", "999999999999999999", "18446744073709551615", "-9223372036854775808", "1.5", "0.1"]
        {
            assert!(keeps(kept.as_bytes()), "{kept}");
        }
        for changed in [
            "-0",
            "1.0e0",
            "1e3",
            "1.10",
            "18446744073709551616",
            "-9223372036854775809",
            "1E2",
            "0.10000000000000001",
        ] {
            assert!(!keeps(changed.as_bytes()), "{changed}");
        }
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_not_taken_apart() {
        for bad in ["", "{", "[1,]", "1 2", "{\"a\" 1}", "\"", "nul", "01", "{1:2}", "-"] {
            assert!(Exact::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(Exact::parse(nested(DEPTH_MAX).as_bytes()).is_some());
        assert!(Exact::parse(nested(DEPTH_MAX + 1).as_bytes()).is_none());
    }

    /// Whatever `serde_json` reads, this reads as the same thing, and every number has the text it came with.
    #[test]
    fn exact_json_means_what_serde_json_reads() {
        let words =
            ["{\"", "\":", "1e9", "-0", "0.1", "\\u00e9", "\\\"", "18446744073709551616", "[", "]", "}", ","];
        Target::new("exact").words(&words).run(|input| {
            let value = serde_json::from_slice::<Value>(input);
            let exact = Exact::parse(input);
            let (Ok(value), Some(exact)) = (value, exact) else { return "refused".into() };
            let text = written(&exact);
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value, "{text}");
            assert_eq!(
                written(&Exact::parse(text.as_bytes()).unwrap()),
                text,
                "written once is written for good"
            );
            let same = serde_json::to_string(&value).unwrap() == text;
            format!("{} {same}", text.len().min(40) / 10)
        });
    }
}
