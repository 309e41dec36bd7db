//! `data/`, `delete/`, `undelete/`, `destroy/`, `subkeys/`: a secret's versions. Never lists.

use coffer_core::secret::SecretBytes;
use serde_json::{Map, Value, json};
use zeroize::Zeroize;

use super::record::{self, Meta};
use super::{PAYLOAD_BYTES_MAX, effect};
use crate::codec;
use crate::engine::{Effect, EngineReply, EngineRequest};
use crate::input::{self, object};
use crate::{EngineError, ReadView, WriteView};

type Written = Result<(EngineReply, Vec<Effect>), EngineError>;

/// The most version numbers in one request.
const NUMBERS_MAX: usize = 1_000;
/// How deep `subkeys/` goes at most, and patches nest.
const DEPTH_MAX: u64 = 32;

pub(super) async fn read(
    view: &ReadView<'_>,
    req: &EngineRequest<'_>,
    path: &str,
) -> Result<EngineReply, EngineError> {
    shown(view, req, path, "data", |data| data).await
}

/// As a read, with every value replaced by null.
pub(super) async fn subkeys(
    view: &ReadView<'_>,
    req: &EngineRequest<'_>,
    path: &str,
) -> Result<EngineReply, EngineError> {
    let depth: u64 = match req.query.get("depth") {
        Some(text) => text.parse().map_err(|_| EngineError::bad("depth must be a number"))?,
        None => 0,
    };
    let depth = if depth == 0 { DEPTH_MAX } else { depth.min(DEPTH_MAX) };
    shown(view, req, path, "subkeys", |mut data| {
        data.values_mut().for_each(|value| hide(value, depth - 1));
        data
    })
    .await
}

fn hide(value: &mut Value, depth: u64) {
    match value {
        Value::Object(map) if depth > 0 && !map.is_empty() => {
            map.values_mut().for_each(|inner| hide(inner, depth - 1));
        }
        other => {
            scrub(other);
            *other = Value::Null;
        }
    }
}

/// Wipes the texts of a value that is about to be dropped.
fn scrub(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(scrub),
        Value::Object(map) => map.values_mut().for_each(scrub),
        _ => {}
    }
}

/// One version, its data under `name` after `change`; `404` with its metadata when its data is gone.
async fn shown(
    view: &ReadView<'_>,
    req: &EngineRequest<'_>,
    path: &str,
    name: &'static str,
    change: impl FnOnce(Map<String, Value>) -> Map<String, Value> + Send,
) -> Result<EngineReply, EngineError> {
    let Some(meta) = record::load(view, path).await? else { return Ok(EngineReply::NotFound) };
    let asked: u64 = match req.query.get("version") {
        Some(text) => text.parse().map_err(|_| EngineError::bad("version must be a whole number"))?,
        None => 0,
    };
    let number = if asked == 0 { meta.current } else { asked };
    let Some(version) = meta.versions.get(&number) else { return Ok(EngineReply::NotFound) };
    let metadata = Value::Object(meta.version_json(number, version));
    if !version.readable(req.now) {
        let mut reply = object(json!({ "metadata": metadata }));
        reply.insert(name.to_owned(), Value::Null);
        return Ok(EngineReply::NotFoundWith(reply));
    }
    let data = change(load_data(view, path, number).await?);
    let mut reply = Map::new();
    reply.insert(name.to_owned(), Value::Object(data));
    reply.insert("metadata".to_owned(), metadata);
    Ok(EngineReply::Data(reply))
}

async fn load_data(view: &ReadView<'_>, path: &str, number: u64) -> Result<Map<String, Value>, EngineError> {
    let bytes = view.get_version(path, number).await?;
    let bytes = bytes.ok_or(EngineError::Corrupt("kv version without its data"))?;
    codec::decode(&bytes, "kv version")
}

pub(super) async fn write(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    let data = given_data(req)?;
    let payload = encode(data)?;
    let stored = record::load(&view.reading(), path).await?;
    let new = stored.is_none();
    let meta = stored.unwrap_or_else(|| Meta::new(req.now));
    let reply = add(view, req, path, meta, new, &payload).await?;
    Ok((reply, effect("kv-v2/data-write", "data-write", "data", path)))
}

/// A merge patch (RFC 7396) of the newest version.
pub(super) async fn patch(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    let change = given_data(req)?;
    let Some(meta) = record::load(&view.reading(), path).await? else {
        return Ok((EngineReply::NotFound, Vec::new()));
    };
    let Some(version) = meta.versions.get(&meta.current) else {
        return Ok((EngineReply::NotFound, Vec::new()));
    };
    if !version.readable(req.now) {
        let metadata = meta.version_json(meta.current, version);
        let reply = object(json!({ "data": null, "metadata": metadata }));
        return Ok((EngineReply::NotFoundWith(reply), Vec::new()));
    }
    let mut data = load_data(&view.reading(), path, meta.current).await?;
    merge(&mut data, change, DEPTH_MAX)?;
    let payload = encode(&data);
    data.values_mut().for_each(scrub);
    let reply = add(view, req, path, meta, false, &payload?).await?;
    Ok((reply, effect("kv-v2/data-patch", "data-patch", "data", path)))
}

