//! `kv`: key-value secrets without the `data/` and `metadata/` of the API's paths.
//!
//! The verbs and flags are Vault's, and so is what they print.

mod data;
mod metadata;
mod place;
mod show;
mod versions;

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use coffer_client::{Client, ClientError};

use place::{Place, PlaceArgs};

use super::out::Out;
use super::session::Session;
use super::{Done, NoValue};

/// Verbs of `kv`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read a secret
    Get(data::GetArgs),
    /// Write a secret: a new version with exactly these keys
    Put(data::PutArgs),
    /// Change some keys of a secret and leave the others as they are
    Patch(data::PatchArgs),
    /// Delete the newest version of a secret, or those named
    Delete(versions::DeleteArgs),
    /// Bring deleted versions back
    Undelete(versions::VersionsArgs),
    /// Remove versions for good
    Destroy(versions::VersionsArgs),
    /// List the secrets under a path
    List(PlaceArgs),
    /// List all secrets below a path, however deep
    Scan(PlaceArgs),
    /// Make an older version the newest again
    Rollback(versions::RollbackArgs),
    /// Settings and labels of secrets
    #[command(subcommand)]
    Metadata(metadata::Command),
    /// Give an engine of version 1 versions
    EnableVersioning(MountArgs),
}

/// A mount alone.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// The engine's mount.
    mount: String,
}

/// Does what a verb says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    let client = session.client()?;
    match command {
        Command::Get(args) => data::get(args, &client, out).await,
        Command::Put(args) => data::put(args, &client, out).await,
        Command::Patch(args) => data::patch(args, &client, out).await,
        Command::Delete(args) => versions::delete(args, &client, out).await,
        Command::Undelete(args) => versions::change(args, "undelete", &client, out).await,
        Command::Destroy(args) => versions::change(args, "destroy", &client, out).await,
        Command::List(args) => names(args, "LIST", &client, out).await,
        Command::Scan(args) => names(args, "SCAN", &client, out).await,
        Command::Rollback(args) => versions::rollback(args, &client, out).await,
        Command::Metadata(command) => metadata::run(command, &client, out).await,
        Command::EnableVersioning(args) => enable_versioning(args, &client, out).await,
    }
}

async fn names(args: PlaceArgs, method: &'static str, client: &Client, out: &Out) -> Done {
    let path = Place::find(&args, client).await?.path("metadata");
    let names = client.all_names(method, &path).await.with_context(|| format!("listing {path}"))?;
    if names.is_empty() {
        return Err(NoValue(path).into());
    }
    out.names("Keys", &names)?;
    Ok(ExitCode::SUCCESS)
}

async fn enable_versioning(args: MountArgs, client: &Client, out: &Out) -> Done {
    let mount = super::generic::clean(&args.mount);
    let path = format!("sys/mounts/{mount}/tune");
    let body = serde_json::json!({ "options": { "version": "2" } });
    client.write(&path, &body).await.with_context(|| format!("tuning {mount}/"))?;
    out.success(&format!("Tuned the secrets engine at: {mount}/"))?;
    Ok(ExitCode::SUCCESS)
}

/// An error of this side for what version 1 has not.
fn need_versions(place: &Place, what: &str) -> anyhow::Result<()> {
    if !place.versioned {
        bail!("{what} needs version 2 of the key-value engine: see kv enable-versioning");
    }
    Ok(())
}

/// Whether the server says that there is nothing to be changed: a `404` for a patch.
fn missing<T>(reply: Result<T, ClientError>, path: &str) -> anyhow::Result<T> {
    match reply {
        Err(error) if error.is_not_found() => Err(NoValue(path.to_owned()).into()),
        other => other.with_context(|| format!("writing {path}")),
    }
}
