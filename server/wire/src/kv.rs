//! Key-value secrets, version 2. Never decides about versions.

use crate::{Disclose, Metadata};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Body of `POST <mount>/data/<path>`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct KvWrite {
    /// The secret's keys and values.
    pub data: Disclose<Map<String, Value>>,
    /// Conditions of the write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<KvOptions>,
}

/// Conditions of a write.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct KvOptions {
    /// The version that must be the newest; 0 for "there is none".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cas: Option<u64>,
}

/// `data` of `GET <mount>/data/<path>`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct KvRead {
    /// The secret; none if that version is deleted.
    pub data: Option<Disclose<Map<String, Value>>>,
    /// Which version this is.
    pub metadata: KvVersion,
}

/// One version of a secret, also `data` of the reply to a write.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KvVersion {
    /// When it was written, RFC 3339.
    pub created_time: String,
    /// The owner's labels.
    #[serde(default)]
    pub custom_metadata: Option<Metadata>,
    /// When it was deleted; empty if it was not.
    #[serde(default)]
    pub deletion_time: String,
    /// Whether its bytes are gone for good.
    #[serde(default)]
    pub destroyed: bool,
    /// Its number, from 1.
    pub version: u64,
}
