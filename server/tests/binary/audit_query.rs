//! `audit query` on the files that a server has written, set aside ones too.

use coffer_client::{Call, Client};
use serde_json::Value;

use crate::bed::Bed;
use crate::common::Shell;

/// Asks for many things that are not there, with long names, until files are set aside.
fn fill(shell: &Shell, bed: &Bed, token: &str) {
    let ca = std::fs::read(bed.path("ca.crt")).unwrap();
    let client = Client::builder(&shell.address_of()).ca_pem(ca).build().unwrap();
    let client = client.with_token(&token.into()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let long = ["x".repeat(230).as_str(); 4].join("/");
        let dir = bed.path("audit");
        for n in 0..4000 {
            let path = format!("secret/data/{long}/{n}");
            let missing = client.exchange::<(), Value>(Call::new("GET", &path), None).await.unwrap_err();
            assert!(missing.is_not_found(), "{missing}");
            if n % 100 == 0 && std::fs::read_dir(&dir).unwrap().count() > 2 {
                return;
            }
        }
        panic!("nothing was set aside");
    });
}

#[test]
fn what_a_server_recorded_is_found_across_its_files() {
    let bed = Bed::new();
    let config = std::fs::read_to_string(bed.path("coffer.hcl")).unwrap();
    let config = config.replace("audit \"file\" {", "audit \"file\" {\n  rotate_bytes = 1048576\n");
    std::fs::write(bed.path("coffer.hcl"), config.replace(" }\nca_file", "\n}\nca_file")).unwrap();
    let (_server, shell) = bed.serve();
    let made = shell.json(&["operator", "init", "--key-shares", "1", "--key-threshold", "1"]);
    shell.ok_with(&["operator", "unseal"], made["unseal_keys_b64"][0].as_str().unwrap());
    let root = made["root_token"].as_str().unwrap();
    shell.ok_with(&["login"], root);
    shell.ok(&["secrets", "enable", "--path", "secret", "kv"]);
    shell.ok(&["kv", "put", "secret/app", "password=s3cret"]);
    let poor = Shell::new(shell.address_of(), Some(bed.path("ca.crt")));
    let token = shell.json(&["token", "create", "--policy", "default", "--display-name", "poor"]);
    poor.ok_with(&["login"], token["auth"]["client_token"].as_str().unwrap());
    poor.fails(&["read", "secret/data/app"]);
    fill(&shell, &bed, root);
    shell.ok(&["delete", "secret/data/app"]);

    let log = bed.path("audit").display().to_string();
    let lines = |filters: &[&str]| -> Vec<Value> {
        let mut all = vec!["--format", "json", "audit", "query", &log];
        all.extend(filters);
        shell.ok(&all).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    // From the oldest file and from the newest.
    let app = lines(&["--path", "secret/data/app"]);
    let told: Vec<_> =
        app.iter().map(|r| (r["operation"].as_str().unwrap(), r["type"].as_str().unwrap())).collect();
    let writes = [("update", "intent"), ("update", "completion")];
    let deletes = [("delete", "intent"), ("delete", "completion")];
    assert_eq!(told, [writes[0], writes[1], ("read", "completion"), deletes[0], deletes[1]]);
    assert_eq!(lines(&["--path", "secret/+/app", "--operation", "delete", "--type", "intent"]).len(), 1);
    let denied = lines(&["--status", "403"]);
    assert_eq!((denied.len(), denied[0]["display_name"].as_str()), (1, Some("token-poor")));
    let accessor = denied[0]["accessor"].as_str().unwrap();
    let ask = |filters: &[&str]| lines(filters).iter().filter(|r| r["path"] == "secret/data/app").count();
    assert_eq!(ask(&["--accessor", accessor]), 1);
    assert_eq!(ask(&["--display-name", "token-*", "--failed"]), 1);
    assert_eq!(ask(&["--request", denied[0]["request_id"].as_str().unwrap()]), 1);
    assert_eq!(ask(&["--error", "PERMISSION", "--client", "127.0.0.0/8"]), 1);
    assert_eq!(ask(&["--error", "permission", "--client", "10.0.0.0/8"]), 0);
    assert_eq!(ask(&["--since", "1h"]), 5);
    assert_eq!(ask(&["--until", "1h"]), 0);
    assert!(lines(&["--limit", "3"]).len() == 3 && lines(&[]).len() > 700);

    let table = shell.run(&["audit", "query", &log, "--path", "secret/data/app"]);
    let shown = String::from_utf8(table.stdout).unwrap();
    assert!(shown.starts_with("Time ") && shown.lines().count() == 7 && !shown.contains("s3cret"), "{shown}");
    assert!(String::from_utf8(table.stderr).unwrap().contains("their chain is whole"));

    // The same files, elsewhere, and changed.
    let copy = shell.home.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(bed.path("audit")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let oldest = copy.join(coffer_core::audit::files::aside_name(0));
    let text = std::fs::read_to_string(&oldest).unwrap();
    std::fs::write(&oldest, text.replacen("\"token-poor\"", "\"token-rich\"", 1)).unwrap();
    let output = shell.run(&["audit", "query", copy.to_str().unwrap(), "--display-name", "token-rich"]);
    assert_eq!(output.status.code(), Some(2));
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        shown.contains("CHANGED") && said.contains("NOT whole") && said.contains("does not fit"),
        "{shown}{said}"
    );
    assert_eq!(shell.fails(&["audit", "query", &log, "--since", "yesterday"]).0, 1);
}
