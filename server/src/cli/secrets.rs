//! `secrets`: the engines and where they are mounted.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::Done;
use super::mount_args::{self, ENGINES, TuneArgs};
use super::out::Out;
use super::session::Session;

/// Verbs of `secrets`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mount an engine
    Enable(Box<EnableArgs>),
    /// List the mounts
    List {
        /// With their settings.
        #[arg(long)]
        detailed: bool,
    },
    /// Change the settings of a mount
    Tune {
        /// The mount.
        path: String,
        /// For people.
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        settings: Box<TuneArgs>,
    },
    /// Move an engine to another path: its leases are revoked
    Move {
        /// Where it is.
        from: String,
        /// Where it goes.
        to: String,
    },
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
    #[command(flatten)]
    settings: TuneArgs,
}

impl EnableArgs {
    /// The engine's type, and what is said about it.
    fn body(&self) -> anyhow::Result<(&str, Map<String, Value>)> {
        let mut options = self.settings.options()?;
        let told = options.contains_key("version");
        let (engine, version) = match (self.engine.as_str(), self.version) {
            ("kv-v2", _) => ("kv", Some(2)),
            ("kv-v1", _) => ("kv", Some(1)),
            ("kv", None) if !told => ("kv", Some(2)),
            (engine, version) => (engine, version),
        };
        options.extend(version.map(|version| ("version".to_owned(), version.to_string().into())));
        let mut body = Map::from_iter([
            ("type".to_owned(), Value::from(engine)),
            ("description".to_owned(), Value::from(self.description.as_str())),
        ]);
        if !options.is_empty() {
            body.insert("options".into(), Value::Object(options));
        }
        let config = self.settings.config();
        if !config.is_empty() {
            body.insert("config".into(), json!(config));
        }
        Ok((engine, body))
    }
}

/// Does what a verb says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    match command {
        Command::Enable(args) => {
            let (engine, body) = args.body()?;
            let path = args.path.as_deref().map_or(engine, |path| ENGINES.path(path));
            mount_args::enable(ENGINES, path, &body, session).await?;
            out.success(&format!("Mounted {engine} at: {path}/"))?;
        }
        Command::List { detailed } => return mount_args::list(ENGINES, detailed, session, out).await,
        Command::Tune { path, description, settings } => {
            return mount_args::tune(ENGINES, &path, &settings, description.as_deref(), session, out).await;
        }
        Command::Move { from, to } => return mount_args::remount(ENGINES, &from, &to, session, out).await,
        Command::Disable { path } => {
            let path = ENGINES.path(&path);
            session.client()?.unmount(path).await.with_context(|| format!("unmounting {path}/"))?;
            out.success(&format!("Unmounted (if it existed): {path}/"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
