//! `identity/entity/merge`: several entities become one.
//!
//! The one keeps its own policies, metadata and name; the others' aliases and groups go over to it, and so do their
//! tokens, which find it under the old ids.

use coffer_barrier::{Barrier, Read, Writer};
use coffer_core::time::Timestamp;

use super::entity::{Entity, is_id};
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;
use crate::rows;

/// The most entities of one request.
const FROM_MAX: usize = 100;
/// How often one that was merged may have been merged again.
const HOPS_MAX: usize = 64;

/// Handles `identity/entity/merge`.
pub(super) async fn handle(ctx: &Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Update])?;
    let to = ctx.text("to_entity_id")?.filter(|id| !id.is_empty());
    let to = to.ok_or_else(|| bad("missing entity id to merge to"))?;
    let mut from = params::list(&ctx.request.body, "from_entity_ids")?.unwrap_or_default();
    from.sort();
    from.dedup();
    if from.is_empty() {
        return Err(bad("missing entity ids to merge from"));
    }
    if from.len() > FROM_MAX {
        return Err(Fail::TooLarge(format!("from_entity_ids has more than {FROM_MAX} entries")));
    }
    if from.iter().any(|id| id == to) {
        return Err(bad("to_entity_id should not be present in from_entity_ids"));
    }
    let barrier = &ctx.open.barrier;
    let merged: Result<(), Fail> = transact!(barrier, |w| merge_in(barrier, w, to, &from, ctx.now).await?);
    ctx.open.tokens.forget_all();
    merged?;
    Ok(Outcome::empty())
}

async fn merge_in(
    barrier: &Barrier,
    writer: &mut Writer,
    to: &str,
    from: &[String],
    now: Timestamp,
) -> Result<(), Fail> {
    let before = Entity::load(&*writer, to).await?;
    let before = before.ok_or_else(|| bad("entity id to merge to is invalid"))?;
    let mut one = before.clone();
    for id in from {
        let other = Entity::load(&*writer, id).await?;
        let other = other.ok_or_else(|| bad("entity id to merge from is invalid"))?;
        if other.disabled {
            // Its tokens would come to life again.
            return Err(bad("a disabled entity cannot be merged: enable or delete it"));
        }
        other.delete_in(barrier, writer).await?;
        codec::put(writer, &rows::entity_merged(id), &one.id).await?;
        for mut alias in other.aliases {
            if one.alias_at(&alias.accessor).is_some() {
                return Err(bad(
                    "two of the entities have an alias at the same mount: delete one of them first",
                ));
            }
            alias.merged_from.push(id.clone());
            alias.updated = now;
            one.aliases.push(alias);
        }
        for group in other.groups {
            if !one.groups.contains(&group) {
                one.groups.push(group);
            }
        }
        one.merged.push(id.clone());
        one.merged.extend(other.merged);
    }
    one.updated = now;
    one.put_in(barrier, writer, Some(&before)).await
}

/// The entity of an id that a token carries: that of the id, or what became of it.
pub(crate) async fn load_merged(reader: &dyn Read, id: &str) -> Result<Option<Entity>, Fail> {
    let mut id = id.to_owned();
    for _ in 0..HOPS_MAX {
        if let Some(entity) = Entity::load(reader, &id).await? {
            return Ok(Some(entity));
        }
        if !is_id(&id) {
            return Ok(None);
        }
        match codec::get::<String>(reader, &rows::entity_merged(&id)).await? {
            Some(next) => id = next,
            None => return Ok(None),
        }
    }
    Ok(None)
}
