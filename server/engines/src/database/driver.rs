//! The port to a database: what the engine needs of one, whichever it is. Knows no statement of any of them.

use std::time::Duration;

use async_trait::async_trait;
use coffer_core::failpoint::{self, Step};
use coffer_core::secret::SecretString;

use super::account::Account;
use super::fence::{Mark, Term};
use super::url::Target;
use super::{mysql, postgres};
use crate::EngineError;

/// How long a session may take to open, and a caller waits for a free one.
pub(super) const OPEN_MAX: Duration = Duration::from_secs(5);
/// How long opening may take when sessions of an earlier server are ended first.
pub(super) const TAKE_OVER_MAX: Duration = Duration::from_secs(15);
/// How long all the statements of one operation may take.
pub(super) const OPERATION_MAX: Duration = Duration::from_secs(30);
/// How often and how long to look whether ended sessions are gone.
pub(super) const LOOKS_MAX: u32 = 100;
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The databases that are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plugin {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
}

/// Names of the plugins, the longest account name each stands for.
const PLUGINS: [(&str, Plugin, usize); 5] = [
    ("postgresql-database-plugin", Plugin::Postgres, 63),
    ("mysql-database-plugin", Plugin::MySql, 32),
    // As in Vault, for servers whose names end at sixteen characters.
    ("mysql-aurora-database-plugin", Plugin::MySql, 16),
    ("mysql-rds-database-plugin", Plugin::MySql, 16),
    ("mysql-legacy-database-plugin", Plugin::MySql, 16),
];

impl Plugin {
    /// The plugin of that name, and the longest account name there in bytes.
    pub(super) fn named(name: &str) -> Option<(Self, usize)> {
        PLUGINS.iter().find(|(known, ..)| *known == name).map(|(_, plugin, bytes)| (*plugin, *bytes))
    }

    /// What there is, for a refusal.
    pub(super) fn names() -> String {
        PLUGINS.map(|(name, ..)| name).join(", ")
    }
}

/// A database and whom the engine is there.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) plugin: Plugin,
    /// Its name in errors and queues.
    pub(super) name: String,
    pub(super) place: Target,
    pub(super) username: String,
    pub(super) root_ca: Option<String>,
    /// The name in the server's certificate, if it is not the host's.
    pub(super) server_name: Option<String>,
    /// Whose session it is: the database knows it by that.
    pub(super) term: Term,
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

/// The new password of an account that is there already.
pub(super) struct PasswordChange<'a> {
    /// Any name the database knows; it is quoted.
    pub(super) username: &'a str,
    pub(super) password: &'a SecretString,
    /// Own statements instead of the database's plain one; they need a name from the accounts' alphabet.
    pub(super) statements: &'a [String],
    /// As it is, for statements that need it, where the database would take something better.
    pub(super) plain: bool,
    /// The account may have been shut: it is to let in again.
    pub(super) unlock: bool,
}

/// One session at a database. Every operation is idempotent. Any error ends the session: its owner drops it.
#[async_trait]
pub(super) trait Session: Send + Sync {
    /// Takes back what statements may have left behind: the next user of the session must not run under it.
    async fn reset(&mut self) -> Result<(), EngineError>;

    /// Makes the session one that a successor finds and ends, then reads the mark.
    async fn mark(&mut self) -> Result<Mark, EngineError>;

    /// Puts this term's mark, over whatever stands there.
    async fn put_mark(&mut self) -> Result<(), EngineError>;

    /// Ends the sessions of this vault's other terms. How many there still were.
    async fn end_older(&mut self) -> Result<usize, EngineError>;

    /// The names of all accounts.
    async fn accounts(&mut self) -> Result<Vec<String>, EngineError>;

    /// Whether this login can do what the engine needs; the refusal says what is missing.
    async fn prove(&mut self) -> Result<(), EngineError>;

    /// Creates the account. If it is there already, an earlier attempt got through: it is made sure that the
    /// password is the right one.
    async fn create(&mut self, account: &Account) -> Result<(), EngineError>;

    /// Runs the account's renew statements.
    async fn renew(&mut self, account: &Account) -> Result<(), EngineError>;

    /// Takes the account away: nobody can log in, whoever is in is thrown out, then it is dropped. In this order,
    /// and the first two whatever the role's own statements are. An absent account is a success.
    async fn revoke(&mut self, account: &Account) -> Result<(), EngineError>;

    /// Changes a password.
    async fn set_password(&mut self, change: &PasswordChange<'_>) -> Result<(), EngineError>;

    /// Shuts an account that stays: nobody can log in, whoever is in is thrown out.
    async fn shut(&mut self, username: &str) -> Result<(), EngineError>;

    /// Changes the password of the session's own login.
    async fn change_own_password(&mut self, password: &SecretString) -> Result<(), EngineError>;
}

/// A session under `password` and no other.
pub(super) async fn dial(
    endpoint: &Endpoint,
    password: &SecretString,
) -> Result<Box<dyn Session>, DialError> {
    let dialling = async {
        Ok(match endpoint.plugin {
            Plugin::Postgres => Box::new(postgres::dial(endpoint, password).await?) as Box<dyn Session>,
            Plugin::MySql => Box::new(mysql::dial(endpoint, password).await?),
        })
    };
    match tokio::time::timeout(OPEN_MAX, dialling).await {
        Ok(result) => result,
        Err(_) => Err(DialError::Engine(slow(&endpoint.name))),
    }
}

/// A password is about to be changed.
pub(super) fn about_to_alter() {
    failpoint::reach(Step::TargetBeforeAlter);
}

/// A refusal or failure of a database.
pub(super) fn fail(target: &str, retriable: bool, message: impl Into<String>) -> EngineError {
    EngineError::Target { target: target.to_owned(), retriable, message: message.into() }
}

/// No answer in time.
pub(super) fn slow(target: &str) -> EngineError {
    fail(target, true, "the database does not answer within the time limit")
}

/// Bounds the work of one operation.
pub(super) async fn bounded<T>(
    target: &str,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(OPERATION_MAX, work).await {
        Ok(result) => result,
        Err(_) => Err(slow(target)),
    }
}
