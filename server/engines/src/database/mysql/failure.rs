//! What a MySQL's refusals mean. Statement texts and values never get into a message.

use mysql_async::{DriverError, Error, IoError, ServerError, TlsError};

use crate::EngineError;
use crate::database::driver::fail;

const MESSAGE_CHARS_MAX: usize = 200;
/// Numbers of <https://mariadb.com/kb/en/mariadb-error-code-reference/> whose message names objects, not values. Not
/// 1064, whose message repeats the statement.
const TELLING: [u16; 17] =
    [1040, 1044, 1045, 1049, 1130, 1141, 1142, 1146, 1203, 1205, 1226, 1227, 1396, 1410, 1698, 1819, 4151];
/// Waiting may help: no room, a lock, a shutdown, a session ended by somebody, a time limit.
const PASSING: [u16; 13] = [1040, 1041, 1053, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1226, 1927, 1969];
/// Name or password are wrong, or the account is locked.
const LOGIN: [u16; 4] = [1045, 1698, 3118, 4151];

/// From what the driver says.
pub(super) fn from_driver(target: &str, error: &Error) -> EngineError {
    match error {
        Error::Server(refusal) => fail(target, PASSING.contains(&refusal.code), describe(refusal)),
        Error::Io(IoError::Tls(why)) => fail(target, false, format!("TLS: {}", tls_words(why))),
        Error::Io(IoError::Io(io)) => {
            match io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(why) => fail(target, false, format!("TLS: {why}")),
                None => fail(target, true, "the database cannot be reached"),
            }
        }
        Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            fail(target, true, "the database does not speak TLS here")
        }
        _ => fail(target, true, "the database cannot be reached"),
    }
}

/// Whether the database said that name or password are wrong.
pub(super) fn is_login_refusal(error: &Error) -> bool {
    matches!(error, Error::Server(refusal) if LOGIN.contains(&refusal.code))
}

fn tls_words(why: &TlsError) -> String {
    match why {
        TlsError::Tls(inner) => inner.to_string(),
        _ => "the connection could not be protected".to_owned(),
    }
}

fn describe(refusal: &ServerError) -> String {
    let ServerError { code, state, message } = refusal;
    if !TELLING.contains(code) {
        return format!("the database refused: error {code}, SQLSTATE {state}");
    }
    let message: String = message.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect();
    format!("the database refused: {message} (error {code}, SQLSTATE {state})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_does_not_repeat_the_statement() {
        let refusal = |code: u16, message: &str| {
            Error::Server(ServerError { code, message: message.to_owned(), state: "42000".to_owned() })
        };
        let error = from_driver("config/x", &refusal(1064, "near 'IDENTIFIED BY 'hunter2'' at line 1"));
        assert!(!error.to_string().contains("hunter2") && error.to_string().contains("1064"), "{error}");
        assert!(!error.retriable());
        let error = from_driver("config/x", &refusal(1040, "Too many connections"));
        assert!(error.retriable() && error.to_string().contains("Too many connections"), "{error}");
        assert!(is_login_refusal(&refusal(1045, "")) && !is_login_refusal(&refusal(1044, "")));
    }
}
