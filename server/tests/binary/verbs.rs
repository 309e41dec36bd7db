//! Verbs about mounts, audit devices, roles and wrapped replies, as a person types them.

use crate::bed::Bed;
use crate::common::{Server, Shell};

fn served() -> (Server, Shell) {
    let mut server = Server::dev();
    let shell = Shell::new(format!("http://{}", server.address), None);
    let token = server.said("Root Token: ");
    shell.ok_with(&["login", "-"], &token);
    (server, shell)
}

#[test]
fn mounts_are_tuned_moved_and_listed_with_their_settings() {
    let (_server, shell) = served();
    shell.ok(&["secrets", "enable", "-path=team", "-max-lease-ttl=48h", "-description=ours", "kv"]);
    shell.ok(&["kv", "put", "team/a", "k=v"]);
    shell.ok(&["secrets", "tune", "-default-lease-ttl=1h", "-audit-non-hmac-request-keys=a,b", "team/"]);
    let detailed = shell.ok(&["secrets", "list", "-detailed"]);
    let row = detailed.lines().find(|line| line.starts_with("team/")).unwrap();
    assert!(
        row.contains("1h ") && row.contains("48h ") && row.contains("version") && row.ends_with("ours"),
        "{row}"
    );
    let config = shell.json(&["secrets", "list"])["team/"]["config"].clone();
    assert_eq!(config["audit_non_hmac_request_keys"], serde_json::json!(["a", "b"]));
    assert_eq!(shell.fails(&["secrets", "tune", "team"]).0, 1);
    shell.ok(&["secrets", "move", "team", "crew"]);
    assert_eq!(shell.ok(&["kv", "get", "-field=k", "crew/a"]), "v");
    assert_eq!(shell.fails(&["secrets", "move", "team", "crew"]).0, 2);

    shell.ok(&["auth", "enable", "-path=people", "-token-type=batch", "userpass"]);
    shell.ok(&["auth", "tune", "-listing-visibility=unauth", "-description=them", "auth/people"]);
    let people = shell.json(&["auth", "list"])["people/"].clone();
    assert_eq!(
        (&people["description"], &people["config"]["listing_visibility"]),
        (&"them".into(), &"unauth".into())
    );
    shell.ok(&["auth", "move", "people", "persons"]);
    assert!(shell.ok(&["auth", "list"]).contains("persons/"));
    shell.ok(&["auth", "disable", "persons"]);
}

#[test]
fn audit_devices_are_enabled_hashed_for_and_disabled() {
    let bed = Bed::new();
    let devices = bed.path("devices");
    std::fs::create_dir(&devices).unwrap();
    bed.add(&format!("audit_directories = [\"{}\"]\n", devices.display()));
    let config = std::fs::read_to_string(bed.path("coffer.hcl")).unwrap();
    let covering = config
        .replace("audit \"file\" {", "audit \"file\" {\n  hmac = [\"paths\"]\n")
        .replace(" }\nca_file", "\n}\nca_file");
    std::fs::write(bed.path("coffer.hcl"), covering).unwrap();
    let (_server, shell) = bed.serve();
    let made = shell.json(&["operator", "init", "--key-shares", "1", "--key-threshold", "1"]);
    shell.ok_with(&["operator", "unseal"], made["unseal_keys_b64"][0].as_str().unwrap());
    shell.ok_with(&["login"], made["root_token"].as_str().unwrap());
    assert!(shell.ok(&["audit", "list"]).contains("built-in log is always on"));
    let file = devices.join("a.log");
    let option = format!("file_path={}", file.display());
    shell.ok(&["audit", "enable", "-path=dev", "-description=mine", "file", &option, "required=true"]);
    assert!(
        shell.ok(&["audit", "list"]).lines().any(|line| line.starts_with("dev/") && line.ends_with("mine"))
    );
    shell.ok(&["secrets", "enable", "-path=secret", "kv"]);
    shell.ok(&["kv", "put", "secret/app", "password=s3cret"]);
    let hash = shell.ok_with(&["audit", "hash", "dev"], "s3cret");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(hash.trim()) && !text.contains("s3cret"));
    // The built-in log covers paths here, and is asked for them.
    let log = bed.path("audit").display().to_string();
    let path = shell.ok_with(&["audit", "hash", "builtin"], "secret/data/app");
    let found = shell.ok(&["--format", "json", "audit", "query", &log, "--path", path.trim()]);
    assert_eq!(found.lines().count(), 2, "{found}");
    assert!(!std::fs::read_to_string(bed.path("audit/audit.log")).unwrap().contains("secret/data/app"));
    shell.ok(&["audit", "disable", "dev/"]);
    assert_eq!(shell.fails(&["audit", "enable", "file", "file_path=/etc/x"]).0, 2);
}

