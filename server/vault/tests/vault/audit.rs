//! The audit log as an administrator meets it: what is anchored, what is found at unseal, who may ask.

use crate::bed;

use bed::Bed;
use coffer_core::audit::{AuditRecord, Chain, verify_from};
use coffer_vault::{AuditSettings, Covered, DeclaredDevice, Operation, VaultConfig};
use serde_json::{Value, json};

async fn node(bed: &Bed) -> Value {
    let answer = bed.root(Operation::Read, "sys/audit/chain", Value::Null).await.expect(200);
    let name = answer.text("/data/node");
    answer.body["data"]["nodes"][name].clone()
}

#[tokio::test]
async fn the_anchored_head_fits_the_log() {
    let bed = Bed::new().await;
    bed.root(Operation::Update, "secret/data/a", json!({"data": {"k": "v"}})).await.expect(200);
    bed.vault.anchor().await.unwrap();
    let known = node(&bed).await;
    let head: Chain = serde_json::from_value(known["head"].clone()).unwrap();
    let start: Chain = serde_json::from_value(known["start"].clone()).unwrap();
    let report = verify_from(&start, bed.audit_text().lines(), Some(&head));
    // What asked for the head came after it.
    assert!(report.is_intact() && report.unanchored == 1 && head.seq >= 2, "{report:?}");
    assert_eq!(known["lost"], json!([]));
}

#[tokio::test]
async fn the_chain_is_for_administrators() {
    let bed = Bed::new().await;
    let policy = r#"path "sys/audit/chain" { capabilities = ["read"] }"#;
    bed.root(Operation::Update, "sys/policies/acl/auditor", json!({ "policy": policy })).await.expect(204);
    let made =
        bed.root(Operation::Update, "auth/token/create", json!({"policies": ["auditor"]})).await.expect(200);
    bed.get("sys/audit/chain", &made.text("/auth/client_token")).await.expect(403);
}

#[tokio::test]
async fn what_was_cut_off_stays_known_after_the_next_anchor() {
    let mut bed = Bed::new().await;
    bed.root(Operation::Update, "secret/data/a", json!({"data": {"k": "v"}})).await.expect(200);
    bed.vault.anchor().await.unwrap();
    bed.cut_audit(2);
    bed.restart().await;
    bed.vault.anchor().await.unwrap();
    let lost = node(&bed).await["lost"].clone();
    assert_eq!(lost.as_array().unwrap().len(), 1);
    assert_eq!(lost[0]["count"], 2);
}

#[tokio::test]
async fn a_log_that_was_rewritten_while_closed_is_told_at_unseal() {
    let mut bed = Bed::new().await;
    bed.root(Operation::Update, "secret/data/a", json!({"data": {"k": "v"}})).await.expect(200);
    bed.vault.anchor().await.unwrap();
    let mut chain = Chain::default();
    let mut forged = String::new();
    for mut record in bed.audit_records() {
        record.path = record.path.replace("secret/data/a", "secret/data/b");
        forged += &chain.append(&record).unwrap();
        forged += "\n";
    }
    bed.replace_audit(&forged);
    bed.restart().await;
    let told = |record: &AuditRecord| record.error.as_ref().is_some_and(|e| e.contains("rewritten"));
    assert!(bed.audit_records().iter().any(told));
    assert_eq!(node(&bed).await["lost"][0]["count"], 0);
}

/// A vault whose administrators may put devices into `dir`.
async fn with_devices_in(dir: &tempfile::TempDir) -> Bed {
    let audit_directories = vec![dir.path().to_owned()];
    Bed::configured(VaultConfig { audit_directories, ..VaultConfig::default() }).await
}

fn device(file: &std::path::Path) -> Value {
    // `required`, so that its lines are there when a reply is.
    json!({"type": "file", "description": "d", "options": {"file_path": file, "required": "true"}})
}

