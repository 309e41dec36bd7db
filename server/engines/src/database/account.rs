//! An account at a database, from before it exists until after it is gone: the payload of its lease. Never
//! talks to the database.

use std::time::Duration;

use coffer_core::secret::{SecretBytes, SecretString};
use coffer_core::template;
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::connection::{Connection, PasswordForm};
use super::role::{Role, Statements};
use super::signature::Signer;
use super::username;
use crate::engine::{EngineRequest, Issue};
use crate::{EngineError, codec};

const FORMAT: u8 = 1;
const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// Everything that is needed to make, prolong and end an account, also after its role is gone.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Account {
    format: u8,
    pub(super) connection: String,
    pub(super) username: String,
    #[serde(with = "codec::secret_text")]
    pub(super) password: SecretString,
    pub(super) form: PasswordForm,
    /// When the database itself stops letting it in; none for never (its lease ends it).
    pub(super) expiration: Option<Timestamp>,
    pub(super) statements: Statements,
}

impl Account {
    pub(super) fn generate(
        role_name: &str,
        role: &Role,
        connection: &Connection,
        req: &EngineRequest<'_>,
        password: SecretString,
        signer: &Signer<'_>,
    ) -> Result<Self, EngineError> {
        let (now, display_name) = (req.now, req.display_name);
        let bytes_max = connection.name_bytes_max()?;
        let role_name = short(role_name);
        let username = match connection.username_template.as_str() {
            "" => signer.sign(template::username(display_name, role_name, bytes_max, now, &mut rand::rng())),
            own => username::render(own, display_name, role_name, now, bytes_max)?,
        };
        let max = role.max_ttl();
        Ok(Self {
            format: FORMAT,
            connection: role.connection.clone(),
            username,
            password,
            form: connection.form,
            expiration: (max != Duration::ZERO).then(|| now.plus(max)),
            statements: role.statements.clone(),
        })
    }

    pub(super) fn issue(&self, role: &Role) -> Result<Issue, EngineError> {
        let mut data = Map::new();
        data.insert("username".to_owned(), Value::String(self.username.clone()));
        data.insert("password".to_owned(), Value::String(self.password.expose().to_owned()));
        Ok(Issue {
            payload: codec::encode(self, "credential", PAYLOAD_BYTES_MAX)?,
            data,
            ttl: role.ttl(),
            max_ttl: role.max_ttl(),
            renewable: true,
            target: target(&self.connection),
            account: Some(self.username.clone()),
        })
    }

    /// One of which only the name is known: nothing but to take it away, in the usual way.
    pub(super) fn bare(connection: &str, username: &str) -> Self {
        Self {
            format: FORMAT,
            connection: connection.to_owned(),
            username: username.to_owned(),
            password: SecretString::copy_of(""),
            form: PasswordForm::ScramSha256,
            expiration: None,
            statements: Statements::default(),
        }
    }

    pub(super) fn decode(payload: &SecretBytes) -> Result<Self, EngineError> {
        let account: Self = codec::decode(payload, "database credential")?;
        if account.format != FORMAT {
            return Err(EngineError::Corrupt("database credential of an unknown format"));
        }
        Ok(account)
    }
}

/// The connection of that target.
pub(super) fn connection_at(target: &str) -> Result<&str, EngineError> {
    target.strip_prefix("config/").ok_or(EngineError::NotFound)
}

/// The name that a connection has in queues and errors.
pub(super) fn target(connection: &str) -> String {
    format!("config/{connection}")
}

/// The part of a role's name that tells most: of `k8s.<cluster>.<namespace>.<name>` the last.
fn short(role_name: &str) -> &str {
    role_name.strip_prefix("k8s.").and_then(|rest| rest.rsplit('.').next()).unwrap_or(role_name)
}
