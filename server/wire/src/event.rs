//! One line of `sys/events/subscribe`, in Vault's form. An event says that something changed and
//! never what it changed to.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An event.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Event {
    /// Unique for each event.
    pub id: String,
    /// The server that saw it, `coffer://<node>`.
    pub source: String,
    /// Version of the CloudEvents form.
    pub specversion: String,
    /// What happened, such as `delivery/write`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Always `application/json`.
    #[serde(default)]
    pub datacontenttype: String,
    /// When, RFC 3339.
    pub time: String,
    /// The rest.
    pub data: EventData,
}

/// What Vault nests under `data`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EventData {
    /// The event proper.
    pub event: EventBody,
    /// What happened, once more.
    #[serde(default)]
    pub event_type: String,
    /// The mount it happened at.
    #[serde(default)]
    pub plugin_info: PluginInfo,
}

/// The event proper.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EventBody {
    /// The same id again.
    pub id: String,
    /// Where and how.
    pub metadata: EventMetadata,
}

/// Where something happened, how, and where to go on after it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct EventMetadata {
    /// Path under `/v1/`.
    pub path: String,
    /// `write`, `delete`, ...
    pub operation: String,
    /// Opaque; give it back as `?after=` to resume.
    pub position: String,
    /// What else belongs to events of this type.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// The mount an event came from.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct PluginInfo {
    /// Its path.
    pub mount_path: String,
}
