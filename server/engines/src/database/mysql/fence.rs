//! How MySQL and MariaDB know sessions and keep the mark. Both work on every version with the rights that the engine needs
//! anyhow; connection attributes would not (MariaDB does not keep them by default). Never touches another login's account.
//!
//! *Sessions* hold two named locks: a place among this vault's, and the same place among its term's. A place without its
//! term's is an earlier session. *The mark* is two limits of the engine's own account that no server ever reaches:
//! `MAX_QUERIES_PER_HOUR` names the vault, `MAX_UPDATES_PER_HOUR` the epoch, each with 2^31 added.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use super::failure::from_driver;
use super::sql::{NO_SUCH_THREAD, at, own_account};
use crate::EngineError;
use crate::database::driver::fail;
use crate::database::fence::{Mark, Term};

/// More sessions than a vault has at one server.
const PLACES: u32 = 256;
/// Above every limit that somebody may have set on purpose.
const HIGH: u64 = 1 << 31;

/// What stands there; only for a session that has its place.
pub(super) async fn mark(conn: &mut Conn, target: &str, term: &Term) -> Result<Mark, EngineError> {
    Ok(match limits(conn, target).await? {
        (vault, epoch) if vault == number(term) => term.compare(epoch.saturating_sub(HIGH), true),
        _ => Mark::Other,
    })
}

pub(super) async fn put_mark(conn: &mut Conn, target: &str, term: &Term) -> Result<(), EngineError> {
    let (vault, epoch) = limits(conn, target).await?;
    if (vault, epoch) != (0, 0) && (vault < HIGH || epoch < HIGH) {
        return Err(fail(
            target,
            false,
            "the engine's own login has MAX_QUERIES_PER_HOUR or MAX_UPDATES_PER_HOUR, where this vault keeps its mark: \
             both must be 0",
        ));
    }
    let (name, host) = own_account(conn, target).await?;
    let (vault, epoch) = (number(term), HIGH + term.epoch.min(HIGH - 1));
    let statement = format!(
        "ALTER USER {} WITH MAX_QUERIES_PER_HOUR {vault} MAX_UPDATES_PER_HOUR {epoch}",
        at(&name, &host)
    );
    conn.query_drop(statement).await.map_err(|error| from_driver(target, &error))
}

/// Ends them; one that is still there is still counted.
pub(super) async fn end_older(conn: &mut Conn, target: &str, term: &Term) -> Result<usize, EngineError> {
    let driver = |error| from_driver(target, &error);
    let looks: Vec<String> = (0..PLACES)
        .map(|place| {
            format!("IS_USED_LOCK('{}'), IS_USED_LOCK('{}')", of_vault(term, place), of_term(term, place))
        })
        .collect();
    let row: Option<Row> = conn.query_first(format!("SELECT {}", looks.join(", "))).await.map_err(driver)?;
    let holders: Vec<Option<u64>> =
        row.map(Row::unwrap).unwrap_or_default().into_iter().map(holder).collect();
    let mut older = 0;
    for pair in holders.chunks_exact(2) {
        let (Some(id), own) = (pair[0], pair[1]) else { continue };
        if own == Some(id) {
            continue;
        }
        older += 1;
        match conn.query_drop(format!("KILL CONNECTION {id}")).await {
            Err(mysql_async::Error::Server(refusal)) if refusal.code == NO_SUCH_THREAD => {}
            other => other.map_err(driver)?,
        }
    }
    Ok(older)
}

/// Makes the session one that is found, until it ends or is reset.
pub(super) async fn take_place(conn: &mut Conn, target: &str, term: &Term) -> Result<(), EngineError> {
    let driver = |error| from_driver(target, &error);
    let first = rand::random_range(0..PLACES);
    for place in (0..PLACES).map(|n| (first + n) % PLACES) {
        // The term's first: whoever holds the vault's without it is taken for an earlier session.
        let (own, vault) = (of_term(term, place), of_vault(term, place));
        if !lock(conn, target, &own).await? {
            continue;
        }
        if lock(conn, target, &vault).await? {
            return Ok(());
        }
        conn.query_drop(format!("DO RELEASE_LOCK('{own}')")).await.map_err(driver)?;
    }
    Err(fail(target, true, "this vault has too many sessions at the database"))
}

/// Whether the session has got the lock.
async fn lock(conn: &mut Conn, target: &str, name: &str) -> Result<bool, EngineError> {
    let got: Option<Option<u8>> = conn
        .query_first(format!("SELECT GET_LOCK('{name}', 0)"))
        .await
        .map_err(|error| from_driver(target, &error))?;
    Ok(got.flatten() == Some(1))
}

/// The limits that carry the mark.
async fn limits(conn: &mut Conn, target: &str) -> Result<(u64, u64), EngineError> {
    let account = own_account(conn, target).await?;
    let found: Option<(u64, u64)> = conn
        .exec_first("SELECT max_questions, max_updates FROM mysql.user WHERE User = ? AND Host = ?", account)
        .await
        .map_err(|error| from_driver(target, &error))?;
    found.ok_or_else(|| fail(target, false, "the login does not find its own account in mysql.user"))
}

fn number(term: &Term) -> u64 {
    HIGH + term.vault_number()
}

fn of_vault(term: &Term, place: u32) -> String {
    format!("{}p{place}", term.sessions_of_vault())
}

fn of_term(term: &Term, place: u32) -> String {
    format!("{}/p{place}", term.session_name())
}

/// Who holds a lock, if somebody does.
fn holder(value: Value) -> Option<u64> {
    mysql_async::from_value_opt::<Option<u64>>(value).ok().flatten()
}
