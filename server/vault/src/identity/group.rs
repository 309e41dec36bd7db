//! Groups as stored, what they are found by, and which of them somebody is in.
//!
//! Who is in a group is said by the entity; a directory per group only lists the ids. A group's policies count wherever
//! its members log in, and so do those of every group that it is in.

use std::collections::{BTreeMap, HashSet, VecDeque};

use coffer_barrier::{Barrier, MountId, Read, Writer};
use coffer_core::policy::PolicyName;
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::entity::{Alias, AliasEntry, Entity, hash, is_id, new_id};
use crate::auth::lockout::normal;
use crate::codec;
use crate::error::{Fail, bad};
use crate::mounts::{Mount, MountTable};
use crate::rows;

/// The most groups that somebody is looked for in; those beyond grant nothing.
const GROUPS_OF_ONE_MAX: usize = 1024;
/// How many ids one look into a group's directory gives.
const PAGE: usize = 1000;

/// Several entities, or other groups, that share policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Who is in it is said by an auth method at login, not here.
    pub(crate) external: bool,
    /// Never `root`.
    pub(crate) policies: Vec<PolicyName>,
    pub(crate) metadata: BTreeMap<String, String>,
    /// The groups that are in it.
    pub(crate) groups: Vec<String>,
    /// The groups that it is in.
    pub(crate) parents: Vec<String>,
    /// What an auth method calls it; of external groups only.
    pub(crate) alias: Option<Alias>,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    /// How often it was changed.
    pub(crate) changes: u64,
}

impl Group {
    /// A new one, with a name of its own making if none is given.
    pub(super) fn new(name: Option<String>, external: bool, now: Timestamp) -> Self {
        let id = new_id();
        let name = name.unwrap_or_else(|| format!("group_{}", &id[..8]));
        Self {
            id,
            name,
            external,
            policies: Vec::new(),
            metadata: BTreeMap::new(),
            groups: Vec::new(),
            parents: Vec::new(),
            alias: None,
            created: now,
            updated: now,
            changes: 0,
        }
    }

    /// A group, or none.
    pub(super) async fn load(reader: &dyn Read, id: &str) -> Result<Option<Self>, Fail> {
        if !is_id(id) {
            return Ok(None);
        }
        codec::get(reader, &rows::group(id)).await
    }

    /// The group of a name.
    pub(super) async fn by_name(
        barrier: &Barrier,
        reader: &dyn Read,
        name: &str,
    ) -> Result<Option<Self>, Fail> {
        let key = rows::group_name(&hash(barrier, ["group", name])?);
        match codec::get::<String>(reader, &key).await? {
            Some(id) => Self::load(reader, &id).await,
            None => Ok(None),
        }
    }

    /// The group that an auth mount calls so.
    pub(super) async fn by_alias(
        barrier: &Barrier,
        reader: &dyn Read,
        accessor: &str,
        name: &str,
    ) -> Result<Option<Self>, Fail> {
        let key = rows::group_alias_name(&hash(barrier, [accessor, name])?);
        match codec::get::<AliasEntry>(reader, &key).await? {
            Some(entry) => Self::load(reader, &entry.entity).await,
            None => Ok(None),
        }
    }

    /// The group of an alias's id.
    pub(super) async fn by_alias_id(reader: &dyn Read, id: &str) -> Result<Option<Self>, Fail> {
        if !is_id(id) {
            return Ok(None);
        }
        match codec::get::<String>(reader, &rows::group_alias(id)).await? {
            Some(group) => Self::load(reader, &group).await,
            None => Ok(None),
        }
    }

    /// Within a transaction: stores it in the place of `before`, with everything that it and its alias are found by.
    pub(super) async fn put_in(
        &self,
        barrier: &Barrier,
        writer: &mut Writer,
        before: Option<&Self>,
    ) -> Result<(), Fail> {
        if before.is_none_or(|b| normal(&b.name) != normal(&self.name)) {
            if let Some(before) = before {
                writer.delete(&rows::group_name(&hash(barrier, ["group", &before.name])?)).await?;
            }
            let key = rows::group_name(&hash(barrier, ["group", &self.name])?);
            if writer.exists(&key).await? {
                return Err(bad("group name is already in use"));
            }
            codec::put(writer, &key, &self.id).await?;
        }
        let old = before.and_then(|b| b.alias.as_ref());
        let same = |a: &Alias, b: &Alias| (&a.id, &a.name, &a.accessor) == (&b.id, &b.name, &b.accessor);
        let stays = old.zip(self.alias.as_ref()).is_some_and(|(a, b)| same(a, b));
        if !stays {
            if let Some(old) = old {
                remove_alias_in(barrier, writer, old).await?;
            }
            if let Some(alias) = &self.alias {
                self.add_alias_in(barrier, writer, alias).await?;
            }
        }
        codec::put(writer, &rows::group(&self.id), self).await?;
        if before.is_none() {
            writer.link(MountId::SYSTEM, &rows::group_path(&self.id)).await?;
        }
        Ok(())
    }

    async fn add_alias_in(&self, barrier: &Barrier, writer: &mut Writer, alias: &Alias) -> Result<(), Fail> {
        let key = rows::group_alias_name(&hash(barrier, [&alias.accessor, &alias.name])?);
        if writer.exists(&key).await? {
            return Err(bad("combination of mount and group alias name is already in use"));
        }
        codec::put(writer, &key, &AliasEntry { entity: self.id.clone(), alias: alias.id.clone() }).await?;
        codec::put(writer, &rows::group_alias(&alias.id), &self.id).await?;
        writer.link(MountId::SYSTEM, &rows::group_alias_path(&alias.id)).await?;
        Ok(())
    }

