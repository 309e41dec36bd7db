//! `operator` and `status`: the seal and what state it is in.

#[cfg(test)]
mod fuzz;
mod keys;
mod rekey;
mod root;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use coffer_client::Call;
use coffer_client::wire::{Disclose, InitRequest, InitResponse, SealStatus, UnsealRequest};
use serde_json::json;

use crate::cli::out::Out;
use crate::cli::session::Session;
use crate::cli::{Done, input};

/// Verbs of `operator`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Initialise the vault: prints unseal keys and the first token, once
    Init(InitArgs),
    /// Give one unseal key, read from standard input
    Unseal(UnsealArgs),
    /// Seal the vault
    Seal,
    /// New unseal keys, and by default a new master key
    Rekey(rekey::RekeyArgs),
    /// New keys for everything that is written from now on
    Rotate(keys::RotateArgs),
    /// Which keys are in use
    KeyStatus,
    /// A new root token, for enough unseal keys
    GenerateRoot(root::RootArgs),
    /// Give up leadership; without other servers nothing changes
    StepDown,
}

/// Options of `operator init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Into how many keys the unseal key is split.
    #[arg(long, short = 'n', default_value_t = 5)]
    key_shares: u8,
    /// How many of them unseal.
    #[arg(long, short = 't', default_value_t = 3)]
    key_threshold: u8,
}

/// Options of `operator unseal`.
#[derive(Debug, Args)]
pub(crate) struct UnsealArgs {
    /// `-`, or nothing: the key is read from standard input, never from the command line.
    #[arg(value_parser = ["-"], hide_possible_values = true)]
    source: Option<String>,
    /// Forget the keys given so far.
    #[arg(long)]
    reset: bool,
}

/// Does what a verb says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    match command {
        Command::Init(args) => init(args, session, out).await,
        Command::Unseal(args) => unseal(args, session, out).await,
        Command::Seal => {
            session.client()?.seal().await.context("sealing")?;
            out.success("Vault is sealed.")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Rekey(args) => rekey::run(args, session, out).await,
        Command::Rotate(args) => keys::rotate(&args, session, out).await,
        Command::KeyStatus => keys::key_status(session, out).await,
        Command::GenerateRoot(args) => root::run(args, session, out).await,
        Command::StepDown => {
            session.client()?.write("sys/step-down", &json!({})).await.context("stepping down")?;
            out.success("The server has stepped down, if there is another.")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// `coffer status`: 0 unsealed, 2 sealed.
pub(crate) async fn status(session: &Session, out: &Out) -> Done {
    let status = session.anonymous().seal_status().await.context("asking for the status")?;
    show(&status, out)?;
    Ok(ExitCode::from(if status.sealed { 2 } else { 0 }))
}

async fn init(args: InitArgs, session: &Session, out: &Out) -> Done {
    let request = InitRequest { secret_shares: args.key_shares, secret_threshold: args.key_threshold };
    let made = session.anonymous().init(&request).await.context("initialising")?;
    if out.is_json() {
        out.json(&json!({
            "unseal_keys_b64": made.keys_base64,
            "unseal_keys_hex": made.keys,
            "unseal_shares": args.key_shares,
            "unseal_threshold": args.key_threshold,
            "root_token": made.root_token,
        }))?;
    } else {
        show_keys(&made, out)?;
        out.line("")?;
        out.line(&format!(
            "Keep these apart and safe: they are shown this once. Any {} of the {} keys unseal the vault;\n\
             with fewer, what is in it is lost for good.",
            args.key_threshold, args.key_shares
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show_keys(made: &InitResponse, out: &Out) -> anyhow::Result<()> {
    for (i, key) in made.keys_base64.iter().enumerate() {
        out.line(&format!("Unseal Key {}: {}", i + 1, key.expose()))?;
    }
    out.line("")?;
    out.line(&format!("Initial Root Token: {}", made.root_token.expose()))
}

async fn unseal(args: UnsealArgs, session: &Session, out: &Out) -> Done {
    let client = session.anonymous();
    let status: SealStatus = if args.reset {
        let body = UnsealRequest { key: None, reset: true };
        client.exchange(Call::new("PUT", "sys/unseal"), Some(&body)).await.context("resetting")?
    } else {
        let key: Disclose = input::secret("Unseal key (will be hidden)")?;
        client.unseal(key).await.context("unsealing")?
    };
    show(&status, out)?;
    Ok(ExitCode::SUCCESS)
}

fn show(status: &SealStatus, out: &Out) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(status);
    }
    let mut rows = vec![
        ("Seal Type", status.seal_type.clone()),
        ("Initialized", status.initialized.to_string()),
        ("Sealed", status.sealed.to_string()),
        ("Total Shares", status.n.to_string()),
        ("Threshold", status.t.to_string()),
    ];
    if status.sealed && status.initialized {
        rows.push(("Unseal Progress", format!("{}/{}", status.progress, status.t)));
        rows.push(("Unseal Nonce", status.nonce.clone()));
    }
    rows.push(("Version", status.version.clone()));
    rows.push(("Storage Type", status.storage_type.clone()));
    for (key, value) in [("Cluster Name", &status.cluster_name), ("Cluster ID", &status.cluster_id)] {
        rows.extend(value.clone().map(|value| (key, value)));
    }
    let rows: Vec<(String, String)> = rows.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    out.pairs(&rows)
}