fn merge(
    target: &mut Map<String, Value>,
    change: &Map<String, Value>,
    depth: u64,
) -> Result<(), EngineError> {
    if depth == 0 {
        return Err(EngineError::bad(format!("patch is nested deeper than {DEPTH_MAX}")));
    }
    for (key, value) in change {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(inner) => {
                let slot = target.entry(key.clone()).or_insert(Value::Null);
                if !slot.is_object() {
                    scrub(slot);
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(existing) = slot {
                    merge(existing, inner, depth - 1)?;
                }
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
    Ok(())
}

fn given_data<'a>(req: &EngineRequest<'a>) -> Result<&'a Map<String, Value>, EngineError> {
    match input::field(req.body, "data") {
        None => Err(EngineError::bad("no data provided")),
        Some(Value::Object(data)) => Ok(data),
        Some(_) => Err(EngineError::bad("field \"data\" must be a map")),
    }
}

/// Checks check-and-set, adds the version, drops what is too old.
async fn add(
    view: &mut WriteView<'_>,
    req: &EngineRequest<'_>,
    path: &str,
    mut meta: Meta,
    new: bool,
    payload: &SecretBytes,
) -> Result<EngineReply, EngineError> {
    let config = record::load_config(&view.reading()).await?;
    match cas(req)? {
        None if config.cas_required || meta.settings.cas_required => {
            return Err(EngineError::bad("check-and-set parameter required for this call"));
        }
        Some(cas) if cas != meta.current => {
            return Err(EngineError::bad("check-and-set parameter did not match the current version"));
        }
        _ => {}
    }
    let (number, dropped) = meta.push(&config, req.now);
    for old in dropped {
        view.delete_version(path, old).await?;
    }
    view.put_version(path, number, payload).await?;
    record::store(view, path, &meta, new).await?;
    let version = meta.versions.get(&number).ok_or(EngineError::Corrupt("kv metadata"))?;
    Ok(EngineReply::Data(meta.version_json(number, version)))
}

fn cas(req: &EngineRequest<'_>) -> Result<Option<u64>, EngineError> {
    match input::field(req.body, "options") {
        None => Ok(None),
        Some(Value::Object(options)) => match input::field(options, "cas") {
            None => Ok(None),
            Some(value) => input::whole(value, "cas").map(Some),
        },
        Some(_) => Err(EngineError::bad("field \"options\" must be a map")),
    }
}

fn encode(data: &Map<String, Value>) -> Result<SecretBytes, EngineError> {
    codec::encode(data, "secret payload", PAYLOAD_BYTES_MAX)
}

pub(super) async fn delete_latest(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    let Some(meta) = record::load(&view.reading(), path).await? else {
        return Ok((EngineReply::Empty, Vec::new()));
    };
    let current = meta.current;
    change(view, req, path, meta, &[current], Change::Delete, ("kv-v2/data-delete", "data-delete", "data"))
        .await
}

pub(super) async fn delete(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    change_named(view, req, path, Change::Delete, ("kv-v2/delete", "delete", "delete")).await
}

pub(super) async fn undelete(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    change_named(view, req, path, Change::Undelete, ("kv-v2/undelete", "undelete", "undelete")).await
}

pub(super) async fn destroy(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    change_named(view, req, path, Change::Destroy, ("kv-v2/destroy", "destroy", "destroy")).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Delete,
    Undelete,
    Destroy,
}

/// Event type, operation, and the path's first segment.
type Event = (&'static str, &'static str, &'static str);

async fn change_named(
    view: &mut WriteView<'_>,
    req: &EngineRequest<'_>,
    path: &str,
    what: Change,
    event: Event,
) -> Written {
    let numbers = numbers(req)?;
    match record::load(&view.reading(), path).await? {
        Some(meta) => change(view, req, path, meta, &numbers, what, event).await,
        None => Ok((EngineReply::Empty, Vec::new())),
    }
}

fn numbers(req: &EngineRequest<'_>) -> Result<Vec<u64>, EngineError> {
    let numbers: Vec<u64> = match input::field(req.body, "versions") {
        None => Vec::new(),
        Some(Value::Array(items)) if items.len() > NUMBERS_MAX => {
            return Err(EngineError::bad(format!("more than {NUMBERS_MAX} version numbers")));
        }
        Some(Value::Array(items)) => {
            items.iter().map(|item| input::whole(item, "versions")).collect::<Result<_, _>>()?
        }
        Some(Value::String(text)) if text.split(',').count() > NUMBERS_MAX => {
            return Err(EngineError::bad(format!("more than {NUMBERS_MAX} version numbers")));
        }
        Some(Value::String(text)) => text
            .split(',')
            .map(|part| input::whole(&Value::String(part.trim().to_owned()), "versions"))
            .collect::<Result<_, _>>()?,
        Some(one) => vec![input::whole(one, "versions")?],
    };
    if numbers.is_empty() {
        return Err(EngineError::bad("No version number provided"));
    }
    Ok(numbers)
}

async fn change(
    view: &mut WriteView<'_>,
    req: &EngineRequest<'_>,
    path: &str,
    mut meta: Meta,
    numbers: &[u64],
    what: Change,
    (event_type, operation, area): Event,
) -> Written {
    let mut changed = false;
    for number in numbers {
        let Some(version) = meta.versions.get_mut(number).filter(|version| !version.destroyed) else {
            continue;
        };
        match what {
            Change::Delete if version.readable(req.now) => version.deleted = Some(req.now),
            Change::Undelete if version.deleted.is_some() => version.deleted = None,
            Change::Destroy => {
                version.destroyed = true;
                view.delete_version(path, *number).await?;
            }
            _ => continue,
        }
        changed = true;
    }
    if !changed {
        return Ok((EngineReply::Empty, Vec::new()));
    }
    meta.updated = req.now;
    record::store(view, path, &meta, false).await?;
    Ok((EngineReply::Empty, effect(event_type, operation, area, path)))
}