fn lines(file: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_device_gets_lines_in_vaults_form_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let bed = with_devices_in(&dir).await;
    let file = dir.path().join("a.log");
    bed.root(Operation::Update, "sys/audit/dev", device(&file)).await.expect(204);
    let body = json!({"data": {"password": "hunter2", "list": ["hunter2", 7, true]}});
    bed.root(Operation::Update, "secret/data/a", body).await.expect(200);
    bed.root(Operation::Read, "secret/data/a", Value::Null).await.expect(200);
    bed.get("secret/data/a", "s.nobody").await.expect(403);
    let hash =
        bed.root(Operation::Update, "sys/audit-hash/dev", json!({"input": "hunter2"})).await.expect(200);
    let hash = hash.text("/data/hash");

    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains("hunter2") && !text.contains(&bed.root) && !text.contains("s.nobody"));
    let lines = lines(&file);
    let of = |kind: &str, operation: &str| {
        let fits = |line: &&Value| {
            line["type"] == kind
                && line["request"]["operation"] == operation
                && line["request"]["path"] == "secret/data/a"
        };
        lines.iter().filter(fits).cloned().collect::<Vec<_>>()
    };
    let write = &of("request", "update")[0];
    assert_eq!(write["request"]["data"]["data"], json!({"password": hash, "list": [hash, 7, true]}));
    assert_eq!(write["request"]["mount_type"], "kv");
    assert_eq!(write["request"]["remote_address"], "10.0.0.7");
    assert_eq!(write["auth"]["display_name"], "root");
    assert_eq!(write["auth"]["client_token"], write["request"]["client_token"]);
    let read = &of("response", "read")[0];
    assert_eq!(read["response"]["data"]["data"]["password"], json!(hash));
    let token = bed.root.clone();
    let covered = bed.root(Operation::Update, "sys/audit-hash/dev", json!({"input": token})).await;
    assert_eq!(read["request"]["client_token"], json!(covered.text("/data/hash")));
    let refused = of("response", "read")[1].clone();
    assert_eq!(
        (&refused["error"], &refused["response"]["data"]),
        (&json!("permission denied"), &Value::Null)
    );
    assert_eq!(of("request", "read").len(), 2);
    assert!(lines.iter().any(|line| line["request"]["operation"] == "update" && line["type"] == "response"));
}

#[tokio::test]
async fn devices_are_listed_and_outlive_a_restart_with_their_salt() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = with_devices_in(&dir).await;
    let file = dir.path().join("a.log");
    bed.root(Operation::Update, "sys/audit/dev/", device(&file)).await.expect(204);
    bed.root(Operation::Update, "sys/audit/dev", device(&dir.path().join("b.log"))).await.expect(400);
    bed.root(Operation::Update, "sys/audit/other", device(&file)).await.expect(400);
    let hash =
        async |bed: &Bed| bed.root(Operation::Update, "sys/audit-hash/dev", json!({"input": "x"})).await;
    let before = hash(&bed).await.expect(200).text("/data/hash");
    bed.restart().await;
    assert_eq!(hash(&bed).await.expect(200).text("/data/hash"), before);
    let listed = bed.root(Operation::Read, "sys/audit", Value::Null).await.expect(200);
    assert_eq!(listed.body["dev/"], listed.body["data"]["dev/"]);
    assert_eq!(listed.body["dev/"]["type"], "file");
    assert!(!listed.body.to_string().contains("salt"));
    bed.root(Operation::Delete, "sys/audit/dev", Value::Null).await.expect(204);
    bed.root(Operation::Delete, "sys/audit/dev", Value::Null).await.expect(204);
    let (mut seen, now) = (0, lines(&file).len());
    bed.root(Operation::Read, "sys/audit", Value::Null).await.expect(200);
    seen += lines(&file).len();
    assert_eq!(seen, now);
    let gone = hash(&bed).await.expect(400);
    assert_eq!(gone.text("/errors/0"), "unknown audit backend \"dev/\"");
}

#[tokio::test]
async fn devices_are_only_where_the_configuration_allows_them() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let bed = with_devices_in(&dir).await;
    let enable = |name: &str, body: Value| {
        let request =
            bed.request(Operation::Update, &format!("sys/audit/{name}"), Some(bed.root.as_str()), body);
        bed.handle(request)
    };
    let good = dir.path().join("a.log");
    for (name, body) in [
        ("dev", device(&elsewhere.path().join("a.log"))),
        ("dev", json!({"type": "file", "options": {"file_path": good, "log_raw": "true"}})),
        ("dev", json!({"type": "file", "options": {"file_path": good, "mode": "0644"}})),
        ("dev", json!({"type": "file", "options": {}})),
        ("dev", json!({"type": "socket", "options": {}})),
        ("chain/x", device(&good)),
        ("builtin", device(&good)),
    ] {
        enable(name, body.clone()).await.expect(400);
    }
    assert!(!good.exists());
    let made = bed.root(Operation::Update, "auth/token/create", json!({"policies": ["default"]})).await;
    bed.post("sys/audit/dev", &made.text("/auth/client_token"), device(&good)).await.expect(403);
}

