//! A Coffer in the cluster: installed with Helm, asked through its `/v1` API. Never looks inside it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::{Method, Request};
use kube::client::Body;
use serde_json::Value;

use crate::Cluster;
use crate::paths::{image_version, images_dir, repo};
use crate::shell::{run, try_run};
use crate::wait::eventually;

/// The namespace and the release.
const NAMESPACE: &str = "coffer-system";
const RELEASE: &str = "coffer";
const SERVER_POD: &str = "coffer-0";
const IMAGES_MARK: &str = "coffer.dev/test-images";

/// Coffer in a cluster.
#[derive(Clone)]
pub struct Coffer {
    cluster: Cluster,
    client: kube::Client,
}

/// An answer of the `/v1` API.
#[derive(Debug)]
pub struct ApiReply {
    /// HTTP status.
    pub status: u16,
    /// Body; `null` when there is none.
    pub body: Value,
}

impl Coffer {
    /// The namespace Coffer runs in.
    pub const NAMESPACE: &str = NAMESPACE;

    /// The images a release consists of, as files.
    pub fn images() -> Vec<PathBuf> {
        let names = ["server", "operator", "injector", "agent", "demo-app"];
        names.iter().map(|name| images_dir().join(format!("{name}.tar"))).collect()
    }

    /// A handle on an installed Coffer.
    pub async fn attach(cluster: &Cluster) -> Result<Self> {
        Ok(Self { cluster: cluster.clone(), client: cluster.client().await? })
    }

    /// Loads the images and installs the chart for evaluation: one server, embedded store, initialised and
    /// unsealed by itself. What is there of other images is removed first. Waits until all of it is ready.
    pub async fn install(cluster: &Cluster) -> Result<Self> {
        let images = Self::images();
        let mark = format!("{IMAGES_MARK}={}", fingerprint(&images)?);
        if cluster.kubectl(&["get", "ns", NAMESPACE, "-o", "jsonpath={.metadata.labels}"]).await.is_ok() {
            let same = cluster.kubectl(&["get", "namespace", "-l", &mark, "-o", "name"]).await?;
            if same.trim().is_empty() {
                Self::uninstall(cluster).await?;
            }
        }
        cluster.load(&images).await?;
        let mut helm = cluster.program("helm");
        helm.args(["upgrade", "--install", RELEASE]).arg(repo().join("charts/coffer"));
        helm.args(["--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "180s"]);
        helm.args(["--set", "autoInit.enabled=true"]);
        if let Err(why) = run(&mut helm).await {
            let pods =
                cluster.kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "wide"]).await.unwrap_or_default();
            let events =
                cluster.kubectl(&["events", "-n", NAMESPACE, "--types=Warning"]).await.unwrap_or_default();
            return Err(why.context(format!("helm install:\n{pods}\n{events}")));
        }
        // All images have one tag, so Helm cannot see that they changed; the label says which ones are installed.
        cluster.kubectl(&["label", "namespace", NAMESPACE, &mark, "--overwrite"]).await?;
        let coffer = Self::attach(cluster).await?;
        coffer.until_unsealed().await?;
        let connection = "cofferconnection/default";
        cluster.wait_for(NAMESPACE, connection, "condition=Ready", Duration::from_secs(60)).await?;
        Ok(coffer)
    }

    /// Uninstalls the chart and deletes its namespace.
    pub async fn uninstall(cluster: &Cluster) -> Result<()> {
        let mut helm = cluster.program("helm");
        let output =
            try_run(helm.args(["uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "60s"]), None);
        let output = output.await?;
        if !output.ok && !output.stderr.contains("not found") {
            bail!("helm uninstall: {}", output.stderr);
        }
        cluster.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait"]).await.map(drop)
    }

    /// The tag of the images in use.
    pub fn version() -> &'static str {
        image_version()
    }

    /// Waits until the server says that it is unsealed.
    pub async fn until_unsealed(&self) -> Result<()> {
        eventually("the server is unsealed", Duration::from_secs(60), || async {
            let reply = self.call(Method::GET, "sys/seal-status", None, None).await?;
            if reply.body["sealed"] == Value::Bool(false) { Ok(()) } else { bail!("{}", reply.body) }
        })
        .await
    }

    /// One request to the server, by way of the API server's proxy, so that it works from outside of any cluster.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<ApiReply> {
        let base = format!("/api/v1/namespaces/{NAMESPACE}/pods/https:{SERVER_POD}:8200/proxy/v1/");
        let mut request = Request::builder().method(method).uri(format!("{base}{path}"));
        if let Some(token) = token {
            request = request.header("X-Vault-Token", token);
        }
        let bytes = match body {
            Some(body) => serde_json::to_vec(body)?,
            None => Vec::new(),
        };
        let request = request.header("Content-Type", "application/json").body(Body::from(bytes))?;
        let reply =
            self.client.send(request).await.with_context(|| format!("asking the server for {path}"))?;
        let status = reply.status().as_u16();
        let bytes = reply.into_body().collect_bytes().await?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
        };
        Ok(ApiReply { status, body })
    }

    /// A request as root that must succeed.
    pub async fn root(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let token = self.root_token().await?;
        let reply = self.call(method, path, Some(&token), body).await?;
        if reply.status >= 300 {
            bail!("{path}: {} {}", reply.status, reply.body);
        }
        Ok(reply.body)
    }

    /// The root token that `autoInit` keeps, for evaluation only, in a Secret.
    pub async fn root_token(&self) -> Result<String> {
        let template = "go-template={{index .data \"root-token\" | base64decode}}";
        let args = ["get", "secret", "coffer-unseal-keys", "-n", NAMESPACE, "-o", template];
        self.cluster.kubectl(&args).await
    }

    /// The last `limit` records of the audit log.
    pub async fn audit(&self, limit: usize) -> Result<Vec<Value>> {
        let reply = self.root(Method::GET, &format!("sys/audit/tail?limit={limit}"), None).await?;
        let records = reply["data"]["records"].as_array().cloned();
        records.with_context(|| format!("the audit tail has no records: {reply}"))
    }
}

/// Tells one build's images from another's by their sizes and times.
fn fingerprint(images: &[PathBuf]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for image in images {
        let meta =
            std::fs::metadata(image).with_context(|| format!("{}; run e2e/images/build", image.display()))?;
        (meta.len(), meta.mtime(), meta.mtime_nsec()).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}
