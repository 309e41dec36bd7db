//! A simulated database: a set of accounts that the outside sees, and statements that fail, or arrive late.
//!
//! It looks into the audit log at every effect: there must be an intent for it already.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use coffer_core::audit::{AuditRecord, RecordType};
use coffer_core::secret::SecretBytes;
use coffer_core::time::Timestamp;
use coffer_engines::{
    Effect, Engine, EngineError, EngineReply, EngineRequest, Issue, Op, ReadView, WriteView,
};
use serde_json::{Map, Value, json};

use crate::bugs::Bug;
use crate::process::Process;

/// The life of a lease and the longest one.
pub const TTL: Duration = Duration::from_secs(600);
pub const MAX_TTL: Duration = Duration::from_secs(3600);

/// How many databases there are; an account's number says at which it is.
pub const TARGETS: u64 = 3;

fn number(name: &str) -> u64 {
    name.trim_start_matches('r').parse().unwrap()
}

#[derive(Default)]
pub struct Inside {
    pub accounts: BTreeSet<String>,
    /// Creations on their way, and when they arrive.
    pub on_the_way: Vec<(Timestamp, String)>,
    calls: BTreeMap<String, u64>,
    intents: BTreeSet<(String, String)>,
    read_to: usize,
    pub now: Timestamp,
    /// Nobody answers there: a bit for each of [`TARGETS`].
    pub down: u64,
    /// Out of a hundred calls so many fail.
    pub flaky: u64,
    /// What must never have happened.
    pub broken: Vec<String>,
}

impl Inside {
    fn is_down(&self, name: &str) -> bool {
        self.down & (1 << (number(name) % TARGETS)) != 0
    }
}

/// The database, whichever process talks to it.
pub struct Target {
    seed: u64,
    bug: Option<Bug>,
    audit: PathBuf,
    inside: Mutex<Inside>,
}

enum Fate {
    Done,
    /// It fails, and had no effect.
    Refused,
    /// It has an effect, and the answer is lost.
    Unheard,
    /// The answer is that it timed out; the effect comes later.
    Late(u64),
    /// For a bug: done, it says.
    Pretended,
}

