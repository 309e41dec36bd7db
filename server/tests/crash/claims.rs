//! What must be true of a server that was killed and is back. Each claim that does not hold is a sentence; that the
//! sentences come when they should is tested too (`forged.rs`).

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use coffer_client::wire::Disclose;
use coffer_client::{Call, Client};
use serde_json::{Value, json};

use crate::load::{Given, Held, Life, Notes};

/// Which records the audit log has of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Records {
    intent: bool,
    completion: bool,
}

/// Everything known of a store, over all its lives.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    keys: BTreeMap<String, Held>,
    tokens: BTreeMap<String, Given>,
    /// Tokens that may have been made by requests without an answer.
    perhaps: Vec<String>,
    /// Intents in the audit log, by path and whether they delete.
    intents: HashMap<(String, bool), u64>,
    records: HashMap<String, Records>,
    log: PathBuf,
    read: u64,
}

/// A reply, whatever its status.
pub(crate) async fn ask(client: &Client, path: &str) -> Value {
    let call = Call { any_status: true, ..Call::new("GET", path) };
    client.exchange::<(), Value>(call, None).await.unwrap()
}

async fn held(client: &Client, path: &str) -> Result<Held, String> {
    let reply = ask(client, path).await;
    let Some(data) = reply.get("data").filter(|data| !data.is_null()) else {
        let nothing = reply == json!({"errors": []});
        return if nothing { Ok(Held::default()) } else { Err(format!("{path} does not open: {reply}")) };
    };
    let version = data["metadata"]["version"].as_u64().unwrap();
    Ok(Held { version, value: data["data"]["value"].as_str().map(str::to_owned) })
}

/// Whether a token is one; its display name.
async fn lives(client: &Client, token: &str) -> Option<String> {
    let own = client.with_token(&Disclose::new(token.to_owned())).unwrap();
    let found = ask(&own, "auth/token/lookup-self").await;
    found["data"]["display_name"].as_str().map(str::to_owned)
}

impl Ledger {
    pub(crate) fn new(log: PathBuf) -> Self {
        Self { log, ..Self::default() }
    }

    /// Reads on in the audit log.
    fn read_log(&mut self) {
        let mut file = std::fs::File::open(&self.log).unwrap();
        file.seek(SeekFrom::Start(self.read)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        for line in text[..whole].lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| record[name].as_str().unwrap().to_owned();
            let seen = self.records.entry(text("request_id")).or_default();
            match record["type"].as_str().unwrap() {
                "intent" => {
                    seen.intent = true;
                    *self.intents.entry((text("path"), record["operation"] == "delete")).or_default() += 1;
                }
                "completion" => seen.completion = true,
                _ => {}
            }
        }
    }

    /// How many intents there are to change, or to delete, what is at a path.
    pub(crate) fn intents(&self, path: &str, deletes: bool) -> u64 {
        self.intents.get(&(path.to_owned(), deletes)).copied().unwrap_or(0)
    }

    /// Holds what the writers of one round were told against what there is now.
    pub(crate) async fn compare(&mut self, client: &Client, notes: Vec<Notes>) -> Vec<String> {
        self.read_log();
        let mut wrong = Vec::new();
        for notes in notes {
            let both = Records { intent: true, completion: true };
            let unrecorded =
                notes.requests.iter().filter(|request| self.records.get(*request) != Some(&both));
            wrong.extend(unrecorded.map(|request| {
                format!("request {request} was answered and has {:?}", self.records.get(request))
            }));
            for (path, (acknowledged, unanswered)) in notes.keys {
                let found = match held(client, &path).await {
                    Ok(found) => found,
                    Err(why) => {
                        wrong.push(why);
                        continue;
                    }
                };
                if found != acknowledged && Some(&found) != unanswered.as_ref() {
                    wrong.push(format!(
                        "{path}: found {found:?}, acknowledged {acknowledged:?}, unanswered {unanswered:?}"
                    ));
                }
                wrong.extend(self.unintended(&path, &found));
                self.keys.insert(path, found);
            }
            wrong.extend(self.compare_tokens(client, notes.tokens).await);
            self.perhaps.extend(notes.token_unanswered);
        }
        wrong
    }

