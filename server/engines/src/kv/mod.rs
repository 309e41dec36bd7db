//! The key-value engine: secrets with numbered versions ([`KvEngine`]), and without ([`PlainKvEngine`]).
//!
//! One request is one transaction. A secret's metadata is one record; each version is a row of its own under a
//! DEK of its own. Never leaves a version without its entry in the metadata, or the other way round.

mod data;
mod fields;
#[cfg(test)]
mod fuzz;
mod listing;
mod metadata;
mod plain;
mod record;
mod rotation;
mod versions;

use std::sync::Arc;

use async_trait::async_trait;
use coffer_barrier::{Barrier, MountId, RecordKind};
use coffer_core::time::Timestamp;
use serde_json::Value;

pub use plain::{PLAIN_KIND, PlainKvEngine, secrets, upgrade};

use crate::engine::{Due, Effect, Engine, EngineReply, EngineRequest, Op, Touches};
use crate::turns::{Moment, Turns};
use crate::webhook::{NoWebhooks, Webhooks};
use crate::{EngineError, ReadView, WriteView};

/// The most bytes of one version's data, as JSON.
pub const PAYLOAD_BYTES_MAX: usize = 512 * 1024;
/// What it is called where it is too large.
const PAYLOAD: &str = "secret payload";

type Written = Result<(EngineReply, Vec<Effect>), EngineError>;

/// Version 2 of the key-value engine.
pub struct KvEngine {
    webhooks: Arc<dyn Webhooks>,
    turns: Turns,
}

impl Default for KvEngine {
    fn default() -> Self {
        Self::new()
    }
}

impl KvEngine {
    /// The engine, without anybody to ask outside.
    pub fn new() -> Self {
        Self::with_webhooks(Arc::new(NoWebhooks))
    }

    /// The engine; rotations ask webhooks in this way.
    pub fn with_webhooks(webhooks: Arc<dyn Webhooks>) -> Self {
        Self { webhooks, turns: Turns::default() }
    }

    fn turning<'a>(
        &'a self,
        barrier: &'a Barrier,
        mount: MountId,
        path: &'a str,
        now: Timestamp,
    ) -> rotation::Turning<'a> {
        rotation::Turning { webhooks: &*self.webhooks, barrier, mount, clock: Moment::at(now), path }
    }
}

