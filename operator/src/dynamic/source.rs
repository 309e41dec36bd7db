//! Where a DynamicSecret's credential comes from, and whether its namespace may have it. Pure.

use std::collections::BTreeMap;

use coffer_crds::database::Profile;
use coffer_crds::duration::parse_seconds;
use coffer_crds::{DatabaseConnection, DynamicSecret};
use kube::ResourceExt;

use crate::conditions::{Verdict, find, is_ready};
use crate::kubernetes::selects;

/// A source that may be used.
#[derive(Clone, Debug)]
pub(crate) struct Source<'a> {
    /// Namespace and name of the DatabaseConnection.
    pub(crate) database: (String, String),
    /// The profile.
    pub(crate) profile: &'a Profile,
    /// First life of a lease, capped by the profile.
    pub(crate) ttl_secs: u64,
    /// Longest life of a lease, capped by the profile.
    pub(crate) max_ttl_secs: u64,
}

/// Why a source cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Unusable {
    /// What to say about it.
    pub(crate) verdict: Verdict,
    /// Whether what was granted before must be taken back: the permission is gone, not just out of order.
    pub(crate) withdraw: bool,
}

fn unusable(reason: &str, message: String, withdraw: bool) -> Unusable {
    Unusable { verdict: Verdict::no("SourceReady", reason, message), withdraw }
}

/// Namespace and name of the DatabaseConnection a secret refers to.
pub(crate) fn database_of(secret: &DynamicSecret) -> Option<(String, String)> {
    let reference = &secret.spec.source.database.as_ref()?.connection_ref;
    let namespace = reference.namespace.clone().or_else(|| secret.namespace())?;
    Some((namespace, reference.name.clone()))
}

/// Resolves the source.
pub(crate) fn resolve<'a>(
    secret: &DynamicSecret,
    database: Option<&'a DatabaseConnection>,
    labels: &BTreeMap<String, String>,
) -> Result<Source<'a>, Unusable> {
    let (Some(reference), Some((namespace, name))) = (&secret.spec.source.database, database_of(secret))
    else {
        return Err(unusable("NoSource", "spec.source.database is not set".to_owned(), true));
    };
    let Some(database) = database.filter(|database| database.metadata.deletion_timestamp.is_none()) else {
        let message = format!("DatabaseConnection {namespace}/{name} does not exist");
        return Err(unusable("DatabaseConnectionNotFound", message, true));
    };
    if database.spec.connection_ref != secret.spec.connection_ref {
        let message = format!(
            "DatabaseConnection {namespace}/{name} belongs to CofferConnection {:?}, this secret to {:?}",
            database.spec.connection_ref.name, secret.spec.connection_ref.name
        );
        return Err(unusable("ConnectionMismatch", message, true));
    }
    let Some(profile) = database.spec.profiles.iter().find(|profile| profile.name == reference.profile)
    else {
        let known: Vec<&str> = database.spec.profiles.iter().map(|profile| profile.name.as_str()).collect();
        let message = format!(
            "DatabaseConnection {namespace}/{name} has no profile {:?}; it has: {}",
            reference.profile,
            known.join(", ")
        );
        return Err(unusable("ProfileNotFound", message, true));
    };
    let own = secret.namespace().as_deref() == Some(namespace.as_str());
    let allowed = profile.allowed_namespaces.as_ref().map_or(own, |selector| selects(selector, labels));
    if !allowed {
        let message = format!(
            "profile {:?} of DatabaseConnection {namespace}/{name} does not allow this namespace; its owner can, by allowedNamespaces",
            profile.name
        );
        return Err(unusable("NamespaceNotAllowed", message, true));
    }
    let conditions = database.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if !is_ready(conditions, database.metadata.generation) {
        let why = find(conditions, "Ready").map_or_else(
            || "not looked at yet".to_owned(),
            |ready| format!("{} ({})", ready.message, ready.reason),
        );
        let message = format!("DatabaseConnection {namespace}/{name} is not ready: {why}");
        return Err(unusable("DatabaseNotReady", message, false));
    }
    // The CRD's pattern lets only durations through; what does not parse must not become unlimited.
    let limit = |text: &str, otherwise: u64| parse_seconds(text).unwrap_or(otherwise).max(1);
    let max_ttl_secs = limit(&secret.spec.max_ttl, 1).min(limit(&profile.max_ttl, 1));
    let ttl_secs = limit(&secret.spec.ttl, 1).min(max_ttl_secs);
    Ok(Source { database: (namespace, name), profile, ttl_secs, max_ttl_secs })
}
