//! Every row the vault itself keeps: its name, and why it exists. Engines and auth methods keep their own
//! rows below their own mounts.
//!
//! Nothing here reads or writes.

use coffer_barrier::{MountId, RecordKind, RowKey};
use coffer_core::policy::PolicyName;
use coffer_core::time::Timestamp;
use coffer_core::token::{Accessor, TokenHash};

use crate::lease::TargetKey;

/// All tokens by the time something is to be done about them: expiry while alive, the end of the tombstone after.
pub(crate) const TOKEN_DUE: &str = "token-due";
/// The accessors of all living tokens, by age, for LIST.
pub(crate) const ACCESSORS: &str = "token-accessors";
/// Revoked tokens whose children and leases are still to be dealt with. Survives a crash in between.
pub(crate) const DYING: &str = "token-dying";
/// All leases that nobody has begun to take back, by the time something is to be done about them.
pub(crate) const LEASE_DUE: &str = "lease-due";
/// The targets that ever had something in their queue.
pub(crate) const LEASE_TARGETS: &str = "lease-targets";
/// Mounts of both classes. The row is the mount itself, so it can be guarded.
pub(crate) const MOUNTS: &str = "mounts";
/// Pod tombstones by the time no JWT of that pod can live any more.
pub(crate) const POD_TOMBSTONES: &str = "pod-tombstones";
/// AppRole secret ids of all mounts by the end of their time.
pub(crate) const SECRET_IDS_DUE: &str = "secret-ids-due";
/// The nodes that anchor an audit log here, by name.
pub(crate) const AUDIT_NODES: &str = "audit-nodes";
/// Further audit devices, by name.
pub(crate) const AUDIT_DEVICES: &str = "audit-devices";
/// The directory below which leases are linked by id, for LIST and revocation by prefix.
pub(crate) const LEASE_DIR: &str = "lease";
/// The directory below which token roles are linked by name.
pub(crate) const TOKEN_ROLE_DIR: &str = "token-role";
/// The directory below which policies are linked by name.
pub(crate) const POLICY_DIR: &str = "policy";

/// The directory below which entities are linked by id.
pub(crate) const ENTITY_DIR: &str = "entity";
/// The directory below which aliases are linked by id.
pub(crate) const ALIAS_DIR: &str = "entity-alias";

fn entry(path: &str) -> RowKey {
    RowKey::path(MountId::SYSTEM, RecordKind::Entry, path)
}

/// What is known of a token. Guarded by whoever acts in its name.
pub(crate) fn token(hash: &TokenHash) -> RowKey {
    entry(&format!("token/{}", hash.to_hex()))
}

/// From accessor to token hash.
pub(crate) fn accessor(accessor: &Accessor) -> RowKey {
    entry(&format!("accessor/{accessor}"))
}

/// In [`ACCESSORS`].
pub(crate) fn accessor_listed(created: Timestamp, hash: &TokenHash) -> RowKey {
    RowKey::ordered(MountId::SYSTEM, ACCESSORS, created.as_millis(), hash.as_bytes())
}

/// In [`TOKEN_DUE`].
pub(crate) fn token_due(due: Timestamp, hash: &TokenHash) -> RowKey {
    RowKey::ordered(MountId::SYSTEM, TOKEN_DUE, due.as_millis(), hash.as_bytes())
}

/// In [`DYING`].
pub(crate) fn dying(since: Timestamp, hash: &TokenHash) -> RowKey {
    RowKey::ordered(MountId::SYSTEM, DYING, since.as_millis(), hash.as_bytes())
}

/// The family of a token's living children.
pub(crate) fn children(parent: &TokenHash) -> String {
    format!("token-children/{}", parent.to_hex())
}

/// One child in it.
pub(crate) fn child(parent: &TokenHash, created: Timestamp, child: &TokenHash) -> RowKey {
    RowKey::ordered(MountId::SYSTEM, &children(parent), created.as_millis(), child.as_bytes())
}

/// Over how many families the tokens of an auth mount are spread: one page of a family has a limit.
pub(crate) const ISSUED_SHARDS: u8 = 16;

/// A family of the living tokens that an auth mount issued.
pub(crate) fn issued_tokens(mount: MountId, shard: u8) -> String {
    format!("mount-tokens/{}/{shard}", mount.to_hex())
}

/// One token in it.
pub(crate) fn issued_token(mount: MountId, created: Timestamp, hash: &TokenHash) -> RowKey {
    let family = issued_tokens(mount, hash.as_bytes()[0] % ISSUED_SHARDS);
    RowKey::ordered(MountId::SYSTEM, &family, created.as_millis(), hash.as_bytes())
}

