//! Entities and aliases as stored, and the indexes that keep their names unique.
//!
//! Names differ only if they differ in more than case and the spaces around them: whoever is one person to an auth
//! method must not become two here.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_barrier::{Barrier, MountId, Read, Writer};
use coffer_core::policy::PolicyName;
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::group::Group;
use crate::auth::lockout::normal;
use crate::codec;
use crate::error::{Fail, bad};
use crate::mounts::{Class, Mount, MountTable};
use crate::rows;

/// The longest name of an entity or alias.
pub(super) const NAME_BYTES_MAX: usize = 512;

/// Somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entity {
    pub(crate) id: String,
    pub(crate) name: String,
    /// What all his tokens may do besides what they say themselves. Never `root`.
    pub(crate) policies: Vec<PolicyName>,
    pub(crate) metadata: BTreeMap<String, String>,
    /// None of his tokens is good for anything, and none is granted.
    pub(crate) disabled: bool,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    /// At most one for each auth mount.
    pub(crate) aliases: Vec<Alias>,
    /// The groups that it is in; one that is gone may still be named.
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    /// The entities that were merged into it.
    #[serde(default)]
    pub(crate) merged: Vec<String>,
}

/// A name at an auth mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Alias {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) accessor: String,
    /// What the auth method said at the last login.
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) custom_metadata: Option<BTreeMap<String, String>>,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    /// The entities that it was an alias of before they were merged.
    #[serde(default)]
    pub(crate) merged_from: Vec<String>,
}

/// What an auth method says of who logs in.
pub(crate) struct NewAlias {
    pub(crate) name: String,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Where the entity of an alias is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct AliasEntry {
    pub(super) entity: String,
    pub(super) alias: String,
}

/// The hash that stands for a name in the indexes.
pub(super) fn hash(barrier: &Barrier, parts: [&str; 2]) -> Result<String, Fail> {
    let key = barrier.hmac_key("identity")?;
    Ok(hex::encode(key.mac(&[parts[0].as_bytes(), normal(parts[1]).as_bytes()])))
}

/// The key of a name at an auth mount: what it is found by, and says nothing of it.
pub(crate) fn alias_key(barrier: &Barrier, accessor: &str, name: &str) -> Result<String, Fail> {
    hash(barrier, [accessor, name])
}

/// A fresh id.
pub(super) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Whether a text can be an id. What cannot names nothing.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

impl Alias {
    /// A new one.
    pub(super) fn new(accessor: &str, alias: NewAlias, now: Timestamp) -> Self {
        Self {
            id: new_id(),
            name: alias.name,
            accessor: accessor.to_owned(),
            metadata: alias.metadata,
            custom_metadata: None,
            created: now,
            updated: now,
            merged_from: Vec::new(),
        }
    }

    /// As clients see it.
    pub(super) fn show(&self, entity: &str, mounts: &MountTable) -> Value {
        let mount = by_accessor(mounts, &self.accessor);
        let or_null = |map: &BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
        json!({
            "canonical_id": entity,
            "creation_time": self.created.to_rfc3339(),
            "custom_metadata": self.custom_metadata,
            "id": self.id,
            "last_update_time": self.updated.to_rfc3339(),
            "local": false,
            "merged_from_canonical_ids": if self.merged_from.is_empty() { Value::Null } else { json!(self.merged_from) },
            "metadata": or_null(&self.metadata),
            "mount_accessor": self.accessor,
            "mount_path": mount.as_ref().map(|m| m.full_path()).unwrap_or_default(),
            "mount_type": mount.as_ref().map(|m| m.kind.clone()).unwrap_or_default(),
            "name": self.name,
        })
    }
}

/// The auth mount with this accessor.
pub(super) fn by_accessor(mounts: &MountTable, accessor: &str) -> Option<Arc<Mount>> {
    mounts.all(Class::Auth).into_iter().find(|mount| mount.accessor == accessor)
}

impl Entity {
    /// A new one, with a name of its own making if none is given.
    pub(super) fn new(name: Option<String>, now: Timestamp) -> Self {
        let id = new_id();
        let name = name.unwrap_or_else(|| format!("entity_{}", &id[..8]));
        Self {
            id,
            name,
            policies: Vec::new(),
            metadata: BTreeMap::new(),
            disabled: false,
            created: now,
            updated: now,
            aliases: Vec::new(),
            groups: Vec::new(),
            merged: Vec::new(),
        }
    }

