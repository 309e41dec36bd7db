//! The token API as Vault has it: creation, lookup, renewal, the ends of tokens, and what a token keeps for itself.

use crate::bed;

use std::time::Duration;

use bed::Bed;
use coffer_vault::Operation;
use serde_json::{Value, json};

async fn create(bed: &Bed, token: &str, body: Value) -> String {
    bed.post("auth/token/create", token, body).await.expect(200).text("/auth/client_token")
}

async fn policy(bed: &Bed, name: &str, text: &str) {
    bed.root(Operation::Update, &format!("sys/policies/acl/{name}"), json!({"policy": text}))
        .await
        .expect(204);
}

async fn alive(bed: &Bed, token: &str) -> bool {
    bed.get("auth/token/lookup-self", token).await.status == 200
}

#[tokio::test]
async fn lookups_have_vaults_fields() {
    let bed = Bed::new().await;
    let made = bed
        .root(
            Operation::Update,
            "auth/token/create",
            json!({"policies": ["nope"], "ttl": "1h", "meta": {"k": "v"}, "display_name": "joe bloggs!"}),
        )
        .await
        .expect(200);
    assert_eq!(made.body["warnings"], json!(["Policy \"nope\" does not exist"]));
    assert_eq!(made.body["auth"]["policies"], json!(["default", "nope"]));
    let (token, accessor) = (made.text("/auth/client_token"), made.text("/auth/accessor"));
    let own = bed.get("auth/token/lookup-self", &token).await.expect(200);
    let data = own.body["data"].as_object().unwrap();
    let names: Vec<&str> = data.keys().map(String::as_str).collect();
    let wanted = [
        "accessor",
        "creation_time",
        "creation_ttl",
        "display_name",
        "entity_id",
        "expire_time",
        "explicit_max_ttl",
        "id",
        "issue_time",
        "meta",
        "num_uses",
        "orphan",
        "path",
        "policies",
        "renewable",
        "ttl",
        "type",
    ];
    assert_eq!(names, wanted);
    assert_eq!(data["display_name"], "token-joe-bloggs");
    assert_eq!(
        (&data["ttl"], &data["type"], &data["orphan"]),
        (&json!(3600), &json!("service"), &json!(false))
    );
    let by_accessor = bed
        .root(Operation::Update, "auth/token/lookup-accessor", json!({"accessor": accessor}))
        .await
        .expect(200);
    assert_eq!(by_accessor.body["data"]["id"], "", "an accessor never gives the token away");
    bed.root(Operation::Update, "auth/token/renew-accessor", json!({"accessor": accessor, "increment": 100}))
        .await
        .expect(200);
    let renewed = bed.root(Operation::Update, "auth/token/lookup", json!({"token": token})).await.expect(200);
    assert_eq!(renewed.body["data"]["ttl"], 100, "an increment may shorten");
    assert_eq!(renewed.body["data"]["creation_ttl"], 3600);
    assert!(renewed.body["data"]["last_renewal_time"].is_u64());
    let root = bed.root(Operation::Update, "auth/token/lookup", json!({})).await.expect(200);
    assert_eq!((&root.body["data"]["expire_time"], &root.body["data"]["ttl"]), (&Value::Null, &json!(0)));
}

#[tokio::test]
async fn what_is_unknown_is_answered_as_vault_does() {
    let bed = Bed::new().await;
    let ask = async |path: &str, body: Value| {
        bed.root(Operation::Update, &format!("auth/token/{path}"), body).await
    };
    assert_eq!(ask("lookup", json!({"token": "s.no"})).await.expect(403).text("/errors/0"), "bad token");
    assert_eq!(ask("renew", json!({"token": "s.no"})).await.expect(400).text("/errors/0"), "token not found");
    ask("revoke", json!({"token": "s.no"})).await.expect(204);
    assert_eq!(ask("revoke", json!({})).await.expect(400).text("/errors/0"), "missing token ID");
    let orphan = ask("revoke-orphan", json!({"token": "s.no"})).await.expect(400);
    assert_eq!(orphan.text("/errors/0"), "token to revoke not found");
    let invalid = "1 error occurred:\n\t* invalid accessor\n\n";
    for path in ["lookup-accessor", "renew-accessor"] {
        assert_eq!(ask(path, json!({"accessor": "zz"})).await.expect(400).text("/errors/0"), invalid);
    }
    let gone = ask("revoke-accessor", json!({"accessor": "zz"})).await.expect(200);
    assert_eq!(gone.body["warnings"], json!(["No token found with this accessor"]));
    assert_eq!(ask("renew-self", json!({})).await.expect(400).text("/errors/0"), "lease is not renewable");
    let nowhere = ask("nosuch", json!({})).await.expect(404);
    assert_eq!(nowhere.text("/errors/0"), "1 error occurred:\n\t* unsupported path\n\n");
    let tidy = ask("tidy", json!({})).await.expect(202);
    assert!(tidy.text("/warnings/0").starts_with("Tidy operation successfully started."));
}