/// The family of a pod's living tokens.
pub(crate) fn pod_tokens(mount: MountId, uid: &str) -> String {
    format!("pod-tokens/{}/{uid}", mount.to_hex())
}

/// One token in it.
pub(crate) fn pod_token(mount: MountId, uid: &str, created: Timestamp, hash: &TokenHash) -> RowKey {
    RowKey::ordered(MountId::SYSTEM, &pod_tokens(mount, uid), created.as_millis(), hash.as_bytes())
}

/// Says that a pod was revoked. Guarded by every login, also while absent.
pub(crate) fn pod_tombstone(mount: MountId, uid: &str) -> RowKey {
    entry(&format!("pod/{}/{uid}", mount.to_hex()))
}

/// In [`POD_TOMBSTONES`].
pub(crate) fn pod_tombstone_end(mount: MountId, uid: &str, until: Timestamp) -> RowKey {
    let id = format!("{}/{uid}", mount.to_hex());
    RowKey::ordered(MountId::SYSTEM, POD_TOMBSTONES, until.as_millis(), id.as_bytes())
}

/// In [`SECRET_IDS_DUE`]; `hash` is the secret id's.
pub(crate) fn secret_id_due(expires: Timestamp, hash: &str) -> RowKey {
    RowKey::ordered(MountId::SYSTEM, SECRET_IDS_DUE, expires.as_millis(), hash.as_bytes())
}

/// A lease.
pub(crate) fn lease(id: &str) -> RowKey {
    entry(&lease_path(id))
}

/// The path a lease is linked under.
pub(crate) fn lease_path(id: &str) -> String {
    format!("{LEASE_DIR}/{id}")
}

/// In [`LEASE_DUE`].
pub(crate) fn lease_due(due: Timestamp, id: &str) -> RowKey {
    RowKey::ordered(MountId::SYSTEM, LEASE_DUE, due.as_millis(), id.as_bytes())
}

/// In [`LEASE_TARGETS`].
pub(crate) fn lease_target(target: &TargetKey) -> RowKey {
    let id = format!("{}/{}", target.mount.to_hex(), target.name);
    RowKey::ordered(MountId::SYSTEM, LEASE_TARGETS, 0, id.as_bytes())
}

/// The family of leases that are to be taken back at a target, by the time of the next try.
pub(crate) fn lease_queue(target: &TargetKey) -> String {
    format!("lease-queue/{}/{}", target.mount.to_hex(), target.name)
}

/// One lease in it.
pub(crate) fn lease_queued(target: &TargetKey, due: Timestamp, id: &str) -> RowKey {
    RowKey::ordered(MountId::SYSTEM, &lease_queue(target), due.as_millis(), id.as_bytes())
}

/// The lease of an account at one of a mount's targets: its id.
pub(crate) fn lease_account(mount: MountId, account: &str) -> RowKey {
    entry(&format!("lease-account/{}/{account}", mount.to_hex()))
}

/// The family of leases that a token holds and that nobody has begun to revoke.
pub(crate) fn token_leases(hash: &TokenHash) -> String {
    format!("token-leases/{}", hash.to_hex())
}

/// One lease in it.
pub(crate) fn token_lease(hash: &TokenHash, issued: Timestamp, id: &str) -> RowKey {
    RowKey::ordered(MountId::SYSTEM, &token_leases(hash), issued.as_millis(), id.as_bytes())
}

/// A mount, in [`MOUNTS`].
pub(crate) fn mount(created: Timestamp, id: MountId) -> RowKey {
    RowKey::ordered(MountId::SYSTEM, MOUNTS, created.as_millis(), id.as_bytes())
}

/// A token role.
pub(crate) fn token_role(name: &str) -> RowKey {
    entry(&format!("{TOKEN_ROLE_DIR}/{name}"))
}

/// An entity. Guarded by whoever acts in its name.
pub(crate) fn entity(id: &str) -> RowKey {
    entry(&entity_path(id))
}

/// The path an entity is linked under.
pub(crate) fn entity_path(id: &str) -> String {
    format!("{ENTITY_DIR}/{id}")
}

/// From the id of an entity that was merged into another to that.
pub(crate) fn entity_merged(id: &str) -> RowKey {
    entry(&format!("entity-merged/{id}"))
}

/// The directory below which groups are linked by id.
pub(crate) const GROUP_DIR: &str = "group";
/// The directory below which aliases of groups are linked by id.
pub(crate) const GROUP_ALIAS_DIR: &str = "group-alias";

