//! `auth`: the auth methods and where they are mounted.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use coffer_client::wire::AuthSpec;

use super::Done;
use super::generic::clean;
use super::out::Out;
use super::secrets::show;
use super::session::Session;

/// Verbs of `auth`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mount an auth method
    Enable(EnableArgs),
    /// List the auth methods
    List,
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
}

/// Does what a verb says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    let client = session.client()?;
    match command {
        Command::Enable(args) => {
            let path = args.path.as_deref().map_or(args.method.as_str(), clean).to_owned();
            let method = args.method.clone();
            let spec = AuthSpec { auth_type: args.method, description: args.description, config: None };
            client
                .enable_auth(&path, &spec)
                .await
                .with_context(|| format!("mounting {method} at {path}/"))?;
            out.success(&format!("Mounted {method} at: auth/{path}/"))?;
        }
        Command::List => show(&client.auth_mounts().await.context("listing auth methods")?, out)?,
        Command::Disable { path } => {
            let path = clean(&path);
            let path = path.strip_prefix("auth/").unwrap_or(path);
            client.disable_auth(path).await.with_context(|| format!("unmounting auth/{path}/"))?;
            out.success(&format!("Unmounted (if it existed): auth/{path}/"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
