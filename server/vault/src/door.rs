//! The door: uninitialised, sealed, or open; and the two ceremonies that lead from one to the next.
//!
//! Shares given so far are kept in memory only, and dropped with the attempt.

use std::sync::{Arc, Mutex, PoisonError};

use coffer_barrier::{BarrierError, SealConfig};
use coffer_core::policy::PolicyName;
use coffer_core::secret::SecretString;
use coffer_core::shamir::{Share, Threshold};
use coffer_core::token::{Accessor, Token};
use serde_json::{Value, json};

use crate::audit::anchor;
use crate::background;
use crate::codec::{self, transact};
use crate::dispatch::DELIVERY;
use crate::error::{Fail, bad};
use crate::mounts::{Class, Mount, MountTable, blank};
use crate::open::{Open, Surroundings};
use crate::policy::{self, Policies, PolicyEntry};
use crate::rows;
use crate::swap::Swap;
use crate::token::{TokenEntry, Tokens};

/// The shares of one attempt at unsealing.
struct Progress {
    nonce: String,
    shares: Vec<Share>,
}

impl Progress {
    fn new() -> Self {
        Self { nonce: String::new(), shares: Vec::new() }
    }
}

/// The door.
pub(crate) struct Door {
    around: Arc<Surroundings>,
    open: Swap<Option<Arc<Open>>>,
    progress: Mutex<Progress>,
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
            progress: Mutex::new(Progress::new()),
            ceremony: tokio::sync::Mutex::default(),
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unsealed vault, if it is.
    pub(crate) fn open(&self) -> Option<Arc<Open>> {
        (*self.open.load()).clone()
    }

    /// Creates the keys and what every vault starts with. The vault is sealed after it.
    pub(crate) async fn initialize(&self, shares: u64, threshold: u64) -> Result<Initialized, Fail> {
        let _turn = self.ceremony.lock().await;
        let threshold = Threshold::new(shares, threshold).map_err(|error| bad(error.to_string()))?;
        let barrier = &self.around.barrier;
        let made = barrier.initialize(threshold, &mut os_rng()).await;
        let shares = made.map_err(|error| match error {
            BarrierError::AlreadyInitialized => bad("Vault is already initialized"),
            other => other.into(),
        })?;
        let needed = shares.len().min(usize::from(threshold.needed()));
        barrier.unseal(&shares[..needed]).await?;
        let first = first_rows(&self.around).await;
        barrier.seal();
        Ok(Initialized { shares, root: first? })
    }

    /// Takes one share; with enough of them the vault opens. Wrong shares show only then, and all start anew.
    pub(crate) async fn unseal(&self, key: Option<SecretString>, reset: bool) -> Result<(), Fail> {
        let _turn = self.ceremony.lock().await;
        let config =
            self.around.barrier.seal_config().await?.ok_or_else(|| bad("Vault is not initialized"))?;
        if reset {
            *self.progress() = Progress::new();
            return Ok(());
        }
        if self.open().is_some() {
            return Ok(());
        }
        let key = key
            .ok_or_else(|| bad("'key' must be specified in request body as JSON, or 'reset' set to true"))?;
        let share =
            Share::parse(key.expose()).map_err(|_| bad("'key' must be a valid hex or base64 string"))?;
        let shares = {
            let mut progress = self.progress();
            if progress.nonce.is_empty() {
                progress.nonce = uuid::Uuid::new_v4().to_string();
            }
            let known = progress.shares.iter().any(|s| same(s, &share));
            if !known {
                progress.shares.push(share);
            }
            if progress.shares.len() < usize::from(config.threshold.needed()) {
                return Ok(());
            }
            std::mem::replace(&mut *progress, Progress::new()).shares
        };
        self.around.barrier.unseal(&shares).await.map_err(|error| match error {
            BarrierError::WrongShares | BarrierError::Shares(_) => bad("failed to unseal: invalid key"),
            other => other.into(),
        })?;
        self.enter().await
    }

    /// Opens the door once the barrier is open.
    async fn enter(&self) -> Result<(), Fail> {
        match Open::load(Arc::clone(&self.around)).await {
            Ok(open) => {
                anchor::check(&open).await;
                background::close_streams(&open).await;
                if let Err(error) = anchor::anchor(&open).await {
                    self.around.barrier.seal();
                    return Err(error);
                }
                self.around.metrics.unsealed.set(1);
                self.open.store(Some(open));
                Ok(())
            }
            Err(error) => {
                self.around.barrier.seal();
                Err(error)
            }
        }
    }

    /// Closes the door and drops the keys.
    pub(crate) async fn seal(&self) {
        let open = self.open();
        self.open.store(None);
        if let Some(open) = open {
            let anchored = anchor::anchor(&open).await;
            let _ = anchored.inspect_err(|error| tracing::warn!(%error, "no last anchor before sealing"));
        }
        self.around.barrier.seal();
        self.around.metrics.unsealed.set(0);
        *self.progress() = Progress::new();
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
            "type": "shamir",
            "initialized": config.is_some(),
            "sealed": sealed,
            "t": t,
            "n": n,
            "progress": progress,
            "nonce": nonce,
            "version": deps.version,
            "build_date": "",
            "migration": false,
            "recovery_seal": false,
            "storage_type": deps.storage_type,
        });
        if let (false, Value::Object(map)) = (sealed, &mut status) {
            map.insert("cluster_name".into(), deps.cluster_name.as_str().into());
            map.insert("cluster_id".into(), "".into());
        }
        Ok(status)
    }
}

fn same(a: &Share, b: &Share) -> bool {
    use subtle::ConstantTimeEq as _;
    a.expose().ct_eq(b.expose()).into()
}

/// The system's own source: what it makes here guards everything else.
pub(crate) fn os_rng() -> rand::rngs::StdRng {
    rand::make_rng()
}

/// What every vault starts with: the default policy, the mount for delivery documents, and the root token.
async fn first_rows(around: &Surroundings) -> Result<Token, Fail> {
    let barrier = &around.barrier;
    let now = around.clock.now();
    let token = Token::generate(&mut os_rng());
    let hash = token.hash(&barrier.hmac_key("token")?);
    let root = TokenEntry {
        policies: vec![PolicyName::root()],
        display_name: "root".into(),
        path: "auth/token/root".into(),
        ..TokenEntry::blank(hash, Accessor::generate(&mut os_rng()), now)
    };
    let default =
        PolicyEntry { text: policy::default_policy(), custom_metadata: std::collections::BTreeMap::new() };
    let delivery: Mount = Mount {
        description: "what agents are told about secrets".into(),
        ..blank(Class::Secret, DELIVERY, DELIVERY, now)
    };
    let done: Result<(), Fail> = transact!(barrier, |w| {
        Policies::put_in(w, &PolicyName::default_policy(), &default).await?;
        barrier.create_kek(w, delivery.id).await?;
        MountTable::put_in(w, &delivery).await?;
        Tokens::insert_in(w, &root).await?;
        codec::put(w, &rows::heartbeat(), &crate::outage::Heartbeat { at: now, outage: None }).await?;
    });
    done?;
    Ok(token)
}