#[tokio::test]
async fn a_declared_device_comes_and_goes_with_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.log");
    let declared = DeclaredDevice {
        name: "first".into(),
        description: "one".into(),
        options: [("file_path", file.to_str().unwrap()), ("required", "true")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    };
    let config = VaultConfig { audit_devices: vec![declared], ..VaultConfig::default() };
    let mut bed = Bed::configured(config).await;
    bed.root(Operation::Read, "secret/data/a", Value::Null).await.expect(404);
    assert!(lines(&file).len() >= 2);
    let kept = bed.root(Operation::Delete, "sys/audit/first", Value::Null).await.expect(400);
    assert_eq!(kept.text("/errors/0"), "cannot disable configuration-managed audit device");
    bed.reconfigure(VaultConfig::default());
    bed.restart().await;
    let listed = bed.root(Operation::Read, "sys/audit", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"], json!({}));
}

#[tokio::test]
async fn a_device_that_fails_holds_up_nobody_unless_it_is_required() {
    let dir = tempfile::tempdir().unwrap();
    let bed = with_devices_in(&dir).await;
    for (name, required) in [("loose", "false"), ("strict", "true")] {
        let file = dir.path().join(name);
        let body = json!({"type": "file", "options": {"file_path": file, "required": required}});
        bed.root(Operation::Update, &format!("sys/audit/{name}"), body).await.expect(204);
        // From here on it cannot be opened.
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        bed.vault.reopen_audit_devices();
        let wanted = if required == "true" { 500 } else { 200 };
        let body = json!({"data": {"k": required}});
        bed.root(Operation::Update, "secret/data/a", body).await.expect(wanted);
    }
    std::fs::remove_dir(dir.path().join("strict")).unwrap();
    let stored = bed.root(Operation::Read, "secret/data/a", Value::Null).await.expect(200);
    // What was refused had no effect.
    assert_eq!(stored.body["data"]["data"]["k"], "false");
}

#[tokio::test]
async fn a_flood_of_refusals_is_counted_and_what_has_an_effect_is_recorded() {
    let bed = Bed::with_pods().await;
    bed.vault.anchor().await.unwrap();
    let before = bed.audit_records().len();
    for n in 0..150 {
        bed.get("secret/data/a", "s.nobody").await.expect(403);
        let body = json!({"role": "shop.orders", "jwt": format!("no{n}")});
        bed.send(Operation::Update, "auth/kubernetes/prod/login", None, body).await.expect(403);
    }
    let written = bed.audit_records().len() - before;
    assert_eq!(written, 100);
    // The same client, and still recorded: a login that succeeds, a write, and what a valid token may not do.
    let token = bed.login("pod-1").await;
    bed.root(Operation::Update, "secret/data/a", json!({"data": {"k": "v"}})).await.expect(200);
    bed.get("secret/data/a", &token).await.expect(403);
    let kept: Vec<_> = bed.audit_records().into_iter().skip(before + written).collect();
    let told: Vec<_> = kept.iter().map(|r| (r.kind, r.status)).collect();
    use coffer_core::audit::RecordType::{Completion, Intent};
    let write = [(Intent, None), (Completion, Some(200))];
    assert_eq!(told, [write[0], write[1], write[0], write[1], (Completion, Some(403))]);
    bed.vault.anchor().await.unwrap();
    let last = bed.audit_records().pop().unwrap();
    assert_eq!((last.operation.as_str(), last.metadata["suppressed"].as_str()), ("suppress", "200"));
    assert_eq!(last.metadata["from 10.0.0.7"], "200");
}

#[tokio::test]
async fn a_required_device_whose_volume_is_missing_after_a_restart_fails_requests_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = with_devices_in(&dir).await;
    let (volume, away) = (dir.path().join("volume"), dir.path().join("away"));
    std::fs::create_dir(&volume).unwrap();
    bed.root(Operation::Update, "sys/audit/dev", device(&volume.join("a.log"))).await.expect(204);
    std::fs::rename(&volume, &away).unwrap();
    bed.restart().await;
    let write = json!({"data": {"k": "v"}});
    bed.root(Operation::Update, "secret/data/a", write.clone()).await.expect(500);
    std::fs::rename(&away, &volume).unwrap();
    bed.root(Operation::Update, "secret/data/a", write).await.expect(200);
    let listed = bed.root(Operation::Read, "sys/audit", Value::Null).await.expect(200);
    assert_eq!(listed.body["data"]["dev/"]["type"], "file");
}

/// A vault whose built-in log covers everything that it can.
async fn covering() -> Bed {
    let covered = Covered { accessors: true, addresses: true, names: true, paths: true };
    let audit = AuditSettings { covered, ..AuditSettings::default() };
    Bed::configured(VaultConfig { audit, ..VaultConfig::default() }).await
}

async fn builtin_hash(bed: &Bed, text: &str) -> String {
    let answer = bed.root(Operation::Update, "sys/audit-hash/builtin", json!({ "input": text })).await;
    answer.expect(200).text("/data/hash")
}

