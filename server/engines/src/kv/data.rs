//! `data/` and `subkeys/`: reading, writing and patching a secret. Never lists, never looks at another secret.

use std::collections::BTreeMap;

use coffer_core::exact::Exact;
use coffer_core::secret::SecretBytes;
use coffer_core::time::Timestamp;
use serde_json::{Map, Value};
use zeroize::Zeroize;

use super::fields::{Fields, int, query_int};
use super::record::{self, Meta};
use super::{PAYLOAD, PAYLOAD_BYTES_MAX, Written, effect};
use crate::codec;
use crate::engine::{Encoded, EngineReply, EngineRequest};
use crate::{EngineError, ReadView, WriteView};

/// How deep `subkeys/` goes at most, and patches nest.
const DEPTH_MAX: u64 = 32;

pub(super) async fn read(
    view: &ReadView<'_>,
    req: &EngineRequest<'_>,
    path: &str,
) -> Result<EngineReply, EngineError> {
    let found = match find(view, req, path).await? {
        Found::Version(found) => found,
        Found::Other(reply) => return Ok(reply.under("data")),
    };
    // The data is stored as JSON and goes out as it is: nothing is parsed, and no copy is left to be wiped.
    let data = load_bytes(view, path, found.number).await?;
    let (head, middle, end) = (r#"{"data":"#, r#","metadata":"#, "}");
    let metadata = Value::Object(found.metadata).to_string();
    let parts = [head.as_bytes(), data.expose(), middle.as_bytes(), metadata.as_bytes(), end.as_bytes()];
    Ok(EngineReply::Encoded(Encoded { json: SecretBytes::concat(&parts), until: found.until }))
}

/// The number of the version a read asks for, 0 for the newest; none if it asks for anything besides.
pub(super) fn asked(query: &BTreeMap<String, String>) -> Option<u64> {
    match (query.len(), query.get("version")) {
        (0, _) => Some(0),
        (1, Some(text)) => text.parse().ok(),
        _ => None,
    }
}

/// As a read, with every value replaced by null.
pub(super) async fn subkeys(
    view: &ReadView<'_>,
    req: &EngineRequest<'_>,
    path: &str,
) -> Result<EngineReply, EngineError> {
    let depth = match query_int(req.query.get("depth"), "depth")? {
        0 => DEPTH_MAX,
        depth => u64::try_from(depth).unwrap_or(1).min(DEPTH_MAX),
    };
    let found = match find(view, req, path).await? {
        Found::Version(found) => found,
        Found::Other(reply) => return Ok(reply.under("subkeys")),
    };
    let data = load_data(view, path, found.number).await?.map(|mut data| {
        data.values_mut().for_each(|value| hide(value, depth - 1));
        data
    });
    let mut reply = Map::new();
    reply.insert("subkeys".to_owned(), data.map_or(Value::Null, Value::Object));
    reply.insert("metadata".to_owned(), Value::Object(found.metadata));
    Ok(EngineReply::Data(reply))
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
pub(super) fn scrub(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(scrub),
        Value::Object(map) => map.values_mut().for_each(scrub),
        _ => {}
    }
}

/// What a path and a number lead to.
enum Found {
    Version(FoundVersion),
    Other(Missing),
}

/// A version that may be read.
struct FoundVersion {
    number: u64,
    metadata: Map<String, Value>,
    /// When it will be deleted by itself.
    until: Option<Timestamp>,
}

/// Nothing at all, or a version whose data is gone.
enum Missing {
    Nothing,
    Version(Map<String, Value>),
}

impl Missing {
    /// `404`, with the version's metadata when there is one.
    fn under(self, name: &str) -> EngineReply {
        match self {
            Self::Nothing => EngineReply::NotFound,
            Self::Version(metadata) => {
                let mut reply = Map::new();
                reply.insert(name.to_owned(), Value::Null);
                reply.insert("metadata".to_owned(), Value::Object(metadata));
                EngineReply::NotFoundWith(reply)
            }
        }
    }
}

async fn find(view: &ReadView<'_>, req: &EngineRequest<'_>, path: &str) -> Result<Found, EngineError> {
    // As in Vault, a number below one asks for the newest.
    let asked = u64::try_from(query_int(req.query.get("version"), "version")?).unwrap_or(0);
    let Some(meta) = record::load(view, path).await? else { return Ok(Found::Other(Missing::Nothing)) };
    let number = if asked == 0 { meta.current } else { asked };
    let Some(version) = meta.versions.get(&number) else { return Ok(Found::Other(Missing::Nothing)) };
    let metadata = meta.version_json(number, version);
    Ok(if version.readable(req.now) {
        Found::Version(FoundVersion { number, metadata, until: version.deleted })
    } else {
        Found::Other(Missing::Version(metadata))
    })
}

/// A version's data; none if null was written.
async fn load_data(
    view: &ReadView<'_>,
    path: &str,
    number: u64,
) -> Result<Option<Map<String, Value>>, EngineError> {
    codec::decode(&load_bytes(view, path, number).await?, "kv version")
}

async fn load_bytes(view: &ReadView<'_>, path: &str, number: u64) -> Result<SecretBytes, EngineError> {
    view.get_version(path, number).await?.ok_or(EngineError::Corrupt("kv version without its data"))
}

pub(super) async fn write(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    let fields = Fields::after_lookup(req.body);
    let given = given_data(&fields)?;
    let payload = match req.exact.and_then(|body| body.get("data")).filter(|_| given.is_some()) {
        Some(exact) => codec::encode_exact(exact, PAYLOAD, PAYLOAD_BYTES_MAX)?,
        None => codec::encode(&given, PAYLOAD, PAYLOAD_BYTES_MAX)?,
    };
    let cas = cas(&fields)?;
    let stored = record::load(&view.reading(), path).await?;
    let new = stored.is_none();
    let meta = stored.unwrap_or_else(|| Meta::new(req.now));
    check_cas(view, req, cas, &meta).await?;
    let reply = add(view, req.now, path, meta, new, &payload).await?;
    Ok((reply, effect("kv-v2/data-write", "data-write", "data", path)))
}

/// The next version, by the engine itself: what the newest one has, with these keys instead. Its number.
pub(super) async fn publish(
    view: &mut WriteView<'_>,
    now: Timestamp,
    path: &str,
    change: &Map<String, Value>,
) -> Result<u64, EngineError> {
    let stored = record::load(&view.reading(), path).await?;
    let new = stored.is_none();
    let meta = stored.unwrap_or_else(|| Meta::new(now));
    let readable = meta.versions.get(&meta.current).is_some_and(|version| version.readable(now));
    let mut data = BTreeMap::new();
    if readable {
        // With the numbers as they are.
        let stored = load_bytes(&view.reading(), path, meta.current).await?;
        if let Exact::Object(members) = codec::decode_exact(&stored, "kv version")? {
            data = members;
        }
    }
    data.extend(change.iter().map(|(key, value)| (key.clone(), Exact::from(value))));
    let number = meta.current + 1;
    let payload = codec::encode_exact(&Exact::Object(data), PAYLOAD, PAYLOAD_BYTES_MAX)?;
    add(view, now, path, meta, new, &payload).await?;
    Ok(number)
}

/// A merge patch (RFC 7396) of the newest version.
pub(super) async fn patch(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    let fields = Fields::of(req.body);
    let change = given_data(&fields)?;
    let cas = cas(&fields)?;
    let Some(meta) = record::load(&view.reading(), path).await? else {
        return Ok((EngineReply::Missing, Vec::new()));
    };
    check_cas(view, req, cas, &meta).await?;
    let Some(version) = meta.versions.get(&meta.current) else {
        return Ok((EngineReply::Missing, Vec::new()));
    };
    if !version.readable(req.now) {
        let metadata = meta.version_json(meta.current, version);
        return Ok((EngineReply::NotFoundWith(metadata), Vec::new()));
    }
    // With the numbers as they are, in what was there as in the change.
    let stored = load_bytes(&view.reading(), path, meta.current).await?;
    let mut data = match codec::decode_exact(&stored, "kv version")? {
        Exact::Object(members) => members,
        _ => BTreeMap::new(),
    };
    if let Some(change) = change {
        let read;
        let change = match req.exact.and_then(|body| body.get("data")) {
            Some(exact) => exact,
            None => {
                read = Exact::from(change);
                &read
            }
        };
        if let Exact::Object(change) = change {
            merge(&mut data, change, DEPTH_MAX)?;
        }
    }
    let payload = codec::encode_exact(&Exact::Object(data), PAYLOAD, PAYLOAD_BYTES_MAX)?;
    let reply = add(view, req.now, path, meta, false, &payload).await?;
    Ok((reply, effect("kv-v2/data-patch", "data-patch", "data", path)))
}

fn merge(
    target: &mut BTreeMap<String, Exact>,
    change: &BTreeMap<String, Exact>,
    depth: u64,
) -> Result<(), EngineError> {
    if depth == 0 {
        return Err(EngineError::bad(format!("patch is nested deeper than {DEPTH_MAX}")));
    }
    for (key, value) in change {
        match value {
            Exact::Null => {
                target.remove(key);
            }
            Exact::Object(inner) => {
                let slot = target.entry(key.clone()).or_insert(Exact::Null);
                if !matches!(slot, Exact::Object(_)) {
                    *slot = Exact::Object(BTreeMap::new());
                }
                if let Exact::Object(existing) = slot {
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

/// The field `data`; null is, as in Vault, no refusal.
fn given_data<'a>(fields: &Fields<'a>) -> Result<Option<&'a Map<String, Value>>, EngineError> {
    fields.map("data")?.ok_or_else(|| EngineError::bad("no data provided"))
}

/// `options.cas`: the number of the version that must be the newest.
fn cas(fields: &Fields<'_>) -> Result<Option<i64>, EngineError> {
    let Some(value) = fields.map("options")?.flatten().and_then(|options| options.get("cas")) else {
        return Ok(None);
    };
    int(value).map(Some).map_err(|_| EngineError::bad("error parsing check-and-set parameter"))
}

/// Zero is for "there must be none": true of a secret without versions, and, other than in Vault, also of one whose
/// newest version is deleted or destroyed, because reading it says that there is none.
async fn check_cas(
    view: &mut WriteView<'_>,
    req: &EngineRequest<'_>,
    cas: Option<i64>,
    meta: &Meta,
) -> Result<(), EngineError> {
    let Some(cas) = cas else {
        let required = record::load_config(&view.reading()).await?.cas_required;
        record::guard_config(view)?;
        if required || meta.settings.cas_required {
            return Err(EngineError::bad("check-and-set parameter required for this call"));
        }
        return Ok(());
    };
    let present = meta.versions.get(&meta.current).is_some_and(|version| version.readable(req.now));
    if u64::try_from(cas) == Ok(meta.current) || (cas == 0 && !present) {
        return Ok(());
    }
    Err(EngineError::bad("check-and-set parameter did not match the current version"))
}

/// Adds the version, drops what is too old.
async fn add(
    view: &mut WriteView<'_>,
    now: Timestamp,
    path: &str,
    mut meta: Meta,
    new: bool,
    payload: &SecretBytes,
) -> Result<EngineReply, EngineError> {
    let config = record::load_config(&view.reading()).await?;
    record::guard_config(view)?;
    let (number, dropped) = meta.push(&config, now);
    for old in dropped {
        view.delete_version(path, old).await?;
    }
    view.put_version(path, number, payload).await?;
    record::store(view, path, &meta, new).await?;
    let version = meta.versions.get(&number).ok_or(EngineError::Corrupt("kv metadata"))?;
    Ok(EngineReply::Data(meta.version_json(number, version)))
}
