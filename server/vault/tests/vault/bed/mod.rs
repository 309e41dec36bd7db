//! A vault over a store in memory, with a clock that is moved by hand and a database that is a set of names.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses its own part")]

pub mod api_server;
pub mod cluster;
pub mod counted;
pub mod database;
pub mod issuer;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use coffer_core::audit::AuditRecord;
use coffer_core::secret::SecretString;
use coffer_core::time::Timestamp;
use coffer_core::token::Token;
use coffer_engines::{Engine, KvEngine, PlainKvEngine};
use coffer_storage::memory::MemoryStore;
use coffer_vault::{
    ApiCall, ApiReply, ApiServer, Clock, Deps, FetchKeys, KeysQuery, Operation, Reply, ReplyBody, Request,
    StatusRequest, Vault, VaultConfig,
};
use serde_json::{Map, Value, json};

pub use api_server::FakeApi;
pub use cluster::Cluster;
pub use database::SimDatabase;

/// Monday, some time in 2026.
const START: u64 = 1_795_000_000;

/// Time that goes on by hand, and a wall clock that can be set.
pub struct ManualClock(AtomicU64, AtomicI64);

impl ManualClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Somebody sets the wall clock, in seconds.
    pub fn step_wall(&self, by: i64) {
        self.1.fetch_add(by * 1000, Ordering::SeqCst);
    }

    pub fn set_back(&self, by: Duration) {
        self.0.fetch_sub(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Timestamp {
        let apart = self.1.load(Ordering::SeqCst);
        Timestamp::from_millis(self.0.load(Ordering::SeqCst).saturating_add_signed(apart))
    }
}

/// The pages of a network that is none: what is not put there cannot be reached.
#[derive(Default)]
pub struct Pages {
    texts: Mutex<HashMap<String, String>>,
    asked: AtomicU64,
    pub api: FakeApi,
}

impl Pages {
    pub fn put(&self, url: &str, text: &str) {
        self.texts.lock().unwrap().insert(url.to_owned(), text.to_owned());
    }

    pub fn remove(&self, url: &str) {
        self.texts.lock().unwrap().remove(url);
    }

    /// How many questions there were.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl FetchKeys for Pages {
    async fn fetch(&self, query: &KeysQuery) -> Result<String, String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.texts.lock().unwrap().get(&query.url).cloned().ok_or_else(|| "connection refused".into())
    }

    async fn ask(&self, server: &ApiServer, call: &ApiCall) -> Result<ApiReply, String> {
        self.api.answer(server, call).await
    }
}

/// A vault and everything around it.
pub struct Bed {
    pub vault: Arc<Vault>,
    pub clock: Arc<ManualClock>,
    pub database: Arc<SimDatabase>,
    pub store: MemoryStore,
    pub asked: Arc<counted::Asked>,
    pub root: String,
    pub unseal_key: String,
    pub cluster: Cluster,
    pub pages: Arc<Pages>,
    config: VaultConfig,
    audit: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    pub fn of(reply: Reply) -> Self {
        let status = reply.status;
        let body = match &reply.body {
            ReplyBody::Json(_) | ReplyBody::Encoded(_) => reply.as_json().cloned().unwrap_or_default(),
            ReplyBody::Text { text, .. } => Value::String(text.clone()),
            ReplyBody::Empty => Value::Null,
        };
        Self { status, body }
    }

    pub fn text(&self, pointer: &str) -> String {
        let found = self.body.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("no {pointer} in {self:?}")).to_owned()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}", self.body);
        self
    }
}

impl Bed {
    /// Initialised, unsealed, with `secret/`.
    pub async fn new() -> Self {
        Self::configured(VaultConfig::default()).await
    }

    /// As [`Bed::new`], with other settings.
    pub async fn configured(config: VaultConfig) -> Self {
        let clock = Arc::new(ManualClock(AtomicU64::new(START * 1000), AtomicI64::new(0)));
        let database = Arc::new(SimDatabase::default());
        let store = MemoryStore::new();
        let audit = tempfile::tempdir().unwrap();
        let pages = Arc::new(Pages::default());
        let asked = Arc::default();
        let vault = build(&store, &asked, &clock, &database, &pages, audit.path().to_path_buf(), &config);
        let dev = vault.dev_init().await.unwrap();
        Self {
            root: dev.root_token.expose().to_owned(),
            unseal_key: dev.unseal_key.expose().to_owned(),
            cluster: Cluster::new(),
            pages,
            vault,
            clock,
            database,
            store,
            asked,
            config,
            audit,
        }
    }

