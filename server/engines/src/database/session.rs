//! Sessions at databases: bounded pools, time limits, the fencing name. Never keeps a session that met an error,
//! and never opens one under settings that have been replaced.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use coffer_barrier::MountId;
use coffer_core::secret::SecretString;
use deadpool_postgres::{
    ClientWrapper, Connect, Manager, ManagerConfig, Object, Pool, PoolConfig, RecyclingMethod, Runtime,
    Timeouts,
};
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::account;
use super::connection::Connection;
use super::failure::{fail, from_driver, from_pool, is_login_refusal};
use crate::EngineError;

/// Sessions per connection.
const SESSIONS_MAX: usize = 4;
/// How long a session may take to open, and a caller waits for a free one.
const OPEN_MAX: Duration = Duration::from_secs(5);
/// How long all the statements of one operation may take. A single one is ended by the database itself before.
const OPERATION_MAX: Duration = Duration::from_secs(30);
/// Sessions that were not used for this long are closed.
const IDLE_MAX: Duration = Duration::from_secs(120);
const SERVER_LIMITS: &str = "-c statement_timeout=10s -c lock_timeout=5s \
                             -c idle_in_transaction_session_timeout=20s";

/// All open sessions, by mount and connection.
pub(super) struct Sessions {
    name: String,
    pools: Mutex<HashMap<(MountId, String), Entry>>,
}

struct Entry {
    generation: u64,
    pool: Pool,
    used: Instant,
}

impl Sessions {
    /// `name` is what the database knows them by (`application_name`).
    pub(super) fn new(name: String) -> Self {
        Self { name, pools: Mutex::new(HashMap::new()) }
    }

    /// A session under the connection's current settings.
    pub(super) async fn open(
        &self,
        mount: MountId,
        name: &str,
        connection: &Connection,
    ) -> Result<Session, EngineError> {
        let target = account::target(name);
        let pool = self.pool(mount, name, connection)?;
        match pool.get().await {
            Ok(object) => Ok(Session { object, target }),
            Err(error) => Err(from_pool(&target, &error)),
        }
    }

    /// Lets go of the sessions under settings that are no more. Those at work end with their work.
    pub(super) fn forget(&self, mount: MountId, name: &str) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.remove(&(mount, name.to_owned()));
    }

    fn pool(&self, mount: MountId, name: &str, connection: &Connection) -> Result<Pool, EngineError> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        // A pool is dropped, never closed: somebody may hold it and be about to take a session.
        pools.retain(|_, entry| {
            entry.pool.retain(|_, metrics| metrics.last_used() < IDLE_MAX);
            entry.used.elapsed() < IDLE_MAX
        });
        let key = (mount, name.to_owned());
        if let Some(entry) = pools.get_mut(&key)
            && entry.generation == connection.generation
        {
            entry.used = Instant::now();
            return Ok(entry.pool.clone());
        }
        let pool = self.build(connection)?;
        let entry = Entry { generation: connection.generation, pool: pool.clone(), used: Instant::now() };
        pools.insert(key, entry);
        Ok(pool)
    }

    fn build(&self, connection: &Connection) -> Result<Pool, EngineError> {
        let dialer = Dialer::new(&self.name, connection)?;
        let config = dialer.config.clone();
        // A role's statements may have left settings behind (`SET ROLE`, `search_path`, time limits): the next user
        // of the session, maybe another role, must not run under them.
        let manager =
            Manager::from_connect(config, dialer, ManagerConfig { recycling_method: RecyclingMethod::Clean });
        let timeouts =
            Timeouts { wait: Some(OPEN_MAX), create: Some(OPEN_MAX), recycle: Some(Duration::from_secs(1)) };
        let mut config = PoolConfig::new(SESSIONS_MAX);
        config.timeouts = timeouts;
        Pool::builder(manager)
            .config(config)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| EngineError::bad("the session pool could not be built"))
    }

    /// One session outside the pools, under `password` and no other.
    pub(super) async fn dial(
        &self,
        name: &str,
        connection: &Connection,
        password: &SecretString,
    ) -> Result<Dialed, DialError> {
        let mut dialer = Dialer::new(&self.name, connection).map_err(DialError::Engine)?;
        dialer.config.password(password.expose());
        dialer.pending = None;
        let target = account::target(name);
        let config = dialer.config.clone();
        match tokio::time::timeout(OPEN_MAX, dialer.connect(&config)).await {
            Ok(Ok((client, task))) => Ok(Dialed { client, task }),
            Ok(Err(error)) if is_login_refusal(&error) => Err(DialError::Login(from_driver(&target, &error))),
            Ok(Err(error)) => Err(DialError::Engine(from_driver(&target, &error))),
            Err(_) => Err(DialError::Engine(fail(
                &target,
                true,
                "the database does not answer within the time limit",
            ))),
        }
    }
}

