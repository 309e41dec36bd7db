//! Pools of sessions: bounded, by mount and connection. Never keeps a session that met an error or was left in the
//! middle of something, and never opens one under settings that have been replaced.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use coffer_barrier::MountId;
use coffer_core::secret::SecretString;
use deadpool::Runtime;
use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolConfig, PoolError, RecycleError, RecycleResult, Timeouts,
};

use super::account;
use super::connection::Connection;
use super::driver::{self, DialError, Endpoint, OPEN_MAX, Session, TAKE_OVER_MAX, fail, slow};
use super::fence::{Fence, Term};
use crate::EngineError;

/// Sessions that were not used for this long are closed.
const IDLE_MAX: Duration = Duration::from_secs(120);
const RESET_MAX: Duration = Duration::from_secs(1);

/// All open sessions, by mount and connection.
pub(super) struct Sessions {
    term: Mutex<Term>,
    pools: Mutex<HashMap<(MountId, String), Entry>>,
}

struct Entry {
    generation: u64,
    term: Term,
    pool: Pool<Dialer>,
    used: Instant,
}

impl Sessions {
    /// `term` is what databases know them by.
    pub(super) fn new(term: Term) -> Self {
        Self { term: Mutex::new(term), pools: Mutex::new(HashMap::new()) }
    }

    /// A new term begins: no session of the last one is used again.
    pub(super) fn begin(&self, term: Term) {
        *self.term.lock().unwrap_or_else(PoisonError::into_inner) = term;
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn term(&self) -> Term {
        self.term.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A session under the connection's current settings.
    pub(super) async fn open(
        &self,
        mount: MountId,
        name: &str,
        connection: &Connection,
    ) -> Result<Pooled, EngineError> {
        let target = account::target(name);
        let pool = self.pool(mount, name, connection)?;
        match pool.get().await {
            Ok(object) => Ok(Pooled { object: Some(object), target }),
            Err(PoolError::Backend(error)) => Err(error),
            Err(PoolError::Timeout(_)) => Err(slow(&target)),
            Err(_) => Err(fail(&target, true, "the database gives no session")),
        }
    }

    /// Lets go of the sessions under settings that are no more. Those at work end with their work.
    pub(super) fn forget(&self, mount: MountId, name: &str) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.remove(&(mount, name.to_owned()));
    }

    fn pool(&self, mount: MountId, name: &str, connection: &Connection) -> Result<Pool<Dialer>, EngineError> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        // A pool is dropped, never closed: somebody may hold it and be about to take a session.
        pools.retain(|_, entry| {
            entry.pool.retain(|_, metrics| metrics.last_used() < IDLE_MAX);
            entry.used.elapsed() < IDLE_MAX
        });
        let key = (mount, name.to_owned());
        let term = self.term();
        if let Some(entry) = pools.get_mut(&key)
            && entry.generation == connection.generation
            && entry.term == term
        {
            entry.used = Instant::now();
            return Ok(entry.pool.clone());
        }
        let pool = Self::build(name, connection, &term)?;
        let entry =
            Entry { generation: connection.generation, term, pool: pool.clone(), used: Instant::now() };
        pools.insert(key, entry);
        Ok(pool)
    }

    fn build(name: &str, connection: &Connection, term: &Term) -> Result<Pool<Dialer>, EngineError> {
        let mut config = PoolConfig::new(connection.sessions_max());
        config.timeouts = Timeouts {
            wait: Some(OPEN_MAX),
            create: Some(OPEN_MAX + TAKE_OVER_MAX),
            recycle: Some(RESET_MAX),
        };
        let dialer = Dialer {
            endpoint: connection.endpoint(name, term)?,
            password: SecretString::copy_of(connection.password.expose()),
            pending: connection.pending.as_ref().map(|next| SecretString::copy_of(next.expose())),
            lifetime: connection.session_lifetime(),
            fence: Fence::default(),
        };
        Pool::builder(dialer)
            .config(config)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| EngineError::bad("the session pool could not be built"))
    }

    /// One session outside the pools, under `password` and no other, to look and not to act.
    pub(super) async fn dial(
        &self,
        name: &str,
        connection: &Connection,
        password: &SecretString,
    ) -> Result<Box<dyn Session>, DialError> {
        let endpoint = connection.endpoint(name, &self.term()).map_err(DialError::Engine)?;
        driver::dial(&endpoint, password).await
    }

    /// The same, to act.
    pub(super) async fn dial_to_act(
        &self,
        name: &str,
        connection: &Connection,
        password: &SecretString,
    ) -> Result<Box<dyn Session>, DialError> {
        let mut session = self.dial(name, connection, password).await?;
        let passed = Fence::default().pass(&mut *session, &account::target(name)).await;
        passed.map(|()| session).map_err(DialError::Engine)
    }

    /// Whether `username` gets in with `password`. Leaves no session behind.
    pub(super) async fn lets_in(
        &self,
        name: &str,
        connection: &Connection,
        username: &str,
        password: &SecretString,
    ) -> Result<(), DialError> {
        let mut endpoint = connection.endpoint(name, &self.term()).map_err(DialError::Engine)?;
        username.clone_into(&mut endpoint.username);
        driver::dial(&endpoint, password).await.map(drop)
    }
}

/// A session of a pool. It goes back only when its work has ended well: an error ends it, and so does whoever stops
/// waiting for it.
pub(super) struct Pooled {
    object: Option<Object<Dialer>>,
    target: String,
}

impl Pooled {
    /// The session itself.
    pub(super) fn session(&mut self) -> Result<&mut dyn Session, EngineError> {
        match self.object.as_mut() {
            Some(object) => Ok(&mut ***object),
            None => Err(fail(&self.target, true, "the database gives no session")),
        }
    }

    /// Ends the work.
    pub(super) fn finish<T>(mut self, done: Result<T, EngineError>) -> Result<T, EngineError> {
        if done.is_ok() {
            drop(self.object.take());
        }
        done
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

/// Opens sessions: with the current password, and while a rotation is under way with the next one as well.
struct Dialer {
    endpoint: Endpoint,
    password: SecretString,
    pending: Option<SecretString>,
    lifetime: Option<Duration>,
    fence: Fence,
}

impl Manager for Dialer {
    type Type = Box<dyn Session>;
    type Error = EngineError;

    async fn create(&self) -> Result<Self::Type, EngineError> {
        let mut session = match (driver::dial(&self.endpoint, &self.password).await, &self.pending) {
            (Err(DialError::Login(_)), Some(pending)) => driver::dial(&self.endpoint, pending).await?,
            (result, _) => result?,
        };
        let target = &self.endpoint.name;
        match tokio::time::timeout(TAKE_OVER_MAX, self.fence.pass(&mut *session, target)).await {
            Ok(passed) => passed.map(|()| session),
            Err(_) => Err(slow(target)),
        }
    }

    async fn recycle(&self, session: &mut Self::Type, metrics: &Metrics) -> RecycleResult<EngineError> {
        if self.lifetime.is_some_and(|most| metrics.age() > most) {
            return Err(RecycleError::message("the session has lived long enough"));
        }
        // A role's statements may have left settings behind (`SET ROLE`, `search_path`, time limits): the next user
        // of the session, maybe another role, must not run under them.
        session.reset().await?;
        Ok(())
    }
}
