//! Of several servers of a vault only the last one acts at a database, whatever the others still have on the way.

use std::time::{Duration, Instant};

use coffer_core::secret::SecretBytes;
use coffer_engines::{DatabaseEngine, Engine, EngineError, ReadView};
use serde_json::json;

use crate::beds::Bed;
use crate::support::Bench;
use crate::{bench, login, target_error};

async fn create(
    db: &Bench<DatabaseEngine>,
    by: &DatabaseEngine,
    payload: &SecretBytes,
) -> Result<(), EngineError> {
    let reader = db.barrier.reader().await?;
    by.create(&ReadView::new(db.mount, &reader), payload).await
}

pub(crate) async fn an_earlier_server_acts_no_more<B: Bed>() {
    let bed = B::start().await;
    let db = bench(&bed).await;
    let before = db.issue("app").await;
    db.create(&before.payload).await.unwrap();
    // Somebody else under the same login, whom nobody may end.
    let mut foreign = bed.connect(B::ADMIN, B::ADMIN_PASSWORD).await.unwrap();

    let slow = json!({ "db_name": "db", "creation_statements": [B::SLOW, B::CREATE] });
    db.post("roles/slow", slow).await.unwrap();
    let late = db.issue("slow").await;
    let after = db.issue("app").await;
    let next = DatabaseEngine::new("0123456789abcdef", 8);
    let taking_over = async {
        let start = Instant::now();
        while !bed.slowed().await {
            assert!(start.elapsed() < Duration::from_secs(60), "the creation never began");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        create(&db, &next, &after.payload).await.unwrap();
        // From here on nothing that the earlier server sent has an effect.
        assert!(!bed.has(&login(&late).0).await && !bed.slowed().await);
    };
    let (refused, ()) = tokio::join!(db.create(&late.payload), taking_over);
    assert!(refused.is_err());
    assert!(!bed.has(&login(&late).0).await);

    for refused in [
        db.create(&late.payload).await,
        db.revoke(&before.payload).await,
        db.revoke(&after.payload).await,
        db.act("rotate-root/db", json!({})).await.map(drop),
    ] {
        let (retriable, message) = target_error(&refused.unwrap_err());
        assert!(retriable && message.contains("another server of this vault has taken over"), "{message}");
    }
    assert!(bed.has(&login(&before).0).await && bed.has(&login(&after).0).await);
    bed.query(&mut foreign, "SELECT 1").await.unwrap();

    // A copy of the successor, from a copy of its store.
    let copy = DatabaseEngine::new("0123456789abcdef", 8);
    let again = db.issue("app").await;
    if B::MARK_TELLS_COPIES {
        assert!(create(&db, &copy, &again.payload).await.is_err());
    }
    create(&db, &next, &again.payload).await.unwrap();
}

pub(crate) async fn vaults_that_share_a_login_leave_each_other_alone<B: Bed>() {
    let bed = B::start().await;
    let db = bench(&bed).await;
    let other = DatabaseEngine::new("another vault", 1);
    for _ in 0..2 {
        let (mine, theirs) = (db.issue("app").await, db.issue("app").await);
        db.create(&mine.payload).await.unwrap();
        create(&db, &other, &theirs.payload).await.unwrap();
        assert!(bed.has(&login(&mine).0).await && bed.has(&login(&theirs).0).await);
        db.post("reset/db", json!({})).await.unwrap();
    }
    // The same process, unsealed again.
    db.engine.take_office("0123456789abcdef", 9);
    let issue = db.issue("app").await;
    db.create(&issue.payload).await.unwrap();
    db.revoke(&issue.payload).await.unwrap();
    assert!(!bed.has(&login(&issue).0).await);
}

pub(crate) async fn only_its_own_accounts_are_listed_and_removed<B: Bed>() {
    let bed = B::start().await;
    let db = bench(&bed).await;
    db.post("config/twin", bed.config()).await.unwrap();
    let issue = db.issue("app").await;
    let (mine, password) = login(&issue);
    db.create(&issue.payload).await.unwrap();
    let mut session = bed.connect(&mine, &password).await.unwrap();
    // Looks alike, and is not.
    let foreign = if mine.ends_with('1') { "2" } else { "1" };
    let foreign = format!("{}{foreign}", &mine[..mine.len() - 1]);
    bed.order(&B::account(&foreign, "Foreign-1")).await;
    db.post("config/db", json!({ "username_template": "v-own-template-{{ random 16 }}" })).await.unwrap();
    let by_template = db.issue("app").await;
    db.create(&by_template.payload).await.unwrap();

    let reader = db.barrier.reader().await.unwrap();
    let view = ReadView::new(db.mount, &reader);
    assert_eq!(db.engine.targets(&view).await.unwrap(), ["config/db", "config/twin"]);
    assert_eq!(db.engine.accounts(&view, "config/db").await.unwrap(), std::slice::from_ref(&mine));
    assert!(db.engine.accounts(&view, "config/twin").await.unwrap().is_empty(), "of another connection");
    for not_known in [foreign.as_str(), "plain", B::ADMIN, &login(&by_template).0] {
        assert!(db.engine.remove(&view, "config/db", not_known).await.is_err(), "{not_known}");
        assert!(bed.has(not_known).await);
    }
    db.engine.remove(&view, "config/db", &mine).await.unwrap();
    db.engine.remove(&view, "config/db", &mine).await.unwrap();
    assert!(!bed.has(&mine).await && bed.query(&mut session, "SELECT 1").await.is_err());
}
