//! Sessions at PostgreSQL, over TLS 1.3. Never retries: whoever opens one decides what an error means.

mod failure;
mod fence;
mod sql;
pub(super) mod url;

use std::time::Duration;

use async_trait::async_trait;
use coffer_core::secret::SecretString;
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::failure::{from_driver, is_login_refusal};
use super::account::Account;
use super::driver::{DialError, Endpoint, OPERATION_MAX, PasswordChange, Session};
use super::fence::{Mark, Term};
use super::tls;
use crate::EngineError;

/// A single statement is ended by the database itself before the operation's time is over.
const SERVER_LIMITS: &str = "-c statement_timeout=10s -c lock_timeout=5s \
                             -c idle_in_transaction_session_timeout=20s";
/// `DISCARD ALL` would take the driver's own prepared statements along.
const CLEAN: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
                     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// One session; ends with the value.
pub(super) struct PostgresSession {
    client: Client,
    task: JoinHandle<()>,
    target: String,
    term: Term,
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens one.
pub(super) async fn dial(endpoint: &Endpoint, password: &SecretString) -> Result<PostgresSession, DialError> {
    let place = &endpoint.place;
    let tls = tls::client(place.tls, endpoint.root_ca.as_deref()).map_err(DialError::Engine)?;
    let mut config = Config::new();
    config
        .host(&place.host)
        .port(place.port)
        .dbname(&place.database)
        .user(&endpoint.username)
        .password(password.expose())
        .application_name(endpoint.term.session_name())
        .options(SERVER_LIMITS)
        .connect_timeout(place.connect_timeout)
        .tcp_user_timeout(OPERATION_MAX)
        .keepalives_idle(Duration::from_secs(30))
        .channel_binding(ChannelBinding::Prefer)
        .ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
    match connect(&config, tls.map(MakeRustlsConnect::new)).await {
        Ok((client, task)) => {
            Ok(PostgresSession { client, task, target: endpoint.name.clone(), term: endpoint.term.clone() })
        }
        Err(error) if is_login_refusal(&error) => Err(DialError::Login(from_driver(&endpoint.name, &error))),
        Err(error) => Err(DialError::Engine(from_driver(&endpoint.name, &error))),
    }
}

async fn connect(config: &Config, tls: Option<MakeRustlsConnect>) -> Result<(Client, JoinHandle<()>), Error> {
    match tls {
        Some(tls) => {
            let (client, connection) = config.connect(tls).await?;
            // What ends a session shows at its next use; its text may quote a statement, so it goes nowhere.
            Ok((client, tokio::spawn(async move { drop(connection.await) })))
        }
        None => {
            let (client, connection) = config.connect(NoTls).await?;
            Ok((client, tokio::spawn(async move { drop(connection.await) })))
        }
    }
}

#[async_trait]
impl Session for PostgresSession {
    async fn reset(&mut self) -> Result<(), EngineError> {
        self.client.simple_query(CLEAN).await.map(drop).map_err(|error| from_driver(&self.target, &error))
    }

    async fn mark(&mut self) -> Result<Mark, EngineError> {
        fence::mark(&self.client, &self.target, &self.term).await
    }

    async fn put_mark(&mut self) -> Result<(), EngineError> {
        fence::put_mark(&self.client, &self.target, &self.term).await
    }

    async fn end_older(&mut self) -> Result<usize, EngineError> {
        fence::end_older(&self.client, &self.target, &self.term).await
    }

    async fn accounts(&mut self) -> Result<Vec<String>, EngineError> {
        sql::accounts(&self.client, &self.target).await
    }

    async fn prove(&mut self) -> Result<(), EngineError> {
        if sql::may_create_roles(&self.client, &self.target).await? {
            return Ok(());
        }
        Err(EngineError::bad("the login may not create roles: it needs CREATEROLE"))
    }

    async fn create(&mut self, account: &Account) -> Result<(), EngineError> {
        sql::create(&mut self.client, &self.target, account).await
    }

    async fn renew(&mut self, account: &Account) -> Result<(), EngineError> {
        sql::renew(&mut self.client, &self.target, account).await
    }

    async fn revoke(&mut self, account: &Account) -> Result<(), EngineError> {
        sql::revoke(&mut self.client, &self.target, account).await
    }

    async fn set_password(&mut self, change: &PasswordChange<'_>) -> Result<(), EngineError> {
        sql::set_password(&mut self.client, &self.target, change).await
    }

    async fn shut(&mut self, username: &str) -> Result<(), EngineError> {
        sql::shut(&self.client, &self.target, username).await.map(drop)
    }

    async fn change_own_password(&mut self, password: &SecretString) -> Result<(), EngineError> {
        sql::change_own_password(&self.client, &self.target, password).await
    }
}