#[tokio::test]
async fn only_the_powerful_choose_more_than_they_have() {
    let bed = Bed::new().await;
    policy(&bed, "mk", r#"path "auth/token/create*" { capabilities = ["create", "update"] }"#).await;
    policy(&bed, "mks", r#"path "auth/token/create*" { capabilities = ["create", "update", "sudo"] }"#).await;
    let plain = create(&bed, &bed.root, json!({"policies": ["mk"]})).await;
    let sudo = create(&bed, &bed.root, json!({"policies": ["mks"]})).await;
    let refused = async |token: &str, body: Value| {
        bed.post("auth/token/create", token, body).await.expect(400).text("/errors/0")
    };
    for policies in [json!(["zz"]), json!(["root"])] {
        let said = refused(&plain, json!({"policies": policies})).await;
        assert_eq!(said, "child policies must be subset of parent");
    }
    let said = refused(&plain, json!({"id": "mine"})).await;
    assert_eq!(said, "root or sudo privileges required to specify token id");
    let said = refused(&plain, json!({"no_parent": true})).await;
    assert_eq!(said, "root or sudo privileges required to create orphan token");
    let said = refused(&plain, json!({"period": "1h"})).await;
    assert_eq!(said, "root or sudo privileges required to create periodic token");
    let said = refused(&sudo, json!({"policies": ["root"]})).await;
    assert_eq!(said, "root tokens may not be created without parent token being root");
    let orphan = bed.post("auth/token/create-orphan", &plain, json!({})).await.expect(200);
    assert_eq!(orphan.body["auth"]["orphan"], true);
    let said = refused(&bed.root, json!({"policies": ["default"], "num_uses": -1})).await;
    assert_eq!(said, "number of uses cannot be negative");

    let mine =
        bed.post("auth/token/create", &sudo, json!({"id": "mine", "no_parent": true})).await.expect(200);
    assert_eq!(mine.text("/auth/client_token"), "mine");
    assert!(alive(&bed, "mine").await);
    assert_eq!(refused(&sudo, json!({"id": "mine"})).await, "cannot create a token with a duplicate ID");
    assert_eq!(refused(&sudo, json!({"id": "a.b"})).await, "custom token ID cannot have a '.' in the value");
    let said = refused(&sudo, json!({"id": "s.b"})).await;
    assert_eq!(said, "custom token ID cannot have the 's.' prefix");
    bed.post("auth/token/revoke", &bed.root, json!({"token": "mine"})).await.expect(204);
    assert_eq!(refused(&sudo, json!({"id": "mine"})).await, "cannot create a token with a duplicate ID");
}

#[tokio::test]
async fn lives_are_bounded_and_periods_are_not() {
    let bed = Bed::new().await;
    let made = bed
        .root(Operation::Update, "auth/token/create", json!({"policies": ["default"], "ttl": "99999h"}))
        .await
        .expect(200);
    assert_eq!(
        made.body["warnings"],
        json!([
            "TTL of \"99999h\" exceeded the effective max_ttl of \"768h\"; TTL value is capped accordingly"
        ])
    );
    let limited =
        create(&bed, &bed.root, json!({"policies": ["default"], "ttl": "1h", "explicit_max_ttl": "90m"}))
            .await;
    let periodic = create(&bed, &bed.root, json!({"policies": ["default"], "period": "1h"})).await;
    let both =
        create(&bed, &bed.root, json!({"policies": ["default"], "period": "1h", "explicit_max_ttl": "2h"}))
            .await;
    let renew = async |token: &str| {
        bed.post("auth/token/renew-self", token, json!({})).await.expect(200).body["auth"]["lease_duration"]
            .as_u64()
            .unwrap()
    };
    bed.advance(Duration::from_secs(45 * 60)).await;
    assert_eq!(renew(&limited).await, 45 * 60);
    assert_eq!(renew(&periodic).await, 3600);
    assert_eq!(renew(&both).await, 3600);
    bed.advance(Duration::from_secs(44 * 60)).await;
    assert_eq!(renew(&both).await, 31 * 60);
    bed.advance(Duration::from_secs(16 * 60)).await;
    assert!(!alive(&bed, &limited).await);
    assert!(!alive(&bed, &periodic).await, "nobody renewed it in its period");
    bed.advance(Duration::from_secs(16 * 60)).await;
    assert!(!alive(&bed, &both).await);
}

#[tokio::test]
async fn the_last_use_works_and_then_everything_is_gone() {
    let bed = Bed::with_pods().await;
    policy(&bed, "creds", r#"path "database/creds/*" { capabilities = ["read"] }"#).await;
    let token = create(&bed, &bed.root, json!({"policies": ["creds"], "num_uses": 3})).await;
    let (_, account) = bed.issue(&token).await;
    bed.post("cubbyhole/a", &token, json!({"x": 1})).await.expect(204);
    assert!(bed.database.has(&account));
    let last = bed.get("cubbyhole/a", &token).await.expect(200);
    assert_eq!(last.body["data"]["x"], 1);
    bed.get("cubbyhole/a", &token).await.expect(403);
    assert!(!bed.database.has(&account));

    let token = create(&bed, &bed.root, json!({"policies": ["creds"], "num_uses": 1})).await;
    let said = bed.get("database/creds/orders", &token).await.expect(400).text("/errors/0");
    assert!(said.starts_with("Secret cannot be returned; token had one use left"));
    assert!(bed.database.accounts().is_empty());

    let token = create(&bed, &bed.root, json!({"policies": ["creds"], "num_uses": 1})).await;
    bed.post("cubbyhole/a", &token, json!({"x": 1})).await.expect(204);
    assert!(!alive(&bed, &token).await);
}

#[tokio::test]
async fn a_cubbyhole_is_its_tokens_alone_and_ends_with_it() {
    let bed = Bed::new().await;
    let one = create(&bed, &bed.root, json!({"policies": ["default"]})).await;
    let two = create(&bed, &bed.root, json!({"policies": ["default"]})).await;
    let rows_idle = bed.store.dump().len();
    bed.post("cubbyhole/a/b", &one, json!({"x": 1, "y": {"z": 2}})).await.expect(204);
    assert_eq!(bed.get("cubbyhole/a/b", &one).await.expect(200).body["data"], json!({"x": 1, "y": {"z": 2}}));
    for other in [&two, &bed.root] {
        bed.get("cubbyhole/a/b", other).await.expect(404);
        bed.send(Operation::List, "cubbyhole/", Some(other), Value::Null).await.expect(404);
    }
    let list = async |path: &str| bed.send(Operation::List, path, Some(&one), Value::Null).await;
    assert_eq!(list("cubbyhole/").await.expect(200).body["data"]["keys"], json!(["a/"]));
    assert_eq!(list("cubbyhole/a/").await.expect(200).body["data"]["keys"], json!(["b"]));
    bed.post("cubbyhole/a/b", &one, json!({})).await.expect(400);
    bed.post("cubbyhole/c", &one, json!({"big": "x".repeat(600 * 1024)})).await.expect(413);
    bed.send(Operation::Delete, "cubbyhole/a/b", Some(&one), Value::Null).await.expect(204);
    list("cubbyhole/").await.expect(404);

    for n in 0..600 {
        bed.post(&format!("cubbyhole/many/{n}"), &one, json!({"n": n})).await.expect(204);
    }
    assert!(bed.store.dump().len() > rows_idle + 1200);
    bed.post("auth/token/revoke", &bed.root, json!({"token": one})).await.expect(204);
    bed.vault.trim().await.unwrap();
    let mounts = |dump: &[(Vec<u8>, Vec<u8>)]| {
        dump.iter().map(|(key, _)| key[..17].to_vec()).collect::<std::collections::BTreeSet<_>>().len()
    };
    // Those of the system, the boot records and the mounts, as in a vault that never saw a cubbyhole.
    let fresh = Bed::new().await;
    let token = create(&fresh, &fresh.root, json!({"policies": ["default"]})).await;
    fresh.post("auth/token/revoke", &fresh.root, json!({"token": token})).await.expect(204);
    assert_eq!(mounts(&bed.store.dump()), mounts(&fresh.store.dump()));
}

#[tokio::test]
async fn children_of_a_token_revoked_alone_live_on() {
    let bed = Bed::with_pods().await;
    policy(
        &bed,
        "mk",
        r#"path "auth/token/create" { capabilities = ["update"] }
        path "database/creds/*" { capabilities = ["read"] }"#,
    )
    .await;
    let grand = create(&bed, &bed.root, json!({"policies": ["mk"]})).await;
    let parent = create(&bed, &grand, json!({})).await;
    let (_, of_parent) = bed.issue(&parent).await;
    let child = create(&bed, &parent, json!({})).await;
    let (_, of_child) = bed.issue(&child).await;
    let below = create(&bed, &child, json!({})).await;
    bed.post("auth/token/revoke-orphan", &parent, json!({"token": parent})).await.expect(403);
    bed.post("auth/token/revoke-orphan", &bed.root, json!({"token": parent})).await.expect(204);
    assert!(!alive(&bed, &parent).await && !bed.database.has(&of_parent));
    assert!(alive(&bed, &child).await && alive(&bed, &below).await && bed.database.has(&of_child));
    let shown = bed.get("auth/token/lookup-self", &child).await.expect(200);
    assert_eq!(shown.body["data"]["orphan"], true);
    assert_eq!(bed.get("auth/token/lookup-self", &below).await.expect(200).body["data"]["orphan"], false);
    bed.post("auth/token/revoke", &bed.root, json!({"token": grand})).await.expect(204);
    assert!(alive(&bed, &child).await && alive(&bed, &below).await, "they have nobody above any more");
    bed.post("auth/token/revoke", &bed.root, json!({"token": child})).await.expect(204);
    assert!(!alive(&bed, &below).await && !bed.database.has(&of_child));
}
