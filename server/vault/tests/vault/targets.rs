//! Many targets, some of which hang or fail: none waits for another, and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use coffer_vault::Operation::{Delete, List, Read, Update};
use serde_json::{Value, json};

use crate::bed::{Bed, hours};

/// Waits for something that happens by itself; how long that takes is not what is tested.
async fn until(what: &str, mut seen: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if seen() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came: {what}");
}

async fn with_database() -> Arc<Bed> {
    let bed = Bed::new().await;
    bed.root(Update, "sys/mounts/database", json!({"type": "database"})).await.expect(204);
    Arc::new(bed)
}

async fn issue(bed: &Bed, target: &str, leases: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..leases {
        let path = format!("database/creds/at-{target}");
        ids.push(bed.root(Read, &path, Value::Null).await.expect(200).text("/lease_id"));
    }
    ids
}

fn hang(bed: &Bed, targets: impl IntoIterator<Item = String>) {
    bed.database.hanging.lock().unwrap().extend(targets);
}

/// A sweep that goes on by itself, as in the background.
fn sweep(bed: &Arc<Bed>) {
    let vault = Arc::clone(&bed.vault);
    tokio::spawn(async move { vault.sweep().await });
}

async fn health(bed: &Bed) -> Value {
    bed.root(Read, "sys/mounts/database/health", Value::Null).await.expect(200).body["data"].clone()
}

#[tokio::test]
async fn a_database_that_hangs_holds_up_no_other() {
    let bed = with_database().await;
    let dead = issue(&bed, "dead", 30).await;
    issue(&bed, "well", 30).await;
    hang(&bed, ["dead".into()]);
    bed.advance(hours(1)).await;
    sweep(&bed);
    until("calls that hang", || bed.database.hung() > 0).await;
    until("the end of the others", || bed.database.accounts_at("well") == 0).await;
    // And again, while it still hangs.
    issue(&bed, "well", 30).await;
    bed.advance(hours(1)).await;
    sweep(&bed);
    until("the end of the others", || bed.database.accounts_at("well") == 0).await;
    assert!(bed.database.hung() > 0, "it hangs all the time");
    assert_eq!(bed.database.accounts_at("dead"), 30);
    assert!(bed.database.hung() <= 8, "and is not asked by any number of calls");
    for id in &dead {
        let lease = bed.root(Update, "sys/leases/lookup", json!({"lease_id": id})).await.expect(200);
        assert_eq!(lease.body["data"]["state"], "revoking");
    }
    bed.database.let_go();
    until("the end of all", || bed.database.accounts_at("dead") == 0).await;
}

#[tokio::test]
async fn many_databases_that_hang_hold_up_no_healthy_one() {
    let bed = with_database().await;
    let dead: Vec<String> = (0..20).map(|n| format!("dead{n}")).collect();
    for target in &dead {
        issue(&bed, target, 10).await;
    }
    hang(&bed, dead.clone());
    bed.advance(hours(1)).await;
    sweep(&bed);
    // More than may be made at a time: every further call has to wait.
    until("calls that hang", || bed.database.hung() >= 64).await;
    issue(&bed, "well", 20).await;
    bed.advance(hours(1)).await;
    sweep(&bed);
    until("the end of the others", || bed.database.accounts_at("well") == 0).await;
    assert!(bed.database.hung() >= 20 && bed.database.hung() <= 64 + 20);
    bed.database.let_go();
    until("the end of all", || bed.database.accounts().is_empty()).await;
}

#[tokio::test]
async fn a_call_that_takes_long_holds_up_nobody_who_comes_later_to_the_same_database() {
    let bed = with_database().await;
    issue(&bed, "slow", 1).await;
    hang(&bed, ["slow".into()]);
    bed.advance(hours(1)).await;
    sweep(&bed);
    until("a call that hangs", || bed.database.hung() == 1).await;
    bed.database.hanging.lock().unwrap().clear();
    let later = issue(&bed, "slow", 3).await;
    bed.root(Update, "sys/leases/revoke", json!({"lease_id": later[0]})).await.expect(204);
    assert_eq!(
        bed.database.accounts_at("slow"),
        3,
        "one that was asked for is gone, the first one still hangs"
    );
    bed.advance(hours(1)).await;
    sweep(&bed);
    until("the end of the others", || bed.database.accounts_at("slow") == 1).await;
    assert_eq!(bed.database.hung(), 1);
    bed.database.let_go();
    until("the end of all", || bed.database.accounts().is_empty()).await;
}

