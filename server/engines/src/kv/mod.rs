//! Version 2 of the key-value engine: secrets with numbered versions.
//!
//! One request is one transaction. A secret's metadata is one record; each version is a row of its own under a
//! DEK of its own. Never leaves a version without its entry in the metadata, or the other way round.

mod data;
mod metadata;
mod record;

use async_trait::async_trait;

use crate::engine::{Effect, Engine, EngineReply, EngineRequest, Op};
use crate::{EngineError, ReadView, WriteView};

/// The most bytes of one version's data, as JSON.
pub const PAYLOAD_BYTES_MAX: usize = 512 * 1024;

const HINT: &str = "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API \
                    endpoints to use. If using the Vault CLI, use 'vault kv get' for this operation.";

/// The key-value engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct KvEngine;

impl KvEngine {
    /// The engine.
    pub const fn new() -> Self {
        Self
    }
}

/// The parts of the engine's paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'p> {
    Config,
    Data(&'p str),
    Delete(&'p str),
    Undelete(&'p str),
    Destroy(&'p str),
    /// Empty for the root of the mount.
    Metadata(&'p str),
    Subkeys(&'p str),
    Other,
}

fn route(path: &str) -> Route<'_> {
    let path = path.trim_end_matches('/');
    let (head, rest) = path.split_once('/').unwrap_or((path, ""));
    match (head, rest.is_empty()) {
        ("config", true) => Route::Config,
        ("metadata", _) => Route::Metadata(rest),
        ("data", false) => Route::Data(rest),
        ("delete", false) => Route::Delete(rest),
        ("undelete", false) => Route::Undelete(rest),
        ("destroy", false) => Route::Destroy(rest),
        ("subkeys", false) => Route::Subkeys(rest),
        _ => Route::Other,
    }
}

/// The answer to a path of version 1: `404` with a hint, as in Vault.
fn hint() -> EngineReply {
    EngineReply::Warn(Box::new(EngineReply::NotFound), vec![HINT.to_owned()])
}

#[async_trait]
impl Engine for KvEngine {
    fn kind(&self) -> &'static str {
        "kv"
    }

    async fn exists(&self, view: &ReadView<'_>, path: &str) -> Result<bool, EngineError> {
        match route(path) {
            Route::Data(path) => Ok(record::load(view, path).await?.is_some()),
            Route::Metadata(path) if !path.is_empty() => Ok(record::load(view, path).await?.is_some()),
            _ => Ok(true),
        }
    }

    async fn read(&self, view: &ReadView<'_>, req: &EngineRequest<'_>) -> Result<EngineReply, EngineError> {
        match (req.op, route(req.path)) {
            (Op::Read, Route::Config) => metadata::read_config(view).await,
            (Op::Read, Route::Data(path)) => data::read(view, req, path).await,
            (Op::Read, Route::Subkeys(path)) => data::subkeys(view, req, path).await,
            (Op::Read, Route::Metadata(path)) if !path.is_empty() => metadata::read(view, path).await,
            (Op::List, Route::Metadata(path)) => metadata::list(view, req, path).await,
            (Op::Read | Op::List, Route::Other) => Ok(hint()),
            _ => Err(EngineError::Unsupported),
        }
    }

    async fn write(
        &self,
        view: &mut WriteView<'_>,
        req: &EngineRequest<'_>,
    ) -> Result<(EngineReply, Vec<Effect>), EngineError> {
        match (req.op, route(req.path)) {
            (Op::Write, Route::Config) => metadata::write_config(view, req).await,
            (Op::Write, Route::Data(path)) => data::write(view, req, path).await,
            (Op::Patch, Route::Data(path)) => data::patch(view, req, path).await,
            (Op::Delete, Route::Data(path)) => data::delete_latest(view, req, path).await,
            (Op::Write, Route::Delete(path)) => data::delete(view, req, path).await,
            (Op::Write, Route::Undelete(path)) => data::undelete(view, req, path).await,
            (Op::Write, Route::Destroy(path)) => data::destroy(view, req, path).await,
            (Op::Write, Route::Metadata(path)) if !path.is_empty() => metadata::write(view, req, path).await,
            (Op::Delete, Route::Metadata(path)) if !path.is_empty() => metadata::delete(view, path).await,
            (Op::Write | Op::Delete, Route::Other) => Ok((hint(), Vec::new())),
            _ => Err(EngineError::Unsupported),
        }
    }
}

/// One effect on `path` below `area`.
fn effect(event_type: &'static str, operation: &'static str, area: &str, path: &str) -> Vec<Effect> {
    vec![Effect { event_type, path: format!("{area}/{path}"), operation }]
}
