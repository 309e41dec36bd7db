//! Static roles: one account whose password changes, and two that take turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use coffer_engines::{DatabaseEngine, Effect, EngineError};
use coffer_storage::faulty::{Faults, FaultyStore};
use coffer_storage::memory::MemoryStore;
use serde_json::{Value, json};

use crate::beds::Bed;
use crate::support::{Bench, data};
use crate::{bench, bench_over, target_error};

const DAY: u64 = 24 * HOUR;
/// More than any machine takes for a test: what a step takes counts as time that went by.
const HOUR: u64 = 3600;

pub(crate) async fn creds(db: &Bench<DatabaseEngine>, role: &str) -> (String, String, u64) {
    let read = data(db.read(&format!("static-creds/{role}")).await.unwrap());
    let text = |name: &str| read[name].as_str().unwrap().to_owned();
    (text("username"), text("password"), read["version"].as_u64().unwrap())
}

fn later(db: &mut Bench<DatabaseEngine>, secs: u64) {
    db.now = db.now.plus(Duration::from_secs(secs));
}

pub(crate) fn rotations(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| effect.event_type == "database/static-creds-rotate").count()
}

pub(crate) async fn one_account_rotates_on_request_and_by_itself<B: Bed>() {
    let bed = B::start().await;
    let mut db = bench(&bed).await;
    // Quotes and umlauts: the server quotes, nobody else.
    let name = "o'br\"ien ü";
    bed.order(&B::account(name, "Before-1")).await;
    let role = json!({ "db_name": "db", "username": name, "rotation_period": "24h" });
    let (_, effects) = db.post("static-roles/s", role.clone()).await.unwrap();
    assert_eq!((effects[0].event_type, rotations(&effects)), ("database/static-role-create", 1));
    assert!(bed.connect(name, "Before-1").await.is_err(), "the first rotation is at creation");
    let (user, first, version) = creds(&db, "s").await;
    assert_eq!((user.as_str(), version), (name, 1));
    bed.connect(name, &first).await.unwrap();

    db.post("rotate-role/s", json!({})).await.unwrap();
    let (_, second, version) = creds(&db, "s").await;
    assert_eq!(version, 2);
    assert!(bed.connect(name, &first).await.is_err() && bed.connect(name, &second).await.is_ok());
    assert!(db.work().await.unwrap().is_empty(), "nothing is due yet");

    // Somebody changes the password behind the vault's back: the next rotation heals it.
    bed.order(&B::password(name, "Somebody-1")).await;
    later(&mut db, DAY + HOUR);
    assert_eq!(rotations(&db.work().await.unwrap()), 1);
    let (_, third, version) = creds(&db, "s").await;
    assert_eq!(version, 3);
    bed.connect(name, &third).await.unwrap();
    let read = data(db.read("static-roles/s").await.unwrap());
    assert_eq!((&read["rotation_period"], &read["rotation_phase"]), (&json!(86400), &json!("settled")));
    assert!(!read.to_string().contains(&third));
    assert_eq!(data(db.list("static-roles").await.unwrap()), json!(["s"]));

    db.delete("static-roles/s").await.unwrap();
    later(&mut db, 2 * DAY);
    assert!(db.work().await.unwrap().is_empty());
    bed.connect(name, &third).await.unwrap();
    let error = db.read("static-creds/s").await.unwrap_err();
    assert_eq!(error.to_string(), "unknown role: s");
}

