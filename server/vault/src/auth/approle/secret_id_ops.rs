//! `role/<name>/secret-id...`: secret ids made, listed, looked up and destroyed.

use std::collections::BTreeMap;
use std::time::Duration;

use coffer_barrier::Read;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::role::{self, ID_BYTES_MAX, Role};
use super::secret_id::{AccessorEntry, SecretId, accessor_dir, accessor_key};
use crate::cidr::Cidrs;
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::mounts::{Mount, MountTable};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;

/// The most metadata entries, and the longest key or value.
const METADATA_MAX: usize = 64;
const METADATA_TEXT_MAX: usize = 512;

fn no_role(name: &str) -> String {
    format!("role {name:?} does not exist")
}

async fn role_of(ctx: &Ctx, mount: &Mount, name: &str) -> Result<Role, Fail> {
    let reader = ctx.open.barrier.reader().await?;
    Role::load(&reader, mount, name).await?.ok_or_else(|| Fail::Absent(no_role(name)))
}

/// `LIST role/<name>/secret-id`: accessors.
pub(super) async fn list(ctx: &Ctx, mount: &Mount, name: &str) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let reader = ctx.open.barrier.reader().await?;
    let role = Role::load(&reader, mount, name).await?.ok_or_else(|| bad(no_role(name)))?;
    Ok(Outcome::list(reader.list(mount.id, &accessor_dir(&role.uid), after, limit).await?))
}

/// What a body wants of a secret id, within what the role allows.
struct Wanted {
    ttl: Duration,
    uses: u64,
    metadata: BTreeMap<String, String>,
    cidrs: Cidrs,
    token_cidrs: Cidrs,
}

impl Wanted {
    fn of(role: &Role, body: &Map<String, Value>, ttl_max: Duration) -> Result<Self, Fail> {
        if !role.bind_secret_id {
            return Err(bad("bind_secret_id is not set on the role"));
        }
        let uses = role::num_uses(body, "num_uses")?;
        let limit = role.secret_id_num_uses;
        if limit > 0 && uses.is_some_and(|n| n == 0 || n > limit) {
            return Err(bad("num_uses cannot be higher than the role's secret_id_num_uses"));
        }
        let ttl = params::duration(body, "ttl")?;
        let longest = role.secret_id_ttl;
        if !longest.is_zero() && ttl.is_some_and(|t| t.is_zero() || t > longest) {
            return Err(bad("ttl cannot be longer than the role's secret_id_ttl"));
        }
        Ok(Self {
            ttl: ttl.unwrap_or(longest).min(ttl_max),
            uses: uses.unwrap_or(limit),
            metadata: metadata(body)?,
            cidrs: Self::cidrs(body, "cidr_list", &role.secret_id_bound_cidrs)?,
            token_cidrs: Self::cidrs(body, "token_bound_cidrs", &role.token.bound_cidrs)?,
        })
    }

    fn cidrs(body: &Map<String, Value>, name: &str, outer: &Cidrs) -> Result<Cidrs, Fail> {
        let cidrs = role::cidrs(body, name)?.unwrap_or_default();
        if !cidrs.within(outer) {
            return Err(bad(format!(
                "failed to verify subset relationship between CIDR blocks on the role {:?} and CIDR blocks on the \
                 secret ID {:?}",
                outer.texts(),
                cidrs.texts()
            )));
        }
        Ok(cidrs)
    }
}

/// Metadata: JSON text, `key=value` pairs with commas, or an object.
fn metadata(body: &Map<String, Value>) -> Result<BTreeMap<String, String>, Fail> {
    let wrong = || bad("failed to parse metadata: failed to parse the input: invalid <key,value> format");
    let map = match body.get("metadata") {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(BTreeMap::new()),
        Some(Value::Object(_)) => return Ok(params::labels(body, "metadata")?.unwrap_or_default()),
        Some(Value::String(text)) => match serde_json::from_str::<BTreeMap<String, String>>(text) {
            Ok(map) => map,
            Err(_) => text
                .split(',')
                .map(|pair| pair.split_once('=').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned())))
                .collect::<Option<_>>()
                .ok_or_else(wrong)?,
        },
        Some(_) => return Err(wrong()),
    };
    let long = |text: &String| text.len() > METADATA_TEXT_MAX;
    if map.len() > METADATA_MAX || map.iter().any(|(key, value)| key.is_empty() || long(key) || long(value)) {
        return Err(bad(format!(
            "metadata has more than {METADATA_MAX} entries, an empty key, or a text of more than \
             {METADATA_TEXT_MAX} bytes"
        )));
    }
    Ok(map)
}

