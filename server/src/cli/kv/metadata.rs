//! `kv metadata`: settings and labels. Never reads a secret.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use coffer_client::wire::Envelope;
use coffer_client::{Call, Client};
use serde_json::{Map, Value};

use super::super::generic::found;
use super::super::out::Out;
use super::super::{Done, NoValue, input};
use super::place::{Place, PlaceArgs};
use super::{missing, need_versions, show};

/// Verbs of `kv metadata`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show settings, labels and versions of a secret
    Get(PlaceArgs),
    /// Set settings and labels of a secret, or create one without versions
    Put(SetArgs),
    /// Change settings and labels of a secret that is there
    Patch(PatchArgs),
    /// Remove a secret with all its versions
    Delete(PlaceArgs),
}

/// What can be set.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Whether every write has to say which version is the newest.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cas_required: Option<bool>,
    /// A label, key=value; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    custom_metadata: Vec<String>,
    /// How long a version lives, such as 3h25m19s.
    #[arg(long, value_name = "DURATION")]
    delete_version_after: Option<String>,
    /// How many versions are kept; 0 for the mount's setting.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    max_versions: Option<i64>,
    /// How often the metadata was changed so far, where that has to be said.
    #[arg(long, value_name = "NUMBER")]
    metadata_cas: Option<u64>,
    /// Whether every change of the metadata has to say so.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    metadata_cas_required: Option<bool>,
}

/// What can be set or taken away.
#[derive(Debug, Args)]
pub(crate) struct PatchArgs {
    #[command(flatten)]
    set: SetArgs,
    /// A label to take away; may be repeated.
    #[arg(long, value_name = "KEY")]
    remove_custom_metadata: Vec<String>,
}

impl SetArgs {
    fn body(&self) -> anyhow::Result<Map<String, Value>> {
        let mut body = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        };
        set("cas_required", self.cas_required.map(Value::from));
        set("delete_version_after", self.delete_version_after.clone().map(Value::from));
        // Vault's flag is -1 for "not set".
        set("max_versions", self.max_versions.filter(|number| *number >= 0).map(Value::from));
        set("metadata_cas", self.metadata_cas.map(Value::from));
        set("metadata_cas_required", self.metadata_cas_required.map(Value::from));
        if !self.custom_metadata.is_empty() {
            body.insert("custom_metadata".to_owned(), Value::Object(input::labels(&self.custom_metadata)?));
        }
        Ok(body)
    }
}

/// Does what a verb says.
pub(super) async fn run(command: Command, client: &Client, out: &Out) -> Done {
    match command {
        Command::Get(args) => get(args, client, out).await,
        Command::Put(args) => put(args, client, out).await,
        Command::Patch(args) => patch(args, client, out).await,
        Command::Delete(args) => delete(args, client, out).await,
    }
}

async fn place(args: &PlaceArgs, client: &Client) -> anyhow::Result<String> {
    let place = Place::find(args, client).await?;
    need_versions(&place, "metadata")?;
    Ok(place.path("metadata"))
}

async fn get(args: PlaceArgs, client: &Client, out: &Out) -> Done {
    let path = place(&args, client).await?;
    let reply: Envelope<Map<String, Value>> = found(client.get(&path).await, &path)?;
    if out.is_json() {
        out.json(&reply)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut metadata = reply.data.ok_or_else(|| NoValue(path.clone()))?;
    let versions = metadata.remove("versions");
    show::path("Metadata Path", &path, out)?;
    show::metadata("Metadata", &metadata, out)?;
    let mut versions: Vec<(u64, &Map<String, Value>)> = versions
        .as_ref()
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(number, version)| Some((number.parse().ok()?, version.as_object()?)))
        .collect();
    versions.sort_unstable_by_key(|(number, _)| *number);
    for (number, version) in versions {
        out.line("")?;
        show::metadata(&format!("Version {number}"), version, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn put(args: SetArgs, client: &Client, out: &Out) -> Done {
    let path = place(&args.place, client).await?;
    client.write(&path, &args.body()?).await.with_context(|| format!("writing {path}"))?;
    out.success(&format!("Data written to: {path}"))?;
    Ok(ExitCode::SUCCESS)
}

async fn patch(args: PatchArgs, client: &Client, out: &Out) -> Done {
    let path = place(&args.set.place, client).await?;
    let mut body = args.set.body()?;
    if !args.remove_custom_metadata.is_empty() {
        let labels = body.entry("custom_metadata").or_insert_with(|| Value::Object(Map::new()));
        for key in &args.remove_custom_metadata {
            let labels = labels.as_object_mut().context("labels are no map")?;
            if labels.insert(key.clone(), Value::Null).is_some() {
                bail!("{key:?} is both given and to be removed");
            }
        }
    }
    let reply: Result<Envelope<Value>, _> = client.exchange(Call::new("PATCH", &path), Some(&body)).await;
    missing(reply, &path)?;
    out.success(&format!("Data written to: {path}"))?;
    Ok(ExitCode::SUCCESS)
}

async fn delete(args: PlaceArgs, client: &Client, out: &Out) -> Done {
    let path = place(&args, client).await?;
    client.delete(&path).await.with_context(|| format!("deleting {path}"))?;
    out.success(&format!("Data deleted (if it existed) at: {path}"))?;
    Ok(ExitCode::SUCCESS)
}
