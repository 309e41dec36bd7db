//! The two moments at which devices are told: before the effect, and before the reply.

use std::sync::Arc;

use super::line::{Facts, MountFacts};
use crate::dispatch::{self, Target};
use crate::error::Fail;
use crate::mounts::{Class, Mount};
use crate::open::Open;
use crate::request::{Reply, Request};
use crate::token::LiveToken;

/// What is remembered of a request between the two.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) caller: Option<Arc<LiveToken>>,
    pub(crate) allowed: bool,
    /// Whether the devices were told of it before the effect.
    pub(crate) before: bool,
}

/// Before the effect: once it is decided whether the request is permitted. Once per request.
pub(crate) async fn before(
    open: &Open,
    request: &Request,
    told: &mut Told,
    refused: Option<&str>,
) -> Result<(), Fail> {
    if std::mem::replace(&mut told.before, true) || !open.devices.any() {
        return Ok(());
    }
    tell(open, request, told, refused, None).await
}

/// Before the reply goes out.
pub(crate) async fn after(
    open: &Open,
    request: &Request,
    told: &mut Told,
    error: Option<&str>,
    reply: &Reply,
) -> Result<(), Fail> {
    if !open.devices.any() {
        return Ok(());
    }
    before(open, request, told, error).await?;
    tell(open, request, told, error, Some(reply)).await
}

async fn tell(
    open: &Open,
    request: &Request,
    told: &Told,
    error: Option<&str>,
    reply: Option<&Reply>,
) -> Result<(), Fail> {
    let mount = dispatch::route(open, request).ok().map(|target| mount_of(open, &target));
    let caller = told.caller.as_ref().map(|caller| &caller.entry);
    let (mount, allowed) = (mount.as_ref(), told.allowed);
    open.devices.tell(Facts { time: open.now(), request, caller, mount, allowed, error, reply }).await
}

fn mount_of(open: &Open, target: &Target) -> MountFacts {
    let own = |point: &str, kind: &str, class| MountFacts {
        point: point.to_owned(),
        kind: kind.to_owned(),
        accessor: String::new(),
        class,
        clear_request: Vec::new(),
        clear_response: Vec::new(),
    };
    match target {
        Target::Sys(_) => own("sys/", "system", "secret"),
        Target::Token(_) => {
            let (clear_request, clear_response) =
                open.mounts.at(Class::Auth, "token").map(|mount| clear(&mount)).unwrap_or_default();
            MountFacts { clear_request, clear_response, ..own("auth/token/", "token", "auth") }
        }
        Target::Cubbyhole(_) => own("cubbyhole/", "cubbyhole", "secret"),
        Target::Identity(_) => own("identity/", "identity", "secret"),
        Target::Auth(mount, ..) | Target::Delivery(mount, _) | Target::Engine(mount, _) => of(mount),
    }
}

/// The keys that the tuning of a mount lets stand in the clear: of requests, and of responses.
fn clear(mount: &Mount) -> (Vec<String>, Vec<String>) {
    let tuning = &mount.tuning;
    let keys = |keys: &Option<Vec<String>>| keys.clone().unwrap_or_default();
    (keys(&tuning.audit_non_hmac_request_keys), keys(&tuning.audit_non_hmac_response_keys))
}

fn of(mount: &Mount) -> MountFacts {
    let (clear_request, clear_response) = clear(mount);
    MountFacts {
        point: mount.full_path(),
        kind: mount.kind.clone(),
        accessor: mount.accessor.clone(),
        class: if mount.class == Class::Auth { "auth" } else { "secret" },
        clear_request,
        clear_response,
    }
}
