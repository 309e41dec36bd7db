//! `token`: one's own and others'. A token is read from standard input, or named by its accessor.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use coffer_client::Call;
use coffer_client::wire::{Disclose, Envelope};
use serde_json::{Map, Value, json};

use super::generic::{clean, show, wrapping};
use super::out::{Out, cell};
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
        /// `orphan`: leave what was made with it alive. Takes a token from standard input.
        #[arg(long, value_parser = ["orphan"], conflicts_with_all = ["accessor", "own"])]
        mode: Option<String>,
    },
    /// Make a token
    Create(Box<CreateArgs>),
    /// Show what a token may do: one's own unless another is named
    Capabilities {
        #[command(flatten)]
        which: NamedArgs,
        /// The paths, without /v1/.
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// What tokens may be made through a role
    #[command(subcommand)]
    Roles(super::token_roles::Command),
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

/// Which token, beside other arguments.
#[derive(Debug, Args)]
pub(crate) struct NamedArgs {
    /// The token is read from standard input.
    #[arg(long, conflicts_with = "accessor")]
    stdin: bool,
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
    /// service, or batch: sealed, short-lived, and kept nowhere.
    #[arg(long = "type", value_parser = ["service", "batch"])]
    kind: Option<String>,
    /// Made through this role.
    #[arg(long, conflicts_with = "orphan")]
    role: Option<String>,
    /// Whether it can be renewed.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    renewable: Option<bool>,
    /// With a role: whose entity it belongs to.
    #[arg(long, requires = "role")]
    entity_alias: Option<String>,
    /// Wrap the reply: it is given out once, for the token that is printed instead.
    #[arg(long, value_name = "TTL")]
    wrap_ttl: Option<String>,
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
        Command::Revoke { which, mode: Some(_), .. } => {
            let Which::Given(token) = which.read()? else {
                anyhow::bail!("--mode=orphan takes the token from standard input: give -")
            };
            let body = named("token", token.expose().clone());
            ask(session, "auth/token/revoke-orphan", Some(body)).await.context("revoking the token")?;
            out.success("Revoked token; what was made with it lives on")?;
        }
        Command::Revoke { which, own, mode: None } => {
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
            let path = match &args.role {
                Some(role) => format!("auth/token/create/{role}"),
                None if args.orphan => "auth/token/create-orphan".to_owned(),
                None => "auth/token/create".to_owned(),
            };
            let client = wrapping(session.client()?, args.wrap_ttl.as_deref())?;
            let body = Disclose::new(creation(&args)?);
            let reply: Reply =
                client.exchange(Call::new("POST", &path), Some(&body)).await.context("making a token")?;
            for warning in reply.warnings.iter().flatten() {
                super::out::complain(&format!("Warning: {warning}"));
            }
            show(&reply, args.field.as_deref(), out)?;
        }
        Command::Capabilities { which, paths } => capabilities(which, &paths, session, out).await?,
        Command::Roles(command) => return super::token_roles::run(command, session, out).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn capabilities(
    which: NamedArgs,
    paths: &[String],
    session: &Session,
    out: &Out,
) -> anyhow::Result<()> {
    let (path, mut body) = match (which.stdin, which.accessor) {
        (true, _) => {
            let token = input::secret("Token (will be hidden)")?;
            ("sys/capabilities", named("token", token.expose().clone()))
        }
        (false, Some(accessor)) => ("sys/capabilities-accessor", named("accessor", accessor)),
        (false, None) => ("sys/capabilities-self", Map::new()),
    };
    let paths: Vec<&str> = paths.iter().map(|path| clean(path)).collect();
    body.insert("paths".into(), json!(paths));
    let reply = ask(session, path, Some(body)).await.context("asking what the token may do")?;
    let data = reply.data.context("the reply is empty")?;
    let of = |path: &str| data.expose().get(path).cloned().unwrap_or_default();
    match paths.as_slice() {
        [one] if out.is_json() => out.json(&of(one)),
        [one] => {
            let granted: Vec<String> = of(one)
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|c| Some(c.as_str()?.to_owned()))
                .collect();
            out.line(&granted.join(", "))
        }
        many if out.is_json() => {
            out.json(&many.iter().map(|path| ((*path).to_owned(), of(path))).collect::<Map<_, _>>())
        }
        many => out.pairs(&many.iter().map(|path| ((*path).to_owned(), cell(&of(path)))).collect::<Vec<_>>()),
    }
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
        ("type", &args.kind),
        ("entity_alias", &args.entity_alias),
    ] {
        if let Some(text) = text {
            set(key, Value::from(text.as_str()));
        }
    }
    if let Some(uses) = args.use_limit {
        set("num_uses", Value::from(uses));
    }
    if let Some(renewable) = args.renewable {
        set("renewable", Value::Bool(renewable));
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
