//! `kv get`, `put` and `patch`. Never prints a value that was not asked for.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use coffer_client::wire::{Disclose, Envelope, KvOptions, KvWrite};
use coffer_client::{Call, Client, ClientError};
use serde_json::{Map, Value};

use super::super::generic::found;
use super::super::out::{Out, cell};
use super::super::{Done, NoValue, input};
use super::place::{Place, PlaceArgs};
use super::{missing, need_versions, show};

/// A reply with a secret in it.
pub(super) type Reply = Envelope<Disclose<Map<String, Value>>>;

/// Options of `kv get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// An older version.
    #[arg(long)]
    version: Option<u64>,
    /// Print one field and nothing else.
    #[arg(long)]
    field: Option<String>,
}

/// Options of `kv put`.
#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// key=value, key=@file, key=-, @file.json or - for JSON from standard input.
    #[arg(required = true)]
    data: Vec<String>,
    /// The version that must be the newest; 0 if there must be none.
    #[arg(long, allow_negative_numbers = true)]
    cas: Option<i64>,
    /// Print one field of the reply and nothing else.
    #[arg(long)]
    field: Option<String>,
}

/// Options of `kv patch`.
#[derive(Debug, Args)]
pub(crate) struct PatchArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// key=value, key=@file, key=-, @file.json or - for JSON from standard input.
    #[arg(required_unless_present = "remove_data")]
    data: Vec<String>,
    /// A key to take away; may be repeated.
    #[arg(long, value_name = "KEY")]
    remove_data: Vec<String>,
    /// The version that must be the newest.
    #[arg(long, allow_negative_numbers = true)]
    cas: Option<i64>,
    /// By a PATCH, or by reading and writing; by default the first, and the second where that is not allowed.
    #[arg(long, value_name = "METHOD")]
    method: Option<Method>,
    /// Print one field of the reply and nothing else.
    #[arg(long)]
    field: Option<String>,
}

/// How a secret is changed in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// One PATCH.
    Patch,
    /// A read, then a write that fails if somebody wrote in between.
    Rw,
}

/// Reads a secret; a deleted version is a `404` that says when it was deleted, an absent one says nothing.
pub(super) async fn read(client: &Client, path: &str, version: Option<u64>) -> anyhow::Result<Reply> {
    let version = version.map(|number| number.to_string());
    let query: Vec<(&str, &str)> = version.iter().map(|number| ("version", number.as_str())).collect();
    let call = Call { query: &query, ..Call::new("GET", path) };
    let mut reply: Result<Reply, ClientError> = client.exchange(call, None::<&()>).await;
    if reply.as_ref().is_err_and(ClientError::is_not_found) {
        reply = client.exchange(Call { any_status: true, ..call }, None::<&()>).await;
    }
    let reply = found(reply, path)?;
    if reply.data.is_none() {
        return Err(NoValue(path.to_owned()).into());
    }
    Ok(reply)
}

/// An object within a reply.
pub(super) fn part<'a>(reply: &'a Reply, name: &str) -> Option<&'a Map<String, Value>> {
    reply.data.as_ref()?.expose().get(name)?.as_object()
}

