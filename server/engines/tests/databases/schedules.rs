//! Passwords that rotate by a schedule: of static roles, and the engine's own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coffer_core::schedule::Schedule;
use coffer_core::time::Timestamp;
use coffer_engines::{DatabaseEngine, EngineError};
use serde_json::{Value, json};

use crate::beds::Bed;
use crate::static_roles::{creds, rotations};
use crate::support::{Bench, data};
use crate::{bench, target_error};

const AT_THREE: &str = "0 3 * * *";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn three_after(now: Timestamp) -> Timestamp {
    Schedule::parse(AT_THREE).unwrap().next_after(now).unwrap()
}

/// Another process takes over.
fn restart(db: &mut Bench<DatabaseEngine>) {
    // Of any test: later than all before it.
    static EPOCH: AtomicU64 = AtomicU64::new(8);
    db.engine = DatabaseEngine::new("0123456789abcdef", EPOCH.fetch_add(1, Ordering::Relaxed));
}

async fn shown(db: &Bench<DatabaseEngine>, path: &str) -> Value {
    data(db.read(path).await.unwrap())
}

pub(crate) async fn a_static_role_rotates_by_its_schedule_and_never_outside_its_window<B: Bed>() {
    let mut bed = B::start().await;
    let mut db = bench(&bed).await;
    bed.order(&B::account("app-user", "Before-1")).await;
    let role = json!({
        "db_name": "db", "username": "app-user", "rotation_schedule": AT_THREE, "rotation_window": "1h",
    });
    db.post("static-roles/s", role).await.unwrap();
    let read = shown(&db, "static-roles/s").await;
    assert_eq!((&read["rotation_schedule"], &read["rotation_window"]), (&json!(AT_THREE), &json!(3600)));
    assert!(read.get("rotation_period").is_none());
    let due = three_after(db.now);
    let read = shown(&db, "static-creds/s").await;
    assert_eq!((&read["version"], &read["rotation_schedule"]), (&json!(1), &json!(AT_THREE)));
    let left = due.saturating_sub(db.now).as_secs();
    assert_eq!(read["ttl"], left);

    restart(&mut db);
    db.now = Timestamp::from_millis(due.as_millis() - 1000);
    assert!(db.work().await.unwrap().is_empty(), "a second too early");
    db.now = due.plus(MINUTE);
    assert_eq!(rotations(&db.work().await.unwrap()), 1);
    assert_eq!(creds(&db, "s").await.2, 2);

    // Nobody was there while the window was open: it is the next one's turn.
    db.now = due.plus(DAY).plus(HOUR);
    assert!(db.work().await.unwrap().is_empty());
    let (user, second, version) = creds(&db, "s").await;
    assert_eq!((version, shown(&db, "static-creds/s").await["ttl"].as_u64()), (2, Some(23 * 3600)));
    // Somebody who asks is never too late.
    db.post("rotate-role/s", json!({})).await.unwrap();
    let (_, third, version) = creds(&db, "s").await;
    assert_eq!(version, 3);
    assert!(bed.connect(&user, &second).await.is_err());

    // The database is away until the window is over: then its password stays until the next one.
    db.now = due.plus(2 * DAY).plus(MINUTE);
    bed.stop();
    let error = db.work().await.unwrap_err();
    assert!(matches!(error, EngineError::Target { retriable: true, .. }), "{error:?}");
    bed.restart().await;
    restart(&mut db);
    db.now = due.plus(2 * DAY).plus(2 * HOUR);
    assert!(db.work().await.unwrap().is_empty());
    bed.connect(&user, &third).await.unwrap();
    db.now = due.plus(3 * DAY).plus(MINUTE);
    assert_eq!(rotations(&db.work().await.unwrap()), 1);
    let (user, fourth, version) = creds(&db, "s").await;
    assert_eq!(version, 4);
    bed.connect(&user, &fourth).await.unwrap();

    // What the database had taken before it went away is handed out, window or not: nothing else logs in.
    db.now = due.plus(4 * DAY).plus(MINUTE);
    bed.stop();
    db.work().await.unwrap_err();
    bed.restart().await;
    let next = candidate(&db, "s").await;
    bed.order(&B::password(&user, &next)).await;
    db.now = due.plus(4 * DAY).plus(2 * HOUR);
    assert_eq!(rotations(&db.work().await.unwrap()), 1);
    let (user, fifth, version) = creds(&db, "s").await;
    assert_eq!((version, &fifth), (5, &next));
    bed.connect(&user, &fifth).await.unwrap();

    // Back to a period.
    db.post("static-roles/s", json!({ "rotation_period": "24h" })).await.unwrap();
    let read = shown(&db, "static-roles/s").await;
    assert!(read["rotation_period"] == 86_400 && read.get("rotation_schedule").is_none(), "{read}");
}