#[tokio::test]
async fn nothing_is_lost_when_the_server_dies_or_is_sealed_while_calls_hang() {
    for seal in [true, false] {
        let mut bed = Arc::into_inner(with_database().await).unwrap();
        issue(&bed, "dead", 20).await;
        issue(&bed, "well", 5).await;
        hang(&bed, ["dead".into()]);
        bed.advance(hours(1)).await;
        let vault = Arc::clone(&bed.vault);
        let sweeping = tokio::spawn(async move { vault.sweep().await });
        until("calls that hang", || bed.database.hung() > 0).await;
        if seal {
            bed.root(Update, "sys/seal", Value::Null).await.expect(204);
            bed.database.let_go();
            bed.unseal().await;
        } else {
            bed.restart().await;
            bed.database.let_go();
        }
        sweeping.abort();
        for _ in 0..4 {
            bed.advance(Duration::from_secs(600)).await;
            bed.sweep().await;
        }
        assert!(bed.database.accounts().is_empty(), "{:?}", bed.database.accounts());
        bed.root(List, "sys/leases/lookup/database/creds/", Value::Null).await.expect(404);
    }
}

#[tokio::test]
async fn what_somebody_asks_for_goes_before_what_is_due_by_itself() {
    let bed = with_database().await;
    issue(&bed, "busy", 40).await;
    hang(&bed, ["busy".into()]);
    bed.advance(hours(1)).await;
    sweep(&bed);
    until("calls that hang", || bed.database.hung() == 8).await;
    let asked = issue(&bed, "busy", 1).await;
    let account = bed.database.accounts().into_iter().find(|name| name.starts_with("v-40-")).unwrap();
    let asking = {
        let (bed, id) = (Arc::clone(&bed), asked[0].clone());
        tokio::spawn(async move { bed.root(Update, "sys/leases/revoke", json!({"lease_id": id})).await })
    };
    let state = || bed.root(Update, "sys/leases/lookup", json!({"lease_id": asked[0]}));
    while state().await.expect(200).body["data"]["state"] == "active" {
        tokio::task::yield_now().await;
    }
    bed.database.let_go();
    asking.await.unwrap().expect(204);
    bed.root(Update, "sys/leases/lookup", json!({"lease_id": asked[0]})).await.expect(400);
    until("the end of all", || bed.database.accounts().is_empty()).await;
    let place = bed.database.ended.lock().unwrap().iter().position(|name| *name == account).unwrap();
    assert!(place < 24, "not behind the forty that were due before: {place}");
}

#[tokio::test]
async fn a_target_that_fails_is_left_alone_for_a_while_and_asked_by_one_call_at_a_time() {
    let bed = with_database().await;
    issue(&bed, "down", 50).await;
    bed.database.refuse_revoke.store(true, SeqCst);
    bed.advance(hours(1)).await;
    bed.sweep().await;
    let tried = || bed.audit_records().iter().filter(|record| record.operation == "revoke").count() / 2;
    let first = tried();
    assert!((3..=10).contains(&first), "not all of fifty are tried when the first ones fail: {first}");
    bed.sweep().await;
    assert_eq!(tried(), first, "within the pause nobody asks");
    bed.advance(Duration::from_secs(1)).await;
    bed.sweep().await;
    assert_eq!(tried(), first + 1, "then one does");
    let told = health(&bed).await;
    assert_eq!(told["healthy"], false);
    assert_eq!((&told["waiting_leases"], &told["stuck_leases"]), (&json!(50), &json!(0)));
    assert_eq!(told["targets"][0]["target"], "config/down");
    assert_eq!(told["targets"][0]["state"], "failing");
    assert_eq!(told["targets"][0]["error"], "config/sim: down");
    bed.database.refuse_revoke.store(false, SeqCst);
    for _ in 0..3 {
        bed.advance(Duration::from_secs(60)).await;
        bed.sweep().await;
    }
    assert!(bed.database.accounts().is_empty(), "it answers again, and all are gone");
    let told = health(&bed).await;
    assert_eq!((&told["healthy"], &told["targets"][0]["state"]), (&json!(true), &json!("ok")));
    assert_eq!(told["targets"][0]["error"], Value::Null);
}