    /// An entity, or none.
    pub(crate) async fn load(reader: &dyn Read, id: &str) -> Result<Option<Self>, Fail> {
        if !is_id(id) {
            return Ok(None);
        }
        codec::get(reader, &rows::entity(id)).await
    }

    /// The entity of a name.
    pub(super) async fn by_name(
        barrier: &Barrier,
        reader: &dyn Read,
        name: &str,
    ) -> Result<Option<Self>, Fail> {
        let key = rows::entity_name(&hash(barrier, ["name", name])?);
        match codec::get::<String>(reader, &key).await? {
            Some(id) => Self::load(reader, &id).await,
            None => Ok(None),
        }
    }

    /// The entity of a name at an auth mount, and the alias's id.
    pub(super) async fn by_alias(
        barrier: &Barrier,
        reader: &dyn Read,
        accessor: &str,
        name: &str,
    ) -> Result<Option<(Self, String)>, Fail> {
        Self::by_alias_key(reader, &alias_key(barrier, accessor, name)?).await
    }

    async fn by_alias_key(reader: &dyn Read, key: &str) -> Result<Option<(Self, String)>, Fail> {
        let row = rows::alias_name(key);
        let Some(entry) = codec::get::<AliasEntry>(reader, &row).await? else { return Ok(None) };
        Ok(Self::load(reader, &entry.entity).await?.map(|entity| (entity, entry.alias)))
    }

    /// The entity of an alias's [key](alias_key), if there is one.
    pub(crate) async fn of_alias(reader: &dyn Read, key: &str) -> Result<Option<Self>, Fail> {
        Ok(Self::by_alias_key(reader, key).await?.map(|(entity, _)| entity))
    }

    /// The entity of an alias's id.
    pub(super) async fn by_alias_id(reader: &dyn Read, id: &str) -> Result<Option<Self>, Fail> {
        if !is_id(id) {
            return Ok(None);
        }
        match codec::get::<String>(reader, &rows::alias(id)).await? {
            Some(entity) => Self::load(reader, &entity).await,
            None => Ok(None),
        }
    }

    /// Its name at an auth mount.
    pub(super) fn alias_at(&self, accessor: &str) -> Option<&Alias> {
        self.aliases.iter().find(|alias| alias.accessor == accessor)
    }

    /// Within a transaction: stores it in the place of `before`, with everything that it and its aliases are found by.
    pub(super) async fn put_in(
        &self,
        barrier: &Barrier,
        writer: &mut Writer,
        before: Option<&Self>,
    ) -> Result<(), Fail> {
        let name_key = rows::entity_name(&hash(barrier, ["name", &self.name])?);
        if before.is_none_or(|b| normal(&b.name) != normal(&self.name)) {
            if let Some(before) = before {
                writer.delete(&rows::entity_name(&hash(barrier, ["name", &before.name])?)).await?;
            }
            if writer.exists(&name_key).await? {
                return Err(bad("entity name is already in use"));
            }
            codec::put(writer, &name_key, &self.id).await?;
        }
        for gone in before.iter().flat_map(|b| &b.aliases) {
            let stays = |alias: &Alias| alias.id == gone.id && alias.name == gone.name;
            if !self.aliases.iter().any(stays) {
                remove_alias_in(barrier, writer, gone).await?;
            }
        }
        for alias in &self.aliases {
            let was = |b: &Self| b.aliases.iter().any(|old| old.id == alias.id && old.name == alias.name);
            if !before.is_some_and(was) {
                self.add_alias_in(barrier, writer, alias).await?;
            }
        }
        let groups_before = before.map_or(&[][..], |before| &before.groups);
        for left in groups_before.iter().filter(|id| !self.groups.contains(id)) {
            writer.unlink(MountId::SYSTEM, &rows::group_member_path(left, &self.id)).await?;
        }
        for joined in self.groups.iter().filter(|id| !groups_before.contains(id)) {
            writer.link(MountId::SYSTEM, &rows::group_member_path(joined, &self.id)).await?;
        }
        codec::put(writer, &rows::entity(&self.id), self).await?;
        if before.is_none() {
            writer.link(MountId::SYSTEM, &rows::entity_path(&self.id)).await?;
        }
        Ok(())
    }

