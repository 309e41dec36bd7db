//! `identity/entity...`: entities made, looked at, changed and removed through the API.

use coffer_barrier::{MountId, Read};
use coffer_core::policy::PolicyName;
use serde_json::{Map, Value, json};

use super::entity::{Entity, NAME_BYTES_MAX};
use super::{group, merge};
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;
use crate::rows;

/// How an entity is named in a path.
enum Named<'a> {
    Id(&'a str),
    Name(&'a str),
}

/// Handles `identity/entity/<rest>`.
pub(super) async fn handle(ctx: &Ctx, rest: &str) -> Result<Outcome, Fail> {
    let named = match rest {
        "" => {
            only(&ctx.request, &[Operation::Update])?;
            let id = ctx.text("id")?.filter(|id| !id.is_empty());
            return write(ctx, id.map(Named::Id)).await;
        }
        "merge" => return merge::handle(ctx).await,
        "id" | "name" => {
            only(&ctx.request, &[Operation::List])?;
            return list(ctx, rest == "name").await;
        }
        _ => match rest.split_once('/') {
            Some(("id", id)) => Named::Id(id),
            Some(("name", name)) => Named::Name(name),
            _ => return Err(Fail::UnsupportedPath),
        },
    };
    match ctx.request.operation {
        Operation::Read => {
            let reader = ctx.open.barrier.reader().await?;
            let entity = find(ctx, &reader, &named).await?.ok_or(Fail::NotFound)?;
            let groups = group::with_parents(&reader, &entity.groups).await?;
            Ok(Outcome::data(entity.show(&groups, &ctx.open.mounts)))
        }
        Operation::Create | Operation::Update => write(ctx, Some(named)).await,
        Operation::Delete => delete(ctx, &named).await,
        _ => Err(Fail::NoOperation),
    }
}

async fn find(ctx: &Ctx, reader: &dyn Read, named: &Named<'_>) -> Result<Option<Entity>, Fail> {
    match named {
        Named::Id(id) => Entity::load(reader, id).await,
        Named::Name(name) => Entity::by_name(&ctx.open.barrier, reader, name).await,
    }
}

async fn list(ctx: &Ctx, by_name: bool) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let reader = ctx.open.barrier.reader().await?;
    let ids = reader.list(MountId::SYSTEM, rows::ENTITY_DIR, after, limit).await?;
    if ids.is_empty() {
        return Ok(Outcome::not_found());
    }
    let (mut names, mut info) = (Vec::with_capacity(ids.len()), Map::new());
    for id in &ids {
        let Some(entity) = Entity::load(&reader, id).await? else { continue };
        if !by_name {
            let short = |alias: Value| -> Value {
                let wanted = ["id", "mount_accessor", "mount_path", "mount_type", "name"];
                wanted
                    .iter()
                    .map(|key| ((*key).to_owned(), alias[*key].clone()))
                    .collect::<Map<_, _>>()
                    .into()
            };
            let aliases: Vec<Value> =
                entity.aliases.iter().map(|alias| short(alias.show(&entity.id, &ctx.open.mounts))).collect();
            info.insert(id.clone(), json!({ "aliases": aliases, "name": entity.name }));
        }
        names.push(entity.name);
    }
    Ok(Outcome::data(if by_name {
        json!({ "keys": names })
    } else {
        json!({ "keys": ids, "key_info": info })
    }))
}

/// What a body may set.
struct Wanted {
    name: Option<String>,
    policies: Option<Vec<PolicyName>>,
    metadata: Option<std::collections::BTreeMap<String, String>>,
    disabled: Option<bool>,
}

impl Wanted {
    fn of(body: &Map<String, Value>) -> Result<Self, Fail> {
        let policies = params::policies(body, "policies")?.map(|mut names| {
            names.sort();
            names
        });
        if policies.iter().flatten().any(PolicyName::is_root) {
            return Err(bad("policies cannot contain root"));
        }
        Ok(Self {
            name: params::text(body, "name")?.filter(|name| !name.is_empty()).map(name).transpose()?,
            policies,
            metadata: params::pairs(body, "metadata")?,
            disabled: params::flag(body, "disabled")?,
        })
    }

    fn apply(&self, entity: &mut Entity) {
        if let Some(policies) = &self.policies {
            entity.policies.clone_from(policies);
        }
        if let Some(metadata) = &self.metadata {
            entity.metadata.clone_from(metadata);
        }
        entity.disabled = self.disabled.unwrap_or(entity.disabled);
    }
}

