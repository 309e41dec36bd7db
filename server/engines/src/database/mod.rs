//! The database engine: short-lived accounts at PostgreSQL, MySQL and MariaDB.
//!
//! Issuing is in two steps: a read of `creds/<role>` only invents name and password ([`crate::Issue`]); the
//! account is created after its lease is durable. Ending an account ends its sessions. Never holds a password
//! outside the barrier and the open sessions, and never shows the engine's own.

mod account;
mod connection;
mod driver;
mod effects;
mod fence;
mod fill;
#[cfg(test)]
mod fuzz;
mod mysql;
mod pool;
mod postgres;
mod readers;
mod role;
mod root;
mod rotate;
mod route;
mod signature;
mod static_role;
mod tls;
mod turning;
mod url;
mod username;

use async_trait::async_trait;
use coffer_barrier::{Barrier, MountId};
use coffer_core::failpoint::{self, Step};
use coffer_core::secret::SecretBytes;
use coffer_core::time::Timestamp;
use serde_json::Value;

use self::account::Account;
use self::connection::Connection;
use self::driver::{DialError, bounded, fail};
use self::fence::Term;
use self::pool::{Pooled, Sessions};
use self::role::Role;
use self::route::{Route, route};
use self::signature::Signer;
use self::turning::Turning;
use crate::engine::{Due, Effect, Engine, EngineReply, EngineRequest, Op, Reader};
use crate::turns::{Moment, Turns};
use crate::{EngineError, ReadView, WriteView, input, passwords};

/// How many connections are listed at a time.
const LIST_PAGE: usize = 1000;
const NAME_BYTES_MAX: usize = 512;

/// The database engine.
pub struct DatabaseEngine {
    sessions: Sessions,
    turns: Turns,
}

/// Without a term of office yet.
impl Default for DatabaseEngine {
    fn default() -> Self {
        Self::new("", 0)
    }
}

impl DatabaseEngine {
    /// `vault` tells the vault from others at a database, `epoch` is the first term of office; [`Engine::take_office`]
    /// begins the next one. Databases see both in the names of sessions (`coffer/<vault>/<epoch>/<incarnation>`), so that
    /// a successor finds and ends those of its predecessors.
    pub fn new(vault: &str, epoch: u64) -> Self {
        Self { sessions: Sessions::new(Term::new(vault, epoch)), turns: Turns::default() }
    }

    fn turning<'a>(&'a self, barrier: &'a Barrier, mount: MountId, now: Timestamp) -> Turning<'a> {
        Turning { sessions: &self.sessions, barrier, mount, clock: Moment::at(now) }
    }

    async fn verify_connection(&self, connection: &Connection, name: &str) -> Result<(), EngineError> {
        let target = account::target(name);
        let mut session = match self.sessions.dial(name, connection, &connection.password).await {
            Err(DialError::Login(refusal)) => match &connection.pending {
                Some(pending) => self.sessions.dial(name, connection, pending).await?,
                None => return Err(refusal),
            },
            other => other?,
        };
        bounded(&target, session.prove()).await
    }

    async fn credentials(
        &self,
        view: &ReadView<'_>,
        req: &EngineRequest<'_>,
        name: &str,
    ) -> Result<EngineReply, EngineError> {
        let role = role::load(view, name).await?;
        let role = role.ok_or_else(|| EngineError::bad(format!("unknown role: {name}")))?;
        let connection = connection::load(view, &role.connection).await?.ok_or_else(|| {
            EngineError::bad(format!("failed to find entry for connection with name: {:?}", role.connection))
        })?;
        if !connection.allows(name) {
            return Err(EngineError::bad(format!("{name:?} is not an allowed role")));
        }
        let policy = role.password_policy.as_deref().unwrap_or(&connection.password_policy);
        let password = passwords::generate(view, policy).await?;
        let account =
            Account::generate(name, &role, &connection, req, password, &Signer::of(view, &role.connection))?;
        Ok(EngineReply::Issue(account.issue(&role)?))
    }

    /// A session where the account lives.
    async fn session_of(&self, view: &ReadView<'_>, account: &Account) -> Result<Pooled, EngineError> {
        let connection = Self::connection_of(view, account).await?;
        self.sessions.open(view.mount(), &account.connection, &connection).await
    }

    /// The connection an account lives at, as it is now.
    async fn connection_of(view: &ReadView<'_>, account: &Account) -> Result<Connection, EngineError> {
        connection::load(view, &account.connection).await?.ok_or_else(|| {
            // Somebody may write it again, so the lease is not given up.
            fail(&account::target(&account.connection), true, "there is no such connection")
        })
    }
}

