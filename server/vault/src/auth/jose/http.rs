//! Speaking HTTPS to whoever vouches for tokens: issuers for their keys, API servers for their word.

use std::path::PathBuf;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::deps::{ApiCall, ApiReply, ApiServer, Credential, FetchKeys, KeysQuery};
use crate::outbound::{Outbound, chain};

/// Where Kubernetes puts a pod's own token and the cluster's CA.
const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The largest key set or answer.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Speaks HTTPS. Redirects are not followed: they would take the server's token elsewhere.
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

    /// The CA that Kubernetes puts beside the token.
    async fn own_ca(&self) -> Option<Vec<u8>> {
        tokio::fs::read(self.dir.join("ca.crt")).await.ok()
    }

    /// The server's own ServiceAccount token. Read each time: kubelet replaces it.
    async fn own_token(&self) -> Result<Zeroizing<String>, String> {
        let text = tokio::fs::read_to_string(self.dir.join("token")).await;
        let text = Zeroizing::new(text.map_err(|e| format!("own ServiceAccount token: {e}"))?);
        Ok(Zeroizing::new(text.trim().to_owned()))
    }

    async fn request(&self, query: &KeysQuery) -> Result<reqwest::RequestBuilder, String> {
        let cas = match &query.ca_pem {
            Some(pem) => Some(pem.clone().into_bytes()),
            None if query.own_token => self.own_ca().await,
            None => None,
        };
        let (client, url) = self.outbound.client(&query.url, cas.as_deref())?;
        let mut request = client.get(url);
        if query.own_token {
            request = request.bearer_auth(&*self.own_token().await?);
        }
        Ok(request)
    }

    async fn call(&self, server: &ApiServer, call: &ApiCall) -> Result<reqwest::RequestBuilder, String> {
        let token = match &server.credential {
            Credential::Own => self.own_token().await?,
            Credential::Given(token) => token.clone(),
        };
        let cas = match &server.ca_pem {
            Some(pem) => Some(pem.clone().into_bytes()),
            None if server.own_ca => self.own_ca().await,
            None => None,
        };
        let url = format!("{}{}", server.host.trim_end_matches('/'), call.path);
        let (client, url) = self.outbound.client(&url, cas.as_deref())?;
        let request = match &call.body {
            None => client.get(url),
            Some(body) => client
                .post(url)
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .body(body.as_bytes().to_vec()),
        };
        Ok(request.bearer_auth(&*token).header(reqwest::header::ACCEPT, "application/json"))
    }
}

/// Reads a body that must not be longer than what keys and answers have room in.
async fn text(mut response: reqwest::Response) -> Result<String, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| chain(&e))? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(format!("more than {BODY_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    String::from_utf8(body).map_err(|_| "not UTF-8".into())
}

#[async_trait]
impl FetchKeys for HttpKeys {
    async fn fetch(&self, query: &KeysQuery) -> Result<String, String> {
        let response = self.request(query).await?.send().await.map_err(|e| chain(&e))?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status().as_u16()));
        }
        text(response).await
    }

    async fn ask(&self, server: &ApiServer, call: &ApiCall) -> Result<ApiReply, String> {
        let response = self.call(server, call).await?.send().await.map_err(|e| chain(&e))?;
        Ok(ApiReply { status: response.status().as_u16(), body: text(response).await? })
    }
}
