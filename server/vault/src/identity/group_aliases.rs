//! `identity/group-alias...`: what auth methods call external groups.

use coffer_barrier::{MountId, Read};
use serde_json::{Map, Value, json};

use super::aliases::checked_name;
use super::entity::{Alias, NewAlias, by_accessor};
use super::group::Group;
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;
use crate::rows;

/// Handles `identity/group-alias/<rest>`.
pub(super) async fn handle(ctx: &Ctx, rest: &str) -> Result<Outcome, Fail> {
    match rest {
        "" => {
            only(&ctx.request, &[Operation::Update])?;
            let id = ctx.text("id")?.filter(|id| !id.is_empty()).map(str::to_owned);
            write(ctx, id.as_deref()).await
        }
        "id" => {
            only(&ctx.request, &[Operation::List])?;
            list(ctx).await
        }
        _ => {
            let id = rest.strip_prefix("id/").ok_or(Fail::UnsupportedPath)?;
            match ctx.request.operation {
                Operation::Read => read(ctx, id).await,
                Operation::Create | Operation::Update => write(ctx, Some(id)).await,
                Operation::Delete => delete(ctx, id).await,
                _ => Err(Fail::NoOperation),
            }
        }
    }
}

async fn read(ctx: &Ctx, id: &str) -> Result<Outcome, Fail> {
    let reader = ctx.open.barrier.reader().await?;
    let group = Group::by_alias_id(&reader, id).await?.ok_or(Fail::NotFound)?;
    let alias = group.alias.as_ref().ok_or(Fail::NotFound)?;
    let mut shown = alias.show(&group.id, &ctx.open.mounts);
    shown["namespace_id"] = "root".into();
    Ok(Outcome::data(shown))
}

async fn list(ctx: &Ctx) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let reader = ctx.open.barrier.reader().await?;
    let ids = reader.list(MountId::SYSTEM, rows::GROUP_ALIAS_DIR, after, limit).await?;
    if ids.is_empty() {
        return Ok(Outcome::not_found());
    }
    let mut info = Map::new();
    for id in &ids {
        let Some(group) = Group::by_alias_id(&reader, id).await? else { continue };
        let Some(alias) = &group.alias else { continue };
        let mut shown = alias.show(&group.id, &ctx.open.mounts);
        if let Value::Object(map) = &mut shown {
            for absent in ["creation_time", "id", "last_update_time", "merged_from_canonical_ids"] {
                map.remove(absent);
            }
        }
        info.insert(id.clone(), shown);
    }
    Ok(Outcome::data(json!({ "keys": ids, "key_info": info })))
}

/// Gives a group an alias, or changes the one that it has.
async fn write(ctx: &Ctx, id: Option<&str>) -> Result<Outcome, Fail> {
    let given = |name| Ok::<_, Fail>(ctx.text(name)?.filter(|text| !text.is_empty()));
    let name = given("name")?.map(checked_name).transpose()?;
    let accessor = given("mount_accessor")?;
    if let Some(accessor) = accessor
        && by_accessor(&ctx.open.mounts, accessor).is_none()
    {
        let shown: String = accessor.chars().take(128).flat_map(char::escape_default).collect();
        return Err(bad(format!("invalid mount accessor \"{shown}\"")));
    }
    let target = given("canonical_id")?;
    let barrier = &ctx.open.barrier;
    let written: Result<(String, String), Fail> = transact!(barrier, |w| {
        let owner = match id {
            Some(id) => {
                Some(Group::by_alias_id(&*w, id).await?.ok_or_else(|| bad("invalid group alias ID"))?)
            }
            None => None,
        };
        let known = owner.as_ref().and_then(|group| group.alias.clone());
        let mut alias = match known {
            Some(mut alias) => {
                if let Some(name) = &name {
                    alias.name.clone_from(name);
                }
                if let Some(accessor) = accessor {
                    accessor.clone_into(&mut alias.accessor);
                }
                alias
            }
            None => {
                let name = name.clone().ok_or_else(|| bad("missing alias name"))?;
                let accessor = accessor.ok_or_else(|| bad("missing mount_accessor"))?;
                Alias::new(accessor, NewAlias { name, metadata: Default::default() }, ctx.now)
            }
        };
        alias.updated = ctx.now;
        let before = match (target, owner.clone()) {
            (Some(target), _) => {
                let group = Group::load(&*w, target).await?;
                Some(group.ok_or_else(|| bad("invalid group ID given in 'canonical_id'"))?)
            }
            (None, owner) => owner,
        };
        if before.as_ref().is_some_and(|group| !group.external) {
            return Err(bad("alias can't be set on an internal group"));
        }
        if let (Some(owner), Some(before)) = (&owner, &before)
            && owner.id != before.id
        {
            let mut without = owner.clone();
            without.alias = None;
            without.put_in(barrier, w, Some(owner)).await?;
        }
        let mut group = before.clone().unwrap_or_else(|| Group::new(None, true, ctx.now));
        let alias_id = alias.id.clone();
        group.alias = Some(alias);
        group.changes += 1;
        group.updated = ctx.now;
        group.put_in(barrier, w, before.as_ref()).await?;
        (alias_id, group.id)
    });
    ctx.open.tokens.forget_all();
    let (id, group) = written?;
    Ok(Outcome::data(json!({ "canonical_id": group, "id": id })))
}

/// Removes an alias. Whoever is in the group stays in it until he logs in at that mount again.
async fn delete(ctx: &Ctx, id: &str) -> Result<Outcome, Fail> {
    let barrier = &ctx.open.barrier;
    let deleted: Result<(), Fail> = transact!(barrier, |w| {
        let Some(group) = Group::by_alias_id(&*w as &dyn Read, id).await? else { return Ok(()) };
        let mut without = group.clone();
        without.alias = None;
        without.changes += 1;
        without.updated = ctx.now;
        without.put_in(barrier, w, Some(&group)).await?;
    });
    deleted?;
    Ok(Outcome::empty())
}