/// Why a session could not be opened.
pub(super) enum DialError {
    /// Name or password are wrong.
    Login(EngineError),
    /// Anything else.
    Engine(EngineError),
}

impl From<DialError> for EngineError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Login(inner) | DialError::Engine(inner) => inner,
        }
    }
}

/// A session outside the pools; ends with the value.
pub(super) struct Dialed {
    pub(super) client: Client,
    task: JoinHandle<()>,
}

impl Drop for Dialed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A session of a pool.
pub(super) struct Session {
    object: Object,
    target: String,
}

impl Session {
    pub(super) fn client(&mut self) -> &mut ClientWrapper {
        &mut self.object
    }

    /// Gives the session back if all went well; any error ends it.
    pub(super) fn finish<T>(self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        if result.is_err() {
            drop(Object::take(self.object));
        }
        result
    }

    pub(super) fn target(&self) -> &str {
        &self.target
    }
}

/// Bounds the work of one operation.
pub(super) async fn bounded<T>(
    target: &str,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(OPERATION_MAX, work).await {
        Ok(result) => result,
        Err(_) => Err(fail(target, true, "the database did not answer within the time limit")),
    }
}

/// Opens sessions: with the current password, and while a rotation is under way with the next one as well.
struct Dialer {
    config: Config,
    pending: Option<SecretString>,
    tls: Option<MakeRustlsConnect>,
}

impl Dialer {
    fn new(application_name: &str, connection: &Connection) -> Result<Self, EngineError> {
        let target = connection.target()?;
        let tls = connection.tls()?;
        let mut config = Config::new();
        config
            .host(&target.host)
            .port(target.port)
            .dbname(&target.database)
            .user(&connection.username)
            .password(connection.password.expose())
            .application_name(application_name)
            .options(SERVER_LIMITS)
            .connect_timeout(target.connect_timeout)
            .tcp_user_timeout(OPERATION_MAX)
            .keepalives_idle(Duration::from_secs(30))
            .channel_binding(ChannelBinding::Prefer)
            .ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        let pending = connection.pending.as_ref().map(|next| SecretString::copy_of(next.expose()));
        Ok(Self { config, pending, tls: tls.map(MakeRustlsConnect::new) })
    }

    async fn try_with(&self, config: &Config) -> Result<(Client, JoinHandle<()>), Error> {
        match &self.tls {
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await?;
                // What ends a session shows at its next use; its text may quote a statement, so it goes nowhere.
                Ok((client, tokio::spawn(async move { drop(connection.await) })))
            }
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                Ok((client, tokio::spawn(async move { drop(connection.await) })))
            }
        }
    }
}

type Dialing<'a> = Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl Connect for Dialer {
    fn connect(&self, config: &Config) -> Dialing<'_> {
        let config = config.clone();
        Box::pin(async move {
            match (self.try_with(&config).await, &self.pending) {
                (Err(error), Some(pending)) if is_login_refusal(&error) => {
                    let mut config = config.clone();
                    config.password(pending.expose());
                    self.try_with(&config).await
                }
                (result, _) => result,
            }
        })
    }
}
