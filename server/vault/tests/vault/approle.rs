//! AppRole: roles, secret ids, and logging in with them.

use crate::bed;

use std::time::Duration;

use bed::{Answer, Bed, hours};
use coffer_vault::Operation::{Delete, List, Read, Update};
use serde_json::{Value, json};

const ROLE: &str = "auth/approle/role/app";

async fn with_role(role: Value) -> Bed {
    let bed = Bed::new().await;
    bed.root(Update, "sys/auth/approle", json!({"type": "approle"})).await.expect(204);
    bed.root(Update, ROLE, role).await.expect(204);
    bed.root(Update, &format!("{ROLE}/role-id"), json!({"role_id": "the-app"})).await.expect(204);
    bed
}

async fn secret_id(bed: &Bed, body: Value) -> String {
    bed.root(Update, &format!("{ROLE}/secret-id"), body).await.expect(200).text("/data/secret_id")
}

async fn login(bed: &Bed, role_id: &str, secret_id: &str) -> Answer {
    login_from(bed, role_id, secret_id, [10, 0, 0, 7]).await
}

async fn login_from(bed: &Bed, role_id: &str, secret_id: &str, ip: [u8; 4]) -> Answer {
    let body = json!({"role_id": role_id, "secret_id": secret_id});
    let mut request = bed.request(Update, "auth/approle/login", None, body);
    request.client_ip = ip.into();
    bed.handle(request).await
}

#[tokio::test]
async fn a_role_shows_all_its_parameters() {
    let bed = with_role(json!({})).await;
    let role = bed.root(Read, ROLE, Value::Null).await.expect(200);
    let wanted = json!({
        "bind_secret_id": true, "local_secret_ids": false, "secret_id_bound_cidrs": null,
        "secret_id_num_uses": 0, "secret_id_ttl": 0, "token_bound_cidrs": [], "token_explicit_max_ttl": 0,
        "token_max_ttl": 0, "token_no_default_policy": false, "token_num_uses": 0, "token_period": 0,
        "token_policies": [], "token_strictly_bind_ip": false, "token_ttl": 0, "token_type": "default",
    });
    assert_eq!(role.body["data"], wanted);
    // Names are one name in any case.
    bed.root(Read, "auth/approle/role/APP", Value::Null).await.expect(200);
    let listed = bed.root(List, "auth/approle/role", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["keys"], json!(["app"]));
    bed.root(Read, "auth/approle/role/none", Value::Null).await.expect(404);
    bed.root(Read, "auth/approle/role/a b", Value::Null).await.expect(404);
}

#[tokio::test]
async fn a_login_gives_a_token_as_the_role_and_the_secret_id_say() {
    let bed = with_role(json!({
        "token_policies": "b,a", "token_ttl": "1h", "token_max_ttl": "2h", "token_num_uses": 3,
        "token_explicit_max_ttl": "90m",
    }))
    .await;
    let secret = secret_id(&bed, json!({"metadata": "{\"team\":\"shop\"}"})).await;
    let answer = login(&bed, "the-app", &secret).await.expect(200);
    let auth = &answer.body["auth"];
    assert_eq!(auth["policies"], json!(["a", "b", "default"]));
    assert_eq!(auth["metadata"], json!({"role_name": "app", "team": "shop"}));
    assert_eq!((&auth["lease_duration"], &auth["num_uses"]), (&json!(3600), &json!(3)));
    assert_eq!((&auth["orphan"], &auth["renewable"]), (&json!(true), &json!(true)));
    let looked = bed.get("auth/token/lookup-self", &answer.text("/auth/client_token")).await.expect(200);
    assert_eq!(looked.body["data"]["display_name"], "approle");
    assert_eq!(looked.body["data"]["explicit_max_ttl"], 5400);
    // Two uses are left after the look, and none after these.
    let token = answer.text("/auth/client_token");
    for status in [200, 200, 403] {
        bed.get("auth/token/lookup-self", &token).await.expect(status);
    }
}

#[tokio::test]
async fn a_wrong_role_and_a_wrong_secret_are_answered_alike() {
    let bed = with_role(json!({})).await;
    let secret = secret_id(&bed, json!({})).await;
    let wrong_role = login(&bed, "nobody", &secret).await.expect(400);
    let wrong_secret = login(&bed, "the-app", "wrong").await.expect(400);
    assert_eq!(wrong_role.body, json!({"errors": ["invalid role or secret ID"]}));
    assert_eq!(wrong_role.body, wrong_secret.body);
    let no_secret = login(&bed, "the-app", "").await.expect(400);
    assert_eq!(no_secret.body, login(&bed, "nobody", "").await.expect(400).body);
    // The other role's secret id is none of this one's.
    bed.root(Update, "auth/approle/role/other", json!({"role_id": "other"})).await.expect(204);
    assert_eq!(login(&bed, "other", &secret).await.expect(400).body, wrong_role.body);
    login(&bed, "the-app", &secret).await.expect(200);
}

