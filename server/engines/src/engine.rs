//! What the vault asks of an engine, and what it gets back. Decides nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use coffer_barrier::{Barrier, MountId};
use coffer_core::exact::Exact;
use coffer_core::secret::SecretBytes;
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{EngineError, ReadView, WriteView};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// GET.
    Read,
    /// LIST.
    List,
    /// SCAN.
    Scan,
    /// POST or PUT.
    Write,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

impl Op {
    /// Whether it may change something.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Patch | Self::Delete)
    }
}

/// Whether the caller may know of a thing: he may do something at one of its paths below the mount, and is not denied
/// the first of them.
pub type Sees<'a> = dyn Fn(&[String]) -> bool + Sync + 'a;

/// One request to an engine.
#[derive(Clone, Copy)]
pub struct EngineRequest<'a> {
    /// What to do.
    pub op: Op,
    /// The path below the mount; a trailing slash is LIST's and SCAN's only.
    pub path: &'a str,
    /// The JSON body.
    pub body: &'a Map<String, Value>,
    /// The body with its numbers as they were written; only if `body` has one that is not so.
    pub exact: Option<&'a Exact>,
    /// Query parameters.
    pub query: &'a BTreeMap<String, String>,
    /// The time of the request.
    pub now: Timestamp,
    /// Who asks, in words: becomes part of generated user names.
    pub display_name: &'a str,
    /// What a SCAN may show.
    pub sees: &'a Sees<'a>,
}

/// Data that is JSON already, byte for byte as the reply will carry it.
pub struct Encoded {
    /// One JSON object.
    pub json: SecretBytes,
    /// From when on the answer is another one though nobody writes anything.
    pub until: Option<Timestamp>,
}

/// What can be told of the reads whose answers a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touches<'p> {
    /// None that is kept.
    Nothing,
    /// Those kept under this name.
    One(&'p str),
    /// Any of the mount.
    All,
}

/// What an engine answers.
pub enum EngineReply {
    /// `200` with data.
    Data(Map<String, Value>),
    /// `200` with data that needs no more encoding.
    Encoded(Encoded),
    /// `200` with data that its writer gave a life: in seconds, or the mount's default.
    Lasting {
        /// The data: one JSON object.
        json: SecretBytes,
        /// The `lease_duration` of the reply.
        seconds: Option<u64>,
    },
    /// `204`.
    Empty,
    /// `404` without a body: there is nothing to patch.
    Missing,
    /// `404` with an empty list of errors.
    NotFound,
    /// `404` that carries data: a deleted version.
    NotFoundWith(Map<String, Value>),
    /// `200` with `keys`; an empty list is answered as `404`.
    List(Vec<String>),
    /// A credential is to be created: the lease first, then [`Engine::create`].
    Issue(Issue),
    /// As the inner one, with warnings.
    Warn(Box<EngineReply>, Vec<String>),
}

impl fmt::Debug for EngineReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Data may be a secret.
        f.write_str(match self {
            Self::Data(_) => "Data([redacted])",
            Self::Encoded(_) => "Encoded([redacted])",
            Self::Lasting { .. } => "Lasting([redacted])",
            Self::Empty => "Empty",
            Self::Missing => "Missing",
            Self::NotFound => "NotFound",
            Self::NotFoundWith(_) => "NotFoundWith([redacted])",
            Self::List(_) => "List([redacted])",
            Self::Issue(_) => "Issue([redacted])",
            Self::Warn(..) => "Warn([redacted])",
        })
    }
}

/// A credential that does not exist yet. It is created only after its lease is durable.
pub struct Issue {
    /// Everything that create, renew and revoke need. Kept encrypted in the lease.
    pub payload: SecretBytes,
    /// What the caller is given once the credential exists.
    pub data: Map<String, Value>,
    /// First life of the lease; zero: the mount's default.
    pub ttl: Duration,
    /// Longest life of the lease; zero: the mount's maximum.
    pub max_ttl: Duration,
    /// Whether the lease may be renewed.
    pub renewable: bool,
    /// Whose work it is, such as `config/app-db`: one queue with bounded concurrency for each mount and target.
    pub target: String,
    /// Its name at the target, if [`Engine::accounts`] lists it by that. Never used again.
    pub account: Option<String>,
}

/// What a write did, to be published once it is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Vault's event type, such as `kv-v2/data-write`.
    pub event_type: &'static str,
    /// The path below the mount.
    pub path: String,
    /// The operation's name in the event, such as `data-write`.
    pub operation: &'static str,
}

/// Somebody who reads a rotating credential and will acknowledge the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reader {
    /// His own, and nobody else's; tells nothing.
    pub id: String,
    /// As operators know him.
    pub accessor: String,
    /// What his login said of him.
    pub metadata: BTreeMap<String, String>,
    /// The pod that he is, if he is one: where it logged in, and its UID.
    #[serde(default)]
    pub pod: Option<String>,
}

/// Work that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// What it is about, below the mount: as if somebody had written there.
    pub path: String,
    /// Whose work it is, as in [`Issue::target`].
    pub target: String,
}

/// A secrets engine. One object serves all mounts of its kind; everything of a mount comes through the view.
#[async_trait]
pub trait Engine: Send + Sync {
    /// The mount type it serves, such as `kv`.
    fn kind(&self) -> &'static str;

    /// The vault is unsealed: from now on this process acts at targets in the name of `vault`, with an `epoch` above those
    /// of all processes before it. Only those of one epoch may act at a target.
    fn take_office(&self, _vault: &str, _epoch: u64) {}

