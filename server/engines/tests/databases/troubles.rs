//! Databases in trouble: a clear error, another try, nothing lost, and other targets that notice nothing.

use serde_json::json;

use crate::beds::{Bed, Pg};
use crate::{bench, login, target_error};

/// The engine's own password is changed behind its back: nothing is made, nothing is lost, and it goes on once somebody has
/// mended it. Another database notices nothing.
pub(crate) async fn a_changed_password_is_told_and_disturbs_no_other<B: Bed>() {
    let bed = B::start().await;
    let db = bench(&bed).await;
    let elsewhere = B::start().await;
    db.post("config/other", elsewhere.config()).await.unwrap();
    let role = json!({ "db_name": "other", "creation_statements": [B::CREATE], "default_ttl": "1h" });
    db.post("roles/second", role).await.unwrap();
    let kept = db.issue("app").await;
    db.create(&kept.payload).await.unwrap();

    bed.order(&B::password(B::ADMIN, "Behind-its-back-1")).await;
    db.post("reset/db", json!({})).await.unwrap();
    let issue = db.issue("app").await;
    for result in [db.create(&issue.payload).await, db.revoke(&kept.payload).await] {
        let (_, message) = target_error(&result.unwrap_err());
        assert!(message.contains("the database refused: "), "{message}");
        assert!(!message.contains(B::ADMIN_PASSWORD) && !message.contains(&login(&issue).1), "{message}");
    }
    let second = db.issue("second").await;
    db.create(&second.payload).await.unwrap();
    elsewhere.connect(&login(&second).0, &login(&second).1).await.unwrap();
    assert!(bed.has(&login(&kept).0).await && !bed.has(&login(&issue).0).await);
    // Somebody tells the vault; what could not be done is done.
    db.post("config/db", json!({ "password": "Behind-its-back-1" })).await.unwrap();
    db.revoke(&kept.payload).await.unwrap();
    db.create(&issue.payload).await.unwrap();
    assert!(!bed.has(&login(&kept).0).await && bed.has(&login(&issue).0).await);
}

/// What an account owns elsewhere keeps PostgreSQL from dropping it: it is locked and out, and goes once it can.
#[tokio::test]
async fn an_account_that_cannot_be_dropped_is_out_all_the_same() {
    let bed = Pg::start().await;
    let db = bench(&bed).await;
    let (stuck, fine) = (db.issue("app").await, db.issue("app").await);
    db.create(&stuck.payload).await.unwrap();
    db.create(&fine.payload).await.unwrap();
    let (user, password) = login(&stuck);
    let session = bed.connect(&user, &password).await.unwrap();
    // In another database, where the engine's session is not.
    bed.order("CREATE DATABASE elsewhere").await;
    bed.order(&format!("ALTER DATABASE elsewhere OWNER TO \"{user}\"")).await;
    for _ in 0..2 {
        let (_, message) = target_error(&db.revoke(&stuck.payload).await.unwrap_err());
        assert!(message.contains("the database refused: ") && !message.contains(&password), "{message}");
        assert!(
            session.batch_execute("SELECT 1").await.is_err() && bed.connect(&user, &password).await.is_err()
        );
        assert!(bed.has(&user).await);
    }
    db.revoke(&fine.payload).await.unwrap();
    assert!(!bed.has(&login(&fine).0).await);
    bed.order("ALTER DATABASE elsewhere OWNER TO postgres").await;
    db.revoke(&stuck.payload).await.unwrap();
    assert!(!bed.has(&user).await);
}

/// No session is left for the engine: it says so, and goes on when there is one.
#[tokio::test]
async fn out_of_connections_is_told_and_over_when_there_are_some() {
    let bed = Pg::start().await;
    let db = bench(&bed).await;
    let kept = db.issue("app").await;
    db.create(&kept.payload).await.unwrap();
    bed.order("ALTER ROLE coffer_admin CONNECTION LIMIT 0").await;
    db.post("reset/db", json!({})).await.unwrap();
    let issue = db.issue("app").await;
    for result in [db.create(&issue.payload).await, db.revoke(&kept.payload).await] {
        let (retriable, message) = target_error(&result.unwrap_err());
        assert!(retriable && message.contains("too many connections"), "{message}");
    }
    assert!(bed.has(&login(&kept).0).await && !bed.has(&login(&issue).0).await);
    bed.order("ALTER ROLE coffer_admin CONNECTION LIMIT -1").await;
    db.create(&issue.payload).await.unwrap();
    db.revoke(&kept.payload).await.unwrap();
    assert!(!bed.has(&login(&kept).0).await && bed.has(&login(&issue).0).await);
}
