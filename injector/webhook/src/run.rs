//! Puts the injector together: certificates, settings, server; and looks after the first two each minute.

use crate::certs::{self, Stored};
use crate::clock::unix_secs;
use crate::keystore::Keystore;
use crate::serve::{Shared, serve};
use crate::settings::Args;
use crate::webhook_config;
use anyhow::Context;
use kube::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const LOOK_AGAIN: Duration = Duration::from_secs(60);
const RACES_MAX: usize = 8;

/// Runs until SIGTERM.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // kube takes rustls' process-wide provider; a second call only says that it is already there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = Client::try_default().await.context("find the Kubernetes API")?;
    let shared = Arc::new(Shared::default());
    let care = Care {
        keystore: Keystore::new(client.clone(), &args.namespace, &args.tls_secret),
        client,
        shared: Arc::clone(&shared),
        args,
    };
    care.look().await?;
    let listener = TcpListener::bind(care.args.listen).await.context("listen")?;
    tracing::info!(address = %care.args.listen, "serving");
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        served = serve(listener, shared, stop) => served,
        () = care.forever() => Ok(()),
    }
}

struct Care {
    args: Args,
    client: Client,
    keystore: Keystore,
    shared: Arc<Shared>,
}

impl Care {
    async fn forever(&self) {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            // What is in place goes on being served; the certificate has a month left when this matters.
            if let Err(error) = self.look().await {
                tracing::warn!("{error:#}");
            }
        }
    }

    async fn look(&self) -> anyhow::Result<()> {
        let file = &self.args.ca_file;
        let ca = tokio::fs::read_to_string(file).await.with_context(|| format!("read {}", file.display()))?;
        let stored = self.certificate().await?;
        if webhook_config::keep_ca(&self.client, &self.args.webhook_name, &stored.ca_bundle).await? {
            tracing::info!(webhook = self.args.webhook_name, "CA written");
        }
        self.shared.set_certificate(stored.to_serve(unix_secs()))?;
        check_ca(&ca).with_context(|| file.display().to_string())?;
        self.shared.set_settings(self.args.settings(ca));
        Ok(())
    }

    async fn certificate(&self) -> anyhow::Result<Stored> {
        let (service, namespace) = (&self.args.service_name, &self.args.namespace);
        let names =
            [format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")];
        for _ in 0..RACES_MAX {
            let kept = self.keystore.load().await?;
            let now = unix_secs();
            let former = kept.as_ref().and_then(|k| k.stored.as_ref());
            if let Some(stored) = former
                && !stored.is_due(now)
            {
                return Ok(stored.clone());
            }
            let fresh = certs::mint(&names, now, former)?;
            if self.keystore.save(&fresh, kept.as_ref()).await? {
                tracing::info!("certificate made");
                return Ok(fresh);
            }
        }
        anyhow::bail!("the other replica keeps changing the certificate")
    }
}

/// Whether every pod may have this text as its CA bundle.
fn check_ca(pem: &str) -> anyhow::Result<()> {
    anyhow::ensure!(pem.contains("-----BEGIN CERTIFICATE-----"), "there is no certificate in the CA bundle");
    anyhow::ensure!(
        !pem.contains("PRIVATE KEY-----"),
        "there is a private key in the CA bundle, which every pod would get"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_ca;

    #[test]
    fn a_bundle_has_certificates_and_nothing_secret() {
        let cert = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";
        assert!(check_ca(cert).is_ok());
        assert!(check_ca("").is_err());
        for kind in ["PRIVATE KEY", "EC PRIVATE KEY"] {
            assert!(check_ca(&format!("{cert}-----BEGIN {kind}-----\nMII\n-----END {kind}-----\n")).is_err());
        }
    }
}
