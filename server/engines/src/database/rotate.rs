//! The engine's own password: replaced without ever being lost.
//!
//! The next password is durable before the database hears of it, and the old one is kept until the next one has
//! logged in. Whatever stops in between leaves both stored, and sessions are opened with whichever works; running
//! it again finishes it. Never shows a password to anybody.

use coffer_barrier::{Barrier, BarrierError, MountId};
use coffer_core::secret::SecretString;
use coffer_core::time::Timestamp;

use super::account;
use super::connection::{self, Connection};
use super::driver::{DialError, bounded, fail};
use super::passwords;
use super::pool::Sessions;
use super::root::RootRotation;
use crate::{EngineError, ReadView, WriteView};

/// How often a transaction is run again after a conflict.
const ATTEMPTS_MAX: u32 = 8;

/// Does it if its time has come, and says whether it did. What fails is due again later.
pub(super) async fn if_due(
    sessions: &Sessions,
    barrier: &Barrier,
    mount: MountId,
    name: &str,
    now: Timestamp,
) -> Result<bool, EngineError> {
    let connection = {
        let reader = barrier.reader().await?;
        load(&ReadView::new(mount, &reader), name).await?
    };
    if connection.root.wake().is_none_or(|wake| wake > now) {
        return Ok(false);
    }
    if !connection.root.in_time(now) {
        change_root(barrier, mount, name, |root| root.missed(now)).await?;
        return Ok(false);
    }
    match rotate(sessions, barrier, mount, name, now).await {
        Ok(()) => Ok(true),
        Err(error) => {
            let why = error.to_string();
            change_root(barrier, mount, name, |root| root.failed(now, &why)).await?;
            Err(error)
        }
    }
}

async fn change_root(
    barrier: &Barrier,
    mount: MountId,
    name: &str,
    how: impl Fn(&mut RootRotation) + Send,
) -> Result<(), EngineError> {
    for _ in 0..ATTEMPTS_MAX {
        let mut writer = barrier.begin().await?;
        let mut view = WriteView::new(mount, &mut writer);
        let mut connection = load(&view.reading(), name).await?;
        how(&mut connection.root);
        connection::store(&mut view, name, &connection).await?;
        match writer.commit().await {
            Ok(_) => return Ok(()),
            Err(BarrierError::Conflict | BarrierError::OutcomeUnknown) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(BarrierError::Conflict.into())
}

/// Replaces the password now.
pub(super) async fn rotate(
    sessions: &Sessions,
    barrier: &Barrier,
    mount: MountId,
    name: &str,
    now: Timestamp,
) -> Result<(), EngineError> {
    let connection = stored_with_pending(barrier, mount, name).await?;
    let target = account::target(name);
    let missing = || fail(&target, false, "the connection was changed during the rotation");
    let pending = connection.pending.as_ref().ok_or_else(missing)?;
    match sessions.dial_to_act(name, &connection, &connection.password).await {
        Ok(mut session) => bounded(&target, session.change_own_password(pending)).await?,
        // An earlier rotation got as far as the database: then the next password is the one that works.
        Err(DialError::Login(_)) => {}
        Err(DialError::Engine(error)) => return Err(error),
    }
    drop(sessions.dial(name, &connection, pending).await?);
    settle(barrier, mount, name, pending, now).await?;
    sessions.forget(mount, name);
    Ok(())
}

/// The connection with a next password that is durable, made here unless there is one.
async fn stored_with_pending(
    barrier: &Barrier,
    mount: MountId,
    name: &str,
) -> Result<Connection, EngineError> {
    for _ in 0..ATTEMPTS_MAX {
        let mut writer = barrier.begin().await?;
        let mut view = WriteView::new(mount, &mut writer);
        let mut connection = load(&view.reading(), name).await?;
        if connection.pending.is_some() {
            return Ok(connection);
        }
        connection.pending = Some(passwords::generate(&view.reading(), &connection.password_policy).await?);
        connection.generation = rand::random();
        connection::store(&mut view, name, &connection).await?;
        match writer.commit().await {
            Ok(_) => return Ok(connection),
            // Unknown: the next round reads back whether it is there.
            Err(BarrierError::Conflict | BarrierError::OutcomeUnknown) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(BarrierError::Conflict.into())
}

/// Makes the next password the current one, if it still is the one that was proven.
async fn settle(
    barrier: &Barrier,
    mount: MountId,
    name: &str,
    proven: &SecretString,
    now: Timestamp,
) -> Result<(), EngineError> {
    for _ in 0..ATTEMPTS_MAX {
        let mut writer = barrier.begin().await?;
        let mut view = WriteView::new(mount, &mut writer);
        let mut connection = load(&view.reading(), name).await?;
        match connection.pending.take() {
            Some(pending) if pending.ct_eq(proven) => connection.password = pending,
            None if connection.password.ct_eq(proven) => return Ok(()),
            _ => {
                let target = account::target(name);
                return Err(fail(&target, false, "the connection was changed during the rotation"));
            }
        }
        connection.root.done(now);
        connection.generation = rand::random();
        connection::store(&mut view, name, &connection).await?;
        match writer.commit().await {
            Ok(_) => return Ok(()),
            Err(BarrierError::Conflict | BarrierError::OutcomeUnknown) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(BarrierError::Conflict.into())
}

async fn load(view: &ReadView<'_>, name: &str) -> Result<Connection, EngineError> {
    connection::load(view, name).await?.ok_or(EngineError::NotFound)
}
