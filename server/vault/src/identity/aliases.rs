//! `identity/entity-alias...`: names at auth mounts, tied to entities by hand.

use coffer_barrier::{Barrier, MountId, Read, Writer};
use coffer_core::time::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use super::entity::{Alias, Entity, NAME_BYTES_MAX, NewAlias, by_accessor};
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;
use crate::rows;

/// Handles `identity/entity-alias/<rest>`.
pub(super) async fn handle(ctx: &Ctx, rest: &str) -> Result<Outcome, Fail> {
    match rest {
        "" => {
            only(&ctx.request, &[Operation::Update])?;
            match ctx.text("id")?.filter(|id| !id.is_empty()) {
                Some(id) => update(ctx, id).await,
                None => write(ctx).await,
            }
        }
        "id" => {
            only(&ctx.request, &[Operation::List])?;
            list(ctx).await
        }
        _ => {
            let id = rest.strip_prefix("id/").ok_or(Fail::UnsupportedPath)?;
            match ctx.request.operation {
                Operation::Read => read(ctx, id).await,
                Operation::Create | Operation::Update => update(ctx, id).await,
                Operation::Delete => delete(ctx, id).await,
                _ => Err(Fail::NoOperation),
            }
        }
    }
}

async fn read(ctx: &Ctx, id: &str) -> Result<Outcome, Fail> {
    let reader = ctx.open.barrier.reader().await?;
    let entity = Entity::by_alias_id(&reader, id).await?.ok_or(Fail::NotFound)?;
    let alias = entity.aliases.iter().find(|alias| alias.id == id).ok_or(Fail::NotFound)?;
    let mut shown = alias.show(&entity.id, &ctx.open.mounts);
    shown["namespace_id"] = "root".into();
    Ok(Outcome::data(shown))
}

async fn list(ctx: &Ctx) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let reader = ctx.open.barrier.reader().await?;
    let ids = reader.list(MountId::SYSTEM, rows::ALIAS_DIR, after, limit).await?;
    if ids.is_empty() {
        return Ok(Outcome::not_found());
    }
    let mut info = Map::new();
    for id in &ids {
        let Some(entity) = Entity::by_alias_id(&reader, id).await? else { continue };
        let Some(alias) = entity.aliases.iter().find(|alias| alias.id == *id) else { continue };
        let mut shown = alias.show(&entity.id, &ctx.open.mounts);
        if let Value::Object(map) = &mut shown {
            for absent in ["creation_time", "id", "last_update_time", "merged_from_canonical_ids"] {
                map.remove(absent);
            }
        }
        info.insert(id.clone(), shown);
    }
    Ok(Outcome::data(json!({ "keys": ids, "key_info": info })))
}

/// What an alias is to be.
struct Wanted {
    name: String,
    accessor: String,
    entity: Option<String>,
    custom_metadata: Option<BTreeMap<String, String>>,
}

fn entity_named(ctx: &Ctx) -> Result<Option<String>, Fail> {
    let canonical = ctx.text("canonical_id")?.filter(|id| !id.is_empty());
    let old = ctx.text("entity_id")?.filter(|id| !id.is_empty());
    Ok(canonical.or(old).map(str::to_owned))
}

/// A name that an alias can have, without the blanks around it.
pub(crate) fn checked_name(name: &str) -> Result<String, Fail> {
    let name = name.trim();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(bad("invalid alias name"));
    }
    Ok(name.to_owned())
}

/// Makes an alias, or moves the one that there is to another entity.
async fn write(ctx: &Ctx) -> Result<Outcome, Fail> {
    let given = |name| Ok::<_, Fail>(ctx.text(name)?.filter(|text| !text.is_empty()));
    let (Some(name), Some(accessor)) = (given("name")?, given("mount_accessor")?) else {
        return Err(bad("'id' or 'mount_accessor' and 'name' must be provided"));
    };
    let known = by_accessor(&ctx.open.mounts, accessor);
    if known.is_none() {
        let shown: String = accessor.chars().take(128).flat_map(char::escape_default).collect();
        return Err(bad(format!("invalid mount accessor \"{shown}\"")));
    }
    let wanted = Wanted {
        name: checked_name(name)?,
        accessor: accessor.to_owned(),
        entity: entity_named(ctx)?,
        custom_metadata: Some(params::pairs(&ctx.request.body, "custom_metadata")?.unwrap_or_default()),
    };
    let barrier = &ctx.open.barrier;
    let written: Result<Placed, Fail> =
        transact!(barrier, |w| place_in(barrier, w, &wanted, ctx.now).await?);
    done(ctx, written)
}

/// Which alias of which entity it became, and whose it was before.
struct Placed {
    alias: String,
    entity: String,
    before: Option<String>,
}

