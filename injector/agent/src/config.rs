//! What the injector put into the container's environment, parsed once. The only room that reads the
//! environment; nothing in it is secret.

use crate::error::AgentError;
use coffer_client::wire::ChangeAction;
use serde::Deserialize;
use std::path::PathBuf;

/// The agent's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server.
    pub address: String,
    /// The CAs to trust; empty only with a loopback address.
    pub ca_pem: String,
    /// The auth mount, `kubernetes/<cluster>`.
    pub auth_mount: String,
    /// The cluster's name.
    pub cluster: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The role to log in with.
    pub role: String,
    /// The projected ServiceAccount token.
    pub token_file: PathBuf,
    /// Where the files go.
    pub mount_path: PathBuf,
    /// Which secrets.
    pub secrets: Vec<Wanted>,
    /// The agent's own memory-backed directory.
    pub state_dir: PathBuf,
    /// Bits every file gets besides its own mode, because its readers run as somebody else.
    pub mode_floor: u32,
}

/// One secret the pod asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wanted {
    /// Its name, and the directory its files go to.
    pub name: String,
    /// Where it is read, for secrets without a delivery document.
    #[serde(default)]
    pub path: Option<String>,
    /// A template that replaces the document's files.
    #[serde(default)]
    pub template: Option<String>,
    /// Name of the one file.
    #[serde(default)]
    pub file: Option<String>,
    /// Octal mode of the files.
    #[serde(default)]
    pub mode: Option<String>,
    /// What to do once the files have changed, besides what the document says.
    #[serde(default)]
    pub on_change: Vec<ChangeAction>,
}

/// Most secrets one pod may ask for; the injector refuses more.
pub const SECRETS_MAX: usize = 64;

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// [`AgentError::Config`] names the variable.
    pub fn from_env() -> Result<Self, AgentError> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(var: impl Fn(&str) -> Option<String>) -> Result<Self, AgentError> {
        let need = |name: &'static str| {
            var(name)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| AgentError::Config { name, why: "is not set".to_owned() })
        };
        let namespace = need("COFFER_NAMESPACE")?;
        let role = match var("COFFER_ROLE").filter(|role| !role.is_empty()) {
            Some(role) => role,
            None => format!("{namespace}.{}", need("COFFER_SERVICE_ACCOUNT")?),
        };
        let floor = var("COFFER_MODE_FLOOR").unwrap_or_else(|| "0400".to_owned());
        Ok(Self {
            address: need("COFFER_ADDR")?,
            ca_pem: var("COFFER_CA_PEM").unwrap_or_default(),
            auth_mount: need("COFFER_AUTH_MOUNT")?,
            cluster: need("COFFER_CLUSTER")?,
            namespace,
            role,
            token_file: need("COFFER_TOKEN_FILE")?.into(),
            mount_path: need("COFFER_MOUNT_PATH")?.into(),
            secrets: parse_secrets(&need("COFFER_SECRETS")?)?,
            state_dir: state_dir(&var)?,
            mode_floor: parse_mode(&floor)
                .ok_or(AgentError::Config { name: "COFFER_MODE_FLOOR", why: "is not a mode".to_owned() })?,
        })
    }
}

/// The agent's own directory; all the probe needs to know.
///
/// # Errors
/// [`AgentError::Config`] if the variable is missing.
pub fn state_dir_from_env() -> Result<PathBuf, AgentError> {
    state_dir(&|name: &str| std::env::var(name).ok())
}

fn state_dir(var: &impl Fn(&str) -> Option<String>) -> Result<PathBuf, AgentError> {
    var("COFFER_STATE_DIR")
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
        .ok_or_else(|| AgentError::Config { name: "COFFER_STATE_DIR", why: "is not set".to_owned() })
}

/// Reads `COFFER_SECRETS`.
///
/// # Errors
/// [`AgentError::Config`] says what is wrong.
pub fn parse_secrets(text: &str) -> Result<Vec<Wanted>, AgentError> {
    let bad = |why: String| AgentError::Config { name: "COFFER_SECRETS", why };
    let secrets: Vec<Wanted> = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
    if secrets.is_empty() || secrets.len() > SECRETS_MAX {
        return Err(bad(format!("needs 1 to {SECRETS_MAX} secrets")));
    }
    for (i, secret) in secrets.iter().enumerate() {
        if !is_file_name(&secret.name) {
            return Err(bad(format!("{:?} is not a secret's name", secret.name)));
        }
        if secrets.iter().skip(i + 1).any(|other| other.name == secret.name) {
            return Err(bad(format!("{:?} is there twice", secret.name)));
        }
        if secret.mode.as_deref().is_some_and(|mode| parse_mode(mode).is_none()) {
            return Err(bad(format!("mode of {:?} is not octal", secret.name)));
        }
    }
    Ok(secrets)
}

/// Octal permission bits such as `0440`; nothing beyond `0777`.
pub fn parse_mode(text: &str) -> Option<u32> {
    let digits = text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777)
}

/// One path segment that cannot leave its directory nor collide with the swap's own names.
pub fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && !name.starts_with("..")
        && name != "."
        && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(name: &str) -> Option<String> {
        let value = match name {
            "COFFER_ADDR" => "https://coffer.coffer-system.svc:8200",
            "COFFER_AUTH_MOUNT" => "kubernetes/prod",
            "COFFER_CLUSTER" => "prod",
            "COFFER_NAMESPACE" => "shop",
            "COFFER_SERVICE_ACCOUNT" => "orders-api",
            "COFFER_TOKEN_FILE" => "/var/run/coffer/serviceaccount/token",
            "COFFER_MOUNT_PATH" => "/coffer/secrets",
            "COFFER_STATE_DIR" => "/var/run/coffer/state",
            "COFFER_SECRETS" => r#"[{"name":"orders-db"},{"name":"x","path":"secret/data/x","mode":"0400"}]"#,
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn the_role_defaults_to_the_service_account() {
        let config = Config::read(vars).unwrap();
        assert_eq!(config.role, "shop.orders-api");
        assert_eq!(config.secrets.len(), 2);
        assert_eq!(config.mode_floor, 0o400);
    }

    #[test]
    fn a_missing_variable_is_named() {
        let error = Config::read(|name| vars(name).filter(|_| name != "COFFER_ADDR")).unwrap_err();
        assert_eq!(error.to_string(), "COFFER_ADDR: is not set");
    }

    #[test]
    fn secrets_that_cannot_be_directories_are_refused() {
        for bad in
            ["[]", r#"[{"name":"../x"}]"#, r#"[{"name":"a"},{"name":"a"}]"#, r#"[{"name":"a","no":1}]"#]
        {
            assert!(parse_secrets(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes() {
        assert_eq!(parse_mode("0440"), Some(0o440));
        for bad in ["", "8", "01777", "4755", "+44"] {
            assert_eq!(parse_mode(bad), None, "{bad}");
        }
    }
}