/// Makes a secret id, or takes one of the caller's choice.
pub(super) async fn generate(
    ctx: &Ctx,
    mount: &Mount,
    name: &str,
    custom: Option<Zeroizing<String>>,
) -> Result<Outcome, Fail> {
    if custom.as_ref().is_some_and(|secret| secret.len() > ID_BYTES_MAX) {
        return Err(Fail::TooLarge(format!("secret_id is longer than {ID_BYTES_MAX} bytes")));
    }
    let secret = custom.unwrap_or_else(|| Zeroizing::new(uuid::Uuid::new_v4().to_string()));
    let (open, now) = (&ctx.open, ctx.now);
    let (_, ttl_max) = open.life(Some(mount), Duration::ZERO, Duration::ZERO);
    let accessor = uuid::Uuid::new_v4().to_string();
    let made: Result<SecretId, Fail> = transact!(open.barrier, |w| {
        MountTable::guard_in(w, mount).await?;
        let role = Role::load(&*w, mount, name).await?.ok_or_else(|| Fail::Absent(no_role(name)))?;
        w.guard(&Role::key(mount, name))?;
        let wanted = Wanted::of(&role, &ctx.request.body, ttl_max)?;
        let entry = SecretId {
            accessor: accessor.clone(),
            created: now,
            updated: now,
            ttl: wanted.ttl,
            expires: (!wanted.ttl.is_zero()).then(|| now.plus(wanted.ttl)),
            uses_left: Some(wanted.uses).filter(|uses| *uses > 0),
            metadata: wanted.metadata,
            cidrs: wanted.cidrs,
            token_cidrs: wanted.token_cidrs,
        };
        let hash = SecretId::hash(&open.barrier, mount, &role.uid, &secret)?;
        entry.insert_in(w, mount, &role.uid, &hash).await?;
        entry
    });
    let entry = made?;
    Ok(Outcome::data(json!({
        "secret_id": secret.as_str(),
        "secret_id_accessor": entry.accessor,
        "secret_id_num_uses": entry.uses_left.unwrap_or(0),
        "secret_id_ttl": entry.ttl.as_secs(),
    })))
}

/// `secret-id/lookup`: `204` for one that does not exist, as Vault has it.
pub(super) async fn lookup(ctx: &Ctx, mount: &Mount, name: &str) -> Result<Outcome, Fail> {
    let secret = ctx.filled("secret_id")?;
    let role = role_of(ctx, mount, name).await?;
    let hash = SecretId::hash(&ctx.open.barrier, mount, &role.uid, secret)?;
    let reader = ctx.open.barrier.reader().await?;
    let found = SecretId::load(&reader, mount, &role.uid, &hash, ctx.now).await?;
    Ok(found.map_or_else(Outcome::empty, |secret| Outcome::data(secret.show())))
}

/// `secret-id/destroy`.
pub(super) async fn destroy(ctx: &Ctx, mount: &Mount, name: &str) -> Result<Outcome, Fail> {
    let secret = ctx.filled_anywhere("secret_id")?;
    let role = role_of(ctx, mount, name).await?;
    let hash = SecretId::hash(&ctx.open.barrier, mount, &role.uid, secret)?;
    remove(ctx, mount, &role.uid, &hash).await?;
    Ok(Outcome::empty())
}

async fn remove(ctx: &Ctx, mount: &Mount, uid: &str, hash: &str) -> Result<(), Fail> {
    transact!(ctx.open.barrier, |w| {
        let found = codec::get::<SecretId>(&*w as &dyn Read, &SecretId::key(mount.id, uid, hash)).await?;
        if let Some(secret) = found {
            secret.remove_in(w, mount.id, uid, hash).await?;
        }
    })
}

fn no_accessor(accessor: &str) -> String {
    let shown: String = accessor.chars().take(128).flat_map(char::escape_default).collect();
    format!("failed to find accessor entry for secret_id_accessor: \"{shown}\"")
}

/// The hash of the secret id that an accessor names. What cannot be one names none.
async fn by_accessor(ctx: &Ctx, mount: &Mount, uid: &str, accessor: &str) -> Result<Option<String>, Fail> {
    if uuid::Uuid::try_parse(accessor).is_err() {
        return Ok(None);
    }
    let reader = ctx.open.barrier.reader().await?;
    let found = codec::get::<AccessorEntry>(&reader, &accessor_key(mount.id, uid, accessor)).await?;
    Ok(found.map(|entry| entry.hash))
}

/// `secret-id-accessor/lookup`.
pub(super) async fn lookup_accessor(ctx: &Ctx, mount: &Mount, name: &str) -> Result<Outcome, Fail> {
    let accessor = ctx.filled("secret_id_accessor")?;
    let role = role_of(ctx, mount, name).await?;
    let reader = ctx.open.barrier.reader().await?;
    let found = match by_accessor(ctx, mount, &role.uid, accessor).await? {
        Some(hash) => SecretId::load(&reader, mount, &role.uid, &hash, ctx.now).await?,
        None => None,
    };
    Ok(match found {
        Some(secret) => Outcome::data(secret.show()),
        None => Outcome { status: 404, ..Outcome::data(json!({ "error": no_accessor(accessor) })) },
    })
}

/// `secret-id-accessor/destroy`.
pub(super) async fn destroy_accessor(ctx: &Ctx, mount: &Mount, name: &str) -> Result<Outcome, Fail> {
    let accessor = ctx.filled_anywhere("secret_id_accessor")?;
    let role = role_of(ctx, mount, name).await?;
    let hash = by_accessor(ctx, mount, &role.uid, accessor).await?;
    let hash = hash.ok_or_else(|| Fail::Absent(no_accessor(accessor)))?;
    remove(ctx, mount, &role.uid, &hash).await?;
    Ok(Outcome::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_comes_in_three_shapes() {
        let wanted = BTreeMap::from([("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())]);
        for value in [json!("{\"a\":\"b\",\"c\":\"d\"}"), json!("a=b,c=d"), json!({"a": "b", "c": "d"})] {
            let body = json!({ "metadata": value });
            assert_eq!(metadata(body.as_object().unwrap()).unwrap(), wanted, "{body}");
        }
        for value in [json!("rub"), json!("a=b,rub"), json!(7), json!({"a": 1}), json!("=b")] {
            let body = json!({ "metadata": value });
            assert_eq!(metadata(body.as_object().unwrap()).unwrap_err().status(), 400, "{body}");
        }
    }
}
