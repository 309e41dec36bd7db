//! What a database's refusals mean. Statement texts and values never get into a message.

use tokio_postgres::error::{DbError, SqlState};

use crate::EngineError;
use crate::database::driver::fail;

const MESSAGE_CHARS_MAX: usize = 200;

/// From what the driver says.
pub(super) fn from_driver(target: &str, error: &tokio_postgres::Error) -> EngineError {
    if let Some(refusal) = error.as_db_error() {
        return fail(target, passing(refusal.code()), describe(refusal));
    }
    if let Some(why) = tls_refusal(error) {
        return fail(target, false, format!("TLS: {why}"));
    }
    let tls = error.to_string().contains("TLS");
    let message = if tls { "the database does not speak TLS here" } else { "the database cannot be reached" };
    fail(target, true, message)
}

/// Whether the database said that name or password are wrong.
pub(super) fn is_login_refusal(error: &tokio_postgres::Error) -> bool {
    let codes = [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION];
    error.code().is_some_and(|code| codes.contains(code))
}

fn describe(refusal: &DbError) -> String {
    let code = refusal.code().code();
    // Only classes whose message names objects, not values: privileges, missing or existing things, syntax.
    if !matches!(code.get(..2), Some("28" | "2B" | "42" | "55" | "57" | "08" | "53" | "3D")) {
        return format!("the database refused: SQLSTATE {code}");
    }
    let message: String =
        refusal.message().chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect();
    if message.contains("SCRAM-SHA-256") || message.contains('\'') {
        return format!("the database refused: SQLSTATE {code}");
    }
    format!("the database refused: {message} (SQLSTATE {code})")
}

/// Whether waiting may help: connection trouble, no room, a restart, a lock, a race with another transaction.
fn passing(code: &SqlState) -> bool {
    matches!(code.code().get(..2), Some("08" | "40" | "53" | "55" | "57"))
        || *code == SqlState::T_R_SERIALIZATION_FAILURE
        || *code == SqlState::INTERNAL_ERROR
}

/// The TLS library's own word, if it refused: trying again does not help against a wrong certificate.
fn tls_refusal(error: &tokio_postgres::Error) -> Option<String> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(refusal) = cause.downcast_ref::<rustls::Error>() {
            return Some(refusal.to_string());
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && let Some(refusal) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return Some(refusal.to_string());
        }
        next = cause.source();
    }
    None
}
