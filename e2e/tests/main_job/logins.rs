//! A pod's own token at the vault's door: believed by the API server's word and by the cluster's keys, until the pod ends.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use coffer_e2e::orders::{Orders, POD};
use coffer_e2e::{ApiReply, Coffer, eventually, unique, within};
use http::Method;
use serde_json::{Value, json};

use crate::scene::with_orders;

const SOON: Duration = Duration::from_secs(60);

/// Two mounts of the same cluster: one asks its API server, one has its keys.
struct Mounts {
    review: String,
    keys: String,
    /// The right of the server's own ServiceAccount to review tokens.
    binding: String,
}

impl Mounts {
    async fn make(orders: &Orders) -> Result<Self> {
        let this = Self { review: unique("review"), keys: unique("keys"), binding: unique("coffer-review") };
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": this.binding},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
            "subjects": [{"kind": "ServiceAccount", "name": "coffer", "namespace": Coffer::NAMESPACE}],
        });
        orders.cluster.apply(&binding.to_string()).await?;
        let discovery =
            orders.cluster.kubectl(&["get", "--raw", "/.well-known/openid-configuration"]).await?;
        let discovery: Value = serde_json::from_str(&discovery)?;
        let host = "https://kubernetes.default.svc";
        for (mount, config) in [
            (&this.review, json!({"kubernetes_host": host})),
            (&this.keys, json!({"kubernetes_host": host, "issuer": discovery["issuer"]})),
        ] {
            let root =
                async |path: String, body: Value| orders.coffer.root(Method::POST, &path, Some(&body)).await;
            root(format!("sys/auth/{mount}"), json!({"type": "kubernetes"})).await?;
            root(format!("auth/{mount}/config"), config).await?;
            let role = json!({
                "bound_service_account_names": POD, "bound_service_account_namespaces": orders.shop,
                "audience": "coffer", "token_ttl": "5m",
            });
            root(format!("auth/{mount}/role/shop"), role).await?;
        }
        Ok(this)
    }

    async fn remove(&self, orders: &Orders) -> Result<()> {
        for mount in [&self.review, &self.keys] {
            orders.coffer.root(Method::DELETE, &format!("sys/auth/{mount}"), None).await?;
        }
        orders.cluster.kubectl(&["delete", "clusterrolebinding", &self.binding]).await.map(drop)
    }
}

async fn login(orders: &Orders, mount: &str, jwt: &str) -> Result<ApiReply> {
    let body = json!({"role": "shop", "jwt": jwt});
    orders.coffer.call(Method::POST, &format!("auth/{mount}/login"), None, Some(&body)).await
}

/// Waits until a login is answered with this status: rights and reviews are kept for a while by the API server.
async fn answered(orders: &Orders, mount: &str, jwt: &str, status: u16) -> Result<Value> {
    eventually(&format!("a login at {mount} is answered with {status}"), SOON, || async {
        let reply = login(orders, mount, jwt).await?;
        if reply.status == status { Ok(reply.body) } else { bail!("{} {}", reply.status, reply.body) }
    })
    .await
}

/// The example's pod with a token of its own for the vault, where its application can read it.
fn with_token(orders: &Orders) -> Result<String> {
    let pod = orders.pod(POD, None)?;
    let mounted =
        pod.replacen("      env:\n", "      volumeMounts: [{name: own, mountPath: /own}]\n      env:\n", 1);
    ensure!(mounted != pod, "the example's pod is not written as it was");
    let source = "serviceAccountToken: {path: token, audience: coffer, expirationSeconds: 600}";
    Ok(format!(
        "{}\n  volumes:\n    - {{name: own, projected: {{sources: [{{{source}}}]}}}}\n",
        mounted.trim_end()
    ))
}

#[tokio::test]
async fn a_pods_own_token_logs_in_by_review_and_by_keys_until_its_pod_is_gone() -> Result<()> {
    with_orders(|orders| async move {
        let mounts = Mounts::make(&orders).await?;
        let told = story(&orders, &mounts).await;
        let removed = mounts.remove(&orders).await;
        told.and(removed)
    })
    .await
}

async fn story(orders: &Orders, mounts: &Mounts) -> Result<()> {
    orders.cluster.apply(&with_token(orders)?).await?;
    orders.pod_ready(POD).await?;
    let jwt = orders.file(POD, "/own/token").await?;
    let jwt = jwt.trim();
    let uid = orders.pod_uid(POD).await?;
    for mount in [&mounts.review, &mounts.keys] {
        let body = answered(orders, mount, jwt, 200).await?;
        ensure!(body["auth"]["metadata"]["pod_uid"] == uid, "{mount}: {body}");
    }
    let elsewhere =
        ["create", "token", POD, "-n", &orders.shop, "--audience", "elsewhere", "--duration", "600s"];
    let elsewhere = orders.cluster.kubectl(&elsewhere).await?;
    for mount in [&mounts.review, &mounts.keys] {
        let reply = login(orders, mount, elsewhere.trim()).await?;
        ensure!(reply.status == 403, "{mount}: a token for somebody else: {} {}", reply.status, reply.body);
    }

    orders.delete_pod(POD, true).await?;
    within("the pod is gone", SOON, || async {
        let left = ["get", "pod", POD, "-n", &orders.shop, "--ignore-not-found", "-o", "name"];
        Ok(orders.cluster.kubectl(&left).await?.trim().is_empty())
    })
    .await?;
    answered(orders, &mounts.review, jwt, 403).await?;
    // The keys cannot tell: this is what `revoke-pod` is for.
    let token = answered(orders, &mounts.keys, jwt, 200).await?;
    let revoke = format!("auth/{}/revoke-pod", mounts.keys);
    orders.coffer.root(Method::POST, &revoke, Some(&json!({"uid": uid}))).await?;
    let reply = login(orders, &mounts.keys, jwt).await?;
    ensure!(reply.status == 403, "after revoke-pod: {} {}", reply.status, reply.body);
    let token = token["auth"]["client_token"].as_str().context("a token")?;
    let looked = orders.coffer.call(Method::GET, "auth/token/lookup-self", Some(token), None).await?;
    ensure!(looked.status == 403, "the pod's token: {}", looked.status);
    Ok(())
}
