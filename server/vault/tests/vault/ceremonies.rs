//! Keys and shares as people handle them: unseal, rekey, rotation, a new root token.

use crate::bed;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bed::{Answer, Bed};
use coffer_core::secret::SecretString;
use coffer_vault::Operation::{Delete, Read, Update};
use coffer_vault::{StatusRequest, VaultConfig};
use serde_json::{Value, json};

const NO_BODY: Value = Value::Null;

async fn unseal(bed: &Bed, key: &str) -> Answer {
    let key = Some(SecretString::copy_of(key));
    bed.status(StatusRequest::Unseal { key, reset: false }).await
}

fn error(answer: &Answer) -> String {
    answer.text("/errors/0")
}

/// Rekeys from the one key of a dev vault to `n`/`t`; gives back the new keys in hex.
async fn rekey(bed: &Bed, body: Value, old: &[String]) -> (Vec<String>, Answer) {
    let begun = bed.root(Update, "sys/rekey/init", body).await.expect(200);
    let nonce = begun.text("/nonce");
    let mut last = None;
    for key in old {
        let body = json!({"key": key, "nonce": nonce});
        last = Some(bed.root(Update, "sys/rekey/update", body).await.expect(200));
    }
    let last = last.unwrap();
    let keys = last.body["keys"].as_array().unwrap();
    (keys.iter().map(|k| k.as_str().unwrap().to_owned()).collect(), last)
}

#[tokio::test]
async fn unsealing_takes_enough_different_keys_in_hex_or_base64_and_says_how_far_it_is() {
    let bed = Bed::new().await;
    let old = [bed.unseal_key.clone()];
    let (keys, _) = rekey(&bed, json!({"secret_shares": 3, "secret_threshold": 2}), &old).await;
    bed.root(Update, "sys/seal", NO_BODY).await.expect(204);
    let one = unseal(&bed, &keys[0]).await.expect(200);
    assert_eq!((&one.body["progress"], &one.body["t"], &one.body["n"]), (&json!(1), &json!(2), &json!(3)));
    let nonce = one.text("/nonce");
    assert!(!nonce.is_empty());
    // The same key again is no progress.
    let same = unseal(&bed, &keys[0]).await.expect(200);
    assert_eq!((same.text("/nonce"), &same.body["progress"]), (nonce, &json!(1)));
    assert!(error(&unseal(&bed, "aabb").await.expect(400)).contains("shorter than minimum 16 bytes"));
    assert!(
        error(&unseal(&bed, &"ab".repeat(40)).await.expect(400)).contains("longer than maximum 33 bytes")
    );
    assert_eq!(error(&unseal(&bed, "zz!").await.expect(400)), "'key' must be a valid hex or base64 string");
    // A wrong set shows when it is complete, and all start anew.
    let wrong = unseal(&bed, &"00".repeat(33)).await.expect(400);
    assert!(error(&wrong).contains("invalid key: failed to decrypt keys from storage"));
    let status = bed.status(StatusRequest::SealStatus).await.expect(200);
    assert_eq!((&status.body["progress"], &status.body["nonce"]), (&json!(0), &json!("")));
    unseal(&bed, &keys[2]).await.expect(200);
    let reset = bed.status(StatusRequest::Unseal { key: None, reset: true }).await.expect(200);
    assert_eq!(reset.body["progress"], 0);
    unseal(&bed, &keys[2]).await.expect(200);
    let bytes = hex::decode(&keys[1]).unwrap();
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    let open = unseal(&bed, &base64).await.expect(200);
    assert_eq!((&open.body["sealed"], &open.body["progress"]), (&json!(false), &json!(0)));
    bed.root(Read, "sys/mounts", NO_BODY).await.expect(200);
}

