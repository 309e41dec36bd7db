//! Fetching signing keys over HTTPS. The only place of this room that speaks to a network itself.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::deps::{FetchKeys, KeysQuery};

/// Where Kubernetes puts a pod's own token and the cluster's CA.
const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The largest key set.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Fetches keys with HTTPS. Redirects are not followed: they would take the server's token elsewhere.
#[derive(Debug)]
pub struct HttpKeys {
    dir: PathBuf,
}

impl HttpKeys {
    /// With the ServiceAccount token where Kubernetes puts it.
    pub fn new() -> Self {
        Self::with_dir(SERVICE_ACCOUNT_DIR)
    }

    /// With the ServiceAccount token in another directory.
    pub fn with_dir(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    async fn request(&self, query: &KeysQuery) -> Result<reqwest::RequestBuilder, String> {
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(10));
        let ca = match &query.ca_pem {
            Some(pem) => Some(pem.clone().into_bytes()),
            None if query.own_token => tokio::fs::read(self.dir.join("ca.crt")).await.ok(),
            None => None,
        };
        if let Some(ca) = ca {
            let certificates =
                reqwest::Certificate::from_pem_bundle(&ca).map_err(|_| "the CA is not PEM".to_owned())?;
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder.build().map_err(|e| text(&e))?;
        let mut request = client.get(&query.url);
        if query.own_token {
            // Read each time: kubelet replaces it.
            let token = tokio::fs::read_to_string(self.dir.join("token")).await;
            let token = Zeroizing::new(token.map_err(|e| format!("own ServiceAccount token: {e}"))?);
            request = request.bearer_auth(token.trim());
        }
        Ok(request)
    }
}

impl Default for HttpKeys {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl FetchKeys for HttpKeys {
    async fn fetch(&self, query: &KeysQuery) -> Result<String, String> {
        let mut response = self.request(query).await?.send().await.map_err(|e| text(&e))?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| text(&e))? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(format!("more than {BODY_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        String::from_utf8(body).map_err(|_| "not UTF-8".into())
    }
}

/// The error and its causes.
fn text(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
