//! What is done at a MySQL or MariaDB: accounts are made, prolonged and ended. Never puts anything into a statement
//! that has not passed an alphabet or was quoted here.
//!
//! Nothing about accounts is a transaction there, so every step can be taken again.

use coffer_core::secret::SecretString;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::failure::from_driver;
use crate::EngineError;
use crate::database::account::Account;
use crate::database::driver::{LOOK_EVERY, LOOKS_MAX, PasswordChange, fail};
use crate::database::fill;

/// For accounts that only their lease ends: the latest time a TIMESTAMP of every version can have.
const FOREVER: &str = "2038-01-19 03:14:07";
/// "Unknown thread id".
pub(super) const NO_SUCH_THREAD: u16 = 1094;

/// Creates the account. What an earlier attempt left behind is removed first, and so is what this one leaves
/// behind if it fails.
pub(super) async fn create(conn: &mut Conn, target: &str, account: &Account) -> Result<(), EngineError> {
    let name = fill::checked(&account.username)?;
    let literal = fill::plain(&account.password)?;
    drop_all(conn, target, name).await?;
    let done = run(conn, target, account, &account.statements.creation, &literal).await;
    let failed = match done {
        Ok(()) if !hosts(conn, target, name).await?.is_empty() => return Ok(()),
        Ok(()) => fail(target, false, "the creation statements did not create the user {{name}}"),
        Err(error) => error,
    };
    // The lease is revoked as well: this only makes it sooner. What it says matters less than why it failed.
    let _rolled_back = run(conn, target, account, &account.statements.rollback, &literal).await;
    let _dropped = drop_all(conn, target, name).await;
    Err(failed)
}

/// Runs the role's renew statements.
pub(super) async fn renew(conn: &mut Conn, target: &str, account: &Account) -> Result<(), EngineError> {
    let literal = fill::plain(&account.password)?;
    if hosts(conn, target, fill::checked(&account.username)?).await?.is_empty() {
        return Err(fail(target, false, "the account is gone"));
    }
    run(conn, target, account, &account.statements.renew, &literal).await
}

/// Locks, ends sessions, drops. Sessions outlive their account there, so they are looked for in any case.
pub(super) async fn revoke(conn: &mut Conn, target: &str, account: &Account) -> Result<(), EngineError> {
    let name = fill::checked(&account.username)?;
    shut(conn, target, name).await?;
    if account.statements.revocation.is_empty() {
        return drop_all(conn, target, name).await;
    }
    if hosts(conn, target, name).await?.is_empty() {
        return Ok(());
    }
    let literal = fill::plain(&account.password)?;
    run(conn, target, account, &account.statements.revocation, &literal).await
}

/// Locks the account wherever it may log in from, and ends its sessions.
pub(super) async fn shut(conn: &mut Conn, target: &str, name: &str) -> Result<(), EngineError> {
    for host in hosts(conn, target, name).await? {
        let lock = format!("ALTER USER {} ACCOUNT LOCK", at(name, &host));
        conn.query_drop(lock).await.map_err(|error| from_driver(target, &error))?;
    }
    end_sessions(conn, target, name).await
}

/// Changes the password of an account that is there already, wherever it may log in from.
pub(super) async fn set_password(
    conn: &mut Conn,
    target: &str,
    change: &PasswordChange<'_>,
) -> Result<(), EngineError> {
    let literal = fill::plain(change.password)?;
    let hosts = hosts(conn, target, change.username).await?;
    if hosts.is_empty() {
        return Err(fail(target, false, "there is no such account"));
    }
    for host in hosts.iter().filter(|_| change.statements.is_empty()) {
        let user = at(change.username, host);
        let text = SecretString::new(format!("ALTER USER {user} IDENTIFIED BY '{}'", literal.expose()));
        conn.query_drop(text.expose()).await.map_err(|error| from_driver(target, &error))?;
    }
    for statement in change.statements {
        let text = fill::password(change.username, statement, &literal)?;
        conn.query_drop(text.expose()).await.map_err(|error| from_driver(target, &error))?;
    }
    for host in hosts.iter().filter(|_| change.unlock) {
        let open = format!("ALTER USER {} ACCOUNT UNLOCK", at(change.username, host));
        conn.query_drop(open).await.map_err(|error| from_driver(target, &error))?;
    }
    Ok(())
}

/// Changes the password of the session's own login.
pub(super) async fn change_own_password(
    conn: &mut Conn,
    target: &str,
    password: &SecretString,
) -> Result<(), EngineError> {
    let literal = fill::plain(password)?;
    // MariaDB takes `ALTER USER CURRENT_USER()` without an error, and changes nothing.
    let (name, host) = own_account(conn, target).await?;
    let user = at(&name, &host);
    let text = SecretString::new(format!("ALTER USER {user} IDENTIFIED BY '{}'", literal.expose()));
    conn.query_drop(text.expose()).await.map_err(|error| from_driver(target, &error))
}

