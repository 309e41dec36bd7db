//! The key-value engine against a plain model of it: long random histories, on a sound store and on one that fails.

#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]
#![allow(clippy::as_conversions, reason = "small numbers")]

#[path = "support/kv_model.rs"]
mod model;
mod support;

use std::sync::Arc;

use coffer_barrier::{BarrierError, Read, RecordKind, RowKey};
use coffer_core::time::Timestamp;
use coffer_engines::{EngineError, EngineReply, KvEngine, Op};
use coffer_storage::faulty::{Faults, FaultyStore};
use coffer_storage::memory::MemoryStore;
use model::{Act, Answer, Model, Verb};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};
use support::{Bench, data};

const PATHS: [&str; 4] = ["a", "a/b", "a/b/c", "z"];

const BROKEN: Faults = Faults {
    read_fails: 0.01,
    delay: 0.0,
    commit_fails: 0.15,
    unknown_applied: 0.1,
    unknown_lost: 0.1,
    unknown_late: 0.1,
};

struct Run {
    kv: Bench<KvEngine>,
    store: FaultyStore,
    faults: Faults,
    model: Model,
    rng: StdRng,
}

impl Run {
    async fn new(seed: u64, faults: Faults) -> Self {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()), seed, Faults::default());
        let kv = Bench::over(Arc::new(store.clone()), KvEngine::new()).await;
        let mut model = Model::default();
        model.now = support::NOON.as_secs();
        Self { kv, store, faults, model, rng: StdRng::seed_from_u64(seed) }
    }

    fn path(&mut self) -> &'static str {
        PATHS[self.rng.random_range(0..PATHS.len())]
    }

    fn cas(&mut self, path: &str) -> Option<i64> {
        match self.rng.random_range(0..6) {
            0 => Some(0),
            1 | 2 => Some(self.model.newest(path) as i64),
            3 => Some(self.rng.random_range(-1..4)),
            _ => None,
        }
    }

    fn some(&mut self, of: &[u64]) -> u64 {
        of[self.rng.random_range(0..of.len())]
    }

    fn act(&mut self) -> Act {
        let path = self.path();
        let fields = |rng: &mut StdRng, nulls: bool| {
            let mut map = Map::new();
            for _ in 0..rng.random_range(0..3) {
                let value =
                    if nulls && rng.random_bool(0.4) { Value::Null } else { json!(rng.random_range(0..9)) };
                map.insert(["x", "y"][rng.random_range(0..2)].to_owned(), value);
            }
            map
        };
        match self.rng.random_range(0..20) {
            0..=6 => Act::Write { path, cas: self.cas(path), data: fields(&mut self.rng, false) },
            7..=8 => Act::Patch { path, cas: self.cas(path), data: fields(&mut self.rng, true) },
            9 => Act::DeleteNewest { path },
            10..=12 => {
                let verb = [Verb::Delete, Verb::Undelete, Verb::Destroy][self.rng.random_range(0..3)];
                let newest = self.model.newest(path);
                let numbers = (0..self.rng.random_range(1..4)).map(|_| self.rng.random_range(0..newest + 2));
                Act::Versions { path, verb, numbers: numbers.collect() }
            }
            13..=14 => {
                let cas = match self.rng.random_range(0..3) {
                    0 => Some(self.model.changes(path)),
                    1 => Some(self.rng.random_range(0..3)),
                    _ => None,
                };
                let (max, lives) = (self.some(&[0, 0, 1, 3]), self.some(&[0, 0, 5, 70]));
                let cas_required = self.rng.random_bool(0.2);
                Act::Settings { path, cas, max, cas_required, lives, label: self.rng.random_range(0..5) }
            }
            15..=16 => {
                let value = self.rng.random_bool(0.7).then(|| self.rng.random_range(0..5));
                Act::Label { path, name: ["all", "b"][self.rng.random_range(0..2)], value }
            }
            17 => Act::Remove { path },
            18 => Act::Mount {
                max: self.some(&[0, 0, 2, 4]),
                cas_required: self.rng.random_bool(0.1),
                lives: self.some(&[0, 0, 0, 10]),
            },
            _ => {
                self.model.now += self.rng.random_range(1..8);
                self.kv.now = Timestamp::from_secs(self.model.now);
                Act::DeleteNewest { path }
            }
        }
    }

    /// Does it, and again as long as it is known not to have been done.
    async fn perform(&mut self, act: Act) {
        for _ in 0..200 {
            self.store.set_faults(self.faults);
            let answered = send(&self.kv, &act).await;
            self.store.set_faults(Faults::default());
            match answered {
                Ok(answer) => {
                    assert_eq!(answer, self.model.act(act.clone()), "{act:?}");
                    return;
                }
                Err(EngineError::Barrier(BarrierError::OutcomeUnknown)) => {
                    // Whatever is still to arrive arrives now. All of it happened, or nothing.
                    self.store.land_late().await;
                    let mut done = self.model.clone();
                    done.act(act.clone());
                    let seen = self.seen().await;
                    if seen == expected(&done) {
                        self.model = done;
                        return;
                    }
                    assert_eq!(seen, expected(&self.model), "neither before nor after {act:?}");
                }
                Err(EngineError::Barrier(
                    BarrierError::Conflict | BarrierError::Unavailable(_) | BarrierError::Full(_),
                )) => {}
                Err(other) => panic!("{act:?}: {other}"),
            }
        }
        panic!("{act:?} never went through");
    }

    async fn seen(&self) -> Value {
        let kv = &self.kv;
        let mut seen = Map::new();
        for path in PATHS {
            seen.insert(path.to_owned(), seen_of(kv, path).await);
        }
        let scan = data(kv.scan("metadata").await.unwrap());
        let mut names: Vec<String> = match scan {
            Value::Array(_) => serde_json::from_value(scan).unwrap(),
            _ => Vec::new(),
        };
        names.sort_unstable();
        seen.insert("names".to_owned(), json!(names));
        seen.insert("config".to_owned(), data(kv.read("config").await.unwrap()));
        Value::Object(seen)
    }
}

