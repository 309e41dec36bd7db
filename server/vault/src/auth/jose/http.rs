//! Fetching signing keys over HTTPS.

use std::path::PathBuf;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::deps::{FetchKeys, KeysQuery};
use crate::outbound::{Outbound, chain};

/// Where Kubernetes puts a pod's own token and the cluster's CA.
const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The largest key set.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Fetches keys with HTTPS. Redirects are not followed: they would take the server's token elsewhere.
#[derive(Debug)]
pub struct HttpKeys {
    dir: PathBuf,
    outbound: Outbound,
}

impl HttpKeys {
    /// With the ServiceAccount token where Kubernetes puts it.
    pub fn new(outbound: Outbound) -> Self {
        Self::with_dir(SERVICE_ACCOUNT_DIR, outbound)
    }

    /// With the ServiceAccount token in another directory.
    pub fn with_dir(dir: impl Into<PathBuf>, outbound: Outbound) -> Self {
        Self { dir: dir.into(), outbound }
    }

    async fn request(&self, query: &KeysQuery) -> Result<reqwest::RequestBuilder, String> {
        let cas = match &query.ca_pem {
            Some(pem) => Some(pem.clone().into_bytes()),
            None if query.own_token => tokio::fs::read(self.dir.join("ca.crt")).await.ok(),
            None => None,
        };
        let (client, url) = self.outbound.client(&query.url, cas.as_deref())?;
        let mut request = client.get(url);
        if query.own_token {
            // Read each time: kubelet replaces it.
            let token = tokio::fs::read_to_string(self.dir.join("token")).await;
            let token = Zeroizing::new(token.map_err(|e| format!("own ServiceAccount token: {e}"))?);
            request = request.bearer_auth(token.trim());
        }
        Ok(request)
    }
}

#[async_trait]
impl FetchKeys for HttpKeys {
    async fn fetch(&self, query: &KeysQuery) -> Result<String, String> {
        let mut response = self.request(query).await?.send().await.map_err(|e| chain(&e))?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| chain(&e))? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(format!("more than {BODY_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        String::from_utf8(body).map_err(|_| "not UTF-8".into())
    }
}
