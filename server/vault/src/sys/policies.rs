//! `sys/policies/acl/...` and its older spelling `sys/policy/...`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coffer_barrier::{Read, Writer};
use coffer_core::policy::{MAX_POLICY_BYTES, PolicyName};
use serde_json::{Map, Value, json};

use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::events::Draft;
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::{Ctx, only};
use crate::policy::{self, Policies, PolicyEntry};
use crate::request::Operation;
use crate::rows;

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
        Operation::Patch if field == "policy" => patch(ctx, &name).await,
        Operation::Delete => delete(ctx, &name).await,
        _ => Err(Fail::NoOperation),
    }
}

async fn names(ctx: &Ctx, dir: &str) -> Result<Vec<String>, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let mut names = ctx.open.policies.list(dir, after, limit).await?;
    if dir.is_empty() && after.is_none() {
        // Not written down, but there.
        names.push("root".into());
    }
    if names.is_empty() {
        return Err(Fail::NotFound);
    }
    Ok(names)
}

async fn list(ctx: &Ctx, dir: &str, field: &str) -> Result<Outcome, Fail> {
    let names = names(ctx, dir).await?;
    let mut data = Map::new();
    data.insert("keys".into(), json!(names));
    if field != "rules" {
        return Ok(Outcome::data(Value::Object(data)));
    }
    data.insert("policies".into(), json!(names));
    Ok(Outcome::doubled(data))
}

async fn read(ctx: &Ctx, name: &PolicyName, field: &str) -> Result<Outcome, Fail> {
    let data = told(ctx, name, field).await?.ok_or(Fail::NotFound)?;
    Ok(if field == "rules" { Outcome::doubled(data) } else { Outcome::data(Value::Object(data)) })
}

/// Everything about a policy. The root policy is not written down, but there.
async fn told(ctx: &Ctx, name: &PolicyName, field: &str) -> Result<Option<Map<String, Value>>, Fail> {
    let entry = if name.is_root() { None } else { ctx.open.policies.get(name).await? };
    if entry.is_none() && !name.is_root() {
        return Ok(None);
    }
    let entry = entry.unwrap_or_default();
    let mut data = Map::new();
    data.insert("name".into(), name.as_str().into());
    data.insert(field.into(), entry.text.as_str().into());
    data.insert("version".into(), entry.version.into());
    data.insert("cas_required".into(), entry.cas_required.into());
    // Values with slashes or wildcards never become part of a path here.
    data.insert("allow_slashes_in_identity_templates".into(), false.into());
    data.insert("allow_wildcards_in_identity_templates".into(), false.into());
    if let Some(modified) = entry.modified {
        data.insert("modified".into(), modified.to_rfc3339().into());
    }
    if !entry.custom_metadata.is_empty() {
        data.insert("custom_metadata".into(), json!(entry.custom_metadata));
    }
    Ok(Some(data))
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
    let body = &ctx.request.body;
    refuse_unenforced(body)?;
    let cas = cas(body)?;
    let wanted = PolicyEntry {
        text: text.to_owned(),
        custom_metadata: params::labels(body, "custom_metadata")?.unwrap_or_default(),
        version: 0,
        modified: Some(ctx.now),
        cas_required: params::flag(body, "cas_required")?.unwrap_or(false),
    };
    let written: Result<(), Fail> = transact!(ctx.open.barrier, |w| {
        let before = current(w, name).await?;
        fits(cas, before.as_ref())?;
        let version = before.map_or(0, |before| before.version) + 1;
        Policies::put_in(w, name, &PolicyEntry { version, ..wanted.clone() }).await?;
    });
    changed(ctx, name);
    written?;
    let warnings =
        if old_name { vec!["'rules' is deprecated, please use 'policy' instead".into()] } else { vec![] };
    Ok(Outcome::empty().warning(warnings).publishing(event(name, "write")))
}

/// `PATCH`: what is given is changed, the rest stays.
async fn patch(ctx: &Ctx, name: &PolicyName) -> Result<Outcome, Fail> {
    if name.is_root() || name.is_response_wrapping() {
        return Err(bad(format!("cannot update {:?} policy", name.as_str())));
    }
    let body = &ctx.request.body;
    refuse_unenforced(body)?;
    let (cas, required) = (cas(body)?, params::flag(body, "cas_required")?);
    let text = ctx.text("policy")?.filter(|text| !text.is_empty());
    if let Some(text) = text {
        policy::check(name, text)?;
    }
    let labels = params::labels(body, "custom_metadata")?;
    let written: Result<(), Fail> = transact!(ctx.open.barrier, |w| {
        let mut entry = current(w, name).await?.ok_or_else(|| bad("policy not found"))?;
        // What is merged with the present version needs not name it.
        fits(cas.or_else(|| i64::try_from(entry.version).ok()), Some(&entry))?;
        entry.version += 1;
        entry.modified = Some(ctx.now);
        entry.text = text.map_or(entry.text, str::to_owned);
        entry.cas_required = required.unwrap_or(entry.cas_required);
        entry.custom_metadata = labels.clone().unwrap_or(entry.custom_metadata);
        Policies::put_in(w, name, &entry).await?;
    });
    changed(ctx, name);
    written?;
    Ok(Outcome::data(Value::Null).publishing(event(name, "write")))
}

/// `LIST sys/policies/detailed/acl`: names, and everything about each.
pub(crate) async fn detailed(ctx: &Ctx, dir: &str) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::List])?;
    let names = names(ctx, dir).await?;
    let mut info = Map::new();
    let prefix = dir.trim_end_matches('/');
    for name in &names {
        let full = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        let Ok(full) = PolicyName::parse(&full) else { continue };
        if let Some(told) = told(ctx, &full, "policy").await? {
            info.insert(name.clone(), Value::Object(told));
        }
    }
    Ok(Outcome::data(json!({ "keys": names, "key_info": info })))
}

async fn current(writer: &Writer, name: &PolicyName) -> Result<Option<PolicyEntry>, Fail> {
    codec::get(writer as &dyn Read, &rows::policy(name)).await
}

/// The version that a write must find; -1 is none at all.
fn cas(body: &Map<String, Value>) -> Result<Option<i64>, Fail> {
    let number = match body.get("cas") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_i64(),
    };
    number.map(Some).ok_or_else(|| bad("cas must be a whole number"))
}

/// Whether a write may replace what is there.
fn fits(cas: Option<i64>, before: Option<&PolicyEntry>) -> Result<(), Fail> {
    let version = before.map_or(0, |before| before.version);
    match cas {
        None if before.is_some_and(|before| before.cas_required) => {
            Err(bad("check-and-set parameter required for this call"))
        }
        Some(-1) if before.is_some() => Err(bad("check-and-set parameter set to -1 on existing entry")),
        Some(cas) if cas != -1 && u64::try_from(cas) != Ok(version) => {
            let message =
                format!("check-and-set parameter {cas} did not match the current version {version}");
            Err(bad(message))
        }
        _ => Ok(()),
    }
}

/// What OpenBao can say of a whole policy and this server does not do: refused, not forgotten.
const UNENFORCED: [&str; 4] =
    ["expiration", "ttl", "allow_slashes_in_identity_templates", "allow_wildcards_in_identity_templates"];

fn refuse_unenforced(body: &Map<String, Value>) -> Result<(), Fail> {
    let said =
        |name: &&&str| body.get(**name).is_some_and(|value| !value.is_null() && *value != Value::Bool(false));
    match UNENFORCED.iter().find(said) {
        Some(name) => Err(bad(format!("{name:?} of a policy is not supported by this server"))),
        None => Ok(()),
    }
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
