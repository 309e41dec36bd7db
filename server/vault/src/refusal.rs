//! What a refusal may say to whom: the path and the capability that are missing, to a caller who may ask for his own
//! capabilities anyway. To everybody else it says nothing.
//!
//! Never says anything that depends on what is stored: a write names what it lacks of `create` and `update`, whichever
//! the path would have needed.

use coffer_core::path::VaultPath;
use coffer_core::policy::{Acl, Capability, Operation as Needs, requires_sudo};

use crate::dispatch::Target;
use crate::permit;
use crate::request::{Operation, Request};
use crate::token::LiveToken;

/// What the caller is missing for a request that was refused; none if he may not know.
pub(crate) fn needs(caller: &LiveToken, request: &Request, target: Option<&Target>) -> Option<String> {
    if !permit::may(caller, Needs::Update, "sys/capabilities-self") {
        return None;
    }
    let path = VaultPath::parse(&request.path).ok()?;
    let operations: &[Needs] = match request.operation {
        Operation::Create | Operation::Update => &[Needs::Create, Needs::Update],
        Operation::Read => &[Needs::Read],
        Operation::List => &[Needs::List],
        Operation::Scan => &[Needs::Scan],
        Operation::Patch => &[Needs::Patch],
        Operation::Delete => &[Needs::Delete],
    };
    let acl = &caller.acl;
    let decided: Vec<_> = operations.iter().map(|needs| acl.decide(*needs, &path, None)).collect();
    let lacking: Vec<&str> = operations
        .iter()
        .zip(&decided)
        .filter(|(needs, decision)| !needs.needs().is_some_and(|c| decision.capabilities.has(c)))
        .filter_map(|(needs, _)| Some(needs.needs()?.as_str()))
        .collect();
    let shown = &request.path;
    let mut said = if !lacking.is_empty() {
        format!("missing capability on path {shown:?}: {}", lacking.join(" or "))
    } else if requires_sudo(operations[0], &path) && !decided.iter().any(|decision| decision.sudo) {
        format!("missing capability on path {shown:?}: {}", Capability::Sudo)
    } else {
        format!("the policies do not let these parameters, or this wrapping, pass on path {shown:?}")
    };
    if let Some(bare) = without_version_prefix(target, acl, operations, &request.path) {
        said.push_str(&format!(
            " (this is a key-value engine with versions: a rule for {bare:?} does not count, it has to name {shown:?})"
        ));
    }
    Some(said)
}

/// The path without the `data/` or `metadata/` that versions put into it, if the policies have a rule for that: the most
/// common mistake there is.
fn without_version_prefix(
    target: Option<&Target>,
    acl: &Acl,
    operations: &[Needs],
    path: &str,
) -> Option<String> {
    let Some(Target::Engine(mount, rest)) = target else { return None };
    let (prefix, below) = rest.split_once('/')?;
    if !mount.versioned() || !matches!(prefix, "data" | "metadata" | "delete" | "undelete" | "destroy") {
        return None;
    }
    let bare = format!("{}{below}", mount.full_path());
    let granted = |path: &VaultPath| operations.iter().any(|needs| acl.decide(*needs, path, None).allowed);
    let parsed = VaultPath::parse(&bare).ok()?;
    (bare != path && granted(&parsed)).then_some(bare)
}
