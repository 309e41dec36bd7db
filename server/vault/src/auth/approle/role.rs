//! `role/<name>`: what an application that logs in has to show, and what its token is like.

use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::{Barrier, Read, RecordKind, RowKey, Writer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::tidy;
use crate::auth::lockout;
use crate::auth::token_params::{OldName, TokenParams};
use crate::cidr::Cidrs;
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::mounts::{Mount, MountTable};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::request::Operation;

/// The old names of token parameters that roles know.
pub(super) const OLD_NAMES: [OldName; 2] = [OldName::Period, OldName::Policies];
/// The longest role id or secret id of somebody's own choice.
pub(super) const ID_BYTES_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 512;

/// A role as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Role {
    /// What its secret ids hang from: a role that comes back under an old name has none of them.
    pub(super) uid: String,
    pub(super) role_id: String,
    pub(super) bind_secret_id: bool,
    pub(super) secret_id_bound_cidrs: Cidrs,
    /// Zero: as often as wanted.
    pub(super) secret_id_num_uses: u64,
    /// Zero: for ever.
    pub(super) secret_id_ttl: Duration,
    pub(super) local_secret_ids: bool,
    #[serde(flatten)]
    pub(super) token: TokenParams,
}

/// From a role id to its role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RoleIdEntry {
    name: String,
}

/// Checks and lower-cases a role's name.
pub(super) fn name(text: &str) -> Result<String, Fail> {
    if crate::auth::is_generic_name(text, NAME_BYTES_MAX) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Fail::UnsupportedPath)
    }
}

/// The key that role ids and secret ids are hashed with.
pub(super) fn hash(barrier: &Barrier, what: &str, mount: &Mount, parts: [&str; 2]) -> Result<String, Fail> {
    let key = barrier.hmac_key("approle")?;
    let mac = key.mac(&[what.as_bytes(), mount.id.as_bytes(), parts[0].as_bytes(), parts[1].as_bytes()]);
    Ok(hex::encode(mac))
}

impl Role {
    fn new() -> Self {
        Self {
            uid: uuid::Uuid::new_v4().simple().to_string(),
            role_id: uuid::Uuid::new_v4().to_string(),
            bind_secret_id: true,
            secret_id_bound_cidrs: Cidrs::default(),
            secret_id_num_uses: 0,
            secret_id_ttl: Duration::ZERO,
            local_secret_ids: false,
            token: TokenParams::default(),
        }
    }

    /// The row of a role.
    pub(super) fn key(mount: &Mount, name: &str) -> RowKey {
        RowKey::path(mount.id, RecordKind::Entry, &format!("role/{name}"))
    }

    /// By the form of a role id that names its entity: two roles must not be one entity.
    fn id_key(barrier: &Barrier, mount: &Mount, role_id: &str) -> Result<RowKey, Fail> {
        let hash = hash(barrier, "role-id", mount, [&lockout::normal(role_id), ""])?;
        Ok(RowKey::path(mount.id, RecordKind::Entry, &format!("role-id/{hash}")))
    }

    /// A role, or none.
    pub(super) async fn load(reader: &dyn Read, mount: &Mount, name: &str) -> Result<Option<Self>, Fail> {
        codec::get(reader, &Self::key(mount, name)).await
    }

    /// The role that a role id names, with its name.
    pub(super) async fn by_id(
        barrier: &Barrier,
        reader: &dyn Read,
        mount: &Mount,
        role_id: &str,
    ) -> Result<Option<(String, Self)>, Fail> {
        let key = Self::id_key(barrier, mount, role_id)?;
        let Some(entry) = codec::get::<RoleIdEntry>(reader, &key).await? else {
            // As many questions to the store as for one that there is. No role has this name.
            Self::load(reader, mount, "none/none").await?;
            return Ok(None);
        };
        let role = Self::load(reader, mount, &entry.name).await?;
        Ok(role.filter(|role| role.role_id == role_id).map(|role| (entry.name, role)))
    }

    /// What must hold for every role.
    pub(super) fn check(&self) -> Result<(), Fail> {
        let bound = self.bind_secret_id
            || !self.secret_id_bound_cidrs.is_empty()
            || !self.token.bound_cidrs.is_empty();
        if !bound {
            return Err(bad("at least one constraint should be enabled on the role"));
        }
        if self.role_id.is_empty() || self.role_id.len() > ID_BYTES_MAX {
            return Err(bad("invalid role_id supplied"));
        }
        Ok(())
    }

    /// Within a transaction: stores a role, new or changed, and keeps role ids unique.
    pub(super) async fn put_in(
        &self,
        barrier: &Barrier,
        writer: &mut Writer,
        mount: &Mount,
        name: &str,
        before: Option<&Self>,
    ) -> Result<(), Fail> {
        self.check()?;
        if before.is_none_or(|b| b.role_id != self.role_id) {
            if let Some(before) = before {
                writer.delete(&Self::id_key(barrier, mount, &before.role_id)?).await?;
            }
            let key = Self::id_key(barrier, mount, &self.role_id)?;
            if codec::get::<RoleIdEntry>(&*writer as &dyn Read, &key).await?.is_some() {
                return Err(bad("role_id already in use"));
            }
            codec::put(writer, &key, &RoleIdEntry { name: name.to_owned() }).await?;
        }
        codec::put(writer, &Self::key(mount, name), self).await?;
        writer.link(mount.id, &format!("role/{name}")).await?;
        Ok(())
    }

