//! Asks webhooks over HTTPS, only where the server's rules of outbound addresses let it go. Follows no redirect, retries
//! nothing, and never tells what was sent.

use async_trait::async_trait;
use coffer_core::secret::SecretBytes;
use coffer_engines::kv::PAYLOAD_BYTES_MAX;
use coffer_engines::webhook::{WebhookCall, WebhookReply, Webhooks};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use zeroize::Zeroizing;

use crate::outbound::{Outbound, chain};

/// The real one.
#[derive(Debug)]
pub struct HttpWebhooks {
    outbound: Outbound,
}

impl HttpWebhooks {
    /// Goes where these rules permit.
    pub fn new(outbound: Outbound) -> Self {
        Self { outbound }
    }
}

#[async_trait]
impl Webhooks for HttpWebhooks {
    async fn post(&self, call: &WebhookCall) -> Result<WebhookReply, String> {
        let (client, url) = self.outbound.client(&call.url, call.ca_pem.as_deref().map(str::as_bytes))?;
        let mut request = client.post(url).header(CONTENT_TYPE, "application/json");
        for (name, value) in &call.headers {
            let mut value =
                HeaderValue::from_str(value.expose()).map_err(|_| format!("{name} is no header"))?;
            value.set_sensitive(true);
            request = request.header(*name, value);
        }
        let sent = request.body(call.body.expose().to_vec()).send().await;
        let mut response = sent.map_err(|error| chain(&error.without_url()))?;
        let status = response.status().as_u16();
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error.without_url()))? {
            if body.len() + chunk.len() > PAYLOAD_BYTES_MAX {
                return Err(format!("the answer has more than {PAYLOAD_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(WebhookReply { status, body: SecretBytes::new(std::mem::take(&mut *body)) })
    }
}