fn check_name(name: &str) -> Result<(), EngineError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(EngineError::bad(format!(
            "a name may have letters, digits, '_', '-' and '.', at most {NAME_BYTES_MAX} of them"
        )));
    }
    Ok(())
}

async fn list(view: &ReadView<'_>, req: &EngineRequest<'_>, dir: &str) -> Result<EngineReply, EngineError> {
    let (after, limit) = input::page(req.query)?;
    let names = view.list(dir, after, limit).await?;
    Ok(if names.is_empty() { EngineReply::NotFound } else { EngineReply::List(names) })
}

async fn write_config(
    view: &mut WriteView<'_>,
    req: &EngineRequest<'_>,
    name: &str,
) -> Result<(EngineReply, Vec<Effect>), EngineError> {
    check_name(name)?;
    let stored = connection::load(&view.reading(), name).await?;
    let merged = Connection::merged(stored, req)?;
    connection::store(view, name, &merged).await?;
    let warnings = merged.warnings(req)?;
    let reply = match warnings.is_empty() {
        true => EngineReply::Empty,
        false => EngineReply::Warn(Box::new(EngineReply::Empty), warnings),
    };
    Ok((reply, effects::one("database/config-write", "config-write", format!("config/{name}"))))
}

async fn write_role(
    view: &mut WriteView<'_>,
    req: &EngineRequest<'_>,
    name: &str,
) -> Result<(EngineReply, Vec<Effect>), EngineError> {
    check_name(name)?;
    let stored = role::load(&view.reading(), name).await?;
    let (event_type, operation) = match stored {
        Some(_) => ("database/role-update", "role-update"),
        None => ("database/role-create", "role-create"),
    };
    let merged = Role::merged(stored, req)?;
    role::store(view, name, &merged).await?;
    Ok((EngineReply::Empty, effects::one(event_type, operation, format!("roles/{name}"))))
}

/// Makes the next use open new sessions.
async fn reset(view: &mut WriteView<'_>, name: &str) -> Result<(EngineReply, Vec<Effect>), EngineError> {
    let mut connection = connection::load(&view.reading(), name).await?.ok_or(EngineError::NotFound)?;
    connection.generation = rand::random();
    connection::store(view, name, &connection).await?;
    Ok((EngineReply::Empty, effects::one("database/reset", "reset", format!("reset/{name}"))))
}

