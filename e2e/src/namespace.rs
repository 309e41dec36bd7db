//! Namespaces that exist for one test. Never left behind, also when the test panics.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use anyhow::Result;
use futures::FutureExt;

use crate::Cluster;

/// `prefix` and a few random characters.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:06x}", rand::random::<u32>() & 0xff_ffff)
}

/// Makes a namespace under Pod Security `restricted`, gives it to `story`, and deletes it.
pub async fn with_temp_namespace<F, Fut, T>(cluster: &Cluster, prefix: &str, story: F) -> Result<T>
where
    F: FnOnce(String) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let name = unique(prefix);
    let manifest = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    team: shop\n    \
         pod-security.kubernetes.io/enforce: restricted\n"
    );
    cluster.apply(&manifest).await?;
    let result = AssertUnwindSafe(story(name.clone())).catch_unwind().await;
    let gone = cluster.kubectl(&["delete", "namespace", &name, "--wait=false", "--ignore-not-found"]).await;
    match result {
        Ok(result) => {
            let value = result?;
            gone?;
            Ok(value)
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
