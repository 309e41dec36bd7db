//! `kv`: key-value secrets without the `data/` and `metadata/` of the API's paths.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use coffer_client::wire::{Disclose, Envelope, KvOptions, KvRead, KvVersion, KvWrite};
use coffer_client::{Call, Client, ClientError};
use serde_json::Value;

use super::generic::{clean, found};
use super::out::{Out, cell, rows};
use super::session::Session;
use super::{Done, NoValue, input};

/// Verbs of `kv`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read a secret
    Get(GetArgs),
    /// Write a secret: a new version with exactly these keys
    Put(PutArgs),
    /// List the secrets under a path
    List(PlaceArgs),
    /// Delete the newest version of a secret
    Delete(PlaceArgs),
}

/// Where a secret is.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    /// The secret, such as secret/app.
    path: String,
    /// The engine's mount, if the path is below it.
    #[arg(long)]
    mount: Option<String>,
}

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
    /// key=value, key=@file, key=- or - for JSON from standard input.
    #[arg(required = true)]
    data: Vec<String>,
    /// The version that must be the newest; 0 if there must be none.
    #[arg(long)]
    cas: Option<u64>,
}

/// Does what a verb says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    let client = session.client()?;
    match command {
        Command::Get(args) => get(args, &client, out).await,
        Command::Put(args) => put(args, &client, out).await,
        Command::List(args) => list(args, &client, out).await,
        Command::Delete(args) => delete(args, &client, out).await,
    }
}

async fn get(args: GetArgs, client: &Client, out: &Out) -> Done {
    let path = Place::find(&args.place, client).await?.path("data");
    let version = args.version.map(|n| n.to_string());
    let query: Vec<(&str, &str)> = version.iter().map(|n| ("version", n.as_str())).collect();
    let call = Call { query: &query, ..Call::new("GET", &path) };
    let mut reply: Result<Envelope<KvRead>, _> = client.exchange(call, None::<&()>).await;
    if reply.as_ref().is_err_and(ClientError::is_not_found) {
        // A deleted version is a 404 that says when it was deleted; an absent one says nothing.
        let call = Call { any_status: true, ..call };
        reply = client.exchange(call, None::<&()>).await;
    }
    let reply = found(reply, &path)?;
    let read = reply.data.ok_or_else(|| NoValue(path.clone()))?;
    if let Some(name) = &args.field {
        let value = read.data.as_ref().and_then(|data| data.expose().get(name));
        let value = value.with_context(|| format!("there is no field {name:?} in {path}"))?;
        if out.is_json() { out.json(value)? } else { out.raw(&cell(value))? }
    } else if out.is_json() {
        let whole = Envelope { data: Some(read), ..without_data(reply.request_id) };
        out.json(&whole)?;
    } else {
        show(&path, &read, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn without_data(request_id: String) -> Envelope<KvRead> {
    Envelope {
        request_id,
        lease_id: String::new(),
        renewable: false,
        lease_duration: 0,
        data: None,
        wrap_info: None,
        warnings: None,
        auth: None,
    }
}

fn show(path: &str, read: &KvRead, out: &Out) -> anyhow::Result<()> {
    heading("Secret Path", out)?;
    out.line(path)?;
    out.line("")?;
    heading("Metadata", out)?;
    out.pairs(&version_rows(&read.metadata))?;
    if let Some(data) = &read.data {
        out.line("")?;
        heading("Data", out)?;
        out.pairs(&rows(data.expose()))?;
    }
    Ok(())
}

fn heading(title: &str, out: &Out) -> anyhow::Result<()> {
    out.line(&format!("====== {title} ======"))
}

fn version_rows(version: &KvVersion) -> Vec<(String, String)> {
    let labels = version.custom_metadata.as_ref().filter(|labels| !labels.is_empty());
    let labels = labels.map_or_else(|| "none".to_owned(), |labels| cell(&serde_json::json!(labels)));
    let deleted = if version.deletion_time.is_empty() { "n/a" } else { &version.deletion_time };
    vec![
        ("created_time".to_owned(), version.created_time.clone()),
        ("custom_metadata".to_owned(), labels),
        ("deletion_time".to_owned(), deleted.to_owned()),
        ("destroyed".to_owned(), version.destroyed.to_string()),
        ("version".to_owned(), version.version.to_string()),
    ]
}

async fn put(args: PutArgs, client: &Client, out: &Out) -> Done {
    let path = Place::find(&args.place, client).await?.path("data");
    let options = args.cas.map(|cas| KvOptions { cas: Some(cas) });
    let body = KvWrite { data: Disclose::new(input::pairs(&args.data)?), options };
    let reply: Envelope<KvVersion> =
        client.put(&path, &body).await.with_context(|| format!("writing {path}"))?;
    match &reply.data {
        Some(_) if out.is_json() => out.json(&reply)?,
        Some(version) => {
            heading("Secret Path", out)?;
            out.line(&path)?;
            out.line("")?;
            heading("Metadata", out)?;
            out.pairs(&version_rows(version))?;
        }
        None => out.success(&format!("Data written to: {path}"))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: PlaceArgs, client: &Client, out: &Out) -> Done {
    let path = Place::find(&args, client).await?.path("metadata");
    let names = client.list(&path).await.with_context(|| format!("listing {path}"))?;
    if names.is_empty() {
        return Err(NoValue(path).into());
    }
    out.names("Keys", &names)?;
    Ok(ExitCode::SUCCESS)
}

async fn delete(args: PlaceArgs, client: &Client, out: &Out) -> Done {
    let path = Place::find(&args, client).await?.path("data");
    client.delete(&path).await.with_context(|| format!("deleting {path}"))?;
    out.success(&format!("Data deleted (if it existed) at: {path}"))?;
    Ok(ExitCode::SUCCESS)
}

/// A secret's mount and the rest of its path.
struct Place {
    mount: String,
    rest: String,
}

impl Place {
    /// Where the mount ends is the server's to know. A server that does not tell is taken to have the mount
    /// at the first segment.
    async fn find(args: &PlaceArgs, client: &Client) -> anyhow::Result<Self> {
        let path = clean(&args.path);
        if let Some(mount) = &args.mount {
            return Ok(Self { mount: clean(mount).to_owned(), rest: path.to_owned() });
        }
        let first = path.split('/').next().unwrap_or(path).to_owned();
        let asked = client.get::<Value>(&format!("sys/internal/ui/mounts/{path}")).await;
        let mount = match asked {
            Ok(reply) => reply
                .data
                .as_ref()
                .and_then(|data| data.get("path"))
                .and_then(Value::as_str)
                .map_or(first, |mount| clean(mount).to_owned()),
            Err(error) if matches!(error.status(), Some(400 | 403 | 404 | 405)) => first,
            Err(error) => return Err(error).with_context(|| format!("looking for the mount of {path}")),
        };
        let rest = path.strip_prefix(mount.as_str()).unwrap_or("").trim_start_matches('/').to_owned();
        Ok(Self { mount, rest })
    }

    fn path(&self, part: &str) -> String {
        if self.rest.is_empty() {
            format!("{}/{part}", self.mount)
        } else {
            format!("{}/{part}/{}", self.mount, self.rest)
        }
    }
}
