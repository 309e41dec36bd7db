//! Whose request it is behind a proxy, at a running server: what is counted, limited, bound and recorded is the client
//! that a named proxy tells of, and nobody else's word counts.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::bed::Bed;
use crate::common::{Server, Shell};

/// The one that the listener names; the other is anybody.
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const ANYBODY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

struct Ask<'a> {
    from: Ipv4Addr,
    forwarded: Option<&'a str>,
    token: &'a str,
}

impl Ask<'_> {
    /// One request on a connection of its own, from an address of our choosing.
    fn ask(&self, server: SocketAddr, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let forwarded = self.forwarded.map(|ip| format!("x-forwarded-for: {ip}\r\n")).unwrap_or_default();
        let head = format!(
            "{method} /v1/{path} HTTP/1.1\r\nhost: coffer\r\nconnection: close\r\nx-vault-token: {}\r\n\
             {forwarded}content-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from((self.from, 0))).unwrap();
            let mut stream = socket.connect(server).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        });
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

/// A server on plain HTTP whose listener says this besides.
fn serve(bed: &Bed, listener: &str) -> Server {
    let text = std::fs::read_to_string(bed.path("coffer.hcl")).unwrap();
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.contains("tls_")).collect();
    lines.insert(1, listener);
    std::fs::write(bed.path("coffer.hcl"), lines.join("\n")).unwrap();
    Server::with_config(&bed.path("coffer.hcl"))
}

#[test]
fn a_request_behind_a_named_proxy_is_its_clients_in_every_respect_and_nobody_else_can_claim_that() {
    let bed = Bed::new();
    let server = serve(
        &bed,
        "tls_disable = true\nx_forwarded_for_authorized_addrs = \"127.0.0.2\"\n\
         x_forwarded_for_reject_not_authorized = false\nx_forwarded_for_reject_not_present = false",
    );
    let ask = |from, forwarded, token: &str, method: &str, path: &str, body: Value| {
        Ask { from, forwarded, token }.ask(server.address, method, path, &body)
    };
    let (_, made) =
        ask(ANYBODY, None, "", "PUT", "sys/init", json!({"secret_shares": 1, "secret_threshold": 1}));
    let key = made["keys"][0].as_str().unwrap();
    ask(ANYBODY, None, "", "PUT", "sys/unseal", json!({"key": key}));
    let root = made["root_token"].as_str().unwrap();
    let as_root = |method: &str, path: &str, body: Value| ask(ANYBODY, None, root, method, path, body);

    // A token bound to the client's address.
    as_root("POST", "auth/token/roles/bound", json!({"token_bound_cidrs": ["203.0.113.9/32"]}));
    let (status, made) = as_root("POST", "auth/token/create/bound", json!({"policies": ["default"]}));
    assert_eq!(status, 200, "{made}");
    let bound = made["auth"]["client_token"].as_str().unwrap();
    for (from, forwarded, wanted) in [
        (PROXY, Some("203.0.113.9"), 200),
        (PROXY, Some("198.51.100.1, 203.0.113.9"), 200),
        (PROXY, Some("203.0.113.9, 198.51.100.1"), 403),
        (PROXY, None, 403),
        (ANYBODY, Some("203.0.113.9"), 403),
    ] {
        let (status, body) = ask(from, forwarded, bound, "GET", "auth/token/lookup-self", Value::Null);
        assert_eq!(status, wanted, "{from} {forwarded:?}: {body}");
    }

    // A quota of one request counts each client behind the proxy, and all that anybody claims as one.
    as_root("POST", "sys/mounts/kv", json!({"type": "kv"}));
    let rule = json!({"rate": 1, "interval": "24h", "path": "kv"});
    assert_eq!(as_root("POST", "sys/quotas/rate-limit/one", rule).0, 204);
    let over = |from, forwarded| ask(from, Some(forwarded), root, "GET", "kv/none", Value::Null).0 == 429;
    assert_eq!([over(PROXY, "192.0.2.1"), over(PROXY, "192.0.2.1")], [false, true]);
    assert!(!over(PROXY, "192.0.2.2"));
    assert_eq!([over(ANYBODY, "192.0.2.3"), over(ANYBODY, "192.0.2.4")], [false, true]);

    // What is recorded.
    let shell = Shell::new(String::new(), None);
    let log = bed.path("audit").display().to_string();
    let recorded = |client: &str| {
        let said = shell.ok(&["--format", "json", "audit", "query", &log, "--client", client]);
        said.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["path"].clone())
            .collect::<Vec<_>>()
    };
    let lookup = json!("auth/token/lookup-self");
    assert_eq!(recorded("203.0.113.9"), [lookup.clone(), lookup]);
    assert_eq!(recorded("192.0.2.1"), [json!("kv/none")]);
    assert_eq!(recorded("192.0.2.3"), [] as [Value; 0], "claimed by somebody who is not believed");
    assert!(recorded(&ANYBODY.to_string()).contains(&json!("kv/none")));
}

#[test]
fn unless_told_otherwise_proxies_must_name_a_client_and_others_must_not() {
    let bed = Bed::new();
    let server = serve(&bed, "tls_disable = true\nx_forwarded_for_authorized_addrs = [\"127.0.0.2/32\"]");
    for (from, forwarded, wanted) in [
        (PROXY, Some("203.0.113.9"), 200),
        (PROXY, Some("nonsense"), 400),
        (PROXY, None, 400),
        (ANYBODY, Some("203.0.113.9"), 400),
        (ANYBODY, None, 400),
    ] {
        let ask = Ask { from, forwarded, token: "" };
        let (status, body) = ask.ask(server.address, "GET", "sys/seal-status", &Value::Null);
        assert_eq!(status, wanted, "{from} {forwarded:?}: {body}");
    }
}

#[test]
fn a_listener_takes_only_bodies_as_large_as_it_is_told() {
    let bed = Bed::new();
    let server = serve(&bed, "tls_disable = true\nmax_request_size = 2048");
    let ask = Ask { from: ANYBODY, forwarded: None, token: "" };
    let sized =
        |length: usize| ask.ask(server.address, "PUT", "sys/unseal", &json!({"key": "a".repeat(length)})).0;
    assert_eq!([sized(1000), sized(2048)], [400, 413]);
}
