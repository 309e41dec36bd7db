//! Groups: what their members may do, who is in them, and what becomes of entities that are one.

use crate::bed;

use bed::issuer::{ISSUER, Issuer};
use bed::{Answer, Bed};
use coffer_vault::Clock as _;
use coffer_vault::Operation::{Delete, List, Read, Update};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

/// A vault with a user `anna`, logged in: her token and her entity.
async fn with_anna() -> (Bed, String, String) {
    let bed = Bed::new().await;
    bed.root(Update, "sys/auth/userpass", json!({"type": "userpass"})).await.expect(204);
    user(&bed, "anna").await;
    let (token, id) = login(&bed, "anna").await;
    bed.root(Update, "secret/data/a", json!({"data": {"k": "v"}})).await.expect(200);
    let policy = r#"path "secret/data/a" { capabilities = ["read"] }"#;
    bed.root(Update, "sys/policies/acl/reader", json!({ "policy": policy })).await.expect(204);
    (bed, token, id)
}

async fn user(bed: &Bed, name: &str) {
    let body = json!({"password_hash": bcrypt::hash("pw", 5).unwrap()});
    bed.root(Update, &format!("auth/userpass/users/{name}"), body).await.expect(204);
}

async fn login(bed: &Bed, name: &str) -> (String, String) {
    let path = format!("auth/userpass/login/{name}");
    let answer = bed.send(Update, &path, None, json!({"password": "pw"})).await.expect(200);
    (answer.text("/auth/client_token"), answer.text("/auth/entity_id"))
}

async fn group(bed: &Bed, body: Value) -> String {
    bed.root(Update, "identity/group", body).await.expect(200).text("/data/id")
}

async fn refused(bed: &Bed, path: &str, body: Value, why: &str) {
    let answer = bed.root(Update, path, body).await.expect(400);
    assert!(answer.text("/errors/0").contains(why), "{why}: {answer:?}");
}

async fn shown(bed: &Bed, path: &str) -> Value {
    bed.root(Read, path, Value::Null).await.expect(200).body["data"].clone()
}

#[tokio::test]
async fn a_group_gives_its_policies_to_its_members_from_one_moment_to_the_next() {
    let (bed, token, anna) = with_anna().await;
    let may = async |status: u16| drop(bed.get("secret/data/a", &token).await.expect(status));
    may(403).await;
    let inner = group(&bed, json!({"name": "inner", "member_entity_ids": [anna]})).await;
    let outer =
        group(&bed, json!({"name": "outer", "policies": ["Reader"], "member_group_ids": [inner]})).await;
    may(200).await;
    let entity = shown(&bed, &format!("identity/entity/id/{anna}")).await;
    assert_eq!(entity["direct_group_ids"], json!([inner]));
    assert_eq!(
        (&entity["inherited_group_ids"], &entity["group_ids"]),
        (&json!([outer]), &json!([inner, outer]))
    );
    let looked = bed.get("auth/token/lookup-self", &token).await.expect(200);
    assert_eq!(looked.body["data"]["identity_policies"], json!(["reader"]));
    // Out of the inner group, out of the outer one.
    bed.root(Update, &format!("identity/group/id/{inner}"), json!({"member_entity_ids": []}))
        .await
        .expect(204);
    may(403).await;
    bed.root(Update, "identity/group/name/outer", json!({"member_entity_ids": [anna]})).await.expect(204);
    may(200).await;
    bed.root(Update, &format!("identity/group/id/{outer}"), json!({"policies": []})).await.expect(204);
    may(403).await;
    bed.root(Update, &format!("identity/group/id/{outer}"), json!({"policies": ["reader"]}))
        .await
        .expect(204);
    may(200).await;
    bed.root(Delete, "identity/group/name/outer", Value::Null).await.expect(204);
    may(403).await;
    assert_eq!(shown(&bed, &format!("identity/entity/id/{anna}")).await["group_ids"], json!([]));
    assert_eq!(shown(&bed, &format!("identity/group/id/{inner}")).await["parent_group_ids"], Value::Null);
}

