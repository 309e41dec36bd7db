//! `events`: what happens at the server, as it happens.

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use coffer_client::wire::Event;

use super::Done;
use super::out::{Out, printable};
use super::session::Session;

/// Verbs of `events`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print events until the server ends the stream: one line each, or one JSON object each with --format json
    Subscribe {
        /// Types of events, such as kv-v2/data-write, kv* or *-delete,database*.
        pattern: String,
        /// Go on after this position: `position` of an event that was seen.
        #[arg(long, value_name = "POSITION")]
        after: Option<String>,
    },
}

/// Does what a verb says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    let Command::Subscribe { pattern, after } = command;
    let client = session.client()?;
    let mut events = client.subscribe(&pattern, after.as_deref()).await.context("subscribing")?;
    while let Some(event) = events.next().await.context("reading events")? {
        if out.is_json() {
            // One a line: a stream has no end that a reader could wait for.
            out.line(&serde_json::to_string(&event)?)?;
        } else {
            out.line(&line(&event))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(event: &Event) -> String {
    let metadata = &event.data.event.metadata;
    printable(&format!("{}  {}  {}  {}", event.time, event.event_type, metadata.path, metadata.position))
}
