//! Secrets that rotate by themselves: generators, and a webhook that fails, answers late, twice, and after a crash.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use coffer_core::secret::SecretBytes;
use coffer_engines::webhook::{WebhookCall, WebhookReply, Webhooks};
use coffer_engines::{Effect, EngineError, EngineReply, KvEngine};
use coffer_storage::faulty::{Faults, FaultyStore};
use coffer_storage::memory::MemoryStore;
use serde_json::{Value, json};

use crate::support::{Bench, data};

// A minute more than they say: what took long on a busy machine is written with its end.
const DAY: Duration = Duration::from_secs(24 * 3600 + 60);
const HOUR: Duration = Duration::from_secs(3600 + 60);
const URL: &str = "https://hooks.example.org/rotate";

/// What the hook does with the next requests.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Answers,
    /// Does its part, and nobody hears of it: a time-out, a torn connection, an answer that comes too late.
    DoesAndIsNotHeard,
    /// Does nothing.
    Refuses,
    /// Answers with something else.
    Rambles,
}

/// A system outside that has one password, and makes or takes the next one. By the same key it does a thing once.
struct Outside {
    mood: Mutex<Mood>,
    /// What it was asked: action, key, version, headers, body.
    asked: Mutex<Vec<(Value, BTreeMap<String, String>)>>,
    /// What was done under a key.
    done: Mutex<BTreeMap<String, String>>,
    /// The password that is good there now.
    current: Mutex<String>,
    retired: Mutex<Vec<u64>>,
}

#[derive(Clone)]
struct Hook(Arc<Outside>);

impl Hook {
    fn new() -> Self {
        Self(Arc::new(Outside {
            mood: Mutex::new(Mood::Answers),
            asked: Mutex::default(),
            done: Mutex::default(),
            current: Mutex::new("before".to_owned()),
            retired: Mutex::default(),
        }))
    }

    fn mood(&self, mood: Mood) {
        *self.0.mood.lock().unwrap() = mood;
    }

    fn keys(&self, action: &str) -> Vec<String> {
        let asked = self.0.asked.lock().unwrap();
        let of = asked.iter().filter(|(body, _)| body["action"] == action);
        of.map(|(body, _)| body["idempotency_key"].as_str().unwrap().to_owned()).collect()
    }

    fn current(&self) -> String {
        self.0.current.lock().unwrap().clone()
    }
}

#[async_trait]
impl Webhooks for Hook {
    async fn post(&self, call: &WebhookCall) -> Result<WebhookReply, String> {
        assert_eq!(call.url, URL);
        let body: Value = serde_json::from_slice(call.body.expose()).unwrap();
        let headers =
            call.headers.iter().map(|(name, value)| ((*name).to_owned(), value.expose().to_owned()));
        self.0.asked.lock().unwrap().push((body.clone(), headers.collect()));
        // A request takes a while: whoever is stopped in it does not know what became of it.
        tokio::task::yield_now().await;
        let mood = *self.0.mood.lock().unwrap();
        if mood == Mood::Refuses {
            return Ok(WebhookReply { status: 503, body: SecretBytes::copy_of(b"no") });
        }
        if mood == Mood::Rambles {
            return Ok(WebhookReply { status: 200, body: SecretBytes::copy_of(b"{\"data\": \"hunter2\"}") });
        }
        if body["action"] == "retire" {
            self.0.retired.lock().unwrap().push(body["version"].as_u64().unwrap());
            return Ok(WebhookReply { status: 204, body: SecretBytes::copy_of(b"") });
        }
        let key = body["idempotency_key"].as_str().unwrap().to_owned();
        let value = {
            let mut done = self.0.done.lock().unwrap();
            let next = body["data"]["password"]
                .as_str()
                .map_or_else(|| format!("made-{}", done.len()), str::to_owned);
            done.entry(key).or_insert(next).clone()
        };
        self.0.current.lock().unwrap().clone_from(&value);
        tokio::task::yield_now().await;
        if mood == Mood::DoesAndIsNotHeard {
            return Err("timed out".to_owned());
        }
        let answer = json!({ "data": { "password": value } }).to_string();
        Ok(WebhookReply { status: 200, body: SecretBytes::copy_of(answer.as_bytes()) })
    }
}

async fn hooked(hook: &Hook) -> Bench<KvEngine> {
    let kv = Bench::new(KvEngine::with_webhooks(Arc::new(hook.clone()))).await;
    kv.post("rotation-config", json!({ "allowed_webhooks": ["https://Hooks.example.org:443/"] }))
        .await
        .unwrap();
    kv
}

async fn read(kv: &Bench<KvEngine>, path: &str) -> (u64, Value) {
    let read = data(kv.read(&format!("data/{path}")).await.unwrap());
    (read["metadata"]["version"].as_u64().unwrap(), read["data"].clone())
}

