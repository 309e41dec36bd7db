//! The gate: whether a caller may do what he asks.
//!
//! [`Permitted`] is minted here and nowhere else; whatever has an effect takes one.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use coffer_core::path::VaultPath;
use coffer_core::policy::{self, Acl, Decision, Operation as Needs, Params};
use serde_json::Value;

use crate::error::Fail;
use crate::events::{RESYNC, glob};
use crate::request::{Operation, Request};
use crate::token::{LiveToken, TokenEntry};

/// Proof that this request was allowed.
pub(crate) struct Permitted {
    caller: Option<Arc<LiveToken>>,
    sudo: bool,
    page_max: Option<u64>,
}

impl Permitted {
    /// Who asks.
    pub(crate) fn caller(&self) -> Result<&TokenEntry, Fail> {
        self.caller.as_ref().map(|c| &c.entry).ok_or(Fail::BadToken)
    }

    /// What he may do.
    pub(crate) fn acl(&self) -> Result<&Acl, Fail> {
        self.caller.as_ref().map(|c| &c.acl).ok_or(Fail::BadToken)
    }

    /// The token behind the request, for what outlives it.
    pub(crate) fn token(&self) -> Result<&Arc<LiveToken>, Fail> {
        self.caller.as_ref().ok_or(Fail::BadToken)
    }

    /// Whether nobody in particular asks.
    pub(crate) const fn is_anonymous(&self) -> bool {
        self.caller.is_none()
    }

    /// How many names a listing has at most that does not say it itself.
    pub(crate) const fn page_max(&self) -> Option<u64> {
        self.page_max
    }

    /// Whether he acts as an administrator on this path.
    pub(crate) const fn sudo(&self) -> bool {
        self.sudo
    }
}

/// How a write decides between `create` and `update`.
pub(crate) enum Existence<F> {
    /// Not a write, or a path where every write is an `update`.
    Unasked,
    /// Something there: `update`. Nothing there: `create`, and no other.
    Strict(F),
    /// Something there: `update`. Nothing there: either will do, as Vault asks for `update` on its own paths.
    Lenient(F),
}

/// Logging in takes no token: the path is open to all, and the auth method decides.
pub(crate) const fn anonymous() -> Permitted {
    Permitted { caller: None, sudo: false, page_max: None }
}

/// What every living token may do, whatever its policies: see which mounts it can see.
pub(crate) fn any_token(caller: Arc<LiveToken>) -> Permitted {
    Permitted { caller: Some(caller), sudo: false, page_max: None }
}

/// Decides about a request by the caller's policies and boundary.
pub(crate) async fn decide<F>(
    caller: Arc<LiveToken>,
    request: &Request,
    existence: Existence<F>,
) -> Result<Permitted, Fail>
where
    F: Future<Output = Result<bool, Fail>>,
{
    let path = VaultPath::parse(&request.path).map_err(|_| Fail::Denied)?;
    let query;
    let params = match request.operation {
        Operation::Create | Operation::Update | Operation::Patch => Some(&request.body),
        _ => {
            query = query_params(request);
            (!query.is_empty()).then_some(&query)
        }
    };
    let allowed = |needs: Needs| caller.acl.decide(needs, &path, params);
    let mut decision = allowed(needs(request.operation));
    if request.operation == Operation::Update {
        match existence {
            Existence::Unasked => {}
            Existence::Strict(exists) => {
                if !caller.acl.is_root() && !exists.await? {
                    decision = allowed(Needs::Create);
                }
            }
            Existence::Lenient(exists) => {
                if !decision.allowed && !exists.await? {
                    decision = allowed(Needs::Create);
                }
            }
        }
    }
    if !wrapping_fits(&decision, request.wrap_ttl) {
        return Err(Fail::Denied);
    }
    if !decision.allowed || (policy::requires_sudo(needs(request.operation), &path) && !decision.sudo) {
        return Err(Fail::Denied);
    }
    let page_max = decision.pagination_limit.filter(|_| needs(request.operation).is_listing());
    if !page_fits(page_max, request) {
        return Err(Fail::Denied);
    }
    Ok(Permitted { sudo: decision.sudo, caller: Some(caller), page_max })
}

/// Whether a reply may be asked for with this wrapping, or without any. Limits that leave nothing let nothing pass.
fn wrapping_fits(decision: &Decision, ttl: Option<Duration>) -> bool {
    match (decision.min_wrapping_ttl, decision.max_wrapping_ttl) {
        (None, None) => true,
        (min, max) => {
            ttl.is_some_and(|ttl| min.is_none_or(|min| ttl >= min) && max.is_none_or(|max| ttl <= max))
        }
    }
}

/// Whether a listing asks for no more names at a time than its rule lets it. One that does not say how many gets that.
fn page_fits(page_max: Option<u64>, request: &Request) -> bool {
    match (page_max, request.query.get("limit")) {
        (Some(max), Some(limit)) => limit.parse::<u64>().is_ok_and(|limit| limit <= max),
        _ => true,
    }
}

/// Whether a token may do something to a path right now; for streams, which decide again at each event.
pub(crate) fn may(token: &LiveToken, needs: Needs, path: &str) -> bool {
    VaultPath::parse(path).is_ok_and(|path| token.acl.decide(needs, &path, None).allowed)
}

/// Whether a token may be told of an event: the path is the event's, and its rule may name types of events.
pub(crate) fn may_receive(token: &LiveToken, path: &str, event_type: &str) -> bool {
    let Ok(path) = VaultPath::parse(path) else { return false };
    let decision = token.acl.decide(Needs::Subscribe, &path, None);
    let named = |wanted: &String| event_type == RESYNC || glob(wanted, event_type);
    decision.allowed && decision.event_types.is_none_or(|types| types.iter().any(named))
}

const fn needs(operation: Operation) -> Needs {
    match operation {
        Operation::Read => Needs::Read,
        Operation::List => Needs::List,
        Operation::Scan => Needs::Scan,
        Operation::Create => Needs::Create,
        Operation::Update => Needs::Update,
        Operation::Patch => Needs::Patch,
        Operation::Delete => Needs::Delete,
    }
}

fn query_params(request: &Request) -> Params {
    request.query.iter().map(|(k, v)| (k.clone(), Value::String(v.clone()))).collect()
}