#[tokio::test]
async fn a_rekey_replaces_the_keys_and_rotates_what_is_below_them() {
    let bed = Bed::new().await;
    bed.root(Update, "secret/data/a", json!({"data": {"v": "before"}})).await.expect(200);
    let status = bed.root(Read, "sys/rekey/init", NO_BODY).await.expect(200);
    let idle = json!({"nonce": "", "started": false, "t": 0, "n": 0, "progress": 0, "required": 1,
        "pgp_fingerprints": null, "backup": false, "verification_required": false});
    assert_eq!(status.body, idle);
    for (body, why) in [
        (json!({"secret_shares": 3, "secret_threshold": 5}), "threshold cannot be larger than shares"),
        (json!({"secret_shares": 2, "secret_threshold": 1}), "greater than one for multiple shares"),
        (json!({}), "shares must be at least one"),
        (json!({"secret_shares": 1, "secret_threshold": 1, "pgp_keys": ["x"]}), "pgp_keys is not supported"),
    ] {
        assert!(error(&bed.root(Update, "sys/rekey/init", body).await.expect(400)).contains(why));
    }
    let (keys, last) = rekey(
        &bed,
        json!({"secret_shares": 5, "secret_threshold": 3}),
        std::slice::from_ref(&bed.unseal_key),
    )
    .await;
    assert_eq!((keys.len(), &last.body["complete"], last.body.get("warnings")), (5, &json!(true), None));
    assert_eq!(bed.root(Read, "sys/rekey/init", NO_BODY).await.expect(200).body["required"], 3);
    assert_eq!(bed.root(Read, "sys/key-status", NO_BODY).await.expect(200).body["term"], 2);
    bed.root(Update, "secret/data/a", json!({"data": {"v": "after"}})).await.expect(200);
    bed.vault.rewrap().await.unwrap();
    let status = bed.root(Read, "sys/rotate/status", NO_BODY).await.expect(200);
    assert_eq!(
        (&status.body["data"]["complete"], &status.body["data"]["old_keys_retired"]),
        (&json!(true), &json!(true))
    );
    bed.root(Update, "sys/seal", NO_BODY).await.expect(204);
    unseal(&bed, &bed.unseal_key).await.expect(200);
    for key in &keys[..2] {
        unseal(&bed, key).await;
    }
    for key in &keys[2..] {
        unseal(&bed, key).await;
    }
    for (version, value) in [(1, "before"), (2, "after")] {
        let mut request = bed.request(Read, "secret/data/a", Some(&bed.root), NO_BODY);
        request.query.insert("version".into(), version.to_string());
        let read = bed.handle(request).await.expect(200);
        assert_eq!(read.text("/data/data/v"), value);
    }
}

#[tokio::test]
async fn new_keys_that_must_be_shown_again_count_only_then() {
    let bed = Bed::new().await;
    for path in ["sys/rotate/root/verify", "sys/rekey/verify"] {
        assert!(error(&bed.root(Read, path, NO_BODY).await.expect(400)).contains("configuration found"));
        bed.root(Update, path, json!({"key": bed.unseal_key, "nonce": "x"})).await.expect(400);
    }
    let body = json!({"secret_shares": 3, "secret_threshold": 2, "require_verification": true});
    let begun = bed.root(Update, "sys/rotate/root/init", body.clone()).await.expect(200);
    let again = bed.root(Update, "sys/rotate/root/init", body).await.expect(400);
    assert_eq!(error(&again), "rotation already in progress");
    let nonce = begun.text("/data/nonce");
    let update = |key: &str, nonce: &str| {
        bed.root(Update, "sys/rotate/root/update", json!({"key": key, "nonce": nonce}))
    };
    assert!(error(&update(&bed.unseal_key, "x").await.expect(400)).contains("incorrect nonce supplied"));
    let wrong = update(&"11".repeat(32), &nonce).await.expect(400);
    assert!(error(&wrong).starts_with("failed to read root key: "));
    let done = update(&bed.unseal_key, &nonce).await.expect(200);
    let keys: Vec<&str> =
        done.body["data"]["keys"].as_array().unwrap().iter().map(|k| k.as_str().unwrap()).collect();
    let verify = |key: &str, nonce: &str| {
        bed.root(Update, "sys/rotate/root/verify", json!({"key": key, "nonce": nonce}))
    };
    let nonce = done.text("/data/verification_nonce");
    verify(keys[0], &nonce).await.expect(200);
    verify(keys[0], &nonce).await.expect(400);
    // A wrong set starts the rehearsal anew, under another nonce.
    let wrong = verify(&"11".repeat(33), &nonce).await.expect(400);
    assert_eq!(error(&wrong), "rotation verification failed; incorrect key shares supplied");
    let status = bed.root(Read, "sys/rotate/root/verify", NO_BODY).await.expect(200);
    assert_eq!(status.body["data"]["progress"], 0);
    assert_ne!(status.text("/data/nonce"), nonce);
    // Until then the old key counts.
    bed.root(Update, "sys/seal", NO_BODY).await.expect(204);
    assert_eq!(unseal(&bed, &bed.unseal_key).await.expect(200).body["sealed"], false);
    let idle = bed.root(Read, "sys/rotate/root/init", NO_BODY).await.expect(200);
    assert_eq!(idle.body["data"], json!({"n": 0, "required": 1, "started": false, "t": 0}));

    let body = json!({"secret_shares": 3, "secret_threshold": 2, "require_verification": true});
    let (keys, last) = rekey(&bed, body, std::slice::from_ref(&bed.unseal_key)).await;
    let reset = bed.root(Delete, "sys/rekey/verify", NO_BODY).await.expect(200);
    assert_ne!(reset.text("/nonce"), last.text("/verification_nonce"));
    let nonce = reset.text("/nonce");
    bed.root(Update, "sys/rekey/verify", json!({"key": keys[2], "nonce": nonce})).await.expect(200);
    let done =
        bed.root(Update, "sys/rekey/verify", json!({"key": keys[1], "nonce": nonce})).await.expect(200);
    assert_eq!(done.body, json!({"nonce": nonce, "complete": true}));
    bed.root(Update, "sys/seal", NO_BODY).await.expect(204);
    unseal(&bed, &keys[0]).await.expect(200);
    assert_eq!(unseal(&bed, &keys[1]).await.expect(200).body["sealed"], false);
}

