//! What a DynamicSecret needs at the server. Pure: everything it looks at is an argument.

use coffer_client::wire::{
    ChangeAction, DatabaseRole, DeliveryDocument, DeliveryFile, DeliveryReply, DeliverySource, DeliveryWrite,
    HttpCall, Metadata, PolicyBody, PolicyReply, Ttl,
};
use coffer_crds::DynamicSecret;
use coffer_crds::duration::parse_seconds;
use kube::ResourceExt;

use super::source::{Source, Unusable};
use crate::conditions::Verdict;
use crate::names::Names;
use crate::roles::seconds;
use crate::vault::{Change, Grant, render};

/// The server's copies.
#[derive(Debug, Default)]
pub(crate) struct AtServer {
    /// The database role.
    pub(crate) role: Option<DatabaseRole>,
    /// The policy.
    pub(crate) policy: Option<PolicyReply>,
    /// The delivery document.
    pub(crate) delivery: Option<DeliveryReply>,
}

/// Everything the plan looks at.
pub(crate) struct Observed<'a> {
    /// The object.
    pub(crate) secret: &'a DynamicSecret,
    /// Names at the server.
    pub(crate) names: &'a Names,
    /// Its source, or why it has none.
    pub(crate) source: Result<Source<'a>, Unusable>,
    /// The server's copies.
    pub(crate) at_server: &'a AtServer,
}

/// What to do, and what to say.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Changes at the server, in order.
    pub(crate) changes: Vec<Change>,
    /// Conditions, Ready first.
    pub(crate) verdicts: Vec<Verdict>,
    /// Name of the database role.
    pub(crate) role_name: String,
}

struct Place {
    role: String,
    policy: String,
    delivery: String,
    labels: Metadata,
}

impl Place {
    fn of(secret: &DynamicSecret, names: &Names) -> Self {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        Self {
            role: names.database(&namespace, &name),
            policy: names.dynamic_policy(&namespace, &name),
            delivery: names.delivery(&namespace, &name),
            labels: names.labels(&secret.uid().unwrap_or_default()),
        }
    }
}

/// Plans for an object that is not being deleted.
pub(crate) fn plan(observed: &Observed<'_>) -> Plan {
    let place = Place::of(observed.secret, observed.names);
    let mut plan = Plan { changes: vec![], verdicts: vec![], role_name: place.role.clone() };
    if let Some(foreign) = foreign(observed, &place) {
        let message = format!("{foreign} exists at the server and is not the operator's; remove it there");
        plan.verdicts.push(Verdict::no("Ready", "NotOwned", message));
        return plan;
    }
    match &observed.source {
        Ok(source) => {
            plan.changes = writes(observed, source, &place);
            let consumers = observed.secret.spec.consumers.len();
            plan.verdicts.push(if consumers == 0 {
                Verdict::no(
                    "Ready",
                    "NoConsumers",
                    "no ServiceAccount may read it; name one in spec.consumers",
                )
            } else {
                Verdict::yes(
                    "Ready",
                    "Issuing",
                    format!("pods of {consumers} ServiceAccount(s) can get a lease"),
                )
            });
            let (namespace, name) = &source.database;
            let message = format!("DatabaseConnection {namespace}/{name} is ready");
            plan.verdicts.push(Verdict::yes("SourceReady", "DatabaseReady", message));
        }
        Err(unusable) => {
            if unusable.withdraw {
                plan.changes = withdrawals(observed.at_server, &place);
            }
            let message = unusable.verdict.message.clone();
            plan.verdicts.push(Verdict::no("Ready", &unusable.verdict.reason, message));
            plan.verdicts.push(unusable.verdict.clone());
        }
    }
    plan
}

/// Changes for an object that is being deleted: no new lease first, then the end of the old ones.
pub(crate) fn deletion(secret: &DynamicSecret, names: &Names, at_server: &AtServer) -> Vec<Change> {
    let place = Place::of(secret, names);
    let mut changes = Vec::new();
    if at_server.policy.as_ref().is_some_and(|found| names.owns(found.custom_metadata.as_ref())) {
        changes.push(Change::DeletePolicy(place.policy));
    }
    if at_server.delivery.as_ref().is_some_and(|found| names.owns(found.custom_metadata.as_ref())) {
        changes.push(Change::DeleteDelivery(place.delivery));
    }
    if at_server.role.as_ref().is_some_and(|found| names.owns(found.custom_metadata.as_ref())) {
        // The role must outlive its leases: their revocation runs its statements.
        changes.push(Change::RevokePrefix(format!("database/creds/{}", place.role)));
        changes.push(Change::DeleteDatabaseRole(place.role));
    }
    changes
}

fn foreign(observed: &Observed<'_>, place: &Place) -> Option<String> {
    let names = observed.names;
    let at = observed.at_server;
    if at.role.as_ref().is_some_and(|found| !names.owns(found.custom_metadata.as_ref())) {
        return Some(format!("database/roles/{}", place.role));
    }
    if at.policy.as_ref().is_some_and(|found| !names.owns(found.custom_metadata.as_ref())) {
        return Some(format!("policy {}", place.policy));
    }
    if at.delivery.as_ref().is_some_and(|found| !names.owns(found.custom_metadata.as_ref())) {
        return Some(format!("delivery/{}", place.delivery));
    }
    None
}