    /// As [`Bed::new`], with a Kubernetes mount, a database and a role `shop.orders` that may read credentials.
    pub async fn with_pods() -> Self {
        Self::new().await.and_pods().await
    }

    /// What [`Bed::with_pods`] has more than [`Bed::new`].
    pub async fn and_pods(self) -> Self {
        let bed = self;
        bed.root(Operation::Update, "sys/mounts/database", json!({"type": "database"})).await.expect(204);
        bed.root(Operation::Update, "sys/auth/kubernetes/prod", json!({"type": "kubernetes"}))
            .await
            .expect(204);
        let config =
            json!({"issuer": cluster::ISSUER, "kubernetes_host": "https://k8s", "jwks": bed.cluster.jwks()});
        bed.root(Operation::Update, "auth/kubernetes/prod/config", config).await.expect(204);
        let policy = r#"path "database/creds/orders" { capabilities = ["read"] }
            path "delivery/k8s/prod/shop/*" { capabilities = ["read", "subscribe"] }
            path "sys/events/subscribe/*" { capabilities = ["read"] }
            path "secret/data/shop/*" { capabilities = ["read"] }"#;
        bed.root(Operation::Update, "sys/policies/acl/k8s/prod/shop/dsec/orders", json!({"policy": policy}))
            .await
            .expect(204);
        let role = json!({
            "bound_service_account_names": ["orders"], "bound_service_account_namespaces": ["shop"],
            "audience": "coffer", "token_policies": ["k8s/prod/shop/dsec/orders"],
            "token_ttl": "2h", "token_max_ttl": "24h",
        });
        bed.root(Operation::Update, "auth/kubernetes/prod/role/shop.orders", role).await.expect(204);
        bed
    }

    /// Another process over the same store: what was in memory is gone.
    pub async fn restart(&mut self) {
        let audit = self.audit.path().to_path_buf();
        self.vault =
            build(&self.store, &self.asked, &self.clock, &self.database, &self.pages, audit, &self.config);
        self.unseal().await;
    }

    /// Another server on the same store. Not told of what the first one does but through that.
    pub async fn beside(&self) -> Arc<Vault> {
        let audit = self.audit.path().join("beside");
        std::fs::create_dir_all(&audit).unwrap();
        let vault =
            build(&self.store, &self.asked, &self.clock, &self.database, &self.pages, audit, &self.config);
        let request =
            StatusRequest::Unseal { key: Some(SecretString::copy_of(&self.unseal_key)), reset: false };
        let reply = vault.status("unseal", [127, 0, 0, 1].into(), request).await;
        assert_eq!(Answer::of(reply).expect(200).body["sealed"], json!(false));
        vault
    }

    /// Other settings for the next restart.
    pub fn reconfigure(&mut self, config: VaultConfig) {
        self.config = config;
    }

    pub async fn unseal(&self) {
        let request =
            StatusRequest::Unseal { key: Some(SecretString::copy_of(&self.unseal_key)), reset: false };
        let reply = self.vault.status("unseal", [127, 0, 0, 1].into(), request).await;
        assert_eq!(Answer::of(reply).expect(200).body["sealed"], json!(false));
    }

    pub async fn status(&self, request: StatusRequest) -> Answer {
        Answer::of(self.vault.status("status", [127, 0, 0, 1].into(), request).await)
    }