#[tokio::test]
async fn new_keys_for_the_same_master_key_come_with_a_warning() {
    let bed = Bed::new().await;
    let body = json!({"secret_shares": 1, "secret_threshold": 1, "rotate_master": false});
    let (keys, last) = rekey(&bed, body, std::slice::from_ref(&bed.unseal_key)).await;
    assert!(last.text("/warnings/0").contains("the master key was not changed"));
    assert_eq!(bed.root(Read, "sys/key-status", NO_BODY).await.expect(200).body["term"], 1);
    bed.root(Update, "sys/seal", NO_BODY).await.expect(204);
    unseal(&bed, &bed.unseal_key).await.expect(400);
    assert_eq!(unseal(&bed, &keys[0]).await.expect(200).body["sealed"], false);
}

#[tokio::test]
async fn keys_rotate_when_asked_and_when_they_are_old() {
    let bed = Bed::new().await;
    let config = bed.root(Read, "sys/rotate/config", NO_BODY).await.expect(200);
    let defaults = json!({"enabled": true, "interval": 0, "max_operations": 3_865_470_566u64});
    assert_eq!(config.body["data"], defaults);
    for (body, why) in [
        (json!({"interval": "1h"}), "interval must be greater or equal to 24h0m0s"),
        (json!({"max_operations": 5}), "max_operations must be in the range [1000000,3865470566]"),
    ] {
        assert_eq!(error(&bed.root(Update, "sys/rotate/config", body).await.expect(400)), why);
    }
    let before = bed.root(Read, "sys/key-status", NO_BODY).await.expect(200);
    assert_eq!(before.body["term"], 1);
    assert_eq!(before.body["data"]["install_time"], before.body["install_time"]);
    for path in ["sys/rotate", "sys/rotate/keyring"] {
        bed.root(Update, path, NO_BODY).await.expect(204);
        bed.root(Read, path, NO_BODY).await.expect(405);
    }
    let status = bed.root(Read, "sys/key-status", NO_BODY).await.expect(200);
    assert_eq!(status.body["term"], 3);
    assert!(status.body["encryptions"].as_u64().is_some());
    bed.root(Update, "sys/rotate/keyring/config", json!({"interval": "24h"})).await.expect(204);
    let config = bed.root(Read, "sys/rotate/config", NO_BODY).await.expect(200);
    assert_eq!(config.body["data"]["interval"], "24h0m0s");
    for path in ["sys/step-down", "sys/seal"] {
        bed.send(Update, path, None, NO_BODY).await.expect(403);
    }
    bed.root(Update, "sys/step-down", NO_BODY).await.expect(204);
    let nodes = bed.root(Read, "sys/ha-status", NO_BODY).await.expect(200);
    assert_eq!(nodes.body["nodes"][0]["active_node"], true);
    assert_eq!(nodes.body["nodes"], nodes.body["data"]["nodes"]);
}

