//! How an engine asks somebody outside for its part in a rotation. The port only: where may be gone to is decided by
//! whoever implements it. Never retries.

use async_trait::async_trait;
use coffer_core::secret::{SecretBytes, SecretString};

/// One request.
pub struct WebhookCall {
    /// Where: `https://`.
    pub url: String,
    /// PEM of the CAs to trust; none for the system's.
    pub ca_pem: Option<String>,
    /// Headers besides `Content-Type: application/json`. Their values may be secret.
    pub headers: Vec<(&'static str, SecretString)>,
    /// The body: JSON.
    pub body: SecretBytes,
}

/// What was answered.
pub struct WebhookReply {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: SecretBytes,
}

/// Sends requests to webhooks.
#[async_trait]
pub trait Webhooks: Send + Sync + 'static {
    /// The answer of whatever status, or why there is none (no secrets in it).
    async fn post(&self, call: &WebhookCall) -> Result<WebhookReply, String>;
}

/// Goes nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWebhooks;

#[async_trait]
impl Webhooks for NoWebhooks {
    async fn post(&self, _call: &WebhookCall) -> Result<WebhookReply, String> {
        Err("no webhooks are called here".to_owned())
    }
}
