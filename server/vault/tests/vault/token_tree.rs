//! The tree of tokens against a naive model of it: whatever is done in whatever order, a token is alive exactly if the
//! model says so, and nothing remains of a dead one.

use crate::bed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bed::Bed;
use coffer_vault::Operation;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

const MAX_TTL: u64 = 32 * 24 * 3600;
/// As deep as the vault lets a tree grow.
const DEPTH_MAX: usize = 16;

#[derive(Clone, Debug)]
struct Node {
    token: String,
    accessor: String,
    parent: Option<usize>,
    depth: usize,
    created: u64,
    last: u64,
    expires: u64,
    period: bool,
    dead: bool,
    /// Accounts it holds.
    accounts: Vec<String>,
}

/// What should be.
#[derive(Default)]
struct Model {
    now: u64,
    nodes: Vec<Node>,
}

impl Model {
    /// Whoever is over his time is dead for ever, and all below with him.
    fn settle(&mut self) {
        for at in 0..self.nodes.len() {
            let parent_dead = self.nodes[at].parent.is_some_and(|p| self.nodes[p].dead);
            let node = &mut self.nodes[at];
            node.dead |= parent_dead || self.now >= node.expires;
        }
        // Parents come before their children, so one pass is enough.
    }

    fn pass(&mut self, seconds: u64) {
        self.now += seconds;
        self.settle();
    }

    fn revoke(&mut self, at: usize) {
        self.nodes[at].dead = true;
        self.settle();
    }

    fn revoke_orphan(&mut self, at: usize) {
        for node in &mut self.nodes {
            if node.parent == Some(at) {
                node.parent = None;
            }
        }
        for below in 0..self.nodes.len() {
            let depth = self.nodes[below].parent.map_or(0, |p| self.nodes[p].depth + 1);
            self.nodes[below].depth = depth;
        }
        self.nodes[at].dead = true;
    }

    fn renew(&mut self, at: usize, increment: u64) {
        let now = self.now;
        let node = &mut self.nodes[at];
        let life = if node.period || increment == 0 { node.last } else { increment };
        let end = now + life;
        node.expires = if node.period { end } else { end.min(node.created + MAX_TTL) };
        node.last = node.expires - now;
    }

    fn living(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| !self.nodes[*at].dead).collect()
    }
}

