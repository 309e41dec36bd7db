//! The test bed by itself, without Coffer: a pod under Pod Security `restricted` reaches a Postgres on this machine by
//! its Service's name, over TLS with a checked name.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use anyhow::{Context, Result, bail};
use coffer_e2e::orders::example;
use coffer_e2e::{Cluster, Coffer, Postgres, eventually, init, with_temp_namespace};
use serde_json::json;

#[tokio::test]
async fn a_pod_reaches_postgres_by_its_service() -> Result<()> {
    init();
    let cluster = Cluster::up().await?;
    cluster.load(&Coffer::images()).await?;
    with_temp_namespace(&cluster, "bed", |ns| story(&cluster, ns)).await
}

async fn story(cluster: &Cluster, ns: String) -> Result<()> {
    let name = format!("orders-pg.{ns}.svc");
    let postgres = Postgres::start(&[cluster.host_address(), "127.0.0.1"], &[&name]).await?;
    let admin = postgres.admin();
    let item = |kind: &str, name: &str, more: serde_json::Value| {
        let mut item = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": ns}});
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        item
    };
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "orders-pg", "namespace": ns, "labels": {"kubernetes.io/service-name": "orders-pg"}},
        "ports": [{"port": postgres.port()}], "endpoints": [{"addresses": [cluster.host_address()]}]});
    let items = [
        item("ServiceAccount", "orders-api", json!({})),
        item("ConfigMap", "orders-pg-ca", json!({"data": {"ca.crt": postgres.ca_pem()}})),
        item(
            "Secret",
            "orders-db",
            json!({"stringData": {"username": admin.username, "password": admin.password}}),
        ),
        item(
            "Service",
            "orders-pg",
            json!({"spec": {"ports": [{"port": 5432, "targetPort": postgres.port()}]}}),
        ),
        slice,
    ];
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).await?;

    // The demo's pod, with a Secret as a volume in place of the annotation.
    let pod =
        example("orders-api.yaml", &ns, &ns)?.replace("coffer.dev/inject: orders-db", "test: bed").replace(
            "  containers:\n",
            "  volumes: [{name: login, secret: {secretName: orders-db}}]\n  containers:\n",
        );
    let mount = "      volumeMounts: [{name: login, mountPath: /coffer/secrets/orders-db}]\n      env:\n";
    cluster.apply(&pod.replace("      env:\n", mount)).await?;
    eventually("the application answers a query", Duration::from_secs(60), || async {
        let log = cluster.logs(&ns, "orders-api", "app").await.context("logs")?;
        if log.contains("answered as coffer_admin") { Ok(()) } else { bail!("{log}") }
    })
    .await
}
