//! Identity: who stands behind logins at different auth mounts, and what he may do wherever he logs in.
//!
//! An entity is somebody; its aliases are his names at the auth mounts. Tokens carry the entity's id, and what the
//! entity is now counts at each use, and so do the groups that it is in.

mod aliases;
mod entities;
mod entity;
mod group;
mod group_aliases;
mod groups;
mod merge;

use std::collections::BTreeMap;

pub(crate) use aliases::checked_name;
pub(crate) use entity::{Entity, NewAlias, alias_key, ensure_in};
pub(crate) use group::{Group, join_in};
pub(crate) use merge::load_merged;

use coffer_barrier::Read;
use coffer_core::policy::PolicyName;

use crate::error::Fail;
use crate::open::Open;
use crate::outcome::Outcome;
use crate::pipeline::Ctx;
use crate::token::TokenEntry;

/// Handles `identity/<rest>`.
pub(crate) async fn handle(ctx: &mut Ctx, rest: &str) -> Result<Outcome, Fail> {
    let rest = rest.trim_end_matches('/').to_owned();
    let (kind, below) = rest.split_once('/').unwrap_or((&rest, ""));
    match (kind, below) {
        ("entity", _) => entities::handle(ctx, below).await,
        ("entity-alias", _) => aliases::handle(ctx, below).await,
        ("group", _) => groups::handle(ctx, below).await,
        ("group-alias", _) => group_aliases::handle(ctx, below).await,
        ("lookup", "entity") => entities::lookup(ctx).await,
        ("lookup", "group") => groups::lookup(ctx).await,
        _ => Err(Fail::UnsupportedPath),
    }
}

/// Whether this write only asks something.
pub(crate) fn only_asks(rest: &str) -> bool {
    matches!(rest, "lookup/entity" | "lookup/group")
}

/// The policies that a token has from its entity and its groups now.
pub(crate) async fn policies_of(open: &Open, entry: &TokenEntry) -> Result<Vec<PolicyName>, Fail> {
    let Some(id) = &entry.entity else { return Ok(Vec::new()) };
    let reader = open.barrier.reader().await?;
    let Some(entity) = load_merged(&reader, id).await? else { return Ok(Vec::new()) };
    let groups = groups_of(&reader, &entity).await?;
    Ok(policies(&entity, &groups))
}

/// Every group that somebody is in, by himself or through other groups.
pub(crate) async fn groups_of(reader: &dyn Read, entity: &Entity) -> Result<Vec<Group>, Fail> {
    group::with_parents(reader, &entity.groups).await
}

/// What somebody may do wherever he logs in, each policy once and sorted. Whatever is written there, never `root`.
pub(crate) fn policies(entity: &Entity, groups: &[Group]) -> Vec<PolicyName> {
    let all = entity.policies.iter().chain(groups.iter().flat_map(|group| &group.policies));
    let mut names: Vec<PolicyName> = all.filter(|name| !name.is_root()).cloned().collect();
    names.sort();
    names.dedup();
    names
}

/// What `{{...}}` in a policy's paths may refer to, for a token with this metadata, entity and groups. A group that its
/// owner is not in has no values.
pub(crate) fn template_values<'a>(
    metadata: impl Iterator<Item = (&'a String, &'a String)>,
    entity: Option<&Entity>,
    groups: &[Group],
) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> =
        metadata.map(|(key, value)| (format!("auth.metadata.{key}"), value.clone())).collect();
    let Some(entity) = entity else { return values };
    for group in groups {
        for at in
            [format!("identity.groups.ids.{}", group.id), format!("identity.groups.names.{}", group.name)]
        {
            values.insert(format!("{at}.id"), group.id.clone());
            values.insert(format!("{at}.name"), group.name.clone());
            for (key, value) in &group.metadata {
                values.insert(format!("{at}.metadata.{key}"), value.clone());
            }
        }
    }
    values.insert("identity.entity.id".into(), entity.id.clone());
    values.insert("identity.entity.name".into(), entity.name.clone());
    for (key, value) in &entity.metadata {
        values.insert(format!("identity.entity.metadata.{key}"), value.clone());
    }
    for alias in &entity.aliases {
        let at = format!("identity.entity.aliases.{}", alias.accessor);
        values.insert(format!("{at}.id"), alias.id.clone());
        values.insert(format!("{at}.name"), alias.name.clone());
        for (key, value) in &alias.metadata {
            values.insert(format!("{at}.metadata.{key}"), value.clone());
        }
        for (key, value) in alias.custom_metadata.iter().flatten() {
            values.insert(format!("{at}.custom_metadata.{key}"), value.clone());
        }
    }
    values
}