fn expected(model: &Model) -> Value {
    let mut seen: Map<String, Value> =
        PATHS.iter().map(|path| ((*path).to_owned(), model.seen(path))).collect();
    seen.insert("names".to_owned(), json!(model.names()));
    seen.insert("config".to_owned(), model.config());
    Value::Object(seen)
}

/// Everything that can be seen of a secret.
async fn seen_of(kv: &Bench<KvEngine>, path: &str) -> Value {
    let EngineReply::Data(metadata) = kv.read(&format!("metadata/{path}")).await.unwrap() else {
        return Value::Null;
    };
    let newest = metadata["current_version"].as_u64().unwrap();
    let mut reads = Vec::new();
    for number in 0..=newest + 1 {
        let reply = kv.read(&format!("data/{path}?version={number}")).await.unwrap();
        reads.push(match reply {
            EngineReply::NotFound => Value::Null,
            reply => data(reply),
        });
    }
    let row = RowKey::path(kv.mount, RecordKind::Version, path);
    let stored = kv.barrier.reader().await.unwrap().versions(&row).await.unwrap();
    json!({ "metadata": metadata, "newest": reads.remove(0), "reads": reads, "stored": stored })
}

async fn send(kv: &Bench<KvEngine>, act: &Act) -> Result<Answer, EngineError> {
    let options = |cas: &Option<i64>| cas.map_or(json!({}), |cas| json!({ "cas": cas }));
    let (op, path, body) = match act {
        Act::Write { path, cas, data } => {
            (Op::Write, format!("data/{path}"), json!({ "data": data, "options": options(cas) }))
        }
        Act::Patch { path, cas, data } => {
            (Op::Patch, format!("data/{path}"), json!({ "data": data, "options": options(cas) }))
        }
        Act::DeleteNewest { path } => (Op::Delete, format!("data/{path}"), json!({})),
        Act::Versions { path, verb, numbers } => {
            let verb = match verb {
                Verb::Delete => "delete",
                Verb::Undelete => "undelete",
                Verb::Destroy => "destroy",
            };
            (Op::Write, format!("{verb}/{path}"), json!({ "versions": numbers }))
        }
        Act::Settings { path, cas, max, cas_required, lives, label } => {
            let mut body = json!({
                "max_versions": max, "cas_required": cas_required, "delete_version_after": lives,
                "custom_metadata": { "all": label.to_string() },
            });
            if let Some(cas) = cas {
                body["metadata_cas"] = json!(cas);
            }
            (Op::Write, format!("metadata/{path}"), body)
        }
        Act::Label { path, name, value } => {
            let value = value.map(|value| value.to_string());
            (Op::Patch, format!("metadata/{path}"), json!({ "custom_metadata": { *name: value } }))
        }
        Act::Remove { path } => (Op::Delete, format!("metadata/{path}"), json!({})),
        Act::Mount { max, cas_required, lives } => {
            let body =
                json!({ "max_versions": max, "cas_required": cas_required, "delete_version_after": lives });
            (Op::Write, "config".to_owned(), body)
        }
    };
    match kv.write(op, &path, body).await {
        Ok((reply, _)) => Ok(answer(reply)),
        Err(EngineError::BadRequest(said)) => Ok(Answer::Refused(said.leak())),
        Err(other) => Err(other),
    }
}

fn answer(reply: EngineReply) -> Answer {
    match reply {
        EngineReply::Data(version) => Answer::Version(version["version"].as_u64().unwrap()),
        EngineReply::Empty => Answer::Empty,
        EngineReply::Missing => Answer::Missing,
        EngineReply::NotFoundWith(version) => Answer::Gone(version["version"].as_u64().unwrap()),
        EngineReply::Warn(inner, _) => answer(*inner),
        other => panic!("{other:?}"),
    }
}

async fn histories(seeds: std::ops::Range<u64>, acts: usize, faults: Faults) {
    for seed in seeds {
        let mut run = Run::new(seed, faults).await;
        for step in 0..acts {
            let act = run.act();
            run.perform(act.clone()).await;
            if step % 4 == 3 || step + 1 == acts {
                assert_eq!(run.seen().await, expected(&run.model), "seed {seed}, step {step}, after {act:?}");
            }
        }
    }
}

#[tokio::test]
async fn random_histories_agree_with_the_model() {
    histories(0..60, 80, Faults::default()).await;
}

#[tokio::test]
async fn on_a_store_that_fails_every_act_happens_whole_or_not_at_all() {
    histories(1000..1060, 60, BROKEN).await;
}