pub(super) async fn get(args: GetArgs, client: &Client, out: &Out) -> Done {
    let place = Place::find(&args.place, client).await?;
    if args.version.is_some() {
        need_versions(&place, "--version")?;
    }
    let path = place.path("data");
    let reply = read(client, &path, args.version).await?;
    let (data, metadata) = match place.versioned {
        true => (part(&reply, "data"), part(&reply, "metadata")),
        false => (reply.data.as_ref().map(Disclose::expose), None),
    };
    if let Some(name) = &args.field {
        let data = data.ok_or_else(|| NoValue(path.clone()))?;
        one_field(data, name, out)?;
    } else if out.is_json() {
        out.json(&reply)?;
    } else {
        if let Some(metadata) = metadata {
            show::path("Secret Path", &path, out)?;
            show::metadata("Metadata", metadata, out)?;
            if data.is_some() {
                out.line("")?;
            }
        }
        if let Some(data) = data {
            show::table("Data", data, out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn one_field(map: &Map<String, Value>, name: &str, out: &Out) -> anyhow::Result<()> {
    let value = map.get(name).with_context(|| format!("Field {name:?} not present"))?;
    if out.is_json() { out.json(value) } else { out.raw(&cell(value)) }
}

pub(super) async fn put(args: PutArgs, client: &Client, out: &Out) -> Done {
    let place = Place::find(&args.place, client).await?;
    if cas(args.cas).is_some() {
        need_versions(&place, "--cas")?;
    }
    let path = place.path("data");
    let data = Disclose::new(input::pairs(&args.data)?);
    if !place.versioned {
        client.write(&path, &data).await.with_context(|| format!("writing {path}"))?;
        out.success(&format!("Data written to: {path}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let reply = write(client, &path, data, cas(args.cas)).await.with_context(|| format!("writing {path}"))?;
    written(&path, &reply, args.field.as_deref(), out)
}

/// Vault's flag is -1 for "not set".
fn cas(flag: Option<i64>) -> Option<u64> {
    flag.and_then(|number| u64::try_from(number).ok())
}

/// Writes a new version.
pub(super) async fn write(
    client: &Client,
    path: &str,
    data: Disclose<Map<String, Value>>,
    cas: Option<u64>,
) -> Result<Reply, ClientError> {
    let options = cas.map(|cas| KvOptions { cas: Some(cas) });
    client.put(path, &KvWrite { data, options }).await
}

/// Says which version was written.
fn written(path: &str, reply: &Reply, field: Option<&str>, out: &Out) -> Done {
    let version = reply.data.as_ref().context("the reply is empty")?.expose();
    if let Some(name) = field {
        one_field(version, name, out)?;
    } else if out.is_json() {
        out.json(reply)?;
    } else {
        show::path("Secret Path", path, out)?;
        show::metadata("Metadata", version, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn patch(args: PatchArgs, client: &Client, out: &Out) -> Done {
    let place = Place::find(&args.place, client).await?;
    need_versions(&place, "patch")?;
    let path = place.path("data");
    let mut data = if args.data.is_empty() { Map::new() } else { input::pairs(&args.data)? };
    for key in &args.remove_data {
        if data.insert(key.clone(), Value::Null).is_some() {
            bail!("{key:?} is both given and to be removed");
        }
    }
    // As in Vault, zero is "not set" here: a patch of nothing is none.
    let cas = cas(args.cas).filter(|number| *number != 0);
    let change = Disclose::new(data);
    let reply = match args.method {
        Some(Method::Rw) => read_and_write(client, &path, &change, cas).await?,
        Some(Method::Patch) => missing(send_patch(client, &path, &change, cas).await, &path)?,
        None => match send_patch(client, &path, &change, cas).await {
            Err(error) if matches!(error.status(), Some(403 | 405)) => {
                read_and_write(client, &path, &change, cas).await?
            }
            reply => missing(reply, &path)?,
        },
    };
    written(&path, &reply, args.field.as_deref(), out)
}

async fn send_patch(
    client: &Client,
    path: &str,
    change: &Disclose<Map<String, Value>>,
    cas: Option<u64>,
) -> Result<Reply, ClientError> {
    let options = cas.map(|cas| KvOptions { cas: Some(cas) });
    let body = KvWrite { data: Disclose::new(change.expose().clone()), options };
    client.exchange(Call::new("PATCH", path), Some(&body)).await
}

/// For those who may read and write but not patch. Whoever writes in between makes it fail.
async fn read_and_write(
    client: &Client,
    path: &str,
    change: &Disclose<Map<String, Value>>,
    cas: Option<u64>,
) -> anyhow::Result<Reply> {
    let before = read(client, path, None).await?;
    let Some(data) = part(&before, "data") else { return Err(NoValue(path.to_owned()).into()) };
    let version = part(&before, "metadata").and_then(|m| m.get("version")).and_then(Value::as_u64);
    let mut data = data.clone();
    for (key, value) in change.expose() {
        match value {
            Value::Null => drop(data.remove(key)),
            other => drop(data.insert(key.clone(), other.clone())),
        }
    }
    let written = write(client, path, Disclose::new(data), cas.or(version)).await;
    written.with_context(|| format!("writing {path}"))
}