fn done(ctx: &Ctx, written: Result<Placed, Fail>) -> Result<Outcome, Fail> {
    let placed = match written {
        Ok(placed) => placed,
        Err(error) => {
            // It may have been applied, and to whom is not known.
            if matches!(error, Fail::Barrier(_)) {
                ctx.open.tokens.forget_all();
            }
            return Err(error);
        }
    };
    for id in placed.before.iter().chain([&placed.entity]) {
        ctx.open.tokens.forget_entity(id);
    }
    Ok(Outcome::data(json!({ "canonical_id": placed.entity, "id": placed.alias })))
}

async fn place_in(
    barrier: &Barrier,
    writer: &mut Writer,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<Placed, Fail> {
    let found = Entity::by_alias(barrier, &*writer, &wanted.accessor, &wanted.name).await?;
    let mut alias = match &found {
        Some((entity, id)) => {
            let alias = entity.aliases.iter().find(|alias| alias.id == *id);
            alias.cloned().ok_or(Fail::Internal("an alias without its entity"))?
        }
        None => {
            let new = NewAlias { name: wanted.name.clone(), metadata: BTreeMap::new() };
            Alias::new(&wanted.accessor, new, now)
        }
    };
    alias.custom_metadata.clone_from(&wanted.custom_metadata);
    alias.updated = now;
    let owner = found.map(|(entity, _)| entity);
    move_in(barrier, writer, owner, alias, wanted.entity.as_deref(), now).await
}

/// Gives an alias to an entity (none named: the one that has it, or a new one).
async fn move_in(
    barrier: &Barrier,
    writer: &mut Writer,
    owner: Option<Entity>,
    alias: Alias,
    target: Option<&str>,
    now: Timestamp,
) -> Result<Placed, Fail> {
    let before = owner.as_ref().map(|entity| entity.id.clone());
    let id = alias.id.clone();
    if let Some(owner) = owner {
        let mut rest = owner.clone();
        rest.aliases.retain(|other| other.id != alias.id);
        if target.is_none_or(|target| target == owner.id) {
            rest.aliases.push(alias);
            rest.put_in(barrier, writer, Some(&owner)).await?;
            return Ok(Placed { alias: id, entity: owner.id, before });
        }
        rest.put_in(barrier, writer, Some(&owner)).await?;
    }
    let existing = match target {
        Some(target) => {
            Some(Entity::load(&*writer, target).await?.ok_or_else(|| bad("invalid canonical ID"))?)
        }
        None => None,
    };
    let mut entity = existing.clone().unwrap_or_else(|| Entity::new(None, now));
    if entity.alias_at(&alias.accessor).is_some() {
        return Err(bad("Alias already exists for requested entity and mount accessor"));
    }
    entity.aliases.push(alias);
    entity.put_in(barrier, writer, existing.as_ref()).await?;
    Ok(Placed { alias: id, entity: entity.id, before })
}

/// Changes an alias that is named by its id.
async fn update(ctx: &Ctx, id: &str) -> Result<Outcome, Fail> {
    let name = ctx.text("name")?.filter(|name| !name.is_empty()).map(checked_name).transpose()?;
    let custom = params::pairs(&ctx.request.body, "custom_metadata")?;
    let target = entity_named(ctx)?;
    let barrier = &ctx.open.barrier;
    let written: Result<Placed, Fail> = transact!(barrier, |w| {
        let owner = Entity::by_alias_id(&*w, id).await?.ok_or_else(|| bad("invalid alias ID provided"))?;
        let alias = owner.aliases.iter().find(|alias| alias.id == id).cloned();
        let mut alias = alias.ok_or_else(|| bad("invalid alias ID provided"))?;
        if let Some(name) = &name {
            alias.name.clone_from(name);
        }
        // What is not given is taken away, as OpenBao does it.
        alias.custom_metadata.clone_from(&custom);
        alias.updated = ctx.now;
        move_in(barrier, w, Some(owner), alias, target.as_deref(), ctx.now).await?
    });
    done(ctx, written)
}

async fn delete(ctx: &Ctx, id: &str) -> Result<Outcome, Fail> {
    let barrier = &ctx.open.barrier;
    let deleted: Result<Option<String>, Fail> = transact!(barrier, |w| {
        let Some(owner) = Entity::by_alias_id(&*w as &dyn Read, id).await? else { return Ok(None) };
        let mut rest = owner.clone();
        rest.aliases.retain(|alias| alias.id != id);
        rest.put_in(barrier, w, Some(&owner)).await?;
        Some(owner.id)
    });
    match deleted {
        Ok(entity) => entity.iter().for_each(|id| ctx.open.tokens.forget_entity(id)),
        Err(error) => {
            ctx.open.tokens.forget_all();
            return Err(error);
        }
    }
    Ok(Outcome::empty())
}
