//! Sessions at MySQL and MariaDB, over TLS 1.3. Never retries: whoever opens one decides what an error means.

mod failure;
mod fence;
mod sql;
pub(super) mod url;

use async_trait::async_trait;
use coffer_core::secret::SecretString;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, SslOpts};
use rustls::crypto::CryptoProvider;

use self::failure::{from_driver, is_login_refusal};
use super::account::Account;
use super::driver::{DialError, Endpoint, PasswordChange, Session, fail};
use super::fence::{Mark, Term};
use super::tls;
use super::url::Tls;
use crate::EngineError;

/// What a session begins with: how text is quoted must not depend on the server's settings, and no statement waits
/// longer for a lock than an operation may take.
const SETUP: &str =
    "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', lock_wait_timeout = 5";

/// One session; ends with the value.
pub(super) struct MySqlSession {
    conn: Conn,
    target: String,
    term: Term,
    /// A successor finds it.
    placed: bool,
}

/// Opens one.
pub(super) async fn dial(endpoint: &Endpoint, password: &SecretString) -> Result<MySqlSession, DialError> {
    let place = &endpoint.place;
    let ssl = protection(endpoint).map_err(DialError::Engine)?;
    let protected = ssl.is_some();
    let options = OptsBuilder::default()
        .ip_or_hostname(&place.host)
        .tcp_port(place.port)
        .user(Some(&endpoint.username))
        .pass(Some(password.expose()))
        .db_name(Some(&place.database).filter(|name| !name.is_empty()))
        .ssl_opts(ssl)
        // Else the driver leaves TCP and TLS for a file that the server names.
        .prefer_socket(false)
        .setup(vec![SETUP])
        .connect_attribute("program_name", endpoint.term.session_name());
    let connecting = tokio::time::timeout(place.connect_timeout, Conn::new(options));
    let connected = match connecting.await {
        Ok(connected) => connected,
        Err(_) => return Err(DialError::Engine(super::driver::slow(&endpoint.name))),
    };
    let mut conn = match connected {
        Ok(conn) => conn,
        Err(error) if is_login_refusal(&error) => {
            return Err(DialError::Login(from_driver(&endpoint.name, &error)));
        }
        Err(error) => return Err(DialError::Engine(from_driver(&endpoint.name, &error))),
    };
    if protected {
        // The driver chooses the versions itself.
        let version: Option<(String, String)> = conn
            .query_first("SHOW SESSION STATUS LIKE 'Ssl_version'")
            .await
            .map_err(|error| DialError::Engine(from_driver(&endpoint.name, &error)))?;
        if version.is_none_or(|(_, version)| version != "TLSv1.3") {
            return Err(DialError::Engine(fail(
                &endpoint.name,
                false,
                "TLS: the server does not speak TLS 1.3",
            )));
        }
    }
    Ok(MySqlSession { conn, target: endpoint.name.clone(), term: endpoint.term.clone(), placed: false })
}

/// How the session is protected. The driver builds its own verifier, so only the CA and the name are given.
fn protection(endpoint: &Endpoint) -> Result<Option<SslOpts>, EngineError> {
    // Refuses what is wrong in the same words for every database.
    if tls::client(endpoint.place.tls, endpoint.root_ca.as_deref())?.is_none() {
        return Ok(None);
    }
    if endpoint.place.tls == Tls::Ca {
        return Err(EngineError::bad("connection_url: unknown tls mode"));
    }
    if CryptoProvider::get_default().is_none() {
        // Somebody else's is as good.
        let _there = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    let pem = endpoint.root_ca.clone().unwrap_or_default().into_bytes();
    let options = SslOpts::default()
        .with_disable_built_in_roots(true)
        .with_root_certs(vec![pem.into()])
        .with_danger_tls_hostname_override(endpoint.server_name.clone());
    Ok(Some(options))
}

#[async_trait]
impl Session for MySqlSession {
    async fn reset(&mut self) -> Result<(), EngineError> {
        self.placed = false;
        match self.conn.reset().await {
            // That has let go of what a successor finds the session by.
            Ok(true) => match self.mark().await? {
                Mark::Own => Ok(()),
                _ => Err(fail(&self.target, true, "the session is of an earlier term")),
            },
            Ok(false) => Err(fail(&self.target, true, "the session cannot be reset")),
            Err(error) => Err(from_driver(&self.target, &error)),
        }
    }

    async fn mark(&mut self) -> Result<Mark, EngineError> {
        if !self.placed {
            fence::take_place(&mut self.conn, &self.target, &self.term).await?;
            self.placed = true;
        }
        fence::mark(&mut self.conn, &self.target, &self.term).await
    }

    async fn put_mark(&mut self) -> Result<(), EngineError> {
        fence::put_mark(&mut self.conn, &self.target, &self.term).await
    }

    async fn end_older(&mut self) -> Result<usize, EngineError> {
        fence::end_older(&mut self.conn, &self.target, &self.term).await
    }

    async fn accounts(&mut self) -> Result<Vec<String>, EngineError> {
        sql::accounts(&mut self.conn, &self.target).await
    }

    async fn prove(&mut self) -> Result<(), EngineError> {
        sql::prove(&mut self.conn, &self.target).await
    }

    async fn create(&mut self, account: &Account) -> Result<(), EngineError> {
        sql::create(&mut self.conn, &self.target, account).await
    }

    async fn renew(&mut self, account: &Account) -> Result<(), EngineError> {
        sql::renew(&mut self.conn, &self.target, account).await
    }

    async fn revoke(&mut self, account: &Account) -> Result<(), EngineError> {
        sql::revoke(&mut self.conn, &self.target, account).await
    }

    async fn set_password(&mut self, change: &PasswordChange<'_>) -> Result<(), EngineError> {
        sql::set_password(&mut self.conn, &self.target, change).await
    }

    async fn shut(&mut self, username: &str) -> Result<(), EngineError> {
        sql::shut(&mut self.conn, &self.target, username).await
    }

    async fn change_own_password(&mut self, password: &SecretString) -> Result<(), EngineError> {
        sql::change_own_password(&mut self.conn, &self.target, password).await
    }
}