#[tokio::test]
async fn groups_are_shown_listed_and_outlive_a_restart() {
    let (mut bed, token, anna) = with_anna().await;
    let body =
        json!({"name": "team", "policies": ["reader"], "member_entity_ids": [anna], "metadata": {"k": "v"}});
    let id = group(&bed, body).await;
    bed.restart().await;
    bed.get("secret/data/a", &token).await.expect(200);
    let team = shown(&bed, "identity/group/name/TEAM").await;
    assert_eq!((&team["id"], &team["type"], &team["alias"]), (&json!(id), &json!("internal"), &json!({})));
    assert_eq!((&team["member_entity_ids"], &team["metadata"]), (&json!([anna]), &json!({"k": "v"})));
    assert_eq!(team, shown(&bed, &format!("identity/group/id/{id}")).await);
    let listed = bed.root(List, "identity/group/id", Value::Null).await.expect(200);
    let about = json!({"name": "team", "num_member_entities": 1, "num_parent_groups": 0});
    assert_eq!(listed.body["data"]["key_info"][&id], about);
    let names = bed.root(List, "identity/group/name", Value::Null).await.expect(200);
    assert_eq!(names.body["data"]["keys"], json!(["team"]));
    let looked = bed.root(Update, "identity/lookup/group", json!({"name": "team"})).await.expect(200);
    assert_eq!(looked.body["data"], team);
    bed.root(Update, "identity/lookup/group", json!({"name": "none"})).await.expect(204);
    // Whoever is gone is in no group.
    bed.root(Delete, &format!("identity/entity/id/{anna}"), Value::Null).await.expect(204);
    assert_eq!(shown(&bed, "identity/group/name/team").await["member_entity_ids"], Value::Null);
    bed.root(Delete, &format!("identity/group/id/{id}"), Value::Null).await.expect(204);
    bed.root(Read, &format!("identity/group/id/{id}"), Value::Null).await.expect(404);
    bed.root(Read, "identity/group/name/team", Value::Null).await.expect(404);
    bed.root(List, "identity/group/id", Value::Null).await.expect(404);
}

#[tokio::test]
async fn what_a_group_cannot_be_is_refused_in_openbaos_words() {
    let (bed, _, anna) = with_anna().await;
    let a = group(&bed, json!({"name": "a"})).await;
    let b = group(&bed, json!({"name": "b", "member_group_ids": [a]})).await;
    let external = group(&bed, json!({"name": "ext", "type": "external"})).await;
    for root in ["root", "Root", "ROOT"] {
        refused(
            &bed,
            "identity/group",
            json!({"name": "r", "policies": [root]}),
            "policies cannot contain root",
        )
        .await;
        refused(&bed, "identity/group/name/a", json!({"policies": root}), "policies cannot contain root")
            .await;
    }
    let to_a = format!("identity/group/id/{a}");
    for (path, body, why) in [
        ("identity/group", json!({"name": "t", "type": "strange"}), "invalid group type \"strange\""),
        ("identity/group", json!({"name": "m", "member_entity_ids": ["nope"]}), "invalid entity ID \"nope\""),
        (
            "identity/group",
            json!({"name": "m", "member_group_ids": ["nope"]}),
            "invalid member group ID \"nope\"",
        ),
        (&to_a, json!({"member_group_ids": [a]}), "is same as the ID of the group"),
        (&to_a, json!({"member_group_ids": [b]}), "cyclic relationship detected"),
        (&to_a, json!({"type": "external"}), "group type cannot be changed"),
        (&to_a, json!({"name": "b"}), "group name is already in use"),
        ("identity/group/id/none", json!({"name": "x"}), "invalid group ID"),
        (
            "identity/group/name/ext",
            json!({"member_entity_ids": [anna]}),
            "can't be set manually for external groups",
        ),
        ("identity/group/name/ext", json!({"member_group_ids": [a]}), "can't be set for external groups"),
        ("identity/lookup/group", json!({}), "query parameter not supplied"),
    ] {
        refused(&bed, path, body, why).await;
    }
    // What was refused left nothing behind.
    bed.root(Read, "identity/group/name/m", Value::Null).await.expect(404);
    assert_eq!(shown(&bed, &format!("identity/group/id/{external}")).await["type"], "external");
}

#[tokio::test]
async fn groups_fill_templates_of_their_members_only() {
    let (bed, token, anna) = with_anna().await;
    let policy = r#"path "secret/data/{{identity.groups.names.red team.id}}" { capabilities = ["create"] }
        path "secret/data/by/{{identity.groups.names.red team.metadata.room}}" { capabilities = ["create"] }"#;
    bed.root(Update, "sys/policies/acl/own", json!({ "policy": policy })).await.expect(204);
    let id =
        group(&bed, json!({"name": "red team", "policies": ["own"], "metadata": {"room": "seven"}})).await;
    let everybody =
        group(&bed, json!({"name": "all", "policies": ["own"], "member_entity_ids": [anna]})).await;
    let body = || json!({"data": {"k": "v"}});
    for path in [format!("secret/data/{id}"), "secret/data/by/seven".to_owned()] {
        bed.post(&path, &token, body()).await.expect(403);
        bed.root(Update, "identity/group/name/red team", json!({"member_entity_ids": [anna]}))
            .await
            .expect(204);
        bed.post(&path, &token, body()).await.expect(200);
        bed.root(Update, "identity/group/name/red team", json!({"member_entity_ids": []})).await.expect(204);
    }
    // A value that reaches for other paths fills nothing.
    let more = json!({"member_entity_ids": [anna], "metadata": {"room": "x/y"}});
    bed.root(Update, "identity/group/name/red team", more).await.expect(204);
    bed.post("secret/data/by/x/y", &token, body()).await.expect(403);
    bed.root(Delete, &format!("identity/group/id/{everybody}"), Value::Null).await.expect(204);
}

