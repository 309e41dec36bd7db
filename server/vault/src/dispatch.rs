//! From a path to whoever answers for it. The whole map is on this page.
//!
//! Decides where a request goes, never whether it may.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use coffer_barrier::{Read, RecordKind};
use coffer_core::policy::PolicyName;
use coffer_engines::ReadView;

use crate::auth::Method;
use crate::error::Fail;
use crate::mounts::{Class, Mount};
use crate::open::Open;
use crate::outcome::Outcome;
use crate::permit::{Existence, Permitted};
use crate::pipeline::Ctx;
use crate::request::{Operation, Request};
use crate::{auth, delivery, engine, identity, sys, token};

/// The mount kind of delivery documents.
pub(crate) const DELIVERY: &str = "delivery";

/// Whoever answers for a path, with what is left of it.
pub(crate) enum Target {
    /// `sys/...`
    Sys(String),
    /// `auth/token/...`
    Token(String),
    /// `auth/<mount>/...`, with the method that answers there.
    Auth(Arc<Mount>, Method, String),
    /// `cubbyhole/...`
    Cubbyhole(String),
    /// `identity/...`
    Identity(String),
    /// `delivery/...`
    Delivery(Arc<Mount>, String),
    /// Any secrets engine.
    Engine(Arc<Mount>, String),
}

/// Finds the target of a request.
pub(crate) fn route(open: &Open, request: &Request) -> Result<Target, Fail> {
    let path = request.path.as_str();
    let nobody = || Fail::NoRoute(path.to_owned());
    if let Some(rest) = path.strip_prefix("sys/") {
        return Ok(Target::Sys(rest.to_owned()));
    }
    if let Some(rest) = path.strip_prefix("auth/token/") {
        return Ok(Target::Token(rest.to_owned()));
    }
    if let Some(rest) = path.strip_prefix("cubbyhole/").or((path == "cubbyhole").then_some("")) {
        return Ok(Target::Cubbyhole(rest.to_owned()));
    }
    if let Some(rest) = path.strip_prefix("identity/") {
        return Ok(Target::Identity(rest.to_owned()));
    }
    if let Some(below) = path.strip_prefix("auth/") {
        let (mount, rest) = open.mounts.route(Class::Auth, below).ok_or_else(nobody)?;
        let method = Method::of(&mount.kind).ok_or_else(nobody)?;
        return Ok(Target::Auth(mount, method, rest.to_owned()));
    }
    let (mount, rest) = open.mounts.route(Class::Secret, path).ok_or_else(nobody)?;
    let rest = rest.to_owned();
    Ok(if mount.kind == DELIVERY { Target::Delivery(mount, rest) } else { Target::Engine(mount, rest) })
}

impl Target {
    /// Whether this is a login: open to all.
    pub(crate) fn is_login(&self, request: &Request) -> bool {
        matches!(self, Self::Auth(_, method, rest) if method.is_login(rest, request))
    }

    /// Whether this is a ceremony that shares alone may move on, where the configuration allows it. Cancelling is not:
    /// whoever has no token could stop everybody else.
    pub(crate) fn by_shares(&self, request: &Request) -> bool {
        let Self::Sys(rest) = self else { return false };
        let ceremony = ["rekey/", "rotate/root/", "generate-root/", "generate-root-token/"];
        let step = ceremony.iter().find_map(|family| rest.strip_prefix(family));
        matches!(step, Some("init" | "update" | "verify" | "attempt"))
            && matches!(request.operation, Operation::Read | Operation::Update)
    }

    /// Whether this is answered on the strength of a wrapping token, whoever asks.
    pub(crate) fn by_wrapping_token(&self, request: &Request) -> bool {
        matches!(self, Self::Sys(rest) if token::wrapping::by_wrapping_token(rest, request))
    }

    /// Whether this is answered also without a token, with less.
    pub(crate) fn for_everybody(&self, request: &Request) -> bool {
        matches!(self, Self::Sys(rest) if rest == "internal/ui/mounts")
            && request.operation == Operation::Read
    }

    /// Whether every living token may do this, whatever its policies.
    pub(crate) fn for_any_token(&self, request: &Request) -> bool {
        let Self::Sys(rest) = self else { return false };
        if rest == "rotations/ack" {
            // For what he may read, which is looked at there.
            return request.operation == Operation::Update;
        }
        let shows_mounts = rest == "internal/ui/mounts" || rest.starts_with("internal/ui/mounts/");
        (shows_mounts || rest == "internal/ui/namespaces") && request.operation == Operation::Read
    }

