//! `operator rekey`: new unseal keys, one person's key at a time.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use coffer_client::wire::Disclose;
use coffer_client::{Call, Client};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::out::Out;
use crate::cli::session::Session;
use crate::cli::{Done, input};

/// Options of `operator rekey`.
#[derive(Debug, Args)]
pub(crate) struct RekeyArgs {
    /// Begin: says how many new keys there will be.
    #[arg(long, conflicts_with_all = ["cancel", "status"])]
    init: bool,
    /// Into how many keys the new unseal key is split.
    #[arg(long, short = 'n', default_value_t = 5)]
    key_shares: u8,
    /// How many of them unseal.
    #[arg(long, short = 't', default_value_t = 3)]
    key_threshold: u8,
    /// With --init: the new keys count only once they have been given again. Otherwise: act on that.
    #[arg(long)]
    verify: bool,
    /// With --init: leave the master key as it is. Old keys with an old copy of the storage go on opening everything.
    #[arg(long, requires = "init")]
    keep_master: bool,
    /// Forget the keys given so far, and the rekey.
    #[arg(long, conflicts_with = "status")]
    cancel: bool,
    /// Show how far it is.
    #[arg(long)]
    status: bool,
    /// The number of the rekey, for certainty that it is the one meant; asked from the server if not given.
    #[arg(long)]
    nonce: Option<String>,
    /// `-`, or nothing: the key is read from standard input, never from the command line.
    #[arg(value_parser = ["-"], hide_possible_values = true)]
    source: Option<String>,
}

/// Everything that the endpoints answer with; what does not apply is empty.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Progress {
    nonce: String,
    started: bool,
    t: u64,
    n: u64,
    progress: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    complete: bool,
    verification_required: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    verification_nonce: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<Disclose>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys_base64: Vec<Disclose>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[derive(Serialize)]
struct Given<'a> {
    key: Disclose,
    nonce: &'a str,
}

/// Does what is asked.
pub(crate) async fn run(args: RekeyArgs, session: &Session, out: &Out) -> Done {
    let client = session.client()?;
    let step = if args.verify && !args.init { "verify" } else { "init" };
    let path = format!("sys/rekey/{step}");
    let progress: Progress = if args.init {
        let body = json!({
            "secret_shares": args.key_shares, "secret_threshold": args.key_threshold,
            "require_verification": args.verify, "rotate_master": !args.keep_master,
        });
        client.exchange(Call::new("PUT", &path), Some(&body)).await.context("beginning the rekey")?
    } else if args.cancel && args.verify {
        client
            .exchange(Call::new("DELETE", &path), None::<&()>)
            .await
            .context("beginning the verification anew")?
    } else if args.cancel {
        client.delete(&path).await.context("cancelling the rekey")?;
        out.success("Rekey is cancelled.")?;
        return Ok(ExitCode::SUCCESS);
    } else if args.status {
        status(&client, &path).await?
    } else {
        give(&args, &client, &path).await?
    };
    show(&progress, args.verify && !args.init, out)?;
    Ok(ExitCode::SUCCESS)
}

async fn status(client: &Client, path: &str) -> anyhow::Result<Progress> {
    client.exchange(Call::new("GET", path), None::<&()>).await.context("asking for the rekey")
}

async fn give(args: &RekeyArgs, client: &Client, path: &str) -> anyhow::Result<Progress> {
    let now = status(client, path).await?;
    if !now.started {
        bail!("no rekey is going on: begin one with --init");
    }
    if !args.verify && !now.verification_nonce.is_empty() {
        bail!("the new keys wait for their verification: give them with --verify");
    }
    let nonce = args.nonce.as_deref().unwrap_or(&now.nonce);
    let (what, to) = if args.verify {
        ("New unseal key (will be hidden)", "sys/rekey/verify")
    } else {
        ("Unseal key (will be hidden)", "sys/rekey/update")
    };
    let body = Given { key: input::secret(what)?, nonce };
    client.exchange(Call::new("PUT", to), Some(&body)).await.context("giving a key")
}

fn show(progress: &Progress, verification: bool, out: &Out) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(progress);
    }
    for warning in &progress.warnings {
        crate::cli::out::complain(&format!("warning: {warning}"));
    }
    if progress.complete && verification {
        return out.success("The new unseal keys count now; the old ones do not.");
    }
    if progress.complete {
        for (i, key) in progress.keys_base64.iter().enumerate() {
            out.line(&format!("Unseal Key {}: {}", i + 1, key.expose()))?;
        }
        out.line("")?;
        return out.line(if progress.verification_required {
            "Keep these apart and safe: they are shown this once. They do not count yet: give enough of them with\n\
             coffer operator rekey --verify"
        } else {
            "Keep these apart and safe: they are shown this once. They count now; the old ones do not."
        });
    }
    let needed = if verification { progress.t } else { progress.required.unwrap_or(0) };
    let mut rows = vec![("Started", progress.started.to_string())];
    if progress.started {
        rows.push(("Nonce", progress.nonce.clone()));
        rows.push(("Progress", format!("{}/{needed}", progress.progress)));
        rows.push(("New Shares", progress.n.to_string()));
        rows.push(("New Threshold", progress.t.to_string()));
    }
    if !verification {
        rows.push(("Verification Required", progress.verification_required.to_string()));
    }
    let rows: Vec<(String, String)> = rows.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    out.pairs(&rows)
}