#[async_trait]
impl Engine for DatabaseEngine {
    fn kind(&self) -> &'static str {
        "database"
    }

    fn take_office(&self, vault: &str, epoch: u64) {
        self.sessions.begin(Term::new(vault, epoch));
    }

    async fn exists(&self, view: &ReadView<'_>, path: &str) -> Result<bool, EngineError> {
        match route(path) {
            Route::Config(name) => Ok(connection::load(view, name).await?.is_some()),
            Route::Role(name) => Ok(role::load(view, name).await?.is_some()),
            Route::StaticRole(name) => Ok(static_role::load(view, name).await?.is_some()),
            _ => Ok(true),
        }
    }

    async fn read(&self, view: &ReadView<'_>, req: &EngineRequest<'_>) -> Result<EngineReply, EngineError> {
        match (req.op, route(req.path)) {
            (Op::List, Route::Configs) => list(view, req, "config").await,
            (Op::List, Route::Roles) => list(view, req, "roles").await,
            (Op::Read, Route::Config(name)) => Ok(match connection::load(view, name).await? {
                Some(connection) => EngineReply::Data(connection.json()),
                None => EngineReply::NotFound,
            }),
            (Op::Read, Route::Role(name)) => Ok(match role::load(view, name).await? {
                Some(role) => EngineReply::Data(role.json()),
                None => EngineReply::NotFound,
            }),
            (Op::List, Route::StaticRoles) => list(view, req, "static-roles").await,
            (Op::Read, Route::StaticRole(name)) => Ok(match static_role::load(view, name).await? {
                Some(role) => EngineReply::Data(role.json()),
                None => EngineReply::NotFound,
            }),
            (Op::Read, Route::StaticCreds(name)) => {
                let role = static_role::load(view, name).await?;
                let role = role.ok_or_else(|| EngineError::bad(format!("unknown role: {name}")))?;
                Ok(EngineReply::Data(role.credential(req.now)?))
            }
            (Op::Read, Route::Creds(name)) => self.credentials(view, req, name).await,
            _ => Err(EngineError::Unsupported),
        }
    }

    async fn write(
        &self,
        view: &mut WriteView<'_>,
        req: &EngineRequest<'_>,
    ) -> Result<(EngineReply, Vec<Effect>), EngineError> {
        match (req.op, route(req.path)) {
            (Op::Write, Route::Config(name)) => write_config(view, req, name).await,
            (Op::Delete, Route::Config(name)) => {
                let gone = connection::delete(view, name).await?;
                let path = format!("config/{name}");
                let effects = effects::one("database/config-delete", "config-delete", path);
                Ok((EngineReply::Empty, if gone { effects } else { Vec::new() }))
            }
            (Op::Write, Route::Role(name)) => write_role(view, req, name).await,
            (Op::Delete, Route::Role(name)) => {
                let gone = role::delete(view, name).await?;
                let effects = effects::one("database/role-delete", "role-delete", format!("roles/{name}"));
                Ok((EngineReply::Empty, if gone { effects } else { Vec::new() }))
            }
            (Op::Delete, Route::StaticRole(name)) => {
                let gone = static_role::delete(view, name).await?;
                let path = format!("static-roles/{name}");
                let effects = effects::one("database/static-role-delete", "static-role-delete", path);
                Ok((EngineReply::Empty, if gone { effects } else { Vec::new() }))
            }
            (Op::Write, Route::Reset(name)) => reset(view, name).await,
            _ => Err(EngineError::Unsupported),
        }
    }

    async fn verify(&self, view: &ReadView<'_>, req: &EngineRequest<'_>) -> Result<(), EngineError> {
        let (Op::Write, Route::Config(name)) = (req.op, route(req.path)) else { return Ok(()) };
        check_name(name)?;
        let merged = Connection::merged(connection::load(view, name).await?, req)?;
        if merged.verifies() { self.verify_connection(&merged, name).await } else { Ok(()) }
    }

    async fn create(&self, view: &ReadView<'_>, payload: &SecretBytes) -> Result<(), EngineError> {
        let account = Account::decode(payload)?;
        let mut session = self.session_of(view, &account).await?;
        let target = account::target(&account.connection);
        failpoint::reach(Step::TargetBeforeCreate);
        let done = bounded(&target, session.session()?.create(&account)).await;
        if done.is_ok() {
            failpoint::reach(Step::TargetCreated);
        }
        session.finish(done)
    }

    async fn renew(
        &self,
        view: &ReadView<'_>,
        payload: &SecretBytes,
        _expires: Timestamp,
    ) -> Result<(), EngineError> {
        let account = Account::decode(payload)?;
        // The account's expiration is its lease's longest life from the start, so there is nothing to prolong.
        if account.statements.renew.is_empty() {
            return Ok(());
        }
        let mut session = self.session_of(view, &account).await?;
        let target = account::target(&account.connection);
        let done = bounded(&target, session.session()?.renew(&account)).await;
        session.finish(done)
    }

    async fn revoke(&self, view: &ReadView<'_>, payload: &SecretBytes) -> Result<(), EngineError> {
        let account = Account::decode(payload)?;
        let mut session = self.session_of(view, &account).await?;
        let target = account::target(&account.connection);
        let done = bounded(&target, session.session()?.revoke(&account)).await;
        session.finish(done)
    }

    async fn targets(&self, view: &ReadView<'_>) -> Result<Vec<String>, EngineError> {
        let mut targets: Vec<String> = Vec::new();
        let mut last: Option<String> = None;
        loop {
            let page = view.list("config", last.as_deref(), LIST_PAGE).await?;
            targets.extend(page.iter().map(|name| account::target(name)));
            if page.len() < LIST_PAGE {
                return Ok(targets);
            }
            last = page.into_iter().next_back();
        }
    }

    async fn accounts(&self, view: &ReadView<'_>, target: &str) -> Result<Vec<String>, EngineError> {
        let name = account::connection_at(target)?;
        let connection = connection::load(view, name).await?.ok_or(EngineError::NotFound)?;
        let mut session = self.sessions.open(view.mount(), name, &connection).await?;
        let listed = bounded(target, session.session()?.accounts()).await;
        let mut accounts = session.finish(listed)?;
        let signer = Signer::of(view, name);
        accounts.retain(|account| signer.knows(account));
        Ok(accounts)
    }

    async fn remove(&self, view: &ReadView<'_>, target: &str, username: &str) -> Result<(), EngineError> {
        let name = account::connection_at(target)?;
        if !Signer::of(view, name).knows(username) {
            return Err(fail(target, false, "the account is not known to be this vault's"));
        }
        let account = Account::bare(name, username);
        let mut session = self.session_of(view, &account).await?;
        let done = bounded(target, session.session()?.revoke(&account)).await;
        session.finish(done)
    }

    fn acts(&self, op: Op, path: &str) -> bool {
        let several =
            matches!(route(path), Route::RotateRoot(_) | Route::RotateRole(_) | Route::StaticRole(_));
        op == Op::Write && several
    }

    async fn act(
        &self,
        barrier: &Barrier,
        mount: MountId,
        req: &EngineRequest<'_>,
    ) -> Result<(EngineReply, Vec<Effect>), EngineError> {
        let turning = self.turning(barrier, mount, req.now);
        match route(req.path) {
            Route::RotateRoot(name) => {
                let _turn = self.turns.take(mount, req.path).await;
                rotate::rotate(&self.sessions, barrier, mount, name, req.now).await?;
                Ok((EngineReply::Empty, effects::root_rotated(name)))
            }
            Route::RotateRole(name) => {
                let _turn = self.turns.take(mount, name).await;
                let force = input::boolean(req.body, "force")?.unwrap_or(false);
                match turning.ask(name, force).await {
                    Err(EngineError::NotFound) => {
                        return Err(EngineError::bad("no static role found for role name"));
                    }
                    asked => asked?,
                }
                Ok((EngineReply::Empty, turning.go_on(name).await?))
            }
            Route::StaticRole(name) => {
                check_name(name)?;
                let _turn = self.turns.take(mount, name).await;
                let (created, mut effects) = turning.put(name, req).await?;
                match turning.go_on(name).await {
                    Ok(more) => effects.extend(more),
                    Err(error) => {
                        if created && !error.retriable() {
                            turning.give_up(name).await?;
                        }
                        return Err(error);
                    }
                }
                Ok((EngineReply::Empty, effects))
            }
            _ => Err(EngineError::Unsupported),
        }
    }

    fn rotating<'p>(&self, path: &'p str) -> Option<&'p str> {
        match route(path) {
            Route::StaticCreds(name) => Some(name),
            _ => None,
        }
    }

    async fn is_noted(
        &self,
        view: &ReadView<'_>,
        name: &str,
        version: u64,
        reader: Option<&Reader>,
    ) -> Result<bool, EngineError> {
        readers::is_noted(view, name, version, reader).await
    }

    async fn note(
        &self,
        view: &mut WriteView<'_>,
        name: &str,
        version: u64,
        reader: Option<&Reader>,
    ) -> Result<bool, EngineError> {
        readers::note(view, name, version, reader).await
    }

    async fn acknowledge(
        &self,
        view: &mut WriteView<'_>,
        name: &str,
        version: u64,
        id: &str,
        now: Timestamp,
    ) -> Result<(), EngineError> {
        readers::acknowledge(view, name, version, id, now).await
    }

    async fn pod_gone(
        &self,
        view: &mut WriteView<'_>,
        pod: &str,
        now: Timestamp,
    ) -> Result<bool, EngineError> {
        readers::pod_gone(view, pod, now).await
    }

    async fn rotation(&self, view: &ReadView<'_>, name: &str) -> Result<Option<Value>, EngineError> {
        readers::status(view, name).await
    }

    async fn due(&self, view: &ReadView<'_>, now: Timestamp, limit: usize) -> Result<Vec<Due>, EngineError> {
        let mut due: Vec<Due> = connection::due(view, now, limit)
            .await?
            .into_iter()
            .map(|name| Due { path: format!("rotate-root/{name}"), target: account::target(&name) })
            .collect();
        for name in static_role::due(view, now, limit).await? {
            if let Some(role) = static_role::load(view, &name).await? {
                let target = account::target(&role.connection);
                due.push(Due { path: format!("rotate-role/{name}"), target });
            }
        }
        Ok(due)
    }

    async fn work(
        &self,
        barrier: &Barrier,
        mount: MountId,
        path: &str,
        now: Timestamp,
    ) -> Result<Vec<Effect>, EngineError> {
        match route(path) {
            Route::RotateRole(name) => {
                let _turn = self.turns.take(mount, name).await;
                self.turning(barrier, mount, now).go_on(name).await
            }
            Route::RotateRoot(name) => {
                let _turn = self.turns.take(mount, path).await;
                let done = rotate::if_due(&self.sessions, barrier, mount, name, now).await?;
                Ok(if done { effects::root_rotated(name) } else { Vec::new() })
            }
            _ => Err(EngineError::Unsupported),
        }
    }
}
