//! A mount on a barrier in memory, and the little that the vault does around an engine.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_barrier::store::Store;
use coffer_barrier::{Barrier, MountId};
use coffer_core::secret::SecretBytes;
use coffer_core::shamir::Threshold;
use coffer_core::time::Timestamp;
use coffer_engines::{
    Effect, Engine, EngineError, EngineReply, EngineRequest, Issue, Op, ReadView, Reader, WriteView,
};
use coffer_storage::memory::MemoryStore;
use serde_json::{Map, Value, json};

/// 2026-11-24T12:00:00Z.
pub(crate) const NOON: Timestamp = Timestamp::from_secs(1_795_521_600);

/// One mount of one engine.
pub(crate) struct Bench<E> {
    pub(crate) barrier: Barrier,
    pub(crate) mount: MountId,
    pub(crate) engine: E,
    pub(crate) now: Timestamp,
}

impl<E: Engine> Bench<E> {
    pub(crate) async fn new(engine: E) -> Self {
        Self::over(Arc::new(MemoryStore::new()), engine).await
    }

    /// On a store that does not fail before this has returned.
    pub(crate) async fn over(store: Arc<dyn Store>, engine: E) -> Self {
        let barrier = Barrier::new(store);
        let mut rng: rand::rngs::StdRng = rand::make_rng();
        let shares = barrier.initialize(Threshold::new(1, 1).unwrap(), &mut rng).await.unwrap();
        barrier.unseal(&shares).await.unwrap();
        let mount = MountId::random();
        let mut writer = barrier.begin().await.unwrap();
        barrier.create_kek(&mut writer, mount).await.unwrap();
        writer.commit().await.unwrap();
        Self { barrier, mount, engine, now: NOON }
    }

