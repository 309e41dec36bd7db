//! Where a secret's document comes from: the server, or the pod's own annotations. Never renders.

use crate::config::{Config, Wanted};
use crate::error::AgentError;
use crate::state::Document;
use coffer_client::wire::{DeliveryDocument, DeliveryFile, DeliverySource};
use coffer_client::{Client, ClientError};
use serde_json::{Map, Value};

// A dynamic secret wins over a static one of the same name.
const KINDS: [&str; 2] = ["dsec", "ssec"];

/// What looking for a document found.
#[derive(Debug)]
pub(crate) enum Found {
    /// There is none yet.
    Absent,
    /// The token may not read it, which is also what a name nobody has granted yet looks like.
    Denied,
    /// Here it is.
    Document(Box<Document>),
}

/// Looks for the document of a secret.
pub(crate) async fn find(client: &Client, config: &Config, wanted: &Wanted) -> Result<Found, AgentError> {
    if let Some(path) = &wanted.path {
        let document = Document { path: String::new(), version: 1, body: from_annotations(wanted, path) };
        return Ok(Found::Document(Box::new(document)));
    }
    let mut denied = false;
    for kind in KINDS {
        let path = format!("{}{kind}/{}", prefix(config), wanted.name);
        match client.read_delivery(&path).await {
            Ok(Some(reply)) => {
                let body = adjusted(reply.document, wanted);
                return Ok(Found::Document(Box::new(Document { path, version: reply.version, body })));
            }
            Ok(None) => {}
            Err(ClientError::Status { code: 403, .. }) => denied = true,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(if denied { Found::Denied } else { Found::Absent })
}

/// Where every document of the pod's namespace is, without the mount.
pub(crate) fn prefix(config: &Config) -> String {
    format!("k8s/{}/{}/", config.cluster, config.namespace)
}

fn from_annotations(wanted: &Wanted, path: &str) -> DeliveryDocument {
    let bare = DeliveryDocument {
        uid: String::new(),
        generation: 0,
        source: DeliverySource { path: path.to_owned(), leased: false },
        scope: None,
        ttl: None,
        max_ttl: None,
        renew_at_percent: None,
        overlap: None,
        files: Vec::new(),
        on_change: Vec::new(),
    };
    adjusted(bare, wanted)
}

// The pod's own words come after the document's: who writes the pod could read the secret anyway.
fn adjusted(mut document: DeliveryDocument, wanted: &Wanted) -> DeliveryDocument {
    if wanted.template.is_some() || wanted.file.is_some() {
        let template = wanted.template.clone().unwrap_or_else(|| "{{ toJSON . }}".to_owned());
        document.files = vec![DeliveryFile {
            name: wanted.file.clone().unwrap_or_else(|| wanted.name.clone()),
            mode: None,
            template: Some(template),
        }];
    }
    if let Some(mode) = &wanted.mode {
        for file in &mut document.files {
            file.mode = Some(mode.clone());
        }
    }
    document.on_change.extend(wanted.on_change.iter().cloned());
    document
}

/// The secret proper: a version 2 key-value reply wraps it once more.
pub(crate) fn secret_of(reply: &Map<String, Value>) -> &Map<String, Value> {
    match (reply.get("data"), reply.get("metadata"), reply.len()) {
        (Some(Value::Object(data)), Some(Value::Object(metadata)), 2) if metadata.contains_key("version") => {
            data
        }
        _ => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wanted(json: Value) -> Wanted {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn annotations_alone_make_a_document() {
        let w = wanted(json!({"name": "app", "path": "secret/data/app", "file": "app.json", "mode": "0400"}));
        let document = from_annotations(&w, "secret/data/app");
        assert_eq!(document.files.len(), 1);
        assert_eq!(document.files[0].name, "app.json");
        assert_eq!(document.files[0].template.as_deref(), Some("{{ toJSON . }}"));
        assert_eq!(document.files[0].mode.as_deref(), Some("0400"));
    }

    #[test]
    fn only_the_shape_of_a_version_2_reply_is_unwrapped() {
        let kv = json!({"data": {"a": 1}, "metadata": {"version": 3}});
        let plain = json!({"data": {"a": 1}, "metadata": "mine"});
        let (Value::Object(kv), Value::Object(plain)) = (kv, plain) else { panic!("both are maps") };
        assert_eq!(secret_of(&kv).len(), 1);
        assert_eq!(secret_of(&plain).len(), 2);
    }
}
