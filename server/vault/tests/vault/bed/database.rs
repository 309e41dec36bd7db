//! A database that is a set of accounts, and can be told to fail or to wait.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coffer_barrier::{Barrier, MountId};
use coffer_core::secret::SecretBytes;
use coffer_core::time::Timestamp;
use coffer_engines::{
    Due, Effect, Engine, EngineError, EngineReply, EngineRequest, Issue, Op, ReadView, Reader, WriteView,
};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

/// A text that must never be seen outside of the vault's replies.
pub const CANARY: &str = "canary-7f3a-password";

#[derive(Default)]
pub struct SimDatabase {
    accounts: Mutex<BTreeSet<String>>,
    created: AtomicU64,
    pub refuse_revoke: AtomicBool,
    pub refuse_create: AtomicBool,
    /// While set, revocations do not come back.
    pub hold_revoke: AtomicBool,
    /// Targets whose calls do not come back before [`Self::let_go`]. `creds/at-<name>` are credentials of another target
    /// than that of all the others.
    pub hanging: Mutex<BTreeSet<String>>,
    hung: AtomicUsize,
    freed: Notify,
    /// Accounts in the order in which they were ended.
    pub ended: Mutex<Vec<String>>,
    /// While set, creations wait before they take effect.
    pub hold_create: AtomicBool,
    /// While set, a list of accounts waits before it is given back.
    pub hold_list: AtomicBool,
    pub waiting: AtomicUsize,
    pub arrived: Notify,
    pub go: Notify,
    /// While set, a creation never comes back: the process dies with it.
    pub lose_create: AtomicBool,
    /// Rotations that are due, as target and role. One at the target `stuck` waits for `go`, one at `refusing` fails.
    pub due: Mutex<BTreeSet<(String, String)>>,
    /// Woken by each rotation that is done.
    pub rotated: Notify,
    /// Who was written down as a reader of `static-creds/`, and who acknowledged.
    pub readers: Mutex<Vec<(u64, Option<Reader>)>>,
    pub acknowledged: Mutex<Vec<(u64, String)>>,
    /// Pods that were said to be gone, as they are known to readers.
    pub pods_gone: Mutex<Vec<String>>,
}

impl SimDatabase {
    pub fn accounts(&self) -> BTreeSet<String> {
        self.accounts.lock().unwrap().clone()
    }

    /// The accounts of one target.
    pub fn accounts_at(&self, target: &str) -> usize {
        let mark = format!("-at-{target}");
        self.accounts.lock().unwrap().iter().filter(|name| name.ends_with(&mark)).count()
    }

    /// How many calls hang.
    pub fn hung(&self) -> usize {
        self.hung.load(Ordering::SeqCst)
    }

    /// Lets a target answer again, also those calls that hang.
    pub fn let_go(&self) {
        self.hanging.lock().unwrap().clear();
        self.freed.notify_waiters();
    }

    async fn hang(&self, target: &str) {
        let mut freed = std::pin::pin!(self.freed.notified());
        freed.as_mut().enable();
        if self.hanging.lock().unwrap().contains(target) {
            self.hung.fetch_add(1, Ordering::SeqCst);
            freed.await;
            self.hung.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Puts an account there that no lease knows.
    pub fn put(&self, name: &str) {
        self.accounts.lock().unwrap().insert(name.to_owned());
    }

    pub fn has(&self, name: &str) -> bool {
        self.accounts.lock().unwrap().contains(name)
    }
}

fn name_in(payload: &SecretBytes) -> String {
    let value: serde_json::Value = serde_json::from_slice(payload.expose()).unwrap();
    value["name"].as_str().unwrap().to_owned()
}

fn down() -> EngineError {
    EngineError::Target { target: "config/sim".into(), retriable: true, message: "down".into() }
}

#[async_trait]
impl Engine for SimDatabase {
    fn kind(&self) -> &'static str {
        "database"
    }

    async fn exists(&self, _view: &ReadView<'_>, _path: &str) -> Result<bool, EngineError> {
        Ok(false)
    }

    async fn read(&self, _view: &ReadView<'_>, req: &EngineRequest<'_>) -> Result<EngineReply, EngineError> {
        // A read that is under way until it is told to go on.
        if req.op == Op::Read && req.path == "held" {
            self.arrived.notify_one();
            self.go.notified().await;
            return Ok(EngineReply::Data(Map::new()));
        }
        if req.path == "static-creds/two" {
            let data = json!({ "username": "two-a", "version": self.created.load(Ordering::SeqCst) });
            return Ok(EngineReply::Data(data.as_object().cloned().unwrap_or_default()));
        }
        if req.op != Op::Read || !req.path.starts_with("creds/") {
            return Ok(EngineReply::NotFound);
        }
        let number = self.created.fetch_add(1, Ordering::SeqCst);
        let (name, target) = match req.path.strip_prefix("creds/at-") {
            Some(target) => (format!("v-{number}-at-{target}"), format!("config/{target}")),
            None => (format!("v-{number}"), "config/sim".into()),
        };
        let mut data = Map::new();
        data.insert("username".into(), name.clone().into());
        data.insert("password".into(), CANARY.into());
        let payload = json!({"name": name, "password": CANARY}).to_string();
        let account = Some(name);
        Ok(EngineReply::Issue(Issue {
            payload: SecretBytes::new(payload.into_bytes()),
            data,
            ttl: Duration::from_secs(3600),
            max_ttl: Duration::from_secs(4 * 3600),
            renewable: true,
            target,
            account,
        }))
    }

    async fn write(
        &self,
        _view: &mut WriteView<'_>,
        _req: &EngineRequest<'_>,
    ) -> Result<(EngineReply, Vec<Effect>), EngineError> {
        Ok((EngineReply::Empty, Vec::new()))
    }

    async fn create(&self, _view: &ReadView<'_>, payload: &SecretBytes) -> Result<(), EngineError> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.arrived.notify_one();
        if self.lose_create.load(Ordering::SeqCst) {
            self.accounts.lock().unwrap().insert(name_in(payload));
            std::future::pending::<()>().await;
        }
        if self.hold_create.load(Ordering::SeqCst) {
            self.go.notified().await;
        }
        if self.refuse_create.load(Ordering::SeqCst) {
            return Err(down());
        }
        self.accounts.lock().unwrap().insert(name_in(payload));
        Ok(())
    }

    async fn renew(
        &self,
        _view: &ReadView<'_>,
        payload: &SecretBytes,
        _expires: Timestamp,
    ) -> Result<(), EngineError> {
        if self.has(&name_in(payload)) { Ok(()) } else { Err(EngineError::NotFound) }
    }

    async fn targets(&self, _view: &ReadView<'_>) -> Result<Vec<String>, EngineError> {
        Ok(vec!["config/sim".to_owned()])
    }

    async fn accounts(&self, _view: &ReadView<'_>, target: &str) -> Result<Vec<String>, EngineError> {
        assert_eq!(target, "config/sim");
        let listed = self.accounts().into_iter().filter(|name| name.starts_with("v-")).collect();
        if self.hold_list.load(Ordering::SeqCst) {
            self.arrived.notify_one();
            self.go.notified().await;
        }
        Ok(listed)
    }

    async fn remove(&self, _view: &ReadView<'_>, _target: &str, account: &str) -> Result<(), EngineError> {
        if self.refuse_revoke.load(Ordering::SeqCst) {
            return Err(down());
        }
        self.accounts.lock().unwrap().remove(account);
        Ok(())
    }

    fn rotating<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix("static-creds/")
    }

