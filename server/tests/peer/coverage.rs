//! That the table of endpoints leaves nothing out: OpenBao itself says what there is, and every method of every path of
//! it is in the table, as served or as not served, with a reason. Both kinds are asked of Coffer.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::http::{Answer, Sent, exchange};
use crate::servers::{Kind, ROOT, Running, Start};
use crate::table::{self, Endpoints, Row};

/// Of what the table speaks, besides what is mounted from the beginning.
const MOUNTS: [(&str, &str); 4] = [
    ("sys/auth/approle", "approle"),
    ("sys/auth/kubernetes", "kubernetes"),
    ("sys/auth/userpass", "userpass"),
    ("sys/mounts/kv1", "kv"),
];

fn ask(server: SocketAddr, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let mut headers = vec![("x-vault-token".to_owned(), token.to_owned())];
    if method == "PATCH" {
        headers.push(("content-type".to_owned(), "application/merge-patch+json".to_owned()));
    }
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let sent = Sent { method: method.to_owned(), target: format!("/v1/{path}"), headers, body };
    exchange(server, &sent).unwrap()
}

fn with_mounts(kind: Kind) -> Running {
    let server = Running::start(kind, Start::Dev);
    for (path, type_) in MOUNTS {
        let answer = ask(server.address, ROOT, "POST", path, &json!({"type": type_}));
        assert_eq!(answer.status, 204, "{kind:?} {path}");
    }
    server
}

/// A method of a path, and whether it takes `sudo`.
struct Operation {
    method: &'static str,
    path: String,
    sudo: bool,
}

/// Everything that OpenBao says it serves.
fn operations() -> Vec<Operation> {
    let bao = with_mounts(Kind::Bao);
    let answer = ask(bao.address, ROOT, "GET", "sys/internal/specs/openapi", &Value::Null);
    let spec: Value = serde_json::from_slice(&answer.body).unwrap();
    let mut found = Vec::new();
    for (path, item) in spec["paths"].as_object().unwrap() {
        // Parameters are names in braces. One path is a regular expression, and has no methods.
        let segments = path.trim_matches('/').split('/').map(|s| if s.starts_with('{') { "x" } else { s });
        let path = segments.collect::<Vec<_>>().join("/");
        let sudo = item["x-vault-sudo"] == true;
        let mut push = |method| found.push(Operation { method, path: path.clone(), sudo });
        if item.get("post").is_some() {
            push("POST");
        }
        if item.get("delete").is_some() {
            push("DELETE");
        }
        if item.get("patch").is_some() {
            push("PATCH");
        }
        let Some(get) = item.get("get") else { continue };
        let parameters = get["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        let named = |name: &str| parameters.iter().find(|p| p["in"] == "query" && p["name"] == name);
        let (list, scan) = (named("list"), named("scan"));
        if list.is_some() {
            push("LIST");
        }
        if scan.is_some() {
            push("SCAN");
        }
        if ![list, scan].into_iter().flatten().any(|parameter| parameter["required"] == true) {
            push("GET");
        }
    }
    assert!(found.len() > 300, "only {} operations", found.len());
    found
}

fn words(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// Whether nobody answers there: not that something is absent, or wrong with the request.
fn nobody(answer: &Answer) -> bool {
    let said = words(answer);
    matches!(answer.status, 404 | 405)
        && (answer.status == 405
            || ["unsupported path", "no handler for route"].iter().any(|w| said.contains(w)))
}

#[test]
fn the_table_has_every_endpoint_that_openbao_has_and_is_true_of_coffer() {
    let table: Endpoints = table::load("endpoints.yaml");
    let served = || table.groups.iter().flat_map(|group| &group.served).map(Row::at);
    let unserved: Vec<_> = table.groups.iter().flat_map(|group| &group.unserved).collect();
    for row in &unserved {
        assert!(row.why.len() > 10, "{}: a reason is wanted", row.at);
    }
    let coffer = with_mounts(Kind::Coffer);
    let all = "path \"*\" { capabilities = [\"create\", \"read\", \"update\", \"delete\", \"list\", \"scan\", \"patch\"] }";
    ask(coffer.address, ROOT, "PUT", "sys/policies/acl/all", &json!({ "policy": all }));
    let made = ask(coffer.address, ROOT, "POST", "auth/token/create", &json!({"policies": ["all"]}));
    let token = serde_json::from_slice::<Value>(&made.body).unwrap();
    let token = token["auth"]["client_token"].as_str().unwrap();
    let (mut untold, mut wrong, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
    for Operation { method, path, sudo } in operations() {
        let is_served = served().any(|row| table::matches(row, method, &path));
        let out = unserved.iter().position(|row| table::matches(&row.at, method, &path));
        used.extend(out);
        match (is_served, out) {
            (false, None) => untold.push(format!("{method} {path}")),
            (true, Some(i)) => wrong.push(format!("{method} {path} is served, and not: {}", unserved[i].at)),
            (true, None) if sudo => {
                let answer = ask(coffer.address, token, method, &path, &Value::Null);
                if answer.status != 403 {
                    wrong.push(format!(
                        "{method} {path} takes no sudo: {} {}",
                        answer.status,
                        words(&answer)
                    ));
                }
            }
            (true, None) => {}
            (false, Some(_)) => {
                let answer = ask(coffer.address, ROOT, method, &path, &json!({}));
                if !nobody(&answer) && answer.status != 400 && answer.status != 404 {
                    wrong.push(format!(
                        "{method} {path} is not served: {} {}",
                        answer.status,
                        words(&answer)
                    ));
                }
            }
        }
    }
    assert_eq!(untold, Vec::<String>::new(), "endpoints of OpenBao's that the table says nothing of");
    assert_eq!(wrong, Vec::<String>::new());
    let stale: Vec<&str> = unserved
        .iter()
        .enumerate()
        .filter(|(i, row)| !row.vault && !used.contains(i))
        .map(|(_, row)| row.at.as_str())
        .collect();
    assert_eq!(stale, Vec::<&str>::new(), "rows of what is not served that OpenBao has not either");
    // What no story asks for with success is there all the same.
    for row in table.groups.iter().flat_map(|group| &group.served) {
        let Row::Untold { at, .. } = row else { continue };
        let (methods, path) = at.split_once(' ').unwrap();
        if path.starts_with("sys/events/") {
            // An answer without an end; the tests of events ask for it.
            continue;
        }
        let path: Vec<&str> =
            path.split('/').map(|s| if s.starts_with([':', '*']) { "x" } else { s }).collect();
        for method in methods.split('|') {
            let answer = ask(coffer.address, ROOT, method, &path.join("/"), &Value::Null);
            assert!(!nobody(&answer) && answer.status < 500, "{at}: {} {}", answer.status, words(&answer));
        }
    }
}
