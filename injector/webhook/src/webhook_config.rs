//! Keeps the CA in the MutatingWebhookConfiguration, so that nobody has to copy certificates. Changes
//! that one field only.

use anyhow::Context;
use json_patch::Patch as JsonPatch;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Sets the CA bundle where it differs. True if something was written.
pub(crate) async fn keep_ca(client: &Client, name: &str, ca_bundle: &str) -> anyhow::Result<bool> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let config = api.get(name).await.with_context(|| format!("read MutatingWebhookConfiguration {name}"))?;
    let Some(patch) = changes(&config, ca_bundle)? else { return Ok(false) };
    api.patch(name, &PatchParams::default(), &Patch::Json::<()>(patch))
        .await
        .with_context(|| format!("write the CA to MutatingWebhookConfiguration {name}"))?;
    Ok(true)
}

fn changes(config: &MutatingWebhookConfiguration, ca_bundle: &str) -> anyhow::Result<Option<JsonPatch>> {
    let wanted = ByteString(ca_bundle.as_bytes().to_vec());
    let mut ops: Vec<Value> = Vec::new();
    for (i, webhook) in config.webhooks.iter().flatten().enumerate() {
        if webhook.client_config.ca_bundle.as_ref() == Some(&wanted) {
            continue;
        }
        // Positions may have changed since the read; the test makes the API server refuse then.
        ops.push(json!({"op": "test", "path": format!("/webhooks/{i}/name"), "value": webhook.name}));
        ops.push(
            json!({"op": "add", "path": format!("/webhooks/{i}/clientConfig/caBundle"), "value": wanted}),
        );
    }
    if ops.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_value(Value::from(ops)).context("build the patch")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let config: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": "coffer-injector"},
            "webhooks": [
                {"name": "a.coffer.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {}},
                {"name": "b.coffer.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                 "clientConfig": {"caBundle": "Q0E="}}
            ]
        }))
        .unwrap();
        let patch = serde_json::to_value(changes(&config, "CA").unwrap().unwrap()).unwrap();
        assert_eq!(
            patch,
            json!([
                {"op": "test", "path": "/webhooks/0/name", "value": "a.coffer.dev"},
                {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "Q0E="}
            ])
        );
    }
}
