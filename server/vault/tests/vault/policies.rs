//! Policies and the small tools, as clients see them.

use crate::bed;

use std::time::Duration;

use bed::Bed;
use coffer_vault::Clock as _;
use coffer_vault::Operation::{Delete, List, Patch, Read, Update};
use coffer_vault::VaultConfig;
use serde_json::{Value, json};

#[tokio::test]
async fn a_policy_has_versions_and_comes_in_hcl_json_and_base64() {
    let bed = Bed::new().await;
    let hcl = "path \"a\" { capabilities = [\"read\"] }";
    let path = "sys/policies/acl/Mixed";
    bed.root(Update, path, json!({"policy": hcl, "cas": 0, "cas_required": true})).await.expect(204);
    let shown = bed.root(Read, "sys/policies/acl/MIXED", Value::Null).await.expect(200).body["data"].clone();
    assert_eq!(
        (&shown["name"], &shown["policy"], &shown["version"]),
        (&json!("mixed"), &json!(hcl), &json!(1))
    );
    assert!(shown["modified"].as_str().unwrap().ends_with('Z') && shown["cas_required"] == true);
    for (body, words) in [
        (json!({"policy": hcl}), "check-and-set parameter required for this call"),
        (json!({"policy": hcl, "cas": 5}), "check-and-set parameter 5 did not match the current version 1"),
        (json!({"policy": ""}), "'policy' parameter not supplied or empty"),
        (
            json!({"policy": hcl, "cas": 1, "ttl": "1h"}),
            "\"ttl\" of a policy is not supported by this server",
        ),
    ] {
        assert_eq!(bed.root(Update, path, body).await.expect(400).text("/errors/0"), words);
    }
    let base64 = "cGF0aCAiYSIgeyBjYXBhYmlsaXRpZXM9WyJyZWFkIl0gfQ==";
    bed.root(Update, path, json!({"policy": base64, "cas": 1})).await.expect(204);
    let legacy = bed.root(Read, "sys/policy/mixed", Value::Null).await.expect(200);
    assert_eq!(
        (legacy.text("/rules"), &legacy.body["data"]["version"]),
        ("path \"a\" { capabilities=[\"read\"] }".into(), &json!(2))
    );
    bed.root(Update, path, json!({"policy": "{\"path\": {\"b\": {\"capabilities\": [\"list\"]}}}"}))
        .await
        .expect(204);
    bed.root(Patch, path, json!({"cas_required": true, "custom_metadata": {"team": "shop"}}))
        .await
        .expect(200);
    let shown = bed.root(Read, path, Value::Null).await.expect(200).body["data"].clone();
    assert_eq!((&shown["version"], &shown["custom_metadata"]["team"]), (&json!(4), &json!("shop")));
    assert!(shown["policy"].as_str().unwrap().contains("\"list\"") && shown["cas_required"] == true);
    bed.root(Patch, path, json!({"policy": hcl, "cas": 3})).await.expect(400);
    bed.root(Patch, path, json!({"policy": "path", "cas": 4})).await.expect(400);
    bed.root(Patch, path, json!({"policy": hcl, "cas": 4, "cas_required": false})).await.expect(200);
    bed.root(Patch, "sys/policies/acl/none", json!({"cas": 0})).await.expect(400);
    let detailed = bed.root(List, "sys/policies/detailed/acl", Value::Null).await.expect(200);
    assert_eq!(detailed.body["data"]["keys"], json!(["default", "mixed", "root"]));
    assert_eq!(detailed.body["data"]["key_info"]["mixed"]["policy"], hcl);
    let listed = bed.root(List, "sys/policies/acl", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"], json!({"keys": ["default", "mixed", "root"]}));
    let listed = bed.root(Read, "sys/policy", Value::Null).await.expect(200);
    assert_eq!(listed.body["policies"], json!(["default", "mixed", "root"]));
    for (name, words) in
        [("default", "cannot delete default policy"), ("root", "cannot delete \"root\" policy")]
    {
        let answer = bed.root(Delete, &format!("sys/policies/acl/{name}"), Value::Null).await.expect(400);
        assert_eq!(answer.text("/errors/0"), words);
    }
}

#[tokio::test]
async fn tools_and_catalogue_answer_as_vaults_do() {
    let bed = Bed::new().await;
    let hello = json!({"input": "aGVsbG8="});
    let sum = bed.root(Update, "sys/tools/hash", hello).await.expect(200).text("/data/sum");
    assert_eq!(sum, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    let body = json!({"input": "aGVsbG8=", "format": "base64"});
    let sum = bed.root(Update, "sys/tools/hash/sha2-512", body).await.expect(200).text("/data/sum");
    assert!(sum.starts_with("m3HSJL1i83hdltRq"), "{sum}");
    let bytes = |body: Value, path: &'static str| {
        let bed = &bed;
        async move { bed.root(Update, path, body).await.expect(200).text("/data/random_bytes") }
    };
    assert_eq!(bytes(json!({"format": "hex"}), "sys/tools/random/8").await.len(), 16);
    assert_ne!(bytes(json!({}), "sys/tools/random").await, bytes(json!({}), "sys/tools/random").await);
    for (path, body, words) in [
        ("random/0", json!({}), "'bytes' cannot be less than 1"),
        ("random/131073", json!({}), "'bytes' should be less than 131072"),
        (
            "random",
            json!({"format": "zz"}),
            "unsupported encoding format \"zz\"; must be \"hex\" or \"base64\"",
        ),
        ("hash/md5", json!({"input": ""}), "unsupported algorithm md5"),
        (
            "hash",
            json!({"input": "", "format": "zz"}),
            "unsupported encoding format zz; must be \"hex\" or \"base64\"",
        ),
    ] {
        let answer = bed.root(Update, &format!("sys/tools/{path}"), body).await.expect(400);
        assert_eq!(answer.text("/errors/0"), words);
    }
    bed.root(Read, "sys/tools/random/8", Value::Null).await.expect(405);
    let catalogue = bed.root(Read, "sys/plugins/catalog", Value::Null).await.expect(200);
    assert_eq!(catalogue.body["data"]["secret"], json!(["database", "kv"]));
    bed.root(List, "sys/plugins/catalog/auth", Value::Null).await.expect(200);
    bed.root(Read, "sys/plugins/catalog/secret/nope", Value::Null).await.expect(404);
    bed.root(List, "sys/namespaces", Value::Null).await.expect(404);
}

async fn history(bed: &Bed) -> Value {
    bed.root(List, "sys/version-history", Value::Null).await.expect(200).body["data"].clone()
}

#[tokio::test]
async fn versions_of_the_server_are_told_in_the_order_in_which_they_opened_the_vault() {
    let mut bed = Bed::new().await;
    let first = history(&bed).await;
    let own = first["keys"][0].as_str().unwrap();
    assert_eq!((&first["keys"], &first["key_info"][own]["previous_version"]), (&json!([own]), &Value::Null));
    bed.restart().await;
    assert_eq!(history(&bed).await, first, "the same version, the same time");
    bed.reconfigure(VaultConfig { version: "9.0.0".into(), ..VaultConfig::default() });
    bed.restart().await;
    let second = history(&bed).await;
    assert_eq!(second["keys"], json!([own, "9.0.0"]));
    assert_eq!(second["key_info"]["9.0.0"]["previous_version"], own);
}

#[tokio::test]
async fn a_server_says_what_it_runs_on_what_it_was_told_and_how_it_does() {
    let sanitized = serde_json::Map::from_iter([("api_addr".to_owned(), json!("https://here"))]);
    let bed = Bed::configured(VaultConfig { sanitized, ..VaultConfig::default() }).await;
    let host = bed.root(Read, "sys/host-info", Value::Null).await.expect(200).body["data"].clone();
    assert!(host["memory"]["total"].as_u64().unwrap() > 0 && host["cpu"][0]["cpu"] == 0, "{host}");
    assert!(host["host"]["uptime"].is_u64() && host["timestamp"].is_string(), "{host}");
    let config = bed.root(Read, "sys/config/state/sanitized", Value::Null).await.expect(200);
    assert_eq!(config.body["data"]["api_addr"], "https://here");
    assert_eq!(config.body["data"]["max_lease_ttl"], 32 * 24 * 3600);
    let metrics = bed.root(Read, "sys/metrics", Value::Null).await.expect(200).body;
    let gauges = metrics["Gauges"].as_array().unwrap();
    let unsealed = gauges.iter().find(|gauge| gauge["Name"] == "coffer_unsealed").unwrap();
    assert_eq!(unsealed["Value"], 1.0);
    let counters = metrics["Counters"].as_array().unwrap();
    let reads = |counter: &&Value| {
        counter["Name"] == "coffer_requests_total" && counter["Labels"]["operation"] == "read"
    };
    assert_eq!(counters.iter().find(reads).unwrap()["Count"], 3.0);
    let refused = bed.root(Read, "sys/metrics?format=xml", Value::Null).await.expect(400);
    assert_eq!(refused.text("/errors/0"), "metric response format \"xml\" unknown");
    bed.root(Read, "sys/config/ui/headers/x", Value::Null).await.expect(404);
}

#[tokio::test]
async fn a_rule_ends_at_its_time_also_for_tokens_in_memory_and_listings_are_as_long_as_it_says() {
    let bed = Bed::new().await;
    let ends = bed.clock.now().plus(Duration::from_secs(2));
    let policy = format!(
        "path \"secret/data/a\" {{ capabilities = [\"read\"] expiration = \"{ends}\" }}\n\
         path \"secret/metadata/*\" {{ capabilities = [\"list\", \"scan\"] pagination_limit = 2 }}"
    );
    bed.root(Update, "sys/policies/acl/brief", json!({ "policy": policy })).await.expect(204);
    for name in ["a", "b", "c"] {
        bed.root(Update, &format!("secret/data/{name}"), json!({"data": {"k": "v"}})).await.expect(200);
    }
    let made = bed.root(Update, "auth/token/create", json!({"policies": ["brief"]})).await.expect(200);
    let token = made.text("/auth/client_token");
    bed.get("secret/data/a", &token).await.expect(200);
    bed.advance(Duration::from_secs(1)).await;
    bed.get("secret/data/a", &token).await.expect(200);
    bed.advance(Duration::from_secs(1)).await;
    bed.get("secret/data/a", &token).await.expect(403);
    let list = |query: &'static str| {
        let (bed, token) = (&bed, &token);
        async move { bed.send(List, &format!("secret/metadata/{query}"), Some(token), Value::Null).await }
    };
    for query in ["", "?limit=2", "?limit=0"] {
        assert_eq!(list(query).await.expect(200).body["data"]["keys"], json!(["a", "b"]), "{query}");
    }
    assert_eq!(list("?limit=1").await.expect(200).body["data"]["keys"], json!(["a"]));
    assert_eq!(list("?after=b").await.expect(200).body["data"]["keys"], json!(["c"]));
    for query in ["?limit=3", "?limit=-1", "?limit=x"] {
        list(query).await.expect(403);
    }
    let bad = json!({"policy": "path \"a\" { capabilities = [\"read\"] expiration = \"soon\" }"});
    let refused = bed.root(Update, "sys/policies/acl/bad", bad).await.expect(400);
    assert!(refused.text("/errors/0").contains("\"expiration\" must be a time"), "{refused:?}");
}
