//! The story of `orders-api`: what the demo tells and the tests assert. A database of the platform team, a shop
//! whose pods get logins for it. Never judges: it sets the scene and reports what is there.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::paths::repo;
use crate::{Cluster, Coffer, Login, Postgres};

/// The example's pod.
pub const POD: &str = "orders-api";
const SETTLED: Duration = Duration::from_secs(60);

/// The scene: two namespaces, a Postgres on this machine, the example manifests applied.
pub struct Orders {
    /// The cluster it plays in.
    pub cluster: Cluster,
    /// The vault.
    pub coffer: Coffer,
    /// The database.
    pub postgres: Postgres,
    /// The application team's namespace.
    pub shop: String,
    /// The platform team's namespace.
    pub platform: String,
}

/// The names in the example manifests, replaced by those of a scene.
pub fn example(file: &str, shop: &str, platform: &str) -> Result<String> {
    let path = repo().join("e2e/examples").join(file);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text
        .replace("namespace: shop", &format!("namespace: {shop}"))
        .replace("namespace: platform", &format!("namespace: {platform}"))
        .replace("name: shop\n", &format!("name: {shop}\n"))
        .replace("name: platform\n", &format!("name: {platform}\n"))
        .replace("orders-pg.platform.svc", &format!("orders-pg.{platform}.svc"))
        .replace("secret/data/shop/", &format!("secret/data/{shop}/")))
}

impl Orders {
    /// Makes the namespaces and starts Postgres, with a Service `orders-pg` that leads to it. With `kept`, Postgres
    /// lives in that directory and goes on when this process ends.
    pub async fn open(
        cluster: &Cluster,
        coffer: &Coffer,
        shop: &str,
        platform: &str,
        kept: Option<&Path>,
    ) -> Result<Self> {
        cluster.apply(&example("namespaces.yaml", shop, platform)?).await?;
        let name = format!("orders-pg.{platform}.svc");
        let (addresses, names) =
            (["127.0.0.1", cluster.host_address()], [name.as_str(), cluster.host_address()]);
        let postgres = match kept {
            Some(dir) => Postgres::start_kept(dir, &addresses, &names).await?,
            None => Postgres::start(&addresses, &names).await?,
        };
        let this = Self {
            cluster: cluster.clone(),
            coffer: coffer.clone(),
            postgres,
            shop: shop.to_owned(),
            platform: platform.to_owned(),
        };
        this.publish_postgres().await?;
        Ok(this)
    }

    /// Everything of [`Orders::open`], and the example manifests applied and Ready.
    pub async fn prepare(cluster: &Cluster, coffer: &Coffer, shop: &str, platform: &str) -> Result<Self> {
        let this = Self::open(cluster, coffer, shop, platform, None).await?;
        this.apply_examples().await?;
        Ok(this)
    }

