//! `coffer-operator apply-connection`: the chart's CofferConnection, applied once its kind is known. It is a Job's work
//! and not the operator's: who may raise the ceiling of every namespace should be able to do nothing else.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use coffer_crds::CofferConnection;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use tokio::time::Instant;

use crate::cli::ApplyConnectionArgs;

/// Field manager of the chart's CofferConnection, so that an admin's own fields stay his.
const FIELD_MANAGER: &str = "coffer-chart";

/// Reads a CofferConnection.
pub(crate) async fn read_file(path: &Path) -> anyhow::Result<CofferConnection> {
    let text = tokio::fs::read_to_string(path).await.with_context(|| path.display().to_string())?;
    serde_yaml::from_str(&text).with_context(|| path.display().to_string())
}

/// Applies it, waiting for the kind to be known.
pub(crate) async fn apply_file(args: &ApplyConnectionArgs) -> anyhow::Result<()> {
    let connection = read_file(&args.file).await?;
    let kube = Client::try_default().await.context("no Kubernetes API server to talk to")?;
    let api: Api<CofferConnection> = Api::all(kube);
    let until = Instant::now() + Duration::from_secs(args.wait_secs);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    loop {
        match api.patch(&connection.name_any(), &params, &Patch::Apply(&connection)).await {
            Ok(_) => {
                tracing::info!("CofferConnection {} is applied", connection.name_any());
                return Ok(());
            }
            // 404: the CRD is not served yet.
            Err(kube::Error::Api(status)) if status.code == 404 && Instant::now() < until => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error).context("CofferConnection"),
        }
    }
}
