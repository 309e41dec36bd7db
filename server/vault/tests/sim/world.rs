//! The world around the vault, what the clients know of it, and one life of the server after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coffer_barrier::store::Store;
use coffer_core::secret::SecretString;
use coffer_core::time::Timestamp;
use coffer_core::token::Token;
use coffer_engines::{Engine, KvEngine};
use coffer_storage::faulty::{Faults, FaultyStore};
use coffer_vault::{
    Clock, Deps, FetchKeys, KeysQuery, Operation, Reply, Request, StatusRequest, Vault, VaultConfig,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use crate::bugs::Bug;
use crate::process::Process;
use crate::store::{Disk, SimStore};
use crate::target::{SimEngine, Target};

/// Some Monday.
const START: u64 = 1_795_000_000_000;

pub struct SimClock(AtomicU64);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

struct NoKeys;

#[async_trait]
impl FetchKeys for NoKeys {
    async fn fetch(&self, _query: &KeysQuery) -> Result<String, String> {
        Err("no network".into())
    }
}

/// What a client knows of a token.
pub struct TokenSeen {
    pub token: String,
    pub accessor: String,
    pub parent: Option<usize>,
    pub expires: Timestamp,
    pub max_expires: Timestamp,
    /// How many outages there had been when `expires` was told: a later one may have given grace.
    pub outages: u32,
    /// It was revoked, and whoever did was told so.
    pub revoked: bool,
    /// It may have been: nobody was told.
    pub doubtful: bool,
}

/// What a client knows of a lease.
pub struct LeaseSeen {
    pub id: String,
    pub account: String,
    pub token: usize,
    pub expires: Timestamp,
    /// Somebody tried to end it.
    pub ended: bool,
}

/// One life of the server.
struct Life {
    runtime: Runtime,
    vault: Arc<Vault>,
    process: Arc<Process>,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    fn of(reply: &Reply) -> Self {
        Self { status: reply.status, body: reply.as_json().cloned().unwrap_or_default() }
    }

    pub fn text(&self, pointer: &str) -> String {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub fn seconds(&self, pointer: &str) -> Duration {
        Duration::from_secs(self.body.pointer(pointer).and_then(Value::as_u64).unwrap_or_default())
    }

    pub const fn succeeded(&self) -> bool {
        self.status < 300
    }
}

/// Everything.
pub struct World {
    pub rng: StdRng,
    pub target: Arc<Target>,
    pub tokens: Vec<TokenSeen>,
    pub leases: Vec<LeaseSeen>,
    pub next_account: u64,
    pub outages: u32,
    pub faults: Faults,
    pub sealed: bool,
    story: Vec<String>,
    /// One seed is replayed: its story is told as it happens.
    aloud: bool,
    seed: u64,
    bug: Option<Bug>,
    clock: Arc<SimClock>,
    disk: Arc<Disk>,
    faulty: FaultyStore,
    audit: tempfile::TempDir,
    root: String,
    unseal_key: String,
    life: Option<Life>,
    requests: u64,
}

const POLICY: &str = r#"path "database/creds/*" { capabilities = ["read"] }
path "secret/data/x" { capabilities = ["read"] }
path "auth/token/create" { capabilities = ["update"] }"#;

impl World {
    /// A vault with a database, a policy and a secret, and no fault yet.
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let audit = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::default());
        let faulty = FaultyStore::new(Arc::new(disk.rows.clone()), seed, Faults::default());
        let target = Arc::new(Target::new(seed, bug, audit.path().join("audit.log")));
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            target,
            tokens: Vec::new(),
            leases: Vec::new(),
            next_account: 0,
            outages: 0,
            faults: Faults::default(),
            sealed: false,
            story: Vec::new(),
            aloud: std::env::var_os("COFFER_SIM_SEED").is_some(),
            seed,
            bug,
            clock: Arc::new(SimClock(AtomicU64::new(START))),
            disk,
            faulty,
            audit,
            root: String::new(),
            unseal_key: String::new(),
            life: None,
            requests: 0,
        };
        world.live();
        let life = world.life.as_ref().unwrap();
        let made = life.runtime.block_on(life.vault.dev_init()).unwrap();
        world.root = made.root_token.expose().to_owned();
        world.unseal_key = made.unseal_key.expose().to_owned();
        for (path, body) in [
            ("sys/mounts/database", json!({"type": "database"})),
            ("sys/policies/acl/user", json!({"policy": POLICY})),
            ("secret/data/x", json!({"data": {"k": "v"}})),
        ] {
            assert!(world.as_root(Operation::Update, path, body).unwrap().succeeded(), "{path}");
        }
        world.advance(Duration::from_secs(1));
        world
    }

    pub fn say(&mut self, line: impl std::fmt::Display) {
        let since = self.now().as_millis() - START;
        let line = format!("{:>9.3} s  {line}", since as f64 / 1000.0);
        if self.aloud {
            eprintln!("{line}");
        }
        self.story.push(line);
    }

    pub fn story(&self) -> &[String] {
        &self.story
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// Time goes on, for the database, too.
    pub fn advance(&self, by: Duration) {
        self.clock.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
        self.target.arrive(self.now());
    }

    /// A new process over what the last one left.
    fn live(&mut self) {
        let process = Arc::new(Process::new());
        let store: Arc<dyn Store> = Arc::new(SimStore {
            inner: Arc::new(self.faulty.clone()),
            process: Arc::clone(&process),
            bug: self.bug,
            disk: Arc::clone(&self.disk),
        });
        let engines: Vec<Arc<dyn Engine>> = vec![
            Arc::new(KvEngine::new()),
            Arc::new(SimEngine { target: Arc::clone(&self.target), process: Arc::clone(&process) }),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let vault = {
            let _inside = runtime.enter();
            Vault::new(Deps {
                store,
                store_is_exclusive: true,
                clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
                keys: Arc::new(NoKeys),
                engines,
                audit_dir: self.audit.path().to_path_buf(),
                ca_bundle: None,
                config: VaultConfig::default(),
            })
            .unwrap()
        };
        self.life = Some(Life { runtime, vault, process });
    }

    /// Opens what is sealed; without faults, as whoever unseals tries until it works.
    pub fn unseal(&mut self) {
        self.faulty.set_faults(Faults::default());
        let key = Some(SecretString::copy_of(&self.unseal_key));
        let life = self.life.as_ref().unwrap();
        let reply = life.runtime.block_on(life.vault.status(
            "unseal",
            [127, 0, 0, 1].into(),
            StatusRequest::Unseal { key, reset: false },
        ));
        assert_eq!(Answer::of(&reply).body["sealed"], json!(false), "{:?}", reply.as_json());
        self.sealed = false;
        self.outages += 1;
        self.faulty.set_faults(self.faults);
    }

    /// The process is gone, in the midst of whatever it was doing, and after a while there is another.
    pub fn crash(&mut self) {
        if let Some(life) = self.life.take() {
            drop(life.vault);
            life.runtime.shutdown_background();
        }
        if self.bug == Some(Bug::CommitForgotten) {
            self.disk.forget_last();
        }
        let away = self.rng.random_range(0..900);
        self.say(format_args!("the server is gone, for {away} s"));
        self.advance(Duration::from_secs(away));
        self.live();
        self.unseal();
    }

    /// What was put off in the store arrives now.
    pub fn land_late(&mut self) {
        let landed = self.life.as_ref().unwrap().runtime.block_on(self.faulty.land_late());
        self.say(format_args!("{landed} late commits land"));
    }

    /// Other faults of the store from here on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.faulty.set_faults(faults);
    }

    /// Within `look`, nothing fails.
    pub fn without_faults<T>(&mut self, look: impl FnOnce(&mut Self) -> T) -> T {
        self.faulty.set_faults(Faults::default());
        let seen = look(self);
        self.faulty.set_faults(self.faults);
        seen
    }

    /// The process may die in one of its next calls, until [`Self::disarm`].
    pub fn arm(&mut self) {
        let calls = self.rng.random_range(0..60);
        self.life.as_ref().unwrap().process.die_after(calls);
    }

    pub fn disarm(&self) {
        self.life.as_ref().unwrap().process.live_on();
    }

    fn request(&mut self, operation: Operation, path: &str, token: &str, body: Value) -> Request {
        self.requests += 1;
        Request {
            id: format!("{}-{}", self.seed, self.requests),
            operation,
            path: path.to_owned(),
            token: Some(Token::parse(token).unwrap()),
            body: if let Value::Object(map) = body { map } else { Map::new() },
            exact: None,
            query: BTreeMap::new(),
            wrap_ttl: None,
            over_limit: false,
            client_ip: [10, 0, 0, 7].into(),
            received: self.now(),
        }
    }

    /// A client's request. None: the server died over it.
    pub fn ask(&mut self, operation: Operation, path: &str, token: &str, body: Value) -> Option<Answer> {
        let request = self.request(operation, path, token, body);
        let life = self.life.as_ref().unwrap();
        life.runtime.block_on(async {
            tokio::select! {
                biased;
                () = life.process.death() => None,
                audited = life.vault.handle(request) => Some(Answer::of(audited.get())),
            }
        })
    }

    /// Two at a time.
    pub fn ask_both(
        &mut self,
        one: (Operation, String, String, Value),
        other: (Operation, String, String, Value),
    ) -> Option<(Answer, Answer)> {
        let one = self.request(one.0, &one.1, &one.2, one.3);
        let other = self.request(other.0, &other.1, &other.2, other.3);
        let life = self.life.as_ref().unwrap();
        life.runtime.block_on(async {
            let both = async { tokio::join!(life.vault.handle(one), life.vault.handle(other)) };
            tokio::select! {
                biased;
                () = life.process.death() => None,
                (one, other) = both => Some((Answer::of(one.get()), Answer::of(other.get()))),
            }
        })
    }

    pub fn as_root(&mut self, operation: Operation, path: &str, body: Value) -> Option<Answer> {
        let root = self.root.clone();
        self.ask(operation, path, &root, body)
    }

    pub fn root(&self) -> String {
        self.root.clone()
    }

    /// What the background does every second: a sign of life, and a sweep. False: the server died over it.
    pub fn sweep(&mut self) -> bool {
        let life = self.life.as_ref().unwrap();
        life.runtime.block_on(async {
            tokio::select! {
                biased;
                () = life.process.death() => false,
                () = async {
                    // What fails is tried again; that it is, is what is checked.
                    let _tried_again = life.vault.anchor().await.is_err();
                    let _tried_again = life.vault.sweep().await.is_err();
                } => true,
            }
        })
    }

    /// Whether a token is known to be dead.
    pub fn dead(&self, at: usize) -> bool {
        let token = &self.tokens[at];
        // What is left is told in whole seconds, rounded down.
        let told = token.expires.plus(Duration::from_secs(1));
        let over = self.now() >= token.max_expires
            || (token.outages == self.outages && !token.doubtful && self.now() >= told);
        token.revoked || over || token.parent.is_some_and(|parent| self.dead(parent))
    }

    /// Whether a token is known to be alive.
    pub fn alive(&self, at: usize) -> bool {
        let token = &self.tokens[at];
        let own = !token.revoked && !token.doubtful && self.now() < token.expires;
        own && token.parent.is_none_or(|parent| self.alive(parent))
    }
}
