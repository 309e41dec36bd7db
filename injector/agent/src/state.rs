//! What the agent holds, and its copy in the memory-backed state directory. The copy has mode 0600 and
//! its volume is mounted into no other container; it never touches a disk.

use crate::error::AgentError;
use coffer_client::wire::{DeliveryDocument, Disclose};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Everything the agent must not lose when its container restarts.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct State {
    /// The token in use.
    pub token: Option<Token>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Held>,
    /// What was replaced and is still valid until its overlap is over.
    pub retiring: Vec<Retiring>,
}

/// A token and how long it lives.
#[derive(Debug, Deserialize, Serialize)]
pub struct Token {
    /// The token.
    pub secret: Disclose,
    /// Its loggable name.
    pub accessor: String,
    /// How long it lives.
    pub life: Life,
}

/// How long a token or lease lives. `ttl_ms` 0 means it does not end.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Life {
    /// When it was issued or last prolonged.
    pub since_ms: u64,
    /// What the server granted then.
    pub ttl_ms: u64,
    /// Whether nothing more can be had: it is not renewable, or the last renewal was cut short.
    pub exhausted: bool,
}

/// What the agent has of one secret.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Held {
    /// How it is delivered.
    pub document: Option<Document>,
    /// The secret itself.
    pub issue: Option<Issue>,
    /// Which document and issue the files show: their versions.
    pub shown: Option<(u64, u64)>,
    /// Leases the files showed before, to retire once the new files are in place.
    pub superseded: Vec<String>,
    /// Counts issues, so that `shown` can name one.
    pub issues: u64,
}

/// A delivery document as last read.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Document {
    /// Its path without the mount, `k8s/...`; empty for a secret given by annotation alone.
    pub path: String,
    /// The server's version of it.
    pub version: u64,
    /// The document.
    pub body: DeliveryDocument,
}

/// A secret as it was read.
#[derive(Debug, Deserialize, Serialize)]
pub struct Issue {
    /// Its number among the issues of this secret.
    pub number: u64,
    /// The path it was read at.
    pub source: String,
    /// Accessor of the token it was read with.
    pub owner: String,
    /// When it was read.
    pub read_ms: u64,
    /// Its lease, if it has one.
    pub lease: Option<Lease>,
    /// Its keys and values.
    pub data: Disclose<Map<String, Value>>,
}

/// A lease and how long it lives.
#[derive(Debug, Deserialize, Serialize)]
pub struct Lease {
    /// Its id.
    pub id: String,
    /// How long it lives.
    pub life: Life,
}

/// Something replaced that is to be revoked.
#[derive(Debug, Deserialize, Serialize)]
pub struct Retiring {
    /// What.
    pub what: Retired,
    /// When its overlap is over; none while its successors are not yet in place.
    pub revoke_ms: Option<u64>,
}

/// What can be retired.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retired {
    /// A lease of the token in use.
    Lease {
        /// Its id.
        id: String,
    },
    /// A former token, with every lease it still has.
    Token {
        /// The token.
        secret: Disclose,
        /// Its loggable name.
        accessor: String,
    },
}

impl Retired {
    /// A name for logs and for counting attempts.
    pub fn name(&self) -> &str {
        match self {
            Self::Lease { id } => id,
            Self::Token { accessor, .. } => accessor,
        }
    }
}

/// A hundred years: what a server grants beyond is no different to a pod, and its sums stay within the clock's range.
const LIFE_SECS_MAX: u64 = 100 * 365 * 86_400;

fn millis(secs: u64) -> u64 {
    secs.min(LIFE_SECS_MAX) * 1000
}

impl Life {
    /// A life that begins now.
    pub fn new(now_ms: u64, ttl_secs: u64, renewable: bool) -> Self {
        Self { since_ms: now_ms, ttl_ms: millis(ttl_secs), exhausted: !renewable }
    }

    /// The life after a renewal. A grant clearly shorter than the last one means that the maximum is
    /// near; the slack covers a server that counts down between deciding and answering.
    #[must_use]
    pub fn renewed(self, now_ms: u64, ttl_secs: u64) -> Self {
        let ttl_ms = millis(ttl_secs);
        let cut_short = ttl_ms.saturating_add(self.ttl_ms / 20 + 2_000) < self.ttl_ms;
        Self { since_ms: now_ms, ttl_ms, exhausted: self.exhausted || cut_short }
    }
}

/// The state's copy on the memory-backed volume.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file in this directory.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("state.json") }
    }

    /// What the last container of this pod held; nothing if this is the first.
    ///
    /// # Errors
    /// [`AgentError::State`] if the file is there but makes no sense.
    pub fn load(&self) -> Result<State, AgentError> {
        let text = match fs::read(&self.path) {
            Ok(text) => Zeroizing::new(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(State::default()),
            Err(e) => return Err(AgentError::file("read", &self.path)(e)),
        };
        // serde's message may quote what it read, so only the place is told.
        serde_json::from_slice(&text)
            .map_err(|e| AgentError::State(format!("{:?} error at column {}", e.classify(), e.column())))
    }

    /// Replaces the copy.
    ///
    /// # Errors
    /// [`AgentError::File`].
    pub fn save(&self, state: &State) -> Result<(), AgentError> {
        let text = Zeroizing::new(
            serde_json::to_vec(state).map_err(|e| AgentError::State(format!("{:?} error", e.classify())))?,
        );
        let new = self.path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(AgentError::file("create", &new))?;
        file.write_all(&text).map_err(AgentError::file("write", &new))?;
        drop(file);
        fs::rename(&new, &self.path).map_err(AgentError::file("rename", &self.path))
    }

    /// Removes the copy, once everything in it has been revoked.
    ///
    /// # Errors
    /// [`AgentError::File`].
    pub fn remove(&self) -> Result<(), AgentError> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(AgentError::file("remove", &self.path)(e))
            }
            _ => Ok(()),
        }
    }
}