#[tokio::test]
async fn a_role_that_nobody_has_is_locked_out_like_one_that_somebody_has() {
    let bed = with_role(json!({})).await;
    let secret = secret_id(&bed, json!({})).await;
    let mut seen = Vec::new();
    for role in ["the-app", "nobody"] {
        let mut answers = Vec::new();
        for _ in 0..7 {
            let answer = login(&bed, role, "wrong").await;
            answers.push((answer.status, answer.body["errors"].clone()));
        }
        seen.push(answers);
    }
    assert_eq!(seen[0], seen[1]);
    let statuses: Vec<u16> = seen[0].iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [400, 400, 400, 400, 400, 403, 403]);
    login(&bed, "the-app", &secret).await.expect(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_secret_id_is_used_as_often_as_it_may_be_and_no_more() {
    let bed = std::sync::Arc::new(with_role(json!({"secret_id_num_uses": 5})).await);
    // Not what is looked at here: those who come too late would be locked out.
    let off = json!({"user_lockout_config": {"lockout_disable": true}});
    bed.root(Update, "sys/auth/approle/tune", off).await.expect(204);
    let secret = secret_id(&bed, json!({})).await;
    let tries: Vec<_> = (0..24)
        .map(|_| {
            let (bed, secret) = (std::sync::Arc::clone(&bed), secret.clone());
            tokio::spawn(async move { login(&bed, "the-app", &secret).await })
        })
        .collect();
    let mut statuses = Vec::new();
    for one in tries {
        let mut answer = one.await.unwrap();
        // Told to come back because so many met: comes back.
        while answer.status == 503 {
            answer = login(&bed, "the-app", &secret).await;
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 5, "{statuses:?}");
    assert!(statuses.iter().all(|s| matches!(s, 200 | 400)), "{statuses:?}");
    bed.root(List, &format!("{ROLE}/secret-id"), Value::Null).await.expect(404);
}

#[tokio::test]
async fn addresses_bind_secret_ids_and_tokens() {
    let bed = with_role(json!({
        "secret_id_bound_cidrs": "10.0.0.0/8", "token_bound_cidrs": "10.0.0.0/8,127.0.0.1",
    }))
    .await;
    let wide = secret_id(&bed, json!({})).await;
    let narrow =
        secret_id(&bed, json!({"cidr_list": "10.1.0.0/16", "token_bound_cidrs": "10.2.0.0/16"})).await;
    login_from(&bed, "the-app", &wide, [192, 168, 0, 1]).await.expect(400);
    login_from(&bed, "the-app", &narrow, [10, 2, 0, 1]).await.expect(400);
    let refused =
        bed.root(Update, &format!("{ROLE}/secret-id"), json!({"cidr_list": "192.168.0.0/16"})).await;
    assert!(refused.expect(400).text("/errors/0").starts_with("failed to verify subset relationship"));
    let use_from = async |token: &str, ip: [u8; 4]| {
        let mut request = bed.request(Read, "auth/token/lookup-self", Some(token), Value::Null);
        request.client_ip = ip.into();
        bed.handle(request).await.status
    };
    let token =
        login_from(&bed, "the-app", &wide, [10, 9, 9, 9]).await.expect(200).text("/auth/client_token");
    assert_eq!(use_from(&token, [127, 0, 0, 1]).await, 200);
    assert_eq!(use_from(&token, [127, 0, 0, 2]).await, 403);
    let token =
        login_from(&bed, "the-app", &narrow, [10, 1, 0, 1]).await.expect(200).text("/auth/client_token");
    assert_eq!(use_from(&token, [10, 2, 3, 4]).await, 200);
    assert_eq!(use_from(&token, [10, 1, 0, 1]).await, 403);
    // A role that is narrowed afterwards narrows its secret ids, too.
    bed.root(Update, ROLE, json!({"token_bound_cidrs": "10.3.0.0/16"})).await.expect(204);
    login_from(&bed, "the-app", &narrow, [10, 1, 0, 1]).await.expect(400);
    login_from(&bed, "the-app", &wide, [10, 9, 9, 9]).await.expect(200);
}

#[tokio::test]
async fn secret_ids_end_and_leave_nothing() {
    let bed = with_role(json!({"secret_id_ttl": "1h"})).await;
    let secret = secret_id(&bed, json!({"ttl": "30m"})).await;
    let custom = json!({"secret_id": "chosen", "metadata": "a=b"});
    bed.root(Update, &format!("{ROLE}/custom-secret-id"), custom.clone()).await.expect(200);
    let again = bed.root(Update, &format!("{ROLE}/custom-secret-id"), custom).await.expect(400);
    assert_eq!(again.text("/errors/0"), "failed to store secret_id: SecretID is already registered");
    let refused = bed.root(Update, &format!("{ROLE}/secret-id"), json!({"ttl": "2h"})).await.expect(400);
    assert_eq!(refused.text("/errors/0"), "ttl cannot be longer than the role's secret_id_ttl");
    let listed = bed.root(List, &format!("{ROLE}/secret-id"), Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["keys"].as_array().unwrap().len(), 2);
    bed.advance(Duration::from_secs(1799)).await;
    login(&bed, "the-app", &secret).await.expect(200);
    bed.advance(Duration::from_secs(1)).await;
    login(&bed, "the-app", &secret).await.expect(400);
    bed.root(Update, &format!("{ROLE}/secret-id/lookup"), json!({"secret_id": secret})).await.expect(204);
    login(&bed, "the-app", "chosen").await.expect(200);
    bed.sweep().await;
    let listed = bed.root(List, &format!("{ROLE}/secret-id"), Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["keys"].as_array().unwrap().len(), 1);
    bed.advance(hours(1)).await;
    let tidied = bed.root(Update, "auth/approle/tidy/secret-id", Value::Null).await.expect(202);
    assert!(tidied.text("/warnings/0").starts_with("Tidy operation successfully started."));
    bed.root(List, &format!("{ROLE}/secret-id"), Value::Null).await.expect(404);
}

#[tokio::test]
async fn secret_ids_are_looked_up_and_destroyed_by_themselves_and_by_accessor() {
    let bed = with_role(json!({})).await;
    let made =
        bed.root(Update, &format!("{ROLE}/secret-id"), json!({"num_uses": 4, "ttl": 600})).await.expect(200);
    let (secret, accessor) = (made.text("/data/secret_id"), made.text("/data/secret_id_accessor"));
    login(&bed, "the-app", &secret).await.expect(200);
    let by_accessor = json!({"secret_id_accessor": accessor});
    let looked =
        bed.root(Update, &format!("{ROLE}/secret-id-accessor/lookup"), by_accessor.clone()).await.expect(200);
    assert_eq!(looked.body["data"]["secret_id_num_uses"], 3);
    assert_eq!(looked.body["data"]["secret_id_ttl"], 600);
    let itself =
        bed.root(Update, &format!("{ROLE}/secret-id/lookup"), json!({"secret_id": secret})).await.expect(200);
    assert_eq!(itself.body["data"], looked.body["data"]);
    assert!(!itself.body.to_string().contains(&secret));
    bed.root(Update, &format!("{ROLE}/secret-id-accessor/destroy"), by_accessor.clone()).await.expect(204);
    let gone = bed.root(Update, &format!("{ROLE}/secret-id-accessor/lookup"), by_accessor).await.expect(404);
    assert!(gone.text("/data/error").starts_with("failed to find accessor entry"));
    login(&bed, "the-app", &secret).await.expect(400);
    let secret = secret_id(&bed, json!({})).await;
    bed.root(Update, &format!("{ROLE}/secret-id/destroy"), json!({"secret_id": secret})).await.expect(204);
    bed.root(Update, &format!("{ROLE}/secret-id/destroy"), json!({"secret_id": secret})).await.expect(204);
    login(&bed, "the-app", &secret).await.expect(400);
    bed.root(Update, "auth/approle/role/none/secret-id", json!({})).await.expect(404);
    bed.root(Update, &format!("{ROLE}/secret-id-accessor/lookup"), json!({"secret_id_accessor": "../x"}))
        .await
        .expect(404);
}

#[tokio::test]
async fn a_role_that_comes_back_has_none_of_its_old_secret_ids() {
    let bed = with_role(json!({})).await;
    let secret = secret_id(&bed, json!({})).await;
    // The rows of mounts; the vault's own, such as its change log, have an id of zeros.
    let count = || bed.store.dump().iter().filter(|(key, _)| key[1..17] != [0; 16]).count();
    let rows = count();
    bed.root(Delete, ROLE, Value::Null).await.expect(204);
    login(&bed, "the-app", &secret).await.expect(400);
    // Role, role id, secret id, accessor, and the links of the role and the accessor are gone.
    assert!(count() <= rows - 6, "{} of {rows} rows are left", count());
    bed.root(Update, ROLE, json!({"role_id": "the-app"})).await.expect(204);
    login(&bed, "the-app", &secret).await.expect(400);
    bed.root(List, &format!("{ROLE}/secret-id"), Value::Null).await.expect(404);
    bed.root(Delete, "auth/approle/role/none", Value::Null).await.expect(204);
}

#[tokio::test]
async fn role_ids_are_unique() {
    let bed = with_role(json!({})).await;
    let taken = bed.root(Update, "auth/approle/role/two", json!({"role_id": "the-app"})).await.expect(400);
    assert_eq!(taken.text("/errors/0"), "role_id already in use");
    bed.root(Update, &format!("{ROLE}/role-id"), json!({"role_id": "moved/on +"})).await.expect(204);
    bed.root(Update, "auth/approle/role/two", json!({"role_id": "the-app"})).await.expect(204);
    let secret = secret_id(&bed, json!({})).await;
    login(&bed, "the-app", &secret).await.expect(400);
    login(&bed, "moved/on +", &secret).await.expect(200);
}

#[tokio::test]
async fn a_role_is_bound_to_something() {
    let bed = with_role(json!({})).await;
    let refused = bed.root(Update, ROLE, json!({"bind_secret_id": false})).await.expect(400);
    assert_eq!(refused.text("/errors/0"), "at least one constraint should be enabled on the role");
    let body = json!({"bind_secret_id": false, "secret_id_bound_cidrs": ["10.0.0.0/8"]});
    bed.root(Update, ROLE, body).await.expect(204);
    login(&bed, "the-app", "").await.expect(200);
    login_from(&bed, "the-app", "", [127, 0, 0, 1]).await.expect(400);
    bed.root(Delete, &format!("{ROLE}/secret-id-bound-cidrs"), Value::Null).await.expect(400);
    let none = bed.root(Update, &format!("{ROLE}/secret-id"), json!({})).await.expect(400);
    assert_eq!(none.text("/errors/0"), "bind_secret_id is not set on the role");
    let local = bed.root(Update, ROLE, json!({"local_secret_ids": true})).await.expect(400);
    assert_eq!(local.text("/errors/0"), "local_secret_ids can only be modified during role creation");
}

#[tokio::test]
async fn every_field_has_a_path_of_its_own() {
    let bed = with_role(json!({})).await;
    for (path, name, value, default) in [
        ("policies", "token_policies", json!(["x", "y"]), json!([])),
        ("secret-id-num-uses", "secret_id_num_uses", json!(7), json!(0)),
        ("secret-id-ttl", "secret_id_ttl", json!(3600), json!(0)),
        ("token-ttl", "token_ttl", json!(60), json!(0)),
        ("token-max-ttl", "token_max_ttl", json!(600), json!(0)),
        ("token-num-uses", "token_num_uses", json!(4), json!(0)),
        ("token-bound-cidrs", "token_bound_cidrs", json!(["127.0.0.1"]), json!([])),
        ("secret-id-bound-cidrs", "secret_id_bound_cidrs", json!(["10.0.0.0/8"]), Value::Null),
        ("bound-cidr-list", "bound_cidr_list", json!(["10.0.0.0/8"]), Value::Null),
        ("period", "token_period", json!(33), json!(0)),
        ("bind-secret-id", "bind_secret_id", json!(true), json!(true)),
    ] {
        let at = format!("{ROLE}/{path}");
        bed.root(Update, &at, json!({name: value})).await.expect(204);
        let shown = bed.root(Read, &at, Value::Null).await.expect(200);
        assert_eq!(shown.body["data"], json!({name: value}), "{path}");
        let empty = bed.root(Update, &at, json!({"other": 1})).await;
        assert_eq!(empty.status, if path == "token-bound-cidrs" { 204 } else { 400 }, "{path}");
        bed.root(Delete, &at, Value::Null).await.expect(204);
        let shown = bed.root(Read, &at, Value::Null).await.expect(200);
        assert_eq!(shown.body["data"], json!({name: default}), "{path}");
        bed.root(Read, &format!("auth/approle/role/none/{path}"), Value::Null).await.expect(404);
    }
    let role = bed.root(Read, ROLE, Value::Null).await.expect(200);
    assert_eq!(role.body["data"]["token_max_ttl"], 0);
    bed.root(Read, &format!("{ROLE}/local-secret-ids"), Value::Null).await.expect(200);
    bed.root(Update, &format!("{ROLE}/local-secret-ids"), json!({})).await.expect(405);
    bed.root(Update, &format!("{ROLE}/policies"), json!({"policies": "old"})).await.expect(204);
    let shown = bed.root(Read, &format!("{ROLE}/policies"), Value::Null).await.expect(200);
    assert_eq!(shown.body["data"], json!({"policies": ["old"], "token_policies": ["old"]}));
    let missing = bed.root(Update, &format!("{ROLE}/period"), json!({})).await.expect(400);
    assert_eq!(missing.text("/errors/0"), "missing period");
    bed.root(Read, &format!("{ROLE}/rubbish"), Value::Null).await.expect(404);
    bed.root(Delete, &format!("{ROLE}/role-id"), Value::Null).await.expect(405);
}
