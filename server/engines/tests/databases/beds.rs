//! What a test needs of a database server, whichever it is.

#![allow(dead_code, reason = "not every test needs all of it")]

use mysql_async::prelude::Queryable;
use serde_json::{Value, json};

use crate::servers::{mariadb, postgres};

/// A server of one kind.
pub(crate) trait Bed: Sized {
    /// A session of a test.
    type Session;
    /// Makes an account.
    const CREATE: &'static str;
    /// What an account made by it may do.
    const USE: &'static str;
    /// What the engine's own login may not do.
    const FORBIDDEN: &'static str;
    /// Whether two servers of the same epoch are told from each other.
    const MARK_TELLS_COPIES: bool;
    /// Takes a minute.
    const SLOW: &'static str;
    /// The longest name of an account.
    const NAME_BYTES: usize;
    const ADMIN: &'static str;
    const ADMIN_PASSWORD: &'static str;

    /// Makes an account of any name.
    fn account(name: &str, password: &str) -> String;
    /// Changes its password.
    fn password(name: &str, password: &str) -> String;

    async fn start() -> Self;
    async fn restart(&mut self);
    fn config(&self) -> Value;
    fn url_without_tls(&self) -> String;
    async fn connect(&self, user: &str, password: &str) -> Result<Self::Session, String>;
    async fn query(&self, session: &mut Self::Session, sql: &str) -> Result<(), String>;
    /// As the superuser.
    async fn order(&self, sql: &str);
    async fn has(&self, user: &str) -> bool;
    /// Whether somebody is at [`Bed::SLOW`].
    async fn slowed(&self) -> bool;
    fn stop(&mut self);
}

pub(crate) struct Pg(postgres::Postgres);

impl Bed for Pg {
    type Session = tokio_postgres::Client;
    const CREATE: &'static str =
        "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE app_rw";
    const USE: &'static str = "CREATE TABLE work.t (a int); INSERT INTO work.t VALUES (1)";
    const FORBIDDEN: &'static str = "GRANT postgres TO \"{{name}}\"";
    const MARK_TELLS_COPIES: bool = true;
    const SLOW: &'static str = "SET LOCAL statement_timeout = 0; SELECT pg_sleep(60)";
    const NAME_BYTES: usize = 63;
    const ADMIN: &'static str = postgres::ADMIN;
    const ADMIN_PASSWORD: &'static str = postgres::ADMIN_PASSWORD;

    fn account(name: &str, password: &str) -> String {
        format!("CREATE ROLE \"{}\" LOGIN PASSWORD '{password}'", name.replace('"', "\"\""))
    }

    fn password(name: &str, password: &str) -> String {
        format!("ALTER ROLE \"{}\" PASSWORD '{password}'", name.replace('"', "\"\""))
    }

    async fn start() -> Self {
        Self(postgres::Postgres::start().await)
    }

    async fn restart(&mut self) {
        self.0.restart().await;
    }

    fn config(&self) -> Value {
        let port = self.0.port;
        json!({
            "plugin_name": "postgresql-database-plugin",
            "connection_url": format!(
                "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/app?sslmode=verify-full"
            ),
            "username": Self::ADMIN, "password": Self::ADMIN_PASSWORD, "root_ca": self.0.ca,
            "allowed_roles": ["*"],
        })
    }

    fn url_without_tls(&self) -> String {
        format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/app?sslmode=disable",
            self.0.port
        )
    }

    async fn connect(&self, user: &str, password: &str) -> Result<Self::Session, String> {
        self.0.connect(user, password).await.map_err(|error| error.to_string())
    }

    async fn query(&self, session: &mut Self::Session, sql: &str) -> Result<(), String> {
        session.batch_execute(sql).await.map_err(|error| error.to_string())
    }

    async fn order(&self, sql: &str) {
        self.0.superuser().await.batch_execute(sql).await.unwrap();
    }

    async fn has(&self, user: &str) -> bool {
        let su = self.0.superuser().await;
        let rows = su.query("SELECT 1 FROM pg_roles WHERE rolname = $1::text::name", &[&user]).await;
        !rows.unwrap().is_empty()
    }

    async fn slowed(&self) -> bool {
        let su = self.0.superuser().await;
        let sql = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' \
                   AND pid <> pg_backend_pid()";
        !su.query(sql, &[]).await.unwrap().is_empty()
    }

    fn stop(&mut self) {
        self.0.stop();
    }
}

pub(crate) struct Maria(mariadb::MariaDb);

impl Bed for Maria {
    type Session = mysql_async::Conn;
    const CREATE: &'static str = "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'; \
                                  GRANT ALL ON app.* TO '{{name}}'@'%';";
    const USE: &'static str = "CREATE TABLE app.t (a int); INSERT INTO app.t VALUES (1)";
    const FORBIDDEN: &'static str = "GRANT SUPER ON *.* TO '{{name}}'@'%'";
    const MARK_TELLS_COPIES: bool = false;
    const SLOW: &'static str = "SELECT SLEEP(60)";
    const NAME_BYTES: usize = 32;
    const ADMIN: &'static str = mariadb::ADMIN;
    const ADMIN_PASSWORD: &'static str = mariadb::ADMIN_PASSWORD;

    fn account(name: &str, password: &str) -> String {
        format!("CREATE USER '{}'@'%' IDENTIFIED BY '{password}'", name.replace('\'', "''"))
    }

    fn password(name: &str, password: &str) -> String {
        format!("ALTER USER '{}'@'%' IDENTIFIED BY '{password}'", name.replace('\'', "''"))
    }

    async fn start() -> Self {
        Self(mariadb::MariaDb::start().await)
    }

    async fn restart(&mut self) {
        self.0.restart().await;
    }

    fn config(&self) -> Value {
        let port = self.0.port;
        json!({
            "plugin_name": "mysql-database-plugin",
            "connection_url": format!("{{{{username}}}}:{{{{password}}}}@tcp(127.0.0.1:{port})/"),
            "username": Self::ADMIN, "password": Self::ADMIN_PASSWORD, "tls_ca": self.0.ca,
            "allowed_roles": ["*"],
        })
    }

    fn url_without_tls(&self) -> String {
        format!("{{{{username}}}}:{{{{password}}}}@tcp(127.0.0.1:{})/?tls=false", self.0.port)
    }

    async fn connect(&self, user: &str, password: &str) -> Result<Self::Session, String> {
        self.0.connect(user, password).await.map_err(|error| error.to_string())
    }

    async fn query(&self, session: &mut Self::Session, sql: &str) -> Result<(), String> {
        session.query_drop(sql).await.map_err(|error| error.to_string())
    }

    async fn order(&self, sql: &str) {
        self.0.superuser().await.query_drop(sql).await.unwrap();
    }

    async fn has(&self, user: &str) -> bool {
        let mut su = self.0.superuser().await;
        let rows: Vec<u8> = su.exec("SELECT 1 FROM mysql.user WHERE User = ?", (user,)).await.unwrap();
        !rows.is_empty()
    }

    async fn slowed(&self) -> bool {
        let mut su = self.0.superuser().await;
        let sql = "SELECT 1 FROM information_schema.processlist WHERE info LIKE '%SLEEP(%' \
                   AND id <> CONNECTION_ID()";
        let rows: Vec<u8> = su.query(sql).await.unwrap();
        !rows.is_empty()
    }

    fn stop(&mut self) {
        self.0.stop();
    }
}