/// The parts of the engine's paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'p> {
    Config,
    Data(&'p str),
    Delete(&'p str),
    /// A list with what is known of each; empty for the root of the mount.
    Detailed(&'p str),
    Undelete(&'p str),
    Destroy(&'p str),
    /// Empty for the root of the mount.
    Metadata(&'p str),
    Subkeys(&'p str),
    /// When the secret gets its next value, and from whom.
    Rotation(&'p str),
    /// The next value now.
    Rotate(&'p str),
    /// Which webhooks may be asked.
    RotationConfig,
    /// `data` or `metadata` and nothing more.
    Root,
    Other,
}

fn route(path: &str, listing: bool) -> Route<'_> {
    let path = path.trim_end_matches('/');
    let (head, rest) = path.split_once('/').unwrap_or((path, ""));
    match (head, rest.is_empty()) {
        ("config", true) if !listing => Route::Config,
        ("metadata", false) => Route::Metadata(rest),
        ("metadata", true) if listing => Route::Metadata(rest),
        ("detailed-metadata", false) => Route::Detailed(rest),
        ("detailed-metadata", true) if listing => Route::Detailed(rest),
        ("data" | "metadata", true) => Route::Root,
        ("data", false) => Route::Data(rest),
        ("delete", false) => Route::Delete(rest),
        ("undelete", false) => Route::Undelete(rest),
        ("destroy", false) => Route::Destroy(rest),
        ("subkeys", false) => Route::Subkeys(rest),
        ("rotation", false) => Route::Rotation(rest),
        ("rotate", false) => Route::Rotate(rest),
        ("rotation-config", true) if !listing => Route::RotationConfig,
        _ => Route::Other,
    }
}

impl Route<'_> {
    /// The parameters that this path understands, for the warning about the others.
    const fn parameters(&self) -> &'static [&'static str] {
        match self {
            Self::Data(_) => &["path", "version", "options", "data"],
            Self::Metadata(_) => &[
                "path",
                "cas_required",
                "max_versions",
                "delete_version_after",
                "custom_metadata",
                "metadata_cas",
                "metadata_cas_required",
                "after",
                "limit",
            ],
            Self::Detailed(_) => &["path", "after", "limit"],
            Self::Subkeys(_) => &["path", "version", "depth"],
            _ => &[],
        }
    }
}

/// The answer to a path of version 1: `404` with a hint, as in Vault.
fn hint(op: Op) -> EngineReply {
    let verb = match op {
        Op::Read => "get",
        Op::List => "list",
        Op::Scan => "scan",
        Op::Write => "put",
        Op::Patch => "patch",
        Op::Delete => "delete",
    };
    warned(
        EngineReply::NotFound,
        format!(
            "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints \
             to use. If using the Vault CLI, use 'vault kv {verb}' for this operation."
        ),
    )
}

fn no_root() -> EngineReply {
    let text = "Non-listing operations on the root of a K/V v2 mount are not supported.";
    warned(EngineReply::NotFound, text.to_owned())
}

fn warned(reply: EngineReply, warning: String) -> EngineReply {
    match reply {
        EngineReply::Warn(inner, mut warnings) => {
            warnings.push(warning);
            EngineReply::Warn(inner, warnings)
        }
        other => EngineReply::Warn(Box::new(other), vec![warning]),
    }
}

/// Says which parameters were ignored, in replies that have a body to say it in.
fn with_ignored(reply: EngineReply, route: Route<'_>, req: &EngineRequest<'_>) -> EngineReply {
    let known = route.parameters();
    if known.is_empty()
        || !matches!(&reply, EngineReply::Data(_) | EngineReply::Encoded(_) | EngineReply::List(_))
    {
        return reply;
    }
    let ignored = if req.op.writes() {
        fields::ignored(req.body.keys(), known)
    } else {
        let ours = |name: &&String| !matches!(name.as_str(), "list" | "scan" | "help");
        fields::ignored(req.query.keys().filter(ours), known)
    };
    match ignored {
        Some(text) => warned(reply, text),
        None => reply,
    }
}

#[async_trait]
impl Engine for KvEngine {
    fn kind(&self) -> &'static str {
        "kv"
    }

    async fn exists(&self, view: &ReadView<'_>, path: &str) -> Result<bool, EngineError> {
        match route(path, false) {
            Route::Data(path) | Route::Metadata(path) => view.has(RecordKind::Meta, path).await,
            Route::Rotation(path) => rotation::exists(view, path).await,
            _ => Ok(true),
        }
    }

    async fn read(&self, view: &ReadView<'_>, req: &EngineRequest<'_>) -> Result<EngineReply, EngineError> {
        let route = route(req.path, req.op != Op::Read);
        let reply = match (req.op, route) {
            (Op::Read, Route::Config) => metadata::read_config(view).await,
            (Op::Read, Route::Data(path)) => data::read(view, req, path).await,
            (Op::Read, Route::Subkeys(path)) => data::subkeys(view, req, path).await,
            (Op::Read, Route::Metadata(path)) => metadata::read(view, path).await,
            (Op::Read, Route::Rotation(path)) => rotation::read(view, path).await,
            (Op::Read, Route::RotationConfig) => rotation::read_config(view).await,
            (Op::Read, Route::Root) => Ok(no_root()),
            (Op::List, Route::Metadata(path)) => listing::list(view, req, path).await,
            (Op::List, Route::Detailed(path)) => listing::detailed(view, req, path).await,
            (Op::Scan, Route::Metadata(path)) => {
                listing::scan(view, req, path, &["metadata/", "data/"]).await
            }
            (Op::Scan, Route::Detailed(path)) => listing::scan_detailed(view, req, path).await,
            (_, Route::Other) => Ok(hint(req.op)),
            _ => Err(EngineError::Unsupported),
        }?;
        Ok(with_ignored(reply, route, req))
    }

    fn kept_as<'p>(&self, req: &EngineRequest<'p>) -> Option<(&'p str, u64)> {
        match (req.op, route(req.path, false)) {
            (Op::Read, Route::Data(path)) => data::asked(req.query).map(|number| (path, number)),
            _ => None,
        }
    }

    fn touches<'p>(&self, path: &'p str) -> Touches<'p> {
        match route(path, false) {
            Route::Data(path)
            | Route::Delete(path)
            | Route::Undelete(path)
            | Route::Destroy(path)
            | Route::Metadata(path)
            | Route::Detailed(path)
            | Route::Rotate(path)
            | Route::Subkeys(path) => Touches::One(path),
            // Settings are for versions to come, and elsewhere nothing is written.
            Route::Config | Route::Rotation(_) | Route::RotationConfig | Route::Root | Route::Other => {
                Touches::Nothing
            }
        }
    }

    async fn write(&self, view: &mut WriteView<'_>, req: &EngineRequest<'_>) -> Written {
        let route = route(req.path, false);
        let (reply, effects) = match (req.op, route) {
            (Op::Write, Route::Config) => metadata::write_config(view, req).await,
            (Op::Write, Route::Data(path)) => data::write(view, req, path).await,
            (Op::Patch, Route::Data(path)) => data::patch(view, req, path).await,
            (Op::Delete, Route::Data(path)) => versions::delete_latest(view, req, path).await,
            (Op::Write, Route::Delete(path)) => versions::delete(view, req, path).await,
            (Op::Write, Route::Undelete(path)) => versions::undelete(view, req, path).await,
            (Op::Write, Route::Destroy(path)) => versions::destroy(view, req, path).await,
            (Op::Write, Route::Metadata(path)) => metadata::write(view, req, path).await,
            (Op::Patch, Route::Metadata(path)) => metadata::patch(view, req, path).await,
            (Op::Delete, Route::Metadata(path)) => metadata::delete(view, path).await,
            (Op::Write, Route::Rotation(path)) => rotation::write(view, req, path).await,
            (Op::Delete, Route::Rotation(path)) => rotation::delete(view, path).await,
            (Op::Write, Route::RotationConfig) => rotation::write_config(view, req).await,
            (_, Route::Root) => Ok((no_root(), Vec::new())),
            (_, Route::Other) => Ok((hint(req.op), Vec::new())),
            _ => Err(EngineError::Unsupported),
        }?;
        Ok((with_ignored(reply, route, req), effects))
    }

    fn acts(&self, op: Op, path: &str) -> bool {
        op == Op::Write && matches!(route(path, false), Route::Rotate(_))
    }

    async fn act(&self, barrier: &Barrier, mount: MountId, req: &EngineRequest<'_>) -> Written {
        let Route::Rotate(path) = route(req.path, false) else { return Err(EngineError::Unsupported) };
        let _turn = self.turns.take(mount, path).await;
        let turning = self.turning(barrier, mount, path, req.now);
        turning.ask(req).await?;
        Ok((EngineReply::Empty, turning.go_on().await?))
    }

    fn rotating<'p>(&self, path: &'p str) -> Option<&'p str> {
        match route(path, false) {
            Route::Data(path) => Some(path),
            _ => None,
        }
    }

    async fn acknowledge(
        &self,
        view: &mut WriteView<'_>,
        name: &str,
        _version: u64,
        _id: &str,
        _now: Timestamp,
    ) -> Result<(), EngineError> {
        if !rotation::exists(&view.reading(), name).await? {
            return Err(EngineError::NotFound);
        }
        Err(EngineError::bad("nobody is waited for here: the grace of a key-value secret has its full time"))
    }

    async fn rotation(&self, view: &ReadView<'_>, name: &str) -> Result<Option<Value>, EngineError> {
        rotation::status(view, name).await
    }

    async fn due(&self, view: &ReadView<'_>, now: Timestamp, limit: usize) -> Result<Vec<Due>, EngineError> {
        rotation::due(view, now, limit).await
    }

    async fn work(
        &self,
        barrier: &Barrier,
        mount: MountId,
        path: &str,
        now: Timestamp,
    ) -> Result<Vec<Effect>, EngineError> {
        let Route::Rotate(path) = route(path, false) else { return Err(EngineError::Unsupported) };
        let _turn = self.turns.take(mount, path).await;
        self.turning(barrier, mount, path, now).go_on().await
    }
}

/// One effect on `path` below `area`.
fn effect(event_type: &'static str, operation: &'static str, area: &str, path: &str) -> Vec<Effect> {
    vec![Effect { event_type, path: format!("{area}/{path}"), operation }]
}
