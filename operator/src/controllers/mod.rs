//! What the reconciles of all kinds have in common: how errors become conditions, Events, retries and clean-up.

mod run;

use std::future::Future;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::conditions::{Verdict, transition};
use crate::context::Context;
use crate::error::{Error, brief, says_sealed};
use crate::{clock, events, finalize};

pub(crate) use run::{run, stopped};

/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How soon a clean-up that failed is tried again.
const RETRY_CLEAN_UP: Duration = Duration::from_secs(3);

/// Why an object is not in line, in the words of its Ready condition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    reason: &'static str,
    message: String,
}

impl Failure {
    /// The Ready condition says it already.
    pub(crate) fn said() -> Self {
        Self { reason: "Waiting", message: String::new() }
    }

    /// The Ready condition.
    pub(crate) fn verdict(&self) -> Verdict {
        Verdict::no("Ready", self.reason, self.message.clone())
    }
}

/// Sorts a result: what belongs into a condition, and what is only worth a retry.
pub(crate) async fn settle<T>(
    context: &Context,
    connection: &str,
    result: Result<T, Error>,
) -> Result<Result<T, Failure>, Error> {
    let error = match result {
        Ok(value) => return Ok(Ok(value)),
        Err(error) => error,
    };
    match &error {
        Error::Connection(why) => Ok(Err(Failure { reason: why.reason, message: why.message.clone() })),
        Error::Revoking { .. } => {
            Ok(Err(Failure { reason: "RevocationBacklog", message: error.to_string() }))
        }
        Error::Vault(vault) => {
            // A refused token or a server that went away: the next attempt starts with a new login.
            if vault.is_denied() || is_silent(vault) {
                context.sessions.forget(connection).await;
            }
            Ok(Err(failure_of(vault)))
        }
        Error::File { .. } | Error::Incomplete(_) | Error::Kube(_) | Error::NotListed(_) => Err(error),
    }
}

fn failure_of(error: &coffer_client::ClientError) -> Failure {
    let said = brief(&error.to_string());
    let (reason, message) = if says_sealed(error) {
        ("Sealed", format!("the vault is sealed; unseal it with `coffer operator unseal` ({said})"))
    } else if error.is_denied() {
        (
            "Denied",
            format!(
                "the server refused the operator; its policy may be older than it: run `coffer-operator k8s-bootstrap` ({said})"
            ),
        )
    } else if error.status().is_some() {
        ("ServerRefused", format!("the server refused: {said}"))
    } else if is_silent(error) {
        ("Unreachable", format!("no answer from the server ({said})"))
    } else {
        ("NotUnderstood", format!("operator and server do not understand each other: {said}"))
    };
    Failure { reason, message }
}

/// Whether the server gave no answer. What only we could not ask or read has nothing to do with the session.
fn is_silent(error: &coffer_client::ClientError) -> bool {
    use coffer_client::ClientError::{Timeout, Unreachable};
    matches!(error, Timeout { .. } | Unreachable(_))
}

/// When to look again.
pub(crate) fn next<T>(settled: &Result<T, Failure>, uid: &str) -> Action {
    match settled {
        Ok(_) => Action::requeue(clock::recheck_after(uid)),
        Err(_) => Action::requeue(RETRY),
    }
}

/// Emits an Event when status or reason of Ready has changed.
pub(crate) async fn announce<K>(context: &Context, object: &K, old: &[Condition], new: &[Condition])
where
    K: Resource<DynamicType = ()>,
{
    if let Some(ready) = transition(old, new) {
        let type_ = if ready.status == "True" { EventType::Normal } else { EventType::Warning };
        events::emit(&context.recorder, object, type_, &ready.reason, &ready.message).await;
    }
}

/// Runs a clean-up and takes the finalizer off: when it succeeded, or when it has been tried long enough.
pub(crate) async fn clean_up<K, F>(
    api: &Api<K>,
    object: &K,
    context: &Context,
    work: F,
) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    F: Future<Output = Result<(), Error>>,
{
    let result = tokio::time::timeout(finalize::ATTEMPT, work).await;
    let why = match result {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(brief(&error.to_string())),
        Err(_) => Some("no answer in time".to_owned()),
    };
    if let Some(why) = why {
        if !finalize::is_overdue(object, &clock::now()) {
            tracing::info!(object = %object.name_any(), "clean-up to be tried again: {why}");
            return Ok(Action::requeue(RETRY_CLEAN_UP));
        }
        let note =
            format!("deleted, but not at the server yet ({why}); the operator removes it there once it can");
        tracing::warn!(object = %object.name_any(), "{note}");
        events::emit(&context.recorder, object, EventType::Warning, "LeftBehind", &note).await;
        context.left_behind.notify_one();
    }
    finalize::remove(api, object).await?;
    Ok(Action::await_change())
}

#[cfg(test)]
mod tests {
    use coffer_client::ClientError;

    use super::*;

    #[test]
    fn each_refusal_has_its_reason() {
        let status = |code| ClientError::Status { code, errors: vec!["no".into()] };
        let sealed = ClientError::Status { code: 503, errors: vec!["Vault is sealed".into()] };
        assert_eq!(failure_of(&sealed).reason, "Sealed");
        assert_eq!(failure_of(&status(503)).reason, "ServerRefused");
        assert_eq!(failure_of(&status(403)).reason, "Denied");
        assert_eq!(failure_of(&status(400)).reason, "ServerRefused");
        assert_eq!(failure_of(&ClientError::Unreachable("x".into())).reason, "Unreachable");
        let unasked = ClientError::Path { path: "a/../b".into(), why: "has a . or .. segment" };
        assert_eq!(failure_of(&unasked).reason, "NotUnderstood");
        assert!(!is_silent(&unasked));
    }
}