#[tokio::test]
async fn enough_shares_give_a_new_root_token_under_its_pad() {
    let bed = Bed::new().await;
    for (attempt, update, at) in [
        ("sys/generate-root/attempt", "sys/generate-root/update", ""),
        ("sys/generate-root-token/attempt", "sys/generate-root-token/update", "/data"),
    ] {
        let idle = bed.root(Read, attempt, NO_BODY).await.expect(200);
        assert_eq!(idle.body.pointer(&format!("{at}/otp_length")), Some(&json!(45)));
        bed.root(Update, attempt, json!({"otp": "short"})).await.expect(400);
        bed.root(Update, attempt, json!({"pgp_key": "x"})).await.expect(400);
        let begun = bed.root(Update, attempt, NO_BODY).await.expect(200);
        let (otp, nonce) = (begun.text(&format!("{at}/otp")), begun.text(&format!("{at}/nonce")));
        bed.root(Update, attempt, NO_BODY).await.expect(400);
        // Shown once.
        let again = bed.root(Read, attempt, NO_BODY).await.expect(200);
        assert_eq!(again.text(&format!("{at}/otp")), "");
        bed.root(Update, update, json!({"key": bed.unseal_key, "nonce": "x"})).await.expect(400);
        let wrong =
            bed.root(Update, update, json!({"key": "22".repeat(32), "nonce": nonce})).await.expect(400);
        assert!(error(&wrong).starts_with("root generation aborted: unable to authenticate"));
        let done = bed.root(Update, update, json!({"key": bed.unseal_key, "nonce": nonce})).await.expect(200);
        assert_eq!(done.body.pointer(&format!("{at}/complete")), Some(&json!(true)));
        let encoded = STANDARD_NO_PAD.decode(done.text(&format!("{at}/encoded_token"))).unwrap();
        let token: Vec<u8> = encoded.iter().zip(otp.bytes()).map(|(e, o)| e ^ o).collect();
        let token = String::from_utf8(token).unwrap();
        let me = bed.send(Read, "auth/token/lookup-self", Some(&token), NO_BODY).await.expect(200);
        assert_eq!(me.body["data"]["policies"], json!(["root"]));
        assert_eq!(me.body["data"]["ttl"], 0);
        let idle = bed.root(Read, attempt, NO_BODY).await.expect(200);
        assert_eq!(idle.body.pointer(&format!("{at}/started")), Some(&json!(false)));
    }
}

#[tokio::test]
async fn ceremonies_take_a_token_unless_the_configuration_says_otherwise_and_cancelling_always_does() {
    let bed = Bed::new().await;
    let places = ["sys/rekey/init", "sys/rotate/root/init", "sys/generate-root/attempt"];
    for path in places {
        for operation in [Read, Update, Delete] {
            bed.send(operation, path, None, NO_BODY).await.expect(403);
        }
    }
    bed.root(
        Update,
        "sys/policies/acl/some",
        json!({"policy": "path \"secret/*\" { capabilities = [\"read\"] }"}),
    )
    .await
    .expect(204);
    let made = bed.root(Update, "auth/token/create", json!({"policies": ["some"]})).await.expect(200);
    let some = made.text("/auth/client_token");
    for path in places {
        bed.send(Delete, path, Some(&some), NO_BODY).await.expect(403);
    }
    let config = VaultConfig { unauthenticated_ceremonies: true, ..VaultConfig::default() };
    let bed = Bed::configured(config).await;
    for path in places {
        bed.send(Read, path, None, NO_BODY).await.expect(200);
        bed.send(Delete, path, None, NO_BODY).await.expect(403);
    }
    bed.send(Update, "sys/rotate", None, NO_BODY).await.expect(403);
    let body = json!({"secret_shares": 1, "secret_threshold": 1});
    let nonce = bed.send(Update, "sys/rekey/init", None, body).await.expect(200).text("/nonce");
    let body = json!({"key": bed.unseal_key, "nonce": nonce});
    bed.send(Update, "sys/rekey/update", None, body).await.expect(200);
}
