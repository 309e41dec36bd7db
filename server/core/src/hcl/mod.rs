//! A small reader for HCL1 and its JSON twin: what policies and the server's configuration are written in.
//!
//! Gives generic entries with their source positions; what a key means is the caller's business. Never
//! evaluates anything: `${...}` is plain text here.

mod format;
mod lexer;
mod parser;

use std::fmt;

pub use format::format;

/// The largest document accepted.
pub const MAX_HCL_BYTES: usize = 1024 * 1024;
/// The deepest nesting of objects and lists accepted.
pub const MAX_HCL_DEPTH: usize = 32;

/// Where in the source something stands, both counted from 1. Columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A document that could not be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct HclError {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong. Never quotes values, only keys and punctuation.
    pub message: String,
}

impl HclError {
    /// An error at a position; for callers that find a well-formed document senseless.
    pub fn new(at: Position, message: impl Into<String>) -> Self {
        Self { line: at.line, column: at.column, message: message.into() }
    }
}

/// The entries of a document or of an object, in source order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Body {
    /// The entries. A key may occur several times if it stands for blocks.
    pub entries: Vec<Entry>,
}

/// `key = value`, or `key "label" ... { body }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key, without quotes.
    pub key: String,
    /// A block's labels; empty for attributes.
    pub labels: Vec<String>,
    /// The value; for a block always [`Value::Object`].
    pub value: Value,
    /// Where the key stands.
    pub at: Position,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// JSON's `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// Text, quoted or heredoc, escapes resolved.
    String(String),
    /// `[a, b]`.
    List(Vec<Value>),
    /// `{ ... }`.
    Object(Body),
}

/// One block, in whichever of its spellings it was found.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// The label (`x` in `path "x" {}`), or `""` for a block without one.
    pub label: &'a str,
    /// What is inside.
    pub body: &'a Body,
    /// Where it begins.
    pub at: Position,
}

/// A block that may have a name after its label, as in `x "label" "name" {}`.
#[derive(Debug, Clone, Copy)]
pub struct NamedBlock<'a> {
    /// The second label.
    pub name: Option<&'a str>,
    /// The rest.
    pub block: Block<'a>,
}

/// Reads a document: JSON when the first character is `{`, else HCL1.
pub fn parse(source: &str) -> Result<Body, HclError> {
    if source.len() > MAX_HCL_BYTES {
        let at = Position { line: 1, column: 1 };
        return Err(HclError::new(at, format!("document is larger than {MAX_HCL_BYTES} bytes")));
    }
    parser::parse(source)
}

impl Body {
    /// The value of an attribute, the first if there are several.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|e| &e.value)
    }

    /// The first entry with this key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.key == key)
    }

    /// All blocks named `key` that carry one label, in every spelling HCL1 and JSON have for them:
    /// `key "label" {}`, `key = { label = {} }`, `"key": [{"label": {}}]`.
    pub fn labelled_blocks(&self, key: &str) -> Result<Vec<Block<'_>>, HclError> {
        let mut found = Vec::new();
        for entry in self.entries.iter().filter(|e| e.key == key) {
            collect_labelled(entry, &entry.value, &mut found)?;
        }
        Ok(found)
    }

    /// All blocks named `key` that carry a label and may carry a name, in every spelling: `key "label" "name" {}`,
    /// `key "label" {}`, and both as nested objects. Where names are keys of an object, an object with one of the
    /// keys in `own` is a block without a name.
    pub fn named_blocks(&self, key: &str, own: &[&str]) -> Result<Vec<NamedBlock<'_>>, HclError> {
        let mut found = Vec::new();
        for entry in self.entries.iter().filter(|e| e.key == key) {
            match entry.labels.as_slice() {
                [label, name] => found.extend(objects(entry, &entry.value)?.into_iter().map(|body| {
                    let block = Block { label, body, at: entry.at };
                    NamedBlock { name: Some(name), block }
                })),
                [label] => collect_named(entry, label, own, &mut found)?,
                [] => {
                    for body in objects(entry, &entry.value)? {
                        for inner in &body.entries {
                            match inner.labels.as_slice() {
                                [] => collect_named(inner, &inner.key, own, &mut found)?,
                                [name] => {
                                    found.extend(objects(inner, &inner.value)?.into_iter().map(|body| {
                                        let block = Block { label: &inner.key, body, at: inner.at };
                                        NamedBlock { name: Some(name), block }
                                    }))
                                }
                                _ => return Err(HclError::new(inner.at, "too many labels")),
                            }
                        }
                    }
                }
                _ => return Err(HclError::new(entry.at, format!("block {key:?} takes at most two labels"))),
            }
        }
        Ok(found)
    }

    /// All blocks named `key` without a label: `key {}`, `key = {}`, `"key": [{}, {}]`.
    pub fn blocks(&self, key: &str) -> Result<Vec<Block<'_>>, HclError> {
        let mut found = Vec::new();
        for entry in self.entries.iter().filter(|e| e.key == key) {
            if !entry.labels.is_empty() {
                return Err(HclError::new(entry.at, format!("block {key:?} takes no label")));
            }
            for body in objects(entry, &entry.value)? {
                found.push(Block { label: "", body, at: entry.at });
            }
        }
        Ok(found)
    }
}