    /// Within a transaction: removes it, everything it is found by, and itself from the groups around it. Entities that
    /// were in it may still name it: that says nothing any more.
    pub(super) async fn delete_in(&self, barrier: &Barrier, writer: &mut Writer) -> Result<(), Fail> {
        for id in self.parents.iter().chain(&self.groups) {
            if let Some(mut other) = Self::load(&*writer, id).await? {
                other.parents.retain(|id| *id != self.id);
                other.groups.retain(|id| *id != self.id);
                codec::put(writer, &rows::group(id), &other).await?;
            }
        }
        writer.delete(&rows::group_name(&hash(barrier, ["group", &self.name])?)).await?;
        if let Some(alias) = &self.alias {
            remove_alias_in(barrier, writer, alias).await?;
        }
        writer.delete(&rows::group(&self.id)).await?;
        writer.unlink(MountId::SYSTEM, &rows::group_path(&self.id)).await?;
        Ok(())
    }

    /// As clients see it.
    pub(super) fn show(&self, members: &[String], mounts: &MountTable) -> Value {
        let or_null = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
        let mut alias = json!({});
        if let Some(found) = &self.alias {
            alias = found.show(&self.id, mounts);
            if let Value::Object(map) = &mut alias {
                map.remove("custom_metadata");
                map.remove("local");
            }
        }
        json!({
            "alias": alias,
            "creation_time": self.created.to_rfc3339(),
            "id": self.id,
            "last_update_time": self.updated.to_rfc3339(),
            "member_entity_ids": or_null(members),
            "member_group_ids": or_null(&self.groups),
            "metadata": if self.metadata.is_empty() { Value::Null } else { json!(self.metadata) },
            "modify_index": self.changes,
            "name": self.name,
            "namespace_id": "root",
            "parent_group_ids": or_null(&self.parents),
            "policies": self.policies,
            "type": self.kind(),
        })
    }

    pub(super) fn kind(&self) -> &'static str {
        if self.external { "external" } else { "internal" }
    }
}

async fn remove_alias_in(barrier: &Barrier, writer: &mut Writer, alias: &Alias) -> Result<(), Fail> {
    writer.delete(&rows::group_alias_name(&hash(barrier, [&alias.accessor, &alias.name])?)).await?;
    writer.delete(&rows::group_alias(&alias.id)).await?;
    writer.unlink(MountId::SYSTEM, &rows::group_alias_path(&alias.id)).await?;
    Ok(())
}

/// The ids of the entities that are in a group, at most `limit` of them.
pub(super) async fn members(reader: &dyn Read, group: &str, limit: usize) -> Result<Vec<String>, Fail> {
    let dir = rows::group_member_dir(group);
    let mut found: Vec<String> = Vec::new();
    while found.len() < limit {
        let after = found.last().cloned();
        let page =
            reader.list(MountId::SYSTEM, &dir, after.as_deref(), PAGE.min(limit - found.len())).await?;
        let last = page.len() < PAGE;
        found.extend(page);
        if last {
            break;
        }
    }
    Ok(found)
}

/// These groups and every group that they are in, each once, those named first.
pub(super) async fn with_parents(reader: &dyn Read, ids: &[String]) -> Result<Vec<Group>, Fail> {
    let mut waiting: VecDeque<String> = ids.iter().cloned().collect();
    let (mut seen, mut found) = (HashSet::new(), Vec::new());
    while let Some(id) = waiting.pop_front() {
        if found.len() >= GROUPS_OF_ONE_MAX {
            break;
        }
        if !seen.insert(id.clone()) {
            continue;
        }
        // One that is gone may still be named.
        if let Some(group) = Group::load(reader, &id).await? {
            waiting.extend(group.parents.iter().cloned());
            found.push(group);
        }
    }
    Ok(found)
}

/// Within a login's transaction: puts the entity into the external groups that the auth method names, and takes it out
/// of those of the same mount that it does not name any more. Gives back the entity, and whether it was changed.
pub(crate) async fn join_in(
    barrier: &Barrier,
    writer: &mut Writer,
    mount: &Mount,
    entity: Entity,
    names: &[String],
) -> Result<(Entity, bool), Fail> {
    let mut wanted = Vec::new();
    for name in names {
        if let Some(group) = Group::by_alias(barrier, &*writer, &mount.accessor, name).await? {
            writer.guard(&rows::group(&group.id))?;
            wanted.push(group.id);
        }
    }
    let mut changed = entity.clone();
    let mut kept = Vec::new();
    for id in &entity.groups {
        let group = Group::load(&*writer, id).await?;
        // One that no method calls anything any more is nobody's to stay in.
        let here = |group: &Group| group.alias.as_ref().is_none_or(|alias| alias.accessor == mount.accessor);
        if group.is_some_and(|group| !group.external || !here(&group)) || wanted.contains(id) {
            kept.push(id.clone());
        }
    }
    for id in wanted {
        if !kept.contains(&id) {
            kept.push(id);
        }
    }
    if kept == entity.groups {
        return Ok((entity, false));
    }
    changed.groups = kept;
    changed.put_in(barrier, writer, Some(&entity)).await?;
    Ok((changed, true))
}
