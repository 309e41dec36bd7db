//! `policy`: what tokens may do.

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use coffer_client::wire::PolicyBody;

use super::generic::clean;
use super::out::Out;
use super::session::Session;
use super::{Done, NoValue, input};

/// Verbs of `policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the policies
    List {
        /// Only those below this prefix, such as k8s/prod/.
        prefix: Option<String>,
    },
    /// Print a policy
    Read {
        /// Its name.
        name: String,
    },
    /// Write a policy
    Write {
        /// Its name.
        name: String,
        /// A file of HCL or JSON, or - for standard input.
        file: String,
    },
    /// Delete a policy
    Delete {
        /// Its name.
        name: String,
    },
}

/// Does what a verb says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    let client = session.client()?;
    match command {
        Command::List { prefix } => {
            let prefix = prefix.as_deref().map_or("", clean);
            let names = client.list_policies(prefix).await.context("listing policies")?;
            out.names("Policies", &names)?;
        }
        Command::Read { name } => {
            let found = client.read_policy(&name).await.with_context(|| format!("reading policy {name}"))?;
            let policy = found.ok_or_else(|| NoValue(format!("policy {name}")))?;
            if out.is_json() { out.json(&policy)? } else { out.raw(&policy.policy)? }
        }
        Command::Write { name, file } => {
            let body = PolicyBody { policy: input::file_or_stdin(&file)?, custom_metadata: None };
            client.write_policy(&name, &body).await.with_context(|| format!("writing policy {name}"))?;
            out.success(&format!("Wrote policy: {name}"))?;
        }
        Command::Delete { name } => {
            client.delete_policy(&name).await.with_context(|| format!("deleting policy {name}"))?;
            out.success(&format!("Deleted policy: {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
