//! A development server, driven by the command line as a person would.

use crate::common::{Server, Shell};
use nix::sys::signal::Signal;

/// A development server and somebody logged in to it as root.
fn logged_in() -> (Server, Shell) {
    let mut server = Server::dev();
    let shell = Shell::new(format!("http://{}", server.address), None);
    let token = server.said("Root Token: ");
    shell.ok_with(&["login", "-"], &token);
    (server, shell)
}

#[test]
fn a_secret_is_written_read_listed_and_deleted() {
    let (_server, shell) = logged_in();
    let put = shell.ok(&["kv", "put", "secret/app", "password=s3cret", "user=app"]);
    assert!(put.contains("version          1") && !put.contains("s3cret"), "{put}");
    let got = shell.ok(&["kv", "get", "secret/app"]);
    assert!(got.contains("password  s3cret") && got.contains("user      app"), "{got}");
    assert_eq!(shell.ok(&["kv", "get", "--field", "password", "secret/app"]), "s3cret");
    shell.ok_with(&["kv", "put", "--cas", "1", "secret/app", "password=-"], "from\nstdin");
    assert_eq!(shell.json(&["kv", "get", "secret/app"])["data"]["data"]["password"], "from\nstdin");
    let old = shell.json(&["kv", "get", "--version", "1", "secret/app"]);
    assert_eq!(old["data"]["data"]["password"], "s3cret");
    let (code, why) = shell.fails(&["kv", "put", "--cas", "1", "secret/app", "password=x"]);
    assert!(code == 2 && why.contains("check-and-set"), "{why}");
    assert_eq!(shell.json(&["kv", "list", "secret"]), serde_json::json!(["app"]));
    shell.ok(&["kv", "delete", "secret/app"]);
    let deleted = shell.ok(&["kv", "get", "secret/app"]);
    assert!(deleted.contains("deletion_time") && !deleted.contains("stdin"), "{deleted}");
    let (code, why) = shell.fails(&["kv", "get", "secret/nothing"]);
    assert_eq!((code, why.as_str()), (2, "Error: no value found at secret/data/nothing\n"));
}

#[test]
fn every_kv_verb_does_what_vaults_does() {
    let (_server, shell) = logged_in();
    shell.ok(&["kv", "put", "-mount=secret", "app/db", "a=1", "b=2"]);
    assert_eq!(shell.ok(&["kv", "put", "-field=version", "secret/app/db", "a=1", "b=two"]), "2");
    shell.ok(&["kv", "patch", "-remove-data=a", "secret/app/db", "c=3"]);
    let read = shell.json(&["kv", "get", "secret/app/db"]);
    assert_eq!(read["data"]["data"], serde_json::json!({"b": "two", "c": "3"}));
    shell.ok(&["kv", "patch", "-method=rw", "secret/app/db", "c=4"]);
    assert_eq!(shell.ok(&["kv", "get", "-field=c", "secret/app/db"]), "4");
    let (code, why) = shell.fails(&["kv", "patch", "secret/none", "a=b"]);
    assert_eq!((code, why.as_str()), (2, "Error: no value found at secret/data/none\n"));
    shell.ok(&["kv", "delete", "-versions=2,3", "secret/app/db"]);
    shell.ok(&["kv", "undelete", "-versions=3", "secret/app/db"]);
    shell.ok(&["kv", "destroy", "-versions=1", "secret/app/db"]);
    let rolled = shell.ok(&["kv", "rollback", "-version=3", "secret/app/db"]);
    assert!(rolled.contains("version          5"), "{rolled}");
    assert_eq!(shell.ok(&["kv", "get", "-field=c", "secret/app/db"]), "3");
    assert_eq!(shell.fails(&["kv", "rollback", "-version=2", "secret/app/db"]).0, 1);
    shell.ok(&["kv", "metadata", "put", "-custom-metadata=a=b", "-max-versions=5", "secret/app/db"]);
    shell.ok(&[
        "kv",
        "metadata",
        "patch",
        "-custom-metadata=z=1",
        "-remove-custom-metadata=a",
        "secret/app/db",
    ]);
    let metadata = shell.ok(&["kv", "metadata", "get", "secret/app/db"]);
    for part in ["== Metadata Path ==", "map[z:1]", "Version 1", "destroyed      true", "max_versions"] {
        assert!(metadata.contains(part), "{part} in {metadata}");
    }
    assert_eq!(shell.json(&["kv", "scan", "secret"]), serde_json::json!(["app/db"]));
    assert_eq!(shell.json(&["kv", "list", "secret"]), serde_json::json!(["app/"]));
    shell.ok(&["kv", "metadata", "delete", "secret/app/db"]);
    let (code, why) = shell.fails(&["kv", "scan", "secret"]);
    assert_eq!((code, why.as_str()), (2, "Error: no value found at secret/metadata\n"));
}

