//! `secrets`: the engines and where they are mounted.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use coffer_client::wire::{MountInfo, MountSpec};

use super::Done;
use super::generic::clean;
use super::out::Out;
use super::session::Session;

/// Verbs of `secrets`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mount an engine
    Enable(EnableArgs),
    /// List the mounts
    List,
    /// Unmount an engine: what is in it is gone
    Disable {
        /// The mount.
        path: String,
    },
}

/// Options of `secrets enable`.
#[derive(Debug, Args)]
pub(crate) struct EnableArgs {
    /// The engine: kv (version 2 unless told otherwise), kv-v1, kv-v2, database.
    engine: String,
    /// Where; the engine's name unless given.
    #[arg(long)]
    path: Option<String>,
    /// For people.
    #[arg(long, default_value = "")]
    description: String,
    /// The engine's version, where it has some.
    #[arg(long)]
    version: Option<u8>,
}

/// Does what a verb says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    let client = session.client()?;
    match command {
        Command::Enable(args) => {
            let (engine, version) = match (args.engine.as_str(), args.version) {
                ("kv-v2", _) | ("kv", None) => ("kv", Some(2)),
                ("kv-v1", _) => ("kv", Some(1)),
                (engine, version) => (engine, version),
            };
            let path = args.path.as_deref().map_or(engine, clean).to_owned();
            let options = version.map(|n| BTreeMap::from([("version".to_owned(), n.to_string())]));
            let spec = MountSpec {
                mount_type: engine.to_owned(),
                description: args.description.clone(),
                options,
                config: None,
            };
            client.mount(&path, &spec).await.with_context(|| format!("mounting {engine} at {path}/"))?;
            out.success(&format!("Mounted {engine} at: {path}/"))?;
        }
        Command::List => show(&client.mounts().await.context("listing mounts")?, out)?,
        Command::Disable { path } => {
            let path = clean(&path);
            client.unmount(path).await.with_context(|| format!("unmounting {path}/"))?;
            out.success(&format!("Unmounted (if it existed): {path}/"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A table of mounts, of engines or of auth methods.
pub(crate) fn show(mounts: &BTreeMap<String, MountInfo>, out: &Out) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(mounts);
    }
    let text = |text: &str| if text.is_empty() { "n/a".to_owned() } else { text.to_owned() };
    let rows: Vec<Vec<String>> = mounts
        .iter()
        .map(|(path, mount)| {
            vec![path.clone(), mount.mount_type.clone(), text(&mount.accessor), text(&mount.description)]
        })
        .collect();
    out.table(&["Path", "Type", "Accessor", "Description"], &rows)
}