#[test]
fn a_wrapped_reply_is_had_once() {
    let (_server, shell) = served();
    shell.ok(&["kv", "put", "secret/app", "password=s3cret"]);
    let wrapped = shell.json(&["read", "-wrap-ttl=5m", "secret/data/app"]);
    let token = wrapped["wrap_info"]["token"].as_str().unwrap();
    assert_eq!((&wrapped["wrap_info"]["ttl"], &wrapped["data"]), (&300.into(), &serde_json::Value::Null));
    let stranger = Shell::new(shell.address_of(), None);
    let got = stranger.ok_with(&["--format", "json", "unwrap", "-"], token);
    assert!(got.contains("s3cret"), "{got}");
    let again = stranger.run_with(&["unwrap", "-"], token);
    assert_eq!(again.status.code(), Some(2));
    assert!(
        String::from_utf8(again.stderr).unwrap().contains("wrapping token is not valid or does not exist")
    );
    let field = shell.ok(&["write", "-wrap-ttl=60", "-field=wrapping_token", "-force", "auth/token/create"]);
    let made = stranger.ok_with(&["unwrap", "-field=token", "-"], &field);
    assert!(made.starts_with("s."), "{made}");
}

#[test]
fn tokens_are_made_through_roles() {
    let (_server, shell) = served();
    shell.ok(&[
        "token",
        "roles",
        "write",
        "app",
        "allowed_policies=default",
        "orphan=true",
        "token_period=1h",
    ]);
    assert_eq!(shell.json(&["token", "roles", "list"]), serde_json::json!(["app"]));
    assert_eq!(shell.json(&["token", "roles", "read", "app"])["data"]["orphan"], true);
    let made = shell.json(&["token", "create", "-role=app", "-policy=default"]);
    let accessor = made["auth"]["accessor"].as_str().unwrap();
    let found = shell.json(&["token", "lookup", "-accessor", accessor])["data"].clone();
    assert_eq!(
        (&found["role"], &found["orphan"], &found["period"]),
        (&"app".into(), &true.into(), &3600.into())
    );
    let (code, why) = shell.fails(&["token", "create", "-role=app", "-policy=root"]);
    assert!(code == 2 && why.contains("root"), "{why}");
    shell.ok(&["token", "roles", "delete", "app"]);
    assert_eq!(shell.fails(&["token", "roles", "read", "app"]).0, 2);
}

#[test]
fn a_process_log_in_json_is_json_in_every_line() {
    let bed = Bed::new();
    bed.add("log_format = \"json\"\nlog_level = \"debug\"\n");
    let mut server = Server::with_json_log(&bed.path("coffer.hcl"));
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let (code, said) = server.end();
    assert_eq!(code, Some(0), "{said:#?}");
    let lines: Vec<serde_json::Value> = said.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let listening = |line: &&serde_json::Value| line["fields"]["message"] == "listening";
    let line = lines.iter().find(listening).unwrap();
    assert!(line["level"] == "INFO" && line["timestamp"].is_string(), "{line}");
}
