//! The test bed: a real Kubernetes, a real Postgres, a real Coffer, and helpers that make a test
//! read like a story. Never part of what ships; knows the product only by its public surfaces
//! (manifests, the `/v1` API, files in pods, Kubernetes objects).

#![forbid(unsafe_code)]

mod cluster;
mod coffer;
mod namespace;
pub mod orders;
mod paths;
mod postgres;
mod shell;
mod wait;

pub use cluster::{Cluster, Kind};
pub use coffer::{ApiReply, Coffer};
pub use namespace::{unique, with_temp_namespace};
pub use paths::{cache_dir, cluster_script, image_version, images_dir, repo};
pub use postgres::{Login, Postgres, connect};
pub use shell::{Output, run, run_with_input, try_run};
pub use wait::{eventually, within};

/// Makes aws-lc-rs the process's one TLS provider. Every `main` and every test calls it first.
pub fn init() {
    // An error only says that it was done before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