fn types(effects: &[Effect]) -> Vec<&str> {
    effects.iter().map(|effect| effect.event_type).collect()
}

fn message(error: &EngineError) -> String {
    error.to_string()
}

#[tokio::test]
async fn a_generated_value_becomes_the_next_version_and_the_rest_stays() {
    let mut kv = Bench::new(KvEngine::new()).await;
    kv.post("data/app", json!({ "data": { "user": "shop", "pin": "1" } })).await.unwrap();
    let policy = json!({
        "rotation_period": "24h", "field": "pin", "length": 12, "charset": "01\"\\é", "delete_previous": true,
    });
    let (_, effects) = kv.post("rotation/app", policy).await.unwrap();
    assert_eq!(types(&effects), ["kv-v2/rotation-write"]);
    assert!(kv.work().await.unwrap().is_empty(), "not before its time");
    kv.now = kv.now.plus(DAY);
    assert_eq!(types(&kv.work().await.unwrap()), ["kv-v2/rotate", "kv-v2/data-write"]);
    let (version, first) = read(&kv, "app").await;
    let pin = first["pin"].as_str().unwrap();
    assert!(version == 2 && first["user"] == "shop" && pin.chars().count() == 12, "{first}");
    assert!(pin.chars().all(|c| "01\"\\é".contains(c)), "{pin}");
    assert!(!format!("{:?}", kv.read("rotation/app").await).contains(pin));

    // By hand, at once; the version that a rotation made before is deleted once the grace is over.
    kv.post("rotate/app", json!({})).await.unwrap();
    assert_eq!(read(&kv, "app").await.0, 3);
    let shown = data(kv.read("rotation/app").await.unwrap());
    assert_eq!((&shown["rotation_phase"], &shown["version"]), (&json!("grace"), &json!(3)));
    assert_eq!(kv.rotation("app").await["previous_version"], 2);
    let error = kv.post("rotate/app", json!({})).await.unwrap_err();
    assert!(message(&error).contains("grace"), "{error}");
    kv.now = kv.now.plus(HOUR);
    assert_eq!(types(&kv.work().await.unwrap()), ["kv-v2/delete"]);
    kv.now = kv.now.plus(Duration::from_secs(60));
    assert!(matches!(kv.read("data/app?version=2").await, Ok(EngineReply::NotFoundWith(_))));
    assert_eq!(
        data(kv.read("data/app?version=1").await.unwrap())["data"]["pin"],
        "1",
        "that was nobody's business"
    );

    // A secret that does not exist yet, by a password policy; one that is gone does not come back.
    kv.password_policy("pins", "length = 6\nrule \"charset\" { charset = \"0123456789\" }").await;
    let policy = json!({ "rotation_schedule": "0 3 * * *", "password_policy": "pins" });
    kv.post("rotation/new", policy).await.unwrap();
    kv.post("rotate/new", json!({})).await.unwrap();
    assert_eq!(read(&kv, "new").await.1["value"].as_str().unwrap().len(), 6);
    kv.delete("metadata/new").await.unwrap();
    kv.now = kv.now.plus(DAY * 3);
    kv.delete("rotation/app").await.unwrap();
    assert!(kv.work().await.unwrap().is_empty());
    assert!(matches!(kv.read("rotation/new").await, Ok(EngineReply::NotFound)));
    let error = kv.post("rotate/new", json!({})).await.unwrap_err();
    assert_eq!(message(&error), "no rotation is set for this secret");
}

