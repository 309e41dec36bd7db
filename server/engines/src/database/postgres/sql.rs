//! What is done at the database: accounts are made, prolonged and ended. Never puts anything into a statement
//! that has not passed the account names' alphabet or is not a SCRAM verifier made here.

use coffer_core::secret::SecretString;
use postgres_protocol::password::scram_sha_256;
use tokio_postgres::{Client, GenericClient};

use super::failure::from_driver;
use crate::EngineError;
use crate::database::account::Account;
use crate::database::connection::PasswordForm;
use crate::database::driver::{LOOK_EVERY, LOOKS_MAX, PasswordChange, fail};
use crate::database::fill;

/// For accounts that only their lease ends.
const FOREVER: &str = "infinity";

/// Creates the account, all statements in one transaction. If it is there already, an earlier attempt got
/// through: it is made sure that the password is the right one.
pub(super) async fn create(client: &mut Client, target: &str, account: &Account) -> Result<(), EngineError> {
    let driver = |error| from_driver(target, &error);
    let name = quoted(&account.username)?;
    let password = password_literal(account)?;
    let transaction = client.transaction().await.map_err(driver)?;
    if oid(&transaction, target, &account.username).await?.is_some() {
        let statement = SecretString::new(format!("ALTER ROLE {name} PASSWORD '{}'", password.expose()));
        transaction.batch_execute(statement.expose()).await.map_err(driver)?;
    } else {
        for statement in &account.statements.creation {
            let text = fill::account(account, statement, &password, FOREVER)?;
            transaction.batch_execute(text.expose()).await.map_err(driver)?;
        }
        if oid(&transaction, target, &account.username).await?.is_none() {
            return Err(fail(target, false, "the creation statements did not create the role {{name}}"));
        }
    }
    transaction.commit().await.map_err(driver)
}

/// Runs the role's renew statements, if it has any. The account's own expiration already is its last one.
pub(super) async fn renew(client: &mut Client, target: &str, account: &Account) -> Result<(), EngineError> {
    let driver = |error| from_driver(target, &error);
    let password = password_literal(account)?;
    let transaction = client.transaction().await.map_err(driver)?;
    if oid(&transaction, target, &account.username).await?.is_none() {
        return Err(fail(target, false, "the account is gone"));
    }
    for statement in &account.statements.renew {
        let text = fill::account(account, statement, &password, FOREVER)?;
        transaction.batch_execute(text.expose()).await.map_err(driver)?;
    }
    transaction.commit().await.map_err(driver)
}

/// Takes the account away: nobody can log in, whoever is in is thrown out, then the account is dropped. In this
/// order, and the first two whatever the role's own statements are. An absent account is a success.
pub(super) async fn revoke(client: &mut Client, target: &str, account: &Account) -> Result<(), EngineError> {
    let driver = |error| from_driver(target, &error);
    let name = quoted(&account.username)?;
    if !shut(client, target, &account.username).await? {
        return Ok(());
    }
    let transaction = client.transaction().await.map_err(driver)?;
    if account.statements.revocation.is_empty() {
        let statements =
            format!("REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name}");
        transaction.batch_execute(&statements).await.map_err(driver)?;
    } else {
        let password = password_literal(account)?;
        for statement in &account.statements.revocation {
            let text = fill::account(account, statement, &password, FOREVER)?;
            transaction.batch_execute(text.expose()).await.map_err(driver)?;
        }
    }
    transaction.commit().await.map_err(driver)
}

/// Locks the role and ends its sessions. Whether there is one.
pub(super) async fn shut(client: &Client, target: &str, username: &str) -> Result<bool, EngineError> {
    let driver = |error| from_driver(target, &error);
    let Some(oid) = oid(client, target, username).await? else { return Ok(false) };
    let name = identifier(client, target, username).await?;
    // Committed on its own: a session that opens after this cannot exist.
    client.batch_execute(&format!("ALTER ROLE {name} NOLOGIN")).await.map_err(driver)?;
    join(client, target, username, &name).await?;
    end_sessions(client, target, oid).await?;
    Ok(true)
}

/// Any name as an identifier, quoted by the server.
async fn identifier(
    client: &impl GenericClient,
    target: &str,
    username: &str,
) -> Result<String, EngineError> {
    let driver = |error| from_driver(target, &error);
    let row =
        client.query_one("SELECT pg_catalog.quote_ident($1::text)", &[&username]).await.map_err(driver)?;
    row.try_get(0).map_err(driver)
}

/// Who is no superuser must be a member of a role to end its sessions and to take over what it owns.
async fn join(client: &Client, target: &str, username: &str, name: &str) -> Result<(), EngineError> {
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
async fn end_sessions(client: &Client, target: &str, oid: u32) -> Result<(), EngineError> {
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

/// The names of all roles.
pub(super) async fn accounts(client: &impl GenericClient, target: &str) -> Result<Vec<String>, EngineError> {
    let driver = |error| from_driver(target, &error);
    let rows = client.query("SELECT rolname::text FROM pg_catalog.pg_roles", &[]).await.map_err(driver)?;
    rows.iter().map(|row| row.try_get(0).map_err(driver)).collect()
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

/// Changes the password of a role that is there already.
pub(super) async fn set_password(
    client: &mut Client,
    target: &str,
    change: &PasswordChange<'_>,
) -> Result<(), EngineError> {
    let driver = |error| from_driver(target, &error);
    let literal = literal(change.password, change.plain)?;
    let transaction = client.transaction().await.map_err(driver)?;
    if oid(&transaction, target, change.username).await?.is_none() {
        return Err(fail(target, false, "there is no such account"));
    }
    let name = identifier(&transaction, target, change.username).await?;
    if change.statements.is_empty() {
        let statement = SecretString::new(format!("ALTER ROLE {name} PASSWORD '{}'", literal.expose()));
        transaction.batch_execute(statement.expose()).await.map_err(driver)?;
    }
    if change.unlock {
        transaction.batch_execute(&format!("ALTER ROLE {name} LOGIN")).await.map_err(driver)?;
    }
    for statement in change.statements {
        let text = fill::password(change.username, statement, &literal)?;
        transaction.batch_execute(text.expose()).await.map_err(driver)?;
    }
    transaction.commit().await.map_err(driver)
}

fn password_literal(account: &Account) -> Result<SecretString, EngineError> {
    literal(&account.password, account.form == PasswordForm::Password)
}

/// What stands for the password in statements: a verifier of letters, digits and `+/=:$-`, none of which ends a
/// literal, or the password as it is.
fn literal(password: &SecretString, plain: bool) -> Result<SecretString, EngineError> {
    match plain {
        false => Ok(SecretString::new(scram_sha_256(password.expose().as_bytes()))),
        true => fill::plain(password),
    }
}

/// The name as an identifier.
fn quoted(username: &str) -> Result<String, EngineError> {
    Ok(format!("\"{}\"", fill::checked(username)?))
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
        let text = fill::account(&account, statement, &password_literal(&account).unwrap(), FOREVER).unwrap();
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
        let literal = password_literal(&account).unwrap();
        let text = fill::account(&account, "x {{username}} '{{password}}' {{expiration}}", &literal, FOREVER);
        assert_eq!(text.unwrap().expose(), "x v-a-b-1 'Abc-123' infinity");
    }
}
