//! A device's salt: what stands in its lines for a string is the string's HMAC under it.
//!
//! Whoever has a string can find its lines (`sys/audit-hash`); whoever has the lines does not have the string.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::Sha256;
use zeroize::Zeroize;

/// A salt, as kept in the barrier.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Salt(String);

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt([redacted])")
    }
}

impl Drop for Salt {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Salt {
    /// A new one.
    pub(crate) fn random() -> Self {
        Self(hex::encode(rand::random::<[u8; 32]>()))
    }

    /// What stands for a string: `hmac-sha256:` and the HMAC in hex.
    pub(crate) fn identify(&self, text: &str) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()) else {
            // HMAC takes keys of any length.
            return "hmac-sha256:".to_owned();
        };
        mac.update(text.as_bytes());
        format!("hmac-sha256:{}", hex::encode(mac.finalize().into_bytes()))
    }

    /// What stands for a JSON value: its structure, numbers and truth values as they are, each string identified but
    /// those that are the value of a key in `clear`, at whatever depth, alone or in a list.
    pub(crate) fn cover(&self, value: &Value, clear: &[String]) -> Value {
        self.covered(value, clear, false)
    }

    /// As [`Salt::cover`], for an object.
    pub(crate) fn cover_map(&self, map: &Map<String, Value>, clear: &[String]) -> Map<String, Value> {
        let one = |(key, value): (&String, &Value)| {
            (key.clone(), self.covered(value, clear, clear.iter().any(|name| name == key)))
        };
        map.iter().map(one).collect()
    }

    fn covered(&self, value: &Value, clear: &[String], shown: bool) -> Value {
        match value {
            Value::String(text) if !shown => Value::String(self.identify(text)),
            Value::Array(items) => items.iter().map(|item| self.covered(item, clear, shown)).collect(),
            // What is in an object has keys of its own.
            Value::Object(map) => Value::Object(self.cover_map(map, clear)),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strings_become_hmacs_and_the_structure_stays() {
        let salt = Salt("salt".into());
        let covered = salt.cover(&json!({"k": "v", "n": 1, "list": ["v", true, {"x": null}]}), &[]);
        // printf v | openssl dgst -sha256 -hmac salt
        let v = "hmac-sha256:d1053253a067c3f5cb77387877c646c1c778e5c6d78c040af1fdb28f1aa4dcd2";
        assert_eq!(salt.identify("v"), v);
        assert_eq!(covered, json!({"k": v, "n": 1, "list": [v, true, {"x": null}]}));
        assert_ne!(Salt::random().identify("v"), v);
        // As OpenBao has it: the last key counts, and lists are their key's.
        let clear = ["k".to_owned()];
        let covered =
            salt.cover(&json!({"k": ["v", ["v"], {"x": "v"}], "data": {"k": "v", "x": ["v"]}}), &clear);
        assert_eq!(covered, json!({"k": ["v", ["v"], {"x": v}], "data": {"k": "v", "x": [v]}}));
        assert!(!format!("{salt:?}").contains("salt\""));
    }
}