    /// Whether this is a question although it comes as a write: no effect, so no intent.
    pub(crate) fn only_asks(&self, request: &Request) -> bool {
        if request.operation != Operation::Update {
            return false;
        }
        match self {
            Self::Sys(rest) => sys::only_asks(rest),
            Self::Token(rest) => matches!(rest.as_str(), "lookup" | "lookup-accessor" | "lookup-self"),
            Self::Auth(_, method, rest) => method.only_asks(rest),
            Self::Identity(rest) => identity::only_asks(rest),
            _ => false,
        }
    }
}

type Exists<'a> = Pin<Box<dyn Future<Output = Result<bool, Fail>> + Send + 'a>>;

/// How a write to this target is told to be a `create` or an `update`.
pub(crate) fn existence<'a>(
    open: &'a Open,
    request: &'a Request,
    target: Option<&'a Target>,
) -> Existence<Exists<'a>> {
    if request.operation != Operation::Update {
        return Existence::Unasked;
    }
    match target {
        Some(Target::Engine(mount, rest)) => Existence::Strict(Box::pin(engine_has(open, mount, rest))),
        Some(Target::Cubbyhole(rest)) => Existence::Strict(Box::pin(cubbyhole_has(open, request, rest))),
        Some(Target::Delivery(mount, rest)) => Existence::Lenient(Box::pin(row_exists(open, mount, rest))),
        Some(Target::Auth(mount, method, rest)) => match method.row_of(rest) {
            Some(row) => Existence::Lenient(Box::pin(async move { row_exists(open, mount, &row).await })),
            None => Existence::Unasked,
        },
        Some(Target::Sys(rest)) => {
            match rest.strip_prefix("policies/acl/").or(rest.strip_prefix("policy/")) {
                Some(name) => Existence::Lenient(Box::pin(policy_exists(open, name))),
                None => Existence::Unasked,
            }
        }
        Some(Target::Token(rest)) => match rest.strip_prefix("roles/") {
            Some(name) => Existence::Strict(Box::pin(token::role_exists(open, name))),
            None => Existence::Unasked,
        },
        Some(Target::Identity(_)) | None => Existence::Unasked,
    }
}

async fn engine_has(open: &Open, mount: &Mount, rest: &str) -> Result<bool, Fail> {
    let engine = open.engine(mount)?;
    let reader = open.barrier.reader().await?;
    Ok(engine.exists(&ReadView::new(mount.id, &reader), rest).await?)
}

async fn cubbyhole_has(open: &Open, request: &Request, rest: &str) -> Result<bool, Fail> {
    let Some(token) = &request.token else { return Ok(false) };
    token::cubbyhole_has(open, &open.tokens.hash(token), rest).await
}

async fn row_exists(open: &Open, mount: &Mount, rest: &str) -> Result<bool, Fail> {
    let reader = open.barrier.reader().await?;
    let key = coffer_barrier::RowKey::path(mount.id, RecordKind::Entry, rest);
    Ok(reader.exists(&key).await?)
}

async fn policy_exists(open: &Open, name: &str) -> Result<bool, Fail> {
    match PolicyName::parse(name) {
        Ok(name) => Ok(open.policies.get(&name).await?.is_some()),
        Err(_) => Ok(false),
    }
}

/// Lets the target do it.
pub(crate) async fn handle(ctx: &mut Ctx, permitted: &Permitted, target: Target) -> Result<Outcome, Fail> {
    match target {
        Target::Sys(rest) => sys::handle(ctx, permitted, &rest).await,
        Target::Token(rest) => token::handle(ctx, permitted, &rest).await,
        Target::Auth(mount, method, rest) => auth::handle(ctx, permitted, &mount, method, &rest).await,
        Target::Cubbyhole(rest) => token::handle_cubbyhole(ctx, permitted, &rest).await,
        Target::Identity(rest) => identity::handle(ctx, &rest).await,
        Target::Delivery(mount, rest) => delivery::handle(ctx, permitted, &mount, &rest).await,
        Target::Engine(mount, rest) => engine::handle(ctx, permitted, &mount, &rest).await,
    }
}
