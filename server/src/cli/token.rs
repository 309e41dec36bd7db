//! `token`: one's own and others'. A token is read from standard input, or named by its accessor.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use coffer_client::Call;
use coffer_client::wire::{Disclose, Envelope};
use serde_json::{Map, Value, json};

use super::generic::show;
use super::out::Out;
use super::session::Session;
use super::{Done, input};

/// Verbs of `token`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a token: one's own unless another is named
    Lookup(WhichArgs),
    /// Prolong a token
    Renew {
        #[command(flatten)]
        which: WhichArgs,
        /// The life asked for, such as 1h.
        #[arg(long)]
        increment: Option<String>,
    },
    /// Revoke a token, its children and everything issued to them
    Revoke {
        #[command(flatten)]
        which: WhichArgs,
        /// One's own.
        #[arg(long = "self", conflicts_with_all = ["accessor", "source"])]
        own: bool,
    },
    /// Make a token
    Create(CreateArgs),
}

/// Which token.
#[derive(Debug, Args)]
pub(crate) struct WhichArgs {
    /// `-`: the token is read from standard input, never from the command line.
    #[arg(value_parser = ["-"], hide_possible_values = true, conflicts_with = "accessor")]
    source: Option<String>,
    /// The token with this accessor.
    #[arg(long, allow_hyphen_values = true)]
    accessor: Option<String>,
}

/// Options of `token create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// A policy; may be given several times. Without any, one's own.
    #[arg(long = "policy", value_name = "NAME")]
    policies: Vec<String>,
    /// Its first life, such as 1h.
    #[arg(long)]
    ttl: Option<String>,
    /// Its longest life, whatever is renewed.
    #[arg(long)]
    explicit_max_ttl: Option<String>,
    /// Renewable for ever, for this long at a time.
    #[arg(long)]
    period: Option<String>,
    /// How often it can be used; 0 is without limit.
    #[arg(long)]
    use_limit: Option<u64>,
    /// What the audit log calls its owner.
    #[arg(long)]
    display_name: Option<String>,
    /// It does not end with the token that made it.
    #[arg(long)]
    orphan: bool,
    /// Without the policy `default`.
    #[arg(long)]
    no_default_policy: bool,
    /// A label, key=value; may be given several times.
    #[arg(long = "metadata", value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// Print one field of the reply, such as `token`, and nothing else.
    #[arg(long)]
    field: Option<String>,
}

enum Which {
    Own,
    Accessor(String),
    Given(Disclose),
}

impl WhichArgs {
    fn read(self) -> anyhow::Result<Which> {
        match (self.source, self.accessor) {
            (Some(_), _) => Ok(Which::Given(input::secret("Token (will be hidden)")?)),
            (None, Some(accessor)) => Ok(Which::Accessor(accessor)),
            (None, None) => Ok(Which::Own),
        }
    }
}

type Reply = Envelope<Disclose<Value>>;

/// Does what a verb says.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    match command {
        Command::Lookup(which) => {
            let (path, body) = match which.read()? {
                Which::Own => ("auth/token/lookup-self", None),
                Which::Accessor(accessor) => {
                    ("auth/token/lookup-accessor", Some(named("accessor", accessor)))
                }
                Which::Given(token) => ("auth/token/lookup", Some(named("token", token.expose().clone()))),
            };
            show(&ask(session, path, body).await.context("looking the token up")?, None, out)?;
        }
        Command::Renew { which, increment } => {
            let (path, body) = match which.read()? {
                Which::Own => ("auth/token/renew-self", Map::new()),
                Which::Accessor(accessor) => ("auth/token/renew-accessor", named("accessor", accessor)),
                Which::Given(token) => ("auth/token/renew", named("token", token.expose().clone())),
            };
            let mut body = body;
            body.extend(increment.map(|text| ("increment".to_owned(), Value::from(text))));
            show(&ask(session, path, Some(body)).await.context("renewing the token")?, None, out)?;
        }
        Command::Revoke { which, own } => {
            let (path, body) = match which.read()? {
                Which::Own if own => ("auth/token/revoke-self", Map::new()),
                Which::Own => anyhow::bail!("which token? --self, --accessor, or - for standard input"),
                Which::Accessor(accessor) => ("auth/token/revoke-accessor", named("accessor", accessor)),
                Which::Given(token) => ("auth/token/revoke", named("token", token.expose().clone())),
            };
            ask(session, path, Some(body)).await.context("revoking the token")?;
            out.success("Revoked token (if it existed)")?;
        }
        Command::Create(args) => {
            let path = if args.orphan { "auth/token/create-orphan" } else { "auth/token/create" };
            let reply = ask(session, path, Some(creation(&args)?)).await.context("making a token")?;
            for warning in reply.warnings.iter().flatten() {
                super::out::complain(&format!("Warning: {warning}"));
            }
            show(&reply, args.field.as_deref(), out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn named(key: &str, value: String) -> Map<String, Value> {
    Map::from_iter([(key.to_owned(), Value::from(value))])
}

fn creation(args: &CreateArgs) -> anyhow::Result<Map<String, Value>> {
    let mut body = Map::new();
    let mut set = |key: &str, value: Value| drop(body.insert(key.to_owned(), value));
    if !args.policies.is_empty() {
        set("policies", json!(args.policies));
    }
    for (key, text) in [
        ("ttl", &args.ttl),
        ("explicit_max_ttl", &args.explicit_max_ttl),
        ("period", &args.period),
        ("display_name", &args.display_name),
    ] {
        if let Some(text) = text {
            set(key, Value::from(text.as_str()));
        }
    }
    if let Some(uses) = args.use_limit {
        set("num_uses", Value::from(uses));
    }
    if args.no_default_policy {
        set("no_default_policy", Value::Bool(true));
    }
    if !args.metadata.is_empty() {
        set("meta", Value::Object(input::labels(&args.metadata)?));
    }
    Ok(body)
}

async fn ask(session: &Session, path: &str, body: Option<Map<String, Value>>) -> anyhow::Result<Reply> {
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.map(Disclose::new);
    Ok(session.client()?.exchange(Call::new(method, path), body.as_ref()).await?)
}
