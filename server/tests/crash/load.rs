//! Writers at work, each with keys and tokens of its own and a note of what it was told: the model that a store is held
//! against.

use std::collections::BTreeMap;

use coffer_client::wire::{Disclose, Envelope};
use coffer_client::{Call, Client, ClientError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// How many write at once.
pub(crate) const WRITERS: u64 = 6;
/// No step is so rare that a writer does more before it is reached.
const OPERATIONS_MAX: u32 = 5_000;

/// What a key has: its newest version, 0 for none, and that version's value unless it is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) version: u64,
    pub(crate) value: Option<String>,
}

/// What is known of a token that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Alive,
    /// Its end was asked for and not acknowledged.
    Uncertain,
    Dead,
}

/// A token that the server has given out.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) token: String,
    /// The display name of the one it was made with, if not root.
    pub(crate) parent: Option<String>,
    pub(crate) life: Life,
}

/// What one writer knows at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    /// By path: what the server has acknowledged, and what it may have besides, from a request without an answer.
    pub(crate) keys: BTreeMap<String, (Held, Option<Held>)>,
    /// By display name.
    pub(crate) tokens: BTreeMap<String, Given>,
    /// The display name of a token that may exist.
    pub(crate) token_unanswered: Option<String>,
    /// Names of requests that were answered.
    pub(crate) requests: Vec<String>,
    /// How many writes were acknowledged.
    pub(crate) acknowledged: usize,
}

/// A writer.
struct Writer {
    client: Client,
    rng: StdRng,
    notes: Notes,
}

/// Writes until the server is gone, or this many times.
pub(crate) async fn write(client: Client, round: u64, writer: u64, seed: u64, most: Option<u32>) -> Notes {
    let rng = StdRng::seed_from_u64(seed.wrapping_mul(WRITERS).wrapping_add(writer));
    let mut writer_ = Writer { client, rng, notes: Notes::default() };
    for n in 0..most.unwrap_or(OPERATIONS_MAX) {
        match writer_.one(&format!("r{round}-w{writer}-{n}"), round).await {
            Ok(()) => writer_.notes.acknowledged += 1,
            Err(ClientError::Unreachable(_)) => break,
            Err(other) => panic!("round {round}, writer {writer}, operation {n}: {other}"),
        }
    }
    writer_.notes
}

impl Writer {
    /// One operation, chosen by chance.
    async fn one(&mut self, name: &str, round: u64) -> Result<(), ClientError> {
        let choice = self.rng.random_range(0..20);
        let written = |held: &Held| held.value.is_some();
        let old: Vec<&String> =
            self.notes.keys.iter().filter(|(_, (held, _))| written(held)).map(|(path, _)| path).collect();
        let old = (!old.is_empty()).then(|| old[self.rng.random_range(0..old.len())].clone());
        let alive: Vec<&String> = self
            .notes
            .tokens
            .iter()
            .filter(|(_, given)| given.life == Life::Alive)
            .map(|(name, _)| name)
            .collect();
        let alive = (!alive.is_empty()).then(|| alive[self.rng.random_range(0..alive.len())].clone());
        match (choice, old, alive) {
            (0..3, ..) => self.token(name, None).await,
            (3, _, Some(parent)) => self.token(name, Some(parent)).await,
            (4..6, _, Some(given)) => self.revoke(&given).await,
            (6..10, Some(path), _) => self.put(path, name).await,
            (10..12, Some(path), _) => self.delete(path).await,
            (12, Some(path), _) => self.forget(path).await,
            _ => self.put(format!("secret/data/r{round}/{name}"), name).await,
        }
    }

    async fn put(&mut self, path: String, value: &str) -> Result<(), ClientError> {
        // Larger than a page now and then.
        let filler = "x".repeat(value.len() * 131 % 6_000);
        let body = json!({"data": {"value": value, "filler": filler}});
        let (held, unanswered) = self.notes.keys.entry(path.clone()).or_default();
        let next = Held { version: held.version + 1, value: Some(value.to_owned()) };
        *unanswered = Some(next.clone());
        let reply: Envelope<Value> = self.client.post(&path, &body).await?;
        assert_eq!(reply.data.unwrap()["version"], next.version, "{path}");
        *held = next;
        *unanswered = None;
        self.notes.requests.push(reply.request_id);
        Ok(())
    }

    /// Deletes the newest version.
    async fn delete(&mut self, path: String) -> Result<(), ClientError> {
        let (held, unanswered) = self.notes.keys.get_mut(&path).unwrap();
        let next = Held { version: held.version, value: None };
        *unanswered = Some(next.clone());
        self.client.exchange::<(), Value>(Call::new("DELETE", &path), None).await?;
        *held = next;
        *unanswered = None;
        Ok(())
    }

    /// Deletes a key with all its versions.
    async fn forget(&mut self, path: String) -> Result<(), ClientError> {
        let (held, unanswered) = self.notes.keys.get_mut(&path).unwrap();
        *unanswered = Some(Held::default());
        let metadata = path.replace("secret/data/", "secret/metadata/");
        self.client.exchange::<(), Value>(Call::new("DELETE", &metadata), None).await?;
        *held = Held::default();
        *unanswered = None;
        Ok(())
    }

    async fn token(&mut self, name: &str, parent: Option<String>) -> Result<(), ClientError> {
        let display = format!("token-{name}");
        self.notes.token_unanswered = Some(display.clone());
        let body = json!({"policies": ["default", "maker"], "ttl": "10h", "display_name": name});
        let maker = match &parent {
            None => self.client.clone(),
            Some(parent) => {
                self.client.with_token(&Disclose::new(self.notes.tokens[parent].token.clone())).unwrap()
            }
        };
        let reply: Envelope<Value> = maker.post("auth/token/create", &body).await?;
        self.notes.token_unanswered = None;
        let token = reply.auth.unwrap().client_token.expose().clone();
        self.notes.tokens.insert(display, Given { token, parent, life: Life::Alive });
        self.notes.requests.push(reply.request_id);
        Ok(())
    }

    /// Ends a token, and with it those made by it.
    async fn revoke(&mut self, name: &str) -> Result<(), ClientError> {
        let line = self.line_of(name);
        self.mark(&line, Life::Uncertain);
        let body = json!({"token": self.notes.tokens[name].token});
        let _nothing: Value =
            self.client.exchange(Call::new("POST", "auth/token/revoke"), Some(&body)).await?;
        self.mark(&line, Life::Dead);
        Ok(())
    }

    fn mark(&mut self, names: &[String], life: Life) {
        for (_, given) in self.notes.tokens.iter_mut().filter(|(name, _)| names.contains(name)) {
            // What is dead stays dead.
            if given.life != Life::Dead {
                given.life = life;
            }
        }
    }

    /// A token and all that descend from it.
    fn line_of(&self, name: &str) -> Vec<String> {
        let mut line = vec![name.to_owned()];
        let mut at = 0;
        while let Some(parent) = line.get(at).cloned() {
            at += 1;
            let children =
                self.notes.tokens.iter().filter(|(_, given)| given.parent.as_ref() == Some(&parent));
            line.extend(children.map(|(name, _)| name.clone()));
        }
        line
    }
}
