//! [`Disclose`]: a secret on its way over the wire. It serializes, so it must never be put into
//! anything that is logged as JSON; its `Debug` says nothing, not even a length.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroize;

/// Data whose memory can be overwritten before it is freed.
pub trait Scrub {
    /// Overwrites every secret byte this value holds.
    fn scrub(&mut self);
}

impl Scrub for String {
    fn scrub(&mut self) {
        self.zeroize();
    }
}

impl Scrub for Value {
    fn scrub(&mut self) {
        match self {
            Self::String(text) => text.zeroize(),
            Self::Array(items) => items.iter_mut().for_each(Self::scrub),
            Self::Object(map) => map.scrub(),
            Self::Null | Self::Bool(_) | Self::Number(_) => *self = Self::Null,
        }
    }
}

impl Scrub for Map<String, Value> {
    fn scrub(&mut self) {
        self.values_mut().for_each(Value::scrub);
    }
}

impl<K, V: Scrub> Scrub for BTreeMap<K, V> {
    fn scrub(&mut self) {
        self.values_mut().for_each(Scrub::scrub);
    }
}

/// A secret value in a request or a response. Scrubbed when dropped.
///
/// There is no `Deref` and no `Display`: the one way to the value is [`Disclose::expose`], so that
/// every use can be found by searching for that word.
pub struct Disclose<T: Scrub = String>(T);

impl<T: Scrub> Disclose<T> {
    /// Wraps a secret.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The secret itself; whoever calls this vouches for where it goes.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Scrub> Drop for Disclose<T> {
    fn drop(&mut self) {
        self.0.scrub();
    }
}

impl<T: Scrub + Clone> Clone for Disclose<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Scrub + Default> Default for Disclose<T> {
    fn default() -> Self {
        Self(T::default())
    }
}

impl<T: Scrub> fmt::Debug for Disclose<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disclose(..)")
    }
}

impl<T: Scrub + Serialize> Serialize for Disclose<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Scrub + Deserialize<'de>> Deserialize<'de> for Disclose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self)
    }
}

impl From<String> for Disclose {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<&str> for Disclose {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl From<Map<String, Value>> for Disclose<Map<String, Value>> {
    fn from(value: Map<String, Value>) -> Self {
        Self(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn debug_tells_nothing() {
        let secret = Disclose::from("hunter2");
        assert_eq!(format!("{secret:?}"), "Disclose(..)");
    }

    #[test]
    fn serializes_as_the_bare_value() {
        let secret: Disclose = serde_json::from_value(json!("hunter2")).unwrap();
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(serde_json::to_value(&secret).unwrap(), json!("hunter2"));
    }

    #[test]
    fn scrub_reaches_nested_values() {
        let mut value = json!({"a": ["x", {"b": "y"}], "n": 4});
        value.scrub();
        assert_eq!(value, json!({"a": ["", {"b": ""}], "n": null}));
    }
}
