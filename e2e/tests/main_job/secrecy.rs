//! Looking for a secret where it must not be.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use coffer_e2e::Cluster;

/// Fails if `secret` is in any object that `kubectl get -o yaml` shows, or in etcd's files. `present` is a word that
/// must be in both: it shows that the search looks in the right place.
pub(crate) async fn assert_nowhere(cluster: &Cluster, secret: &str, present: &str) -> Result<()> {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).await?;
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.is_empty()).collect();
    let all = cluster.kubectl(&["get", &kinds.join(","), "-A", "-o", "yaml", "--ignore-not-found"]).await?;
    ensure!(all.contains(present), "{present} is not among what kubectl shows");
    ensure!(!all.contains(secret), "the password is in a Kubernetes object");
    ensure!(!all.contains(&base64(secret)), "the password is in a Kubernetes object, in base64");

    let etcd = cluster.kubeconfig().parent().context("the cluster's directory")?.join("run/etcd");
    ensure!(holds(&etcd, present.as_bytes())?, "{present} is not in {}", etcd.display());
    ensure!(!holds(&etcd, secret.as_bytes())?, "the password is in etcd's files");
    Ok(())
}

/// Whole groups only: the last characters depend on what follows.
fn base64(text: &str) -> String {
    BASE64.encode(&text.as_bytes()[..text.len() / 3 * 3])
}

fn holds(dir: &Path, wanted: &[u8]) -> Result<bool> {
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let found = if path.is_dir() {
            holds(&path, wanted)?
        } else {
            std::fs::read(&path)?.windows(wanted.len()).any(|window| window == wanted)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}