    /// Takes over what a body says. Gives back what the client should be warned of.
    fn merge(&mut self, body: &Map<String, Value>, new: bool) -> Result<Vec<String>, Fail> {
        if let Some(id) = params::text(body, "role_id")?.filter(|id| !id.is_empty()) {
            id.clone_into(&mut self.role_id);
        }
        if let Some(local) = params::flag(body, "local_secret_ids")? {
            if !new && local != self.local_secret_ids {
                return Err(bad("local_secret_ids can only be modified during role creation"));
            }
            self.local_secret_ids = local;
        }
        self.bind_secret_id = params::flag(body, "bind_secret_id")?.unwrap_or(self.bind_secret_id);
        let cidrs = if body.contains_key("secret_id_bound_cidrs") {
            "secret_id_bound_cidrs"
        } else {
            "bound_cidr_list"
        };
        if let Some(cidrs) = self::cidrs(body, cidrs)? {
            self.secret_id_bound_cidrs = cidrs;
        }
        self.secret_id_num_uses = num_uses(body, "secret_id_num_uses")?.unwrap_or(self.secret_id_num_uses);
        self.secret_id_ttl = params::duration(body, "secret_id_ttl")?.unwrap_or(self.secret_id_ttl);
        self.token.merge(body, &OLD_NAMES)
    }

    fn show(&self) -> Map<String, Value> {
        let mut data = Map::new();
        let bound = &self.secret_id_bound_cidrs;
        let bound = if bound.is_empty() { Value::Null } else { json!(bound.texts()) };
        for (name, value) in [
            ("bind_secret_id", json!(self.bind_secret_id)),
            ("local_secret_ids", json!(self.local_secret_ids)),
            ("secret_id_bound_cidrs", bound),
            ("secret_id_num_uses", json!(self.secret_id_num_uses)),
            ("secret_id_ttl", json!(self.secret_id_ttl.as_secs())),
        ] {
            data.insert(name.to_owned(), value);
        }
        self.token.show_in(&mut data);
        data
    }
}

/// Address blocks out of a body.
pub(super) fn cidrs(body: &Map<String, Value>, name: &str) -> Result<Option<Cidrs>, Fail> {
    let Some(texts) = params::list(body, name)? else { return Ok(None) };
    Cidrs::try_from(texts).map(Some).map_err(|error| bad(format!("failed to validate CIDR blocks: {error}")))
}

/// A number of uses out of a body.
pub(super) fn num_uses(body: &Map<String, Value>, name: &str) -> Result<Option<u64>, Fail> {
    if body.get(name).and_then(Value::as_i64).is_some_and(|n| n < 0) {
        return Err(bad(format!("{name} cannot be negative")));
    }
    params::number(body, name)
}

/// `LIST role`.
pub(super) async fn list(ctx: &Ctx, mount: &Mount) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let reader = ctx.open.barrier.reader().await?;
    Ok(Outcome::list(reader.list(mount.id, "role", after, limit).await?))
}

/// `role/<name>` itself.
pub(super) async fn handle(ctx: &mut Ctx, mount: &Arc<Mount>, name: &str) -> Result<Outcome, Fail> {
    match ctx.request.operation {
        Operation::Read => {
            let reader = ctx.open.barrier.reader().await?;
            let role = Role::load(&reader, mount, name).await?.ok_or(Fail::NotFound)?;
            Ok(Outcome::data(Value::Object(role.show())))
        }
        Operation::Create | Operation::Update => write(ctx, mount, name).await,
        Operation::Delete => delete(ctx, mount, name).await,
        _ => Err(Fail::NoOperation),
    }
}

async fn write(ctx: &Ctx, mount: &Mount, name: &str) -> Result<Outcome, Fail> {
    let barrier = &ctx.open.barrier;
    let written: Result<Vec<String>, Fail> = transact!(barrier, |w| {
        MountTable::guard_in(w, mount).await?;
        let before = Role::load(&*w, mount, name).await?;
        let mut role = before.clone().unwrap_or_else(Role::new);
        let warnings = role.merge(&ctx.request.body, before.is_none())?;
        role.put_in(barrier, w, mount, name, before.as_ref()).await?;
        warnings
    });
    Ok(Outcome::empty().warning(written?))
}

/// The role is gone in one transaction, and with it the use of its secret ids; their rows go after.
async fn delete(ctx: &Ctx, mount: &Mount, name: &str) -> Result<Outcome, Fail> {
    let barrier = &ctx.open.barrier;
    let deleted: Result<bool, Fail> = transact!(barrier, |w| {
        let role = Role::load(&*w, mount, name).await?;
        if let Some(role) = &role {
            w.delete(&Role::key(mount, name)).await?;
            w.delete(&Role::id_key(barrier, mount, &role.role_id)?).await?;
            w.unlink(mount.id, &format!("role/{name}")).await?;
            tidy::bury_in(w, mount, &role.uid, ctx.now).await?;
        }
        role.is_some()
    });
    if deleted? {
        tidy::clear_dead(&ctx.open, mount).await?;
    }
    Ok(Outcome::empty())
}
