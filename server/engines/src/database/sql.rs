//! What is done at the database: accounts are made, prolonged and ended. Never puts anything into a statement
//! that has not passed the account names' alphabet or is not a SCRAM verifier made here.

use std::time::Duration;

use coffer_core::secret::SecretString;
use coffer_core::template::{self, StatementValues};
use coffer_core::time::Timestamp;
use deadpool_postgres::ClientWrapper;
use postgres_protocol::password::scram_sha_256;
use tokio_postgres::GenericClient;

use super::account::Account;
use super::connection::PasswordForm;
use super::failure::{fail, from_driver};
use crate::EngineError;

/// How often and how long to look whether ended sessions are gone.
const LOOKS_MAX: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Creates the account, all statements in one transaction. If it is there already, an earlier attempt got
/// through: it is made sure that the password is the right one.
pub(super) async fn create(
    client: &mut ClientWrapper,
    target: &str,
    account: &Account,
) -> Result<(), EngineError> {
    let driver = |error| from_driver(target, &error);
    let name = quoted(&account.username)?;
    let password = password_literal(account);
    let transaction = tokio_postgres::Client::transaction(client).await.map_err(driver)?;
    if oid(&transaction, target, &account.username).await?.is_some() {
        let statement = SecretString::new(format!("ALTER ROLE {name} PASSWORD '{}'", password.expose()));
        transaction.batch_execute(statement.expose()).await.map_err(driver)?;
    } else {
        for statement in &account.statements.creation {
            let text = fill(account, statement, &password)?;
            transaction.batch_execute(text.expose()).await.map_err(driver)?;
        }
        if oid(&transaction, target, &account.username).await?.is_none() {
            return Err(fail(target, false, "the creation statements did not create the role {{name}}"));
        }
    }
    transaction.commit().await.map_err(driver)
}

/// Runs the role's renew statements, if it has any. The account's own expiration already is its last one.
pub(super) async fn renew(
    client: &mut ClientWrapper,
    target: &str,
    account: &Account,
) -> Result<(), EngineError> {
    let driver = |error| from_driver(target, &error);
    let password = password_literal(account);
    let transaction = tokio_postgres::Client::transaction(client).await.map_err(driver)?;
    if oid(&transaction, target, &account.username).await?.is_none() {
        return Err(fail(target, false, "the account is gone"));
    }
    for statement in &account.statements.renew {
        let text = fill(account, statement, &password)?;
        transaction.batch_execute(text.expose()).await.map_err(driver)?;
    }
    transaction.commit().await.map_err(driver)
}

/// Takes the account away: nobody can log in, whoever is in is thrown out, then the account is dropped. In this
/// order, and the first two whatever the role's own statements are. An absent account is a success.
pub(super) async fn revoke(
    client: &mut ClientWrapper,
    target: &str,
    account: &Account,
) -> Result<(), EngineError> {
    let driver = |error| from_driver(target, &error);
    let name = quoted(&account.username)?;
    let Some(oid) = oid(&**client, target, &account.username).await? else { return Ok(()) };
    // Committed on its own: a session that opens after this cannot exist.
    client.batch_execute(&format!("ALTER ROLE {name} NOLOGIN")).await.map_err(driver)?;
    join(client, target, &account.username, &name).await?;
    end_sessions(client, target, oid).await?;
    let transaction = tokio_postgres::Client::transaction(client).await.map_err(driver)?;
    if account.statements.revocation.is_empty() {
        let statements =
            format!("REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name}");
        transaction.batch_execute(&statements).await.map_err(driver)?;
    } else {
        let password = password_literal(account);
        for statement in &account.statements.revocation {
            let text = fill(account, statement, &password)?;
            transaction.batch_execute(text.expose()).await.map_err(driver)?;
        }
    }
    transaction.commit().await.map_err(driver)
}

/// Who is no superuser must be a member of a role to end its sessions and to take over what it owns.
async fn join(client: &ClientWrapper, target: &str, username: &str, name: &str) -> Result<(), EngineError> {
    let driver = |error| from_driver(target, &error);
    let row = client
        .query_one("SELECT pg_catalog.pg_has_role(current_user, $1::text::name, 'USAGE')", &[&username])
        .await
        .map_err(driver)?;
    if row.try_get::<_, bool>(0).map_err(driver)? {
        return Ok(());
    }
    client.batch_execute(&format!("GRANT {name} TO CURRENT_USER")).await.map_err(driver)
}

