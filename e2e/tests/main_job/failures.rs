//! What people see when something is wrong: an admission error or an Event that says what to do.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use coffer_e2e::orders::{Orders, POD};
use coffer_e2e::{Coffer, eventually};

use crate::scene::with_orders;

const SOON: Duration = Duration::from_secs(60);
const SYSTEM: &str = Coffer::NAMESPACE;

/// Waits for an Event about the pod that has each of `words` in it.
async fn told(orders: &Orders, pod: &str, words: &[&str]) -> Result<()> {
    eventually("an Event says what is wrong", SOON, || async {
        let events = orders.cluster.events(&orders.shop, pod).await?;
        if events.iter().any(|event| words.iter().all(|word| event.contains(word))) {
            return Ok(());
        }
        bail!("no Event about {pod} with {words:?}; there are:\n{}", events.join("\n"))
    })
    .await
}

#[tokio::test]
async fn a_wrong_annotation_is_refused_with_a_reason() -> Result<()> {
    with_orders(|orders| async move {
        let said = orders.cluster.apply_refused(&orders.pod("wrong", Some("\"Not a name!\""))?).await?;
        ensure!(said.contains("coffer.dev/inject") && said.contains("Not a name!"), "{said}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_missing_secret_is_named_in_an_event() -> Result<()> {
    with_orders(|orders| async move {
        orders.cluster.apply(&orders.pod("waits", Some("nothing-here"))?).await?;
        told(&orders, "waits", &["SecretNotFound", "nothing-here"]).await
    })
    .await
}

#[tokio::test]
async fn a_forbidden_secret_is_named_in_an_event() -> Result<()> {
    with_orders(|orders| async move {
        let sa = format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: stranger, namespace: {}}}\n",
            orders.shop
        );
        orders.cluster.apply(&sa).await?;
        let pod = orders.pod("stranger", None)?;
        let pod = pod.replace("serviceAccountName: orders-api", "serviceAccountName: stranger");
        orders.cluster.apply(&pod).await?;
        told(&orders, "stranger", &["SecretForbidden", "orders-db", "stranger"]).await
    })
    .await
}

#[tokio::test]
async fn a_sealed_server_is_named_in_an_event_and_pods_start_after_unsealing() -> Result<()> {
    with_orders(|orders| async move {
        let scale = |replicas: &'static str| {
            let cluster = orders.cluster.clone();
            async move {
                let replicas = format!("--replicas={replicas}");
                cluster.kubectl(&["scale", "deployment/coffer-auto-init", "-n", SYSTEM, &replicas]).await
            }
        };
        scale("0").await?;
        let result = async {
            orders
                .cluster
                .kubectl(&[
                    "wait",
                    "-n",
                    SYSTEM,
                    "--for=delete",
                    "pod",
                    "-l",
                    "app.kubernetes.io/component=auto-init",
                    "--timeout=60s",
                ])
                .await?;
            orders.coffer.root(http::Method::PUT, "sys/seal", None).await?;
            orders.cluster.apply(&orders.pod(POD, None)?).await?;
            told(&orders, POD, &["VaultSealed", "unseal"]).await
        }
        .await;
        // The others need it unsealed, whatever happened here.
        scale("1").await?;
        orders.coffer.until_unsealed().await?;
        result?;
        orders.pod_ready(POD).await
    })
    .await
}

#[tokio::test]
async fn an_unreachable_server_is_named_in_an_event_and_pods_start_when_it_is_back() -> Result<()> {
    with_orders(|orders| async move {
        let select = |component: &'static str| {
            let cluster = orders.cluster.clone();
            let patch =
                format!(r#"{{"spec":{{"selector":{{"app.kubernetes.io/component":"{component}"}}}}}}"#);
            async move { cluster.kubectl(&["patch", "service", "coffer", "-n", SYSTEM, "-p", &patch]).await }
        };
        // The server's Service leads nowhere: so it looks when the server is down, and its data stays.
        select("nobody").await?;
        let result = async {
            orders.cluster.apply(&orders.pod(POD, None)?).await?;
            told(&orders, POD, &["VaultUnreachable"]).await
        }
        .await;
        select("server").await?;
        result?;
        orders.pod_ready(POD).await
    })
    .await
}

#[tokio::test]
async fn a_database_that_is_down_is_named_in_an_event_and_pods_start_when_it_is_back() -> Result<()> {
    with_orders(|orders| async move {
        orders.postgres.freeze()?;
        let result = async {
            orders.cluster.apply(&orders.pod(POD, None)?).await?;
            told(&orders, POD, &["orders-db", "database"]).await
        }
        .await;
        orders.postgres.thaw()?;
        result?;
        orders.pod_ready(POD).await
    })
    .await
}
