//! Two answers, field by field. What differs by nature (ids, times, tokens) must be of the same type in both, and
//! what is the same thing in one answer must be the same thing in every later one.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use crate::http::Answer;

/// One field that is not the same.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    /// `status`, `header.<name>`, or `body` and the way to the field, with dots.
    pub(crate) field: String,
    pub(crate) theirs: String,
    pub(crate) ours: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: bao {} coffer {}", self.field, self.theirs, self.ours)
    }
}

impl Difference {
    /// Whether something that works there does not work here: never intended.
    pub(crate) fn is_failure_of_a_success(&self) -> bool {
        self.field == "status" && good(&self.theirs) && !good(&self.ours)
    }

    /// Whether something that is refused there is done here: only where it is said that this is meant.
    pub(crate) fn is_success_of_a_failure(&self) -> bool {
        self.field == "status" && !good(&self.theirs) && good(&self.ours)
    }
}

fn good(status: &str) -> bool {
    status.starts_with('2')
}

/// Headers that clients look at.
const HEADERS: &[&str] = &["content-type", "cache-control"];
/// Seconds that go by while a story is told.
const CLOCK_SLACK: u64 = 5;

/// What has been seen so far: for each type, which value there is which value here.
#[derive(Debug, Default)]
pub(crate) struct Same {
    ours_of: BTreeMap<(Type, String), String>,
    theirs_of: BTreeMap<(Type, String), String>,
}

/// Values that differ by nature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Type {
    Uuid,
    Time,
    UnixTime,
    Token,
    Accessor,
    MountAccessor,
    Nonce,
    Key,
    Encoded,
    Hash,
    /// Random bytes, of which only the number is the same.
    Random,
    /// About the server itself: version, cluster, host.
    Own,
}

impl Same {
    /// Every field that differs.
    pub(crate) fn compare(&mut self, theirs: &Answer, ours: &Answer) -> Vec<Difference> {
        let mut found = Vec::new();
        text("status", &theirs.status.to_string(), &ours.status.to_string(), &mut found);
        for name in HEADERS {
            text(&format!("header.{name}"), theirs.header(name), ours.header(name), &mut found);
        }
        match (parse(&theirs.body), parse(&ours.body)) {
            // A refusal has another body than a success: that they differ says no more than the status does.
            (Some(a), Some(b))
                if a.get("errors").is_some() != b.get("errors").is_some() && !found.is_empty() => {}
            (Some(theirs), Some(ours)) => self.value("body", "", &theirs, &ours, &mut found),
            _ => text(
                "body",
                &String::from_utf8_lossy(&theirs.body),
                &String::from_utf8_lossy(&ours.body),
                &mut found,
            ),
        }
        found
    }

    fn value(&mut self, at: &str, key: &str, theirs: &Value, ours: &Value, found: &mut Vec<Difference>) {
        match (theirs, ours) {
            (Value::Object(a), Value::Object(b)) => {
                let (a, b) = (&self.in_our_names(a), &without_versions(b));
                let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
                names.sort();
                names.dedup();
                for name in names {
                    let place = format!("{at}.{name}");
                    match (a.get(name), b.get(name)) {
                        (Some(a), Some(b)) => self.value(&place, name, a, b, found),
                        (a, b) => text(&place, &or_absent(a), &or_absent(b), found),
                    }
                }
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                for (i, (a, b)) in a.iter().zip(b).enumerate() {
                    self.value(&format!("{at}.{i}"), key, a, b, found);
                }
            }
            // One error more does not hide what the others say.
            (Value::Array(a), Value::Array(b)) if key == "errors" => {
                for i in 0..a.len().max(b.len()) {
                    let place = format!("{at}.{i}");
                    match (a.get(i), b.get(i)) {
                        (Some(a), Some(b)) => self.value(&place, key, a, b, found),
                        (a, b) => text(&place, &or_absent(a), &or_absent(b), found),
                    }
                }
            }
            _ => self.leaf(at, key, theirs, ours, found),
        }
    }

    /// An object whose keys are ids, with ours in the place of theirs where they are known.
    fn in_our_names(&self, theirs: &Map<String, Value>) -> Map<String, Value> {
        let ours = |key: &String| {
            let known = self.ours_of.get(&(Type::Uuid, format!("{key:?}")));
            known.map_or_else(|| key.clone(), |ours| ours.trim_matches('"').to_owned())
        };
        without_versions(theirs).into_iter().map(|(key, value)| (ours(&key), value)).collect()
    }

