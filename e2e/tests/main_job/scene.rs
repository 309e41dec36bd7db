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
        // The shop goes first: its leases end while the database's login still works.
        let gone = cluster.kubectl(&["delete", "namespace", &shop, "--timeout=60s"]).await;
        let also =
            cluster.kubectl(&["delete", "namespace", platform, "--ignore-not-found", "--timeout=60s"]).await;
        told?;
        gone?;
        also.map(drop)
    })
    .await
}