    async fn add_alias_in(&self, barrier: &Barrier, writer: &mut Writer, alias: &Alias) -> Result<(), Fail> {
        let key = rows::alias_name(&alias_key(barrier, &alias.accessor, &alias.name)?);
        if writer.exists(&key).await? {
            return Err(bad("alias name is already in use at this mount"));
        }
        codec::put(writer, &key, &AliasEntry { entity: self.id.clone(), alias: alias.id.clone() }).await?;
        codec::put(writer, &rows::alias(&alias.id), &self.id).await?;
        writer.link(MountId::SYSTEM, &rows::alias_path(&alias.id)).await?;
        Ok(())
    }

    /// Within a transaction: removes it and everything it is found by.
    pub(super) async fn delete_in(&self, barrier: &Barrier, writer: &mut Writer) -> Result<(), Fail> {
        writer.delete(&rows::entity_name(&hash(barrier, ["name", &self.name])?)).await?;
        for alias in &self.aliases {
            remove_alias_in(barrier, writer, alias).await?;
        }
        for group in &self.groups {
            writer.unlink(MountId::SYSTEM, &rows::group_member_path(group, &self.id)).await?;
        }
        writer.delete(&rows::entity(&self.id)).await?;
        writer.unlink(MountId::SYSTEM, &rows::entity_path(&self.id)).await?;
        Ok(())
    }

    /// As clients see it. `groups` are all those that it is in, by itself or through others.
    pub(super) fn show(&self, groups: &[Group], mounts: &MountTable) -> Value {
        let (direct, inherited): (Vec<&str>, Vec<&str>) = groups
            .iter()
            .map(|group| group.id.as_str())
            .partition(|id| self.groups.iter().any(|own| own == id));
        let all: Vec<&str> = direct.iter().chain(&inherited).copied().collect();
        let aliases: Vec<Value> = self.aliases.iter().map(|alias| alias.show(&self.id, mounts)).collect();
        json!({
            "aliases": aliases,
            "creation_time": self.created.to_rfc3339(),
            "direct_group_ids": direct,
            "disabled": self.disabled,
            "group_ids": all,
            "id": self.id,
            "inherited_group_ids": inherited,
            "last_update_time": self.updated.to_rfc3339(),
            "merged_entity_ids": if self.merged.is_empty() { Value::Null } else { json!(self.merged) },
            "metadata": if self.metadata.is_empty() { Value::Null } else { json!(self.metadata) },
            "name": self.name,
            "namespace_id": "root",
            "policies": self.policies,
        })
    }
}

async fn remove_alias_in(barrier: &Barrier, writer: &mut Writer, alias: &Alias) -> Result<(), Fail> {
    writer.delete(&rows::alias_name(&alias_key(barrier, &alias.accessor, &alias.name)?)).await?;
    writer.delete(&rows::alias(&alias.id)).await?;
    writer.unlink(MountId::SYSTEM, &rows::alias_path(&alias.id)).await?;
    Ok(())
}

/// Within a login's transaction: the entity of who logs in, made if he was never here. Fails if it is disabled;
/// the commit fails if it is disabled or removed meanwhile. True if an entity that was there is changed by this: its
/// tokens are to be forgotten once it is committed.
pub(crate) async fn ensure_in(
    barrier: &Barrier,
    writer: &mut Writer,
    mount: &Mount,
    alias: &NewAlias,
    now: Timestamp,
) -> Result<(Entity, bool), Fail> {
    let found = Entity::by_alias(barrier, &*writer, &mount.accessor, &alias.name).await?;
    let Some((entity, alias_id)) = found else {
        let mut entity = Entity::new(None, now);
        let alias = NewAlias { name: alias.name.clone(), metadata: alias.metadata.clone() };
        entity.aliases.push(Alias::new(&mount.accessor, alias, now));
        entity.put_in(barrier, writer, None).await?;
        return Ok((entity, false));
    };
    if entity.disabled {
        return Err(Fail::Login("the entity is disabled"));
    }
    writer.guard(&rows::entity(&entity.id))?;
    let known = entity.aliases.iter().any(|a| a.id == alias_id && a.metadata == alias.metadata);
    if known {
        return Ok((entity, false));
    }
    let mut changed = entity.clone();
    for old in changed.aliases.iter_mut().filter(|a| a.id == alias_id) {
        old.metadata.clone_from(&alias.metadata);
        old.updated = now;
    }
    changed.put_in(barrier, writer, Some(&entity)).await?;
    Ok((changed, true))
}