#[tokio::test]
async fn covered_identifiers_are_nowhere_in_the_log_and_can_be_asked_for() {
    let bed = covering().await;
    let path = "secret/data/covered-path";
    bed.root(Operation::Update, path, json!({"data": {"k": "v"}})).await.expect(200);
    let body =
        json!({"policies": ["default"], "display_name": "covered-name", "meta": {"who": "covered-label"}});
    let made = bed.root(Operation::Update, "auth/token/create", body).await.expect(200);
    let (token, accessor) = (made.text("/auth/client_token"), made.text("/auth/accessor"));
    bed.get(path, &token).await.expect(403);
    bed.get("covered-nowhere/x", &bed.root).await.expect(404);
    for mark in ["covered-", &accessor, "10.0.0.7", "root"] {
        assert!(!bed.audit_text().contains(mark), "{mark}");
    }
    let (path, accessor, who, name, address) = (
        builtin_hash(&bed, path).await,
        builtin_hash(&bed, &accessor).await,
        builtin_hash(&bed, "covered-label").await,
        builtin_hash(&bed, "token-covered-name").await,
        builtin_hash(&bed, "10.0.0.7").await,
    );
    let denied = bed.audit_records().into_iter().find(|record| record.status == Some(403)).unwrap();
    assert_eq!((&denied.path, denied.metadata.get("who")), (&path, Some(&who)));
    let told = [denied.accessor, denied.display_name, denied.client_ip, denied.error];
    assert_eq!(told, [Some(accessor), Some(name), Some(address), Some("permission denied".into())]);
    assert!(verify_from(&Chain::default(), bed.audit_text().lines(), None).is_intact());

    // The end of the log is asked for by what is meant, not by what is written.
    let tail = |key: &str, text: String| {
        let mut request = bed.request(Operation::Read, "sys/audit/tail", Some(&bed.root), Value::Null);
        request.query = [(key.to_owned(), text)].into();
        bed.handle(request)
    };
    let found = tail("accessor", made.text("/auth/accessor")).await.expect(200);
    assert_eq!(found.body["data"]["records"].as_array().unwrap().len(), 1);
    let found = tail("path", "secret/data/covered-path".into()).await.expect(200);
    assert_eq!(found.body["data"]["records"].as_array().unwrap().len(), 3);

    // Sealed, nobody has the salt.
    let before = bed.audit_records().len();
    bed.root(Operation::Update, "sys/seal", Value::Null).await.expect(204);
    bed.get("secret/data/covered-path", "s.x").await.expect(503);
    bed.unseal().await;
    let sealed = bed.audit_records().into_iter().skip(before).find(|r| r.status == Some(503)).unwrap();
    assert_eq!((sealed.path.as_str(), sealed.client_ip.as_deref()), ("(withheld)", Some("(withheld)")));
    assert_eq!(builtin_hash(&bed, "secret/data/covered-path").await, path);
}

#[tokio::test]
async fn a_log_that_covers_nothing_has_no_hashes() {
    let bed = Bed::new().await;
    let answer =
        bed.root(Operation::Update, "sys/audit-hash/builtin", json!({"input": "x"})).await.expect(400);
    assert!(answer.text("/errors/0").contains("covers nothing"));
}

#[tokio::test]
async fn keys_that_a_mounts_tuning_names_stand_in_a_devices_lines_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let bed = with_devices_in(&dir).await;
    let file = dir.path().join("a.log");
    bed.root(Operation::Update, "sys/audit/dev", device(&file)).await.expect(204);
    let tuning = json!({"audit_non_hmac_request_keys": ["user"], "audit_non_hmac_response_keys": ["note"]});
    bed.root(Operation::Update, "sys/mounts/secret/tune", tuning).await.expect(204);
    let body = json!({"data": {"user": "bob", "note": "hello", "password": "hunter2"}});
    bed.root(Operation::Update, "secret/data/a", body).await.expect(200);
    bed.root(Operation::Read, "secret/data/a", Value::Null).await.expect(200);
    let lines = lines(&file);
    let data = |kind: &str, operation: &str, at: &str| {
        let fits = |line: &&Value| {
            line["type"] == kind
                && line["request"]["operation"] == operation
                && line["request"]["path"] == "secret/data/a"
        };
        lines.iter().find(fits).unwrap().pointer(at).unwrap().clone()
    };
    let (asked, told) =
        (data("request", "update", "/request/data/data"), data("response", "read", "/response/data/data"));
    let covered = |value: &Value| value.as_str().unwrap().starts_with("hmac-sha256:");
    assert!(asked["user"] == "bob" && covered(&asked["note"]) && covered(&asked["password"]), "{asked}");
    assert!(told["note"] == "hello" && covered(&told["user"]) && covered(&told["password"]), "{told}");
}
