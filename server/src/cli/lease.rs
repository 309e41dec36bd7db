//! `lease`: the credentials that were issued and still live.

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use coffer_client::wire::{LeaseLookup, Ttl};

use super::Done;
use super::generic::{clean, names};
use super::out::{Out, duration};
use super::session::Session;

/// Verbs of `lease`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a lease
    Lookup {
        /// The lease.
        id: String,
    },
    /// Prolong a lease
    Renew {
        /// The lease.
        id: String,
        /// The life asked for, such as 1h.
        #[arg(long)]
        increment: Option<String>,
    },
    /// End a lease and its credential
    Revoke {
        /// The lease; with --prefix, what the leases begin with.
        id: String,
        /// End every lease below the prefix.
        #[arg(long)]
        prefix: bool,
    },
    /// List leases below a prefix
    List {
        /// Such as database/creds/app.
        #[arg(default_value = "")]
        prefix: String,
    },
}

/// Does what a verb says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    let client = session.client()?;
    match command {
        Command::Lookup { id } => {
            let lease = client.lookup_lease(&id).await.context("looking the lease up")?;
            if out.is_json() { out.json(&lease)? } else { out.pairs(&rows(&lease))? }
        }
        Command::Renew { id, increment } => {
            let increment = increment.map(Ttl::Text);
            let reply = client.renew_lease(&id, increment).await.context("renewing the lease")?;
            if out.is_json() {
                out.json(&reply)?;
            } else {
                out.pairs(&[
                    ("lease_id".to_owned(), reply.lease_id.clone()),
                    ("lease_duration".to_owned(), duration(reply.lease_duration)),
                    ("lease_renewable".to_owned(), reply.renewable.to_string()),
                ])?;
            }
        }
        Command::Revoke { id, prefix: false } => {
            client.revoke_lease(&id).await.context("revoking the lease")?;
            out.success(&format!("Revoked lease (if it existed): {id}"))?;
        }
        Command::Revoke { id, prefix: true } => {
            let prefix = clean(&id);
            client.revoke_prefix(prefix).await.context("revoking the leases")?;
            out.success(&format!("Revoked every lease below: {prefix}"))?;
        }
        Command::List { prefix } => {
            let path = format!("sys/leases/lookup/{}", clean(&prefix));
            return names(path.trim_end_matches('/'), "Leases", session, out).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(lease: &LeaseLookup) -> Vec<(String, String)> {
    let or_none = |time: &Option<String>| time.clone().unwrap_or_else(|| "n/a".to_owned());
    vec![
        ("id".to_owned(), lease.id.clone()),
        ("issue_time".to_owned(), lease.issue_time.clone()),
        ("expire_time".to_owned(), or_none(&lease.expire_time)),
        ("last_renewal".to_owned(), or_none(&lease.last_renewal)),
        ("renewable".to_owned(), lease.renewable.to_string()),
        ("ttl".to_owned(), duration(lease.ttl)),
    ]
}
