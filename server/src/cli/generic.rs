//! `read`, `write`, `patch`, `list`, `delete`: any path, as the API has it.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use coffer_client::wire::{Disclose, Envelope};
use coffer_client::{Call, Client, ClientError};
use serde_json::Value;

use super::out::{Out, cell, duration, rows};
use super::session::Session;
use super::{Done, NoValue, input};

/// A path alone.
#[derive(Debug, Args)]
pub(crate) struct PathArgs {
    /// The path, without /v1/.
    path: String,
}

/// Options of `read`.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// The path, without /v1/.
    pub(crate) path: String,
    /// key=value pairs for the query.
    pub(crate) query: Vec<String>,
    /// Print one field and nothing else.
    #[arg(long)]
    pub(crate) field: Option<String>,
    /// Wrap the reply: it is given out once, for the token that is printed instead.
    #[arg(long, value_name = "TTL")]
    pub(crate) wrap_ttl: Option<String>,
}

/// Options of `write` and `patch`.
#[derive(Debug, Args)]
pub(crate) struct WriteArgs {
    /// The path, without /v1/.
    pub(crate) path: String,
    /// key=value, key=@file, key=- or - for JSON from standard input; repeat a key for a list.
    pub(crate) data: Vec<String>,
    /// Write although there is nothing to write, as some paths want it.
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Print one field of the reply and nothing else.
    #[arg(long)]
    pub(crate) field: Option<String>,
    /// Wrap the reply: it is given out once, for the token that is printed instead.
    #[arg(long, value_name = "TTL")]
    pub(crate) wrap_ttl: Option<String>,
}

/// A client whose replies are wrapped, if that is wanted.
pub(crate) fn wrapping(client: Client, ttl: Option<&str>) -> anyhow::Result<Client> {
    Ok(match ttl {
        Some(ttl) => client.with_wrap_ttl(ttl)?,
        None => client,
    })
}

type Reply = Envelope<Disclose<Value>>;

/// `coffer read`.
pub(crate) async fn read(args: ReadArgs, session: &Session, out: &Out) -> Done {
    let path = clean(&args.path);
    let query: Vec<(&str, &str)> = args
        .query
        .iter()
        .map(|pair| pair.split_once('=').with_context(|| format!("{pair:?}: expected key=value")))
        .collect::<anyhow::Result<_>>()?;
    let call = Call { query: &query, ..Call::new("GET", path) };
    let client = wrapping(session.client()?, args.wrap_ttl.as_deref())?;
    let reply: Result<Reply, _> = client.exchange(call, None::<&()>).await;
    let reply = found(reply, path)?;
    if reply.data.is_none() && reply.auth.is_none() && reply.wrap_info.is_none() {
        return Err(NoValue(path.to_owned()).into());
    }
    show(&reply, args.field.as_deref(), out)?;
    Ok(ExitCode::SUCCESS)
}

/// `coffer write`.
pub(crate) async fn write(args: WriteArgs, session: &Session, out: &Out) -> Done {
    send("PUT", args, session, out).await
}

/// `coffer patch`.
pub(crate) async fn patch(args: WriteArgs, session: &Session, out: &Out) -> Done {
    send("PATCH", args, session, out).await
}