#[tokio::test]
async fn policies_that_cannot_work_are_refused() {
    let kv = hooked(&Hook::new()).await;
    for (change, why) in [
        (json!({}), "needs length, password_policy or webhook_url"),
        (json!({ "length": 8, "rotation_period": null }), "rotation_period or rotation_schedule is required"),
        (json!({ "length": 8, "rotation_period": "9s" }), "10 seconds or more"),
        (json!({ "length": 8, "password_policy": "p" }), "not both"),
        (json!({ "length": 513 }), "length must be at most 512"),
        (json!({ "length": 8, "charset": "" }), "charset"),
        (json!({ "length": 8, "field": "" }), "field must have"),
        (json!({ "length": 8, "grace_period": "2h" }), "at most an hour"),
        (json!({ "webhook_url": URL }), "webhook_secret is missing"),
        (json!({ "webhook_secret": "s" }), "webhook_url is missing"),
        (json!({ "webhook_url": URL, "webhook_secret": "s", "webhook_auth": "basic" }), "hmac or bearer"),
        (json!({ "webhook_url": URL, "webhook_secret": "a\nb" }), "control characters"),
        (
            json!({ "webhook_url": "http://hooks.example.org/", "webhook_secret": "s" }),
            "a webhook is https://",
        ),
        (json!({ "webhook_url": "https://a@hooks.example.org/", "webhook_secret": "s" }), "without a user"),
        (
            json!({ "webhook_url": "https://hooks.example.org.evil/", "webhook_secret": "s" }),
            "not in allowed_webhooks",
        ),
        (
            json!({ "webhook_url": "https://hooks.example.org:8443/", "webhook_secret": "s" }),
            "not in allowed_webhooks",
        ),
        (
            json!({ "webhook_url": "https://hooks.example.org\\@evil/", "webhook_secret": "s" }),
            "a webhook is https://",
        ),
    ] {
        let mut body = json!({ "rotation_period": "24h" });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let error = kv.post("rotation/x", body.clone()).await.unwrap_err();
        assert!(message(&error).contains(why), "{body}: {error}");
    }
    let good = json!({ "rotation_period": "24h", "webhook_url": URL, "webhook_secret": "shared-5ecret" });
    kv.post("rotation/x", good).await.unwrap();
    let shown = data(kv.read("rotation/x").await.unwrap());
    assert!(shown["webhook_url"] == URL && !shown.to_string().contains("shared-5ecret"), "{shown}");
    // The secret goes nowhere else.
    kv.post("rotation-config", json!({ "allowed_webhooks": [URL, "https://other.example.org"] }))
        .await
        .unwrap();
    let error =
        kv.post("rotation/x", json!({ "webhook_url": "https://other.example.org/" })).await.unwrap_err();
    assert!(message(&error).contains("give it again"), "{error}");
    kv.post("rotation/x", json!({ "webhook_url": "https://hooks.example.org/other" })).await.unwrap();
}

