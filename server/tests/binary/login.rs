//! Logging in by each method, and what becomes of the token.

use std::os::unix::fs::PermissionsExt as _;

use crate::common::{Server, Shell};

fn served() -> (Server, Shell) {
    let mut server = Server::dev();
    let shell = Shell::new(format!("http://{}", server.address), None);
    let token = server.said("Root Token: ");
    shell.ok_with(&["login", "-"], &token);
    (server, shell)
}

#[test]
fn a_person_logs_in_by_password_and_a_machine_by_role() {
    let (_server, root) = served();
    root.ok(&["auth", "enable", "userpass"]);
    root.ok_with(&["write", "auth/userpass/users/bob", "password=-", "token_policies=default"], "hunter2");
    root.ok(&["auth", "enable", "-path=machines", "approle"]);
    root.ok(&["write", "auth/machines/role/app", "token_policies=default"]);
    let role = root.json(&["read", "auth/machines/role/app/role-id"])["data"]["role_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let secret = root.json(&["write", "-force", "auth/machines/role/app/secret-id"])["data"]["secret_id"]
        .as_str()
        .unwrap()
        .to_owned();

    let bob = Shell::new(root.address_of(), None);
    let said = bob.ok_with(&["login", "-method=userpass", "username=bob"], "hunter2\n");
    assert!(said.contains("the token is kept") && said.contains("token_meta_username  bob"), "{said}");
    let kept = bob.home.path().join(".coffer-token");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&kept).unwrap();
    assert!(!said.contains(&token));
    assert_eq!(bob.json(&["token", "lookup"])["data"]["display_name"], "userpass-bob");
    let (code, why) = bob.fails(&["login", "-method=userpass", "username=bob", "password=hunter2"]);
    assert!(code == 1 && why.contains("never an argument") && !why.contains("hunter2"), "{why}");
    let wrong = bob.run_with(&["login", "-method=userpass", "username=bob"], "wrong");
    assert_eq!(wrong.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), token, "a login that fails takes nothing away");

    let machine = Shell::new(root.address_of(), None);
    let role = format!("role_id={role}");
    let login = ["login", "-method=approle", "-path=machines", &role, "secret_id=-"];
    let mut only = login.to_vec();
    only.push("-token-only");
    let token = machine.ok_with(&only, &secret);
    assert!(token.starts_with("s.") && !machine.home.path().join(".coffer-token").exists());
    machine.ok_with(&login, &secret);
    assert_eq!(machine.json(&["token", "lookup"])["data"]["path"], "auth/machines/login");
    assert_eq!(machine.fails(&["login", "-method=kubernetes", "role=app"]).0, 1, "no pod's token here");
    assert_eq!(machine.fails(&["login", "s.token"]).0, 1);
}