fn mix(mut n: u64) -> u64 {
    n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

impl Target {
    pub fn new(seed: u64, bug: Option<Bug>, audit: PathBuf) -> Self {
        Self { seed, bug, audit, inside: Mutex::default() }
    }

    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    /// What was on its way for long enough arrives.
    pub fn arrive(&self, now: Timestamp) {
        let inside = &mut *self.inside();
        inside.now = now;
        let (come, later) =
            std::mem::take(&mut inside.on_the_way).into_iter().partition(|(at, _)| *at <= now);
        inside.on_the_way = later;
        let come: Vec<(Timestamp, String)> = come;
        inside.accounts.extend(come.into_iter().map(|(_, name)| name));
    }

    /// How a call ends: by seed, account and the number of the call, whoever else calls in between.
    fn fate(&self, inside: &mut Inside, verb: &str, name: &str) -> Fate {
        let calls = inside.calls.entry(format!("{verb} {name}")).or_default();
        *calls += 1;
        let number = number(name);
        let dice = mix(mix(self.seed ^ verb.len() as u64) ^ mix(number) ^ (*calls << 32));
        let (percent, other) = (dice % 100, (dice >> 8) % 100);
        if inside.is_down(name) {
            return Fate::Refused;
        }
        if verb == "revoke" && self.bug == Some(Bug::RevocationPretended) && other < 10 {
            return Fate::Pretended;
        }
        if percent >= inside.flaky {
            return Fate::Done;
        }
        match other % 3 {
            0 => Fate::Refused,
            1 => Fate::Unheard,
            _ if verb == "create" => {
                let most = if self.bug == Some(Bug::CreationFarTooLate) { 1800 } else { 45 };
                Fate::Late(1 + dice % most)
            }
            _ => Fate::Unheard,
        }
    }

    /// Every effect was announced.
    fn expect_intent(&self, inside: &mut Inside, operation: &str, name: &str) {
        let text = std::fs::read_to_string(&self.audit).unwrap();
        for line in text[inside.read_to..].lines() {
            let record = AuditRecord::from_line(line).unwrap();
            if record.kind == RecordType::Intent {
                inside.intents.insert((record.operation, record.path));
            }
        }
        inside.read_to = text.len();
        // One intent is for one attempt.
        if !inside.intents.remove(&(operation.to_owned(), format!("database/creds/{name}"))) {
            inside.broken.push(format!("{operation} of {name} at the database without an intent"));
        }
    }
}

/// The engine through which one process talks to the database.
pub struct SimEngine {
    pub target: Arc<Target>,
    pub process: Arc<Process>,
}

fn name_in(payload: &SecretBytes) -> String {
    let value: Value = serde_json::from_slice(payload.expose()).unwrap();
    value["name"].as_str().unwrap().to_owned()
}

fn failed(message: &str) -> EngineError {
    EngineError::Target { target: "config/sim".into(), retriable: true, message: message.into() }
}

#[async_trait]
impl Engine for SimEngine {
    fn kind(&self) -> &'static str {
        "database"
    }

    async fn exists(&self, _view: &ReadView<'_>, _path: &str) -> Result<bool, EngineError> {
        Ok(false)
    }

    async fn read(&self, _view: &ReadView<'_>, req: &EngineRequest<'_>) -> Result<EngineReply, EngineError> {
        let Some(name) = req.path.strip_prefix("creds/").filter(|_| req.op == Op::Read) else {
            return Ok(EngineReply::NotFound);
        };
        let mut data = Map::new();
        data.insert("username".into(), name.into());
        Ok(EngineReply::Issue(Issue {
            payload: SecretBytes::new(json!({"name": name}).to_string().into_bytes()),
            data,
            ttl: TTL,
            max_ttl: MAX_TTL,
            renewable: true,
            target: format!("config/sim{}", number(name) % TARGETS),
            account: None,
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
        self.process.step().await;
        let name = name_in(payload);
        let answer = {
            let inside = &mut *self.target.inside();
            self.target.expect_intent(inside, "read", &name);
            match self.target.fate(inside, "create", &name) {
                Fate::Refused => Err(failed("down")),
                Fate::Late(secs) => {
                    let at = inside.now.plus(Duration::from_secs(secs));
                    inside.on_the_way.push((at, name));
                    Err(failed("no answer in time"))
                }
                Fate::Unheard => {
                    inside.accounts.insert(name);
                    Err(failed("connection lost"))
                }
                Fate::Done | Fate::Pretended => {
                    inside.accounts.insert(name);
                    Ok(())
                }
            }
        };
        self.process.step().await;
        answer
    }

    async fn renew(
        &self,
        _view: &ReadView<'_>,
        payload: &SecretBytes,
        _expires: Timestamp,
    ) -> Result<(), EngineError> {
        self.process.step().await;
        let inside = self.target.inside();
        let name = name_in(payload);
        if inside.is_down(&name) {
            Err(failed("down"))
        } else if inside.accounts.contains(&name) {
            Ok(())
        } else {
            Err(EngineError::NotFound)
        }
    }

    async fn revoke(&self, _view: &ReadView<'_>, payload: &SecretBytes) -> Result<(), EngineError> {
        self.process.step().await;
        let name = name_in(payload);
        let answer = {
            let inside = &mut *self.target.inside();
            self.target.expect_intent(inside, "revoke", &name);
            match self.target.fate(inside, "revoke", &name) {
                Fate::Refused => Err(failed("down")),
                Fate::Pretended => Ok(()),
                Fate::Unheard | Fate::Late(_) => {
                    inside.accounts.remove(&name);
                    Err(failed("connection lost"))
                }
                Fate::Done => {
                    inside.accounts.remove(&name);
                    Ok(())
                }
            }
        };
        self.process.step().await;
        answer
    }
}