    async fn is_noted(
        &self,
        _view: &ReadView<'_>,
        _name: &str,
        version: u64,
        reader: Option<&Reader>,
    ) -> Result<bool, EngineError> {
        Ok(self.readers.lock().unwrap().contains(&(version, reader.cloned())))
    }

    async fn note(
        &self,
        _view: &mut WriteView<'_>,
        _name: &str,
        version: u64,
        reader: Option<&Reader>,
    ) -> Result<bool, EngineError> {
        // Version 0 is not handed out any more once it has been read.
        if version == 0 {
            self.created.store(1, Ordering::SeqCst);
            return Ok(false);
        }
        self.readers.lock().unwrap().push((version, reader.cloned()));
        Ok(true)
    }

    async fn acknowledge(
        &self,
        _view: &mut WriteView<'_>,
        _name: &str,
        version: u64,
        id: &str,
        _now: Timestamp,
    ) -> Result<(), EngineError> {
        self.acknowledged.lock().unwrap().push((version, id.to_owned()));
        Ok(())
    }

    async fn pod_gone(
        &self,
        _view: &mut WriteView<'_>,
        pod: &str,
        _now: Timestamp,
    ) -> Result<bool, EngineError> {
        self.pods_gone.lock().unwrap().push(pod.to_owned());
        Ok(true)
    }

    async fn rotation(&self, _view: &ReadView<'_>, name: &str) -> Result<Option<Value>, EngineError> {
        Ok((name == "two").then(|| json!({ "version": 1 })))
    }

    async fn due(
        &self,
        _view: &ReadView<'_>,
        _now: Timestamp,
        _limit: usize,
    ) -> Result<Vec<Due>, EngineError> {
        let due = self.due.lock().unwrap();
        let due = due.iter();
        Ok(due.map(|(target, path)| Due { path: path.clone(), target: target.clone() }).collect())
    }

    async fn work(
        &self,
        _barrier: &Barrier,
        _mount: MountId,
        path: &str,
        _now: Timestamp,
    ) -> Result<Vec<Effect>, EngineError> {
        let work = self.due.lock().unwrap().iter().find(|(_, due)| due == path).cloned();
        let work = work.ok_or(EngineError::NotFound)?;
        match work.0.as_str() {
            "stuck" => self.go.notified().await,
            "refusing" => return Err(down()),
            _ => {}
        }
        self.due.lock().unwrap().remove(&work);
        self.rotated.notify_one();
        let path = path.to_owned();
        Ok(vec![Effect { event_type: "database/rotate", path, operation: "rotate" }])
    }

    async fn revoke(&self, _view: &ReadView<'_>, payload: &SecretBytes) -> Result<(), EngineError> {
        if self.hold_revoke.load(Ordering::SeqCst) {
            self.arrived.notify_one();
            std::future::pending::<()>().await;
        }
        let name = name_in(payload);
        let target = name.split_once("-at-").map_or("sim", |(_, target)| target).to_owned();
        self.hang(&target).await;
        if self.refuse_revoke.load(Ordering::SeqCst) {
            return Err(down());
        }
        self.accounts.lock().unwrap().remove(&name);
        self.ended.lock().unwrap().push(name);
        Ok(())
    }
}
