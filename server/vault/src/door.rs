//! The door: uninitialised, sealed, or open; and the two ceremonies that lead from one to the next.
//!
//! Shares given so far are kept in memory only, and dropped with the attempt.

use std::sync::{Arc, Mutex, PoisonError};

use coffer_barrier::{BarrierError, SealConfig, Writer};
use coffer_core::policy::PolicyName;
use coffer_core::secret::SecretString;
use coffer_core::shamir::Share;
use coffer_core::time::Timestamp;
use coffer_core::token::{Accessor, Token};
use serde_json::{Value, json};

use crate::audit::anchor;
use crate::background;
use crate::ceremony::{self, Collected};
use crate::codec;
use crate::dispatch::DELIVERY;
use crate::error::{Fail, bad};
use crate::mounts::{Class, Mount, MountTable, blank};
use crate::open::{Open, Surroundings};
use crate::policy::{self, Policies, PolicyEntry};
use crate::rows;
use crate::swap::Swap;
use crate::term;
use crate::token::{TokenEntry, Tokens};
use crate::versions;

/// How long opening may take: reading tables, and one anchor.
const ENTER_MAX: std::time::Duration = std::time::Duration::from_secs(60);
/// How long sealing waits for the audit log's head to be written down.
const LAST_ANCHOR_MAX: std::time::Duration = std::time::Duration::from_secs(2);

/// The door.
pub(crate) struct Door {
    around: Arc<Surroundings>,
    open: Swap<Option<Arc<Open>>>,
    progress: Mutex<Collected>,
    /// One ceremony at a time.
    ceremony: tokio::sync::Mutex<()>,
}

/// What an initialisation gives its caller, once.
pub(crate) struct Initialized {
    pub(crate) shares: Vec<Share>,
    pub(crate) root: Token,
}