#[test]
fn an_engine_without_versions_is_read_as_one() {
    let (_server, shell) = logged_in();
    shell.ok(&["secrets", "enable", "-path=one", "-version=1", "kv"]);
    shell.ok(&["kv", "put", "one/a/b", "k=v"]);
    let shown = shell.ok(&["kv", "get", "one/a/b"]);
    assert!(shown.contains("== Data ==") && !shown.contains("Metadata"), "{shown}");
    assert_eq!(shell.ok(&["kv", "get", "-field=k", "-mount=one", "a/b"]), "v");
    assert_eq!(shell.json(&["kv", "list", "one"]), serde_json::json!(["a/"]));
    assert_eq!(shell.fails(&["kv", "patch", "one/a/b", "k=w"]).0, 1);
    shell.ok(&["kv", "delete", "one/a/b"]);
    assert_eq!(shell.fails(&["kv", "get", "one/a/b"]).0, 2);
}

#[test]
fn any_path_can_be_read_written_listed_and_deleted() {
    let (_server, shell) = logged_in();
    let body = shell.home.path().join("body.json");
    std::fs::write(&body, r#"{"data": {"n": 1}}"#).unwrap();
    shell.ok(&["write", "secret/data/a", &format!("@{}", body.display())]);
    assert_eq!(shell.json(&["read", "secret/data/a"])["data"]["data"]["n"], 1);
    assert_eq!(shell.json(&["list", "secret/metadata/"]), serde_json::json!(["a"]));
    shell.ok(&["delete", "secret/metadata/a"]);
    assert_eq!(shell.fails(&["list", "secret/metadata"]).0, 2);
    assert_eq!(shell.fails(&["write", "secret/data/a"]).0, 1);
}

#[test]
fn policies_bind_tokens() {
    let (_server, shell) = logged_in();
    shell.ok(&["kv", "put", "secret/app", "k=v"]);
    shell.ok_with(&["policy", "write", "reader", "-"], r#"path "secret/data/*" { capabilities = ["read"] }"#);
    assert!(shell.ok(&["policy", "read", "reader"]).contains("secret/data/*"));
    assert!(shell.ok(&["policy", "list"]).contains("reader"));
    let token = shell.ok(&["token", "create", "--policy", "reader", "--ttl", "1h", "--field", "token"]);
    let other = Shell::new(shell.address_of(), None);
    other.ok_with(&["login"], &token);
    assert_eq!(other.ok(&["kv", "get", "--field", "k", "secret/app"]), "v");
    let (code, why) = other.fails(&["kv", "put", "secret/app", "k=w"]);
    assert!(code == 2 && why.contains("permission denied"), "{why}");
    let looked = other.json(&["token", "lookup"]);
    let policies = looked["data"]["policies"].as_array().unwrap();
    assert!(
        policies.len() == 2 && policies.contains(&"default".into()) && policies.contains(&"reader".into())
    );
    other.ok(&["token", "renew", "--increment", "30m"]);
    let accessor = looked["data"]["accessor"].as_str().unwrap();
    shell.ok(&["token", "revoke", "--accessor", accessor]);
    assert_eq!(other.fails(&["kv", "get", "secret/app"]).0, 2);
    shell.ok(&["policy", "delete", "reader"]);
    assert_eq!(shell.fails(&["policy", "read", "reader"]).0, 2);
}

#[test]
fn engines_and_auth_methods_are_mounted() {
    let (_server, shell) = logged_in();
    shell.ok(&["secrets", "enable", "--path", "team", "kv"]);
    shell.ok(&["kv", "put", "team/a/b", "k=v"]);
    assert_eq!(shell.ok(&["kv", "get", "--field", "k", "team/a/b"]), "v");
    assert_eq!(shell.ok(&["kv", "get", "--mount", "team", "--field", "k", "a/b"]), "v");
    shell.ok(&["auth", "enable", "--path", "kubernetes/prod", "kubernetes"]);
    assert!(shell.ok(&["auth", "list"]).contains("kubernetes/prod/"));
    shell.ok(&["auth", "disable", "kubernetes/prod"]);
    shell.ok(&["secrets", "disable", "team"]);
    assert!(shell.json(&["secrets", "list"]).get("team/").is_none());
}

#[test]
fn the_audit_log_is_read_and_checked() {
    let (mut server, shell) = logged_in();
    shell.ok(&["kv", "put", "secret/app", "password=s3cret"]);
    let tail = shell.ok(&["audit", "tail", "--path", "secret/data/app"]);
    assert!(tail.contains("intent") && tail.contains("by root") && !tail.contains("s3cret"), "{tail}");
    let log = server.said("Audit log: ");
    let offline = shell.ok(&["audit", "tail", "--dir", &log, "--path", "secret/data/app", "-n", "1"]);
    assert_eq!(offline.lines().count(), 1);
    assert!(shell.ok(&["audit", "verify", &log]).contains(": intact, "));
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("s3cret"));
    let forged = shell.home.path().join("audit.log");
    std::fs::write(
        &forged,
        text.replacen("\"by root\"", "\"x\"", 1).replacen("secret/data/app", "secret/data/apq", 1),
    )
    .unwrap();
    let output = shell.run(&["audit", "verify", shell.home.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stdout).contains("content does not fit its hash"));
}

#[test]
fn a_person_changes_the_unseal_keys_rotates_and_makes_a_root_token() {
    let (mut server, shell) = logged_in();
    let key = server.said("Unseal Key: ");
    let (_, why) = shell.fails(&["operator", "rekey"]);
    assert!(why.contains("begin one with --init"), "{why}");
    assert!(shell.fails(&["operator", "rekey", &key]).1.contains("invalid value"));
    let begun = shell.ok(&["operator", "rekey", "--init", "-n", "3", "-t", "2", "--verify"]);
    assert!(begun.contains("0/1") && begun.contains("Verification Required"), "{begun}");
    let made = shell.ok_with(&["operator", "rekey"], &key);
    let keys: Vec<&str> =
        made.lines().filter_map(|l| l.strip_prefix("Unseal Key ")).map(|l| &l[3..]).collect();
    assert!(keys.len() == 3 && made.contains("They do not count yet"), "{made}");
    let half = shell.ok_with(&["operator", "rekey", "--verify"], keys[0]);
    assert!(half.contains("1/2"), "{half}");
    shell.ok_with(&["operator", "rekey", "--verify"], keys[2]);
    let status = shell.json(&["operator", "rekey", "--status"]);
    assert_eq!((&status["started"], &status["required"]), (&false.into(), &2.into()));

    assert_eq!(shell.json(&["operator", "key-status"])["term"], 2);
    assert!(shell.ok(&["operator", "rotate"]).contains("Key Term"));
    assert_eq!(shell.json(&["operator", "rotate", "--status"])["term"], 3);
    shell.ok(&["operator", "step-down"]);

    let begun = shell.json(&["operator", "generate-root", "--init"]);
    shell.ok(&["operator", "generate-root", "--cancel"]);
    let again = shell.json(&["operator", "generate-root", "--init"]);
    assert_ne!(begun["otp"], again["otp"]);
    shell.ok_with(&["operator", "generate-root"], keys[0]);
    let done: serde_json::Value =
        serde_json::from_str(&shell.ok_with(&["--format", "json", "operator", "generate-root"], keys[1]))
            .unwrap();
    let encoded = done["encoded_token"].as_str().unwrap();
    let token =
        shell.ok_with(&["operator", "generate-root", "--decode", encoded], again["otp"].as_str().unwrap());
    shell.ok_with(&["login"], token.trim());
    shell.ok(&["operator", "seal"]);
    shell.ok_with(&["operator", "unseal"], keys[0]);
    assert_eq!(shell.run(&["status"]).status.code(), Some(2));
    shell.ok_with(&["operator", "unseal"], keys[1]);
    assert_eq!(shell.run(&["status"]).status.code(), Some(0));
}

#[test]
fn sealing_shows_in_the_exit_code() {
    let (mut server, shell) = logged_in();
    assert!(shell.ok(&["status"]).contains("Sealed        false"));
    shell.ok(&["operator", "seal"]);
    let output = shell.run(&["status"]);
    assert_eq!(output.status.code(), Some(2));
    let (code, why) = shell.fails(&["kv", "get", "secret/a"]);
    assert!(code == 2 && why.contains("Vault is sealed"), "{why}");
    let key = server.said("Unseal Key: ");
    let unsealed = shell.ok_with(&["operator", "unseal", "-"], &key);
    assert!(unsealed.contains("false"), "{unsealed}");
}

#[test]
fn mistakes_on_this_side_are_exit_code_1() {
    let shell = Shell::new("http://127.0.0.1:1".to_owned(), None);
    for arguments in [
        &["kv"][..],
        &["frobnicate"],
        &["kv", "get"],
        &["read", "a/../b"],
        &["--address", "http://example.org", "status"],
        &["--format", "xml", "status"],
        &["token", "revoke"],
        &["audit", "verify", "/nonexistent"],
        &["server"],
        &["server", "--dev", "--dev-listen-address", "0.0.0.0:8200"],
    ] {
        assert_eq!(shell.fails(arguments).0, 1, "{arguments:?}");
    }
    assert_eq!(shell.fails(&["status"]).0, 2, "nobody listens there");
    assert!(shell.ok(&["--help"]).contains("operator"));
    for shells in ["bash", "zsh", "fish"] {
        assert!(shell.ok(&["completions", shells]).contains("tls-skip-verify"), "{shells}");
    }
}

#[test]
fn a_development_server_leaves_nothing_behind() {
    let (mut server, shell) = logged_in();
    let log = server.said("Audit log: ");
    shell.ok(&["kv", "put", "secret/app", "k=v"]);
    server.signal(Signal::SIGTERM);
    let (code, said) = server.end();
    assert_eq!(code, Some(0), "{said:#?}");
    assert!(!std::path::Path::new(&log).exists());
}

#[test]
fn the_verbs_of_databases_and_rotations_ask_where_the_api_answers() {
    let (_server, shell) = logged_in();
    shell.ok(&["secrets", "enable", "-path=db", "database"]);
    for (words, says) in [
        (vec!["database", "creds", "-mount=db", "none"], "unknown role: none"),
        (vec!["database", "static-creds", "-mount=db", "-consumer", "none"], "unknown role: none"),
        (vec!["database", "rotate-role", "-mount=db", "-force", "none"], "no static role found"),
        (vec!["database", "rotate-root", "-mount=db", "none"], "Error"),
        (vec!["database", "reset", "-mount=db", "none"], "Error"),
        (vec!["database", "list", "-mount=db", "static-roles"], "no value found"),
        (vec!["rotation", "status", "db/static-creds/none"], "no value found"),
        (vec!["rotation", "ack", "db/static-creds/none", "1"], "unknown role: none"),
        (vec!["rotation", "ack", "secret/data/none", "1"], "no credential that rotates"),
    ] {
        let (code, why) = shell.fails(&words);
        assert!(code == 2 && why.contains(says), "{words:?}: {code} {why}");
    }
}
