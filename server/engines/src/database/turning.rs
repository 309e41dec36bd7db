//! Carries rotations of static roles on, one durable step after the other. Whoever is stopped in between leaves a state
//! from which anybody goes on; the password that is under way is stored before the database hears of it.

use coffer_barrier::{Barrier, BarrierError, MountId};
use coffer_core::rotation::{Busy, Step};
use coffer_core::secret::SecretString;
use coffer_core::time::Timestamp;

use super::account;
use super::connection::{self, Connection, PasswordForm};
use super::driver::{DialError, PasswordChange, about_to_alter, bounded, fail};
use super::effects;
use super::passwords;
use super::pool::Sessions;
use super::readers;
use super::static_role::{self, Kept, StaticRole};
use crate::engine::{Effect, EngineRequest};
use crate::turns::Moment;
use crate::{EngineError, ReadView, WriteView};

/// How often a transaction is run again after a conflict.
const ATTEMPTS_MAX: u32 = 8;
/// More steps than any rotation has.
const STEPS_MAX: u32 = 8;

/// One mount's static roles.
pub(super) struct Turning<'a> {
    pub(super) sessions: &'a Sessions,
    pub(super) barrier: &'a Barrier,
    pub(super) mount: MountId,
    pub(super) clock: Moment,
}

impl Turning<'_> {
    /// Writes the role. A new one has its first password under way at once, unless the caller wants it later. Whether it
    /// is a new one.
    pub(super) async fn put(
        &self,
        name: &str,
        req: &EngineRequest<'_>,
    ) -> Result<(bool, Vec<Effect>), EngineError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut writer = self.barrier.begin().await?;
            let mut view = WriteView::new(self.mount, &mut writer);
            let stored = static_role::load(&view.reading(), name).await?;
            let was = stored.as_ref().map(static_role::stands_at);
            let role = StaticRole::merged(stored, req)?;
            let connection = connection::load(&view.reading(), &role.connection).await?;
            let Some(connection) = connection else {
                return Err(EngineError::bad(format!(
                    "failed to find entry for connection with name: {:?}",
                    role.connection
                )));
            };
            if !connection.allows(name) {
                return Err(EngineError::bad(format!("{name:?} is not an allowed role")));
            }
            static_role::store(&mut view, name, was, &role).await?;
            match writer.commit().await {
                Ok(_) => {
                    let (event_type, operation) = match was {
                        Some(_) => ("database/static-role-update", "static-role-update"),
                        None => ("database/static-role-create", "static-role-create"),
                    };
                    let path = format!("static-roles/{name}");
                    return Ok((was.is_none(), effects::one(event_type, operation, path)));
                }
                Err(BarrierError::Conflict | BarrierError::OutcomeUnknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(BarrierError::Conflict.into())
    }

    /// Takes a role away again whose first password the database has refused. Nobody has been told one.
    pub(super) async fn give_up(&self, name: &str) -> Result<(), EngineError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut writer = self.barrier.begin().await?;
            let mut view = WriteView::new(self.mount, &mut writer);
            match static_role::load(&view.reading(), name).await? {
                Some(role) if role.rotation.version == 0 => static_role::delete(&mut view, name).await?,
                _ => return Ok(()),
            };
            match writer.commit().await {
                Ok(_) => return Ok(()),
                Err(BarrierError::Conflict | BarrierError::OutcomeUnknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(BarrierError::Conflict.into())
    }

    /// Begins a rotation whatever its time. With `force` the last account is shut first even if its grace is not over.
    pub(super) async fn ask(&self, name: &str, force: bool) -> Result<(), EngineError> {
        self.change(name, |role, now| {
            if force && let Some(version) = role.rotation.retiring.as_ref().map(|last| last.version) {
                role.rotation.released(version, now);
            } else if role.rotation.retiring.is_some() {
                return Err(EngineError::bad(Busy::Grace.to_string()));
            }
            role.rotation.hurry(now);
            role.wanted(now);
            Ok(())
        })
        .await
        .map(drop)
    }

    /// Takes all steps that can be taken now. Returns what became visible.
    pub(super) async fn go_on(&self, name: &str) -> Result<Vec<Effect>, EngineError> {
        let mut seen = Vec::new();
        for _ in 0..STEPS_MAX {
            let role = match self.load(name).await {
                Ok(role) => role,
                Err(EngineError::NotFound) if !seen.is_empty() => break,
                Err(error) => return Err(error),
            };
            match role.step(self.clock.now()) {
                Step::Wait(_) => break,
                Step::Intend if !role.in_time(self.clock.now()) => self.miss(name).await?,
                Step::Intend => {
                    let password = self.invent(&role).await?;
                    self.intend(name, &password).await?;
                }
                Step::Apply => seen.extend(self.apply(name, &role).await?),
                Step::Retire => self.retire(name, &role).await?,
            }
        }
        Ok(seen)
    }

    async fn invent(&self, role: &StaticRole) -> Result<SecretString, EngineError> {
        let connection = self.connection(role).await?;
        let policy = role.password_policy.as_deref().unwrap_or(&connection.password_policy);
        let reader = self.barrier.reader().await?;
        passwords::generate(&ReadView::new(self.mount, &reader), policy).await
    }

    async fn intend(&self, name: &str, password: &SecretString) -> Result<(), EngineError> {
        self.change(name, |role, now| {
            let accounts = role.usernames.len();
            // Somebody else was faster: his candidate is as good.
            let _busy = role.rotation.intend(Kept(SecretString::copy_of(password.expose())), accounts, now);
            Ok(())
        })
        .await
        .map(drop)
    }

    /// Sets the candidate at the database, logs in with it, and only then hands it out.
    async fn apply(&self, name: &str, role: &StaticRole) -> Result<Vec<Effect>, EngineError> {
        let Some(candidate) = &role.rotation.candidate else { return Ok(Vec::new()) };
        let version = candidate.version;
        let done = if role.in_time(self.clock.now()) {
            self.set_and_prove(role).await
        } else {
            match self.has_taken(role).await {
                Ok(false) => {
                    self.miss(name).await?;
                    return Ok(Vec::new());
                }
                taken => taken.map(drop),
            }
        };
        if let Err(error) = done {
            self.failed(name, version, &error).await?;
            return Err(error);
        }
        let mut published = false;
        self.change(name, |role, now| {
            published = role.rotation.published(version, now, role.grace());
            role.settle_due();
            Ok(())
        })
        .await?;
        if published {
            self.release(name).await?;
        }
        Ok(if published { effects::rotated(name) } else { Vec::new() })
    }

    async fn set_and_prove(&self, role: &StaticRole) -> Result<(), EngineError> {
        let Some(candidate) = &role.rotation.candidate else { return Ok(()) };
        let connection = self.connection(role).await?;
        let target = account::target(&role.connection);
        let username = role.username(candidate.account)?;
        let password = &candidate.secret.0;
        let mut session = self.sessions.open(self.mount, &role.connection, &connection).await?;
        let change = PasswordChange {
            username,
            password,
            statements: &role.statements,
            plain: connection.form == PasswordForm::Password,
            unlock: role.usernames.len() > 1,
        };
        about_to_alter();
        let done = bounded(&target, session.session()?.set_password(&change)).await;
        session.finish(done)?;
        match self.sessions.lets_in(&role.connection, &connection, username, password).await {
            Ok(()) => Ok(()),
            Err(DialError::Login(error)) => {
                Err(fail(&target, true, format!("the new password of the account does not log in: {error}")))
            }
            Err(DialError::Engine(error)) => Err(error),
        }
    }

    /// If those who read the last version are all gone, nobody needs its grace.
    async fn release(&self, name: &str) -> Result<(), EngineError> {
        let mut writer = self.barrier.begin().await?;
        let mut view = WriteView::new(self.mount, &mut writer);
        readers::release_if_gone(&mut view, name, self.clock.now()).await?;
        match writer.commit().await {
            // Whoever was in between says so himself; if he does not, the grace has its time.
            Ok(_) | Err(BarrierError::Conflict | BarrierError::OutcomeUnknown) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the database knows the candidate, asked when nothing may be changed there any more: then somebody may be
    /// shut out already, and handing it out is the only way back.
    async fn has_taken(&self, role: &StaticRole) -> Result<bool, EngineError> {
        let Some(candidate) = &role.rotation.candidate else { return Ok(false) };
        let connection = self.connection(role).await?;
        let username = role.username(candidate.account)?;
        let asked = self.sessions.lets_in(&role.connection, &connection, username, &candidate.secret.0).await;
        match asked {
            Ok(()) => Ok(true),
            Err(DialError::Login(_)) => Ok(false),
            Err(DialError::Engine(error)) => Err(error),
        }
    }

    /// The window went by.
    async fn miss(&self, name: &str) -> Result<(), EngineError> {
        self.change(name, |role, now| {
            // Unless somebody has asked for it in the meantime.
            if !role.in_time(now) {
                role.missed(now);
            }
            Ok(())
        })
        .await
        .map(drop)
    }

    async fn retire(&self, name: &str, role: &StaticRole) -> Result<(), EngineError> {
        let Some(last) = &role.rotation.retiring else { return Ok(()) };
        let version = last.version;
        let shut = async {
            let connection = self.connection(role).await?;
            let target = account::target(&role.connection);
            let mut session = self.sessions.open(self.mount, &role.connection, &connection).await?;
            let done = bounded(&target, session.session()?.shut(role.username(last.account)?)).await;
            session.finish(done)
        };
        if let Err(error) = shut.await {
            self.failed(name, version, &error).await?;
            return Err(error);
        }
        // Nobody is noted for a version that is not handed out any more, so this comes to an end.
        self.forget_readers(name, version).await?;
        self.change(name, |role, _| {
            role.rotation.retired(version);
            Ok(())
        })
        .await
        .map(drop)
    }

    async fn forget_readers(&self, name: &str, version: u64) -> Result<(), EngineError> {
        let mut failed = 0;
        loop {
            let mut writer = self.barrier.begin().await?;
            let mut view = WriteView::new(self.mount, &mut writer);
            if !readers::forget_some(&mut view, name, version).await? {
                return Ok(());
            }
            match writer.commit().await {
                Ok(_) => {}
                Err(BarrierError::Conflict | BarrierError::OutcomeUnknown) if failed < ATTEMPTS_MAX => {
                    failed += 1
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn failed(&self, name: &str, version: u64, error: &EngineError) -> Result<(), EngineError> {
        let why = error.to_string();
        self.change(name, |role, now| {
            role.rotation.failed(version, now, &why);
            Ok(())
        })
        .await
        .map(drop)
    }

    async fn connection(&self, role: &StaticRole) -> Result<Connection, EngineError> {
        let reader = self.barrier.reader().await?;
        let view = ReadView::new(self.mount, &reader);
        connection::load(&view, &role.connection)
            .await?
            .ok_or_else(|| fail(&account::target(&role.connection), true, "there is no such connection"))
    }

    async fn load(&self, name: &str) -> Result<StaticRole, EngineError> {
        let reader = self.barrier.reader().await?;
        static_role::load(&ReadView::new(self.mount, &reader), name).await?.ok_or(EngineError::NotFound)
    }

    /// Changes the stored role, in a transaction of its own that is run again after a conflict.
    async fn change(
        &self,
        name: &str,
        mut how: impl FnMut(&mut StaticRole, Timestamp) -> Result<(), EngineError> + Send,
    ) -> Result<StaticRole, EngineError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut writer = self.barrier.begin().await?;
            let mut view = WriteView::new(self.mount, &mut writer);
            let role = static_role::load(&view.reading(), name).await?;
            let mut role = role.ok_or(EngineError::NotFound)?;
            let was = static_role::stands_at(&role);
            how(&mut role, self.clock.now())?;
            static_role::store(&mut view, name, Some(was), &role).await?;
            match writer.commit().await {
                Ok(_) => return Ok(role),
                // Unknown: the next round reads back what is there; every change can be made again.
                Err(BarrierError::Conflict | BarrierError::OutcomeUnknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(BarrierError::Conflict.into())
    }
}