    fn leaf(&mut self, at: &str, key: &str, theirs: &Value, ours: &Value, found: &mut Vec<Difference>) {
        if let (Some(type_), Some(other)) = (type_of(key, theirs), type_of(key, ours))
            && type_ == other
        {
            let (a, b) = (theirs.to_string(), ours.to_string());
            if type_ == Type::Random && a.len() != b.len() {
                return text(at, &a, &b, found);
            }
            let kind = |accessor: &str| accessor.rsplit_once('_').map(|(kind, _)| kind.to_owned());
            if type_ == Type::MountAccessor && kind(&a) != kind(&b) {
                return text(at, &a, &b, found);
            }
            // Times may fall together by chance; everything else that is one there is one here.
            if matches!(type_, Type::Time | Type::UnixTime | Type::Own) {
                return;
            }
            let ours_was = self.ours_of.entry((type_, a.clone())).or_insert_with(|| b.clone()).clone();
            let theirs_was = self.theirs_of.entry((type_, b.clone())).or_insert_with(|| a.clone()).clone();
            if ours_was != b || theirs_was != a {
                text(at, &format!("{a}, the {type_:?} of before"), &format!("{b}, another one"), found);
            }
            return;
        }
        if let (Some(a), Some(b)) = (theirs.as_u64(), ours.as_u64())
            && counts_down(key)
            && a.abs_diff(b) <= CLOCK_SLACK
            && (a > CLOCK_SLACK) == (b > CLOCK_SLACK)
        {
            return;
        }
        text(at, &without_ids(&theirs.to_string()), &without_ids(&ours.to_string()), found);
    }
}

/// An object whose keys are versions of the server, with one name in their place.
fn without_versions(object: &Map<String, Value>) -> Map<String, Value> {
    let name = |key: &String| if is_version(key) { "<version>".to_owned() } else { key.clone() };
    object.iter().map(|(key, value)| (name(key), value.clone())).collect()
}

/// `2.7.2`.
fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u16>().is_ok())
}

/// Ids within a sentence.
fn without_ids(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match rest.get(..36) {
            Some(id) if is_uuid(id) => {
                out.push_str("<id>");
                rest = &rest[36..];
            }
            _ => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

fn text(field: &str, theirs: &str, ours: &str, found: &mut Vec<Difference>) {
    if theirs != ours {
        found.push(Difference { field: field.to_owned(), theirs: theirs.to_owned(), ours: ours.to_owned() });
    }
}

fn parse(body: &[u8]) -> Option<Value> {
    if body.is_empty() { Some(Value::Null) } else { serde_json::from_slice(body).ok() }
}

fn or_absent(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), Value::to_string)
}

/// Time that is left.
fn counts_down(key: &str) -> bool {
    matches!(key, "ttl" | "lease_duration")
}

/// The type of a value that differs by nature, from its form and its name.
fn type_of(key: &str, value: &Value) -> Option<Type> {
    match value {
        Value::Number(n) => {
            let n = n.as_u64()?;
            (1_700_000_000..2_200_000_000).contains(&n).then_some(Type::UnixTime)
        }
        Value::String(text) => text_type(key, text),
        _ => None,
    }
}

fn text_type(key: &str, text: &str) -> Option<Type> {
    if text.is_empty() {
        return None;
    }
    let letters = |s: &str| s.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
    match key {
        "version"
        | "build_date"
        | "commit_date"
        | "cluster_name"
        | "cluster_id"
        | "plugin_version"
        | "running_plugin_version"
            if !text.chars().all(|c| c.is_ascii_digit()) =>
        {
            return Some(Type::Own);
        }
        "random_bytes" => return Some(Type::Random),
        "keys" if is_version(text) => return Some(Type::Own),
        "nonce" | "otp" | "verification_nonce" => return Some(Type::Nonce),
        "keys" | "keys_base64" if letters(text) || key == "keys_base64" => {
            let long = text.len() >= 20;
            return long.then_some(Type::Key);
        }
        "encoded_token" | "encoded_root_token" => return Some(Type::Encoded),
        "hash" if text.starts_with("hmac-sha256:") => return Some(Type::Hash),
        _ => {}
    }
    if is_uuid(text) {
        Some(Type::Uuid)
    } else if is_time(text) {
        Some(Type::Time)
    } else if ["s.", "b.", "hvs.", "hvb."]
        .iter()
        .any(|p| text.strip_prefix(p).is_some_and(|s| s.len() > 20 && letters(s)))
    {
        Some(Type::Token)
    } else if is_mount_accessor(text) {
        Some(Type::MountAccessor)
    } else if key.contains("accessor") && letters(text) && text.len() >= 20 {
        Some(Type::Accessor)
    } else {
        None
    }
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|c| c == b'-' || c.is_ascii_hexdigit())
}

/// RFC 3339; but the zero time says "never", and that must be said by both.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20
        && bytes[10] == b'T'
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && !text.starts_with("0001-")
}

/// `kv_1a2b3c4d`.
fn is_mount_accessor(text: &str) -> bool {
    text.rsplit_once('_').is_some_and(|(_, id)| id.len() == 8 && id.bytes().all(|c| c.is_ascii_hexdigit()))
}
