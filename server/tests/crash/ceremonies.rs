//! Operations of several transactions, or of more than rows, cut off at every step on their way.
//!
//! Nothing else is going on but the server's own background work, so that the how-manieth step is the same place each
//! time, or near it. `COFFER_CRASH_STRIDE` says how far these places are apart (1 is every step).

use coffer_client::wire::{Disclose, Envelope};
use coffer_client::{Call, Client, ClientError};
use coffer_core::failpoint::Step;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use crate::claims::ask;
use crate::common::Server;
use crate::order::Order;
use crate::story::number;
use crate::vault::Vault;

/// No operation has so many steps.
const STEPS_MAX: u32 = 500;

/// How long background work may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

/// The steps that the ceremonies below are ended at by name.
pub(crate) const STEPS: [Step; 11] = [
    Step::CommitterBeforeWrite,
    Step::CommitterBeforeSync,
    Step::CommitterAfterSync,
    Step::CommitterDurable,
    Step::TokensKilled,
    Step::MountTainted,
    Step::MountTakenBack,
    Step::MountErasing,
    Step::Rotated,
    Step::Rekeyed,
    Step::Rewrapped,
];

/// One crash of a ceremony.
pub(crate) struct Crash {
    order: Order,
    pub(crate) number: u32,
    pub(crate) place: String,
}

/// Lets `one` run and die by ever later orders, until what it does is acknowledged before it dies; then by each named step.
/// `one` gives back whether it was acknowledged.
pub(crate) fn at_every_step(named: &[(Step, u32)], mut one: impl FnMut(&Crash) -> bool) {
    let stride = u32::try_from(number("COFFER_CRASH_STRIDE", 6)).unwrap();
    let mut crashes = 0;
    let mut crash = |order: Order| {
        crashes += 1;
        let crash = Crash { order, number: crashes, place: format!("step and time {order}") };
        let acknowledged = one(&crash);
        println!("crash: {}: acknowledged: {acknowledged}", crash.place);
        acknowledged
    };
    let mut count = 1;
    while !crash(Order { step: None, count }) {
        count += stride;
        assert!(count < STEPS_MAX, "it never came to its end");
    }
    for (step, count) in named {
        crash(Order { step: Some(*step), count: *count });
    }
}

/// Whether a call was answered. A refusal is a failure of the test.
fn answered<T>(result: Result<T, ClientError>, place: &str) -> Option<T> {
    match result {
        Ok(reply) => Some(reply),
        Err(ClientError::Unreachable(_)) => None,
        Err(other) => panic!("{place}: {other}"),
    }
}

