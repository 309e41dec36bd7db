//! `operator rotate` and `operator key-status`: the keys below the master key.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use coffer_client::Client;
use serde_json::{Map, Value, json};

use crate::cli::Done;
use crate::cli::out::{Out, cell};
use crate::cli::session::Session;

/// Options of `operator rotate`.
#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// Do not rotate: show how far old records have been brought under the newest keys.
    #[arg(long)]
    status: bool,
}

/// New keys for everything that is written from now on.
pub(crate) async fn rotate(args: &RotateArgs, session: &Session, out: &Out) -> Done {
    let client = session.client()?;
    if args.status {
        let names = [
            ("term", "Key Term"),
            ("pass", "Pass"),
            ("rows_rewrapped", "Rows Re-wrapped"),
            ("rows_unreadable", "Rows Unreadable"),
            ("complete", "Complete"),
            ("old_keys_retired", "Old Keys Retired"),
        ];
        return show(&client, "sys/rotate/status", &names, out).await;
    }
    client.write("sys/rotate", &json!({})).await.context("rotating")?;
    if !out.is_json() {
        out.success("New keys are in use. Old records follow in the background: see --status.")?;
    }
    key_status(session, out).await
}

/// Which keys are in use.
pub(crate) async fn key_status(session: &Session, out: &Out) -> Done {
    let names = [("term", "Key Term"), ("install_time", "Install Time"), ("encryptions", "Encryption Count")];
    show(&session.client()?, "sys/key-status", &names, out).await
}

async fn show(client: &Client, path: &str, names: &[(&str, &str)], out: &Out) -> Done {
    let reply = client.get::<Map<String, Value>>(path).await.with_context(|| path.to_owned())?;
    let data = reply.data.unwrap_or_default();
    if out.is_json() {
        out.json(&data)?;
    } else {
        let row =
            |(key, name): &(&str, &str)| ((*name).to_owned(), data.get(*key).map_or_else(String::new, cell));
        out.pairs(&names.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(ExitCode::SUCCESS)
}
