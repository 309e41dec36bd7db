//! What engines and auth methods have in common on the command line: how they are tuned, moved and listed.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use coffer_client::Call;
use coffer_client::wire::Envelope;
use serde_json::{Map, Value, json};

use super::generic::clean;
use super::out::{Out, cell, duration};
use super::session::Session;
use super::{Done, input};

/// How often it is asked whether a move is done, and for how long.
const MOVE_POLL: Duration = Duration::from_millis(200);
const MOVE_POLLS: u32 = 3000;

/// One of the two tables of mounts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    /// `sys/mounts` or `sys/auth`.
    pub(crate) at: &'static str,
    /// What a path begins with elsewhere: `auth/`, or nothing.
    pub(crate) prefix: &'static str,
    /// What is mounted there.
    pub(crate) noun: &'static str,
}

/// Secrets engines.
pub(crate) const ENGINES: Table = Table { at: "sys/mounts", prefix: "", noun: "secrets engine" };
/// Auth methods.
pub(crate) const METHODS: Table = Table { at: "sys/auth", prefix: "auth/", noun: "auth method" };

impl Table {
    /// A path as people type it, as the table has it.
    pub(crate) fn path<'a>(&self, typed: &'a str) -> &'a str {
        let path = clean(typed);
        path.strip_prefix(self.prefix).filter(|_| !self.prefix.is_empty()).unwrap_or(path)
    }
}

/// What can be set on a mount.
#[derive(Debug, Default, Args)]
pub(crate) struct TuneArgs {
    /// The first life of what is issued, such as 1h; 0 is the system's.
    #[arg(long, value_name = "TTL")]
    default_lease_ttl: Option<String>,
    /// The longest life of what is issued.
    #[arg(long, value_name = "TTL")]
    max_lease_ttl: Option<String>,
    /// unauth: shown to everybody; hidden: to those who may use it.
    #[arg(long, value_parser = ["unauth", "hidden"])]
    listing_visibility: Option<String>,
    /// Keys of requests that audit devices show as they are; may be given several times.
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    audit_non_hmac_request_keys: Vec<String>,
    /// The same of responses.
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    audit_non_hmac_response_keys: Vec<String>,
    /// Options of the engine, such as version=2; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// What every token that is issued here is limited to; auth methods only.
    #[arg(long, value_name = "POLICY")]
    token_boundary_policy: Option<String>,
    /// service, batch, default-service or default-batch; auth methods only.
    #[arg(long, value_name = "TYPE")]
    token_type: Option<String>,
}

impl TuneArgs {
    /// What was said, as the server's `config` or tuning has it.
    pub(crate) fn config(&self) -> Map<String, Value> {
        let texts = [
            ("default_lease_ttl", &self.default_lease_ttl),
            ("max_lease_ttl", &self.max_lease_ttl),
            ("listing_visibility", &self.listing_visibility),
            ("token_boundary_policy", &self.token_boundary_policy),
            ("token_type", &self.token_type),
        ];
        let lists = [
            ("audit_non_hmac_request_keys", &self.audit_non_hmac_request_keys),
            ("audit_non_hmac_response_keys", &self.audit_non_hmac_response_keys),
        ];
        let texts = texts.into_iter().filter_map(|(key, text)| Some((key, json!(text.as_ref()?))));
        let lists =
            lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(key, list)| (key, json!(list)));
        texts.chain(lists).map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// The engine's options.
    pub(crate) fn options(&self) -> anyhow::Result<Map<String, Value>> {
        input::labels(&self.options)
    }
}

/// Mounts something.
pub(crate) async fn enable(
    table: Table,
    path: &str,
    body: &Map<String, Value>,
    session: &Session,
) -> anyhow::Result<()> {
    let at = format!("{}/{path}", table.at);
    let _no_content: Envelope<Value> = session
        .client()?
        .exchange(Call::new("POST", &at), Some(body))
        .await
        .with_context(|| format!("mounting at {}{path}/", table.prefix))?;
    Ok(())
}