/// Asks until what is said of the answer is true.
async fn until(client: &Client, path: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let reply = ask(client, path).await;
        if holds(&reply) {
            return reply;
        }
        assert!(Instant::now() < end, "{path} did not come to be {what}: {reply}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Once every row is under the newest keys, all of them were opened. That an earlier round came to its end says nothing.
async fn settled(client: &Client) {
    let now = term(client).await;
    let retired = |reply: &Value| reply["data"]["term"] == now && reply["data"]["old_keys_retired"] == true;
    let status = until(client, "sys/rotate/status", "retired", retired).await;
    assert_eq!(status["data"]["rows_unreadable"], 0, "{status}");
}

/// Brings every row under new keys, and so opens every one.
pub(crate) async fn rewrapped(client: &Client) {
    client.write("sys/rotate", &json!({})).await.unwrap();
    settled(client).await;
}

/// A vault and its server, between two lives.
pub(crate) struct Stage {
    vault: Vault,
    server: Server,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let (vault, server) = Vault::new(&std::env::current_exe().unwrap());
        Self { vault, server }
    }

    pub(crate) fn client(&self) -> Client {
        self.vault.client(&self.server)
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.vault.runtime.block_on(work)
    }

    /// Gives the order, does the deed, and waits for the death that background work brings if the deed did not.
    pub(crate) fn do_and_die<T>(
        &mut self,
        crash: &Crash,
        deed: impl Future<Output = Result<T, ClientError>>,
    ) -> Option<T> {
        crash.order.give(&self.vault.order);
        let reply = answered(self.run(deed), &crash.place);
        self.vault.died(&mut self.server, crash.order, &crash.place);
        reply
    }

    /// Starts again, unseals, and looks at the audit log.
    pub(crate) fn come_back(&mut self, crash: &Crash) {
        self.server = self.vault.start();
        self.vault.unseal(&self.server);
        self.vault.verify_log(&self.server, &crash.place);
    }
}

async fn make_token(client: &Client, name: &str) -> String {
    let body = json!({"policies": ["maker"], "ttl": "10h", "display_name": name});
    let reply: Envelope<Value> = client.post("auth/token/create", &body).await.unwrap();
    reply.auth.unwrap().client_token.expose().clone()
}

pub(crate) fn token_line() {
    let mut stage = Stage::new();
    at_every_step(&[(Step::TokensKilled, 1)], |crash| {
        let client = stage.client();
        let line = stage.run(async {
            let mut line = vec![make_token(&client, "first").await];
            for name in ["second", "third"] {
                let maker = client.with_token(&Disclose::new(line.last().unwrap().clone())).unwrap();
                line.push(make_token(&maker, name).await);
            }
            line
        });
        let body = json!({"token": line[0]});
        let revoke = client.exchange::<_, Value>(Call::new("POST", "auth/token/revoke"), Some(&body));
        let acknowledged = stage.do_and_die(crash, revoke).is_some();
        stage.come_back(crash);
        let client = stage.client();
        let place = &crash.place;
        stage.run(async {
            let mut alive = Vec::new();
            for token in &line {
                let own = client.with_token(&Disclose::new(token.clone())).unwrap();
                alive.push(ask(&own, "auth/token/lookup-self").await["data"].is_object());
            }
            assert!(alive.iter().all(|life| *life == alive[0]), "{place}: {alive:?}");
            assert!(!(acknowledged && alive[0]), "{place}: alive after its end");
            if alive[0] {
                client.write("auth/token/revoke", &body).await.unwrap();
            }
            // All of them go from the store as well, by the sweeper if by nobody else: only root is left.
            let end = Instant::now() + PATIENCE;
            while client.list("auth/token/accessors").await.unwrap().len() > 1 {
                assert!(Instant::now() < end, "{place}: some are still listed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        acknowledged
    });
    stage.run(rewrapped(&stage.client()));
}

pub(crate) fn unmount() {
    let mut stage = Stage::new();
    let named = [(Step::MountTainted, 1), (Step::MountTakenBack, 1), (Step::MountErasing, 1)];
    at_every_step(&named, |crash| {
        let client = stage.client();
        let mount = format!("m{}", crash.number);
        let key = format!("{mount}/data/a");
        stage.run(async {
            let kv = json!({"type": "kv", "options": {"version": "2"}});
            client.write(&format!("sys/mounts/{mount}"), &kv).await.unwrap();
            client.write(&key, &json!({"data": {"k": mount}})).await.unwrap();
        });
        let path = format!("sys/mounts/{mount}");
        let acknowledged = stage.do_and_die(crash, client.delete(&path)).is_some();
        stage.come_back(crash);
        let client = stage.client();
        let place = &crash.place;
        stage.run(async {
            let read = ask(&client, &key).await;
            let whole = read["data"]["data"]["k"] == mount.as_str();
            assert!(!(acknowledged && whole), "{place}: it answers after its end");
            if whole {
                client.delete(&path).await.unwrap();
            } else {
                assert!(read["errors"].is_array(), "{place}: {read}");
            }
            let name = format!("{mount}/");
            until(&client, "sys/mounts", "without it", |reply| {
                reply["data"].is_object() && reply["data"][&name].is_null()
            })
            .await;
            // The path is free, and nothing of what was there is.
            let kv = json!({"type": "kv", "options": {"version": "2"}});
            client.write(&path, &kv).await.unwrap();
            assert_eq!(ask(&client, &key).await, json!({"errors": []}), "{place}");
        });
        acknowledged
    });
    stage.run(rewrapped(&stage.client()));
}

async fn term(client: &Client) -> u64 {
    ask(client, "sys/key-status").await["data"]["term"].as_u64().unwrap()
}

pub(crate) fn rotate() {
    let mut stage = Stage::new();
    let key = |n: u32| format!("secret/data/k{n}");
    let named = [(Step::Rotated, 1), (Step::Rewrapped, 1), (Step::Rewrapped, 2)];
    let mut written = 0;
    let mut before = stage.run(term(&stage.client()));
    at_every_step(&named, |crash| {
        let client = stage.client();
        written = crash.number;
        stage.run(client.write(&key(written), &json!({"data": {"n": written}}))).unwrap();
        let rotate = async { client.write("sys/rotate", &json!({})).await };
        let acknowledged = stage.do_and_die(crash, rotate).is_some();
        stage.come_back(crash);
        let client = stage.client();
        let place = &crash.place;
        stage.run(async {
            let now = term(&client).await;
            assert!(now == before + 1 || (now == before && !acknowledged), "{place}: from {before} to {now}");
            before = now;
            settled(&client).await;
            for n in 1..=written {
                assert_eq!(ask(&client, &key(n)).await["data"]["data"]["n"], n, "{place}");
            }
        });
        acknowledged
    });
}

/// Whether a key unseals this sealed server.
fn opens(vault: &Vault, server: &Server, key: &str) -> bool {
    vault.shell(server).run_with(&["operator", "unseal"], key).status.success()
}

pub(crate) fn rekey() {
    let mut stage = Stage::new();
    at_every_step(&[(Step::Rekeyed, 1), (Step::Rewrapped, 1)], |crash| {
        let client = stage.client();
        let before = stage.run(term(&client));
        let old = stage.vault.key.clone();
        let (new, nonce) = stage.run(async {
            client.write("secret/data/a", &json!({"data": {"n": crash.number}})).await.unwrap();
            let post = |path: &'static str, body: Value| {
                let client = client.clone();
                async move { client.exchange::<_, Value>(Call::new("POST", path), Some(&body)).await.unwrap() }
            };
            let begin = json!({"secret_shares": 1, "secret_threshold": 1, "require_verification": true});
            let begun = post("sys/rekey/init", begin).await;
            let made = post("sys/rekey/update", json!({"key": old, "nonce": begun["nonce"]})).await;
            let new = made["keys_base64"][0].as_str().unwrap().to_owned();
            (new, made["verification_nonce"].clone())
        });
        let body = json!({"key": new, "nonce": nonce});
        let verify = client.exchange::<_, Value>(Call::new("POST", "sys/rekey/verify"), Some(&body));
        let acknowledged = stage.do_and_die(crash, verify).is_some();
        stage.server = stage.vault.start();
        let place = &crash.place;
        let by_new = opens(&stage.vault, &stage.server, &new);
        assert!(by_new || !acknowledged, "{place}: the new key does not open");
        if by_new {
            stage.vault.key = new;
            stage.run(stage.client().write("sys/seal", &json!({}))).unwrap();
            assert!(!opens(&stage.vault, &stage.server, &old), "{place}: the old key opens as well");
        }
        stage.vault.unseal(&stage.server);
        stage.vault.verify_log(&stage.server, place);
        let client = stage.client();
        stage.run(async {
            let now = term(&client).await;
            assert_eq!(now, before + u64::from(by_new), "{place}: a rekey makes new keys for everything");
            settled(&client).await;
            let read = ask(&client, "secret/data/a").await;
            assert_eq!(read["data"]["data"]["n"], crash.number, "{place}");
        });
        acknowledged
    });
}

pub(crate) fn start() {
    let mut stage = Stage::new();
    let mut dying = 0;
    at_every_step(&[], |crash| {
        stage.run(stage.client().write("secret/data/a", &json!({"data": {"n": crash.number}}))).unwrap();
        // What it has to bring in order is what a crash leaves.
        stage.server.signal(nix::sys::signal::Signal::SIGKILL);
        stage.server.end();
        crash.order.give(&stage.vault.order);
        let mut unsealed = false;
        match stage.vault.try_start() {
            Ok(server) => {
                stage.server = server;
                unsealed = opens(&stage.vault, &stage.server, &stage.vault.key);
                stage.vault.died(&mut stage.server, crash.order, &crash.place);
            }
            Err(said) => {
                assert!(!said.iter().any(|line| line.contains("panicked")), "{}: {said:#?}", crash.place);
                std::fs::remove_file(&stage.vault.order).unwrap();
            }
        }
        dying += u32::from(!unsealed);
        stage.come_back(crash);
        let read = stage.run(ask(&stage.client(), "secret/data/a"));
        assert_eq!(read["data"]["data"]["n"], crash.number, "{}", crash.place);
        unsealed
    });
    assert!(dying > 0, "no start was cut off");
    stage.run(rewrapped(&stage.client()));
}

/// An initialisation is there or not. If it is and nobody was told its keys, it holds nothing, and is shut for good.
pub(crate) fn initialise() {
    for step in &STEPS[..4] {
        let mut vault = Vault::bare(&std::env::current_exe().unwrap());
        let mut server = vault.start();
        let order = Order { step: Some(*step), count: 1 };
        let place = format!("step {order}");
        order.give(&vault.order);
        let init = ["operator", "init", "--key-shares", "1", "--key-threshold", "1"];
        vault.shell(&server).fails(&init);
        vault.died(&mut server, order, &place);
        let server = vault.start();
        let status = vault.runtime.block_on(ask(&vault.client(&server), "sys/seal-status"));
        let there = status["initialized"] == true;
        println!("crash: {place}: initialised: {there}");
        match step {
            Step::CommitterBeforeWrite => assert!(!there, "{place}: nothing was written"),
            Step::CommitterDurable => assert!(there, "{place}: it was durable"),
            _ => {}
        }
        if there {
            let (_, said) = vault.shell(&server).fails(&init);
            assert!(said.contains("already initialized"), "{place}: {said}");
            let key = "00".repeat(33);
            assert!(!opens(&vault, &server, &key), "{place}: it opens by nobody's key");
        } else {
            vault.initialise(&server);
            vault.runtime.block_on(rewrapped(&vault.client(&server)));
        }
    }
}