    /// Whether there is something at `path` already: decides between `create` and `update`.
    async fn exists(&self, view: &ReadView<'_>, path: &str) -> Result<bool, EngineError>;

    /// `Read`, `List` and `Scan`. Changes nothing anywhere.
    async fn read(&self, view: &ReadView<'_>, req: &EngineRequest<'_>) -> Result<EngineReply, EngineError>;

    /// The name and number under which the answer to a read may be kept in memory and given again, until a write
    /// touches the name ([`Engine::touches`]). Only for answers that are [`EngineReply::Encoded`], and that depend on
    /// nothing but the mount's rows.
    fn kept_as<'p>(&self, _req: &EngineRequest<'p>) -> Option<(&'p str, u64)> {
        None
    }

    /// Which kept answers a write to `path` may change.
    fn touches<'p>(&self, _path: &'p str) -> Touches<'p> {
        Touches::All
    }

    /// `Write`, `Patch` and `Delete`, in one transaction that the caller commits. May be run again from its
    /// start after a conflict, so it touches nothing outside the view.
    async fn write(
        &self,
        view: &mut WriteView<'_>,
        req: &EngineRequest<'_>,
    ) -> Result<(EngineReply, Vec<Effect>), EngineError>;

    /// Before the transaction of a write: looks at the outside world where the write depends on it. Leaves
    /// nothing behind there.
    async fn verify(&self, _view: &ReadView<'_>, _req: &EngineRequest<'_>) -> Result<(), EngineError> {
        Ok(())
    }

    /// Creates the credential of an [`Issue`]. Idempotent.
    async fn create(&self, _view: &ReadView<'_>, _payload: &SecretBytes) -> Result<(), EngineError> {
        Err(EngineError::Unsupported)
    }

    /// Prolongs a credential. Idempotent.
    async fn renew(
        &self,
        _view: &ReadView<'_>,
        _payload: &SecretBytes,
        _expires: Timestamp,
    ) -> Result<(), EngineError> {
        Err(EngineError::Unsupported)
    }

    /// Takes a credential away, and whoever uses it with it. Idempotent: an absent one is a success.
    async fn revoke(&self, _view: &ReadView<'_>, _payload: &SecretBytes) -> Result<(), EngineError> {
        Err(EngineError::Unsupported)
    }

    /// The targets where the engine's accounts may be.
    async fn targets(&self, _view: &ReadView<'_>) -> Result<Vec<String>, EngineError> {
        Ok(Vec::new())
    }

    /// The accounts at a target that are certainly this mount's own.
    async fn accounts(&self, _view: &ReadView<'_>, _target: &str) -> Result<Vec<String>, EngineError> {
        Ok(Vec::new())
    }

    /// Takes one of them away, and whoever uses it with it. Idempotent.
    async fn remove(&self, _view: &ReadView<'_>, _target: &str, _account: &str) -> Result<(), EngineError> {
        Err(EngineError::Unsupported)
    }

    /// Whether a request to `path` is not one transaction but several steps at the store and at a target: the vault
    /// must then call [`Engine::act`] instead of [`Engine::write`].
    fn acts(&self, _op: Op, _path: &str) -> bool {
        false
    }

    /// Carries such a request out, in transactions of its own: whatever fails or stops in between, no credential is
    /// lost, and the same request or [`Engine::work`] goes on from there.
    async fn act(
        &self,
        _barrier: &Barrier,
        _mount: MountId,
        _req: &EngineRequest<'_>,
    ) -> Result<(EngineReply, Vec<Effect>), EngineError> {
        Err(EngineError::Unsupported)
    }

    /// The name of the credential that is read at `path`, if it rotates and its readers may acknowledge.
    fn rotating<'p>(&self, _path: &'p str) -> Option<&'p str> {
        None
    }

    /// Whether that reader of that version is written down already, or need not be. Without a reader: whoever does not
    /// say that he will acknowledge.
    async fn is_noted(
        &self,
        _view: &ReadView<'_>,
        _name: &str,
        _version: u64,
        _reader: Option<&Reader>,
    ) -> Result<bool, EngineError> {
        Ok(true)
    }

    /// Writes a reader down before he is given the version. False if that is not the one that is handed out any more:
    /// then it must be read again.
    async fn note(
        &self,
        _view: &mut WriteView<'_>,
        _name: &str,
        _version: u64,
        _reader: Option<&Reader>,
    ) -> Result<bool, EngineError> {
        Ok(true)
    }

    /// The reader `id` has the version that is handed out.
    async fn acknowledge(
        &self,
        _view: &mut WriteView<'_>,
        _name: &str,
        _version: u64,
        _id: &str,
        _now: Timestamp,
    ) -> Result<(), EngineError> {
        Err(EngineError::Unsupported)
    }

    /// A pod was revoked: nothing waits any more for what read in its name. Takes care of some of it; true once nothing
    /// is left.
    async fn pod_gone(
        &self,
        _view: &mut WriteView<'_>,
        _pod: &str,
        _now: Timestamp,
    ) -> Result<bool, EngineError> {
        Ok(true)
    }

    /// What is known of a credential's rotation, and whom it waits for. None if there is no such credential.
    async fn rotation(&self, _view: &ReadView<'_>, _name: &str) -> Result<Option<Value>, EngineError> {
        Ok(None)
    }

    /// What the engine has to do by `now` without anybody asking, at most `limit` of it.
    async fn due(
        &self,
        _view: &ReadView<'_>,
        _now: Timestamp,
        _limit: usize,
    ) -> Result<Vec<Due>, EngineError> {
        Ok(Vec::new())
    }

    /// Does it, as [`Engine::act`] does. What fails is due again later.
    async fn work(
        &self,
        _barrier: &Barrier,
        _mount: MountId,
        _path: &str,
        _now: Timestamp,
    ) -> Result<Vec<Effect>, EngineError> {
        Err(EngineError::Unsupported)
    }
}
