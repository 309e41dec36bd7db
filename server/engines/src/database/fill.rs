//! Statements with an account's values in them. Never escapes: what would need it is refused.

use coffer_core::secret::SecretString;
use coffer_core::template::{self, StatementValues};
use coffer_core::time::Timestamp;

use super::account::Account;
use crate::EngineError;

/// The statement for `account`, with `literal` where its password belongs. `forever` is the database's own word for
/// an account that only its lease ends.
pub(super) fn account(
    account: &Account,
    statement: &str,
    literal: &SecretString,
    forever: &str,
) -> Result<SecretString, EngineError> {
    fill(&account.username, account.expiration, statement, literal, forever)
}

/// The statement for an account that is there already.
pub(super) fn password(
    username: &str,
    statement: &str,
    literal: &SecretString,
) -> Result<SecretString, EngineError> {
    fill(username, None, statement, literal, "")
}

fn fill(
    username: &str,
    expiration: Option<Timestamp>,
    statement: &str,
    literal: &SecretString,
    forever: &str,
) -> Result<SecretString, EngineError> {
    let refused = |why: template::TemplateError| EngineError::bad(why.to_string());
    // A SCRAM verifier has characters that the template's alphabet does not know, so a random word goes through the
    // template in its place.
    let stand_in = template::password(&mut rand::rng());
    let values = StatementValues::new(username, &stand_in, expiration.unwrap_or(Timestamp::ZERO));
    let statement = match expiration {
        Some(_) => statement.to_owned(),
        None => without_expiration(statement, forever),
    };
    let text = values.and_then(|values| values.render(&statement)).map_err(refused)?;
    Ok(SecretString::new(text.expose().replace(stand_in.expose(), literal.expose())))
}

/// With the database's own word in the place of a time.
fn without_expiration(statement: &str, forever: &str) -> String {
    let mut out = String::with_capacity(statement.len());
    let mut rest = statement;
    while let Some((before, tail)) = rest.split_once("{{") {
        let Some((key, after)) = tail.split_once("}}") else { break };
        out.push_str(before);
        if key.trim() == "expiration" {
            out.push_str(forever);
        } else {
            out.push_str("{{");
            out.push_str(key);
            out.push_str("}}");
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A password as it can stand in a statement between quotes. One with quotes or a backslash, or beyond ASCII, is
/// refused: what it would become depends on settings of the server.
pub(super) fn plain(password: &SecretString) -> Result<SecretString, EngineError> {
    let fits = |c: u8| (b' '..=b'~').contains(&c) && !matches!(c, b'\'' | b'"' | b'`' | b'\\');
    if password.is_empty() || !password.expose().bytes().all(fits) {
        return Err(EngineError::bad(
            "the password has characters that cannot stand in a statement: quotes, backslashes, or others than \
             ASCII's; take them out of the password policy",
        ));
    }
    Ok(SecretString::copy_of(password.expose()))
}

/// The name of an account that the engine made. Names outside the alphabet are refused, not escaped.
pub(super) fn checked(username: &str) -> Result<&str, EngineError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
    if username.is_empty() || username.len() > template::MAX_USERNAME_BYTES || !username.bytes().all(allowed)
    {
        return Err(EngineError::Corrupt("account name outside its alphabet"));
    }
    Ok(username)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_that_would_end_a_literal_are_refused() {
        for bad in ["", "it's", "a\"b", "a\\b", "a`b", "ä", "a\nb"] {
            assert!(plain(&SecretString::copy_of(bad)).is_err(), "{bad}");
        }
        assert_eq!(plain(&SecretString::copy_of("a;{{b}}#%&")).unwrap().expose(), "a;{{b}}#%&");
    }

    #[test]
    fn names_with_quotes_are_refused() {
        for bad in ["", "a\"b", "a'b", "a b", "a;b", "a\\b", "ä", &"x".repeat(64)] {
            assert!(checked(bad).is_err(), "{bad}");
        }
        assert_eq!(checked("v-a_b").unwrap(), "v-a_b");
    }
}
