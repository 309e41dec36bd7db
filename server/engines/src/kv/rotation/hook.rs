//! What a webhook is sent, how it knows that the vault sent it, and what it may answer.
//!
//! `POST`, JSON, with `Idempotency-Key` (the same for every attempt at one thing) and either
//! `Authorization: Bearer <secret>` or `X-Coffer-Timestamp` (seconds) and `X-Coffer-Signature: v1=<hex>`, the
//! HMAC-SHA256 of `<timestamp>.<body>` under the secret. Never follows the answer anywhere.

use coffer_barrier::RecordKind;
use coffer_core::secret::{SecretBytes, SecretString};
use coffer_core::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::policy::{Proof, Webhook};
use crate::engine::EngineRequest;
use crate::input::{self, object};
use crate::webhook::{WebhookCall, Webhooks};
use crate::{EngineError, ReadView, WriteView, codec};

const URL_BYTES_MAX: usize = 2048;
const ALLOWED_MAX: usize = 100;
/// The most of an answer's data.
const DATA_BYTES_MAX: usize = super::super::PAYLOAD_BYTES_MAX;
const ALLOWED: &str = "rotation-config";

/// Which servers the policies of this mount may name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Allowed {
    origins: Vec<String>,
}

/// Scheme, host and port of an `https://` URL.
pub(super) fn origin(url: &str) -> Result<String, EngineError> {
    let refused =
        || EngineError::bad("a webhook is https://host[:port][/path], without a user or a fragment");
    if url.len() > URL_BYTES_MAX || url.bytes().any(|c| c <= b' ' || c == 0x7f || c == b'\\' || c == b'#') {
        return Err(refused());
    }
    let rest = url.strip_prefix("https://").ok_or_else(refused)?;
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'[' | b']' | b'_');
    if authority.is_empty() || !authority.bytes().all(plain) {
        return Err(refused());
    }
    let authority = authority.to_ascii_lowercase();
    Ok(format!("https://{}", authority.strip_suffix(":443").unwrap_or(&authority)))
}

pub(super) async fn allowed(view: &ReadView<'_>) -> Result<Allowed, EngineError> {
    Ok(view.record(RecordKind::Entry, ALLOWED, "kv rotation settings").await?.unwrap_or_default())
}

impl Allowed {
    pub(super) fn check(&self, url: &str) -> Result<(), EngineError> {
        let origin = origin(url)?;
        if self.origins.contains(&origin) {
            return Ok(());
        }
        Err(EngineError::bad(format!("{origin} is not in allowed_webhooks of this mount's rotation-config")))
    }

    pub(super) fn json(&self) -> Map<String, Value> {
        object(json!({ "allowed_webhooks": self.origins }))
    }
}

/// `rotation-config`.
pub(super) async fn write_allowed(
    view: &mut WriteView<'_>,
    req: &EngineRequest<'_>,
) -> Result<(), EngineError> {
    let given = input::texts(req.body, "allowed_webhooks", true)?
        .ok_or_else(|| EngineError::bad("allowed_webhooks is missing"))?;
    if given.len() > ALLOWED_MAX {
        return Err(EngineError::bad(format!("allowed_webhooks has more than {ALLOWED_MAX} entries")));
    }
    let mut origins = given.iter().map(|url| origin(url)).collect::<Result<Vec<_>, _>>()?;
    origins.sort();
    origins.dedup();
    view.put_record(RecordKind::Entry, ALLOWED, &Allowed { origins }).await
}

/// What is asked for.
pub(super) struct Ask<'a> {
    pub(super) action: &'static str,
    pub(super) path: &'a str,
    pub(super) key: String,
    /// The version that is the secret's now (for `rotate`), or that is not needed any more (for `retire`).
    pub(super) version: u64,
    /// The value to be taken, where the vault makes it.
    pub(super) data: Option<&'a Map<String, Value>>,
}

/// Asks, and gives back the answer's body.
pub(super) async fn ask(
    webhooks: &dyn Webhooks,
    webhook: &Webhook,
    ask: &Ask<'_>,
    now: Timestamp,
) -> Result<SecretBytes, EngineError> {
    let fail =
        |message: String| EngineError::Target { target: target(&webhook.url), retriable: true, message };
    #[derive(Serialize)]
    struct Body<'a> {
        action: &'a str,
        path: &'a str,
        version: u64,
        idempotency_key: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a Map<String, Value>>,
    }
    let body = Body {
        action: ask.action,
        path: ask.path,
        version: ask.version,
        idempotency_key: &ask.key,
        data: ask.data,
    };
    let body = codec::encode(&body, "request to a webhook", DATA_BYTES_MAX)?;
    let mut headers = vec![("idempotency-key", SecretString::copy_of(&ask.key))];
    match webhook.proof {
        Proof::Bearer => {
            headers.push(("authorization", SecretString::new(format!("Bearer {}", webhook.secret.expose()))));
        }
        Proof::Hmac => {
            let timestamp = now.as_secs().to_string();
            headers.push((
                "x-coffer-signature",
                SecretString::new(signature(&webhook.secret, &timestamp, &body)?),
            ));
            headers.push(("x-coffer-timestamp", SecretString::new(timestamp)));
        }
    }
    let call = WebhookCall { url: webhook.url.clone(), ca_pem: webhook.ca_pem.clone(), headers, body };
    let reply = webhooks.post(&call).await.map_err(fail)?;
    if !(200..300).contains(&reply.status) {
        return Err(fail(format!("the webhook answered with status {}", reply.status)));
    }
    Ok(reply.body)
}

fn signature(secret: &SecretString, timestamp: &str, body: &SecretBytes) -> Result<String, EngineError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .map_err(|_| EngineError::Corrupt("webhook secret"))?;
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body.expose());
    Ok(format!("v1={}", hex::encode(mac.finalize().into_bytes())))
}

/// The new data in an answer: `{"data": {...}}`.
pub(super) fn data_of(url: &str, body: &SecretBytes) -> Result<Map<String, Value>, EngineError> {
    #[derive(Deserialize)]
    struct Answer {
        data: Map<String, Value>,
    }
    let none = || EngineError::Target {
        target: target(url),
        retriable: true,
        message: "the webhook's answer is no {\"data\": {...}} with something in it".to_owned(),
    };
    let answer: Answer = serde_json::from_slice(body.expose()).map_err(|_| none())?;
    if answer.data.is_empty() { Err(none()) } else { Ok(answer.data) }
}

/// Whose queue a webhook's work is in.
pub(super) fn target(url: &str) -> String {
    origin(url).unwrap_or_else(|_| "webhook".to_owned())
}
