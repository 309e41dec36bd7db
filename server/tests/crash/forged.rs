//! The checker checked: what a broken server would have lost or made up is taken away or made up here, one at a time, and
//! each time the claims must not hold any more.

use std::path::Path;

use coffer_client::{Call, Client};
use serde_json::{Value, json};

use crate::claims::Ledger;
use crate::common::BINARY;
use crate::load::{Life, Notes};
use crate::vault::Vault;

/// A round in which nothing happened to the server, and all that was written down of it.
struct Round {
    vault: Vault,
    client: Client,
    notes: Vec<Notes>,
    log: String,
}

impl Round {
    /// What a fresh ledger that reads this log has against what there is.
    fn wrong(&self, notes: Vec<Notes>, log: &str) -> Vec<String> {
        let path = self.vault.bed.path("forged.log");
        std::fs::write(&path, log).unwrap();
        let mut ledger = Ledger::new(path);
        self.vault.runtime.block_on(async {
            let mut wrong = ledger.compare(&self.client, notes).await;
            wrong.extend(ledger.everything(&self.client).await);
            wrong
        })
    }

    /// The same of the true notes and log.
    fn found(&self) -> Vec<String> {
        self.wrong(self.notes.clone(), &self.log)
    }

    /// The log without the lines that these words are in.
    fn log_without(&self, words: &[&str]) -> String {
        let has = |line: &&str| words.iter().all(|word| line.contains(word));
        let kept: Vec<&str> = self.log.lines().filter(|line| !has(line)).collect();
        assert!(kept.len() < self.log.lines().count(), "{words:?} is nowhere");
        kept.join("\n") + "\n"
    }

    /// A key that has a value, and another.
    fn keys(&self) -> Vec<String> {
        let all = self.notes.iter().flat_map(|notes| &notes.keys);
        all.filter(|(_, (held, _))| held.value.is_some()).map(|(path, _)| path.clone()).collect()
    }
}

fn names(wrong: &[String], what: &str) {
    assert!(wrong.iter().any(|sentence| sentence.contains(what)), "not noticed: {what}; {wrong:#?}");
}

pub(crate) fn noticed() {
    let (vault, server) = Vault::new(Path::new(BINARY));
    let notes = vault.write(&server, 0, 7, Some(30));
    let client = vault.client(&server);
    let log = std::fs::read_to_string(vault.bed.path("audit/audit.log")).unwrap();
    let round = Round { vault, client, notes, log };
    assert_eq!(round.found(), Vec::<String>::new(), "nothing was forged yet");
    let keys = round.keys();

    // Records.
    let request = round.notes[0].requests[0].clone();
    names(&round.wrong(round.notes.clone(), &round.log_without(&[&request, "\"completion\""])), &request);
    let path = format!("\"{}\"", keys[0]);
    names(&round.wrong(round.notes.clone(), &round.log_without(&[&path, "\"intent\""])), "by 0 intents");
    let tokens = round.log_without(&["\"auth/token/create\"", "\"intent\""]);
    names(&round.wrong(round.notes.clone(), &tokens), "tokens by 0 intents");

    // Tokens: one that should be dead, and one that should not.
    let mut others = round.notes.clone();
    let alive = |notes: &&mut Notes| notes.tokens.values().any(|given| given.life == Life::Alive);
    let whose = others.iter_mut().find(alive).unwrap();
    let (name, given) = whose.tokens.iter_mut().find(|(_, given)| given.life == Life::Alive).unwrap();
    given.life = Life::Dead;
    let (name, token) = (name.clone(), given.token.clone());
    names(&round.wrong(others, &round.log), &name);
    round.act(Call::new("POST", "auth/token/revoke"), Some(&json!({"token": token})));
    names(&round.found(), &name);

    // Values: a newer one, none any more, one that nobody wrote.
    round.act(Call::new("POST", &keys[0]), Some(&json!({"data": {"value": "another"}})));
    names(&round.found(), &keys[0]);
    let metadata = keys[1].replace("secret/data/", "secret/metadata/");
    round.act(Call::new("DELETE", &metadata), None);
    names(&round.found(), &keys[1]);
    round.act(Call::new("POST", "secret/data/r0/nobodys"), Some(&json!({"data": {"value": "x"}})));
    names(&round.found(), "secret/data/r0/nobodys is there");

    // The chain of the log.
    let file = round.vault.bed.path("audit/audit.log");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("\"update\"", "\"upbate\"", 1)).unwrap();
    let audit = round.vault.bed.path("audit");
    round.vault.shell(&server).fails(&["audit", "verify", audit.to_str().unwrap()]);
}

impl Round {
    fn act(&self, call: Call<'_>, body: Option<&Value>) {
        let _reply: Value = self.vault.runtime.block_on(self.client.exchange(call, body)).unwrap();
    }
}