pub(crate) async fn what_cannot_work_is_refused<B: Bed>() {
    let bed = B::start().await;
    let db = bench(&bed).await;
    let good = json!({ "db_name": "db", "username": "nobody-there", "rotation_period": "24h" });
    let (retriable, message) = target_error(&db.post("static-roles/s", good.clone()).await.unwrap_err());
    assert!(!retriable && message.contains("no such account"), "{message}");
    assert!(!db.exists("static-roles/s").await, "a role that never worked is not kept");
    for (field, value, why) in [
        ("username", Value::Null, "username is a required field"),
        ("rotation_period", Value::Null, "one of rotation_schedule or rotation_period"),
        ("rotation_period", json!("1s"), "5 seconds or more"),
        ("db_name", json!("none"), "failed to find entry for connection"),
        ("usernames", json!(["a", "a"]), "not both"),
        ("rotation_schedule", json!("* * * * *"), "mutually exclusive"),
        ("rotation_statements", json!(["ALTER {{nobody}}"]), "unknown placeholder"),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let error = db.post("static-roles/s", body).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    let mut quoted = good.clone();
    quoted["username"] = json!("a'; DROP ROLE plain; --");
    quoted["rotation_statements"] = json!([B::password("{{name}}", "{{password}}")]);
    let error = db.post("static-roles/s", quoted).await.unwrap_err();
    assert!(error.to_string().contains("letters, digits"), "{error}");
    let error = db.post("rotate-role/none", json!({})).await.unwrap_err();
    assert_eq!(error.to_string(), "no static role found for role name");

    bed.order(&B::account("app-user", "Before-1")).await;
    let own = json!({
        "db_name": "db", "username": "app-user", "rotation_period": "24h",
        "rotation_statements": [B::password("{{name}}", "{{password}}")],
    });
    db.post("static-roles/s", own).await.unwrap();
    let (user, password, _) = creds(&db, "s").await;
    bed.connect(&user, &password).await.unwrap();
    let error = db.post("static-roles/s", json!({ "username": "plain" })).await.unwrap_err();
    assert!(error.to_string().contains("cannot update static account username"), "{error}");
}

pub(crate) async fn two_accounts_take_turns_and_no_session_is_cut_before_its_time<B: Bed>() {
    let bed = B::start().await;
    let mut db = bench(&bed).await;
    bed.order(&B::account("app-a", "Before-1")).await;
    bed.order(&B::account("app-b", "Before-1")).await;
    let role = json!({
        "db_name": "db", "usernames": ["app-a", "app-b"], "rotation_period": "24h", "grace_period": "3m",
    });
    db.post("static-roles/s", role).await.unwrap();
    let (user, first, _) = creds(&db, "s").await;
    assert_eq!(user, "app-a");
    let mut old = bed.connect(&user, &first).await.unwrap();

    later(&mut db, DAY + HOUR);
    assert_eq!(rotations(&db.work().await.unwrap()), 1);
    let (next, second, version) = creds(&db, "s").await;
    assert_eq!((next.as_str(), version), ("app-b", 2));
    let mut new = bed.connect(&next, &second).await.unwrap();
    bed.query(&mut old, "SELECT 1").await.unwrap();
    bed.connect(&user, &first).await.unwrap();
    assert_eq!(data(db.read("static-roles/s").await.unwrap())["rotation_phase"], "grace");
    let error = db.post("rotate-role/s", json!({})).await.unwrap_err();
    assert!(error.to_string().contains("grace"), "{error}");
    later(&mut db, 170);
    db.work().await.unwrap();
    bed.query(&mut old, "SELECT 1").await.unwrap();

    later(&mut db, HOUR);
    db.work().await.unwrap();
    assert!(bed.query(&mut old, "SELECT 1").await.is_err(), "its time is over");
    assert!(bed.connect(&user, &first).await.is_err());
    bed.query(&mut new, "SELECT 1").await.unwrap();
    assert_eq!(data(db.read("static-roles/s").await.unwrap())["rotation_phase"], "settled");

    // Back to the first account, and at once to the second again.
    db.post("rotate-role/s", json!({})).await.unwrap();
    let (third_user, third, _) = creds(&db, "s").await;
    assert_eq!(third_user, "app-a");
    bed.query(&mut new, "SELECT 1").await.unwrap();
    db.post("rotate-role/s", json!({ "force": true })).await.unwrap();
    let (fourth_user, fourth, version) = creds(&db, "s").await;
    assert_eq!((fourth_user.as_str(), version), ("app-b", 4));
    assert!(bed.query(&mut new, "SELECT 1").await.is_err());
    bed.connect(&third_user, &third).await.unwrap();
    bed.connect(&fourth_user, &fourth).await.unwrap();
}

pub(crate) async fn readers_that_all_acknowledge_end_the_grace_and_others_do_not<B: Bed>() {
    let bed = B::start().await;
    let db = bench(&bed).await;
    bed.order(&B::account("app-a", "Before-1")).await;
    bed.order(&B::account("app-b", "Before-1")).await;
    let role = json!({
        "db_name": "db", "usernames": ["app-a", "app-b"], "rotation_period": "24h", "grace_period": "3m",
    });
    db.post("static-roles/s", role).await.unwrap();
    let (user, first, _) = creds(&db, "s").await;
    assert!(db.note("s", 1, Some("one")).await && db.note("s", 1, Some("two")).await);
    db.post("rotate-role/s", json!({})).await.unwrap();
    assert!(!db.note("s", 1, Some("late")).await, "nobody is given a version that is retiring");
    assert!(db.acknowledge("s", 1, "one").await.is_err(), "that is not the version at hand");
    db.acknowledge("s", 2, "stranger").await.unwrap();
    db.acknowledge("s", 2, "one").await.unwrap();
    let status = db.rotation("s").await;
    assert_eq!((&status["rotation_phase"], &status["version"]), (&json!("grace"), &json!(2)));
    assert_eq!(status["pending"], json!([{ "accessor": "accessor-of-two", "metadata": {} }]));
    assert_eq!((&status["previous_version"], &status["undeclared_readers"]), (&json!(1), &json!(false)));
    db.work().await.unwrap();
    bed.connect(&user, &first).await.unwrap();
    db.acknowledge("s", 2, "two").await.unwrap();
    db.work().await.unwrap();
    assert!(bed.connect(&user, &first).await.is_err(), "nobody needs it any more");
    assert_eq!(db.rotation("s").await["rotation_phase"], "settled");

    // Somebody who never says who he is keeps his login to the end, whatever the others say.
    let (user, second, _) = creds(&db, "s").await;
    assert!(db.note("s", 2, Some("one")).await && db.note("s", 2, None).await && db.note("s", 2, None).await);
    db.post("rotate-role/s", json!({})).await.unwrap();
    db.acknowledge("s", 3, "one").await.unwrap();
    db.work().await.unwrap();
    bed.connect(&user, &second).await.unwrap();
    assert_eq!(db.rotation("s").await["undeclared_readers"], true);
}

pub(crate) async fn a_revoked_pod_is_not_waited_for<B: Bed>() {
    let bed = B::start().await;
    let db = bench(&bed).await;
    bed.order(&B::account("app-a", "Before-1")).await;
    bed.order(&B::account("app-b", "Before-1")).await;
    let role = json!({
        "db_name": "db", "usernames": ["app-a", "app-b"], "rotation_period": "24h", "grace_period": "3m",
    });
    db.post("static-roles/s", role).await.unwrap();
    let (user, first, _) = creds(&db, "s").await;
    // Two logins of one pod, and somebody else.
    assert!(db.note_in("s", 1, Some("one"), Some("mount/pod-1")).await);
    assert!(db.note_in("s", 1, Some("again"), Some("mount/pod-1")).await);
    assert!(db.note_in("s", 1, Some("two"), Some("mount/pod-2")).await);
    db.post("rotate-role/s", json!({})).await.unwrap();
    db.pod_gone("mount/pod-9").await;
    db.pod_gone("mount/pod-1").await;
    assert_eq!(db.rotation("s").await["pending"].as_array().unwrap().len(), 1);
    db.work().await.unwrap();
    bed.connect(&user, &first).await.unwrap();
    db.acknowledge("s", 2, "two").await.unwrap();
    db.work().await.unwrap();
    assert!(bed.connect(&user, &first).await.is_err(), "nobody is left who needs it");

    // The last one that was waited for.
    let (user, second, _) = creds(&db, "s").await;
    assert!(db.note_in("s", 2, Some("two"), Some("mount/pod-2")).await);
    db.post("rotate-role/s", json!({})).await.unwrap();
    db.work().await.unwrap();
    bed.connect(&user, &second).await.unwrap();
    db.pod_gone("mount/pod-2").await;
    db.work().await.unwrap();
    assert!(bed.connect(&user, &second).await.is_err());

    // It was gone before the rotation began.
    let (user, third, _) = creds(&db, "s").await;
    assert!(db.note_in("s", 3, Some("three"), Some("mount/pod-3")).await);
    db.pod_gone("mount/pod-3").await;
    db.post("rotate-role/s", json!({})).await.unwrap();
    db.work().await.unwrap();
    assert!(bed.connect(&user, &third).await.is_err());

    // Somebody unknown has read it too: he keeps it.
    let (user, fourth, _) = creds(&db, "s").await;
    assert!(db.note_in("s", 4, Some("four"), Some("mount/pod-4")).await && db.note("s", 4, None).await);
    db.post("rotate-role/s", json!({})).await.unwrap();
    db.pod_gone("mount/pod-4").await;
    db.work().await.unwrap();
    bed.connect(&user, &fourth).await.unwrap();
}

/// The store fails at each of a rotation's steps in turn, and the worker dies with it.
pub(crate) async fn no_password_is_lost_wherever_a_rotation_stops<B: Bed>() {
    let mut bed = B::start().await;
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), 7, Faults::default()));
    let mut db = bench_over(&bed, store.clone()).await;
    bed.order(&B::account("app-user", "Before-1")).await;
    let role = json!({ "db_name": "db", "username": "app-user", "rotation_period": "24h" });
    db.post("static-roles/s", role).await.unwrap();
    for at in [0, 1, 2, 3, 4, 5, 7, 9, 12, 16, 20, 30] {
        later(&mut db, DAY + HOUR);
        // A worker that is dropped at its `at`-th wait, over a store that fails as well, now and then.
        store.set_faults(Faults {
            commit_fails: 0.2,
            unknown_applied: 0.2,
            unknown_lost: 0.2,
            ..Faults::default()
        });
        {
            let polls = AtomicU32::new(0);
            let mut working = Box::pin(db.work());
            let _stopped = std::future::poll_fn(|cx| {
                if polls.fetch_add(1, Ordering::Relaxed) >= at {
                    return Poll::Ready(None);
                }
                working.as_mut().poll(cx).map(Some)
            })
            .await;
        }
        store.set_faults(Faults::default());
        let (user, password, _) = creds(&db, "s").await;
        if bed.connect(&user, &password).await.is_err() {
            // Then the next one is under way, and whoever goes on finishes it.
            assert_eq!(data(db.read("static-roles/s").await.unwrap())["rotation_phase"], "applying");
        }
        later(&mut db, HOUR);
        db.work().await.unwrap();
        let (user, password, _) = creds(&db, "s").await;
        bed.connect(&user, &password).await.unwrap();
    }
    bed.stop();
    later(&mut db, DAY + HOUR);
    let error = db.work().await.unwrap_err();
    assert!(matches!(error, EngineError::Target { retriable: true, .. }), "{error:?}");
    let read = data(db.read("static-roles/s").await.unwrap());
    assert!(read["rotation_error"].as_str().unwrap().contains("cannot be reached"), "{read}");
    assert!(db.work().await.unwrap().is_empty(), "the next try is later");
    bed.restart().await;
    later(&mut db, HOUR);
    assert_eq!(rotations(&db.work().await.unwrap()), 1);
    let (user, password, _) = creds(&db, "s").await;
    bed.connect(&user, &password).await.unwrap();
}