/// The name and host of the session's own account.
pub(super) async fn own_account(conn: &mut Conn, target: &str) -> Result<(String, String), EngineError> {
    let own: Option<String> =
        conn.query_first("SELECT CURRENT_USER()").await.map_err(|error| from_driver(target, &error))?;
    let own = own.unwrap_or_default();
    let (name, host) = own.rsplit_once('@').ok_or_else(|| fail(target, false, "the login has no name"))?;
    Ok((name.to_owned(), host.to_owned()))
}

/// The names of all accounts.
pub(super) async fn accounts(conn: &mut Conn, target: &str) -> Result<Vec<String>, EngineError> {
    conn.query("SELECT DISTINCT User FROM mysql.user").await.map_err(|error| from_driver(target, &error))
}

/// Whether the login may make accounts, look for them and end their sessions.
pub(super) async fn prove(conn: &mut Conn, target: &str) -> Result<(), EngineError> {
    let lines: Vec<String> = conn.query("SHOW GRANTS").await.map_err(|error| from_driver(target, &error))?;
    let global = |wanted: &[&str]| {
        lines.iter().filter_map(|line| line.split_once(" ON *.* ")).any(|(rights, _)| {
            let mut rights = rights.trim_start_matches("GRANT ").split(',').map(str::trim);
            rights.any(|right| right == "ALL PRIVILEGES" || wanted.contains(&right))
        })
    };
    for (what, wanted) in [
        ("CREATE USER", &["CREATE USER"][..]),
        ("PROCESS", &["PROCESS"]),
        ("CONNECTION ADMIN", &["CONNECTION ADMIN", "CONNECTION_ADMIN", "SUPER"]),
    ] {
        if !global(wanted) {
            return Err(EngineError::bad(format!(
                "the login may not do what is needed: it needs CREATE USER, PROCESS and CONNECTION ADMIN (MySQL: \
                 CONNECTION_ADMIN) on *.*, and SELECT on mysql.user; {what} is missing"
            )));
        }
    }
    hosts(conn, target, "").await.map(drop)
}

/// Runs statements with the account's values; one text may have several.
async fn run(
    conn: &mut Conn,
    target: &str,
    account: &Account,
    statements: &[String],
    literal: &SecretString,
) -> Result<(), EngineError> {
    for statement in statements {
        let text = fill::account(account, statement, literal, FOREVER)?;
        conn.query_drop(text.expose()).await.map_err(|error| from_driver(target, &error))?;
    }
    Ok(())
}

/// Where the user may come from: an account is a name and a host.
async fn hosts(conn: &mut Conn, target: &str, name: &str) -> Result<Vec<String>, EngineError> {
    conn.exec("SELECT Host FROM mysql.user WHERE User = ?", (name,))
        .await
        .map_err(|error| from_driver(target, &error))
}

async fn drop_all(conn: &mut Conn, target: &str, name: &str) -> Result<(), EngineError> {
    for host in hosts(conn, target, name).await? {
        let drop = format!("DROP USER IF EXISTS {}", at(name, &host));
        conn.query_drop(drop).await.map_err(|error| from_driver(target, &error))?;
    }
    Ok(())
}

/// Ends the user's sessions and waits until they are gone. Looks twice after the last one: a login that had passed its
/// check just before shows up only a moment later.
async fn end_sessions(conn: &mut Conn, target: &str, name: &str) -> Result<(), EngineError> {
    let mut empty = 0;
    for _ in 0..LOOKS_MAX {
        let rows: Vec<Row> =
            conn.query("SHOW PROCESSLIST").await.map_err(|error| from_driver(target, &error))?;
        let ids: Vec<u64> =
            rows.iter().filter(|row| is_of(row, name)).filter_map(|row| row.get("Id")).collect();
        empty = if ids.is_empty() { empty + 1 } else { 0 };
        if empty == 2 {
            return Ok(());
        }
        for id in ids {
            match conn.query_drop(format!("KILL CONNECTION {id}")).await {
                Err(mysql_async::Error::Server(refusal)) if refusal.code == NO_SUCH_THREAD => {}
                other => other.map_err(|error| from_driver(target, &error))?,
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(fail(target, true, "sessions of the account did not end in time"))
}

fn is_of(row: &Row, name: &str) -> bool {
    row.get::<Option<String>, _>("User").flatten().is_some_and(|user| user == name)
}

/// `'user'@'host'`, quoted as the session's own `sql_mode` reads it.
pub(super) fn at(name: &str, host: &str) -> String {
    format!("{}@{}", quoted(name), quoted(host))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        if matches!(c, '\'' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(at("o'br\\ien", "%"), "'o''br\\\\ien'@'%'");
    }
}