/// Ends the role's sessions and waits until they are gone. Looks twice after the last one: a login that had
/// passed its check just before shows up only a moment later.
async fn end_sessions(client: &ClientWrapper, target: &str, oid: u32) -> Result<(), EngineError> {
    let driver = |error| from_driver(target, &error);
    let mut empty = 0;
    for _ in 0..LOOKS_MAX {
        let rows = client
            .query("SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usesysid = $1", &[&oid])
            .await
            .map_err(driver)?;
        empty = if rows.is_empty() { empty + 1 } else { 0 };
        if empty == 2 {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(fail(target, true, "sessions of the account did not end in time"))
}

async fn oid(client: &impl GenericClient, target: &str, username: &str) -> Result<Option<u32>, EngineError> {
    let driver = |error| from_driver(target, &error);
    let row = client
        .query_opt("SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1::text::name", &[&username])
        .await
        .map_err(driver)?;
    row.map(|row| row.try_get(0).map_err(driver)).transpose()
}

/// Whether the login may make accounts.
pub(super) async fn may_create_roles(client: &impl GenericClient, target: &str) -> Result<bool, EngineError> {
    let driver = |error| from_driver(target, &error);
    let row = client
        .query_one(
            "SELECT rolcreaterole OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user",
            &[],
        )
        .await
        .map_err(driver)?;
    row.try_get(0).map_err(driver)
}

/// Changes the password of the session's own login. The statement carries a verifier, never the password.
pub(super) async fn change_own_password(
    client: &impl GenericClient,
    target: &str,
    password: &SecretString,
) -> Result<(), EngineError> {
    let verifier = scram_sha_256(password.expose().as_bytes());
    let statement = SecretString::new(format!("ALTER ROLE CURRENT_USER PASSWORD '{verifier}'"));
    client.batch_execute(statement.expose()).await.map_err(|error| from_driver(target, &error))
}

/// What stands for the password in statements: letters, digits and `+/=:$-`, none of which ends a literal.
fn password_literal(account: &Account) -> SecretString {
    match account.form {
        PasswordForm::ScramSha256 => SecretString::new(scram_sha_256(account.password.expose().as_bytes())),
        PasswordForm::Password => SecretString::copy_of(account.password.expose()),
    }
}

/// A statement with its values. The verifier has characters that the template's alphabet does not know, so a
/// random word goes through the template in its place.
fn fill(account: &Account, statement: &str, literal: &SecretString) -> Result<SecretString, EngineError> {
    let refused = |why: template::TemplateError| EngineError::bad(why.to_string());
    let stand_in = template::password(&mut rand::rng());
    let forever = account.expiration.is_none();
    let expiration = account.expiration.unwrap_or(Timestamp::ZERO);
    let values = StatementValues::new(&account.username, &stand_in, expiration).map_err(refused)?;
    let statement = if forever { without_expiration(statement) } else { statement.to_owned() };
    let text = values.render(&statement).map_err(refused)?;
    Ok(SecretString::new(text.expose().replace(stand_in.expose(), literal.expose())))
}

/// For accounts that only their lease ends, PostgreSQL's own word takes the place of a time.
fn without_expiration(statement: &str) -> String {
    let mut out = String::with_capacity(statement.len());
    let mut rest = statement;
    while let Some((before, tail)) = rest.split_once("{{") {
        let Some((key, after)) = tail.split_once("}}") else { break };
        out.push_str(before);
        if key.trim() == "expiration" {
            out.push_str("infinity");
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

/// The name as an identifier. Names outside the alphabet are refused, not escaped.
fn quoted(username: &str) -> Result<String, EngineError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
    if username.is_empty() || username.len() > template::MAX_USERNAME_BYTES || !username.bytes().all(allowed)
    {
        return Err(EngineError::Corrupt("account name outside its alphabet"));
    }
    Ok(format!("\"{username}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(form: PasswordForm, max_ttl: u64) -> Account {
        let payload = serde_json::json!({
            "format": 1, "connection": "c", "username": "v-a-b-1", "password": "Abc-123", "form": form,
            "expiration": (max_ttl != 0).then_some(max_ttl),
            "statements": { "creation": [], "renew": [], "revocation": [] },
        });
        serde_json::from_value(payload).unwrap()
    }

    #[test]
    fn statements_carry_a_verifier_and_not_the_password() {
        let account = account(PasswordForm::ScramSha256, 1_795_000_000_000);
        let statement = "CREATE ROLE \"{{name}}\" PASSWORD '{{password}}' VALID UNTIL '{{ expiration }}'";
        let text = fill(&account, statement, &password_literal(&account)).unwrap();
        let text = text.expose();
        assert!(text.starts_with("CREATE ROLE \"v-a-b-1\" PASSWORD 'SCRAM-SHA-256$4096:"), "{text}");
        assert!(
            !text.contains("Abc-123") && text.ends_with("VALID UNTIL '2026-11-18 11:06:40+0000'"),
            "{text}"
        );
        assert_eq!(text.matches('\'').count(), 4);
    }

    #[test]
    fn plain_passwords_and_endless_accounts() {
        let account = account(PasswordForm::Password, 0);
        let text =
            fill(&account, "x {{username}} '{{password}}' {{expiration}}", &password_literal(&account));
        assert_eq!(text.unwrap().expose(), "x v-a-b-1 'Abc-123' infinity");
    }

    #[test]
    fn names_with_quotes_are_refused() {
        for bad in ["", "a\"b", "a'b", "a b", "a;b", "a\\b", "ä", &"x".repeat(64)] {
            assert!(quoted(bad).is_err(), "{bad}");
        }
        assert_eq!(quoted("v-a_b").unwrap(), "\"v-a_b\"");
    }
}
