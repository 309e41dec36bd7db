//! `sys/policies/acl/...` and its older spelling `sys/policy/...`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
        return list(ctx, name, field).await;
    }
    let name = PolicyName::parse(name).map_err(|error| bad(error.to_string()))?;
    match ctx.request.operation {
        Operation::Read => read(ctx, &name, field).await,
        Operation::Create | Operation::Update => write(ctx, &name).await,
        Operation::Delete => delete(ctx, &name).await,
        _ => Err(Fail::NoOperation),
    }
}

async fn list(ctx: &Ctx, dir: &str, field: &str) -> Result<Outcome, Fail> {
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
    if field != "rules" {
        return Ok(Outcome::data(Value::Object(data)));
    }
    data.insert("policies".into(), json!(names));
    Ok(Outcome::doubled(data))
}

async fn read(ctx: &Ctx, name: &PolicyName, field: &str) -> Result<Outcome, Fail> {
    let mut data = Map::new();
    data.insert("name".into(), name.as_str().into());
    if name.is_root() {
        data.insert(field.into(), "".into());
        return Ok(shown(data, field));
    }
    let entry = ctx.open.policies.get(name).await?.ok_or(Fail::NotFound)?;
    data.insert(field.into(), entry.text.as_str().into());
    if !entry.custom_metadata.is_empty() {
        data.insert("custom_metadata".into(), json!(entry.custom_metadata));
    }
    Ok(shown(data, field))
}

/// The older spelling has everything at the top level too.
fn shown(data: Map<String, Value>, field: &str) -> Outcome {
    if field == "rules" { Outcome::doubled(data) } else { Outcome::data(Value::Object(data)) }
}

async fn write(ctx: &Ctx, name: &PolicyName) -> Result<Outcome, Fail> {
    if name.is_root() || name.is_response_wrapping() {
        return Err(bad(format!("cannot update {:?} policy", name.as_str())));
    }
    let (text, old_name) = match ctx.text("policy")?.filter(|text| !text.is_empty()) {
        Some(text) => (text, false),
        None => (ctx.text("rules")?.unwrap_or_default(), true),
    };
    if text.is_empty() {
        return Err(bad("'policy' parameter not supplied or empty"));
    }
    // Before decoding, which only makes it smaller.
    if text.len() > MAX_POLICY_BYTES {
        return Err(Fail::TooLarge(format!("policy is larger than {MAX_POLICY_BYTES} bytes")));
    }
    // A policy may come as base64: no policy in plain text is valid base64, for it has a quote or a brace.
    let decoded = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = decoded.as_deref().unwrap_or(text);
    policy::check(name, text)?;
    let custom_metadata = params::labels(&ctx.request.body, "custom_metadata")?.unwrap_or_default();
    let entry = PolicyEntry { text: text.to_owned(), custom_metadata };
    let written: Result<(), Fail> =
        transact!(ctx.open.barrier, |w| Policies::put_in(w, name, &entry).await?);
    changed(ctx, name);
    written?;
    let warnings =
        if old_name { vec!["'rules' is deprecated, please use 'policy' instead".into()] } else { vec![] };
    Ok(Outcome::empty().warning(warnings).publishing(event(name, "write")))
}

async fn delete(ctx: &Ctx, name: &PolicyName) -> Result<Outcome, Fail> {
    if name == &PolicyName::default_policy() {
        return Err(bad("cannot delete default policy"));
    }
    if name.is_root() || name.is_response_wrapping() {
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
