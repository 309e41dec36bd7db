//! `login/<name>`: from a name and a password to a token.
//!
//! A name that nobody has costs the same work, counts the same failures and gets the same answers as one that
//! somebody has; but for somebody whose hash was given as such, with a cost of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::user::User;
use crate::auth::grant::{self, Grant, Login};
use crate::auth::lockout;
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::identity::NewAlias;
use crate::mounts::Mount;
use crate::outcome::Outcome;
use crate::pipeline::Ctx;

/// Logs a user in. `name` in lower case.
pub(super) async fn login(ctx: &mut Ctx, mount: &Arc<Mount>, name: &str) -> Result<Outcome, Fail> {
    let password = Zeroizing::new(ctx.filled("password")?.to_owned());
    let open = Arc::clone(&ctx.open);
    let alias = lockout::normal(name);
    let user = {
        open.passwords.check_queue()?;
        let _turn = open.passwords.turn(&alias).await;
        open.lockouts.check(mount, &alias, ctx.now)?;
        let reader = open.barrier.reader().await?;
        let user = User::load(&reader, mount, name).await?;
        drop(reader);
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let right = open.passwords.verify(password, hash).await?;
        match user {
            Some(user) if right => user,
            _ => {
                open.lockouts.failed(mount, &alias, ctx.now);
                return Err(bad("invalid username or password"));
            }
        }
    };
    open.lockouts.clear(mount.id, &alias);
    if !user.token.bound_cidrs.admits(ctx.request.client_ip) {
        return Err(Fail::Login("the user may not log in from this address"));
    }
    let alias = NewAlias { name: name.to_owned(), metadata: BTreeMap::new() };
    let metadata = BTreeMap::from([("username".to_owned(), name.to_owned())]);
    let login = Login { mount, params: &user.token, name, metadata, pod: None, bound_cidrs: None, alias };
    let mut grant = Grant::new(ctx, login).await?;
    let key = User::key(mount, name);
    grant.tie(ctx, mount, &key).await?;
    let made: Result<(), Fail> = transact!(open.barrier, |w| {
        grant::guard_in(w, mount, &key, &user).await?;
        grant.insert_in(ctx, w).await?;
    });
    made?;
    Ok(grant.outcome(ctx))
}