/// Checks a name.
fn name(text: &str) -> Result<String, Fail> {
    let odd = |c: char| c.is_control() || c == '/';
    if text.len() > NAME_BYTES_MAX {
        return Err(bad(format!("entity name is longer than {NAME_BYTES_MAX} bytes")));
    }
    if text.trim() != text || text.chars().any(odd) {
        return Err(bad("invalid entity name"));
    }
    Ok(text.to_owned())
}

async fn write(ctx: &Ctx, named: Option<Named<'_>>) -> Result<Outcome, Fail> {
    let wanted = Wanted::of(&ctx.request.body)?;
    let by_name = match &named {
        Some(Named::Name(text)) => Some(name(text)?),
        _ => None,
    };
    let barrier = &ctx.open.barrier;
    let written: Result<(Entity, bool), Fail> = transact!(barrier, |w| {
        let before = match (&named, &wanted.name) {
            (Some(Named::Id(id)), _) => {
                let found = Entity::load(&*w, id).await?;
                Some(found.ok_or_else(|| bad("entity not found from id"))?)
            }
            (Some(Named::Name(name)), _) => Entity::by_name(barrier, &*w, name).await?,
            (None, Some(name)) => Entity::by_name(barrier, &*w, name).await?,
            (None, None) => None,
        };
        let made = before.is_none();
        let mut entity = match &before {
            Some(entity) => entity.clone(),
            None => Entity::new(by_name.clone().or_else(|| wanted.name.clone()), ctx.now),
        };
        // A path that names it is not the place to rename it.
        if let (Some(Named::Id(_)), Some(name)) = (&named, &wanted.name) {
            entity.name.clone_from(name);
        }
        wanted.apply(&mut entity);
        entity.updated = ctx.now;
        entity.put_in(barrier, w, before.as_ref()).await?;
        (entity, made)
    });
    if let Err(Fail::Barrier(_)) = &written {
        // It may have been applied; by its name alone nobody knows to whom.
        match &named {
            Some(Named::Id(id)) => ctx.open.tokens.forget_entity(id),
            _ => ctx.open.tokens.forget_all(),
        }
    }
    let (entity, made) = written?;
    if !made {
        ctx.open.tokens.forget_entity(&entity.id);
        return Ok(Outcome::empty());
    }
    Ok(Outcome::data(json!({ "aliases": null, "id": entity.id, "name": entity.name })))
}

async fn delete(ctx: &Ctx, named: &Named<'_>) -> Result<Outcome, Fail> {
    let barrier = &ctx.open.barrier;
    let id = {
        let reader = barrier.reader().await?;
        find(ctx, &reader, named).await?.map(|entity| entity.id)
    };
    let Some(id) = id else { return Ok(Outcome::empty()) };
    let deleted: Result<(), Fail> = transact!(barrier, |w| {
        if let Some(entity) = Entity::load(&*w, &id).await? {
            entity.delete_in(barrier, w).await?;
        }
    });
    ctx.open.tokens.forget_entity(&id);
    deleted?;
    Ok(Outcome::empty())
}

/// `identity/lookup/entity`: `204` if there is none.
pub(super) async fn lookup(ctx: &Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Update])?;
    let given = |name| Ok::<_, Fail>(ctx.text(name)?.filter(|text| !text.is_empty()));
    let barrier = &ctx.open.barrier;
    let reader = barrier.reader().await?;
    let found = if let Some(id) = given("id")? {
        Entity::load(&reader, id).await?
    } else if let Some(name) = given("name")? {
        Entity::by_name(barrier, &reader, name).await?
    } else if let Some(id) = given("alias_id")? {
        Entity::by_alias_id(&reader, id).await?
    } else if let (Some(name), Some(accessor)) = (given("alias_name")?, given("alias_mount_accessor")?) {
        Entity::by_alias(barrier, &reader, accessor, name).await?.map(|(entity, _)| entity)
    } else {
        return Err(bad("query parameter not supplied"));
    };
    let Some(entity) = found else { return Ok(Outcome::empty()) };
    let groups = group::with_parents(&reader, &entity.groups).await?;
    Ok(Outcome::data(entity.show(&groups, &ctx.open.mounts)))
}
