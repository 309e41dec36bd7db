//! `identity/group...`: groups made, looked at, changed and removed through the API.

use std::collections::BTreeMap;

use coffer_barrier::{Barrier, MountId, Read, Writer};
use coffer_core::policy::PolicyName;
use coffer_core::time::Timestamp;
use serde_json::{Map, Value, json};

use super::entity::{Entity, NAME_BYTES_MAX};
use super::group::{self, Group};
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;
use crate::rows;

/// The most members that can be set by one request, and the most groups in a group.
const MEMBERS_MAX: usize = 1000;
/// The most members that are shown.
const SHOWN_MAX: usize = 10_000;

/// How a group is named in a path.
enum Named<'a> {
    Id(&'a str),
    Name(&'a str),
}

/// Handles `identity/group/<rest>`.
pub(super) async fn handle(ctx: &Ctx, rest: &str) -> Result<Outcome, Fail> {
    let named = match rest {
        "" => {
            only(&ctx.request, &[Operation::Update])?;
            let id = ctx.text("id")?.filter(|id| !id.is_empty());
            return write(ctx, id.map(Named::Id)).await;
        }
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
            let group = find(&ctx.open.barrier, &reader, &named).await?.ok_or(Fail::NotFound)?;
            let members = group::members(&reader, &group.id, SHOWN_MAX).await?;
            Ok(Outcome::data(group.show(&members, &ctx.open.mounts)))
        }
        Operation::Create | Operation::Update => write(ctx, Some(named)).await,
        Operation::Delete => delete(ctx, &named).await,
        _ => Err(Fail::NoOperation),
    }
}

async fn find(barrier: &Barrier, reader: &dyn Read, named: &Named<'_>) -> Result<Option<Group>, Fail> {
    match named {
        Named::Id(id) => Group::load(reader, id).await,
        Named::Name(name) => Group::by_name(barrier, reader, name).await,
    }
}

async fn list(ctx: &Ctx, by_name: bool) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let reader = ctx.open.barrier.reader().await?;
    let ids = reader.list(MountId::SYSTEM, rows::GROUP_DIR, after, limit).await?;
    if ids.is_empty() {
        return Ok(Outcome::not_found());
    }
    let (mut names, mut info) = (Vec::with_capacity(ids.len()), Map::new());
    for id in &ids {
        let Some(group) = Group::load(&reader, id).await? else { continue };
        if !by_name {
            let members = group::members(&reader, id, SHOWN_MAX).await?.len();
            let about = json!({
                "name": group.name, "num_member_entities": members, "num_parent_groups": group.parents.len(),
            });
            info.insert(id.clone(), about);
        }
        names.push(group.name);
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
    external: Option<bool>,
    policies: Option<Vec<PolicyName>>,
    metadata: Option<BTreeMap<String, String>>,
    entities: Option<Vec<String>>,
    groups: Option<Vec<String>>,
}

impl Wanted {
    fn of(body: &Map<String, Value>) -> Result<Self, Fail> {
        let policies = params::policies(body, "policies")?.map(|mut names| {
            names.sort();
            names
        });
        // Whatever case it is written in: names are normalised when they are read.
        if policies.iter().flatten().any(PolicyName::is_root) {
            return Err(bad("policies cannot contain root"));
        }
        let external = match params::text(body, "type")?.filter(|text| !text.is_empty()) {
            None => None,
            Some("internal") => Some(false),
            Some("external") => Some(true),
            Some(other) => {
                return Err(bad(format!("invalid group type {:?}", other.escape_default().to_string())));
            }
        };
        let ids = |name: &str| -> Result<Option<Vec<String>>, Fail> {
            let Some(mut list) = params::list(body, name)? else { return Ok(None) };
            list.sort();
            list.dedup();
            if list.len() > MEMBERS_MAX {
                return Err(Fail::TooLarge(format!("{name} has more than {MEMBERS_MAX} entries")));
            }
            Ok(Some(list))
        };
        Ok(Self {
            name: params::text(body, "name")?.filter(|name| !name.is_empty()).map(name).transpose()?,
            external,
            policies,
            metadata: params::pairs(body, "metadata")?,
            entities: ids("member_entity_ids")?,
            groups: ids("member_group_ids")?,
        })
    }
}