struct Run {
    bed: Bed,
    model: Model,
    rng: StdRng,
    maker: String,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let bed = Bed::with_pods().await;
        let policy = r#"path "auth/token/create" { capabilities = ["update", "sudo"] }
            path "database/creds/*" { capabilities = ["read"] }"#;
        bed.root(Operation::Update, "sys/policies/acl/tree", json!({"policy": policy})).await.expect(204);
        let body = json!({"policies": ["tree"], "period": "700h"});
        let maker = bed.root(Operation::Update, "auth/token/create-orphan", body).await.expect(200);
        let maker = maker.text("/auth/client_token");
        Self { bed, model: Model::default(), rng: StdRng::seed_from_u64(seed), maker }
    }

    fn any(&mut self, of: &[usize]) -> Option<usize> {
        if of.is_empty() { None } else { Some(of[self.rng.random_range(0..of.len())]) }
    }

    async fn create(&mut self) {
        let living = self.model.living();
        let parent = if self.rng.random_ratio(1, 5) { None } else { self.any(&living) };
        let ttl = self.rng.random_range(10..400u64);
        let period = self.rng.random_ratio(1, 6);
        let orphan = parent.is_none();
        let by = parent.map_or_else(|| self.maker.clone(), |p| self.model.nodes[p].token.clone());
        let body = if period {
            json!({"period": ttl, "no_parent": orphan})
        } else {
            json!({"ttl": ttl, "no_parent": orphan})
        };
        let answer = self.bed.post("auth/token/create", &by, body).await;
        let depth = parent.map_or(0, |p| self.model.nodes[p].depth + 1);
        if depth > DEPTH_MAX {
            answer.expect(413);
            return;
        }
        let answer = answer.expect(200);
        self.model.nodes.push(Node {
            token: answer.text("/auth/client_token"),
            accessor: answer.text("/auth/accessor"),
            parent,
            depth,
            created: self.model.now,
            last: ttl,
            expires: self.model.now + ttl,
            period,
            dead: false,
            accounts: Vec::new(),
        });
    }

    async fn step(&mut self) {
        let all: Vec<usize> = (0..self.model.nodes.len()).collect();
        let living = self.model.living();
        match self.rng.random_range(0..100) {
            0..35 => self.create().await,
            35..45 => {
                let Some(at) = self.any(&all) else { return };
                let increment = if self.rng.random() { 0 } else { self.rng.random_range(1..500) };
                let body = json!({"token": self.model.nodes[at].token, "increment": increment});
                let answer = self.bed.root(Operation::Update, "auth/token/renew", body).await;
                if self.model.nodes[at].dead {
                    answer.expect(400);
                } else {
                    answer.expect(200);
                    self.model.renew(at, increment);
                }
            }
            45..53 => {
                let Some(at) = self.any(&all) else { return };
                let body = json!({"token": self.model.nodes[at].token});
                self.bed.root(Operation::Update, "auth/token/revoke", body).await.expect(204);
                self.model.revoke(at);
            }
            53..56 => {
                let Some(at) = self.any(&living) else { return };
                let body = json!({"accessor": self.model.nodes[at].accessor});
                self.bed.root(Operation::Update, "auth/token/revoke-accessor", body).await.expect(204);
                self.model.revoke(at);
            }
            56..62 => {
                let Some(at) = self.any(&living) else { return };
                let body = json!({"token": self.model.nodes[at].token});
                self.bed.root(Operation::Update, "auth/token/revoke-orphan", body).await.expect(204);
                self.model.revoke_orphan(at);
            }
            62..74 => {
                let Some(at) = self.any(&living) else { return };
                let token = self.model.nodes[at].token.clone();
                let (_, account) = self.bed.issue(&token).await;
                self.model.nodes[at].accounts.push(account);
            }
            74..84 => {
                let Some(at) = self.any(&living) else { return };
                let token = self.model.nodes[at].token.clone();
                self.bed.post("cubbyhole/a", &token, json!({"n": at})).await.expect(204);
            }
            84..94 => {
                let seconds = self.rng.random_range(1..90);
                self.bed.advance(Duration::from_secs(seconds)).await;
                self.model.pass(seconds);
            }
            _ => self.sweep_and_compare().await,
        }
    }

    /// Who lives is who should; swept or not.
    async fn compare(&self) {
        for node in &self.model.nodes {
            let answer = self.bed.get("auth/token/lookup-self", &node.token).await;
            assert_eq!(answer.status == 200, !node.dead, "{node:?} at {}: {answer:?}", self.model.now);
        }
    }

    /// After a sweep nothing is left of the dead: no account, no accessor, no row of a cubbyhole.
    async fn sweep_and_compare(&mut self) {
        self.compare().await;
        self.bed.sweep().await;
        self.compare().await;
        let living = self.model.living();
        let accounts: BTreeSet<String> =
            living.iter().flat_map(|at| self.model.nodes[*at].accounts.clone()).collect();
        let found: BTreeSet<String> = self.bed.database.accounts();
        assert!(found.is_subset(&accounts), "left: {:?}", found.difference(&accounts));
        let listed = self.bed.root(Operation::List, "auth/token/accessors", Value::Null).await.expect(200);
        let keys = listed.body["data"]["keys"].as_array().into_iter().flatten();
        let listed: BTreeSet<&str> = keys.filter_map(Value::as_str).collect();
        // Root and the one who makes the first tokens are the two others.
        assert_eq!(listed.len(), living.len() + 2);
        for at in living {
            let accessor = self.model.nodes[at].accessor.as_str();
            assert!(listed.contains(accessor));
            let body = json!({"accessor": accessor});
            self.bed.root(Operation::Update, "auth/token/lookup-accessor", body).await.expect(200);
        }
        for node in self.model.nodes.iter().filter(|node| node.dead) {
            let body = json!({"accessor": node.accessor});
            self.bed.root(Operation::Update, "auth/token/lookup-accessor", body).await.expect(400);
        }
    }

    fn rows_by_mount(&self) -> BTreeMap<Vec<u8>, usize> {
        let mut counts = BTreeMap::new();
        for (key, _) in self.bed.store.dump() {
            *counts.entry(key[..17].to_vec()).or_default() += 1;
        }
        counts
    }
}

#[tokio::test]
async fn a_token_lives_exactly_as_long_as_the_model_says() {
    for seed in 0..12 {
        let mut run = Run::new(seed).await;
        let mounts: BTreeSet<_> = run.rows_by_mount().into_keys().collect();
        for _ in 0..120 {
            run.step().await;
        }
        run.compare().await;
        for at in run.model.living() {
            let body = json!({"token": run.model.nodes[at].token});
            run.bed.root(Operation::Update, "auth/token/revoke", body).await.expect(204);
            run.model.revoke(at);
        }
        run.sweep_and_compare().await;
        assert!(run.bed.database.accounts().is_empty(), "seed {seed}");
        run.bed.vault.trim().await.unwrap();
        let left: BTreeSet<_> = run.rows_by_mount().into_keys().filter(|id| !mounts.contains(id)).collect();
        assert!(left.is_empty(), "seed {seed}: rows of {} cubbyholes are left", left.len());
    }
}
