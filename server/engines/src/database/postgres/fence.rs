//! Where PostgreSQL keeps the mark: the engine's own login has it as its default `application_name`, which every login may
//! set for itself, and which no session of the engine has, because each says its own. Never touches another login's.

use tokio_postgres::Client;

use super::failure::from_driver;
use crate::EngineError;
use crate::database::fence::{Mark, Term};

const SETTING: &str = "application_name=";

/// What stands there. The session's name came with its login, so whoever reads this can be found by a successor.
pub(super) async fn mark(client: &Client, target: &str, term: &Term) -> Result<Mark, EngineError> {
    let driver = |error| from_driver(target, &error);
    let row = client
        .query_one("SELECT rolconfig FROM pg_catalog.pg_roles WHERE rolname = session_user", &[])
        .await
        .map_err(driver)?;
    let settings: Option<Vec<String>> = row.try_get(0).map_err(driver)?;
    let settings = settings.unwrap_or_default();
    let mark = settings.iter().find_map(|setting| setting.strip_prefix(SETTING));
    Ok(mark.map_or(Mark::Other, |mark| term.read(mark)))
}

pub(super) async fn put_mark(client: &Client, target: &str, term: &Term) -> Result<(), EngineError> {
    // Letters, digits, `-` and `/`: nothing that ends a literal.
    let statement = format!("ALTER ROLE SESSION_USER SET application_name = '{}'", term.mark());
    client.batch_execute(&statement).await.map_err(|error| from_driver(target, &error))
}

/// Ends them; one that is still listed is still counted.
pub(super) async fn end_older(client: &Client, target: &str, term: &Term) -> Result<usize, EngineError> {
    let rows = client
        .query(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
             WHERE usename = session_user AND pid <> pg_catalog.pg_backend_pid() \
             AND pg_catalog.starts_with(application_name, $1) AND application_name <> $2",
            &[&term.sessions_of_vault(), &term.session_name()],
        )
        .await
        .map_err(|error| from_driver(target, &error))?;
    Ok(rows.len())
}
