//! Mounts, auth mounts, roles and policies of a cluster. Idempotent: writes only what is missing or differs.

use coffer_client::wire::{
    AuthSpec, KubernetesConfig, Metadata, MountSpec, PolicyBody, RoleSpec, Ttl, TuneSpec,
};
use coffer_client::{Client, ClientError};
use coffer_crds::connection::Delegation;
use serde_json::{Map, Value};

use super::policies;
use crate::names::Names;
use crate::roles::seconds;

/// First life of the operator's token; it renews it.
const OPERATOR_TTL_SECS: u64 = 3600;
/// Longest life of the operator's token.
const OPERATOR_MAX_TTL_SECS: u64 = 24 * 3600;

/// What a cluster is to the server.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    /// Names at the server.
    pub(crate) names: Names,
    /// Audience of login tokens.
    pub(crate) audience: String,
    /// Namespace of the operator.
    pub(crate) namespace: String,
    /// ServiceAccount of the operator.
    pub(crate) service_account: String,
    /// Issuer of the cluster's ServiceAccount tokens.
    pub(crate) issuer: String,
    /// Address of its API server, as the server reaches it.
    pub(crate) host: String,
    /// PEM of the API server's CA.
    pub(crate) ca_pem: String,
    /// What namespaces may grant.
    pub(crate) delegations: Vec<Delegation>,
}

/// Sets the server up for a cluster. `client` carries an admin's token.
pub(crate) async fn bootstrap(client: &Client, cluster: &Cluster) -> Result<(), ClientError> {
    mounts(client).await?;
    let names = &cluster.names;
    let labels = Metadata::from([
        ("managed-by".to_owned(), "k8s-bootstrap".to_owned()),
        ("cluster".to_owned(), names.cluster.clone()),
    ]);
    // The boundary is there before the mount that it limits.
    let boundary = policies::boundary(names, &cluster.delegations, &cluster.namespace);
    policy(client, &names.boundary(), boundary, &labels).await?;
    policy(client, &names.operator_policy(), policies::operator(names), &labels).await?;

    let mounted = client.auth_mounts().await?;
    for mount in [names.mount.clone(), names.operator_mount()] {
        if !mounted.contains_key(&format!("{mount}/")) {
            tracing::info!("enabling auth/{mount}");
            let spec = AuthSpec {
                auth_type: "kubernetes".to_owned(),
                description: format!("cluster {}", names.cluster),
                config: None,
            };
            client.enable_auth(&mount, &spec).await?;
        }
        // Tuned first, so that nobody logs in without the boundary.
        if mount == names.mount {
            limit(client, &mount, &names.boundary()).await?;
        }
        configure(client, &mount, cluster).await?;
    }
    operator_role(client, cluster, &labels).await
}

async fn mounts(client: &Client) -> Result<(), ClientError> {
    let mounted = client.mounts().await?;
    let kv = MountSpec {
        mount_type: "kv".to_owned(),
        description: "secrets, versioned".to_owned(),
        options: Some(Metadata::from([("version".to_owned(), "2".to_owned())])),
        config: None,
    };
    let database = MountSpec {
        mount_type: "database".to_owned(),
        description: "leased database logins".to_owned(),
        options: None,
        config: None,
    };
    for (path, spec) in [("secret", kv), ("database", database)] {
        if !mounted.contains_key(&format!("{path}/")) {
            tracing::info!("mounting {path}/");
            client.mount(path, &spec).await?;
        }
    }
    Ok(())
}

async fn policy(client: &Client, name: &str, text: String, labels: &Metadata) -> Result<(), ClientError> {
    let found = client.read_policy(name).await?;
    if found.is_some_and(|found| found.policy == text && found.custom_metadata.as_ref() == Some(labels)) {
        return Ok(());
    }
    tracing::info!("writing policy {name}");
    client.write_policy(name, &PolicyBody { policy: text, custom_metadata: Some(labels.clone()) }).await
}

async fn limit(client: &Client, mount: &str, boundary: &str) -> Result<(), ClientError> {
    let tuned = client.auth_tune(mount).await?;
    if tuned.token_boundary_policy.as_deref() == Some(boundary) {
        return Ok(());
    }
    tracing::info!("limiting auth/{mount} by policy {boundary}");
    client
        .tune_auth(
            mount,
            &TuneSpec { token_boundary_policy: Some(boundary.to_owned()), ..TuneSpec::default() },
        )
        .await
}

async fn configure(client: &Client, mount: &str, cluster: &Cluster) -> Result<(), ClientError> {
    let found = match client.get::<Map<String, Value>>(&format!("auth/{mount}/config")).await {
        Ok(reply) => reply.data.unwrap_or_default(),
        Err(error) if matches!(error.status(), Some(404 | 405)) => Map::new(),
        Err(error) => return Err(error),
    };
    let is = |key: &str, wanted: &str| {
        found.get(key).and_then(Value::as_str).map(str::trim) == Some(wanted.trim())
    };
    let same = is("issuer", &cluster.issuer)
        && is("kubernetes_host", &cluster.host)
        && is("kubernetes_ca_cert", &cluster.ca_pem);
    if same {
        return Ok(());
    }
    tracing::info!("configuring auth/{mount} for issuer {}", cluster.issuer);
    let config = KubernetesConfig {
        issuer: Some(cluster.issuer.clone()),
        kubernetes_host: Some(cluster.host.clone()),
        kubernetes_ca_cert: Some(cluster.ca_pem.clone()),
        jwks_url: None,
        jwks: None,
    };
    client.write_kubernetes_config(mount, &config).await
}

async fn operator_role(client: &Client, cluster: &Cluster, labels: &Metadata) -> Result<(), ClientError> {
    let mount = cluster.names.operator_mount();
    let role = RoleSpec {
        bound_service_account_names: vec![cluster.service_account.clone()],
        bound_service_account_namespaces: vec![cluster.namespace.clone()],
        audience: Some(cluster.audience.clone()),
        token_policies: vec![cluster.names.operator_policy()],
        token_ttl: Some(Ttl::Seconds(OPERATOR_TTL_SECS)),
        token_max_ttl: Some(Ttl::Seconds(OPERATOR_MAX_TTL_SECS)),
        custom_metadata: Some(labels.clone()),
    };
    let ttl = |ttl: &Option<Ttl>| ttl.as_ref().and_then(seconds);
    let same = client.read_role(&mount, "operator").await?.is_some_and(|found| {
        found.bound_service_account_names == role.bound_service_account_names
            && found.bound_service_account_namespaces == role.bound_service_account_namespaces
            && found.audience == role.audience
            && found.token_policies == role.token_policies
            && ttl(&found.token_ttl) == ttl(&role.token_ttl)
            && ttl(&found.token_max_ttl) == ttl(&role.token_max_ttl)
    });
    if same {
        return Ok(());
    }
    tracing::info!("writing auth/{mount}/role/operator");
    client.write_role(&mount, "operator", &role).await
}