/// Checks a name.
fn name(text: &str) -> Result<String, Fail> {
    let odd = |c: char| c.is_control() || c == '/';
    if text.len() > NAME_BYTES_MAX || text.trim() != text || text.chars().any(odd) {
        return Err(bad("invalid group name"));
    }
    Ok(text.to_owned())
}

async fn write(ctx: &Ctx, named: Option<Named<'_>>) -> Result<Outcome, Fail> {
    let wanted = Wanted::of(&ctx.request.body)?;
    if let Some(Named::Name(text)) = &named {
        name(text)?;
    }
    let barrier = &ctx.open.barrier;
    let written: Result<(Group, bool), Fail> =
        transact!(barrier, |w| write_in(barrier, w, named.as_ref(), &wanted, ctx.now).await?);
    // Whoever is in it, or in a group in it, may have more or less now.
    ctx.open.tokens.forget_all();
    let (group, made) = written?;
    Ok(if made { Outcome::data(json!({ "id": group.id, "name": group.name })) } else { Outcome::empty() })
}

async fn write_in(
    barrier: &Barrier,
    writer: &mut Writer,
    named: Option<&Named<'_>>,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<(Group, bool), Fail> {
    let before = match (named, &wanted.name) {
        (Some(named), _) => find(barrier, &*writer, named).await?,
        (None, Some(name)) => Group::by_name(barrier, &*writer, name).await?,
        (None, None) => None,
    };
    if before.is_none() && matches!(named, Some(Named::Id(_))) {
        return Err(bad("invalid group ID"));
    }
    let by_name = match named {
        Some(Named::Name(name)) => Some((*name).to_owned()),
        _ => wanted.name.clone(),
    };
    let made = before.is_none();
    let mut group = match &before {
        Some(group) => group.clone(),
        None => Group::new(by_name, wanted.external.unwrap_or(false), now),
    };
    if wanted.external.is_some_and(|external| external != group.external) {
        return Err(bad("group type cannot be changed"));
    }
    if group.external && wanted.entities.is_some() {
        return Err(bad("member entities can't be set manually for external groups"));
    }
    if group.external && wanted.groups.is_some() {
        return Err(bad("member groups can't be set for external groups"));
    }
    if let (Some(Named::Id(_)), Some(name)) = (named, &wanted.name) {
        group.name.clone_from(name);
    }
    if let Some(policies) = &wanted.policies {
        group.policies.clone_from(policies);
    }
    if let Some(metadata) = &wanted.metadata {
        group.metadata.clone_from(metadata);
    }
    group.changes += 1;
    group.updated = now;
    if let Some(groups) = &wanted.groups {
        set_groups_in(writer, &mut group, groups).await?;
    }
    group.put_in(barrier, writer, before.as_ref()).await?;
    if let Some(entities) = &wanted.entities {
        set_members_in(barrier, writer, &group.id, entities).await?;
    }
    Ok((group, made))
}

/// Makes these the groups that are in a group. None may be the group itself, or one that it is in.
async fn set_groups_in(writer: &mut Writer, group: &mut Group, wanted: &[String]) -> Result<(), Fail> {
    let shown = |id: &str| -> String { id.chars().take(64).flat_map(char::escape_default).collect() };
    let above = group::with_parents(&*writer, &group.parents).await?;
    for id in wanted {
        if *id == group.id {
            return Err(bad(format!("member group ID \"{id}\" is same as the ID of the group")));
        }
        let Some(mut member) = Group::load(&*writer, id).await? else {
            return Err(bad(format!("invalid member group ID \"{}\"", shown(id))));
        };
        if above.iter().any(|parent| parent.id == *id) {
            return Err(bad(format!("cyclic relationship detected for member group ID \"{id}\"")));
        }
        if !member.parents.contains(&group.id) {
            member.parents.push(group.id.clone());
            member.changes += 1;
            codec::put(writer, &rows::group(id), &member).await?;
        }
    }
    for id in group.groups.iter().filter(|id| !wanted.contains(id)) {
        if let Some(mut member) = Group::load(&*writer, id).await? {
            member.parents.retain(|parent| *parent != group.id);
            codec::put(writer, &rows::group(id), &member).await?;
        }
    }
    group.groups = wanted.to_vec();
    Ok(())
}

