//! `unwrap`: what a wrapping token stands for. The token is read from standard input or is one's own.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use coffer_client::Call;
use coffer_client::wire::{Disclose, Envelope};
use serde_json::{Map, Value};

use super::generic::show;
use super::out::Out;
use super::session::Session;
use super::{Done, input};

/// Options of `unwrap`.
#[derive(Debug, Args)]
pub(crate) struct UnwrapArgs {
    /// `-`: the wrapping token is read from standard input, never from the command line. Without it the token of
    /// the session is the wrapping token.
    #[arg(value_parser = ["-"], hide_possible_values = true)]
    source: Option<String>,
    /// Print one field and nothing else.
    #[arg(long)]
    field: Option<String>,
}

/// `coffer unwrap`.
pub(crate) async fn run(args: UnwrapArgs, session: &Session, out: &Out) -> Done {
    let client = match args.source {
        // It speaks for itself: whoever has it needs no other.
        Some(_) => session.with_token(&input::secret("Wrapping token (will be hidden)")?)?,
        None => session.client()?,
    };
    let reply: Envelope<Disclose<Value>> = client
        .exchange(Call::new("PUT", "sys/wrapping/unwrap"), Some(&Map::new()))
        .await
        .context("unwrapping")?;
    for warning in reply.warnings.iter().flatten() {
        super::out::complain(&format!("Warning: {warning}"));
    }
    show(&reply, args.field.as_deref(), out)?;
    Ok(ExitCode::SUCCESS)
}