    async fn publish_postgres(&self) -> Result<()> {
        let (platform, admin) = (&self.platform, self.postgres.admin());
        let labels = json!({"kubernetes.io/service-name": "orders-pg"});
        let ca = |namespace: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "orders-pg-ca", "namespace": namespace},
                   "data": {"ca.crt": self.postgres.ca_pem()}})
        };
        let items = json!([
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "orders-pg-admin", "namespace": platform},
             "stringData": {"username": admin.username, "password": admin.password}},
            ca(platform),
            ca(&self.shop),
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "orders-pg", "namespace": platform},
             "spec": {"ports": [{"name": "postgres", "port": 5432, "targetPort": self.postgres.port()}]}},
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
             "metadata": {"name": "orders-pg-host", "namespace": platform, "labels": labels},
             "addressType": "IPv4", "ports": [{"name": "postgres", "port": self.postgres.port()}],
             "endpoints": [{"addresses": [self.cluster.host_address()], "conditions": {"ready": true}}]},
        ]);
        self.cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).await
    }

    /// Applies the example manifests, but for the pod, and waits until each says Ready.
    pub async fn apply_examples(&self) -> Result<()> {
        self.apply_example("database.yaml").await?;
        self.ready(&self.platform, "databaseconnection/orders-pg").await?;
        self.apply_example("orders.yaml").await?;
        self.ready(&self.shop, "dynamicsecret/orders-db").await?;
        self.ready(&self.shop, "vaultpolicy/orders-api").await
    }

    /// Applies one example manifest.
    pub async fn apply_example(&self, file: &str) -> Result<()> {
        self.cluster.apply(&example(file, &self.shop, &self.platform)?).await
    }

    async fn ready(&self, namespace: &str, object: &str) -> Result<()> {
        self.cluster.wait_for(namespace, object, "condition=Ready", SETTLED).await
    }

    /// The example's pod under another name and, if given, with another value of the `inject` annotation.
    pub fn pod(&self, name: &str, inject: Option<&str>) -> Result<String> {
        let text = example("orders-api.yaml", &self.shop, &self.platform)?;
        let text = text.replacen("name: orders-api", &format!("name: {name}"), 1);
        Ok(match inject {
            Some(value) => text.replace("inject: orders-db", &format!("inject: {value}")),
            None => text,
        })
    }

    /// Starts the example's pod and waits until it is Ready.
    pub async fn start_pod(&self) -> Result<()> {
        self.cluster.apply(&self.pod(POD, None)?).await?;
        self.pod_ready(POD).await
    }

    /// Waits until a pod is Ready.
    pub async fn pod_ready(&self, name: &str) -> Result<()> {
        self.ready(&self.shop, &format!("pod/{name}")).await
    }

    /// Deletes a pod, waiting for nothing; `force` without any grace.
    pub async fn delete_pod(&self, name: &str, force: bool) -> Result<()> {
        let mut args = vec!["delete", "pod", name, "-n", &self.shop, "--wait=false"];
        if force {
            args.extend(["--force", "--grace-period=0"]);
        }
        self.cluster.kubectl(&args).await.map(drop)
    }

    /// A file as the application sees it.
    pub async fn file(&self, pod: &str, path: &str) -> Result<String> {
        self.in_app(pod, &["read", path]).await
    }

    /// Mode, owner and group of a file as the application sees it, "0440 1000 1000".
    pub async fn file_rights(&self, pod: &str, path: &str) -> Result<String> {
        Ok(self.in_app(pod, &["stat", path]).await?.trim().to_owned())
    }

    async fn in_app(&self, pod: &str, args: &[&str]) -> Result<String> {
        let exec = ["exec", "-n", &self.shop, pod, "-c", "app", "--", "/demo_app"];
        self.cluster.kubectl(&[&exec[..], args].concat()).await
    }

    /// The login in the pod's files: what somebody who can `exec` into the pod can copy.
    pub async fn login(&self, pod: &str) -> Result<Login> {
        let username = self.file(pod, "/coffer/secrets/orders-db/username").await?;
        let password = self.file(pod, "/coffer/secrets/orders-db/password").await?;
        Ok(Login { username, password })
    }

    /// The lines the application has printed.
    pub async fn app_log(&self, pod: &str) -> Result<Vec<String>> {
        let log = self.cluster.logs(&self.shop, pod, "app").await?;
        Ok(log.lines().map(str::to_owned).collect())
    }

    /// The UID of a pod.
    pub async fn pod_uid(&self, pod: &str) -> Result<String> {
        let object = self.cluster.get(&["pod", pod, "-n", &self.shop]).await?;
        Ok(object["metadata"]["uid"].as_str().context("a pod has a uid")?.to_owned())
    }

    /// The audit records of what this scene's pod and the database login it got went through, oldest first: those
    /// with its UID, and those of its leases.
    pub async fn audit_of(&self, pod_uid: &str) -> Result<Vec<Value>> {
        let records = self.coffer.audit(5_000).await?;
        let of_pod = |record: &Value| record["metadata"]["pod_uid"] == pod_uid;
        let leases: Vec<&Value> =
            records.iter().filter(|record| of_pod(record)).map(|record| &record["lease_id"]).collect();
        let of_lease =
            |record: &Value| record["lease_id"].is_string() && leases.contains(&&record["lease_id"]);
        Ok(records.iter().filter(|record| of_pod(record) || of_lease(record)).cloned().collect())
    }
}