/// A vault that trusts an issuer, with an external group `devs` that has the policy `reader`.
async fn with_devs(issuer: &Issuer) -> (Bed, String, String) {
    let (bed, ..) = with_anna().await;
    bed.root(Update, "sys/auth/jwt", json!({"type": "jwt"})).await.expect(204);
    let config = json!({"jwt_validation_pubkeys": [issuer.public_pem()], "bound_issuer": ISSUER});
    bed.root(Update, "auth/jwt/config", config).await.expect(204);
    let role = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": "coffer", "groups_claim": "groups"});
    bed.root(Update, "auth/jwt/role/dev", role).await.expect(204);
    let mounts = shown(&bed, "sys/auth").await;
    let accessor = mounts["jwt/"]["accessor"].as_str().unwrap().to_owned();
    let devs = group(&bed, json!({"name": "developers", "type": "external", "policies": ["reader"]})).await;
    let alias = json!({"name": "devs", "mount_accessor": accessor, "canonical_id": devs});
    bed.root(Update, "identity/group-alias", alias).await.expect(200);
    (bed, devs, accessor)
}

async fn with_groups(bed: &Bed, issuer: &Issuer, groups: Value) -> Answer {
    let mut claims = issuer.claims("bob", bed.clock.now());
    claims["groups"] = groups;
    let body = json!({"role": "dev", "jwt": issuer.jwt(&claims)});
    bed.send(Update, "auth/jwt/login", None, body).await.expect(200)
}

#[tokio::test]
async fn an_auth_method_says_who_is_in_an_external_group() {
    let issuer = Issuer::new(Algorithm::ES256);
    let (bed, devs, accessor) = with_devs(&issuer).await;
    let outside = with_groups(&bed, &issuer, json!(["others"])).await;
    let (token, entity) = (outside.text("/auth/client_token"), outside.text("/auth/entity_id"));
    bed.get("secret/data/a", &token).await.expect(403);
    let inside = with_groups(&bed, &issuer, json!(["DEVS", "others"])).await;
    assert_eq!(inside.body["auth"]["identity_policies"], json!(["reader"]));
    assert_eq!(shown(&bed, "identity/group/name/developers").await["member_entity_ids"], json!([entity]));
    // His older token is his, too.
    bed.get("secret/data/a", &token).await.expect(200);
    // A group that he was put into by hand, and one of another mount, are not this mount's to take away.
    group(&bed, json!({"name": "by hand", "member_entity_ids": [entity]})).await;
    let after = with_groups(&bed, &issuer, json!([])).await;
    assert_eq!(after.body["auth"].get("identity_policies"), None);
    bed.get("secret/data/a", &token).await.expect(403);
    let groups = shown(&bed, &format!("identity/entity/id/{entity}")).await["direct_group_ids"].clone();
    assert_eq!(groups.as_array().unwrap().len(), 1);

    let listed = bed.root(List, "identity/group-alias/id", Value::Null).await.expect(200);
    let alias = listed.text("/data/keys/0");
    let at = format!("identity/group-alias/id/{alias}");
    let found = shown(&bed, &at).await;
    assert_eq!(
        (&found["canonical_id"], &found["name"], &found["mount_type"]),
        (&json!(devs), &json!("devs"), &json!("jwt"))
    );
    let inner = group(&bed, json!({"name": "inner"})).await;
    for (body, why) in [
        (json!({"name": "x", "mount_accessor": "no"}), "invalid mount accessor"),
        (
            json!({"name": "x", "mount_accessor": accessor, "canonical_id": inner}),
            "alias can't be set on an internal group",
        ),
        (json!({"name": "devs", "mount_accessor": accessor}), "is already in use"),
    ] {
        refused(&bed, "identity/group-alias", body, why).await;
    }
    with_groups(&bed, &issuer, json!(["devs"])).await;
    bed.root(Update, &at, json!({"name": "renamed"})).await.expect(200);
    with_groups(&bed, &issuer, json!(["devs"])).await;
    bed.get("secret/data/a", &token).await.expect(403);
    with_groups(&bed, &issuer, json!(["renamed"])).await;
    bed.get("secret/data/a", &token).await.expect(200);
    bed.root(Delete, &at, Value::Null).await.expect(204);
    bed.root(Read, &at, Value::Null).await.expect(404);
    with_groups(&bed, &issuer, json!(["renamed"])).await;
    bed.get("secret/data/a", &token).await.expect(403);
}

