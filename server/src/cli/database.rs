//! `database` and `rotation`: accounts at databases, and the passwords that change there.

use clap::Subcommand;

use super::Done;
use super::generic::{self, ReadArgs, WriteArgs, clean, names};
use super::out::Out;
use super::session::Session;

/// Where the engine is mounted unless said otherwise.
const MOUNT: &str = "database";

/// Verbs of `database`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Have an account made, for as long as its lease lives
    Creds {
        /// The role.
        role: String,
        /// Where the engine is mounted.
        #[arg(long, default_value = MOUNT)]
        mount: String,
        /// Print one field and nothing else.
        #[arg(long)]
        field: Option<String>,
    },
    /// Show the login of a static role
    StaticCreds {
        /// The static role.
        role: String,
        /// Where the engine is mounted.
        #[arg(long, default_value = MOUNT)]
        mount: String,
        /// Print one field and nothing else.
        #[arg(long)]
        field: Option<String>,
        /// Say that this reader will acknowledge the next version.
        #[arg(long)]
        consumer: bool,
    },
    /// List connections, roles or static roles
    List {
        /// What: config, roles or static-roles.
        #[arg(value_parser = ["config", "roles", "static-roles"])]
        what: String,
        /// Where the engine is mounted.
        #[arg(long, default_value = MOUNT)]
        mount: String,
    },
    /// Give a static role its next password now
    RotateRole {
        /// The static role.
        role: String,
        /// Where the engine is mounted.
        #[arg(long, default_value = MOUNT)]
        mount: String,
        /// Cut the last of two accounts although its grace is not over.
        #[arg(long)]
        force: bool,
    },
    /// Replace the engine's own password at a database
    RotateRoot {
        /// The connection.
        connection: String,
        /// Where the engine is mounted.
        #[arg(long, default_value = MOUNT)]
        mount: String,
    },
    /// Open the sessions of a connection anew
    Reset {
        /// The connection.
        connection: String,
        /// Where the engine is mounted.
        #[arg(long, default_value = MOUNT)]
        mount: String,
    },
}

/// Verbs of `rotation`.
#[derive(Debug, Subcommand)]
pub(crate) enum RotationCommand {
    /// Show where a rotation is, and for whom it waits
    Status {
        /// The path of the credential, such as database/static-creds/app.
        path: String,
    },
    /// Say that the version at hand has arrived
    Ack {
        /// The path of the credential, such as database/static-creds/app.
        path: String,
        /// The version.
        version: u64,
    },
}

/// Does what a verb of `database` says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    match command {
        Command::Creds { role, mount, field } => {
            read(at(&mount, "creds", &role), field, None, session, out).await
        }
        Command::StaticCreds { role, mount, field, consumer } => {
            let query = consumer.then_some("consumer=1");
            read(at(&mount, "static-creds", &role), field, query, session, out).await
        }
        Command::List { what, mount } => {
            names(&format!("{}/{what}", clean(&mount)), "Keys", session, out).await
        }
        Command::RotateRole { role, mount, force } => {
            let data = if force { vec!["force=true".to_owned()] } else { Vec::new() };
            write(at(&mount, "rotate-role", &role), data, session, out).await
        }
        Command::RotateRoot { connection, mount } => {
            write(at(&mount, "rotate-root", &connection), Vec::new(), session, out).await
        }
        Command::Reset { connection, mount } => {
            write(at(&mount, "reset", &connection), Vec::new(), session, out).await
        }
    }
}

/// Does what a verb of `rotation` says.
pub(crate) async fn run_rotation(command: RotationCommand, session: &Session, out: &Out) -> Done {
    match command {
        RotationCommand::Status { path } => {
            read(format!("sys/rotations/{}", clean(&path)), None, None, session, out).await
        }
        RotationCommand::Ack { path, version } => {
            let data = vec![format!("path={}", clean(&path)), format!("version={version}")];
            write("sys/rotations/ack".to_owned(), data, session, out).await
        }
    }
}

fn at(mount: &str, what: &str, name: &str) -> String {
    format!("{}/{what}/{name}", clean(mount))
}

async fn read(
    path: String,
    field: Option<String>,
    query: Option<&str>,
    session: &Session,
    out: &Out,
) -> Done {
    let query = query.map(str::to_owned).into_iter().collect();
    generic::read(ReadArgs { path, query, field, wrap_ttl: None }, session, out).await
}

async fn write(path: String, data: Vec<String>, session: &Session, out: &Out) -> Done {
    generic::write(WriteArgs { path, data, force: true, field: None, wrap_ttl: None }, session, out).await
}