async fn send(method: &'static str, args: WriteArgs, session: &Session, out: &Out) -> Done {
    let path = clean(&args.path);
    if args.data.is_empty() && !args.force {
        anyhow::bail!("nothing to write: give key=value pairs, or --force");
    }
    let data = Disclose::new(input::pairs(&args.data)?);
    let reply: Reply = wrapping(session.client()?, args.wrap_ttl.as_deref())?
        .exchange(Call::new(method, path), Some(&data))
        .await
        .with_context(|| format!("writing {path}"))?;
    for warning in reply.warnings.iter().flatten() {
        super::out::complain(&format!("Warning: {warning}"));
    }
    let said = reply.data.is_some() || reply.auth.is_some() || reply.wrap_info.is_some();
    if said || args.field.is_some() {
        show(&reply, args.field.as_deref(), out)?;
    } else {
        out.success(&format!("Data written to: {path}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `coffer list`.
pub(crate) async fn list(args: &PathArgs, session: &Session, out: &Out) -> Done {
    names(clean(&args.path), "Keys", session, out).await
}

/// The names under a path; that there are none is exit code 2, as in Vault.
pub(crate) async fn names(path: &str, title: &str, session: &Session, out: &Out) -> Done {
    let names = session.client()?.list(path).await.with_context(|| format!("listing {path}"))?;
    if names.is_empty() {
        return Err(NoValue(path.to_owned()).into());
    }
    out.names(title, &names)?;
    Ok(ExitCode::SUCCESS)
}

/// `coffer delete`.
pub(crate) async fn delete(args: &PathArgs, session: &Session, out: &Out) -> Done {
    let path = clean(&args.path);
    session.client()?.delete(path).await.with_context(|| format!("deleting {path}"))?;
    out.success(&format!("Data deleted (if it existed) at: {path}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Paths as people type them: slashes at the ends do not matter, nor does a `v1/` copied from a URL.
pub(crate) fn clean(path: &str) -> &str {
    let path = path.trim_matches('/');
    path.strip_prefix("v1/").unwrap_or(path)
}

/// "There is nothing" has its own error; everything else stays what it is.
pub(crate) fn found<T>(reply: Result<T, ClientError>, path: &str) -> anyhow::Result<T> {
    match reply {
        Err(ClientError::Status { code: 404, errors }) if errors.is_empty() => {
            Err(NoValue(path.to_owned()).into())
        }
        other => other.with_context(|| format!("reading {path}")),
    }
}

/// Shows a reply, or one of its fields.
pub(crate) fn show(reply: &Reply, field: Option<&str>, out: &Out) -> anyhow::Result<()> {
    if let Some(name) = field {
        let value = reply.data.as_ref().and_then(|data| data.expose().get(name));
        let wrapped = reply.wrap_info.as_ref().filter(|_| name == "wrapping_token");
        let token = reply.auth.as_ref().filter(|_| name == "token").map(|auth| auth.client_token.expose());
        let token = token.or(wrapped.map(|info| info.token.expose()));
        return match (value, token) {
            (Some(value), _) if out.is_json() => out.json(value),
            (Some(value), _) => out.raw(&cell(value)),
            (None, Some(token)) => out.raw(token),
            (None, None) => anyhow::bail!("there is no field {name:?} in the reply"),
        };
    }
    if out.is_json() {
        return out.json(reply);
    }
    out.pairs(&reply_rows(reply))
}

fn reply_rows(reply: &Reply) -> Vec<(String, String)> {
    let mut table = Vec::new();
    let mut row = |key: &str, value: String| table.push((key.to_owned(), value));
    if !reply.lease_id.is_empty() {
        row("lease_id", reply.lease_id.clone());
        row("lease_duration", duration(reply.lease_duration));
        row("lease_renewable", reply.renewable.to_string());
    }
    if let Some(info) = &reply.wrap_info {
        row("wrapping_token", info.token.expose().clone());
        row("wrapping_accessor", info.accessor.clone());
        row("wrapping_token_ttl", duration(info.ttl));
        row("wrapping_token_creation_time", info.creation_time.clone());
        row("wrapping_token_creation_path", info.creation_path.clone());
        if let Some(accessor) = &info.wrapped_accessor {
            row("wrapped_accessor", accessor.clone());
        }
    }
    if let Some(auth) = &reply.auth {
        row("token", auth.client_token.expose().clone());
        row("token_accessor", auth.accessor.clone());
        row("token_duration", duration(auth.lease_duration));
        row("token_renewable", auth.renewable.to_string());
        row("token_policies", format!("[{}]", auth.policies.join(" ")));
        for (key, value) in auth.metadata.iter().flatten() {
            row(&format!("token_meta_{key}"), value.clone());
        }
    }
    match reply.data.as_ref().map(Disclose::expose) {
        Some(Value::Object(map)) => table.extend(rows(map)),
        None | Some(Value::Null) => {}
        Some(other) => table.push(("data".to_owned(), cell(other))),
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_paths() {
        for typed in ["secret/data/a", "/secret/data/a", "secret/data/a/", "/v1/secret/data/a"] {
            assert_eq!(clean(typed), "secret/data/a");
        }
    }

    #[test]
    fn rows_name_the_lease_first() {
        let text = r#"{"lease_id":"database/creds/a/1","lease_duration":90,"renewable":true,"data":{"username":"u"}}"#;
        let reply: Reply = serde_json::from_str(text).unwrap();
        let rows = reply_rows(&reply);
        assert_eq!(rows[0], ("lease_id".into(), "database/creds/a/1".into()));
        assert_eq!(rows[1], ("lease_duration".into(), "1m30s".into()));
        assert_eq!(rows[3], ("username".into(), "u".into()));
    }
}
