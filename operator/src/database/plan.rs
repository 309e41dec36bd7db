//! What a DatabaseConnection needs at the server. Pure: everything it looks at is an argument, and the admin's
//! password is none of it.

use coffer_client::wire::Metadata;
use coffer_crds::DatabaseConnection;
use kube::ResourceExt;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::conditions::Verdict;
use crate::kubernetes::Lookup;
use crate::names::Names;

/// Label of a configuration: digest of what was asked for, so that drift shows without comparing each field.
const LABEL_HASH: &str = "spec-hash";
/// Label: version of the Secret whose login the server took over.
const LABEL_SECRET: &str = "admin-secret-version";
/// Label: digest of the URL, which decides whether the server still has a password for it.
const LABEL_URL: &str = "url-hash";

/// Everything the plan looks at.
pub(crate) struct Observed<'a> {
    /// The object.
    pub(crate) database: &'a DatabaseConnection,
    /// Names at the server.
    pub(crate) names: &'a Names,
    /// Version of the admin Secret.
    pub(crate) secret_version: &'a Lookup<String>,
    /// The CA's PEM, if one is named.
    pub(crate) ca_pem: Option<&'a Lookup<String>>,
    /// The server's copy.
    pub(crate) at_server: Option<&'a Map<String, Value>>,
}

/// How the configuration is to be written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Write {
    /// Not at all: it is as it should be.
    Nothing,
    /// With the login from the Secret.
    WithLogin,
    /// Without: the server keeps the password it has.
    WithoutLogin,
}

/// What to do, and what to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Plan {
    /// How the configuration is to be written.
    pub(crate) write: Write,
    /// Whether the admin's password is to be changed afterwards.
    pub(crate) rotate: bool,
    /// Labels of the configuration.
    pub(crate) labels: Metadata,
    /// Why nothing can be done; `None` when all is well.
    pub(crate) obstacle: Option<Verdict>,
    /// Version of the admin Secret that holds after this plan.
    pub(crate) secret_version: Option<String>,
    /// Whether the admin's password is one only the vault knows after this plan.
    pub(crate) rotated: bool,
}

fn obstacle(reason: &str, message: impl Into<String>) -> Plan {
    Plan {
        write: Write::Nothing,
        rotate: false,
        labels: Metadata::new(),
        obstacle: Some(Verdict::no("Ready", reason, message)),
        secret_version: None,
        rotated: false,
    }
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// Labels of a configuration as the server shows it.
pub(crate) fn labels_of(config: &Map<String, Value>) -> Metadata {
    let labels = config.get("custom_metadata").and_then(Value::as_object);
    labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// Plans for an object that is not being deleted.
pub(crate) fn plan(observed: &Observed<'_>) -> Plan {
    let spec = &observed.database.spec;
    let found = observed.at_server.map(labels_of);
    if found.as_ref().is_some_and(|labels| !observed.names.owns(Some(labels))) {
        return obstacle(
            "NotOwned",
            "a configuration of that name at the server is not the operator's; remove it there",
        );
    }
    let ca_pem = match observed.ca_pem {
        None => "",
        Some(Lookup::Found(pem)) => pem,
        Some(Lookup::Missing(message)) => return obstacle("CaMissing", message),
        Some(Lookup::Forbidden(message)) => return obstacle("CaForbidden", message),
    };
    let version = match observed.secret_version {
        Lookup::Found(version) => version,
        Lookup::Missing(message) => {
            return obstacle("AdminSecretMissing", format!("spec.adminSecretRef: {message}"));
        }
        Lookup::Forbidden(message) => {
            return obstacle("AdminSecretForbidden", format!("spec.adminSecretRef: {message}"));
        }
    };

    let mut labels = observed.names.labels(&observed.database.uid().unwrap_or_default());
    let url_hash = digest(&[&spec.url, ca_pem]);
    let reference = &spec.admin_secret_ref;
    let hash = digest(&[
        spec.engine.plugin_name(),
        &url_hash,
        &reference.name,
        &reference.username_key,
        &reference.password_key,
    ]);
    labels.insert(LABEL_HASH.into(), hash);
    labels.insert(LABEL_URL.into(), url_hash.clone());
    labels.insert(LABEL_SECRET.into(), version.clone());

    let before = found.unwrap_or_default();
    let new_login = before.get(LABEL_SECRET) != Some(version);
    let new_url = before.get(LABEL_URL) != Some(&url_hash);
    let status = observed.database.status.as_ref();
    let was_rotated = !new_login && status.and_then(|status| status.admin_rotated) == Some(true);
    if new_url && was_rotated {
        // The server drops a password when host, port or TLS change, and the Secret's copy is worthless by now.
        return obstacle(
            "AdminLoginNeeded",
            format!(
                "url or CA changed after the admin's password was rotated; put a login that works into Secret {:?}",
                reference.name
            ),
        );
    }
    let write = if new_login || new_url {
        Write::WithLogin
    } else if before == labels {
        Write::Nothing
    } else {
        Write::WithoutLogin
    };
    let rotate = spec.rotate_admin && !was_rotated;
    Plan {
        write,
        rotate,
        labels,
        obstacle: None,
        secret_version: Some(version.clone()),
        rotated: was_rotated || rotate,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
