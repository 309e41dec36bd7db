//! `kv delete`, `undelete`, `destroy` and `rollback`. Never removes more than what was named.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use coffer_client::Client;
use coffer_client::wire::Disclose;
use serde_json::{Value, json};

use super::super::Done;
use super::super::out::Out;
use super::data::{part, read, write};
use super::place::{Place, PlaceArgs};
use super::{need_versions, show};

/// Options of `kv delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Version numbers with commas between them; the newest if none is named.
    #[arg(long, value_delimiter = ',')]
    versions: Vec<u64>,
}

/// Options of `kv undelete` and `kv destroy`.
#[derive(Debug, Args)]
pub(crate) struct VersionsArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Version numbers with commas between them.
    #[arg(long, value_delimiter = ',', required = true)]
    versions: Vec<u64>,
}

/// Options of `kv rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The version that is to be the newest again.
    #[arg(long)]
    version: u64,
}

pub(super) async fn delete(args: DeleteArgs, client: &Client, out: &Out) -> Done {
    let place = Place::find(&args.place, client).await?;
    let path = place.path("data");
    if args.versions.is_empty() {
        client.delete(&path).await.with_context(|| format!("deleting {path}"))?;
    } else {
        need_versions(&place, "--versions")?;
        let body = json!({ "versions": args.versions });
        let at = place.path("delete");
        client.write(&at, &body).await.with_context(|| format!("deleting {path}"))?;
    }
    out.success(&format!("Data deleted (if it existed) at: {path}"))?;
    Ok(ExitCode::SUCCESS)
}

/// `undelete` or `destroy`, as `verb` says.
pub(super) async fn change(args: VersionsArgs, verb: &str, client: &Client, out: &Out) -> Done {
    let place = Place::find(&args.place, client).await?;
    need_versions(&place, verb)?;
    let path = place.path(verb);
    let body = json!({ "versions": args.versions });
    client.write(&path, &body).await.with_context(|| format!("writing {path}"))?;
    out.success(&format!("Data written to: {path}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes an older version's data as the next one, unless somebody else writes at the same time.
pub(super) async fn rollback(args: RollbackArgs, client: &Client, out: &Out) -> Done {
    let place = Place::find(&args.place, client).await?;
    need_versions(&place, "rollback")?;
    let path = place.path("data");
    let newest = read(client, &path, None).await?;
    let number = part(&newest, "metadata").and_then(|metadata| metadata.get("version"));
    let number =
        number.and_then(Value::as_u64).context("the reply does not say which version is the newest")?;
    let old = read(client, &path, Some(args.version)).await?;
    let Some(data) = part(&old, "data") else {
        bail!("Cannot roll back to a version that has been deleted");
    };
    let reply = write(client, &path, Disclose::new(data.clone()), Some(number)).await;
    let reply = reply.with_context(|| format!("writing {path}"))?;
    match &reply.data {
        Some(_) if out.is_json() => out.json(&reply)?,
        Some(version) => show::plain(version.expose(), out)?,
        None => out.success(&format!("Data written to: {path}"))?,
    }
    Ok(ExitCode::SUCCESS)
}
