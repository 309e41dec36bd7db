//! The Coffer operator: turns `coffer.dev` objects into what the vault's server needs.
//!
//! Never holds a secret for longer than it takes to pass it on, and never shows one.

mod bootstrap;
mod cli;
mod clock;
mod conditions;
mod connection;
mod context;
mod controllers;
mod crd_files;
mod database;
mod dynamic;
mod error;
mod events;
mod finalize;
mod health;
mod kubernetes;
mod leftovers;
mod names;
mod pods;
mod policy;
mod roles;
mod tls;
mod vault;

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // kube and the client both want rustls; one process-wide provider keeps them from disagreeing.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        anyhow::bail!("another TLS provider is installed already");
    }
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "info,kube_runtime::controller=error".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    cli::Cli::parse().run().await
}
