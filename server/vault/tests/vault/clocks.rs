//! The wall clock is set while the vault runs: what others say of the time, and what it says of itself.

use std::time::Duration;

use coffer_core::time::Timestamp;
use coffer_vault::Clock as _;
use coffer_vault::Operation::Update;
use serde_json::json;

use crate::bed::{Bed, hours};

const HOUR: i64 = 3600;

fn wall(bed: &Bed) -> Timestamp {
    bed.clock.wall()
}

#[tokio::test]
async fn a_wall_clock_that_is_set_ahead_or_back_moves_the_end_of_no_lease() {
    for step in [HOUR, -HOUR] {
        let bed = Bed::with_pods().await;
        let token = bed.login("pod-1").await;
        let (_, account) = bed.issue(&token).await;
        bed.clock.step_wall(step);
        bed.advance(Duration::from_secs(3599)).await;
        bed.sweep().await;
        assert!(bed.database.has(&account), "its time is not over");
        bed.advance(Duration::from_secs(1)).await;
        bed.sweep().await;
        assert!(!bed.database.has(&account), "its time is over");
    }
}

#[tokio::test]
async fn a_jwt_is_believed_by_the_wall_clock_once_that_was_set_right() {
    let bed = Bed::with_pods().await;
    bed.clock.step_wall(HOUR);
    // Issued by a cluster whose clock was right all along: an hour ahead of the vault's time.
    let fresh = bed.cluster.jwt(&bed.cluster.claims("shop", "orders", "pod-1", wall(&bed)));
    bed.login_with(&fresh).await.expect(200);
    // The other way round, what is over by the wall clock is over.
    let old = bed.cluster.jwt(&bed.cluster.claims("shop", "orders", "pod-1", bed.clock.now()));
    bed.clock.step_wall(HOUR);
    bed.login_with(&old).await.expect(403);
}

#[tokio::test]
async fn a_wall_clock_that_was_set_back_brings_no_old_jwt_to_life() {
    let bed = Bed::with_pods().await;
    let jwt = bed.cluster.jwt(&bed.cluster.claims("shop", "orders", "pod-1", bed.clock.now()));
    bed.login_with(&jwt).await.expect(200);
    bed.advance(hours(2)).await;
    bed.clock.step_wall(-2 * HOUR);
    bed.login_with(&jwt).await.expect(403);
}

#[tokio::test]
async fn a_pods_own_token_ends_when_the_pods_clock_says_so() {
    let bed = Bed::with_pods().await;
    let role = json!({"allow_direct": true});
    bed.root(Update, "auth/kubernetes/prod/role/shop.orders", role).await.expect(204);
    bed.root(Update, "secret/data/shop/x", json!({"data": {"a": "b"}})).await.expect(200);
    bed.clock.step_wall(HOUR);
    let jwt = bed.cluster.jwt(&bed.cluster.claims("shop", "orders", "pod-1", wall(&bed)));
    let token = format!("k8s:kubernetes/prod/shop.orders:{jwt}");
    let looked = bed.get("auth/token/lookup-self", &token).await.expect(200);
    assert_eq!(looked.body["data"]["ttl"], 3600, "not longer than the JWT lives");
    bed.advance(hours(1)).await;
    bed.get("secret/data/shop/x", &token).await.expect(403);
}
