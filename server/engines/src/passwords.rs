//! Generated passwords: by a password policy where one is named. Never keeps one.

use coffer_core::password_policy::PasswordPolicy;
use coffer_core::secret::SecretString;
use coffer_core::template;

use crate::input;
use crate::{EngineError, ReadView};

/// A new password by the policy of that name; by the usual rules for an empty name.
pub(crate) async fn generate(view: &ReadView<'_>, policy: &str) -> Result<SecretString, EngineError> {
    if policy.is_empty() {
        return Ok(template::password(&mut rand::rng()));
    }
    let text = view.password_policy(policy).await?;
    let text = text.ok_or_else(|| EngineError::bad(format!("password policy {policy:?} does not exist")))?;
    let policy =
        PasswordPolicy::parse(&text).map_err(|_| EngineError::Corrupt("password policy that is none"))?;
    Ok(policy.generate(&mut rand::rng()))
}

/// `credential_config.password_policy` of a role.
pub(crate) fn of_role(
    body: &serde_json::Map<String, serde_json::Value>,
) -> Result<Option<String>, EngineError> {
    match input::field(body, "credential_config") {
        None => Ok(None),
        Some(serde_json::Value::Object(config)) => {
            match config.keys().find(|key| *key != "password_policy") {
                Some(_) => Err(EngineError::bad("credential_config: only password_policy is known")),
                None => Ok(Some(input::text(config, "password_policy")?.unwrap_or_default().to_owned())),
            }
        }
        Some(_) => Err(EngineError::bad("credential_config must be a map")),
    }
}
