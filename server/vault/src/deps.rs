//! What the vault is given by whoever assembles it. No clock, network or configuration is reached in any
//! other way.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coffer_barrier::store::Store;
use coffer_core::time::Timestamp;
use coffer_engines::Engine;
use zeroize::Zeroizing;

use crate::audit::{AuditSettings, DeclaredDevice};
use crate::cache::CacheSettings;

/// A source of the present time.
pub trait Clock: Send + Sync + 'static {
    /// Now. Never goes back within a process, and never runs slower than time does: lives are measured by it.
    fn now(&self) -> Timestamp;

    /// What the machine's wall clock says. May be set to anything at any moment: only for times that others told.
    fn wall(&self) -> Timestamp {
        self.now()
    }

    /// From now on no time is told that is before this one. Clocks that are moved by hand need not care.
    fn not_before(&self, _floor: Timestamp) {}
}

/// Where a Kubernetes cluster's signing keys are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeysQuery {
    /// The URL of the JSON Web Key Set.
    pub url: String,
    /// PEM of the CAs to trust; none for the system's.
    pub ca_pem: Option<String>,
    /// Send the server's own ServiceAccount token. Only to the API server, never to a URL of somebody's choice.
    pub own_token: bool,
}

/// A cluster's API server, and as whom it is asked.
#[derive(Clone)]
pub struct ApiServer {
    /// The URL that its paths are below.
    pub host: String,
    /// PEM of the CAs to trust.
    pub ca_pem: Option<String>,
    /// If there is none, trust the CA beside the server's own ServiceAccount token; else the system's.
    pub own_ca: bool,
    /// As whom.
    pub credential: Credential,
}

/// What an API server is asked with.
#[derive(Clone)]
pub enum Credential {
    /// The server's own ServiceAccount token, as it is now.
    Own,
    /// A token that was given.
    Given(Zeroizing<String>),
}

/// One question to an API server.
pub struct ApiCall {
    /// Where, from `/` on.
    pub path: String,
    /// What to `POST` there, as JSON; none to `GET`.
    pub body: Option<Zeroizing<String>>,
}

/// What it said.
#[derive(Debug)]
pub struct ApiReply {
    /// The HTTP status.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

/// Speaks to whoever vouches for tokens: fetches signing keys, asks API servers. The real one is
/// [`crate::auth::HttpKeys`].
#[async_trait]
pub trait FetchKeys: Send + Sync + 'static {
    /// The key set's JSON text, or why not (no secrets in it).
    async fn fetch(&self, query: &KeysQuery) -> Result<String, String>;

    /// An API server's answer of whatever status, or why there is none (no secrets in it).
    async fn ask(&self, _server: &ApiServer, _call: &ApiCall) -> Result<ApiReply, String> {
        Err("no API server can be asked here".into())
    }
}

/// How many requests in what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRate {
    /// Requests in a window.
    pub requests: u64,
    /// The window's length.
    pub interval: Duration,
}

/// How many may listen to events at a time, reads that wait for a change included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriberLimits {
    /// On this server.
    pub in_all: usize,
    /// With one token.
    pub per_token: usize,
    /// How long a stream with nothing to tell goes without a look at its token, where what ends that is in the store
    /// only (batch tokens).
    pub idle: Duration,
}

impl Default for SubscriberLimits {
    fn default() -> Self {
        Self { in_all: 4096, per_token: 64, idle: Duration::from_secs(60) }
    }
}

/// What an administrator may set.
#[derive(Clone, Debug)]
pub struct VaultConfig {
    /// Life of tokens and leases when nothing else says it.
    pub default_lease_ttl: Duration,
    /// The longest life of tokens and leases.
    pub max_lease_ttl: Duration,
    /// The cluster's name in health and seal status.
    pub cluster_name: String,
    /// This server's name in events and audit records.
    pub node_name: String,
    /// The server's version, as `sys/health` tells it.
    pub version: String,
    /// The kind of storage, as `sys/seal-status` tells it.
    pub storage_type: String,
    /// How much every client address may ask for; none: as much as it likes.
    pub client_rate: Option<RequestRate>,
    /// How much may be asked for with each token.
    pub token_rate: Option<RequestRate>,
    /// The built-in audit log.
    pub audit: AuditSettings,
    /// Further audit devices.
    pub audit_devices: Vec<DeclaredDevice>,
    /// Where the files of audit devices that are enabled by API may be. None: nowhere.
    pub audit_directories: Vec<PathBuf>,
    /// What is kept in memory.
    pub cache: CacheSettings,
    /// How long a revocation waits for the credentials of what it cut off to be gone before it answers.
    pub revoke_wait: Duration,
    /// Streams of events and waiting reads.
    pub subscribers: SubscriberLimits,
    /// Rekey and new root tokens by shares alone, for clients that send no token. Cancelling always takes one.
    pub unauthenticated_ceremonies: bool,
    /// What `sys/config/state/sanitized` tells besides, in Vault's names. Never a secret.
    pub sanitized: serde_json::Map<String, serde_json::Value>,
}

impl Default for VaultConfig {
    fn default() -> Self {
        Self {
            default_lease_ttl: Duration::from_secs(32 * 24 * 3600),
            max_lease_ttl: Duration::from_secs(32 * 24 * 3600),
            cluster_name: "coffer".into(),
            node_name: "coffer-0".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            storage_type: "embedded".into(),
            client_rate: None,
            token_rate: None,
            audit: AuditSettings::default(),
            audit_devices: Vec::new(),
            audit_directories: Vec::new(),
            cache: CacheSettings::default(),
            revoke_wait: Duration::from_secs(5),
            subscribers: SubscriberLimits::default(),
            unauthenticated_ceremonies: false,
            sanitized: serde_json::Map::new(),
        }
    }
}

/// Everything the vault needs.
pub struct Deps {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// No other process uses the store, now or while this one lives: change-log streams that others left are closed
    /// when the vault opens. Only true where something proves it, like the embedded store's lock.
    pub store_is_exclusive: bool,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where signing keys come from.
    pub keys: Arc<dyn FetchKeys>,
    /// The secrets engines, one of each kind (see [`crate::standard_engines`]).
    pub engines: Vec<Arc<dyn Engine>>,
    /// The directory of the audit log. Created if absent.
    pub audit_dir: PathBuf,
    /// PEM of the CAs that clients should trust, for `sys/ca`.
    pub ca_bundle: Option<String>,
    /// The rest.
    pub config: VaultConfig,
}