    pub(crate) async fn read(&self, path: &str) -> Result<EngineReply, EngineError> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        self.ask(Op::Read, path, query).await
    }

    pub(crate) async fn list(&self, path: &str) -> Result<EngineReply, EngineError> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        self.ask(Op::List, path, query).await
    }

    pub(crate) async fn scan(&self, path: &str) -> Result<EngineReply, EngineError> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        self.ask(Op::Scan, path, query).await
    }

    async fn ask(&self, op: Op, path: &str, query: &str) -> Result<EngineReply, EngineError> {
        let body = Map::new();
        let query: BTreeMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let reader = self.barrier.reader().await?;
        let view = ReadView::new(self.mount, &reader);
        let request = EngineRequest {
            op,
            path,
            body: &body,
            exact: None,
            query: &query,
            now: self.now,
            display_name: "test-app",
            sees: &|_| true,
        };
        self.engine.read(&view, &request).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        body: Value,
    ) -> Result<(EngineReply, Vec<Effect>), EngineError> {
        self.write(Op::Write, path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(EngineReply, Vec<Effect>), EngineError> {
        self.write(Op::Delete, path, json!({})).await
    }

    /// As the vault does: verify, then one transaction.
    pub(crate) async fn write(
        &self,
        op: Op,
        path: &str,
        body: Value,
    ) -> Result<(EngineReply, Vec<Effect>), EngineError> {
        let Value::Object(body) = body else { panic!("a body is an object") };
        let query = BTreeMap::new();
        let request = EngineRequest {
            op,
            path,
            body: &body,
            exact: None,
            query: &query,
            now: self.now,
            display_name: "test-app",
            sees: &|_| true,
        };
        if self.engine.acts(op, path) {
            return self.engine.act(&self.barrier, self.mount, &request).await;
        }
        let reader = self.barrier.reader().await?;
        self.engine.verify(&ReadView::new(self.mount, &reader), &request).await?;
        let mut writer = self.barrier.begin().await?;
        let done = self.engine.write(&mut WriteView::new(self.mount, &mut writer), &request).await?;
        writer.commit().await?;
        Ok(done)
    }

    /// As `sys/policies/password/<name>` does.
    pub(crate) async fn password_policy(&self, name: &str, text: &str) {
        let mut writer = self.barrier.begin().await.unwrap();
        let row = serde_json::to_vec(text).unwrap();
        writer.put_system(&coffer_engines::password_policy_row(name), &row).await.unwrap();
        writer.commit().await.unwrap();
    }

    /// A write of several steps.
    pub(crate) async fn act(
        &self,
        path: &str,
        body: Value,
    ) -> Result<(EngineReply, Vec<Effect>), EngineError> {
        assert!(self.engine.acts(Op::Write, path));
        self.write(Op::Write, path, body).await
    }

    /// As the vault does when somebody has read a version; without an id, somebody who does not say who he is.
    pub(crate) async fn note(&self, name: &str, version: u64, id: Option<&str>) -> bool {
        self.note_in(name, version, id, None).await
    }

    /// The same, for a pod.
    pub(crate) async fn note_in(
        &self,
        name: &str,
        version: u64,
        id: Option<&str>,
        pod: Option<&str>,
    ) -> bool {
        let reader = id.map(|id| Reader {
            id: id.to_owned(),
            accessor: format!("accessor-of-{id}"),
            metadata: BTreeMap::new(),
            pod: pod.map(str::to_owned),
        });
        let snapshot = self.barrier.reader().await.unwrap();
        let view = ReadView::new(self.mount, &snapshot);
        if self.engine.is_noted(&view, name, version, reader.as_ref()).await.unwrap() {
            return true;
        }
        let mut writer = self.barrier.begin().await.unwrap();
        let mut view = WriteView::new(self.mount, &mut writer);
        let noted = self.engine.note(&mut view, name, version, reader.as_ref()).await.unwrap();
        writer.commit().await.unwrap();
        noted
    }

    pub(crate) async fn acknowledge(&self, name: &str, version: u64, id: &str) -> Result<(), EngineError> {
        let mut writer = self.barrier.begin().await?;
        let mut view = WriteView::new(self.mount, &mut writer);
        self.engine.acknowledge(&mut view, name, version, id, self.now).await?;
        writer.commit().await?;
        Ok(())
    }

    /// As the vault does when a pod was revoked.
    pub(crate) async fn pod_gone(&self, pod: &str) {
        loop {
            let mut writer = self.barrier.begin().await.unwrap();
            let mut view = WriteView::new(self.mount, &mut writer);
            let done = self.engine.pod_gone(&mut view, pod, self.now).await.unwrap();
            writer.commit().await.unwrap();
            if done {
                return;
            }
        }
    }

    pub(crate) async fn rotation(&self, name: &str) -> Value {
        let snapshot = self.barrier.reader().await.unwrap();
        self.engine.rotation(&ReadView::new(self.mount, &snapshot), name).await.unwrap().unwrap()
    }

    /// What is due at the bench's time; everything is tried, the first failure is given back.
    pub(crate) async fn work(&self) -> Result<Vec<Effect>, EngineError> {
        let due = {
            let reader = self.barrier.reader().await?;
            self.engine.due(&ReadView::new(self.mount, &reader), self.now, 100).await?
        };
        let mut effects = Vec::new();
        let mut failed = None;
        for work in due {
            match self.engine.work(&self.barrier, self.mount, &work.path, self.now).await {
                Ok(more) => effects.extend(more),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(effects), Err)
    }

    pub(crate) async fn exists(&self, path: &str) -> bool {
        let reader = self.barrier.reader().await.unwrap();
        self.engine.exists(&ReadView::new(self.mount, &reader), path).await.unwrap()
    }

    pub(crate) async fn create(&self, payload: &SecretBytes) -> Result<(), EngineError> {
        let reader = self.barrier.reader().await?;
        self.engine.create(&ReadView::new(self.mount, &reader), payload).await
    }

    pub(crate) async fn revoke(&self, payload: &SecretBytes) -> Result<(), EngineError> {
        let reader = self.barrier.reader().await?;
        self.engine.revoke(&ReadView::new(self.mount, &reader), payload).await
    }

    pub(crate) async fn renew(&self, payload: &SecretBytes) -> Result<(), EngineError> {
        let reader = self.barrier.reader().await?;
        self.engine.renew(&ReadView::new(self.mount, &reader), payload, self.now).await
    }

    pub(crate) async fn issue(&self, role: &str) -> Issue {
        match self.read(&format!("creds/{role}")).await.unwrap() {
            EngineReply::Issue(issue) => issue,
            other => panic!("{other:?} is no issue"),
        }
    }
}

/// The data of a reply that has some.
pub(crate) fn data(reply: EngineReply) -> Value {
    match reply {
        EngineReply::Data(data) | EngineReply::NotFoundWith(data) => Value::Object(data),
        EngineReply::Encoded(encoded) => serde_json::from_slice(encoded.json.expose()).unwrap(),
        EngineReply::List(names) => json!(names),
        EngineReply::Warn(inner, _) => data(*inner),
        other => panic!("{other:?} has no data"),
    }
}