#[tokio::test]
async fn a_webhook_is_asked_by_one_key_until_its_answer_is_published() {
    let hook = Hook::new();
    let mut kv = hooked(&hook).await;
    let policy =
        json!({ "rotation_period": "24h", "webhook_url": URL, "webhook_secret": "k", "grace_period": "2m" });
    kv.post("rotation/app", policy).await.unwrap();
    for mood in [Mood::Refuses, Mood::Rambles, Mood::DoesAndIsNotHeard, Mood::DoesAndIsNotHeard] {
        hook.mood(mood);
        kv.now = kv.now.plus(DAY);
        let error = kv.work().await.unwrap_err();
        assert!(error.retriable() && !message(&error).contains("hunter2"), "{mood:?}: {error}");
        assert!(kv.work().await.unwrap().is_empty(), "the next try is later");
        let shown = data(kv.read("rotation/app").await.unwrap());
        assert!(shown["rotation_phase"] == "applying" && shown["rotation_error"].is_string(), "{shown}");
    }
    hook.mood(Mood::Answers);
    kv.now = kv.now.plus(DAY);
    assert_eq!(types(&kv.work().await.unwrap()), ["kv-v2/rotate", "kv-v2/data-write"]);
    let (version, value) = read(&kv, "app").await;
    assert_eq!((version, value["password"].as_str().unwrap()), (1, hook.current().as_str()));
    let keys = hook.keys("rotate");
    assert!(keys.len() == 5 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(hook.0.done.lock().unwrap().len(), 1, "asked several times, done once");

    // The next one has a key of its own, and the last version is retired once its grace is over, until that is heard.
    kv.post("rotate/app", json!({})).await.unwrap();
    assert_ne!(hook.keys("rotate")[5], keys[0]);
    assert_eq!(read(&kv, "app").await.0, 2);
    assert!(hook.0.retired.lock().unwrap().is_empty());
    kv.now = kv.now.plus(HOUR);
    hook.mood(Mood::Refuses);
    assert!(kv.work().await.unwrap_err().retriable());
    hook.mood(Mood::Answers);
    kv.now = kv.now.plus(HOUR);
    kv.work().await.unwrap();
    assert_eq!(*hook.0.retired.lock().unwrap(), [1]);
    let retires = hook.keys("retire");
    assert!(retires.len() == 2 && retires[0] == retires[1]);
    assert_eq!(data(kv.read("rotation/app").await.unwrap())["rotation_phase"], "settled");

    // Off the list: nobody is asked any more.
    kv.post("rotation-config", json!({ "allowed_webhooks": [] })).await.unwrap();
    let (asked, before) = (hook.keys("rotate").len(), read(&kv, "app").await);
    let error = kv.post("rotate/app", json!({})).await.unwrap_err();
    assert!(message(&error).contains("not in allowed_webhooks"), "{error}");
    assert_eq!((hook.keys("rotate").len(), read(&kv, "app").await), (asked, before));
}

#[tokio::test]
async fn a_webhook_knows_that_the_vault_asks() {
    let hook = Hook::new();
    let kv = hooked(&hook).await;
    let policy = json!({
        "rotation_period": "24h", "webhook_url": URL, "webhook_secret": "key", "length": 20, "field": "password",
    });
    kv.post("rotation/team/app", policy).await.unwrap();
    kv.post("rotate/team/app", json!({})).await.unwrap();
    let (body, headers) = hook.0.asked.lock().unwrap()[0].clone();
    assert_eq!((&body["action"], &body["path"]), (&json!("rotate"), &json!("team/app")));
    assert_eq!(headers["idempotency-key"], body["idempotency_key"].as_str().unwrap());
    // What the vault made, and has.
    let (_, value) = read(&kv, "team/app").await;
    assert!(body["data"]["password"] == value["password"] && hook.current().len() == 20);
    let timestamp = &headers["x-coffer-timestamp"];
    let sent: u64 = timestamp.parse().unwrap();
    assert!((0..60).contains(&(sent - kv.now.as_secs())), "{timestamp}");
    let text = format!(
        "{timestamp}.{{\"action\":\"rotate\",\"path\":\"team/app\",\"version\":0,\"idempotency_key\":\"{}\",\
         \"data\":{{\"password\":\"{}\"}}}}",
        body["idempotency_key"].as_str().unwrap(),
        value["password"].as_str().unwrap()
    );
    assert_eq!(headers["x-coffer-signature"], format!("v1={}", hmac_sha256("key", &text)));

    kv.post("rotation/team/app", json!({ "webhook_auth": "bearer" })).await.unwrap();
    kv.post("rotate/team/app", json!({ "force": true })).await.unwrap();
    let (_, headers) = hook.0.asked.lock().unwrap().last().unwrap().clone();
    assert_eq!(headers["authorization"], "Bearer key");
    assert!(!headers.contains_key("x-coffer-signature"));
}

fn hmac_sha256(key: &str, text: &str) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// The worker dies at each of its waits, over a store that fails as well; another one goes on.
async fn no_value_is_lost(policy: Value) {
    let hook = Hook::new();
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), 11, Faults::default()));
    let engine = KvEngine::with_webhooks(Arc::new(hook.clone()));
    let mut kv = Bench::over(store.clone(), engine).await;
    kv.post("rotation-config", json!({ "allowed_webhooks": [URL] })).await.unwrap();
    kv.post("rotation/app", policy).await.unwrap();
    kv.post("rotate/app", json!({})).await.unwrap();
    for at in 0..40_u32 {
        kv.now = kv.now.plus(DAY);
        store.set_faults(Faults {
            commit_fails: 0.2,
            unknown_applied: 0.2,
            unknown_lost: 0.2,
            ..Faults::default()
        });
        hook.mood(if at % 3 == 0 { Mood::DoesAndIsNotHeard } else { Mood::Answers });
        {
            let polls = AtomicU32::new(0);
            let mut working = Box::pin(kv.work());
            let _stopped = std::future::poll_fn(|cx| {
                if polls.fetch_add(1, Ordering::Relaxed) >= at {
                    return Poll::Ready(None);
                }
                working.as_mut().poll(cx).map(Some)
            })
            .await;
        }
        store.set_faults(Faults::default());
        hook.mood(Mood::Answers);
        kv.engine = KvEngine::with_webhooks(Arc::new(hook.clone()));
        let (before, value) = read(&kv, "app").await;
        if value["password"] != hook.current() {
            // Then whoever goes on has it, under the key that it was made by.
            let shown = data(kv.read("rotation/app").await.unwrap());
            assert_eq!(shown["rotation_phase"], "applying", "at wait {at}: {shown}");
        }
        kv.now = kv.now.plus(HOUR);
        while let Err(error) = kv.work().await {
            assert!(error.retriable(), "{error}");
            kv.now = kv.now.plus(HOUR);
        }
        let (version, value) = read(&kv, "app").await;
        assert_eq!(value["password"], hook.current(), "at wait {at}");
        assert!(version >= before && version <= before + 1, "at wait {at}: {before} -> {version}");
    }
    let made = hook.0.done.lock().unwrap().len() as u64;
    assert_eq!(read(&kv, "app").await.0, made, "one version for each value, and no more");
    assert!(made > 20, "{made}");
}

#[tokio::test]
async fn no_value_of_a_webhook_is_lost_wherever_a_rotation_stops() {
    no_value_is_lost(json!({ "rotation_period": "24h", "webhook_url": URL, "webhook_secret": "k" })).await;
}

#[tokio::test]
async fn no_value_for_a_webhook_is_lost_wherever_a_rotation_stops() {
    let policy = json!({
        "rotation_period": "24h", "webhook_url": URL, "webhook_secret": "k", "length": 24, "field": "password",
    });
    no_value_is_lost(policy).await;
}