/// Changes the settings of a mount.
pub(crate) async fn tune(
    table: Table,
    typed: &str,
    args: &TuneArgs,
    description: Option<&str>,
    session: &Session,
    out: &Out,
) -> Done {
    let path = table.path(typed);
    let mut body = args.config();
    body.extend(description.map(|text| ("description".to_owned(), text.into())));
    let options = args.options()?;
    if !options.is_empty() {
        body.insert("options".into(), Value::Object(options));
    }
    if body.is_empty() {
        bail!("nothing to change: see --help");
    }
    let at = format!("{}/{path}/tune", table.at);
    let _no_content: Envelope<Value> = session
        .client()?
        .exchange(Call::new("POST", &at), Some(&body))
        .await
        .with_context(|| format!("tuning {}{path}/", table.prefix))?;
    out.success(&format!("Tuned the {} at: {}{path}/", table.noun, table.prefix))?;
    Ok(ExitCode::SUCCESS)
}

/// Moves a mount to another path, and waits until that is done.
pub(crate) async fn remount(table: Table, from: &str, to: &str, session: &Session, out: &Out) -> Done {
    let whole = |typed: &str| format!("{}{}/", table.prefix, table.path(typed));
    let (from, to) = (whole(from), whole(to));
    let client = session.client()?;
    let body = json!({ "from": from, "to": to });
    let begun: Envelope<Value> = client
        .exchange(Call::new("POST", "sys/remount"), Some(&body))
        .await
        .with_context(|| format!("moving {from} to {to}"))?;
    let data = begun.data.context("the reply is empty")?;
    let id = data["migration_id"].as_str().context("the reply has no migration id")?;
    let at = format!("sys/remount/status/{id}");
    for _ in 0..MOVE_POLLS {
        let reply: Envelope<Value> = client.get(&at).await.context("asking how far the move is")?;
        let status = reply.data.as_ref().and_then(|data| data["migration_info"]["status"].as_str());
        match status {
            Some("success") => {
                out.success(&format!("Moved the {} from {from} to {to}", table.noun))?;
                return Ok(ExitCode::SUCCESS);
            }
            Some("failure") => bail!("{from} could not be moved to {to}: the server's log says why"),
            _ => tokio::time::sleep(MOVE_POLL).await,
        }
    }
    bail!("{from} is still being moved; see coffer read {at}")
}

/// A table of mounts; with `detailed`, of their settings too.
pub(crate) async fn list(table: Table, detailed: bool, session: &Session, out: &Out) -> Done {
    let reply: Envelope<Map<String, Value>> =
        session.client()?.get(table.at).await.with_context(|| format!("listing {}s", table.noun))?;
    let mounts = reply.data.unwrap_or_default();
    if out.is_json() {
        out.json(&mounts)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value| match value.as_str() {
        Some("") | None => "n/a".to_owned(),
        Some(text) => text.to_owned(),
    };
    let ttl = |value: &Value| match value.as_u64() {
        Some(0) | None => "system".to_owned(),
        Some(seconds) => duration(seconds),
    };
    let options = |value: &Value| if value.is_null() { "n/a".to_owned() } else { cell(value) };
    let rows: Vec<Vec<String>> = mounts
        .iter()
        .map(|(path, mount)| {
            let mut row = vec![path.clone(), text(&mount["type"]), text(&mount["accessor"])];
            if detailed {
                let config = &mount["config"];
                row.extend([ttl(&config["default_lease_ttl"]), ttl(&config["max_lease_ttl"])]);
                row.push(options(&mount["options"]));
            }
            row.push(text(&mount["description"]));
            row
        })
        .collect();
    let header: &[&str] = if detailed {
        &["Path", "Type", "Accessor", "Default TTL", "Max TTL", "Options", "Description"]
    } else {
        &["Path", "Type", "Accessor", "Description"]
    };
    out.table(header, &rows)?;
    Ok(ExitCode::SUCCESS)
}