impl Door {
    pub(crate) fn new(around: Arc<Surroundings>) -> Self {
        Self {
            around,
            open: Swap::new(None),
            progress: Mutex::default(),
            ceremony: tokio::sync::Mutex::default(),
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Collected> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unsealed vault, if it is.
    pub(crate) fn open(&self) -> Option<Arc<Open>> {
        (*self.open.load()).clone()
    }

    /// Creates the keys and what every vault starts with, all of it or nothing. The vault is sealed after it, unless
    /// its seal opens alone.
    pub(crate) async fn initialize(&self, shares: u64, threshold: u64) -> Result<Initialized, Fail> {
        let _turn = self.ceremony.lock().await;
        let threshold = ceremony::threshold(shares, threshold)
            .map_err(|why| bad(format!("invalid seal configuration: {why}")))?;
        let barrier = &self.around.barrier;
        let first = FirstRows::new(&self.around);
        let at = self.around.clock.now();
        let (token, write) = (Token::generate(&mut os_rng()), &first);
        let shown = &token;
        let rows = |mut w: Writer| async move {
            write.put_in(&mut w, shown).await?;
            Ok::<_, Fail>((w, ()))
        };
        let made = barrier.initialize_with(threshold, &mut os_rng(), Some(at), rows).await;
        let (shares, ()) = made.map_err(|error| match error {
            Fail::Barrier(BarrierError::AlreadyInitialized) => bad("Vault is already initialized"),
            other => other,
        })?;
        if barrier.opens_alone() {
            // What was made is shown whatever happens now: it exists nowhere else. The background opens it later.
            let opened = async {
                self.around.barrier.unseal(&[]).await.map_err(Fail::from)?;
                self.enter().await
            };
            let _later =
                opened.await.inspect_err(|error| tracing::warn!(%error, "initialised, but not open yet"));
        }
        Ok(Initialized { shares, root: token })
    }

    /// Opens a vault whose seal needs nobody. Does nothing where it is open, or not initialised yet.
    pub(crate) async fn open_alone(&self) -> Result<(), Fail> {
        let _turn = self.ceremony.lock().await;
        let barrier = &self.around.barrier;
        if self.open().is_some() || !barrier.opens_alone() || !barrier.initialized().await? {
            return Ok(());
        }
        barrier.unseal(&[]).await?;
        self.enter().await
    }

    /// Takes one share; with enough of them the vault opens. Wrong shares show only then, and all start anew.
    pub(crate) async fn unseal(&self, key: Option<SecretString>, reset: bool) -> Result<(), Fail> {
        if !reset && self.open().is_some() {
            // Whoever asks needs no token, so nothing is looked up for him.
            return Ok(());
        }
        let _turn = self.ceremony.lock().await;
        let config =
            self.around.barrier.seal_config().await?.ok_or_else(|| bad("Vault is not initialized"))?;
        if reset {
            *self.progress() = Collected::default();
            return Ok(());
        }
        if self.open().is_some() {
            return Ok(());
        }
        let key = key
            .ok_or_else(|| bad("'key' must be specified in request body as JSON, or 'reset' set to true"))?;
        let share = ceremony::share(key.expose())?;
        let shares = {
            let mut progress = self.progress();
            if progress.nonce.is_empty() {
                *progress = Collected::begin();
            }
            progress.add(share);
            let Some(shares) = progress.complete(config.threshold.needed().into()) else { return Ok(()) };
            *progress = Collected::default();
            shares
        };
        self.around.barrier.unseal(&shares).await.map_err(|error| {
            if ceremony::is_wrong(&error) {
                return bad(format!("unable to retrieve stored keys: {}", ceremony::WRONG_SHARES));
            }
            error.into()
        })?;
        self.enter().await
    }

    /// Opens the door once the barrier is open. In bounded time: sealing waits for it.
    async fn enter(&self) -> Result<(), Fail> {
        match tokio::time::timeout(ENTER_MAX, self.enter_now()).await {
            Ok(entered) => entered,
            Err(_) => {
                self.drop_keys();
                Err(Fail::Unavailable("the store did not answer while the vault was opened".into()))
            }
        }
    }

    async fn enter_now(&self) -> Result<(), Fail> {
        match Open::load(Arc::clone(&self.around)).await {
            Ok(open) => {
                anchor::check(&open).await;
                background::close_streams(&open).await;
                if let Err(error) = anchor::anchor(&open).await {
                    self.drop_keys();
                    return Err(error);
                }
                if let Err(error) = versions::note(&open).await {
                    self.drop_keys();
                    return Err(error);
                }
                if let Err(error) = term::begin(&open).await {
                    self.drop_keys();
                    return Err(error);
                }
                self.around.metrics.unsealed.set(1);
                self.open.store(Some(open));
                Ok(())
            }
            Err(error) => {
                self.drop_keys();
                Err(error)
            }
        }
    }

    /// Drops the keys, and with them what covers identifiers in the audit log.
    fn drop_keys(&self) {
        self.around.barrier.seal();
        self.around.audit.cover_with(None);
    }

    /// Closes the door and drops the keys.
    pub(crate) async fn seal(&self) {
        // Not between an unseal's last share and its open door: that would leave a door open to a sealed barrier.
        let _turn = self.ceremony.lock().await;
        let open = self.open();
        self.open.store(None);
        if let Some(open) = &open {
            // Sealing may be urgent: a store that hangs must not keep the keys in memory.
            match tokio::time::timeout(LAST_ANCHOR_MAX, anchor::anchor(open)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "no last anchor before sealing"),
                Err(_) => tracing::warn!("no last anchor before sealing: the store does not answer"),
            }
        }
        self.drop_keys();
        if let Some(open) = open {
            open.tokens.end_watches();
        }
        self.around.metrics.unsealed.set(0);
        *self.progress() = Collected::default();
    }

    /// The body of `sys/seal-status`.
    pub(crate) async fn seal_status(&self) -> Result<Value, Fail> {
        let config = self.around.barrier.seal_config().await?;
        let sealed = self.open().is_none();
        let (progress, nonce) = {
            let progress = self.progress();
            (progress.shares.len(), progress.nonce.clone())
        };
        let deps = &self.around.config;
        let counts = |config: &SealConfig| (config.threshold.needed(), config.threshold.shares());
        let (t, n) = config.as_ref().map_or((0, 0), counts);
        let mut status = json!({
            "type": self.around.barrier.seal_kind(),
            "initialized": config.is_some(),
            "sealed": sealed,
            "t": t,
            "n": n,
            "progress": progress,
            "nonce": nonce,
            "version": deps.version,
            "build_date": "",
            "migration": false,
            "recovery_seal": self.around.barrier.opens_alone(),
            "storage_type": deps.storage_type,
        });
        if let (false, Value::Object(map)) = (sealed, &mut status) {
            map.insert("cluster_name".into(), deps.cluster_name.as_str().into());
            map.insert("cluster_id".into(), cluster_id(&self.around.barrier)?.into());
        }
        Ok(status)
    }
}

/// A name for this vault that stays the same for as long as its keys do, wherever its store goes. Derived, so that it
/// needs no row; says nothing of the keys.
pub(crate) fn cluster_id(barrier: &coffer_barrier::Barrier) -> Result<String, Fail> {
    let digest = barrier.hmac_key("cluster-id")?.mac(&[b"cluster"]);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().to_string())
}

/// The system's own source: what it makes here guards everything else.
pub(crate) fn os_rng() -> rand::rngs::StdRng {
    rand::make_rng()
}

/// What every vault starts with: the default policy, the mount for delivery documents, and the root token.
struct FirstRows {
    now: Timestamp,
    default: PolicyEntry,
    delivery: Mount,
    accessor: Accessor,
}

impl FirstRows {
    fn new(around: &Surroundings) -> Self {
        let now = around.clock.now();
        Self {
            now,
            default: PolicyEntry {
                text: policy::default_policy(),
                version: 1,
                modified: Some(now),
                ..PolicyEntry::default()
            },
            delivery: Mount {
                description: "what agents are told about secrets".into(),
                ..blank(Class::Secret, DELIVERY, DELIVERY, now)
            },
            accessor: Accessor::generate(&mut os_rng()),
        }
    }

    /// The same rows however often it is called.
    async fn put_in(&self, w: &mut Writer, token: &Token) -> Result<(), Fail> {
        let root = TokenEntry {
            policies: vec![PolicyName::root()],
            display_name: "root".into(),
            path: "auth/token/root".into(),
            ..TokenEntry::blank(token.hash(&w.hmac_key("token")), self.accessor.clone(), self.now)
        };
        Policies::put_in(w, &PolicyName::default_policy(), &self.default).await?;
        w.create_kek(self.delivery.id).await?;
        MountTable::put_in(w, &self.delivery).await?;
        Tokens::insert_in(w, &root).await?;
        codec::put(w, &rows::heartbeat(), &crate::outage::Heartbeat { at: self.now, outage: None }).await
    }
}