/// What stands below a label: the block itself, or blocks by name.
fn collect_named<'a>(
    entry: &'a Entry,
    label: &'a str,
    own: &[&str],
    found: &mut Vec<NamedBlock<'a>>,
) -> Result<(), HclError> {
    for body in objects(entry, &entry.value)? {
        let holds_names = !body.entries.is_empty()
            && body
                .entries
                .iter()
                .all(|inner| !own.contains(&inner.key.as_str()) && objects(inner, &inner.value).is_ok());
        if !holds_names {
            found.push(NamedBlock { name: None, block: Block { label, body, at: entry.at } });
            continue;
        }
        for inner in &body.entries {
            for body in objects(inner, &inner.value)? {
                let block = Block { label, body, at: inner.at };
                found.push(NamedBlock { name: Some(&inner.key), block });
            }
        }
    }
    Ok(())
}

fn collect_labelled<'a>(
    entry: &'a Entry,
    value: &'a Value,
    found: &mut Vec<Block<'a>>,
) -> Result<(), HclError> {
    match entry.labels.as_slice() {
        [label] => {
            let bodies = objects(entry, value)?;
            found.extend(bodies.into_iter().map(|body| Block { label, body, at: entry.at }));
            Ok(())
        }
        [] => {
            for body in objects(entry, value)? {
                for inner in &body.entries {
                    if !inner.labels.is_empty() {
                        return Err(HclError::new(inner.at, "too many labels"));
                    }
                    for inner_body in objects(inner, &inner.value)? {
                        found.push(Block { label: &inner.key, body: inner_body, at: inner.at });
                    }
                }
            }
            Ok(())
        }
        _ => Err(HclError::new(entry.at, format!("block {:?} takes one label", entry.key))),
    }
}

/// The objects a value stands for: itself, or those in a list.
fn objects<'a>(entry: &Entry, value: &'a Value) -> Result<Vec<&'a Body>, HclError> {
    let not_object = || HclError::new(entry.at, format!("{:?} must be a block", entry.key));
    match value {
        Value::Object(body) => Ok(vec![body]),
        Value::List(items) => items
            .iter()
            .map(|item| if let Value::Object(body) = item { Ok(body) } else { Err(not_object()) })
            .collect(),
        _ => Err(not_object()),
    }
}

impl Entry {
    fn wrong(&self, what: &str) -> HclError {
        HclError::new(self.at, format!("{:?} must be {what}", self.key))
    }

    /// The value as text.
    pub fn as_str(&self) -> Result<&str, HclError> {
        if let Value::String(text) = &self.value { Ok(text) } else { Err(self.wrong("a string")) }
    }

    /// The value as a whole number.
    pub fn as_int(&self) -> Result<i64, HclError> {
        if let Value::Integer(n) = self.value { Ok(n) } else { Err(self.wrong("a whole number")) }
    }

    /// The value as a truth value; the words in quotes count too, as in Vault.
    pub fn as_bool(&self) -> Result<bool, HclError> {
        match &self.value {
            Value::Bool(b) => Ok(*b),
            Value::String(text) if text == "true" => Ok(true),
            Value::String(text) if text == "false" => Ok(false),
            _ => Err(self.wrong("true or false")),
        }
    }

    /// The value as a duration: seconds or text such as `"1h30m"`.
    pub fn as_duration(&self) -> Result<std::time::Duration, HclError> {
        let parsed = match &self.value {
            Value::String(text) => crate::time::parse_duration(text),
            Value::Integer(n) => crate::time::parse_duration(&n.to_string()),
            _ => return Err(self.wrong("a duration")),
        };
        parsed.map_err(|e| HclError::new(self.at, format!("{:?}: {e}", self.key)))
    }

    /// The value as a list of texts.
    pub fn as_strings(&self) -> Result<Vec<&str>, HclError> {
        let Value::List(items) = &self.value else { return Err(self.wrong("a list of strings")) };
        items
            .iter()
            .map(
                |i| {
                    if let Value::String(s) = i {
                        Ok(s.as_str())
                    } else {
                        Err(self.wrong("a list of strings"))
                    }
                },
            )
            .collect()
    }

    /// The value as an object.
    pub fn as_object(&self) -> Result<&Body, HclError> {
        match &self.value {
            Value::Object(body) => Ok(body),
            // HCL1's JSON form wraps objects in lists of one.
            Value::List(items) if items.len() == 1 => match &items[0] {
                Value::Object(body) => Ok(body),
                _ => Err(self.wrong("a map")),
            },
            _ => Err(self.wrong("a map")),
        }
    }
}

impl Value {
    /// The same value as JSON. A key that occurs twice keeps its last value.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(b) => (*b).into(),
            Self::Integer(n) => (*n).into(),
            Self::Float(n) => (*n).into(),
            Self::String(s) => s.clone().into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Object(body) => {
                let entries = body.entries.iter().map(|e| (e.key.clone(), e.value.to_json()));
                serde_json::Value::Object(entries.collect())
            }
        }
    }
}

#[cfg(test)]
mod tests;
