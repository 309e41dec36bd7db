//! `policy`: what tokens may do.

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use coffer_client::wire::PolicyBody;
use coffer_core::hcl;
use coffer_core::policy::{Policy, PolicyName};

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
    /// Say which rule decides about a path, whose it is, and what is missing (exit code 2 if it is not allowed)
    Explain(super::policy_explain::ExplainArgs),
    /// Rewrite a file of HCL in its canonical layout; needs no server
    Fmt {
        /// The file, or - to read standard input and print.
        file: String,
    },
    /// Delete a policy
    Delete {
        /// Its name.
        name: String,
    },
}

/// What needs no server.
pub(crate) fn offline(command: &Command, out: &Out) -> Option<Done> {
    let Command::Fmt { file } = command else { return None };
    Some(format(file, out))
}

fn format(file: &str, out: &Out) -> Done {
    let source = input::file_or_stdin(file)?;
    let name = PolicyName::parse("formatted").map_err(|_| anyhow::anyhow!("no policy name"))?;
    Policy::parse(&name, &source).with_context(|| format!("policy {file}"))?;
    let formatted = hcl::format(&source).with_context(|| format!("policy {file}"))?;
    if file == "-" {
        out.raw(&formatted)?;
        return Ok(ExitCode::SUCCESS);
    }
    if formatted != source {
        std::fs::write(file, formatted).with_context(|| format!("file {file}"))?;
    }
    out.success(&format!("Formatted policy: {file}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Does what a verb says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    let command = match command {
        Command::Explain(args) => return super::policy_explain::run(args, session, out).await,
        Command::Fmt { file } => return format(&file, out),
        command => command,
    };
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
        Command::Explain(_) | Command::Fmt { .. } => {}
        Command::Delete { name } => {
            client.delete_policy(&name).await.with_context(|| format!("deleting policy {name}"))?;
            out.success(&format!("Deleted policy: {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
