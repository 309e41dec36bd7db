//! What one audit record says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Which of the records of one operation this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordType {
    /// Written before an effect.
    Intent,
    /// Written after it, successful or not. Also the only record of a request that was refused.
    Completion,
    /// The one record of a read.
    Read,
}

/// One record. Fields that do not apply are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When, in RFC 3339.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// The record's number. Given by the chain; ignored when appending.
    #[serde(default, skip_serializing)]
    pub seq: u64,
    /// Which record of the operation.
    #[serde(rename = "type")]
    pub kind: RecordType,
    /// Ties intent and completion together.
    pub request_id: String,
    /// `read`, `update`, `revoke` ...
    pub operation: String,
    /// The path, without `/v1/`.
    pub path: String,
    /// The HTTP status; intents have none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Names the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accessor: Option<String>,
    /// Whose token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// How its holder logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_method: Option<String>,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<String>,
    /// The lease that was issued, renewed or revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    /// The token's metadata: pod, namespace, service account.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// How long the reply took, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_time_us: Option<u64>,
    /// What went wrong, as the client was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl AuditRecord {
    /// A record with the fields that every one has.
    pub fn new(
        time: Timestamp,
        kind: RecordType,
        request_id: impl Into<String>,
        operation: impl Into<String>,
        path: impl Into<String>,
    ) -> Self {
        Self {
            time,
            seq: 0,
            kind,
            request_id: request_id.into(),
            operation: operation.into(),
            path: path.into(),
            status: None,
            accessor: None,
            display_name: None,
            auth_method: None,
            client_ip: None,
            lease_id: None,
            metadata: BTreeMap::new(),
            response_time_us: None,
            error: None,
        }
    }

    /// Reads a record out of a line of the log, ignoring the chain's fields but `seq`.
    pub fn from_line(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

mod rfc3339 {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::time::Timestamp;

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time.to_rfc3339())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Timestamp::parse_rfc3339(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