    async fn compare_tokens(&mut self, client: &Client, tokens: BTreeMap<String, Given>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut found = BTreeMap::new();
        for (name, given) in &tokens {
            let told = lives(client, &given.token).await;
            let alive = told.is_some();
            let fits = match given.life {
                Life::Alive => alive,
                Life::Dead => !alive,
                Life::Uncertain => true,
            };
            if !fits || told.is_some_and(|told| told != *name) {
                wrong.push(format!("{name} should be {:?} and is alive: {alive}", given.life));
            }
            found.insert(name.clone(), alive);
        }
        for (name, given) in tokens {
            let alive = found[&name];
            if alive && given.parent.as_ref().is_some_and(|parent| found.get(parent) == Some(&false)) {
                wrong.push(format!("{name} lives on after the one that made it"));
            }
            let life = if alive { Life::Alive } else { Life::Dead };
            self.tokens.insert(name, Given { life, ..given });
        }
        wrong
    }

    /// Effects of which no intent tells.
    fn unintended(&self, path: &str, found: &Held) -> Option<String> {
        // A key that was forgotten and written anew begins at 1 again, and has had more intents than versions.
        let (writes, deletes) = (self.intents(path, false), self.intents(path, true));
        let missing = writes < found.version || (found.version > 0 && found.value.is_none() && deletes == 0);
        missing.then(|| format!("{path}: {found:?} by {writes} intents to write and {deletes} to delete"))
    }

    /// Opens every record of the store, and holds it against what is known from all rounds.
    pub(crate) async fn everything(&mut self, client: &Client) -> Vec<String> {
        self.read_log();
        let mut wrong = Vec::new();
        let mut keys = BTreeMap::new();
        for round in client.list("secret/metadata").await.unwrap() {
            for name in client.list(&format!("secret/metadata/{round}")).await.unwrap() {
                let path = format!("secret/data/{round}{name}");
                wrong.extend(versions(client, &format!("{round}{name}")).await);
                match held(client, &path).await {
                    Ok(found) => {
                        wrong.extend(self.unintended(&path, &found));
                        keys.insert(path, found);
                    }
                    Err(why) => wrong.push(why),
                }
            }
        }
        let known = self.keys.iter().filter(|(_, held)| **held != Held::default());
        for (path, known) in known {
            if keys.get(path) != Some(known) {
                wrong.push(format!("{path}: found {:?}, held before {known:?}", keys.get(path)));
            }
        }
        wrong.extend(
            keys.keys()
                .filter(|path| !self.keys.contains_key(*path))
                .map(|path| format!("{path} is there and was never written")),
        );
        wrong.extend(self.all_tokens(client).await);
        wrong
    }

    async fn all_tokens(&self, client: &Client) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut alive: Vec<&String> =
            self.tokens.iter().filter(|(_, given)| given.life == Life::Alive).map(|(name, _)| name).collect();
        let mut made = 0;
        for accessor in client.list("auth/token/accessors").await.unwrap() {
            let body = json!({"accessor": accessor});
            let found = client.post::<_, Value>("auth/token/lookup-accessor", &body).await;
            let Ok(Some(data)) = found.map(|reply| reply.data) else {
                wrong.push("a listed token cannot be looked up".to_owned());
                continue;
            };
            let name = data["display_name"].as_str().unwrap();
            if name == "root" {
                continue;
            }
            made += 1;
            alive.retain(|other| *other != name);
            let dead = self
                .tokens
                .get(name)
                .map_or(!self.perhaps.iter().any(|other| other == name), |given| given.life == Life::Dead);
            if dead {
                wrong.push(format!("{name} is listed and should not be alive"));
            }
        }
        wrong.extend(alive.iter().map(|name| format!("{name} was alive and is not listed")));
        let intents = self.intents("auth/token/create", false);
        if made > intents {
            wrong.push(format!("{made} tokens by {intents} intents"));
        }
        wrong
    }
}

/// Versions of a key that do not open, or open and should not.
async fn versions(client: &Client, name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let metadata = ask(client, &format!("secret/metadata/{name}")).await;
    let Some(versions) = metadata["data"]["versions"].as_object() else {
        return vec![format!("the metadata of {name} do not open: {metadata}")];
    };
    for (version, about) in versions {
        let path = format!("secret/data/{name}");
        let read = Call { query: &[("version", version)], any_status: true, ..Call::new("GET", &path) };
        let read: Value = client.exchange::<(), Value>(read, None).await.unwrap();
        let deleted = about["deletion_time"] != "";
        if read["data"]["data"].is_null() != deleted {
            wrong.push(format!("{path} version {version} (deleted: {deleted}): {read}"));
        }
    }
    wrong
}
