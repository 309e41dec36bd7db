//! The Secret with the unseal key and the root token. For evaluation only: whoever can read it owns the vault.

use std::collections::BTreeMap;

use coffer_client::wire::{Disclose, InitResponse};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};

const UNSEAL_KEY: &str = "unseal-key";
const ROOT_TOKEN: &str = "root-token";

/// What the Secret keeps.
pub(crate) struct Keys {
    /// The one share of the unseal key.
    pub(crate) unseal_key: Disclose,
    /// The token that may do everything.
    pub(crate) root_token: Disclose,
}

/// The Secret, by name.
pub(crate) struct KeySecret {
    api: Api<Secret>,
    name: String,
}

impl KeySecret {
    /// The Secret of this name.
    pub(crate) fn new(kube: &Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(kube.clone(), namespace), name: name.to_owned() }
    }

    /// Makes the Secret, empty, if it is not there: keys that are shown once must have a place before they are asked for.
    pub(crate) async fn prepare(&self) -> anyhow::Result<()> {
        let mut secret = Secret::default();
        secret.metadata.name = Some(self.name.clone());
        secret.metadata.annotations = Some(BTreeMap::from([(
            "coffer.dev/note".to_owned(),
            "evaluation only: whoever reads this owns the vault".to_owned(),
        )]));
        match self.api.create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The keys, if the Secret has them.
    pub(crate) async fn read(&self) -> anyhow::Result<Option<Keys>> {
        let Some(secret) = self.api.get_opt(&self.name).await? else { return Ok(None) };
        let mut data = secret.data.unwrap_or_default();
        let mut take = |key: &str| {
            data.remove(key).and_then(|ByteString(bytes)| String::from_utf8(bytes).ok()).map(Disclose::from)
        };
        Ok(match (take(UNSEAL_KEY), take(ROOT_TOKEN)) {
            (Some(unseal_key), Some(root_token)) => Some(Keys { unseal_key, root_token }),
            _ => None,
        })
    }

    /// Keeps the keys of a new vault. Those of an older one are kept beside them: its store may still be somewhere.
    pub(crate) async fn write(&self, made: &InitResponse) -> anyhow::Result<()> {
        let share = made.keys_base64.first().ok_or_else(|| anyhow::anyhow!("the server made no key"))?;
        let mut text: Map<String, Value> = Map::new();
        if let Some(old) = self.read().await? {
            text.insert(format!("previous-{UNSEAL_KEY}"), old.unseal_key.expose().as_str().into());
            text.insert(format!("previous-{ROOT_TOKEN}"), old.root_token.expose().as_str().into());
        }
        text.insert(UNSEAL_KEY.to_owned(), share.expose().as_str().into());
        text.insert(ROOT_TOKEN.to_owned(), made.root_token.expose().as_str().into());
        let patch = Disclose::new(Map::from_iter([("stringData".to_owned(), Value::Object(text))]));
        let body = Patch::Merge(json!(patch));
        // Shown once: if this fails the vault is of no use, so it is tried hard.
        let mut last = None;
        for _ in 0..10 {
            match self.api.patch(&self.name, &PatchParams::default(), &body).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
        Err(anyhow::anyhow!(
            "the keys could not be stored in Secret {}: {}; empty the server's volume and start again",
            self.name,
            last.map(|error| error.to_string()).unwrap_or_default()
        ))
    }
}