/// A group.
pub(crate) fn group(id: &str) -> RowKey {
    entry(&group_path(id))
}

/// Where it is linked.
pub(crate) fn group_path(id: &str) -> String {
    format!("{GROUP_DIR}/{id}")
}

/// From the hash of a group's name to its id.
pub(crate) fn group_name(hash: &str) -> RowKey {
    entry(&format!("group-name/{hash}"))
}

/// From the id of a group's alias to the group's.
pub(crate) fn group_alias(id: &str) -> RowKey {
    entry(&group_alias_path(id))
}

/// Where it is linked.
pub(crate) fn group_alias_path(id: &str) -> String {
    format!("{GROUP_ALIAS_DIR}/{id}")
}

/// From the hash of a mount's accessor and what a group is called there to group and alias.
pub(crate) fn group_alias_name(hash: &str) -> RowKey {
    entry(&format!("group-alias-name/{hash}"))
}

/// The directory of the entities that are in a group.
pub(crate) fn group_member_dir(group: &str) -> String {
    format!("group-member/{group}")
}

/// Where an entity is linked that is in a group.
pub(crate) fn group_member_path(group: &str, entity: &str) -> String {
    format!("group-member/{group}/{entity}")
}

/// From the hash of an entity's name to its id.
pub(crate) fn entity_name(hash: &str) -> RowKey {
    entry(&format!("entity-name/{hash}"))
}

/// From an alias's id to its entity's.
pub(crate) fn alias(id: &str) -> RowKey {
    entry(&alias_path(id))
}

/// The path an alias is linked under.
pub(crate) fn alias_path(id: &str) -> String {
    format!("{ALIAS_DIR}/{id}")
}

/// From the hash of a mount's accessor and a name there to entity and alias.
pub(crate) fn alias_name(hash: &str) -> RowKey {
    entry(&format!("alias-name/{hash}"))
}

/// The directory below which rate limits are linked by name.
pub(crate) const QUOTA_DIR: &str = "quota";

/// A rate limit.
pub(crate) fn quota(name: &str) -> RowKey {
    entry(&quota_path(name))
}

/// The path a rate limit is linked under.
pub(crate) fn quota_path(name: &str) -> String {
    format!("{QUOTA_DIR}/{name}")
}

/// What holds for all rate limits.
pub(crate) fn quota_settings() -> RowKey {
    RowKey::path(MountId::SYSTEM, RecordKind::Meta, "quota-settings")
}

/// A policy.
pub(crate) fn policy(name: &PolicyName) -> RowKey {
    entry(&policy_path(name))
}

/// The path a policy is linked under.
pub(crate) fn policy_path(name: &PolicyName) -> String {
    format!("{POLICY_DIR}/{name}")
}

/// When keys rotate by themselves.
pub(crate) fn rotate_config() -> RowKey {
    RowKey::path(MountId::SYSTEM, RecordKind::Meta, "rotate-config")
}

/// Which versions of the server have opened this vault.
pub(crate) fn versions() -> RowKey {
    RowKey::path(MountId::SYSTEM, RecordKind::Meta, "versions")
}

/// The epoch of the last process that was unsealed.
pub(crate) fn term() -> RowKey {
    RowKey::path(MountId::SYSTEM, RecordKind::Meta, "term-of-office")
}

/// When this vault last served, and what grace the last outage gave. Also the high-water mark of time.
pub(crate) fn heartbeat() -> RowKey {
    RowKey::path(MountId::SYSTEM, RecordKind::Meta, "heartbeat")
}

/// In [`AUDIT_NODES`].
pub(crate) fn audit_node(node: &str) -> RowKey {
    RowKey::ordered(MountId::SYSTEM, AUDIT_NODES, 0, node.as_bytes())
}

/// In [`AUDIT_DEVICES`].
pub(crate) fn audit_device(name: &str) -> RowKey {
    RowKey::ordered(MountId::SYSTEM, AUDIT_DEVICES, 0, name.as_bytes())
}

/// What covers identifiers in the built-in audit logs of all nodes.
pub(crate) fn audit_salt() -> RowKey {
    RowKey::path(MountId::SYSTEM, RecordKind::Meta, "audit-salt")
}

/// What is anchored of a node's audit log.
pub(crate) fn audit_head(node: &str) -> RowKey {
    RowKey::path(MountId::SYSTEM, RecordKind::Meta, &format!("audit-head/{node}"))
}
