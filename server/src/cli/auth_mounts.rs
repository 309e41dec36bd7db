//! `auth`: the auth methods and where they are mounted.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::Done;
use super::mount_args::{self, METHODS, TuneArgs};
use super::out::Out;
use super::session::Session;

/// Verbs of `auth`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mount an auth method
    Enable(Box<EnableArgs>),
    /// List the auth methods
    List {
        /// With their settings.
        #[arg(long)]
        detailed: bool,
    },
    /// Change the settings of an auth method
    Tune {
        /// The mount.
        path: String,
        /// For people.
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        settings: Box<TuneArgs>,
    },
    /// Move an auth method to another path: its tokens are revoked
    Move {
        /// Where it is.
        from: String,
        /// Where it goes.
        to: String,
    },
    /// Unmount an auth method: its tokens are revoked
    Disable {
        /// The mount.
        path: String,
    },
}

/// Options of `auth enable`.
#[derive(Debug, Args)]
pub(crate) struct EnableArgs {
    /// The method, such as kubernetes.
    method: String,
    /// Where; the method's name unless given.
    #[arg(long)]
    path: Option<String>,
    /// For people.
    #[arg(long, default_value = "")]
    description: String,
    #[command(flatten)]
    settings: TuneArgs,
}

/// Does what a verb says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    match command {
        Command::Enable(args) => {
            let method = args.method.as_str();
            let path = args.path.as_deref().map_or(method, |path| METHODS.path(path));
            let mut body = Map::from_iter([
                ("type".to_owned(), Value::from(method)),
                ("description".to_owned(), Value::from(args.description.as_str())),
            ]);
            let config = args.settings.config();
            if !config.is_empty() {
                body.insert("config".into(), json!(config));
            }
            mount_args::enable(METHODS, path, &body, session).await?;
            out.success(&format!("Mounted {method} at: auth/{path}/"))?;
        }
        Command::List { detailed } => return mount_args::list(METHODS, detailed, session, out).await,
        Command::Tune { path, description, settings } => {
            return mount_args::tune(METHODS, &path, &settings, description.as_deref(), session, out).await;
        }
        Command::Move { from, to } => return mount_args::remount(METHODS, &from, &to, session, out).await,
        Command::Disable { path } => {
            let path = METHODS.path(&path);
            session.client()?.disable_auth(path).await.with_context(|| format!("unmounting auth/{path}/"))?;
            out.success(&format!("Unmounted (if it existed): auth/{path}/"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
