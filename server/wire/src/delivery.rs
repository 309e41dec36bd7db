//! The delivery document: what the operator tells the agent about one secret. It names where the
//! secret is read and never holds the secret itself.

use crate::Metadata;
use serde::{Deserialize, Serialize};

/// How one DynamicSecret or StaticSecret reaches its pods.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryDocument {
    /// UID of the Kubernetes object.
    pub uid: String,
    /// Its generation; grows with each edit.
    pub generation: i64,
    /// Where the secret is read.
    pub source: DeliverySource,
    /// `PerPod` or `Shared`; none for a static secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// First life of a lease, such as `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Longest life of a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<String>,
    /// At how many percent of a lease's life it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at_percent: Option<u8>,
    /// How long old and new credential are valid side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
    /// Files to write; empty means one for each key of the secret.
    #[serde(default)]
    pub files: Vec<DeliveryFile>,
    /// What to do once the files have changed.
    #[serde(default)]
    pub on_change: Vec<ChangeAction>,
}

/// Where a secret is read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySource {
    /// Path under `/v1/`.
    pub path: String,
    /// Whether a read issues a lease.
    #[serde(default)]
    pub leased: bool,
}

/// A file to write.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryFile {
    /// Its name inside the secret's directory.
    pub name: String,
    /// Octal mode such as `0440`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// A Go template over the secret's data; none writes the key of the file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// How to tell the application that its files changed. Exactly one of the forms is set; the server
/// keeps what the operator wrote, so forms this version does not know pass through it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChangeAction {
    /// The container to signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The signal's name, such as `SIGHUP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// A call to the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCall>,
}

/// A request to the application, on loopback.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpCall {
    /// URL that gets an empty POST.
    pub post: String,
}

/// Body of `POST delivery/...`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeliveryWrite {
    /// The document.
    pub document: DeliveryDocument,
    /// The writer's labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<Metadata>,
}

/// `data` of `GET delivery/...`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeliveryReply {
    /// The document.
    pub document: DeliveryDocument,
    /// Grows with each write.
    pub version: u64,
    /// When it was last written, RFC 3339.
    #[serde(default)]
    pub updated_time: String,
    /// The writer's labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<Metadata>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_the_contract_form() {
        let document: DeliveryDocument = serde_json::from_value(json!({
            "uid": "u", "generation": 4,
            "source": {"path": "database/creds/k8s.c.shop.orders", "leased": true},
            "scope": "PerPod", "ttl": "1h", "maxTtl": "24h", "renewAtPercent": 66, "overlap": "5m",
            "files": [{"name": "dsn", "mode": "0440", "template": "{{ .username }}"}],
            "onChange": [{"container": "app", "signal": "SIGHUP"}, {"http": {"post": "http://127.0.0.1:80/"}}]
        }))
        .unwrap();
        assert_eq!(document.max_ttl.as_deref(), Some("24h"));
        assert_eq!(document.on_change[1].http.as_ref().unwrap().post, "http://127.0.0.1:80/");
    }
}
