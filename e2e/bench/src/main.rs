//! `make bench`: Coffer, OpenBao and a server that does nothing, one after the other on one machine, asked the same.
//!
//! Knows the products by their binaries and `/v1` only. Starts what it measures, on loopback and free ports, and
//! ends it by its process. How to read what it says: `docs/benchmarks/README.md`.

#![forbid(unsafe_code)]

mod ceiling;
mod connection;
mod histogram;
mod load;
mod machine;
mod markdown;
mod open_loop;
mod pki;
mod plan;
mod process;
mod report;
mod requests;
mod service;
mod settings;
mod svg;

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::settings::Settings;

/// The same as Coffer's, so that the ceiling is one for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<ExitCode> {
    // An error would only say that it was done before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(ceiling::COMMAND) {
        ceiling::serve(&arguments.next().context("a directory with the certificate is missing")?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = Settings::from_env()?;
    let results = plan::run(&settings)?;
    report::print(&results, &settings)?;
    report::write(&results, &settings)?;
    Ok(if results.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
