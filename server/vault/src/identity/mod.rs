//! Identity: who stands behind logins at different auth mounts, and what he may do wherever he logs in.
//!
//! An entity is somebody; its aliases are his names at the auth mounts. Tokens carry the entity's id, and what the
//! entity is now counts at each use. Groups are not part of this version.

mod aliases;
mod entities;
mod entity;

use std::collections::BTreeMap;

pub(crate) use entity::{Entity, NewAlias, ensure_in};

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
        ("lookup", "entity") => entities::lookup(ctx).await,
        _ => Err(Fail::UnsupportedPath),
    }
}

/// Whether this write only asks something.
pub(crate) fn only_asks(rest: &str) -> bool {
    rest == "lookup/entity"
}

/// The policies that a token has from its entity now.
pub(crate) async fn policies_of(open: &Open, entry: &TokenEntry) -> Result<Vec<PolicyName>, Fail> {
    let Some(id) = &entry.entity else { return Ok(Vec::new()) };
    let reader = open.barrier.reader().await?;
    Ok(Entity::load(&reader, id).await?.map(|entity| entity.policies).unwrap_or_default())
}

/// What `{{...}}` in a policy's paths may refer to, for a token with this metadata and entity.
pub(crate) fn template_values<'a>(
    metadata: impl Iterator<Item = (&'a String, &'a String)>,
    entity: Option<&Entity>,
) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, String> =
        metadata.map(|(key, value)| (format!("auth.metadata.{key}"), value.clone())).collect();
    let Some(entity) = entity else { return values };
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