/// Makes these the entities that are in a group.
async fn set_members_in(
    barrier: &Barrier,
    writer: &mut Writer,
    group: &str,
    wanted: &[String],
) -> Result<(), Fail> {
    let present = group::members(&*writer, group, SHOWN_MAX).await?;
    for id in wanted.iter().filter(|id| !present.contains(id)) {
        let Some(entity) = Entity::load(&*writer, id).await? else {
            let shown: String = id.chars().take(64).flat_map(char::escape_default).collect();
            return Err(bad(format!("invalid entity ID \"{shown}\"")));
        };
        let mut joined = entity.clone();
        joined.groups.push(group.to_owned());
        joined.put_in(barrier, writer, Some(&entity)).await?;
    }
    for id in present.iter().filter(|id| !wanted.contains(id)) {
        leave_in(barrier, writer, group, id).await?;
    }
    Ok(())
}

async fn leave_in(barrier: &Barrier, writer: &mut Writer, group: &str, entity: &str) -> Result<(), Fail> {
    match Entity::load(&*writer, entity).await? {
        Some(entity) => {
            let mut left = entity.clone();
            left.groups.retain(|id| id != group);
            left.put_in(barrier, writer, Some(&entity)).await
        }
        None => Ok(writer.unlink(MountId::SYSTEM, &rows::group_member_path(group, entity)).await?),
    }
}

/// Removes a group. From then on it grants nothing; its members forget it bit by bit.
async fn delete(ctx: &Ctx, named: &Named<'_>) -> Result<Outcome, Fail> {
    let barrier = &ctx.open.barrier;
    let deleted: Result<Option<String>, Fail> = transact!(barrier, |w| {
        match find(barrier, &*w, named).await? {
            Some(group) => {
                group.delete_in(barrier, w).await?;
                Some(group.id)
            }
            None => None,
        }
    });
    ctx.open.tokens.forget_all();
    let Some(id) = deleted? else { return Ok(Outcome::empty()) };
    loop {
        let more: Result<bool, Fail> = transact!(barrier, |w| {
            let some = group::members(&*w as &dyn Read, &id, MEMBERS_MAX / 4).await?;
            for entity in &some {
                leave_in(barrier, w, &id, entity).await?;
            }
            !some.is_empty()
        });
        if !more? {
            return Ok(Outcome::empty());
        }
    }
}

/// `identity/lookup/group`: `204` if there is none.
pub(super) async fn lookup(ctx: &Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Update])?;
    let given = |name| Ok::<_, Fail>(ctx.text(name)?.filter(|text| !text.is_empty()));
    let barrier = &ctx.open.barrier;
    let reader = barrier.reader().await?;
    let found = if let Some(id) = given("id")? {
        Group::load(&reader, id).await?
    } else if let Some(name) = given("name")? {
        Group::by_name(barrier, &reader, name).await?
    } else if let Some(id) = given("alias_id")? {
        Group::by_alias_id(&reader, id).await?
    } else if let (Some(name), Some(accessor)) = (given("alias_name")?, given("alias_mount_accessor")?) {
        Group::by_alias(barrier, &reader, accessor, name).await?
    } else {
        return Err(bad("query parameter not supplied"));
    };
    let Some(group) = found else { return Ok(Outcome::empty()) };
    let members = group::members(&reader, &group.id, SHOWN_MAX).await?;
    Ok(Outcome::data(group.show(&members, &ctx.open.mounts)))
}
