//! `sys/policies/acl/...` and its older spelling `sys/policy/...`.

use coffer_core::policy::{MAX_POLICY_BYTES, PolicyName};
use serde_json::{Map, Value, json};

use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::events::Draft;
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::policy::{self, Policies, PolicyEntry};
use crate::request::Operation;

/// Handles a policy or a directory of them; `field` is what the text is called in this spelling.
pub(crate) async fn handle(ctx: &mut Ctx, name: &str, field: &str) -> Result<Outcome, Fail> {
    let legacy_list = ctx.request.operation == Operation::Read && name.is_empty() && field == "rules";
    if ctx.request.operation == Operation::List || legacy_list {
        return list(ctx, name).await;
    }
    let name = PolicyName::parse(name).map_err(|error| bad(error.to_string()))?;
    match ctx.request.operation {
        Operation::Read => read(ctx, &name, field).await,
        Operation::Create | Operation::Update => write(ctx, &name).await,
        Operation::Delete => delete(ctx, &name).await,
        _ => Err(Fail::NoOperation),
    }
}

async fn list(ctx: &Ctx, dir: &str) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let mut names = ctx.open.policies.list(dir, after, limit).await?;
    if dir.is_empty() && after.is_none() {
        // Not written down, but there.
        names.push("root".into());
    }
    if names.is_empty() {
        return Err(Fail::NotFound);
    }
    let mut data = Map::new();
    data.insert("keys".into(), json!(names));
    data.insert("policies".into(), json!(names));
    Ok(Outcome::doubled(data))
}

async fn read(ctx: &Ctx, name: &PolicyName, field: &str) -> Result<Outcome, Fail> {
    let mut data = Map::new();
    data.insert("name".into(), name.as_str().into());
    if name.is_root() {
        data.insert(field.into(), "".into());
        return Ok(Outcome::doubled(data));
    }
    let entry = ctx.open.policies.get(name).await?.ok_or(Fail::NotFound)?;
    data.insert(field.into(), entry.text.as_str().into());
    if !entry.custom_metadata.is_empty() {
        data.insert("custom_metadata".into(), json!(entry.custom_metadata));
    }
    Ok(if field == "rules" { Outcome::doubled(data) } else { Outcome::data(Value::Object(data)) })
}

async fn write(ctx: &Ctx, name: &PolicyName) -> Result<Outcome, Fail> {
    if name.is_root() || name.is_response_wrapping() {
        return Err(bad(format!("cannot update {:?} policy", name.as_str())));
    }
    let text = match ctx.text("policy")? {
        Some(text) => text,
        None => ctx.text("rules")?.ok_or_else(|| bad("'policy' parameter not supplied or empty"))?,
    };
    if text.len() > MAX_POLICY_BYTES {
        return Err(Fail::TooLarge(format!("policy is larger than {MAX_POLICY_BYTES} bytes")));
    }
    policy::check(name, text)?;
    let custom_metadata = params::labels(&ctx.request.body, "custom_metadata")?.unwrap_or_default();
    let entry = PolicyEntry { text: text.to_owned(), custom_metadata };
    let written: Result<(), Fail> =
        transact!(ctx.open.barrier, |w| Policies::put_in(w, name, &entry).await?);
    changed(ctx, name);
    written?;
    Ok(Outcome::empty().publishing(event(name, "write")))
}

async fn delete(ctx: &Ctx, name: &PolicyName) -> Result<Outcome, Fail> {
    if name.is_root() || name.is_response_wrapping() || name == &PolicyName::default_policy() {
        return Err(bad(format!("cannot delete {:?} policy", name.as_str())));
    }
    let deleted: Result<bool, Fail> = transact!(ctx.open.barrier, |w| Policies::delete_in(w, name).await?);
    changed(ctx, name);
    deleted?;
    Ok(Outcome::empty().publishing(event(name, "delete")))
}

/// Nothing in memory vouches for the old text any more. Also when the outcome is not known.
fn changed(ctx: &Ctx, name: &PolicyName) {
    ctx.open.policies.forget(name);
    ctx.open.tokens.forget_all();
}

fn event(name: &PolicyName, operation: &'static str) -> Draft {
    Draft {
        event_type: "policy/write",
        path: format!("sys/policies/acl/{name}"),
        operation,
        mount_path: "sys/".into(),
    }
}
