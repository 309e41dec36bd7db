//! `users/<name>`: a user, his password and what his tokens are like.

use std::sync::Arc;

use coffer_barrier::{Read, RecordKind, RowKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::auth::passwords::{self, PasswordHash};
use crate::auth::token_params::{OldName, TokenParams};
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::mounts::{Mount, MountTable};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::request::Operation;

/// The old names of token parameters that users know.
const OLD_NAMES: [OldName; 4] = [OldName::BoundCidrs, OldName::MaxTtl, OldName::Policies, OldName::Ttl];
const NAME_BYTES_MAX: usize = 512;

/// A user as stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) password_hash: PasswordHash,
    #[serde(flatten)]
    pub(super) token: TokenParams,
}

/// Checks and lower-cases a user's name.
pub(super) fn name(text: &str) -> Result<String, Fail> {
    if crate::auth::is_generic_name(text, NAME_BYTES_MAX) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Fail::UnsupportedPath)
    }
}

impl User {
    /// The row of a user.
    pub(super) fn key(mount: &Mount, name: &str) -> RowKey {
        RowKey::path(mount.id, RecordKind::Entry, &format!("users/{name}"))
    }

    /// A user, or none.
    pub(super) async fn load(reader: &dyn Read, mount: &Mount, name: &str) -> Result<Option<Self>, Fail> {
        codec::get(reader, &Self::key(mount, name)).await
    }
}

/// `LIST users`.
pub(super) async fn list(ctx: &Ctx, mount: &Mount) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let reader = ctx.open.barrier.reader().await?;
    Ok(Outcome::list(reader.list(mount.id, "users", after, limit).await?))
}

/// `users/<name>` itself.
pub(super) async fn handle(ctx: &mut Ctx, mount: &Arc<Mount>, name: &str) -> Result<Outcome, Fail> {
    match ctx.request.operation {
        Operation::Read => {
            let reader = ctx.open.barrier.reader().await?;
            let user = User::load(&reader, mount, name).await?.ok_or(Fail::NotFound)?;
            let mut data = Map::new();
            user.token.show_in(&mut data);
            Ok(Outcome::data(Value::Object(data)))
        }
        Operation::Create | Operation::Update => {
            let hash = given_password(ctx).await?;
            write(ctx, mount, name, hash).await
        }
        Operation::Delete => delete(ctx, mount, name).await,
        _ => Err(Fail::NoOperation),
    }
}

/// The hash of the password in the body, or the one given as such; none if there is neither.
async fn given_password(ctx: &Ctx) -> Result<Option<PasswordHash>, Fail> {
    let filled = |name| Ok::<_, Fail>(ctx.text(name)?.filter(|text| !text.is_empty()));
    match (filled("password")?, filled("password_hash")?) {
        (Some(_), Some(_)) => Err(bad("only one of password or password_hash may be provided")),
        (Some(password), None) => {
            ctx.open.passwords.check_queue()?;
            ctx.open.passwords.hash(Zeroizing::new(password.to_owned())).await.map(Some)
        }
        (None, Some(hash)) => passwords::check_hash(hash).map(Some),
        (None, None) => Ok(None),
    }
}

fn no_password() -> Fail {
    bad("must provide either password or password_hash")
}

async fn write(ctx: &Ctx, mount: &Mount, name: &str, hash: Option<PasswordHash>) -> Result<Outcome, Fail> {
    let key = User::key(mount, name);
    let written: Result<Vec<String>, Fail> = transact!(ctx.open.barrier, |w| {
        MountTable::guard_in(w, mount).await?;
        let before = User::load(&*w, mount, name).await?;
        let mut user = match (before, &hash) {
            (Some(user), None) => user,
            (Some(user), Some(hash)) => User { password_hash: hash.clone(), ..user },
            (None, Some(hash)) => User { password_hash: hash.clone(), token: TokenParams::default() },
            (None, None) => return Err(no_password()),
        };
        let warnings = user.token.merge(&ctx.request.body, &OLD_NAMES)?;
        codec::put(w, &key, &user).await?;
        w.link(mount.id, &format!("users/{name}")).await?;
        warnings
    });
    Ok(Outcome::empty().warning(written?))
}

async fn change(
    ctx: &Ctx,
    mount: &Mount,
    name: &str,
    how: impl Fn(&mut User) -> Result<(), Fail> + Sync,
) -> Result<Outcome, Fail> {
    let written: Result<(), Fail> = transact!(ctx.open.barrier, |w| {
        MountTable::guard_in(w, mount).await?;
        let mut user = User::load(&*w, mount, name).await?.ok_or_else(|| bad("username does not exist"))?;
        how(&mut user)?;
        codec::put(w, &User::key(mount, name), &user).await?;
    });
    written?;
    Ok(Outcome::empty())
}

/// `users/<name>/password`.
pub(super) async fn set_password(ctx: &Ctx, mount: &Mount, name: &str) -> Result<Outcome, Fail> {
    let hash = given_password(ctx).await?.ok_or_else(no_password)?;
    change(ctx, mount, name, |user| {
        user.password_hash.clone_from(&hash);
        Ok(())
    })
    .await
}

/// `users/<name>/policies`.
pub(super) async fn set_policies(ctx: &Ctx, mount: &Mount, name: &str) -> Result<Outcome, Fail> {
    let given =
        ctx.request.body.iter().filter(|(name, _)| matches!(name.as_str(), "policies" | "token_policies"));
    let given: Map<String, Value> = given.map(|(name, value)| (name.clone(), value.clone())).collect();
    change(ctx, mount, name, |user| user.token.merge(&given, &OLD_NAMES).map(|_| ())).await
}

async fn delete(ctx: &Ctx, mount: &Mount, name: &str) -> Result<Outcome, Fail> {
    let key = User::key(mount, name);
    let deleted: Result<(), Fail> = transact!(ctx.open.barrier, |w| {
        if w.exists(&key).await? {
            w.delete(&key).await?;
            w.unlink(mount.id, &format!("users/{name}")).await?;
        }
    });
    deleted?;
    Ok(Outcome::empty())
}