#[tokio::test]
async fn entities_that_are_one_person_become_one() {
    let (bed, token, anna) = with_anna().await;
    user(&bed, "berta").await;
    let (other_token, berta) = login(&bed, "berta").await;
    let team =
        group(&bed, json!({"name": "team", "policies": ["reader"], "member_entity_ids": [berta]})).await;
    let merge = |to: &str, from: Value| {
        bed.root(Update, "identity/entity/merge", json!({"to_entity_id": to, "from_entity_ids": from}))
    };
    for (to, from, why) in [
        ("", json!([berta]), "missing entity id to merge to"),
        (anna.as_str(), json!([]), "missing entity ids to merge from"),
        ("none", json!([berta]), "entity id to merge to is invalid"),
        (&anna, json!(["none"]), "entity id to merge from is invalid"),
        (&anna, json!([anna]), "should not be present in from_entity_ids"),
        // Both have a name at the same mount.
        (&anna, json!([berta]), "an alias at the same mount"),
    ] {
        let answer = merge(to, from).await.expect(400);
        assert!(answer.text("/errors/0").contains(why), "{why}: {answer:?}");
    }
    let alias = shown(&bed, &format!("identity/entity/id/{anna}")).await["aliases"][0]["id"].clone();
    bed.root(Delete, &format!("identity/entity-alias/id/{}", alias.as_str().unwrap()), Value::Null)
        .await
        .expect(204);
    bed.root(
        Update,
        &format!("identity/entity/id/{berta}"),
        json!({"policies": ["secret-policy"], "disabled": true}),
    )
    .await
    .expect(204);
    assert!(merge(&anna, json!([berta])).await.expect(400).text("/errors/0").contains("disabled"));
    bed.root(Update, &format!("identity/entity/id/{berta}"), json!({"disabled": false})).await.expect(204);
    bed.get("secret/data/a", &token).await.expect(403);
    merge(&anna, json!([berta])).await.expect(204);
    // The groups of one are the other's, and tokens of both find her.
    bed.get("secret/data/a", &token).await.expect(200);
    bed.get("secret/data/a", &other_token).await.expect(200);
    bed.root(Read, &format!("identity/entity/id/{berta}"), Value::Null).await.expect(404);
    let one = shown(&bed, &format!("identity/entity/id/{anna}")).await;
    assert_eq!((&one["merged_entity_ids"], &one["policies"]), (&json!([berta]), &json!([])));
    assert_eq!(one["aliases"][0]["merged_from_canonical_ids"], json!([berta]));
    assert_eq!(shown(&bed, &format!("identity/group/id/{team}")).await["member_entity_ids"], json!([anna]));
    assert_eq!(login(&bed, "berta").await.1, anna);
    // Disabled, she is so under every id.
    bed.root(Update, &format!("identity/entity/id/{anna}"), json!({"disabled": true})).await.expect(204);
    bed.get("secret/data/a", &other_token).await.expect(403);
    bed.get("secret/data/a", &token).await.expect(403);
}

#[tokio::test]
async fn a_token_role_makes_tokens_of_an_entity_that_it_allows() {
    let (bed, ..) = with_anna().await;
    let role =
        json!({"allowed_policies": "default", "orphan": true, "allowed_entity_aliases": ["robot-*", "carl"]});
    bed.root(Update, "auth/token/roles/r", role).await.expect(204);
    let make = |alias: &str| {
        bed.root(Update, "auth/token/create/r", json!({"policies": ["default"], "entity_alias": alias}))
    };
    let made = make("robot-1").await.expect(200);
    let (token, entity) = (made.text("/auth/client_token"), made.text("/auth/entity_id"));
    assert_eq!(make("ROBOT-1").await.expect(200).text("/auth/entity_id"), entity);
    assert_ne!(make("Carl").await.expect(200).text("/auth/entity_id"), entity);
    bed.get("secret/data/a", &token).await.expect(403);
    group(&bed, json!({"name": "robots", "policies": ["reader"], "member_entity_ids": [entity]})).await;
    bed.get("secret/data/a", &token).await.expect(200);
    assert!(make("other").await.expect(400).text("/errors/0").contains("invalid 'entity_alias' value"));
    let body = json!({"entity_alias": "robot-1"});
    let alone = bed.root(Update, "auth/token/create", body).await.expect(400);
    assert!(alone.text("/errors/0").contains("only allowed in combination with token role"));
    bed.root(Update, &format!("identity/entity/id/{entity}"), json!({"disabled": true})).await.expect(204);
    bed.get("secret/data/a", &token).await.expect(403);
    make("robot-1").await.expect(403);
}