#[tokio::test]
async fn stuck_leases_are_counted_and_listed() {
    let bed = with_database().await;
    let mut ids = issue(&bed, "down", 5).await;
    ids.sort();
    let stuck = |query: &str| bed.request(Read, &format!("sys/leases?{query}"), Some(&bed.root), Value::Null);
    bed.handle(stuck("")).await.expect(404);
    let none = bed.handle(stuck("type=irrevocable")).await.expect(200);
    assert_eq!(none.body["data"], json!({"lease_count": 0, "leases": []}));
    bed.database.refuse_revoke.store(true, SeqCst);
    bed.root(Update, "sys/leases/revoke-prefix/database/creds/at-down", json!({})).await.expect(200);
    for _ in 0..12 {
        bed.advance(Duration::from_secs(300)).await;
        bed.sweep().await;
    }
    let told = bed.handle(stuck("type=irrevocable")).await.expect(200);
    assert_eq!(told.body["data"]["lease_count"], 5);
    let mut found: Vec<String> = Vec::new();
    for lease in told.body["data"]["leases"].as_array().unwrap() {
        assert_eq!(lease["error"], "config/sim: down");
        found.push(lease["lease_id"].as_str().unwrap().to_owned());
    }
    found.sort();
    assert_eq!(found, ids, "also those that were not tried, for the target is stuck");
    let few = bed.handle(stuck("type=irrevocable&limit=2")).await.expect(200);
    assert_eq!(few.body["data"]["lease_count"], 2);
    assert_eq!(few.body["warnings"].as_array().unwrap().len(), 1);
    bed.handle(stuck("type=irrevocable&limit=none")).await.expect(200);
    bed.handle(stuck("type=irrevocable&limit=x")).await.expect(400);
    bed.handle(stuck("type=irrevocable&limit=0")).await.expect(400);
    let count = bed.root(Read, "sys/leases/count?type=irrevocable", Value::Null).await.expect(200);
    assert_eq!(count.body["data"]["lease_count"], 5);
    let accessor =
        bed.root(Read, "sys/mounts/database", Value::Null).await.expect(200).text("/data/accessor");
    assert_eq!(count.body["data"]["counts"], json!({accessor: 5}));
    let metrics = bed.root(Read, "sys/metrics?format=prometheus", Value::Null).await.expect(200);
    let metrics = metrics.body.as_str().unwrap().to_owned();
    for line in ["coffer_leases_stuck 5", "coffer_leases_overdue 5", "coffer_lease_targets_failing 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    let told = health(&bed).await;
    assert_eq!((&told["stuck_leases"], &told["targets"][0]["state"]), (&json!(5), &json!("stuck")));
    bed.root(Read, "sys/mounts/none/health", Value::Null).await.expect(400);
    // Forgotten by force, they are stuck no more.
    bed.root(Update, "sys/leases/revoke-force/database/creds/at-down", json!({})).await.expect(204);
    let none = bed.handle(stuck("type=irrevocable")).await.expect(200);
    assert_eq!(none.body["data"]["lease_count"], 0);
    assert_eq!(health(&bed).await["stuck_leases"], 0);
}

#[tokio::test]
async fn a_removed_mount_whose_database_hangs_holds_up_no_sweep() {
    let bed = with_database().await;
    bed.root(Update, "sys/mounts/other", json!({"type": "database"})).await.expect(204);
    issue(&bed, "dead", 3).await;
    bed.database.refuse_revoke.store(true, SeqCst);
    bed.root(Delete, "sys/mounts/database", Value::Null).await.expect(503);
    bed.database.refuse_revoke.store(false, SeqCst);
    hang(&bed, ["dead".into()]);
    bed.root(Read, "other/creds/at-well", Value::Null).await.expect(200);
    bed.advance(hours(1)).await;
    sweep(&bed);
    until("calls that hang", || bed.database.hung() > 0).await;
    until("the end of the other", || bed.database.accounts_at("well") == 0).await;
    bed.database.let_go();
    until("the end of all", || bed.database.accounts().is_empty()).await;
    for _ in 0..3 {
        bed.advance(Duration::from_secs(300)).await;
        bed.sweep().await;
    }
    bed.root(Read, "sys/mounts/database", Value::Null).await.expect(400);
}
