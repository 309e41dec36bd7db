//! People with names and passwords, and what happens to who guesses.

use crate::bed;

use std::sync::Arc;
use std::time::Duration;

use bed::{Answer, Bed};
use coffer_vault::Operation::{Delete, List, Read, Update};
use serde_json::{Value, json};

async fn with_bob() -> Bed {
    let bed = Bed::new().await;
    bed.root(Update, "sys/auth/userpass", json!({"type": "userpass"})).await.expect(204);
    let bob = json!({"password": "right", "token_policies": "b,a", "token_ttl": "1h"});
    bed.root(Update, "auth/userpass/users/bob", bob).await.expect(204);
    bed
}

async fn login(bed: &Bed, name: &str, password: &str) -> Answer {
    bed.send(Update, &format!("auth/userpass/login/{name}"), None, json!({"password": password})).await
}

async fn hashed(bed: &Bed) -> u64 {
    let metrics = bed.root(Read, "sys/metrics?format=prometheus", Value::Null).await.expect(200);
    let text = metrics.body.as_str().unwrap().to_owned();
    let line = text.lines().find(|line| line.starts_with("coffer_passwords_hashed_total ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn accessor(bed: &Bed) -> String {
    let mounts = bed.root(Read, "sys/auth", Value::Null).await.expect(200);
    mounts.body["data"]["userpass/"]["accessor"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_login_gives_a_token_as_the_user_says() {
    let bed = with_bob().await;
    let answer = login(&bed, "BOB", "right").await.expect(200);
    let auth = &answer.body["auth"];
    assert_eq!(auth["policies"], json!(["a", "b", "default"]));
    assert_eq!(auth["metadata"], json!({"username": "bob"}));
    assert_eq!(auth["lease_duration"], 3600);
    let looked = bed.get("auth/token/lookup-self", &answer.text("/auth/client_token")).await.expect(200);
    assert_eq!(looked.body["data"]["display_name"], "userpass-bob");
    let missing = bed.send(Update, "auth/userpass/login/bob", None, json!({})).await.expect(400);
    assert_eq!(missing.text("/errors/0"), "missing password");
    bed.send(Update, "auth/userpass/login", None, json!({"password": "x"})).await.expect(403);
    bed.send(Read, "auth/userpass/users/bob", None, Value::Null).await.expect(403);
}

#[tokio::test]
async fn the_mounts_tuning_decides_the_type_of_tokens() {
    let bed = with_bob().await;
    let limited = json!({"token_num_uses": 3});
    bed.root(Update, "auth/userpass/users/bob", limited).await.expect(204);
    bed.root(Update, "sys/mounts/auth/userpass/tune", json!({"token_type": "batch"})).await.expect(204);
    let answer = login(&bed, "bob", "right").await.expect(200);
    let auth = &answer.body["auth"];
    assert_eq!((&auth["token_type"], &auth["renewable"]), (&json!("batch"), &json!(false)));
    assert!(answer.text("/warnings/0").contains("token_num_uses does not count"));
    let token = answer.text("/auth/client_token");
    assert!(token.starts_with("b."), "{token}");
    bed.get("auth/token/lookup-self", &token).await.expect(200);
    bed.root(Update, "sys/mounts/auth/userpass/tune", json!({"token_type": "default-service"}))
        .await
        .expect(204);
    let answer = login(&bed, "bob", "right").await.expect(200);
    assert_eq!(
        (&answer.body["auth"]["token_type"], &answer.body["auth"]["num_uses"]),
        (&json!("service"), &json!(3))
    );
}

#[tokio::test]
async fn users_are_written_read_listed_and_removed() {
    let bed = with_bob().await;
    let nothing = bed.root(Update, "auth/userpass/users/eve", json!({})).await.expect(400);
    assert_eq!(nothing.text("/errors/0"), "must provide either password or password_hash");
    let eve =
        json!({"password": "pw", "policies": "x", "ttl": "1h", "max_ttl": "2h", "bound_cidrs": "10.0.0.0/8"});
    bed.root(Update, "auth/userpass/users/EVE", eve).await.expect(204);
    let shown = bed.root(Read, "auth/userpass/users/eve", Value::Null).await.expect(200);
    let wanted = json!({
        "bound_cidrs": ["10.0.0.0/8"], "max_ttl": 7200, "policies": ["x"], "token_bound_cidrs": ["10.0.0.0/8"],
        "token_explicit_max_ttl": 0, "token_max_ttl": 7200, "token_no_default_policy": false,
        "token_num_uses": 0, "token_period": 0, "token_policies": ["x"], "token_strictly_bind_ip": false,
        "token_ttl": 3600, "token_type": "default", "ttl": 3600,
    });
    assert_eq!(shown.body["data"], wanted);
    let listed = bed.root(List, "auth/userpass/users", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["keys"], json!(["bob", "eve"]));
    bed.root(Update, "auth/userpass/users/eve/password", json!({"password": "new"})).await.expect(204);
    login(&bed, "eve", "pw").await.expect(400);
    login(&bed, "eve", "new").await.expect(200);
    bed.root(Update, "auth/userpass/users/eve/policies", json!({"token_policies": "z"})).await.expect(204);
    let shown = bed.root(Read, "auth/userpass/users/eve", Value::Null).await.expect(200);
    assert_eq!(shown.body["data"]["token_policies"], json!(["z"]));
    assert_eq!(shown.body["data"]["policies"], Value::Null);
    for (path, body) in [
        ("users/none/password", json!({"password": "x"})),
        ("users/none/policies", json!({"policies": "x"})),
        ("users/eve/password", json!({})),
        ("users/eve", json!({"password": "x", "password_hash": "y"})),
        ("users/eve", json!({"password": "x".repeat(73)})),
        ("users/eve", json!({"token_policies": "Root"})),
    ] {
        bed.root(Update, &format!("auth/userpass/{path}"), body).await.expect(400);
    }
    for odd in ["a b", "a@b", "-a", " bob", "bob.", "ä"] {
        bed.root(Update, &format!("auth/userpass/users/{odd}"), json!({"password": "x"})).await.expect(404);
    }
    bed.root(Delete, "auth/userpass/users/eve", Value::Null).await.expect(204);
    bed.root(Delete, "auth/userpass/users/eve", Value::Null).await.expect(204);
    bed.root(Read, "auth/userpass/users/eve", Value::Null).await.expect(404);
    login(&bed, "eve", "new").await.expect(400);
}

#[tokio::test]
async fn a_hash_made_elsewhere_is_taken() {
    let bed = with_bob().await;
    let hash = bcrypt::hash("elsewhere", 5).unwrap();
    bed.root(Update, "auth/userpass/users/hal", json!({"password_hash": hash})).await.expect(204);
    login(&bed, "hal", "elsewhere").await.expect(200);
    login(&bed, "hal", "somewhere").await.expect(400);
    bed.root(Update, "auth/userpass/users/hal", json!({"password_hash": "$2b$10$abc"})).await.expect(400);
}

#[tokio::test]
async fn names_that_nobody_has_are_treated_like_those_that_somebody_has() {
    let bed = with_bob().await;
    let mut seen = Vec::new();
    for name in ["bob", "nobody"] {
        let before = hashed(&bed).await;
        let mut answers = Vec::new();
        for _ in 0..7 {
            bed.asked.take();
            let answer = login(&bed, name, "wrong").await;
            answers.push((answer.status, answer.body, bed.asked.take().0));
        }
        seen.push((answers, hashed(&bed).await - before));
    }
    assert_eq!(seen[0], seen[1]);
    let (answers, work) = &seen[0];
    // Each of the five was computed, and none of those that were locked out.
    assert_eq!(*work, 5);
    let statuses: Vec<u16> = answers.iter().map(|(status, ..)| *status).collect();
    assert_eq!(statuses, [400, 400, 400, 400, 400, 403, 403]);
    assert_eq!(answers[0].1, json!({"errors": ["invalid username or password"]}));
    assert_eq!(answers[6].1, json!({"errors": ["permission denied"]}));
    // Another spelling of the name is no way around it, and neither is the right password.
    login(&bed, "Bob", "right").await.expect(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guessing_all_at_once_gives_no_more_guesses() {
    let bed = Arc::new(with_bob().await);
    let before = hashed(&bed).await;
    let tries: Vec<_> = (0..20)
        .map(|n| {
            let bed = Arc::clone(&bed);
            tokio::spawn(async move { login(&bed, "bob", &format!("guess-{n}")).await.status })
        })
        .collect();
    let mut wrong = 0;
    for one in tries {
        match one.await.unwrap() {
            400 => wrong += 1,
            status => assert_eq!(status, 403),
        }
    }
    assert_eq!(wrong, 5);
    assert_eq!(hashed(&bed).await - before, 5);
}

#[tokio::test]
async fn locked_names_are_listed_and_let_in_again() {
    let bed = with_bob().await;
    let accessor = accessor(&bed).await;
    assert!(accessor.starts_with("auth_userpass_"));
    let none = json!({"by_namespace": [{"namespace_id": "root", "namespace_path": "", "counts": 0,
        "mount_accessors": []}], "total": 0});
    assert_eq!(bed.root(Read, "sys/locked-users", Value::Null).await.expect(200).body["data"], none);
    for _ in 0..5 {
        login(&bed, "bob", "wrong").await.expect(400);
    }
    login(&bed, "bob", "right").await.expect(403);
    let one = json!({"by_namespace": [{"namespace_id": "root", "namespace_path": "", "counts": 1,
        "mount_accessors": [{"mount_accessor": accessor, "counts": 1, "alias_identifiers": ["bob"]}]}],
        "total": 1});
    for path in ["sys/locked-users".to_owned(), format!("sys/locked-users?mount_accessor={accessor}")] {
        assert_eq!(bed.root(Read, &path, Value::Null).await.expect(200).body["data"], one);
    }
    let other = bed.root(Read, "sys/locked-users?mount_accessor=auth_x", Value::Null).await.expect(200);
    assert_eq!(other.body["data"], none);
    bed.root(Update, "sys/locked-users/auth_x/unlock/bob", Value::Null).await.expect(204);
    login(&bed, "bob", "right").await.expect(403);
    bed.root(Update, &format!("sys/locked-users/{accessor}/unlock/BOB"), Value::Null).await.expect(204);
    login(&bed, "bob", "right").await.expect(200);
    for _ in 0..5 {
        login(&bed, "bob", "wrong").await.expect(400);
    }
    bed.advance(Duration::from_secs(15 * 60)).await;
    login(&bed, "bob", "right").await.expect(200);
}

#[tokio::test]
async fn a_mount_says_when_it_locks() {
    let bed = with_bob().await;
    let tune = json!({"user_lockout_config": {"lockout_threshold": "2", "lockout_duration": "5m",
        "lockout_counter_reset_duration": "5m"}});
    bed.root(Update, "sys/auth/userpass/tune", tune).await.expect(204);
    let shown = bed.root(Read, "sys/auth/userpass/tune", Value::Null).await.expect(200);
    assert_eq!(shown.body["data"]["user_lockout_threshold"], 2);
    assert_eq!(shown.body["data"]["user_lockout_duration"], 300);
    let mounts = bed.root(Read, "sys/auth", Value::Null).await.expect(200);
    let config = &mounts.body["data"]["userpass/"]["config"];
    assert_eq!(config["user_lockout_config"]["user_lockout_counter_reset_duration"], 300);
    assert_eq!(config["user_lockout_threshold"], Value::Null);
    for status in [400, 400, 403] {
        login(&bed, "bob", "wrong").await.expect(status);
    }
    let off = json!({"user_lockout_config": {"lockout_disable": true}});
    bed.root(Update, "sys/auth/userpass/tune", off).await.expect(204);
    login(&bed, "bob", "right").await.expect(200);
    let rubbish = json!({"user_lockout_config": {"lockout_threshold": "3x"}});
    bed.root(Update, "sys/auth/userpass/tune", rubbish).await.expect(400);
}

#[tokio::test]
async fn role_ids_are_locked_alike_whether_there_is_a_role_or_not() {
    let bed = with_bob().await;
    bed.root(Update, "sys/auth/approle", json!({"type": "approle"})).await.expect(204);
    bed.root(Update, "auth/approle/role/app", json!({"role_id": "the-app"})).await.expect(204);
    let mut work = Vec::new();
    for role_id in ["the-app", "nobody"] {
        bed.asked.take();
        for status in [400, 400, 400, 400, 400, 403] {
            let body = json!({"role_id": role_id, "secret_id": "wrong"});
            bed.send(Update, "auth/approle/login", None, body).await.expect(status);
        }
        work.push(bed.asked.take().0);
    }
    assert!(work[0] > 0);
    assert_eq!(work[0], work[1], "as many questions to the store");
    let locked = bed.root(Read, "sys/locked-users", Value::Null).await.expect(200);
    assert_eq!(locked.body["data"]["total"], 2);
}

#[tokio::test]
async fn a_user_is_bound_to_addresses() {
    let bed = with_bob().await;
    bed.root(Update, "auth/userpass/users/bob", json!({"token_bound_cidrs": "127.0.0.1"})).await.expect(204);
    login(&bed, "bob", "right").await.expect(403);
    let mut request = bed.request(Update, "auth/userpass/login/bob", None, json!({"password": "right"}));
    request.client_ip = [127, 0, 0, 1].into();
    bed.handle(request).await.expect(200);
}
