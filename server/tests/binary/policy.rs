//! Policies at the command line: why something is allowed or not, and how a file is laid out.

use crate::common::{Server, Shell};

/// A development server, somebody logged in to it as root, and somebody with the policy `team` alone.
fn root_and_team() -> (Server, Shell, Shell) {
    let mut server = Server::dev();
    let shell = Shell::new(format!("http://{}", server.address), None);
    let token = server.said("Root Token: ");
    shell.ok_with(&["login", "-"], &token);
    let policy = r#"path "secret/data/team/*" { capabilities = ["read"] }
        path "secret/app" { capabilities = ["read"] }"#;
    shell.ok_with(&["policy", "write", "team", "-"], policy);
    let token = shell.ok(&["token", "create", "--policy", "team", "--field", "token"]);
    let other = Shell::new(shell.address_of(), None);
    other.ok_with(&["login"], &token);
    (server, shell, other)
}

#[test]
fn a_policy_is_explained() {
    let (_server, root, team) = root_and_team();
    let said = team.ok(&["policy", "explain", "secret/data/team/a", "read"]);
    assert!(said.starts_with("read on \"secret/data/team/a\" is allowed.\n"), "{said}");
    assert!(
        said.contains("Rule \"secret/data/team/*\" decides") && said.contains("Policy \"team\" says [read]")
    );
    let denied = team.run(&["policy", "explain", "secret/data/team/a", "delete"]);
    assert_eq!(denied.status.code(), Some(2));
    assert!(String::from_utf8(denied.stdout).unwrap().contains("Missing: delete."));
    let table = team.ok(&["policy", "explain", "secret/data/team/a"]);
    assert!(table.lines().count() == 9 && table.contains("not_granted"), "{table}");

    let policies = ["policy", "explain", "-policy=team", "-policy=default", "secret/data/team/a", "read"];
    assert!(root.ok(&policies).contains("is allowed"));
    assert_eq!(team.fails(&policies).0, 2);
    let accessor = team.json(&["token", "lookup"])["data"]["accessor"].as_str().unwrap().to_owned();
    let told = root.json(&["policy", "explain", "--accessor", &accessor, "secret/data/team/a"]);
    assert_eq!(told["operations"][1]["rule"]["policies"][0]["name"], "team");
    let (code, why) = team.fails(&["policy", "explain", "secret/data/team/a", "dance"]);
    assert!(code == 2 && why.contains("operation must be one of"), "{why}");
}

#[test]
fn a_refusal_names_what_is_missing() {
    let (_server, root, team) = root_and_team();
    root.ok(&["kv", "put", "secret/app", "k=v"]);
    let (code, why) = team.fails(&["read", "secret/data/app"]);
    assert!(code == 2 && why.contains("permission denied"), "{why}");
    assert!(why.contains("missing capability on path \"secret/data/app\": read"), "{why}");
    assert!(why.contains("it has to name \"secret/data/app\""), "{why}");
}

#[test]
fn a_policy_file_is_laid_out_once_and_for_all() {
    let shell = Shell::new("http://127.0.0.1:1".to_owned(), None);
    let file = shell.home.path().join("p.hcl");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "# why\npath \"a/*\" {capabilities=[\"read\",\"list\"]}").unwrap();
    let wanted = "# why\npath \"a/*\" {\n  capabilities = [\"read\", \"list\"]\n}\n";
    assert_eq!(shell.ok(&["policy", "fmt", name]), format!("Success! Formatted policy: {name}\n"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), wanted);
    shell.ok(&["policy", "fmt", name]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), wanted);
    assert_eq!(shell.ok_with(&["policy", "fmt", "-"], wanted), wanted);
    std::fs::write(&file, "path \"a/*\" { capabilities = [\"dance\"] }").unwrap();
    let (code, why) = shell.fails(&["policy", "fmt", name]);
    assert!(code == 1 && why.contains("line 1") && why.contains("invalid capability"), "{why}");
}
