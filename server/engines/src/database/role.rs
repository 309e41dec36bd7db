//! `roles/<name>`: how an account is made, prolonged and ended. Never runs anything.

use std::time::Duration;

use coffer_barrier::RecordKind;
use coffer_core::template::check_statement;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::passwords;
use crate::engine::EngineRequest;
use crate::input::{self, Labels, object};
use crate::{EngineError, ReadView, WriteView};

const FORMAT: u8 = 1;
const STATEMENTS_MAX: usize = 32;
/// All statements of a role together: they are copied into each of its leases.
pub(super) const STATEMENT_BYTES_MAX: usize = 64 * 1024;

/// The statements of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Statements {
    pub(super) creation: Vec<String>,
    pub(super) renew: Vec<String>,
    pub(super) revocation: Vec<String>,
    /// What takes a creation back that failed half way, where the database knows no transactions for it.
    #[serde(default)]
    pub(super) rollback: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Role {
    format: u8,
    pub(super) connection: String,
    pub(super) statements: Statements,
    /// In milliseconds; zero for the mount's.
    default_ttl: u64,
    max_ttl: u64,
    labels: Option<Labels>,
    /// Instead of the connection's.
    #[serde(default)]
    pub(super) password_policy: Option<String>,
}

impl Role {
    /// What is stored once the request is carried out.
    pub(super) fn merged(stored: Option<Self>, req: &EngineRequest<'_>) -> Result<Self, EngineError> {
        let body = req.body;
        if input::text(body, "credential_type")?.is_some_and(|kind| kind != "password") {
            return Err(EngineError::bad("credential_type: only password is supported"));
        }
        let mut role = stored.unwrap_or(Self {
            format: FORMAT,
            connection: String::new(),
            statements: Statements::default(),
            default_ttl: 0,
            max_ttl: 0,
            labels: None,
            password_policy: None,
        });
        if let Some(name) = input::text(body, "db_name")? {
            name.clone_into(&mut role.connection);
        }
        if role.connection.is_empty() {
            return Err(EngineError::bad("empty database name attribute"));
        }
        super::check_name(&role.connection)?;
        for (field, slot) in [
            ("creation_statements", &mut role.statements.creation),
            ("renew_statements", &mut role.statements.renew),
            ("revocation_statements", &mut role.statements.revocation),
            ("rollback_statements", &mut role.statements.rollback),
        ] {
            if let Some(statements) = input::texts(body, field, false)? {
                *slot = checked(field, statements)?;
            }
        }
        if let Some(policy) = passwords::of_role(body)? {
            role.password_policy = Some(policy).filter(|policy| !policy.is_empty());
        }
        role.check_creation()?;
        if let Some(ttl) = input::duration(body, "default_ttl")? {
            role.default_ttl = millis(ttl);
        }
        if let Some(ttl) = input::duration(body, "max_ttl")? {
            role.max_ttl = millis(ttl);
        }
        if role.max_ttl != 0 && role.default_ttl > role.max_ttl {
            return Err(EngineError::bad("default_ttl is longer than max_ttl"));
        }
        if let Some(labels) = input::labels(body)? {
            role.labels = Some(labels);
        }
        Ok(role)
    }

    fn check_creation(&self) -> Result<(), EngineError> {
        let Statements { creation, renew, revocation, rollback } = &self.statements;
        if creation.is_empty() {
            return Err(EngineError::bad("empty creation statements: creation_statements is required"));
        }
        let bytes: usize =
            [creation, renew, revocation, rollback].into_iter().flatten().map(String::len).sum();
        if bytes > STATEMENT_BYTES_MAX {
            return Err(EngineError::bad(format!(
                "the statements have more than {STATEMENT_BYTES_MAX} bytes"
            )));
        }
        let squeezed: String = creation.concat().split_whitespace().collect();
        let names = squeezed.contains("{{name}}") || squeezed.contains("{{username}}");
        if !names || !squeezed.contains("{{password}}") {
            return Err(EngineError::bad("creation_statements must use {{name}} and {{password}}"));
        }
        Ok(())
    }

    pub(super) fn ttl(&self) -> Duration {
        Duration::from_millis(self.default_ttl)
    }

    pub(super) fn max_ttl(&self) -> Duration {
        Duration::from_millis(self.max_ttl)
    }

    pub(super) fn json(&self) -> Map<String, Value> {
        let mut shown = object(json!({
            "db_name": self.connection,
            "creation_statements": self.statements.creation,
            "renew_statements": self.statements.renew,
            "revocation_statements": self.statements.revocation,
            "rollback_statements": self.statements.rollback,
            "default_ttl": self.default_ttl / 1000,
            "max_ttl": self.max_ttl / 1000,
            "credential_type": "password",
            "custom_metadata": self.labels,
        }));
        if let Some(policy) = &self.password_policy {
            shown.insert("credential_config".to_owned(), json!({ "password_policy": policy }));
        }
        shown
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn checked(field: &str, statements: Vec<String>) -> Result<Vec<String>, EngineError> {
    let statements: Vec<String> =
        statements.into_iter().filter(|statement| !statement.trim().is_empty()).collect();
    if statements.len() > STATEMENTS_MAX {
        return Err(EngineError::bad(format!("{field} has more than {STATEMENTS_MAX} statements")));
    }
    for statement in &statements {
        check_statement(statement).map_err(|why| EngineError::bad(format!("{field}: {why}")))?;
        if statement.contains('\0') {
            return Err(EngineError::bad(format!("{field}: a statement has a zero byte")));
        }
    }
    Ok(statements)
}

fn row(name: &str) -> String {
    format!("roles/{name}")
}

pub(super) async fn load(view: &ReadView<'_>, name: &str) -> Result<Option<Role>, EngineError> {
    let stored: Option<Role> = view.record(RecordKind::Entry, &row(name), "database role").await?;
    if stored.as_ref().is_some_and(|stored| stored.format != FORMAT) {
        return Err(EngineError::Corrupt("database role of an unknown format"));
    }
    Ok(stored)
}

pub(super) async fn store(view: &mut WriteView<'_>, name: &str, role: &Role) -> Result<(), EngineError> {
    view.link(&row(name)).await?;
    view.put_record(RecordKind::Entry, &row(name), role).await
}

/// Whether there was one.
pub(super) async fn delete(view: &mut WriteView<'_>, name: &str) -> Result<bool, EngineError> {
    if view.reading().get(RecordKind::Entry, &row(name)).await?.is_none() {
        return Ok(false);
    }
    view.delete(RecordKind::Entry, &row(name)).await?;
    view.unlink(&row(name)).await?;
    Ok(true)
}