/// The password under way, out of the engine's own record.
async fn candidate(db: &Bench<DatabaseEngine>, name: &str) -> String {
    let reader = db.barrier.reader().await.unwrap();
    let view = coffer_engines::ReadView::new(db.mount, &reader);
    let path = format!("static-roles/{name}");
    let row: Option<Value> =
        view.record(coffer_barrier::RecordKind::Entry, &path, "static role").await.unwrap();
    row.unwrap()["rotation"]["candidate"]["secret"].as_str().unwrap().to_owned()
}

pub(crate) async fn the_root_password_rotates_by_itself<B: Bed>() {
    let mut bed = B::start().await;
    let mut db = bench(&bed).await;
    let rotated = |effects: &[coffer_engines::Effect]| {
        effects.iter().filter(|effect| effect.event_type == "database/root-rotate").count()
    };
    for (body, why) in [
        (json!({ "rotation_period": "9s" }), "10 seconds or more"),
        (json!({ "rotation_period": "1h", "rotation_schedule": AT_THREE }), "mutually exclusive"),
    ] {
        let error = db.post("config/db", body).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(shown(&db, "config/db").await["next_rotation"], Value::Null);
    db.post("config/db", json!({ "rotation_period": "24h" })).await.unwrap();
    let began = db.now;
    db.now = began.plus(DAY - MINUTE);
    assert!(db.work().await.unwrap().is_empty());
    db.now = began.plus(DAY);
    // The database is away for a while: it is tried again, later each time.
    bed.stop();
    let (retriable, _) = target_error(&db.work().await.unwrap_err());
    assert!(retriable && db.work().await.unwrap().is_empty());
    assert!(shown(&db, "config/db").await["rotation_error"].as_str().unwrap().contains("cannot be reached"));
    bed.restart().await;
    restart(&mut db);
    db.now = db.now.plus(HOUR);
    assert_eq!(rotated(&db.work().await.unwrap()), 1);
    assert!(bed.connect(B::ADMIN, B::ADMIN_PASSWORD).await.is_err(), "the old password is gone");
    let read = shown(&db, "config/db").await;
    assert_eq!((&read["rotation_error"], &read["rotation_pending"]), (&Value::Null, &json!(false)));
    assert_eq!(read["next_rotation"], db.now.plus(DAY).to_rfc3339());

    // By a schedule with a window that goes by.
    let schedule = json!({ "rotation_schedule": AT_THREE, "rotation_window": 3600 });
    db.post("config/db", schedule).await.unwrap();
    let due = three_after(db.now);
    db.now = due.plus(2 * HOUR);
    assert!(db.work().await.unwrap().is_empty());
    db.post("config/db", json!({ "disable_automated_rotation": true })).await.unwrap();
    db.now = due.plus(DAY);
    assert!(db.work().await.unwrap().is_empty());
    db.post("config/db", json!({ "disable_automated_rotation": false })).await.unwrap();
    assert_eq!(rotated(&db.work().await.unwrap()), 1);
    let issue = db.issue("app").await;
    db.create(&issue.payload).await.unwrap();
    db.delete("config/db").await.unwrap();
    db.now = due.plus(10 * DAY);
    assert!(db.work().await.unwrap().is_empty());
}
