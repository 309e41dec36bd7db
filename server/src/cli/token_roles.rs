//! `token roles`: what tokens may be made through a role.

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use coffer_client::wire::Disclose;
use serde_json::Value;

use super::generic::{found, names, show};
use super::out::Out;
use super::session::Session;
use super::{Done, input};

const ROLES: &str = "auth/token/roles";

/// Verbs of `token roles`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the roles
    List,
    /// Show a role
    Read {
        /// Its name.
        name: String,
    },
    /// Make or change a role
    Write {
        /// Its name.
        name: String,
        /// key=value, such as allowed_policies=app, orphan=true or token_period=1h.
        data: Vec<String>,
    },
    /// Delete a role; its service tokens live on
    Delete {
        /// Its name.
        name: String,
    },
}

/// Does what a verb says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    let client = session.client()?;
    match command {
        Command::List => return names(ROLES, "Keys", session, out).await,
        Command::Read { name } => {
            let path = format!("{ROLES}/{name}");
            show(&found(client.get::<Disclose<Value>>(&path).await, &path)?, None, out)?;
        }
        Command::Write { name, data } => {
            let data = Disclose::new(input::pairs(&data)?);
            client.write(&format!("{ROLES}/{name}"), &data).await.context("writing the role")?;
            out.success(&format!("Wrote role: {name}"))?;
        }
        Command::Delete { name } => {
            client.delete(&format!("{ROLES}/{name}")).await.context("deleting the role")?;
            out.success(&format!("Deleted role (if it existed): {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
