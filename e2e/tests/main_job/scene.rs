//! What every story starts from: one Coffer for all of them, namespaces and a Postgres for each.

use std::future::Future;

use anyhow::Result;
use coffer_e2e::orders::Orders;
use coffer_e2e::{Cluster, Coffer, init, unique, with_temp_namespace};
use tokio::sync::OnceCell;

/// Installs Coffer once per run, and gives `story` namespaces, a database, and the examples applied and Ready.
pub(crate) async fn with_orders<F, Fut>(story: F) -> Result<()>
where
    F: FnOnce(Orders) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    init();
    let cluster = Cluster::up().await?;
    INSTALLED.get_or_try_init(|| async { Coffer::install(&cluster).await.map(drop) }).await?;
    let coffer = Coffer::attach(&cluster).await?;
    let platform = unique("platform");
    let (cluster, coffer, platform) = (&cluster, &coffer, &platform);
    with_temp_namespace(cluster, "shop", |shop| async move {
        let told = async { story(Orders::prepare(cluster, coffer, &shop, platform).await?).await }.await;
        // While the database still runs: no pod, no login, no wait for a finalizer's deadline afterwards.
        let kinds = ["pods", "dynamicsecrets,vaultpolicies"];
        let mut cleaned = Ok(());
        for kinds in kinds {
            let gone = cluster.kubectl(&["delete", kinds, "--all", "-n", &shop, "--timeout=60s"]).await;
            cleaned = cleaned.and(gone.map(drop));
        }
        let also =
            cluster.kubectl(&["delete", "namespace", platform, "--ignore-not-found", "--wait=false"]).await;
        told?;
        cleaned?;
        also.map(drop)
    })
    .await
}