fn writes(observed: &Observed<'_>, source: &Source<'_>, place: &Place) -> Vec<Change> {
    let at = observed.at_server;
    let mut changes = Vec::new();
    let role = role(observed, source, place);
    if !at.role.as_ref().is_some_and(|found| same_role(&role, found)) {
        changes.push(Change::WriteDatabaseRole { name: place.role.clone(), role: Box::new(role) });
    }
    let policy = PolicyBody { policy: policy_text(place), custom_metadata: Some(place.labels.clone()) };
    let same_policy = at.policy.as_ref().is_some_and(|found| {
        found.policy == policy.policy && found.custom_metadata == policy.custom_metadata
    });
    if !same_policy {
        changes.push(Change::WritePolicy { name: place.policy.clone(), body: policy });
    }
    // Last: an agent that sees the document can read what it names.
    let document = document(observed.secret, source, place);
    let same_document = at.delivery.as_ref().is_some_and(|found| {
        found.document == document && found.custom_metadata.as_ref() == Some(&place.labels)
    });
    if !same_document {
        let write = DeliveryWrite { document, custom_metadata: Some(place.labels.clone()) };
        changes.push(Change::WriteDelivery { path: place.delivery.clone(), document: Box::new(write) });
    }
    changes
}

fn withdrawals(at_server: &AtServer, place: &Place) -> Vec<Change> {
    let mut changes = Vec::new();
    if at_server.policy.is_some() {
        changes.push(Change::DeletePolicy(place.policy.clone()));
    }
    if at_server.delivery.is_some() {
        changes.push(Change::DeleteDelivery(place.delivery.clone()));
    }
    if at_server.role.is_some() {
        changes.push(Change::RevokePrefix(format!("database/creds/{}", place.role)));
        changes.push(Change::DeleteDatabaseRole(place.role.clone()));
    }
    changes
}

fn role(observed: &Observed<'_>, source: &Source<'_>, place: &Place) -> DatabaseRole {
    let statements = |text: &Option<String>| text.clone().into_iter().collect::<Vec<_>>();
    let (namespace, name) = &source.database;
    DatabaseRole {
        db_name: observed.names.database(namespace, name),
        creation_statements: vec![source.profile.create.clone()],
        revocation_statements: statements(&source.profile.revoke),
        renew_statements: statements(&source.profile.renew),
        default_ttl: Some(Ttl::Seconds(source.ttl_secs)),
        max_ttl: Some(Ttl::Seconds(source.max_ttl_secs)),
        custom_metadata: Some(place.labels.clone()),
    }
}

fn same_role(wanted: &DatabaseRole, found: &DatabaseRole) -> bool {
    let ttl = |ttl: &Option<Ttl>| ttl.as_ref().and_then(seconds);
    wanted.db_name == found.db_name
        && wanted.creation_statements == found.creation_statements
        && wanted.revocation_statements == found.revocation_statements
        && wanted.renew_statements == found.renew_statements
        && ttl(&wanted.default_ttl) == ttl(&found.default_ttl)
        && ttl(&wanted.max_ttl) == ttl(&found.max_ttl)
        && wanted.custom_metadata == found.custom_metadata
}

fn policy_text(place: &Place) -> String {
    render(&[
        Grant::new(format!("database/creds/{}", place.role), &["read"]),
        Grant::new(format!("delivery/{}", place.delivery), &["read", "subscribe"]),
        Grant::new("sys/events/subscribe/*", &["read"]),
        // Only leases of its own: whose a lease is, the server checks besides.
        Grant::new("sys/leases/renew", &["update"]),
        Grant::new("sys/leases/revoke", &["update"]),
    ])
}

fn document(secret: &DynamicSecret, source: &Source<'_>, place: &Place) -> DeliveryDocument {
    let spec = &secret.spec;
    DeliveryDocument {
        uid: secret.uid().unwrap_or_default(),
        generation: secret.metadata.generation.unwrap_or_default(),
        source: DeliverySource { path: format!("database/creds/{}", place.role), leased: true },
        scope: Some("PerPod".to_owned()),
        ttl: Some(format!("{}s", source.ttl_secs)),
        max_ttl: Some(format!("{}s", source.max_ttl_secs)),
        renew_at_percent: u8::try_from(spec.rotation.renew_at_percent).ok(),
        overlap: Some(overlap(&spec.rotation.overlap, source.ttl_secs)),
        files: spec
            .files
            .iter()
            .map(|file| DeliveryFile {
                name: file.name.clone(),
                mode: Some(file.mode.clone()),
                template: file.template.clone(),
            })
            .collect(),
        on_change: spec
            .on_change
            .iter()
            .map(|action| ChangeAction {
                container: action.container.clone(),
                signal: action.signal.clone(),
                http: action.http.as_ref().map(|http| HttpCall { post: http.post.clone() }),
            })
            .collect(),
    }
}

/// The overlap as asked for, or half the lease where a profile's cap made the lease shorter than it.
fn overlap(wanted: &str, ttl_secs: u64) -> String {
    match parse_seconds(wanted) {
        Some(seconds) if seconds < ttl_secs => wanted.to_owned(),
        _ => format!("{}s", ttl_secs / 2),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