    pub fn request(&self, operation: Operation, path: &str, token: Option<&str>, body: Value) -> Request {
        let body = match body {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query: BTreeMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        Request {
            id: format!("req-{}", rand_id()),
            operation,
            path: path.to_owned(),
            token: token.map(|t| Token::parse(t).unwrap()),
            body,
            exact: None,
            query,
            wrap_ttl: None,
            over_limit: false,
            client_ip: [10, 0, 0, 7].into(),
            received: self.clock.now(),
        }
    }

    pub async fn send(&self, operation: Operation, path: &str, token: Option<&str>, body: Value) -> Answer {
        let request = self.request(operation, path, token, body);
        self.handle(request).await
    }

    pub async fn handle(&self, request: Request) -> Answer {
        Answer::of(self.vault.handle(request).await.into_inner())
    }

    pub async fn root(&self, operation: Operation, path: &str, body: Value) -> Answer {
        self.send(operation, path, Some(&self.root), body).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(Operation::Read, path, Some(token), Value::Null).await
    }

    pub async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.send(Operation::Update, path, Some(token), body).await
    }

    /// Logs the pod `uid` of `shop/orders` in.
    pub async fn try_login(&self, uid: &str) -> Answer {
        let jwt = self.cluster.jwt(&self.cluster.claims("shop", "orders", uid, self.clock.now()));
        self.login_with(&jwt).await
    }

    pub async fn login_with(&self, jwt: &str) -> Answer {
        let body = json!({"role": "shop.orders", "jwt": jwt});
        self.send(Operation::Update, "auth/kubernetes/prod/login", None, body).await
    }

    pub async fn login(&self, uid: &str) -> String {
        self.try_login(uid).await.expect(200).text("/auth/client_token")
    }

    /// Reads credentials; gives back the lease and the account.
    pub async fn issue(&self, token: &str) -> (String, String) {
        let answer = self.get("database/creds/orders", token).await.expect(200);
        (answer.text("/lease_id"), answer.text("/data/username"))
    }

    pub async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    pub async fn sweep(&self) {
        self.vault.sweep().await.unwrap();
    }

    pub fn audit_text(&self) -> String {
        std::fs::read_to_string(self.audit.path().join("audit.log")).unwrap()
    }

    /// Removes the last records behind the vault's back.
    pub fn cut_audit(&self, records: usize) {
        let text = self.audit_text();
        let lines: Vec<&str> = text.lines().collect();
        let kept: String = lines[..lines.len() - records].iter().map(|l| format!("{l}\n")).collect();
        std::fs::write(self.audit.path().join("audit.log"), kept).unwrap();
    }

    /// Puts another log in the place of the vault's.
    pub fn replace_audit(&self, text: &str) {
        std::fs::write(self.audit.path().join("audit.log"), text).unwrap();
    }

    pub fn audit_records(&self) -> Vec<AuditRecord> {
        self.audit_text().lines().map(|l| AuditRecord::from_line(l).unwrap()).collect()
    }
}

fn rand_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn build(
    store: &MemoryStore,
    asked: &Arc<counted::Asked>,
    clock: &Arc<ManualClock>,
    database: &Arc<SimDatabase>,
    pages: &Arc<Pages>,
    audit_dir: PathBuf,
    config: &VaultConfig,
) -> Arc<Vault> {
    let engines: Vec<Arc<dyn Engine>> = vec![
        Arc::new(KvEngine::new()),
        Arc::new(PlainKvEngine::new()),
        Arc::clone(database) as Arc<dyn Engine>,
    ];
    Vault::new(Deps {
        store: Arc::new(counted::CountedStore { inner: store.clone(), asked: Arc::clone(asked) }),
        store_is_exclusive: true,
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        keys: Arc::clone(pages) as Arc<dyn FetchKeys>,
        engines,
        audit_dir,
        ca_bundle: Some("PEM".into()),
        config: config.clone(),
    })
    .unwrap()
}

/// Hours.
pub fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

impl Bed {
    /// Not even initialised.
    pub fn blank() -> Self {
        let clock = Arc::new(ManualClock(AtomicU64::new(START * 1000), AtomicI64::new(0)));
        let database = Arc::new(SimDatabase::default());
        let store = MemoryStore::new();
        let audit = tempfile::tempdir().unwrap();
        let config = VaultConfig::default();
        let pages = Arc::new(Pages::default());
        let asked = Arc::default();
        let vault = build(&store, &asked, &clock, &database, &pages, audit.path().to_path_buf(), &config);
        let cluster = Cluster::new();
        Self {
            vault,
            clock,
            database,
            store,
            asked,
            root: String::new(),
            unseal_key: String::new(),
            cluster,
            pages,
            config,
            audit,
        }
    }
}
